"""The transactions on the journal's tables. Blocking; knows nothing of threads' order.

SQLite in WAL mode with synchronous=FULL: a commit that returned survives power loss
(https://www.sqlite.org/pragma.html#pragma_synchronous). Readers have a connection of their own and
never wait for the writer. A journal in memory has one connection for both, since two can share a
memory database only through SQLite's shared cache, whose table locks no timeout waits for.

Checkpoints are not left to COMMIT, where they would delay the event: `checkpoint_if_due` runs
after the event was handed on.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

from oomwatch.containers.lives import Life, LivesChange
from oomwatch.errors import HistoryCompacted, JournalError
from oomwatch.event_json import event_loads
from oomwatch.events import ContainerExit, Entry
from oomwatch.journal.exits import read_exit
from oomwatch.journal.files import StateDirectory, damaged, is_full, unusable
from oomwatch.journal.lives import read_lives, write_lives
from oomwatch.journal.log_places import read_place, write_place
from oomwatch.journal.schema import connect, prepare, read_meta, read_sequence
from oomwatch.ledger import LedgerChange, LedgerRow, LogPlace

_CHECKPOINT_PAGES = 800
_FRAMES_PER_COMMIT = 5
_PAGE = 4096
_MOST_PAGES = 1073741823


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event as it is written: its time for `--since`, and its JSON."""

    detect_time: int
    text: str


