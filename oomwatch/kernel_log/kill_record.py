"""One death that a kernel's log tells of, with what its report had said by then."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from oomwatch.events import Constraint, Invoker, MemoryUsage, Task, Victim
from oomwatch.kernel_log.record import Record


class Word(Enum):
    """Which line told of the death.

    `KILLED`: the `Killed process` line. `SUMMARY`: an `oom-kill:` line whose kill line never came.
    `REAPED`: a report with neither, after which the oom_reaper named a task of its table.
    """

    KILLED = "killed"
    SUMMARY = "summary"
    REAPED = "reaped"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRecord:
    """What is known of a kill at the moment its line was read; a `None` is not known.

    `record` is the line itself: its time, sequence, host and place. `first_line` is where its
    report began. `memcg` says whether a memory cgroup's limit was hit (True) or the node, a cpuset
    or a policy had run out (False). `oom_memcg` is the cgroup whose limit was hit, `task_memcg` the
    one where the victim lived, both as the kernel wrote them, from the host's root.
    `constraint_name` is the kernel's word where `constraint` has none of ours for it.

    `episode` counts the kill episodes that were told apart, from 1. Kills of one group share it,
    and have `group`, the cgroup that was killed as one; `group_begun` marks the second line of the
    group's first victim. `repeated` marks a pid that this episode has named before: the same death.
    `headed` is False where the kernel printed no report (it prints ten in five seconds): then only
    the victim is known, and whether it was a cgroup's limit.

    `invoker` is whose allocation failed; `memory` is the limit cgroup's (usage and limit, and swap
    where it is counted apart). `tasks` are the largest of the `task_count` in the report's table.
    """

    word: Word
    victim: Victim
    record: Record
    first_line: int
    episode: int
    headed: bool
    memcg: bool | None = None
    constraint: Constraint | None = None
    constraint_name: str | None = None
    oom_memcg: str | None = None
    task_memcg: str | None = None
    group: str | None = None
    repeated: bool = False
    invoker: Invoker | None = None
    memory: MemoryUsage | None = None
    tasks: tuple[Task, ...] = ()
    task_count: int | None = None
