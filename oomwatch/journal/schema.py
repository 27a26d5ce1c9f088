"""The journal's tables, how they are made, and what is checked before they are trusted.

meta     journal_id; compacted_through, the highest revision that retention deleted
events   revision (AUTOINCREMENT: never reused, also when the table is empty), the event as JSON;
         exits are found by their life as well: see `exits`
boots    the boot that the ledger is of, if it ever committed
ledger   what was told, by (boot, cgroup)
lives    who cgroups are and were, by (boot, container, cgroup): see `lives`
log      the place in the kernel log up to which it was told, by boot: see `log_places`
"""

from __future__ import annotations

import os
import sqlite3
import uuid

from oomwatch.errors import JournalUnusable
from oomwatch.journal import exits, lives, log_places
from oomwatch.journal.files import damaged

_APPLICATION_ID = 0x6F6F6D77  # "oomw": file(1) and `PRAGMA application_id` tell whose file it is
_VERSION = 1
_CACHE_KIB = 512
"""Of pages that a connection keeps: SQLite's own 2 MiB fill up, and the kernel has them too."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE events (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, detect_time INTEGER NOT NULL, event TEXT NOT NULL);
CREATE INDEX events_by_time ON events (detect_time);
CREATE TABLE boots (boot_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE ledger (
    boot_id TEXT NOT NULL, cgroup_id INTEGER NOT NULL, counter_id INTEGER NOT NULL,
    told INTEGER NOT NULL, accounted INTEGER NOT NULL, oom INTEGER NOT NULL,
    group_kill INTEGER NOT NULL, PRIMARY KEY (boot_id, cgroup_id)) WITHOUT ROWID;
"""


def connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    """Connect without the sqlite3 module's own transactions, for one thread at a time."""
    connection = sqlite3.connect(
        name, timeout=1.0, isolation_level=None, check_same_thread=False, uri=uri
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def prepare(connection: sqlite3.Connection, name: str, *, on_disk: bool) -> None:
    """Make a new database a journal, and see that an old one is one.

    Raises JournalUnusable naming the path and the mend, or sqlite3.Error.
    """
    if on_disk:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalUnusable(
                f"journal {name}: its filesystem cannot share memory between connections, "
                "as a network filesystem; choose a --state-dir on a local disk"
            )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    _check_schema(connection, name)
    if on_disk:
        _check_size(connection, name)


def read_meta(connection: sqlite3.Connection, key: str) -> int | str:
    """A value of the table meta; raises sqlite3.DatabaseError where it is missing."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise sqlite3.DatabaseError(f"its table meta has no {key}")
    value: int | str = found[0]
    return value


def read_sequence(connection: sqlite3.Connection) -> int:
    """The highest revision ever committed, 0 where there is none."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(found[0]) if found else 0


def _check_schema(connection: sqlite3.Connection, name: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables and not version:
        _create(connection)
    elif application != _APPLICATION_ID:
        raise damaged(name, "it is a database of another program")
    elif version > _VERSION:
        raise JournalUnusable(
            f"journal {name}: it was written by a newer oomwatch (schema {version}, known "
            f"here is {_VERSION}); run that version, or choose another --state-dir"
        )
    elif version < _VERSION:
        raise damaged(name, f"it has no journal of schema {_VERSION} in it")
    exits.index_exits(connection, name)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*_SCHEMA.split(";\n"), lives.SCHEMA, log_places.SCHEMA):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('journal_id', ?)", (uuid.uuid4().hex,))
    connection.execute("INSERT INTO meta VALUES ('compacted_through', 0)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _check_size(connection: sqlite3.Connection, name: str) -> None:
    """A file that was cut short reads well until the missing page is wanted: look now.

    Only an empty write-ahead log makes the comparison hold: until then the header may speak of
    pages that are still in the log.
    """
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    size = os.stat(name).st_size  # noqa: PTH116
    if not busy and size < pages * page_size:
        raise damaged(name, f"it was cut short: {size} bytes of {pages * page_size}")
