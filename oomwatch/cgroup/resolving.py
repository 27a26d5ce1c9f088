"""Finds the cgroup that a client names, below the watched root and nowhere else.

What a client sends is a name to be looked up, never a path to be opened. Its parts are walked one
by one, each from the descriptor of the one before it (man 2 openat): with O_NOFOLLOW, so that no
symbolic link is followed, and with O_PATH, so that nothing is opened for reading. `..` is refused
before the walk. That is what openat2 does for RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_XDEV (bar a bind mount of the same file system), without a system call that seccomp
profiles refuse. A directory that is swapped for a link during the walk is seen as one or the other.

The answer names a cgroup by its path and its inode. Nothing holds it there: match the inode with
that of the cgroup that is followed, and read that one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.errors import BadCgroupPath, NoSuchCgroup
from oomwatch.escaping import quoted

LONGEST_PATH = 4096
"""Bytes of the longest path that is looked up: the kernel's PATH_MAX, which `/proc/PID/cgroup`
(kernel/cgroup/cgroup.c, proc_cgroup_show) cannot exceed either."""

LONGEST_NAME = 255
"""Bytes of the longest name of one directory (NAME_MAX)."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A cgroup that was there: its path as the kernel writes it, its directory's inode."""

    path: str
    cgroup_id: int


def resolve(hierarchy: Hierarchy, path: str) -> Resolved:
    """Look up a client's cgroup path, absolute from the root of the hierarchy.

    Raises `BadCgroupPath` where the path can be no cgroup's: relative, with `.` or `..`, with a
    NUL, longer than paths can be, above the watched root, through a symbolic link, or into another
    file system; `NoSuchCgroup` where nothing is there, or something else than a directory.
    """
    names = _names(hierarchy, path)
    walked = hierarchy.prefix
    here = os.open(hierarchy.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(here)
        device = status.st_dev
        for name in names:
            walked = f"{walked}/{name}"
            try:
                step = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            except OSError as error:
                raise NoSuchCgroup(
                    f"there is no cgroup {quoted(walked)}: {error.strerror}"
                ) from error
            os.close(here)
            here = step
            status = os.fstat(here)
            _need_cgroup(walked, status, device)
    finally:
        os.close(here)
    return Resolved(walked or "/", status.st_ino)


def _names(hierarchy: Hierarchy, path: str) -> list[str]:
    if not path.startswith("/"):
        raise BadCgroupPath(
            f"cgroup path {quoted(path)} is not absolute: give it from the root of the hierarchy, "
            "as /proc/PID/cgroup shows it"
        )
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise BadCgroupPath(f"cgroup path {quoted(path)} holds what is no text") from error
    if size > LONGEST_PATH:
        raise BadCgroupPath(
            f"cgroup path {quoted(path)} is {size} bytes long, and the longest is {LONGEST_PATH}"
        )
    if "\0" in path:
        raise BadCgroupPath(f"cgroup path {quoted(path)} holds a NUL, which no path can")
    names = [name for name in path.split("/") if name]
    for name in names:
        if name in (".", ".."):
            raise BadCgroupPath(
                f"cgroup path {quoted(path)} holds {name!r}: give the cgroup's own path; where "
                "/proc/PID/cgroup shows '/..', its reader is in another cgroup namespace"
            )
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise BadCgroupPath(
                f"cgroup path {quoted(path)} holds a name longer than {LONGEST_NAME} bytes"
            )
    above = [name for name in hierarchy.prefix.split("/") if name]
    if names[: len(above)] != above:
        raise BadCgroupPath(
            f"cgroup path {quoted(path)} is not below {quoted(hierarchy.prefix)}, and that is all "
            "that is watched here"
        )
    return names[len(above) :]


def _need_cgroup(path: str, status: os.stat_result, device: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise BadCgroupPath(f"{quoted(path)} is a symbolic link: it is not followed")
    if not stat.S_ISDIR(status.st_mode):
        raise NoSuchCgroup(f"{quoted(path)} is a file, not a cgroup")
    if status.st_dev != device:
        raise BadCgroupPath(
            f"{quoted(path)} is in another file system than the watched root: it is no cgroup of it"
        )
