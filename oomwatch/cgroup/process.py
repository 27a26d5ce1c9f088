"""What /proc says of a process, and cgroup.procs of a cgroup's.

Pids of the kernel's log and tracepoint are those of the initial PID namespace: anywhere else they
name somebody else's process, and nothing is read (man 7 pid_namespaces).

Of a process at its memory limit cgroup.procs and /proc/PID/stat can be read on a loop: they take no
lock that a process holds while it faults or reclaims. /proc/PID/cmdline reads its memory, and so
waits for whoever holds mmap_lock: it is read in a thread while the process may live on for long,
and on the loop only once it has been killed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO in include/linux/proc_ns.h: the same number on every host."""

_INITIAL_CGROUP_NAMESPACE = "cgroup:[4026531835]"
"""PROC_CGROUP_INIT_INO there."""

_READ_BYTES = 4096
_PROCS_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Process:
    """Where a process lives and how it was started; absent what could no longer be read."""

    cgroup: str | None
    cmdline: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stat:
    """What of /proc/PID/stat tells one life of a pid from another (man 5 proc_pid_stat).

    `started` is in clock ticks since boot.
    """

    comm: str
    parent: int
    started: int


def sees_the_hosts_pids(proc: str = "/proc") -> bool:
    """Are the pids of this /proc those that the kernel prints?"""
    try:
        return os.readlink(f"{proc}/self/ns/pid") == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def sees_the_hosts_cgroups(proc: str = "/proc") -> bool:
    """Are the paths of cgroups in this /proc those that the kernel prints?"""
    try:
        return os.readlink(f"{proc}/self/ns/cgroup") == _INITIAL_CGROUP_NAMESPACE
    except OSError:
        return False


def is_in_a_nested_pid_namespace(pid: int, proc: str = "/proc") -> bool:
    """Does a process call others by pids that this /proc has for somebody else?

    False also where it is gone, or says nothing of that (NSpid in man 5 proc_pid_status).
    """
    for line in _read(f"{proc}/{pid}/status").split(b"\n"):
        if line.startswith(b"NSpid:"):
            return len(line.split()) > 2
    return False


def read_process(pid: int, proc: str = "/proc") -> Process:
    """Read what is still there: the cgroup stays until it is reaped, its memory does not."""
    cgroup = None
    for line in _read(f"{proc}/{pid}/cgroup").split(b"\n"):
        if line.startswith(b"0::"):
            cgroup = os.fsdecode(line[3:].removesuffix(b" (deleted)"))
    return Process(cgroup, read_cmdline(pid, proc))


def read_stat(pid: int, proc: str = "/proc") -> Stat | None:
    """Read what identifies a process; `None` if it is gone. Its name may hold any byte."""
    text = _read(f"{proc}/{pid}/stat")
    begin, end = text.find(b"("), text.rfind(b")")
    fields = text[end + 1 :].split()
    if begin < 0 or len(fields) < 20:
        return None
    return Stat(os.fsdecode(text[begin + 1 : end]), int(fields[1]), int(fields[19]))


def read_cmdline(pid: int, proc: str = "/proc") -> tuple[str, ...]:
    """Read how a process was started, cut at 4 KiB; empty if it is gone. It may wait: see above."""
    words = _read(f"{proc}/{pid}/cmdline").split(b"\0")[:-1]
    return tuple(os.fsdecode(word) for word in words)


def read_pids(directory: str, limit: int) -> tuple[list[int], bool]:
    """Return the first pids of a cgroup, `limit` at most, and whether there are no more."""
    text = _read(f"{directory}/cgroup.procs", _PROCS_BYTES)
    pids = [int(line) for line in text.split(b"\n")[:-1] if line.isdigit() and line != b"0"]
    return pids[:limit], bool(text) and len(text) < _PROCS_BYTES and len(pids) <= limit


def _read(path: str, size: int = _READ_BYTES) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, size)
    except OSError:
        return b""
    finally:
        os.close(fd)
