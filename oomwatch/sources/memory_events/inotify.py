"""One inotify instance for the whole tree.

Facts about inotify on cgroupfs (kernfs), each seen on 5.10 to 7.2, and what follows from it:

- A change of memory.events.local raises IN_MODIFY on a watch of the *file*. A watch of the
  directory sees it as well, until the file's inode is dropped from the cache (drop_caches, a node
  that runs out of memory); then it is deaf. So: a watch on every file itself.
- Removing a cgroup raises IN_DELETE on its parent's directory, always; on the file's own watch
  only from 7.2 on, and until then the watch stays allocated. So: a watch on every directory, and
  the file's watch is taken back by us.
- Our own reads raise IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE where those are asked for. So: only
  IN_MODIFY is.
- `max_user_instances` is 128 by default, `max_user_watches` can be few thousand on small hosts. So:
  one instance, and a watch that cannot be had is not an error: that cgroup is polled.
"""

from __future__ import annotations

import errno
import os
from enum import Enum

from inotify_simple import Event, flags, parse_events

from oomwatch.watches import open_inotify

MODIFY = int(flags.MODIFY)
CREATE = int(flags.CREATE) | int(flags.MOVED_TO)
DELETE = int(flags.DELETE) | int(flags.MOVED_FROM)
DIRECTORY = int(flags.ISDIR)
IGNORED = int(flags.IGNORED)
OVERFLOW = int(flags.Q_OVERFLOW)

_WATCH_DIRECTORY = CREATE | DELETE | int(flags.ONLYDIR)
_READ_BYTES = 65536
_MAX_EVENT_BYTES = 16 + 256
"""An event's header and the longest name (inotify(7)): less room than this may end a read early."""
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM)


class Refused(Enum):
    """Why a watch could not be had."""

    GONE = 0
    NO_ROOM = -1


class Watcher:
    """Adds, removes and reads watches; every answer is an integer or a reason, never an exception.

    OSError from the constructor where no instance can be had (EMFILE, ENOSYS).
    """

    def __init__(self) -> None:
        self._inotify = open_inotify()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return int(self._inotify.fileno())

    def watch_file(self, path: str) -> int | Refused:
        """Watch a file for changes; returns its watch, the same one if it was watched already."""
        return self._add(path, MODIFY)

    def watch_directory(self, path: str) -> int | Refused:
        """Watch a directory for what is made and removed in it."""
        return self._add(path, _WATCH_DIRECTORY)

    def remove(self, watch: int) -> None:
        """Take back a watch; the kernel may have done so already."""
        try:
            self._inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read(self) -> list[Event]:
        """Return what has happened; an empty list where nothing has. Sets `drained`."""
        self.drained = True
        try:
            text = os.read(self._inotify.fileno(), _READ_BYTES)
        except BlockingIOError:
            return []
        self.drained = len(text) < _READ_BYTES - _MAX_EVENT_BYTES
        return list(parse_events(text))

    def close(self) -> None:
        """Give the instance and all its watches back."""
        self._inotify.close()

    def _add(self, path: str, mask: int) -> int | Refused:
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as error:
            return Refused.NO_ROOM if error.errno in _NO_ROOM else Refused.GONE
