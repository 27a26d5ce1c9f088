"""The lives of containers as the journal's database keeps them: one row each, for one boot.

A worker names its containers once; the daemon that it told may die. What it said, and the names of
what is gone, must still be there when the next one reads the last evidence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import cast

from oomwatch.containers.lives import Life, LifeKey, LivesChange
from oomwatch.event_json import object_reader, object_writer

SCHEMA = """
CREATE TABLE lives (
    boot_id TEXT NOT NULL, container_id TEXT NOT NULL, cgroup_id TEXT NOT NULL, life TEXT NOT NULL,
    PRIMARY KEY (boot_id, container_id, cgroup_id)) WITHOUT ROWID
"""
"""`cgroup_id` is decimal, and that of the life's key: negative where none is known."""

_write = object_writer(Life)
_read = object_reader(Life)


def write_lives(
    connection: sqlite3.Connection, boot_id: str, changes: Iterable[LivesChange]
) -> None:
    """Bring the rows up to date, within the caller's transaction."""
    last: dict[LifeKey, Life | None] = {}
    for change in changes:
        last.update(dict.fromkeys(change.forgotten))
        last.update((life.key, life) for life in change.kept)
    if not last:
        return
    connection.executemany(
        "DELETE FROM lives WHERE boot_id = ? AND container_id = ? AND cgroup_id = ?",
        [(boot_id, *_stored(key)) for key, life in last.items() if life is None],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO lives VALUES (?, ?, ?, ?)",
        [(boot_id, *_stored(k), json.dumps(_write(v))) for k, v in last.items() if v is not None],
    )


def read_lives(connection: sqlite3.Connection, boot_id: str) -> Iterator[Life]:
    """Every life that is kept of a boot, one by one: as objects, thousands would leave their room.

    Raises ValueError where a row cannot be understood.
    """
    for (text,) in connection.execute("SELECT life FROM lives WHERE boot_id = ?", (boot_id,)):
        yield cast(Life, _read(json.loads(text)))


def _stored(key: LifeKey) -> tuple[str, str]:
    container_id, cgroup_id = key
    return container_id, str(cgroup_id)
