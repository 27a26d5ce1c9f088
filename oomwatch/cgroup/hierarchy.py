"""Where the cgroup v2 hierarchy is, and whether its memory controller can be watched there.

Read from /proc/self/mountinfo (man 5 proc_pid_mountinfo). A host may have cgroup v1 only, v2 only,
or both with the memory controller bound to v1, where v2 counts nothing: each is named in the error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from oomwatch.errors import NoCgroupRoot, NoMemoryController

DEFAULT_ROOT = Path("/sys/fs/cgroup")

_ROOT_INODE = 1
"""The inode of the root of cgroup v2 (fs/kernfs); a namespace's root keeps its cgroup's own."""

_IN_EVERY_CGROUP = "cgroup.subtree_control"
"""A file of every cgroup of version 2, the root too (kernel/cgroup/cgroup.c, cgroup_base_files)."""

_REMOTE = ("9p", "nfs", "fuse", "cifs", "smb", "virtiofs", "ceph")
"""File systems that change behind inotify's back (man 7 inotify, "Limitations and caveats")."""

_STILL_WORKS = (
    "'oomwatch doctor' explains what this host has; --cgroup-root takes another directory"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where, which part of the file system, its type and its options."""

    point: str
    root: str
    type: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A directory tree of cgroups that can be watched.

    `prefix` is the kernel's path of the watched root ("" for "/"). `real_root` is the root of the
    whole hierarchy: only there does "no limit was hit" mean the node's, and only its sum is
    /proc/vmstat's. `kernel` is False for a plain directory with files of the same names.
    `local_events` marks the mount option memory_localevents: memory.events does not count what is
    below. `notifies` is False on a file system whose changes inotify cannot see.
    """

    directory: str
    prefix: str
    real_root: bool
    kernel: bool
    local_events: bool
    notifies: bool = True


def parse_mountinfo(text: str) -> list[Mount]:
    """Read mountinfo lines, in order; a line that is not one is left out."""
    mounts = []
    for line in text.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if separator and len(fields) >= 6 and len(rest) >= 3:
            options = frozenset(fields[5].split(",")) | frozenset(rest[2].split(","))
            mounts.append(Mount(_unescape(fields[4]), _unescape(fields[3]), rest[0], options))
    return mounts


def locate(root: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> Hierarchy:
    """Look at the directory to be watched.

    Raises `NoCgroupRoot` where it is missing, `NoMemoryController` where it is cgroup v1 or has no
    memory controller.
    """
    directory = os.path.realpath(root)
    if not os.path.isdir(directory):
        found = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise NoCgroupRoot(
            f"cgroup root {root} {found}: a cgroup v2 hierarchy is needed "
            f"(mount -t cgroup2 none {root}); {_STILL_WORKS}"
        )
    try:
        mounts = parse_mountinfo(mountinfo.read_text(errors="surrogateescape"))
    except OSError:
        mounts = []
    mount = _mount_of(directory, mounts)
    if mount is None or mount.type not in ("cgroup", "cgroup2"):
        _refuse_v1_below(root, directory, mounts)
        _refuse_without_cgroups(root, directory)
        notifies = mount is None or not mount.type.startswith(_REMOTE)
        return Hierarchy(directory, "", False, False, False, notifies)
    if mount.type == "cgroup":
        raise NoMemoryController(
            f"{root} is a cgroup v1 hierarchy: cgroup v2 is needed "
            f"(boot with systemd.unified_cgroup_hierarchy=1); {_STILL_WORKS}"
        )
    _need_memory(root, directory, mounts)
    below = os.path.relpath(directory, mount.point)
    parts = [mount.root.strip("/")] if mount.root.strip("/") else []
    parts += [] if below == "." else [below]
    return Hierarchy(
        directory=directory,
        prefix="".join(f"/{part}" for part in parts if not part.startswith("..")),
        real_root=os.stat(directory).st_ino == _ROOT_INODE,
        kernel=True,
        local_events="memory_localevents" in mount.options,
    )


def _mount_of(directory: str, mounts: list[Mount]) -> Mount | None:
    """The mount that holds the directory: the longest point above it, the last of equals."""
    best: Mount | None = None
    for mount in mounts:
        above = mount.point == "/" or directory == mount.point
        above = above or directory.startswith(mount.point + "/")
        if above and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _need_memory(root: Path, directory: str, mounts: list[Mount]) -> None:
    try:
        controllers = Path(directory, "cgroup.controllers").read_text().split()
    except OSError as error:
        raise NoMemoryController(
            f"{directory}/cgroup.controllers cannot be read ({error.strerror}): "
            f"it must list 'memory'; {_STILL_WORKS}"
        ) from error
    if "memory" in controllers:
        return
    v1 = next((m.point for m in mounts if m.type == "cgroup" and "memory" in m.options), None)
    bound = f"the memory controller is bound to cgroup v1 at {v1}" if v1 else "it is not enabled"
    raise NoMemoryController(
        f"{root} is cgroup v2 without the memory controller (it has: "
        f"{' '.join(controllers) or 'none'}; {bound}): boot with "
        f"systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=memory; {_STILL_WORKS}"
    )


def _refuse_v1_below(root: Path, directory: str, mounts: list[Mount]) -> None:
    """A tmpfs full of v1 mounts is how legacy and hybrid hosts look."""
    below = [m for m in mounts if m.point.startswith(directory + "/")]
    v1 = [m.point for m in below if m.type == "cgroup"]
    v2 = [m.point for m in below if m.type == "cgroup2"]
    if not v1 and not v2:
        return
    memory = next((m.point for m in below if m.type == "cgroup" and "memory" in m.options), None)
    found = f"cgroup v1 with the memory controller at {memory}" if memory else "cgroup v1"
    if v2:
        found += f", and cgroup v2 without it at {v2[0]}"
    raise NoMemoryController(
        f"{root} holds {found}: oomwatch needs the memory controller in cgroup v2 "
        f"(boot with systemd.unified_cgroup_hierarchy=1); {_STILL_WORKS}"
    )


def _refuse_without_cgroups(root: Path, directory: str) -> None:
    """Where nothing is mounted the kernel's own directory is there all the same, and is empty."""
    if not os.path.lexists(f"{directory}/{_IN_EVERY_CGROUP}"):
        raise NoMemoryController(
            f"{root} holds no cgroups: cgroup v2 is to be mounted there "
            f"(mount -t cgroup2 none {root}); {_STILL_WORKS}"
        )


def _unescape(field: str) -> str:
    """Octal escapes of mountinfo: space, tab, newline and backslash."""
    if "\\" not in field:
        return field
    return (
        field.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
    )
