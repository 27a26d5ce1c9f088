"""What the lines of an OOM report say, each as a type of its own (mm/oom_kill.c, mm/memcontrol.c).

Names and paths are bytes, as the kernel has them. A `None` is not said by the line.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomwatch.events import Invoker, MemoryUsage, Victim


@dataclass(frozen=True, slots=True)
class Invoked:
    """`C invoked oom-killer: gfp_mask=…, order=N`: a report begins."""

    invoker: Invoker


@dataclass(frozen=True, slots=True)
class LimitHit:
    """`Task in VICTIM killed as a result of limit of LIMIT` (to 4.19).

    The paths are `None` where names in them let the line be read in more than one way.
    """

    task_memcg: bytes | None
    oom_memcg: bytes | None


@dataclass(frozen=True, slots=True)
class UsageLine:
    """`memory: usage NkB, limit NkB` or `swap: usage …`, of the cgroup whose limit was hit."""

    usage: MemoryUsage


@dataclass(frozen=True, slots=True)
class StatsOf:
    """`Memory cgroup stats for PATH:`, of the cgroup whose limit was hit.

    The path and the colon may come in records of their own: `readings` are what the path may be,
    empty where it is still to come.
    """

    readings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """`M: Kill process N (C) score N or sacrifice child` (to 5.0): who was chosen, not who died."""

    memcg: bool
    pid: int


@dataclass(frozen=True, slots=True)
class Killed:
    """`M: Killed process N (C) total-vm:…`. `memcg` is `None` where no M stands before it."""

    memcg: bool | None
    victim: Victim


@dataclass(frozen=True, slots=True)
class GroupKill:
    """`Tasks in PATH are going to be killed due to memory.oom.group set` (4.19 and later)."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """`M: OOM victim N (C) is already exiting. Skip killing the task`: no kill."""

    pid: int


@dataclass(frozen=True, slots=True)
class NoVictim:
    """`Out of memory and no killable processes...`: no kill, and the report is over."""


@dataclass(frozen=True, slots=True)
class Reaped:
    """`oom_reaper: reaped process N (C), now …`: the memory of a victim was freed for it."""

    pid: int
    comm: bytes | None


@dataclass(frozen=True, slots=True)
class Suppressed:
    """`oom_kill_process: N callbacks suppressed`: so many reports were not printed."""

    count: int


@dataclass(frozen=True, slots=True)
class Booted:
    """`Linux version …`: another life of the machine begins."""


Message = (
    Invoked
    | LimitHit
    | UsageLine
    | StatsOf
    | Chosen
    | Killed
    | GroupKill
    | Skipped
    | NoVictim
    | Reaped
    | Suppressed
    | Booted
)
