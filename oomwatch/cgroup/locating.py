"""Finds the cgroup of a process in the hierarchy that is watched.

/proc/PID/cgroup shows a path as seen from the reader's own cgroup namespace: where the process
lives outside that, the path begins with "/../.." (man 7 cgroup_namespaces). The watched tree may be
mounted from somewhere else again: the host's, into a container. So outside the initial namespace a
path is believed only if the cgroup that is there lists the process in its cgroup.procs, whose pids
the kernel translates into the reader's PID namespace; else the tree is searched for it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

from oomwatch.cgroup import files
from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.resolving import Resolved
from oomwatch.errors import NoSuchCgroup, NoSuchProcess
from oomwatch.events import is_within

SEARCHED = 200_000
"""Directories that are looked into at most for one process."""

_INITIAL_CGROUP_NAMESPACE = "cgroup:[4026531835]"
"""PROC_CGROUP_INIT_INO in include/linux/proc_ns.h: the same number on every host."""

_PROCS_BYTES = 1 << 20


def locate(hierarchy: Hierarchy, pid: int, proc: str = "/proc") -> Resolved:
    """Find where a process lives, by its pid as `proc` shows it. Blocks: it may search the tree.

    Raises `NoSuchProcess` where it is gone, `NoSuchCgroup` where it is in none that is watched.
    """
    shown = shown_cgroup(pid, proc)
    if shown is None:
        raise NoSuchCgroup(f"process {pid} is in no cgroup of version 2 ({proc}/{pid}/cgroup)")
    sees_all = hierarchy.real_root and _in_initial_namespace(proc)
    for path in _as_named(hierarchy, shown):
        directory = hierarchy.directory + path
        if os.path.isdir(directory) if sees_all else _lists(directory, pid):
            return _resolved(hierarchy, path)
    for path in _walk(hierarchy.directory):
        if _lists(hierarchy.directory + path, pid):
            return _resolved(hierarchy, path)
    shown_cgroup(pid, proc)  # that it ended meanwhile is the better answer
    raise NoSuchCgroup(
        f"process {pid} is in cgroup {shown}, which is not below {hierarchy.directory}: mount the "
        "host's cgroup tree and watch that, or name the container's cgroup by its path"
    )


def nearest_counted(hierarchy: Hierarchy, cgroup: Resolved) -> Resolved | None:
    """The cgroup itself, or the nearest above it that counts kills; `None` if none does."""
    path = cgroup.path[len(hierarchy.prefix) :].rstrip("/")
    while path:
        if os.path.exists(f"{hierarchy.directory}{path}/{files.EVENTS}"):
            return _resolved(hierarchy, path)
        path = path.rpartition("/")[0]
    return None


def shown_cgroup(pid: int, proc: str = "/proc", controller: str = "") -> str | None:
    """The path that /proc/PID/cgroup shows, of version 2 or of a version 1 controller's hierarchy.

    `None` where it has no such line. Raises `NoSuchProcess` where the process is gone.
    """
    try:
        with open(f"{proc}/{pid}/cgroup", "rb") as lines:
            for line in lines:
                _, _, rest = line.partition(b":")
                controllers, _, path = rest.partition(b":")
                if controller.encode() in controllers.split(b","):
                    return os.fsdecode(path.rstrip(b"\n").removesuffix(b" (deleted)"))
    except (FileNotFoundError, ProcessLookupError):
        raise NoSuchProcess(f"there is no process {pid} in {proc}: it is gone") from None
    except OSError as error:
        raise NoSuchProcess(f"{proc}/{pid}/cgroup cannot be read: {error.strerror}") from error
    return None


def printed_cgroup(pid: int, proc: str = "/proc") -> str | None:
    """The path that the kernel's log prints for a process: of the hierarchy with the memory.

    On cgroup v1 that is the memory controller's. Raises `NoSuchProcess` where it is gone.
    """
    return shown_cgroup(pid, proc, "memory") or shown_cgroup(pid, proc)


def _in_initial_namespace(proc: str) -> bool:
    try:
        return os.readlink(f"{proc}/self/ns/cgroup") == _INITIAL_CGROUP_NAMESPACE
    except OSError:
        return False


def _as_named(hierarchy: Hierarchy, shown: str) -> Iterator[str]:
    """Paths below the watched directory that a shown path may mean."""
    if ".." in shown.split("/"):
        return
    if is_within(shown, hierarchy.prefix):
        yield shown[len(hierarchy.prefix) :].rstrip("/")
    if hierarchy.prefix:
        yield shown.rstrip("/")


def _resolved(hierarchy: Hierarchy, path: str) -> Resolved:
    try:
        inode = os.stat(hierarchy.directory + path).st_ino
    except OSError as error:
        raise NoSuchCgroup(f"cgroup {path or '/'} is gone: {error.strerror}") from error
    return Resolved(hierarchy.prefix + path or "/", inode)


def _lists(directory: str, pid: int) -> bool:
    try:
        with open(f"{directory}/cgroup.procs", "rb") as procs:
            return str(pid).encode() in procs.read(_PROCS_BYTES).split()
    except OSError:
        return False


def _walk(directory: str) -> Iterator[str]:
    """The directories below one, breadth first, as paths from it."""
    waiting = deque([""])
    seen = 0
    while waiting and seen < SEARCHED:
        path = waiting.popleft()
        seen += 1
        yield path
        try:
            with os.scandir(directory + path) as entries:
                found = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
        except OSError:
            continue
        waiting.extend(f"{path}/{name}" for name in found)
