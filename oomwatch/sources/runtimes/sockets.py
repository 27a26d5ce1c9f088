"""Waits for a runtime's socket to be made, by inotify on the nearest directory that exists.

One inotify instance for all of them (max_user_instances is 128), held only while one is awaited.
Directories above a socket come and go with their runtimes (/run/containerd): where one is missing,
the nearest that exists above it is watched.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

from oomwatch.cgroup.process import is_in_a_nested_pid_namespace
from oomwatch.sources.memory_events.inotify import Refused, Watcher

_UNWATCHED_SECONDS = 10.0
"""How often a socket is looked for where nothing can be watched: no inotify instance to be had."""

_UCRED = struct.Struct("3i")


def is_there(path: Path) -> bool:
    """Can anything be seen at this path? A dangling link is nothing.

    Nor is what lies in a directory that this user may not enter, where Path.exists would raise.
    """
    return os.path.exists(path)


def is_hidden(path: Path) -> bool:
    """May this user not even look whether it is there?"""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def speaks_of_foreign_pids(path: Path) -> bool:
    """Does whoever listens here live in a PID namespace nested in ours?

    False where nobody listens, or too many wait to be heard, or it cannot be told. The kernel notes
    who called listen(): systemd, for a socket that starts its service (SO_PEERCRED in man 7 unix).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return False
    pid, _, _ = _UCRED.unpack(credentials)
    return pid > 0 and is_in_a_nested_pid_namespace(pid)


class SocketDirectories:
    """Waits for sockets; used on the event loop only."""

    def __init__(self) -> None:
        self._watcher: Watcher | None = None
        self._waiting: dict[asyncio.Future[None], Path] = {}

    async def appears(self, path: Path) -> None:
        """Return once there is something at this path; at once where there is already."""
        while not is_there(path):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = path
            try:
                watched = self._watch(path)
                if is_there(path):
                    return  # it came before the watch did
                async with asyncio.timeout(None if watched else _UNWATCHED_SECONDS):
                    await future
            except TimeoutError:
                pass
            finally:
                del self._waiting[future]
                if not self._waiting:
                    self._close()

    def _watch(self, path: Path) -> bool:
        """Watch the nearest directory above the socket; say whether that could be had."""
        if self._watcher is None:
            try:
                self._watcher = Watcher()
            except OSError:
                return False
            asyncio.get_running_loop().add_reader(self._watcher.fileno(), self._wake)
        for directory in path.parents:
            watch = self._watcher.watch_directory(os.fspath(directory))
            if watch is Refused.NO_ROOM:
                return False
            if not isinstance(watch, Refused):
                return True
        return False

    def _wake(self) -> None:
        """Something was made or removed: whoever waits looks again, and watches what is nearest."""
        if self._watcher is None:
            return
        awaited = {name for path in self._waiting.values() for name in path.parts}
        for event in self._watcher.read():
            if event.name in awaited or not event.name:
                for future in self._waiting:
                    if not future.done():
                        future.set_result(None)
                return

    def _close(self) -> None:
        if self._watcher is not None:
            asyncio.get_running_loop().remove_reader(self._watcher.fileno())
            self._watcher.close()
            self._watcher = None
