"""Opens inotify instances, without the search for a C library that inotify_simple begins with.

`ctypes.util.find_library` starts a compiler or ldconfig and needs a folder for its temporary files
(Lib/ctypes/util.py): beside a container's read-only root, as nobody, there is neither, and what
failed looked like a want of inotify. The C library is in this process already (man 3 dlopen, NULL).
"""

from __future__ import annotations

import ctypes

import inotify_simple


def open_inotify() -> inotify_simple.INotify:
    """Open a non-blocking instance. OSError where none can be had (EMFILE, ENOSYS)."""
    if inotify_simple._libc is None:
        inotify_simple._libc = ctypes.CDLL(None, use_errno=True)
    return inotify_simple.INotify(nonblocking=True)
