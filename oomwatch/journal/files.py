"""The journal's directory: who holds it, its spare room, and what its disk's refusals mean."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from oomwatch.errors import JournalLocked, JournalUnusable

DATABASE = "journal.db"
LOCK = "journal.lock"
RESERVE = "journal.reserve"
# Enough for the write-ahead log between two checkpoints to be brought into the database.
RESERVE_BYTES = 4 << 20

_FULL = "free space on its filesystem, or keep fewer events"
_READ_ONLY = "mount it writable and give it to oomwatch's user, or choose another --state-dir"
_DAMAGED = (
    "move it away and start again: a new journal begins, and subscribers with a cursor of the old "
    "one are told so"
)
_IO = "look for disk errors in the kernel log, or choose a --state-dir on another disk"
_BUSY = "close the other program that has it open (an sqlite3 shell, a backup)"

_MENDS = (
    ("SQLITE_FULL", "the disk is full", _FULL),
    ("SQLITE_IOERR_SHMSIZE", "the disk is full", _FULL),
    ("SQLITE_READONLY", "it cannot be written", _READ_ONLY),
    ("SQLITE_CANTOPEN", "it cannot be opened", _READ_ONLY),
    ("SQLITE_PERM", "it cannot be written", _READ_ONLY),
    ("SQLITE_NOTADB", "it is no SQLite database", _DAMAGED),
    ("SQLITE_CORRUPT", "it is damaged", _DAMAGED),
    ("SQLITE_IOERR", "its disk answers with an I/O error", _IO),
    ("SQLITE_BUSY", "another program holds it", _BUSY),
)
_ERRNO_MENDS = {
    errno.ENOENT: (
        "it was removed or replaced",
        "put it back, or restart oomwatch to begin a new journal",
    ),
    errno.ENOSPC: ("the disk is full", _FULL),
    errno.EDQUOT: ("the disk quota is used up", _FULL),
    errno.EROFS: ("the filesystem is read-only", _READ_ONLY),
    errno.EACCES: ("permission is denied", _READ_ONLY),
    errno.EPERM: ("permission is denied", _READ_ONLY),
    errno.ENOTDIR: ("a part of the path is no directory", "choose another --state-dir"),
    errno.EEXIST: ("the path is no directory", "choose another --state-dir"),
}


def unusable(path: str, error: sqlite3.Error | OSError) -> JournalUnusable:
    """Say in one sentence what is wrong with the journal at `path`, and what would mend it."""
    if isinstance(error, OSError):
        what, mend = _ERRNO_MENDS.get(error.errno or 0, (error.strerror or str(error), _IO))
        return JournalUnusable(f"journal {path}: {what}; {mend}")
    name = sqlite_name(error)
    for prefix, what, mend in _MENDS:
        if name.startswith(prefix):
            return JournalUnusable(f"journal {path}: {what} ({error}); {mend}")
    return JournalUnusable(f"journal {path}: {error}; {_DAMAGED}")


def damaged(path: str, what: str) -> JournalUnusable:
    """Say that the file is not the journal it should be."""
    return JournalUnusable(f"journal {path}: {what}; {_DAMAGED}")


def sqlite_name(error: sqlite3.Error) -> str:
    """SQLite's name for the error, "" where the sqlite3 module raised it by itself."""
    return getattr(error, "sqlite_errorname", None) or ""


def is_full(error: sqlite3.Error | OSError) -> bool:
    """Whether the disk had no room, which making room may mend."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return sqlite_name(error) in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


class StateDirectory:
    """A journal's directory, held by this process alone until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the directory (0750) if need be, and lock it.

        Raises JournalLocked where another process holds it, JournalUnusable where it cannot be
        made or written.
        """
        self.path = path
        self.died: int | None = None
        self.database = path / DATABASE
        self._reserve = path / RESERVE
        try:
            _make_directory(path)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except FileNotFoundError as error:  # /proc and /sys refuse new names so
            raise JournalUnusable(
                f"journal {path}: no directory can be made there; choose another --state-dir"
            ) from error
        except OSError as error:
            raise unusable(str(path), error) from error
        try:
            self._take_lock()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            who = f"process {holder}" if holder else "another process"
            raise JournalLocked(
                f"journal {self.path} is held by {who}: subscribe to that oomwatch, stop it, or "
                "give this one another --state-dir"
            ) from error
        except OSError as error:
            raise unusable(str(self.path), error) from error
        # Whoever ends in good order takes its pid away.
        last = os.pread(self._lock, 32, 0).strip()
        self.died = int(last) if last.isdigit() else None
        # The pid is for people: a full disk must not keep a journal from opening for it.
        with suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def create_database(self) -> None:
        """Make the database file (0640) where there is none, and make its name survive a crash."""
        try:
            descriptor = os.open(
                self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640
            )
        except FileExistsError:
            return
        try:
            os.fchmod(descriptor, 0o640)
        finally:
            os.close(descriptor)
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def size_bytes(self) -> int:
        """Bytes that the database and its write-ahead log take, 0 where they are gone."""
        total = 0
        for name in (DATABASE, f"{DATABASE}-wal"):
            with suppress(OSError):
                total += (self.path / name).stat().st_size
        return total

    def hold_reserve(self) -> bool:
        """Set room aside, unless that would take a quarter or more of what is left.

        Returns whether it is held.
        """
        try:
            if self._reserve.exists():
                return True
            if not self.has_room():
                return False
            descriptor = os.open(
                self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640
            )
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:
            # The reserve is a kindness: without it a full disk is told sooner.
            self.spend_reserve()
            return False
        return True

    def has_room(self) -> bool:
        """Whether the disk has several times the reserve left."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize >= 4 * RESERVE_BYTES

    def may_grow(self) -> bool:
        """Whether there is more left than a spent reserve leaves, also on a small disk."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize >= RESERVE_BYTES + (1 << 20)

    def spend_reserve(self) -> None:
        """Give the room that was set aside to the database."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have the directory."""
        with suppress(OSError):
            os.ftruncate(self._lock, 0)
        os.close(self._lock)


def _make_directory(path: Path) -> None:
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o750)
    path.chmod(0o750)
