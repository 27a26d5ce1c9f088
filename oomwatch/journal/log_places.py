"""The place in the kernel log up to which it was told: one row a boot, written with the events."""

from __future__ import annotations

import json
import sqlite3

from oomwatch.ledger import LogPlace

SCHEMA = """
CREATE TABLE log (
    boot_id TEXT PRIMARY KEY, log TEXT NOT NULL, begin INTEGER NOT NULL, next INTEGER NOT NULL,
    untold TEXT NOT NULL, stamp INTEGER, wall_time INTEGER) WITHOUT ROWID
"""
"""`untold` is a JSON array; the rest are the fields of `LogPlace`."""


def write_place(connection: sqlite3.Connection, boot_id: str, place: LogPlace | None) -> None:
    """Write the place, if it is another one; inside a transaction."""
    if place is None:
        return
    untold = json.dumps(place.untold)
    connection.execute(
        "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?, ?, ?)",
        (boot_id, place.log, place.begin, place.next, untold, place.stamp, place.wall_time),
    )


def read_place(connection: sqlite3.Connection, boot_id: str) -> LogPlace | None:
    """The place in this boot; None where there is none yet."""
    found = connection.execute(
        "SELECT log, begin, next, untold, stamp, wall_time FROM log WHERE boot_id = ?", (boot_id,)
    ).fetchone()
    if found is None:
        return None
    log, begin, following, untold, stamp, wall_time = found
    return LogPlace(log, begin, following, tuple(json.loads(untold)), stamp, wall_time)
