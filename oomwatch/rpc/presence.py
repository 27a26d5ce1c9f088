"""Says when a socket may be gone from its path, by inotify: nothing is polled.

What tells of it (man 7 inotify): the socket's own inode, whose count of names changes when it is
unlinked or another is renamed over it, and which is moved itself; and each directory above it, when
that is moved or removed. What goes on in those directories is not followed: a socket may be in
/tmp. A file system that is mounted over one of them is notified by nothing, so the path is looked
at as well whenever the daemon is asked how it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from inotify_simple import INotify, flags

from oomwatch.watches import open_inotify

_log = logging.getLogger(__name__)

_SELF = int(flags.MOVE_SELF) | int(flags.DELETE_SELF)
_READ_BYTES = 65536


class Presence:
    """Calls `changed` when one of the sockets that are followed may have gone, until `close`."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._inotify: INotify | None = None
        try:
            self._inotify = open_inotify()
        except OSError as error:
            _log.warning(
                "that a socket is removed will be seen late, when the daemon is asked how it is "
                "(inotify: %s)",
                error.strerror,
            )
        else:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._wake)

    def follow(self, socket: Path) -> None:
        """Follow a socket that is at its path now, and the directories above it."""
        if self._inotify is None:
            return
        # A directory that is gone is noticed by its socket; a watch that cannot be had (no room)
        # leaves the others.
        with contextlib.suppress(OSError):
            self._inotify.add_watch(str(socket), _SELF | int(flags.ATTRIB))
        for directory in socket.parents:
            with contextlib.suppress(OSError):
                self._inotify.add_watch(str(directory), _SELF)

    def close(self) -> None:
        """Follow no more."""
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            asyncio.get_running_loop().remove_reader(inotify.fileno())
            inotify.close()

    def _wake(self) -> None:
        if self._inotify is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._inotify.fileno(), _READ_BYTES)
            self._changed()
