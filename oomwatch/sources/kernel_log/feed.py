"""What each form of the kernel's log gives to the witness: lines in order, and what was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from oomwatch.kernel_log.record import Record
from oomwatch.ledger import LogPlace
from oomwatch.observations import LogRead


@dataclass(frozen=True, slots=True)
class Line:
    """One record; its place in the log is `record.line`.

    `log` and `next` say where reading goes on after it (see `LogPlace`). `time` is when it was
    printed, in microseconds of wall time. `told` is False where it is old news, read for its report
    only, and `recovered` True where it was written while nobody watched.
    """

    record: Record
    log: str
    next: int
    time: int
    told: bool = True
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Records are gone before they were read: how many, where that is known, and since when."""

    reason: str
    count: int | None = None
    since: int | None = None


Take = Callable[[Sequence[Line | Lost]], None]
"""Takes what was read at one wake."""


class Feed(Protocol):
    """One form of the kernel's log."""

    @property
    def problem(self) -> str | None:
        """Why nothing is read now, and the mend; `None` while it is followed."""
        ...

    @property
    def detail(self) -> str:
        """What is followed, in words."""
        ...

    @property
    def figures(self) -> Mapping[str, int]:
        """Counts worth a metric."""
        ...

    async def start(self, place: LogPlace | None, take: Take) -> None:
        """Take in what was written since `place` (nothing, where that is `None`), then follow.

        OSError where the log cannot be opened.
        """
        ...

    def beginning(self) -> list[LogRead]:
        """Say where it begins to follow, where it read no line before that."""
        ...

    async def stop(self) -> None:
        """Give everything back. Never fails, also where `start` did."""
        ...


def is_untold(place: LogPlace | None, at: int) -> bool:
    """Has the line at `at`, of the log that `place` is of, been in no event yet?"""
    return place is not None and (at >= place.next or at in place.untold)