class Store:
    """An open journal database. `newest` and `compacted_through` follow every transaction.

    Methods of the writer (commit, compact, checkpoint) are for one thread at a time; the reading
    ones may run beside it in another.
    """

    def __init__(self, directory: StateDirectory | None) -> None:
        """Open or make the database; raises JournalUnusable, naming the path and the mend."""
        self._directory = directory
        self.name = str(directory.database) if directory else "(in memory)"
        self._uncheckpointed_pages = 0
        self._marked_boot: str | None = None
        try:
            self._writer = self._open_writer()
        except (sqlite3.Error, OSError) as error:
            if directory is None or not is_full(error):
                raise unusable(self.name, error) from error
            directory.spend_reserve()
            try:
                self._writer = self._open_writer()
            except (sqlite3.Error, OSError) as again:
                raise unusable(self.name, again) from again
        self._write_lock = threading.Lock()
        if directory is None:
            self._reader, self._read_lock = self._writer, self._write_lock
            return
        try:
            self._inode = directory.database.stat().st_ino
            self._reader = connect(f"file:{quote(self.name)}?mode=ro", uri=True)
        except (sqlite3.Error, OSError) as error:
            self._writer.close()
            raise unusable(self.name, error) from error
        self._read_lock = threading.Lock()

    def _open_writer(self) -> sqlite3.Connection:
        if self._directory is None:
            connection = connect(":memory:")
        else:
            self._directory.create_database()
            connection = connect(self.name)
        try:
            prepare(connection, self.name, on_disk=self._directory is not None)
            self.id = str(read_meta(connection, "journal_id"))
            self.compacted_through = int(read_meta(connection, "compacted_through"))
            self.newest = read_sequence(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def commit(
        self,
        boot_id: str,
        events: Sequence[EncodedEvent],
        changes: Sequence[LedgerChange],
        syncing: Callable[[], None] = lambda: None,
        lives: Sequence[LivesChange] = (),
    ) -> int:
        """Write events, ledger and lives as one transaction, and return the first event's revision.

        `syncing` is called when nothing is left but to wait for the disk.
        Raises sqlite3.Error or OSError; then nothing was written, unless `landed` says otherwise.
        """
        first = self.newest + 1
        rows, removed = _coalesced(changes)
        place = next((change.log for change in reversed(changes) if change.log), None)
        mark = self._marked_boot != boot_id
        if not (events or rows or removed or place or mark or any(lives)):
            return first
        self._check_in_place()
        with self._transaction() as connection:
            if mark:
                connection.execute("DELETE FROM ledger WHERE boot_id != ?", (boot_id,))
                connection.execute("DELETE FROM boots WHERE boot_id != ?", (boot_id,))
                connection.execute("DELETE FROM lives WHERE boot_id != ?", (boot_id,))
                connection.execute("DELETE FROM log WHERE boot_id != ?", (boot_id,))
                connection.execute("INSERT OR IGNORE INTO boots VALUES (?)", (boot_id,))
            if events:
                connection.executemany(
                    "INSERT INTO events VALUES (?, ?, ?)",
                    [
                        (revision, event.detect_time, event.text)
                        for revision, event in enumerate(events, first)
                    ],
                )
            if rows:
                connection.executemany(
                    "INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [_row_values(boot_id, row) for row in rows],
                )
            if removed:
                connection.executemany(
                    "DELETE FROM ledger WHERE boot_id = ? AND cgroup_id = ?",
                    [(boot_id, _signed(cgroup_id)) for cgroup_id in removed],
                )
            write_lives(connection, boot_id, lives)
            write_place(connection, boot_id, place)
            syncing()
        self._marked_boot = boot_id
        self.newest = first + len(events) - 1
        self._uncheckpointed_pages += _FRAMES_PER_COMMIT + len(rows) // 32
        self._uncheckpointed_pages += sum(len(event.text) for event in events) // _PAGE
        return first

    def landed(self, revision: int) -> bool:
        """After a failed commit: is the event of this revision there all the same?

        A COMMIT can write its record and then fail on a later step. Raises sqlite3.Error where that
        cannot be read now.
        """
        with self._write_lock:
            self.newest = read_sequence(self._writer)
        return self.newest >= revision

    def compact(self, max_events: int, oldest_time: int) -> int:
        """Delete the oldest events beyond `max_events` and those before `oldest_time` (µs).

        Only a prefix is deleted, so that one number says what is gone: an old event behind a young
        one, as after a step of the clock, waits. Returns how many were deleted.
        """
        through = self.newest - max_events
        with self._write_lock:
            young = self._writer.execute(
                "SELECT revision FROM events NOT INDEXED WHERE detect_time >= ? "
                "ORDER BY revision LIMIT 1",
                (oldest_time,),
            ).fetchone()
        through = max(through, self.newest if young is None else young[0] - 1)
        if through <= self.compacted_through:
            return 0
        with self._transaction() as connection:
            deleted = connection.execute(
                "DELETE FROM events WHERE revision <= ?", (through,)
            ).rowcount
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'compacted_through'", (through,)
            )
        self.compacted_through = through
        self._uncheckpointed_pages += 2 * _FRAMES_PER_COMMIT + deleted // 8
        return deleted

    def allow_growth(self, allowed: bool) -> None:
        """Let the database file grow, or keep it at its present size."""
        with self._write_lock:
            # SQLite takes no limit below the present size: 1 means that.
            limit = _MOST_PAGES if allowed else 1
            self._writer.execute(f"PRAGMA max_page_count = {limit}").fetchone()

    def free_bytes(self) -> int:
        """Bytes inside the database that deleted events left for new ones."""
        with self._write_lock:
            (pages,) = self._writer.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * _PAGE

    def checkpoint_if_due(self) -> None:
        """Bring the write-ahead log into the database when it has grown enough."""
        if self._uncheckpointed_pages >= _CHECKPOINT_PAGES:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring the write-ahead log into the database, so that its room is used again."""
        with self._write_lock:
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._uncheckpointed_pages = 0

    def earlier_boot(self, boot_id: str) -> tuple[str, int | None] | None:
        """Another boot that was written last, and the newest event's time; None without one.

        The first commit of this boot forgets it.
        """
        with self._reading() as connection:
            found = connection.execute(
                "SELECT boot_id FROM boots WHERE boot_id != ? LIMIT 1", (boot_id,)
            ).fetchone()
            if found is None:
                return None
            newest = connection.execute(
                "SELECT detect_time FROM events ORDER BY revision DESC LIMIT 1"
            ).fetchone()
        return str(found[0]), newest[0] if newest else None

    def load_ledger(self, boot_id: str) -> tuple[LedgerRow, ...] | None:
        """What was told in this boot; None where nothing of it was ever committed."""
        with self._reading() as connection:
            if not connection.execute(
                "SELECT 1 FROM boots WHERE boot_id = ?", (boot_id,)
            ).fetchone():
                return None
            rows = connection.execute(
                "SELECT cgroup_id, counter_id, told, accounted, oom, group_kill FROM ledger "
                "WHERE boot_id = ? ORDER BY cgroup_id",
                (boot_id,),
            ).fetchall()
        return tuple(
            LedgerRow(_unsigned(cgroup_id), _unsigned(counter_id), *counts)
            for cgroup_id, counter_id, *counts in rows
        )

    def load_lives(self, boot_id: str) -> Iterator[Life]:
        """The lives of containers in this boot, those that ended lately included."""
        with self._reading() as connection:
            yield from read_lives(connection, boot_id)

    def load_log_place(self, boot_id: str) -> LogPlace | None:
        """How far the kernel log was told in this boot; None where nothing of it ever was."""
        with self._reading() as connection:
            return read_place(connection, boot_id)

    def read(self, after: int, through: int, limit: int) -> list[Entry]:
        """Entries after a revision, up to and including another, oldest first.

        Raises HistoryCompacted where events after `after` were deleted.
        """
        with self._reading() as connection:
            compacted_through = int(read_meta(connection, "compacted_through"))
            if after < compacted_through:
                raise HistoryCompacted(after, compacted_through + 1)
            # Decoded row by row: fetching each row releases the GIL, so that the loop can run.
            return [
                Entry(revision, self.id, event_loads(text))
                for revision, text in connection.execute(
                    "SELECT revision, event FROM events WHERE revision > ? AND revision <= ? "
                    "ORDER BY revision LIMIT ?",
                    (after, through, limit),
                )
            ]

    def get(self, revision: int) -> Entry | None:
        """One entry; None where there is none, or no longer."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT event FROM events WHERE revision = ?", (revision,)
            ).fetchone()
            return Entry(revision, self.id, event_loads(found[0])) if found else None

    def exit_of(
        self, container_id: str, cgroup_id: int | None, episode_ids: list[str]
    ) -> tuple[int, ContainerExit] | None:
        """The exit of a life as it was told last, with its revision; see `read_exit`."""
        with self._reading() as connection:
            return read_exit(connection, container_id, cgroup_id, episode_ids)

    def first_since(self, time: int) -> int | None:
        """The lowest revision with a `detect_time` of `time` (µs) or later, None without any."""
        with self._reading() as connection:
            (revision,) = connection.execute(
                "SELECT min(revision) FROM events INDEXED BY events_by_time WHERE detect_time >= ?",
                (time,),
            ).fetchone()
        return None if revision is None else int(revision)

    def close(self) -> None:
        """Bring everything into the one file, and close it."""
        if self._reader is not self._writer:
            with self._read_lock:
                self._reader.close()
        with self._write_lock:
            # Not needed for safety: what stays in the log is read at the next opening.
            with suppress(sqlite3.Error):
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._writer.close()

    def _check_in_place(self) -> None:
        """A removed file takes writes until it is closed, and then they are gone: look first."""
        if self._directory is None:
            return
        if os.stat(self.name).st_ino != self._inode:  # noqa: PTH116
            raise FileNotFoundError(2, "the file was replaced while it was open", self.name)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock:
            try:
                self._reader.execute("BEGIN")
                try:
                    yield self._reader
                finally:
                    if self._reader.in_transaction:
                        self._reader.execute("ROLLBACK")
            except sqlite3.ProgrammingError as error:
                raise JournalError(f"journal {self.name} is closed") from error
            except sqlite3.Error as error:
                raise unusable(self.name, error) from error
            except ValueError as error:
                raise damaged(self.name, f"an event in it cannot be read: {error}") from error


def _coalesced(changes: Sequence[LedgerChange]) -> tuple[list[LedgerRow], list[int]]:
    """The last word on each cgroup: a burst changes the same ancestors again and again."""
    rows: dict[int, LedgerRow] = {}
    removed: dict[int, None] = {}
    for change in changes:
        for row in change.rows:
            rows[row.cgroup_id] = row
            removed.pop(row.cgroup_id, None)
        for cgroup_id in change.removed:
            rows.pop(cgroup_id, None)
            removed[cgroup_id] = None
    return list(rows.values()), list(removed)


def _row_values(boot_id: str, row: LedgerRow) -> tuple[str | int, ...]:
    return (
        boot_id,
        _signed(row.cgroup_id),
        _signed(row.counter_id),
        row.told,
        row.accounted,
        row.oom,
        row.group_kill,
    )


def _signed(inode: int) -> int:
    """SQLite's integers are signed; overlayfs uses the highest bit of an inode number."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _unsigned(stored: int) -> int:
    return stored + (1 << 64) if stored < 0 else stored
