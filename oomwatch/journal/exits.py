"""The exits among the journal's events, found by whose end they are however long ago that was.

An index of expressions, which SQLite keeps with the table by itself: it has a row for each exit and
none for other events (https://www.sqlite.org/expridx.html, https://www.sqlite.org/partialindex.html).

An older oomwatch made none, and where there is no room for it now every event is looked at: 0.13 s
for a hundred thousand.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

from oomwatch.event_json import event_loads
from oomwatch.events import ContainerExit
from oomwatch.journal.files import is_full, sqlite_name

log = logging.getLogger(__name__)


def _field(path: str) -> str:
    # A row that was damaged is none of ours, and can be deleted like any other.
    return f"CASE WHEN json_valid(event) THEN json_extract(event, '$.{path}') END"


_IS_EXIT = f"{_field('kind')} = 'container_exit'"

_INDEX = f"""
CREATE INDEX IF NOT EXISTS exits_by_life ON events ({_field("container.id")}, {_field("cgroup_id")})
    WHERE {_IS_EXIT}
"""

_NEWEST_FIRST = f"""
SELECT revision, event FROM events
    WHERE {_IS_EXIT} AND {_field("container.id")} = ? AND {_field("cgroup_id")} IS ?
    ORDER BY revision DESC
"""


def index_exits(connection: sqlite3.Connection, name: str) -> None:
    """Make the index where there is none and room for it. Raises sqlite3.Error for all else."""
    try:
        connection.execute(_INDEX)
    except sqlite3.Error as error:
        # To sort many SQLite makes a file in a directory for temporary ones, if there is any.
        if not is_full(error) and sqlite_name(error) != "SQLITE_CANTOPEN":
            raise
        log.warning(
            "journal %s: no room for an index of its exits (%s), which are found more slowly; "
            "free some, there or in /tmp, before the next start",
            name,
            error,
        )


def read_exit(
    connection: sqlite3.Connection, container_id: str, cgroup_id: int | None, episodes: list[str]
) -> tuple[int, ContainerExit] | None:
    """The exit of a life as it was told last, with its revision; `None` where it is not there.

    `episodes` are those that it may have been told in while its cgroup was not known; they begin
    with the boot, which the inodes of cgroups are of.
    """
    boot = episodes[0].partition("-")[0] + "-"
    if cgroup_id is not None:
        for revision, event in _newest_first(connection, container_id, cgroup_id):
            if event.cgroup_id == cgroup_id and event.episode_id.startswith(boot):
                return revision, event
    for revision, event in _newest_first(connection, container_id, None):
        if event.episode_id in episodes:
            return revision, event
    return None


def _newest_first(
    connection: sqlite3.Connection, container_id: str, cgroup_id: int | None
) -> Iterator[tuple[int, ContainerExit]]:
    # Of an inode that is no signed number both SQLite's JSON and we take the nearest double.
    key = float(cgroup_id) if cgroup_id is not None and cgroup_id >= 1 << 63 else cgroup_id
    for revision, text in connection.execute(_NEWEST_FIRST, (container_id, key)):
        event = event_loads(text)
        assert isinstance(event, ContainerExit)
        yield revision, event
