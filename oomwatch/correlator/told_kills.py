"""The kills that were told lately, each with what may still be appended to it, and when.

A kill can be amended once the journal gave it its revision. What is learned of it makes it *due* a
moment later, so that what comes together is told together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from oomwatch.events import OomKill
from oomwatch.observations import Recorded

IsCandidate = Callable[[str, int], int | None]
"""Is a candidate of a sum that was read then the container's that is meant? Its inode, 0 if that is
not known, `None` if it is another's."""


@dataclass(slots=True, kw_only=True, eq=False)
class ToldKill:
    """A kill that was told at a time (monotonic seconds), and its revision once it is known."""

    event: OomKill
    at: float
    revision: int | None = None
    due: float | None = None


_Kill = TypeVar("_Kill", bound=ToldKill)


class ToldKills(Generic[_Kill]):
    """Told kills in order. Few of them are due at any time: only those are asked at every wake."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._kills: deque[_Kill] = deque()
        self._unrecorded: dict[tuple[str, str | None], _Kill] = {}
        self._due: list[_Kill] = []

    def __len__(self) -> int:
        return len(self._kills)

    def __iter__(self) -> Iterator[_Kill]:
        return iter(self._kills)

    def __reversed__(self) -> Iterator[_Kill]:
        return reversed(self._kills)

    @property
    def oldest(self) -> _Kill:
        """The kill that was told first; there must be one."""
        return self._kills[0]

    def add(self, kill: _Kill) -> None:
        """Remember one more."""
        self._kills.append(kill)
        if kill.revision is None:
            self._unrecorded[_key(kill)] = kill

    def forget_oldest(self) -> None:
        """Forget the kill that was told first, with what was to be appended to it."""
        kill = self._kills.popleft()
        if kill.revision is None and self._unrecorded.get(_key(kill)) is kill:
            del self._unrecorded[_key(kill)]
        if kill.due is not None:
            self._due.remove(kill)

    def recorded(self, recorded: Recorded) -> None:
        """Take in a kill's revision: from now on it can be amended.

        What was told may be no kill, or one that is not remembered.
        """
        kill = self._unrecorded.pop((recorded.episode_id, recorded.victim_cgroup), None)
        if kill is not None:
            kill.revision = recorded.revision

    def amend(self, kill: _Kill, now: float) -> None:
        """Something was learned of a kill: it is due in a moment, if it is not already."""
        if kill.due is None:
            kill.due = now + self._settle_seconds
            self._due.append(kill)

    @property
    def deadline(self) -> float | None:
        """When `take_due` must be called next; `None` while there is nothing to amend."""
        times = (kill.due for kill in self._due if kill.revision is not None)
        return min((due for due in times if due is not None), default=None)

    def take_due(self, now: float) -> list[tuple[_Kill, int]]:
        """Return the kills to be amended now, with their revisions, in the order of telling."""
        deadline = self.deadline
        if deadline is None or deadline > now:
            return []
        taken: list[tuple[_Kill, int]] = []
        for kill in self._kills:
            if kill.due is not None and kill.due <= now and kill.revision is not None:
                kill.due = None
                self._due.remove(kill)
                taken.append((kill, kill.revision))
        return taken


def _key(kill: ToldKill) -> tuple[str, str | None]:
    return kill.event.episode_id, kill.event.victim_cgroup
