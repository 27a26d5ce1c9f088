"""How far the kernel log was told: what is committed with the events, and read again after a crash.

The log is read ahead of what is told of it: a line waits for its counter, a late one for its
amendment. So a place in it is where reading went on, and the lines before it that are in no event.
"""

from __future__ import annotations

from collections.abc import Iterable

from oomwatch.ledger import LogPlace
from oomwatch.observations import LogRead, LogSpan

MAX_UNTOLD = 1024
"""Lines that wait are few; of more, the newest are kept."""


class LogProgress:
    """The place in the log, and whether it was committed."""

    def __init__(self) -> None:
        self._read: LogRead | None = None
        self._committed: LogPlace | None = None
        self._wanted = False

    def read(self, observation: LogRead) -> None:
        """Take in how far the log was read."""
        self._read = observation
        self._wanted = self._wanted or observation.keep

    def take(self, waiting: Iterable[LogSpan | None], *, committing: bool) -> LogPlace | None:
        """Return the place to commit; `None` where it is committed, or not worth it by itself.

        `waiting` are the lines that are in no event yet, `committing` says that something else is
        committed anyway.
        """
        read = self._read
        if read is None or not (committing or self._wanted):
            return None
        spans = [s for s in waiting if s is not None and s.log == read.log and s.line < read.next]
        spans = sorted(spans, key=lambda span: span.line)[-MAX_UNTOLD:]
        place = LogPlace(
            log=read.log,
            begin=min([read.begin, *(span.begin for span in spans)]),
            next=read.next,
            untold=tuple(span.line for span in spans),
            stamp=read.stamp,
            wall_time=read.wall_time,
        )
        self._wanted = False
        if place == self._committed:
            return None
        self._committed = place
        return place
