"""The journal: what was told, in order, and the only queue there is.

Appending events and advancing the ledger is one transaction: that is what makes a crash lose
nothing and tell nothing twice. Revisions rise by one and are never used again. The loop appends and
is called back; a thread of the journal's own writes, another reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from oomwatch.containers.lives import Life, LivesChange
from oomwatch.errors import HistoryCompacted, JournalError, JournalUnusable
from oomwatch.events import ContainerExit, Entry, Event
from oomwatch.journal.files import StateDirectory, unusable
from oomwatch.journal.store import Store
from oomwatch.journal.writer import Append, Commit, Reports, Retention, Writer
from oomwatch.ledger import LedgerChange, LedgerRow, LogPlace
from oomwatch.status import JournalStatus

__all__ = ["Journal", "Retention"]

_LOG = logging.getLogger("oomwatch.journal")
_Read = TypeVar("_Read")

_READ_AGAIN_SECONDS = 1.0


class Journal:
    """An open journal. Belongs to one event loop from `start` on.

    `id` names the database (uuid4 hex, made with it); `newest_revision` is the revision last handed
    to `on_commit`, 0 while there is none; `oldest_revision` is the oldest that can still be read,
    one past the newest where none can; `compacted_events` counts what retention deleted since the
    journal was opened.
    """

    def __init__(
        self, store: Store, directory: StateDirectory | None, retention: Retention
    ) -> None:
        """For `open`, which see."""
        self._store = store
        self._directory = directory
        self._retention = retention
        self._writer: Writer | None = None
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="oomwatch-journal-read")
        self._appended = 0
        self._committed = 0
        self._pending_events = 0
        self._flushing: list[tuple[int, asyncio.Future[None]]] = []
        self._stopped: asyncio.Event = asyncio.Event()
        self._closed = False
        self._trouble = ""
        self._unread = ""
        self._read_again: asyncio.TimerHandle | None = None
        self._reading_again: asyncio.Task[None] | None = None
        self._on_commit: Callable[[tuple[Entry, ...]], None] = lambda entries: None
        self._on_health: Callable[[bool, str], None] = lambda healthy, sentence: None
        self._on_sync: Callable[[tuple[Entry, ...]], None] = lambda entries: None
        self.id = store.id
        self.newest_revision = store.newest
        self.oldest_revision = store.compacted_through + 1
        self.compacted_events = 0

    @classmethod
    def open(cls, state_dir: Path | None, *, retention: Retention | None = None) -> Journal:
        """Open the journal in `state_dir`, or make it; None keeps it in memory. Blocks.

        Raises JournalLocked where another process holds it, and JournalUnusable where it is
        damaged, was cut short or written by a newer oomwatch, or where its disk refuses.
        """
        retention = retention or Retention()
        directory = StateDirectory(state_dir) if state_dir is not None else None
        try:
            store = Store(directory)
            try:
                journal = cls(store, directory, retention)
                journal._keep_only_recent()
            except BaseException:
                store.close()
                raise
        except BaseException:
            if directory is not None:
                directory.close()
            raise
        return journal

    def _keep_only_recent(self) -> None:
        try:
            deleted = self._retention.compact(self._store)
        except (sqlite3.Error, OSError) as error:
            raise unusable(self._store.name, error) from error
        if deleted:
            self._compaction_told(self._store.compacted_through, deleted)
        if self._directory is not None:
            self._directory.hold_reserve()

    def earlier_boot(self, boot_id: str) -> tuple[str, int | None] | None:
        """Another boot of the node whose events this journal still had open, as this one began.

        Given with the newest event's `detect_time`; None where there was none, and after the first
        commit of this boot. Blocks. Raises JournalUnusable where it cannot be read.
        """
        return self._store.earlier_boot(boot_id)

    @property
    def died(self) -> int | None:
        """The pid of the process that held this journal last and did not close it, if any."""
        return self._directory.died if self._directory is not None else None

    def load_ledger(self, boot_id: str) -> tuple[LedgerRow, ...] | None:
        """What was told in this boot; None where this journal never recorded it. Blocks.

        Raises JournalUnusable where it cannot be read.
        """
        return self._store.load_ledger(boot_id)

    def load_lives(self, boot_id: str) -> Iterator[Life]:
        """The lives of containers in this boot, those that ended lately included. Each blocks, and
        nothing else can be read until the last.

        Raises JournalUnusable where they cannot be read.
        """
        return self._store.load_lives(boot_id)

    def load_log_place(self, boot_id: str) -> LogPlace | None:
        """How far the kernel log was told in this boot; None where nothing of it ever was. Blocks.

        Raises JournalUnusable where it cannot be read.
        """
        return self._store.load_log_place(boot_id)

    def start(
        self,
        boot_id: str,
        on_commit: Callable[[tuple[Entry, ...]], None],
        on_health: Callable[[bool, str], None] | None = None,
        on_sync: Callable[[tuple[Entry, ...]], None] | None = None,
    ) -> None:
        """Begin to write, on the running loop.

        `on_commit` is called on the loop once for each transaction that had events, in order.
        `on_health` is called with False and a sentence when writing fails (again for every failed
        try) or reading does, and with True when both succeed again. `on_sync` is called with a few
        entries while the disk syncs them, so that they can be made ready: they may not be told yet,
        nor ever, since after a failure their events get entries of their own. Not all entries pass
        by it, and none of a journal in memory.
        """
        if self._writer is not None:
            raise JournalError(f"journal {self._store.name} was started already")
        self._on_commit = on_commit
        if on_health is not None:
            self._on_health = on_health
        if on_sync is not None:
            self._on_sync = on_sync
        reports = Reports(
            self._on_sync,
            self._commit_told,
            self._compaction_told,
            self._health_told,
            self._stopped.set,
        )
        self._writer = Writer(
            self._store,
            self._directory,
            self._retention,
            boot_id,
            asyncio.get_running_loop(),
            reports,
        )

    def append(
        self, events: Sequence[Event], change: LedgerChange, lives: LivesChange | None = None
    ) -> None:
        """Queue events, what they change in the ledger, and what was learned of containers' lives.

        They are written as one. Never blocks.

        Raises JournalError before `start` and after `close`.
        """
        if self._writer is None or self._closed:
            state = "closed" if self._closed else "not started"
            raise JournalError(f"journal {self._store.name} is {state}: nothing can be appended")
        append = Append(tuple(events), change, lives or LivesChange())
        self._appended += 1
        self._pending_events += len(append.events)
        self._writer.append(append)

    async def flush(self) -> bool:
        """Wait until all that was appended so far is committed: True.

        False at once when the journal is unhealthy, or as soon as it becomes so.
        """
        target = self._appended
        if self._committed < target and not self._trouble:
            done = asyncio.get_running_loop().create_future()
            self._flushing.append((target, done))
            await done
        return self._committed >= target

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Up to `limit` entries with a revision above `after`, oldest first.

        Nothing is given that `on_commit` was not told yet. Raises HistoryCompacted where events
        after `after` were deleted, JournalUnusable where the disk refuses.
        """
        return await self._reading(self._store.read, after, self.newest_revision, limit)

    async def get(self, revision: int) -> Entry | None:
        """The entry of this revision; None where there is none, or no longer.

        Raises JournalUnusable where the disk refuses.
        """
        if not self.oldest_revision <= revision <= self.newest_revision:
            return None
        return await self._reading(self._store.get, revision)

    async def exit_of(
        self, container_id: str, cgroup_id: int | None, episode_ids: list[str]
    ) -> tuple[int, ContainerExit] | None:
        """The exit of a life as it was told last, with its revision; `None` where it is not kept.

        It is found by its cgroup, or where that was not known by the episode that it was told in.
        Raises JournalUnusable where the disk refuses.
        """
        return await self._reading(self._store.exit_of, container_id, cgroup_id, episode_ids)

    async def revision_since(self, time_us: int) -> int:
        """A cursor: reading after it begins with the first event that has this `detect_time`
        (microseconds since the epoch) or a later one.

        It is the newest revision where there is no such event yet. Raises JournalUnusable where the
        disk refuses.
        """
        first = await self._reading(self._store.first_since, time_us)
        return self.newest_revision if first is None else min(first - 1, self.newest_revision)

    async def cursor_for_last(self, n: int) -> int:
        """A cursor: reading after it gives the last `n` events, or all there are."""
        return max(self.oldest_revision - 1, self.newest_revision - max(n, 0))

    def status(self) -> JournalStatus:
        """How the journal is doing; `detail` names the path, and the mend where it is unhealthy."""
        events = self.newest_revision - self.oldest_revision + 1
        trouble = self._trouble or self._unread
        full = self._writer is not None and self._writer.lacks_room()
        detail = f"journal {self._store.name}: {events} events kept"
        if full:
            detail += "; its disk is full: the oldest are deleted for the newest"
        return JournalStatus(
            journal_id=self.id,
            healthy=not trouble,
            detail=trouble or detail,
            oldest_revision=self.oldest_revision,
            newest_revision=self.newest_revision,
            events=events,
            pending_events=self._pending_events,
            size_bytes=self._directory.size_bytes() if self._directory else None,
            path=self._store.name if self._directory else None,
            disk_full=full,
        )

    async def close(self) -> None:
        """Commit what can be committed, end the threads, and let another process have it.

        What the disk refuses to the last is not written; the kernel keeps its sum.
        """
        if self._closed:
            return
        self._closed = True
        if self._read_again is not None:
            self._read_again.cancel()
        if self._writer is not None:
            self._writer.stop()
            await self._stopped.wait()
            self._writer.join()
            if self._pending_events:
                _LOG.error(
                    "journal %s: closed with %d events unwritten: %s",
                    self._store.name,
                    self._pending_events,
                    self._trouble,
                )
        self._wake_flushing(give_up=True)
        self._readers.shutdown(wait=True)
        self._store.close()
        if self._directory is not None:
            self._directory.close()

    async def _reading(self, read: Callable[..., _Read], *arguments: object) -> _Read:
        if self._closed:
            raise JournalError(f"journal {self._store.name} is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, read, *arguments)
        except JournalUnusable as error:
            self._cannot_read(str(error), partial(self._reading, read, *arguments))
            raise

    def _can_read(self) -> None:
        if self._unread:
            self._unread = ""
            again = f"journal {self._store.name}: what was told can be read again"
            self._on_health(not self._trouble, self._trouble or again)

    def _cannot_read(self, sentence: str, again: Callable[[], Awaitable[object]]) -> None:
        """Say so, once, and look there again soon: nobody else may ask for it, and whoever reads
        the rest of it says nothing of this.

        What is written goes by SQLite's cache, and may go well where the file is damaged.
        """
        if sentence != self._unread:
            self._unread = sentence
            self._on_health(False, f"what was told cannot be read: {sentence}")
        if self._read_again is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._read_again = loop.call_later(_READ_AGAIN_SECONDS, self._look_again, again)

    def _look_again(self, again: Callable[[], Awaitable[object]]) -> None:
        async def look() -> None:
            # Not there any more is an answer too; where it fails as before, that was noted.
            with contextlib.suppress(JournalError):
                with contextlib.suppress(HistoryCompacted):
                    await again()
                self._can_read()

        self._read_again = None
        self._reading_again = asyncio.get_running_loop().create_task(look())

    def _commit_told(self, commit: Commit) -> None:
        self._committed += commit.appends
        self._pending_events -= len(commit.entries)
        if commit.entries:
            self.newest_revision = commit.entries[-1].revision
            self._on_commit(commit.entries)
        self._wake_flushing()

    def _compaction_told(self, through: int, deleted: int) -> None:
        self.oldest_revision = through + 1
        self.compacted_events += deleted

    def _health_told(self, healthy: bool, sentence: str) -> None:
        self._trouble = "" if healthy else sentence
        self._wake_flushing(give_up=not healthy)
        self._on_health(healthy and not self._unread, sentence)

    def _wake_flushing(self, *, give_up: bool = False) -> None:
        waiting, self._flushing = self._flushing, []
        for target, done in waiting:
            if done.done():
                continue
            if give_up or self._committed >= target:
                done.set_result(None)
            else:
                self._flushing.append((target, done))
