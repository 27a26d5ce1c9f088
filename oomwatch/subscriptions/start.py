"""Where a subscription begins."""

from __future__ import annotations

from dataclasses import dataclass

from oomwatch.errors import START_AGAIN, JournalReset


@dataclass(frozen=True, slots=True)
class Latest:
    """With the next event that is told."""


@dataclass(frozen=True, slots=True)
class Earliest:
    """With the oldest event that is kept."""


@dataclass(frozen=True, slots=True)
class AfterRevision:
    """With the event after a revision that was seen: resuming.

    `journal_id` is the cursor's journal, None where the caller does not know it and takes the risk.
    """

    revision: int
    journal_id: str | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """With the first event detected at `time` (microseconds since the epoch) or later."""

    time: int


@dataclass(frozen=True, slots=True)
class LastN:
    """With the last `count` events kept, whether or not the filter takes them."""

    count: int


Start = Latest | Earliest | AfterRevision | Since | LastN


class CursorAhead(JournalReset):
    """The cursor is of a revision that this journal never gave out.

    So it is of another journal, whatever its id says: one restored from an older copy, perhaps.
    `requested_revision` is the cursor's, `newest_revision` the newest here.
    """

    def __init__(
        self,
        requested_revision: int,
        newest_revision: int,
        requested_journal_id: str | None,
        journal_id: str,
        oldest_revision: int,
    ) -> None:
        super().__init__(requested_journal_id or "(unknown)", journal_id, oldest_revision)
        sentence = (
            f"revision {requested_revision} is in the future: the newest of journal {journal_id} "
            f"is {newest_revision}, so the cursor is of another journal or of a lost copy of this "
            f"one; {START_AGAIN}"
        )
        self.args = (sentence,)
        self.requested_revision = requested_revision
        self.newest_revision = newest_revision
