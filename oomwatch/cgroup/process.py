"""What /proc still says of a process that the kernel has killed, until its parent reaps it.

Pids of the kernel's log and tracepoint are those of the initial PID namespace: anywhere else they
name somebody else's process, and nothing is read (man 7 pid_namespaces).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO in include/linux/proc_ns.h: the same number on every host."""

_READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """Where a process lives and how it was started; absent what could no longer be read."""

    cgroup: str | None
    cmdline: tuple[str, ...]


def sees_the_hosts_pids(proc: str = "/proc") -> bool:
    """Are the pids of this /proc those that the kernel prints?"""
    try:
        return os.readlink(f"{proc}/self/ns/pid") == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def read_process(pid: int, proc: str = "/proc") -> Process:
    """Read what is still there: the cgroup stays until it is reaped, its memory does not."""
    cgroup = None
    for line in _read(f"{proc}/{pid}/cgroup").split(b"\n"):
        if line.startswith(b"0::"):
            cgroup = os.fsdecode(line[3:].removesuffix(b" (deleted)"))
    words = _read(f"{proc}/{pid}/cmdline").split(b"\0")[:-1]
    return Process(cgroup, tuple(os.fsdecode(word) for word in words))


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
