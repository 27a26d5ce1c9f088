"""The memory files of one cgroup: memory.events, memory.events.local, memory.max and their kin.

Format: Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files": one "name value" pair a
line, or one value. Lines come in no promised order and new ones appear: read by name, ignore the
unknown, and never take an absent line for a zero.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from oomwatch.events import MemoryUsage
from oomwatch.observations import Counters

EVENTS = "memory.events"
EVENTS_LOCAL = "memory.events.local"
OOM_GROUP = "memory.oom.group"

_READ_BYTES = 4096
"""More than any kernel writes into these files; a file that is longer is cut to whole lines."""

_VMSTAT_BYTES = 65536

_SOME_AVG10 = re.compile(rb"some avg10=(\d{1,3}\.\d+) ")

_MAX_DIGITS = 19
"""A count of more digits is no 64-bit counter."""

_NAMES = {b"oom": "oom", b"oom_kill": "oom_kill", b"oom_group_kill": "oom_group_kill"}


@dataclass(frozen=True, slots=True)
class EventsFile:
    """One look at a memory.events file: its text, its counters, the inode that identifies them."""

    counters: Counters
    inode: int
    text: bytes


def parse_events(text: bytes) -> Counters:
    """Read the OOM lines of a memory.events file; a line that is no count is not there."""
    found: dict[str, int] = {}
    for line in text.split(b"\n"):
        name, _, value = line.partition(b" ")
        if name in _NAMES and value.isdigit() and len(value) <= _MAX_DIGITS:
            found[_NAMES[name]] = int(value)
    return Counters(**found)


def parse_count(text: bytes, name: bytes) -> int | None:
    """Return the count on the line `name` of a file of "name value" lines, `None` without one."""
    for line in text.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key == name and value.isdigit() and len(value) <= _MAX_DIGITS:
            return int(value)
    return None


class EventsReader:
    """Reads memory.events files, remembering the last text: idle cgroups all show the same one."""

    __slots__ = ("_counters", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._counters = Counters()

    def read(self, path: str) -> EventsFile:
        """Read one file. OSError where it is gone (ENOENT, ENODEV) or cannot be read."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            inode = os.fstat(fd).st_ino
            text = os.read(fd, _READ_BYTES)
        finally:
            os.close(fd)
        if len(text) == _READ_BYTES:
            text = text[: text.rfind(b"\n") + 1]
        if text != self._text:
            self._counters = parse_events(text)
            self._text = text
        return EventsFile(self._counters, inode, text)


def read_value(path: str) -> int | None:
    """Return the number in a one-value file; `None` for "max", no such file, or no number."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 64).strip()
    except OSError:
        return None
    finally:
        os.close(fd)
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else None


def read_usage(directory: str) -> MemoryUsage | None:
    """Read a cgroup's memory figures, in bytes; `None` where it has none of them (or is gone)."""
    usage = MemoryUsage(
        limit_bytes=read_value(f"{directory}/memory.max"),
        peak_bytes=read_value(f"{directory}/memory.peak"),
        current_bytes=read_value(f"{directory}/memory.current"),
        swap_bytes=read_value(f"{directory}/memory.swap.current"),
    )
    return None if usage == MemoryUsage() else usage


def read_node_kills(path: str = "/proc/vmstat") -> int | None:
    """Every OOM kill of this boot, of any cause and in any cgroup; `None` before kernel 4.13."""
    try:
        with open(path, "rb", buffering=0) as vmstat:
            return parse_count(vmstat.read(_VMSTAT_BYTES), b"oom_kill")
    except OSError:
        return None


def read_pressure(directory: str) -> float | None:
    """Return how much of the last ten seconds some process waited for memory, from 0 to 1.

    `None` where the kernel keeps no PSI (Documentation/accounting/psi.rst).
    """
    try:
        with open(f"{directory}/memory.pressure", "rb") as file:
            some = _SOME_AVG10.match(file.read(_READ_BYTES))
    except OSError:
        return None
    return None if some is None else float(some[1]) / 100


def read_populated(directory: str) -> bool:
    """Does any process live in a cgroup, or below it? One that waits to be reaped does not."""
    try:
        with open(f"{directory}/cgroup.events", "rb") as file:
            return parse_count(file.read(_READ_BYTES), b"populated") == 1
    except OSError:
        return False


def read_group(directory: str) -> bool | None:
    """Is memory.oom.group set? `None` where there is no such file."""
    value = read_value(f"{directory}/{OOM_GROUP}")
    return None if value is None else value == 1


_KILLER_MARKS = (
    ("oomd or systemd-oomd", "user.oomd_kill"),
    ("oomd or systemd-oomd", "user.oomd_ooms"),
    ("oomd", "trusted.oomd_kill"),
    ("oomd", "trusted.oomd_ooms"),
)


def read_killer_marks(directory: str) -> tuple[tuple[str, str], ...]:
    """Return which userspace OOM killers marked this cgroup, each with its mark; the first of each.

    systemd-oomd (oomd_cgroup_kill) and oomd (BaseKillPlugin) count their kills in extended
    attributes of the cgroup that they chose. Reading `trusted.` ones needs CAP_SYS_ADMIN.
    """
    found: dict[str, str] = {}
    for killer, name in _KILLER_MARKS:
        try:
            value = os.getxattr(directory, name)
        except OSError:  # none there, or none to be had
            continue
        if value.isdigit() and len(value) <= _MAX_DIGITS and int(value):
            found.setdefault(killer, f"{name} is {int(value)} on its cgroup")
    return tuple(found.items())
