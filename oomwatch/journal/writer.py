"""The journal's one writer: a thread that turns whatever is queued into one transaction.

The loop only queues. Encoding, fsync, retention and checkpoints are done here, and what was
committed is posted back with one call to the loop a batch. Revisions are given here, by the only
one who writes, before the commit.

A write that fails drops nothing: the batch stays at the head of the queue, in order, and is tried
again with a growing pause. When the disk is full the reserve is spent and the oldest events are
deleted, which leaves room inside the database, so that the newest kills are still told.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from oomwatch.containers.lives import LivesChange
from oomwatch.errors import JournalUnusable
from oomwatch.event_json import event_dumps
from oomwatch.events import Entry, Event
from oomwatch.journal.files import StateDirectory, is_full, unusable
from oomwatch.journal.store import EncodedEvent, Store
from oomwatch.ledger import LedgerChange

_LOG = logging.getLogger("oomwatch.journal")

# A larger transaction saves little, and its encoding would keep the loop waiting for the GIL.
_BATCH_EVENTS = 256
# Of a larger transaction nothing is told before it is committed: then throughput is what counts.
_TOLD_AHEAD_EVENTS = 8
# While the disk refuses, smaller ones: they fit where little room is left.
_CAUTIOUS_BATCH_EVENTS = 32
_ROOM_BYTES = 1 << 17
_DELETE_AT_ONCE = 4096
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_AGE_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history is kept: at most so many events, none older than so many seconds.

    Both are checked at opening and then now and again after commits, so that a hundredth more
    events than `max_events`, and on an idle host older ones, may be there for a while.
    """

    max_events: int = 100_000
    max_age_seconds: float = 30 * 86400

    def __post_init__(self) -> None:
        if self.max_events < 1:
            raise ValueError(f"retention of {self.max_events} events: keep at least 1")
        if self.max_age_seconds < 0:
            raise ValueError(f"retention of {self.max_age_seconds} s: give 0 or more")

    def compact(self, store: Store) -> int:
        """Delete what is too much or too old; returns how many events went."""
        oldest_time = time.time_ns() // 1000 - int(self.max_age_seconds * 1_000_000)
        return store.compact(self.max_events, oldest_time)

    @property
    def slack(self) -> int:
        """Commits of so many events in all may pass between two looks."""
        return max(1, self.max_events // 100)


@dataclass(frozen=True, slots=True)
class Append:
    """What one call of `Journal.append` asked to have written as a whole."""

    events: tuple[Event, ...]
    change: LedgerChange
    lives: LivesChange


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction wrote: how many appends, and their events in order."""

    appends: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Reports:
    """What the writer says to the loop; each is called there, in the order of happening."""

    syncing: Callable[[tuple[Entry, ...]], None]
    """Called with what is about to be committed, if that is little, while the disk syncs."""
    committed: Callable[[Commit], None]
    compacted: Callable[[int, int], None]
    """Called with `compacted_through`, and how many events were deleted."""
    health: Callable[[bool, str], None]
    stopped: Callable[[], None]


class Writer:
    """The thread, its queue, and what it does when the disk refuses."""

    def __init__(
        self,
        store: Store,
        directory: StateDirectory | None,
        retention: Retention,
        boot_id: str,
        loop: asyncio.AbstractEventLoop,
        reports: Reports,
    ) -> None:
        self._store = store
        self._directory = directory
        self._retention = retention
        self._boot_id = boot_id
        self._loop = loop
        self._reports = reports
        self._queue: deque[Append] = deque()
        self._queued = threading.Condition()
        self._stopping = threading.Event()
        self._in_doubt: tuple[int, Commit] | None = None
        self._healthy = True
        self._pause = _FIRST_PAUSE_SECONDS
        self._batch_events = _BATCH_EVENTS
        self._said_full = False
        self._deleted_for_room = 0
        self._since_retention = 0
        self._next_age_check = time.monotonic() + _AGE_CHECK_SECONDS
        self._thread = threading.Thread(
            target=self._run, name="oomwatch-journal-write", daemon=True
        )
        self._thread.start()

    def append(self, append: Append) -> None:
        """Queue for the next transaction. Never waits for the disk."""
        with self._queued:
            self._queue.append(append)
            self._queued.notify()

    def stop(self) -> None:
        """Have everything queued written, with one last try if the disk refuses, and end.

        `Reports.stopped` follows.
        """
        self._stopping.set()
        with self._queued:
            self._queued.notify()

    def join(self) -> None:
        """Wait for the thread, which has nothing left to do once it said that it stopped."""
        self._thread.join()

    def lacks_room(self) -> bool:
        """Whether the disk refused for want of room, and has none yet. For the loop to ask."""
        if not self._said_full or self._directory is None:
            return False
        # The thread looks again as it writes next, which on an idle host may be much later.
        with suppress(OSError):
            return not self._directory.may_grow()
        return True

    def _run(self) -> None:
        try:
            while self._await_work() and (self._write() or self._pause_before_retry()):
                pass
        finally:
            self._post(self._reports.stopped)

    def _await_work(self) -> bool:
        with self._queued:
            while not self._queue and not self._stopping.is_set():
                self._queued.wait()
            return bool(self._queue)

    def _pause_before_retry(self) -> bool:
        """Wait a while; False when there is to be no further try."""
        if self._stopping.is_set():
            return False
        self._stopping.wait(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        return True

    def _write(self) -> bool:
        """Commit the head of the queue; False when the disk refused."""
        try:
            commit = self._settle_doubt() or self._commit_head()
        except (sqlite3.Error, OSError) as error:
            second = self._commit_after_making_room(error) if is_full(error) else None
            if second is None:
                self._say_unhealthy(str(unusable(self._store.name, error)))
                return False
            commit = second
        except JournalUnusable as error:
            self._say_unhealthy(str(error))
            return False
        except Exception as error:  # noqa: BLE001
            # What cannot be written as JSON: a fault of ours that must not end the thread unseen.
            _LOG.exception("journal %s: an event cannot be written", self._store.name)
            self._say_unhealthy(
                f"journal {self._store.name}: an event cannot be written ({error}); report it, and "
                "restart oomwatch: the kernel keeps the counts"
            )
            return False
        with self._queued:
            for _ in range(commit.appends):
                self._queue.popleft()
        self._post(self._reports.committed, commit)
        self._say_healthy()
        self._tidy(len(commit.entries))
        return True

    def _commit_head(self) -> Commit:
        appends: list[Append] = []
        count = 0
        with self._queued:
            for append in self._queue:
                if appends and count + len(append.events) > self._batch_events:
                    break
                appends.append(append)
                count += len(append.events)
        events = [event for append in appends for event in append.events]
        encoded = [EncodedEvent(event.detect_time, event_dumps(event)) for event in events]
        commit = self._numbered(len(appends), self._store.newest + 1, events)
        if events:
            self._in_doubt = (commit.entries[-1].revision, commit)
        self._store.commit(
            self._boot_id,
            encoded,
            [append.change for append in appends],
            lambda: self._tell_ahead(commit.entries),
            [append.lives for append in appends],
        )
        self._in_doubt = None
        return commit

    def _tell_ahead(self, entries: tuple[Entry, ...]) -> None:
        """Use the loop while the disk syncs: now, since earlier it would take the GIL from us."""
        if self._directory is not None and 0 < len(entries) <= _TOLD_AHEAD_EVENTS:
            self._post(self._reports.syncing, entries)

    def _numbered(self, appends: int, first: int, events: Sequence[Event]) -> Commit:
        journal_id = self._store.id
        return Commit(
            appends,
            tuple(
                Entry(revision, journal_id, event) for revision, event in enumerate(events, first)
            ),
        )

    def _settle_doubt(self) -> Commit | None:
        """Give the commit that failed and landed all the same, so that it is not written twice."""
        if self._in_doubt is None:
            return None
        revision, commit = self._in_doubt
        landed = self._store.landed(revision)
        self._in_doubt = None
        return commit if landed else None

    def _commit_after_making_room(self, error: sqlite3.Error | OSError) -> Commit | None:
        """Try again with the reserve spent and, if need be, the oldest of history gone."""
        if not self._said_full:
            self._said_full = True
            _LOG.warning(
                "journal %s: the disk is full (%s): the oldest events are deleted for the newest "
                "until space is freed on its filesystem",
                self._store.name,
                error,
            )
        self._batch_events = _CAUTIOUS_BATCH_EVENTS
        for _ in range(3):
            try:
                self._make_room()
                return self._settle_doubt() or self._commit_head()
            except (sqlite3.Error, OSError) as again:
                if not is_full(again):
                    return None
        return None

    def _make_room(self) -> None:
        """Spend the reserve on the log, then live within the file as it is until there is room.

        A file that may not grow is what keeps this safe: else the log would fill with pages that
        no checkpoint can place, and then nothing could even be deleted.
        """
        directory = self._directory
        if directory is None:
            return
        directory.spend_reserve()
        self._reuse_log()
        self._store.allow_growth(directory.may_grow())
        self._delete_oldest()

    def _reuse_log(self) -> None:
        """A log that is all in the database is written again from its start, in the same room."""
        try:
            self._store.checkpoint()
        except sqlite3.Error as error:
            if not is_full(error):
                raise

    def _delete_oldest(self) -> None:
        kept = self._store.newest - self._store.compacted_through
        if kept and self._store.free_bytes() < _ROOM_BYTES:
            deleted = min(max(1, kept // 4), _DELETE_AT_ONCE)
            # Said as a sum once there is room: on a full disk every commit deletes some.
            gone = self._store.compact(kept - deleted, 0)
            self._deleted_for_room += gone
            self._post_compacted(gone)
            self._reuse_log()

    def _tidy(self, events: int) -> None:
        """Retention and checkpoint, now and again, after the events were handed on."""
        self._since_retention += events
        now = time.monotonic()
        try:
            if self._since_retention >= self._retention.slack or now >= self._next_age_check:
                self._since_retention = 0
                self._next_age_check = now + _AGE_CHECK_SECONDS
                self._report_compacted(self._retention.compact(self._store))
                if self._directory is not None and self._directory.hold_reserve():
                    self._say_room()
                    self._store.allow_growth(True)
            self._store.checkpoint_if_due()
        except (sqlite3.Error, OSError) as error:
            # Nothing is lost: a later commit tries again, and says so if the disk is ill.
            _LOG.warning("%s", unusable(self._store.name, error))

    def _say_room(self) -> None:
        if self._said_full:
            through, deleted = self._store.compacted_through, self._deleted_for_room
            _LOG.warning(
                "journal %s: there is room again; events deleted meanwhile: %d, up to revision %d",
                self._store.name,
                deleted,
                through,
            )
        self._said_full, self._deleted_for_room = False, 0

    def _report_compacted(self, deleted: int) -> None:
        if deleted:
            through = self._store.compacted_through
            _LOG.info(
                "journal %s: events deleted, as they are old or too many: %d, up to revision %d",
                self._store.name,
                deleted,
                through,
            )
            self._post_compacted(deleted)

    def _post_compacted(self, deleted: int) -> None:
        if deleted:
            self._post(self._reports.compacted, self._store.compacted_through, deleted)

    def _say_unhealthy(self, sentence: str) -> None:
        if self._healthy:
            self._healthy = False
            _LOG.error("%s; events are held until then", sentence)
        self._post(self._reports.health, False, sentence)

    def _say_healthy(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS
        self._batch_events = _BATCH_EVENTS
        if not self._healthy:
            self._healthy = True
            _LOG.warning("journal %s: written again; nothing was dropped", self._store.name)
            self._post(self._reports.health, True, "")

    def _post(self, report: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(report, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to tell. What was committed stays committed.
            self._stopping.set()
