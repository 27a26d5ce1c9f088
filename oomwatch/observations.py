"""What passes between the witnesses and the correlator: observations one way, questions the other.

An observation says what a source saw and decides nothing. A question asks a source to look again,
now; its answer is another observation. Both are plain frozen data, so that a correlator can be
tested without a kernel and a source without a correlator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from oomwatch.events import (
    Cgroup,
    Constraint,
    Container,
    ContainerExit,
    Invoker,
    MemoryUsage,
    Task,
    Victim,
)


class Sight(Enum):
    """How a source came to see a counter: it decides what the count it shows means.

    `BASELINE`: the first look at a cgroup that was there before us; what it counts is old.
    `FOLLOWED`: it was seen before, or appeared under our eyes (counters start at 0).
    `REVEALED`: the counter's file is another one than before (memory controller switched off and
    on): it may have started from 0, or have lived on hidden.
    `LATE`: it was there before us, and could not be listed or read until now. What it counts may
    have been told below an ancestor meanwhile.
    `YOUNG`: what was looked at as a baseline was made only then, under our eyes.
    """

    BASELINE = "baseline"
    FOLLOWED = "followed"
    REVEALED = "revealed"
    LATE = "late"
    YOUNG = "young"


@dataclass(frozen=True, slots=True)
class Counters:
    """The OOM lines of one memory.events.local (Documentation/admin-guide/cgroup-v2.rst).

    `None` where the file has no such line: `oom_group_kill` came with kernel 5.17.
    """

    oom: int | None = None
    oom_kill: int | None = None
    oom_group_kill: int | None = None


@dataclass(frozen=True, slots=True)
class CounterReading:
    """One look at a cgroup's counters.

    `counter_id` is the inode of its memory.events.local, 0 for the real root, which has none.
    `subtree_kills` is the hierarchical `oom_kill` (memory.events; the real root's is that of
    /proc/vmstat), `None` when it was not read, or does not count what is below. `looked_at` is when
    the look before this one began, `None` if there was none.
    """

    cgroup: Cgroup
    counter_id: int
    time: int
    local: Counters
    subtree_kills: int | None = None
    sight: Sight = Sight.FOLLOWED
    looked_at: int | None = None
    source: str = "memory_events"


@dataclass(frozen=True, slots=True)
class LimitHits:
    """How often a cgroup was at its limit: the `max` of its memory.events.local.

    `time` is when that was last seen to have risen, `None` where it was only seen as it stood.
    `pressure` is what memory.pressure said then: the share of the last ten seconds in which some
    process waited for memory, `None` where the kernel does not say.
    """

    count: int
    time: int | None = None
    pressure: float | None = None


@dataclass(frozen=True, slots=True)
class CgroupRemoved:
    """A cgroup is gone. What it counted since our last look, only its ancestors' counters know.

    `looked_at` is when that was, `None` where its own counter was never read. `limit_hits` is what
    that look showed, `None` where it never was at its limit.
    """

    cgroup: Cgroup
    time: int
    looked_at: int | None = None
    limit_hits: LimitHits | None = None


@dataclass(frozen=True, slots=True)
class LineageMember:
    """A cgroup on the way from a victim up to the root: its counters and its memory.oom.group."""

    reading: CounterReading
    group: bool | None


@dataclass(frozen=True, slots=True)
class LineageReading:
    """Answer to `Describe`: the victim's cgroup and its ancestors, leaf first, read just now.

    `complete` means that every cgroup up to the hierarchy's real root could be read, so that a
    limit which shows nowhere is nobody's but the node's. `usage` is the victim cgroup's.
    """

    cgroup: Cgroup
    members: tuple[LineageMember, ...]
    complete: bool
    usage: MemoryUsage | None


@dataclass(frozen=True, slots=True)
class UsageReading:
    """Answer to `Measure`."""

    cgroup: Cgroup
    usage: MemoryUsage | None


@dataclass(frozen=True, slots=True)
class SubtreeCount:
    """A hierarchical kill count, and when it was read.

    `counts_itself` is False for the real root: its own processes' kills are in the sum, and in no
    counter that could be read apart.
    """

    cgroup: Cgroup
    subtree_kills: int
    time: int
    counts_itself: bool = True


@dataclass(frozen=True, slots=True)
class AuditReading:
    """Answer to `Audit`: every count was read before the counters below it.

    The local counters found on the way were sent as `CounterReading`s, each as it was read, before
    this. `counts` begins with the cgroup that was asked for (or its nearest ancestor with a
    hierarchical counter) and is empty where none has one.
    """

    asked: Cgroup
    counts: tuple[SubtreeCount, ...]


@dataclass(frozen=True, slots=True)
class LogSpan:
    """Where in a log a kill's report begins, and where the line that names the victim is."""

    log: str
    begin: int
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimNamed:
    """A witness named one process that the kernel killed: a line of its log, a hit of a tracepoint.

    `sequence` numbers the record within its source and boot. `time` is when the kernel did it, by
    the source's clock brought to wall time; `seen_time` when it was read. `cgroup` is the path
    where the victim lived: `printed` says that the kernel wrote it there, else /proc still showed
    it, and it is `None` where neither did. It is not `certain` where a part of the host is watched
    and a printed path was matched by its end alone. `limit_cgroup` and `node_wide` say whose memory
    had run out, where the kernel printed that. `group_cgroup` is the cgroup that was killed as one:
    the victim lived there or below. `repeated` marks a line that names a victim a second time, as
    that of a group's first victim does: the kernel counted it twice. A record whose `sequence` was
    given before is the same one, of which a later line told more; `detail` is then that line.
    `tasks` are the largest of the `task_count` in the table that was printed before the kill.
    `span` is where the record is in a log that can be read again, and `recovered` says that it was:
    it was written while nobody watched.
    """

    source: str
    sequence: int
    time: int
    seen_time: int
    victim: Victim
    detail: str
    cgroup: str | None = None
    printed: bool = False
    certain: bool = True
    limit_cgroup: str | None = None
    node_wide: bool = False
    constraint: Constraint | None = None
    invoker: Invoker | None = None
    group_kill: bool | None = None
    group_cgroup: str | None = None
    repeated: bool = False
    tasks: tuple[Task, ...] = ()
    task_count: int | None = None
    span: LogSpan | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Resident:
    """One process of a cgroup, as /proc had it.

    `comm` and `started` (clock ticks since boot) are `None` where it was gone by the time it was
    looked up; `cmdline` is empty until it was read. `oldest` says whether it began before all
    others that lived there at that moment, `None` where that could not be seen.
    """

    pid: int
    comm: str | None = None
    started: int | None = None
    cmdline: tuple[str, ...] = ()
    oldest: bool | None = None


@dataclass(frozen=True, slots=True)
class ProcessesSeen:
    """Who lived in a cgroup that was at its limit, by its cgroup.procs.

    Seen only from the initial PID namespace: anywhere else a pid is not the one that the kernel
    prints. `complete` is False where there may have been more.
    """

    cgroup: Cgroup
    time: int
    residents: tuple[Resident, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class LogRead:
    """A log was read up to `next`; all that its lines told of was sent before this.

    `begin` is where the oldest report begins that is not over. Places and `log` are those of
    `ledger.LogPlace`; `stamp` and `wall_time` are the last record's. `keep` says that so much was
    read without a kill that the place is to be committed by itself.
    """

    log: str
    begin: int
    next: int
    stamp: int | None = None
    wall_time: int | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class EvidenceLost:
    """A witness lost records, `count` of them where that is known, between two times."""

    source: str
    reason: str
    time: int
    since: int | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The journal gave a kill its revision: what is learned of it from now on can amend it."""

    episode_id: str
    victim_cgroup: str | None
    revision: int


@dataclass(frozen=True, slots=True)
class FoundRisen:
    """A cgroup that has just appeared counts kills below it that it has no cgroup left for.

    Cgroups came, were killed in and went before its directory was watched.
    """

    cgroup: Cgroup


@dataclass(frozen=True, slots=True)
class Surveyed:
    """Every cgroup below the root has been looked at: these are all that exist.

    Unless it is not `whole`: then a directory could not be listed, and there may be others in it.
    """

    cgroup_ids: frozenset[int]
    root: Cgroup
    time: int
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSeen:
    """A runtime, or a worker, says who a cgroup is.

    `cgroup` is the container's own cgroup as the watched hierarchy names it, and `cgroup_id` the
    inode of its directory, which tells the lives of one container apart; both are `None` where the
    container has no cgroup now, or it could not be found. `pid` is its init in the PID namespace
    that the kernel's log speaks of. `memory_limit_bytes` is the limit that it was given, `None`
    where it has none or nobody said. `start_time` is when its runtime says that this life began.
    `counted_above` says that its own cgroup counts no kills, and that `cgroup` is the nearest above
    that which does, with whatever else lives there. `listed` is one that was found in a list, and
    not heard of as it began: a list may still show what has ended. `created` is one that was made
    and has not begun.
    """

    source: str
    time: int
    container: Container
    cgroup: str | None = None
    cgroup_id: int | None = None
    pid: int | None = None
    memory_limit_bytes: int | None = None
    start_time: int | None = None
    counted_above: bool = False
    listed: bool = False
    created: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOom:
    """A runtime was told of an OOM kill in one of its containers: a witness, it counts nothing."""

    source: str
    time: int
    seen_time: int
    container_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnded:
    """A runtime, or a worker, says how a container's life ended.

    `exit_code` is the status as it was told, 128 + signal in most runtimes; `signal` only where it
    was told apart. `stop_requested` and `stop_signal` say whether somebody asked for the end;
    `oom_killed` is the runtime's own flag. `None` is what nobody said. `cgroup_id` names one life
    of several; where it is `None`, `pid` (of the init, as its runtime told it) and `exit_time` say
    of some lives that they are not meant. `wait_seconds` is how long whoever asks will wait, at the
    most, for witnesses that are due.
    """

    source: str
    time: int
    container_id: str
    cgroup_id: int | None = None
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    exit_time: int | None = None
    stop_requested: bool | None = None
    stop_signal: int | None = None
    oom_killed: bool | None = None
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSeen:
    """Answer to `FindSandbox`: the host's side of a gVisor sandbox.

    `cgroup` is where the sentry lives, by path and inode, and `alone` says that nobody else lives
    there; `sentry`, `stubs` and `gofers` are pids in the initial PID namespace, the stubs those of
    that moment. All are absent where nothing of it is visible, and while it is still `sought`.
    """

    container_id: str
    cgroup_id: int | None
    time: int
    cgroup: str | None = None
    sandbox_cgroup_id: int | None = None
    alone: bool = False
    sentry: int | None = None
    stubs: tuple[int, ...] = ()
    gofers: tuple[int, ...] = ()
    sought: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLogRead:
    """Answer to `ReadSandboxLog`: what a gVisor sandbox itself wrote of its end.

    `stubs` are pids of stubs that it lost to SIGKILL, `lines` its own words on that and on a panic,
    `out_of_memory` says that it panicked for want of memory.
    """

    container_id: str
    cgroup_id: int | None
    stubs: tuple[int, ...] = ()
    lines: tuple[str, ...] = ()
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSampled:
    """What a container used: the PSS of its processes, summed; with its limit if that was told."""

    container_id: str
    cgroup_id: int | None
    time: int
    usage_bytes: int
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SignalledByKiller:
    """A userspace OOM killer says in its log that it sent this process a signal."""

    killer: str
    time: int
    pid: int
    mark: str


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock was set, or the machine slept: by how many microseconds it leapt.

    What is observed from now on is dated by the new clock.
    """

    microseconds: int


@dataclass(frozen=True, slots=True)
class LastLookReading:
    """Answer to `LastLook`; what the counters showed was sent before it.

    `present` says that this life of the cgroup is still there, `kills` is its own `oom_kill`,
    `None` where it has no counter, or where one in it could not be read. `killer_marks` are
    userspace OOM killers by name, each with the mark that it left on the cgroup. `limit_hits` is
    what was last read of its limit. `populated` says that processes lived in it then.
    """

    path: str
    cgroup_id: int | None
    time: int
    present: bool
    kills: int | None = None
    killer_marks: tuple[tuple[str, str], ...] = ()
    limit_hits: LimitHits | None = None
    populated: bool = False


@dataclass(frozen=True, slots=True)
class ExitFound:
    """Answer to `FindExit`: the exit as it was told last, and its revision.

    Both are `None` where the journal does not have it any more.
    """

    question: FindExit
    revision: int | None = None
    event: ContainerExit | None = None


@dataclass(frozen=True, slots=True)
class Describe:
    """Read this cgroup and its ancestors now, and its memory usage.

    `attributed` gives the local `oom` that earlier kills account for, by cgroup id (0 where it has
    no entry). Where one alone rose beyond that, it was the limit's, and memory.oom.group of the
    cgroups above it says nothing about this kill: it need not be read.
    """

    cgroup: Cgroup
    attributed: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Measure:
    """Read this cgroup's memory usage now."""

    cgroup: Cgroup


@dataclass(frozen=True, slots=True)
class Audit:
    """Read this cgroup's hierarchical count, then what is below it, from the top down.

    `expected` gives the count that is already accounted for by cgroup id (0 where it has no
    entry): a subtree that shows just that need not be entered.
    """

    cgroup: Cgroup
    expected: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """Read the counters of the cgroup at this path now: another witness says it was killed in."""

    path: str


@dataclass(frozen=True, slots=True)
class LastLook:
    """Read the counters of this cgroup and of those in it once more: its container has ended.

    `cgroup_id` is the life that is meant, `None` whichever is there.
    """

    path: str
    cgroup_id: int | None


@dataclass(frozen=True, slots=True)
class FindSandbox:
    """Find the host's processes of this container, if its handler is gVisor's.

    `cgroup_id` names the life, `pid` is what its runtime told; both may be unknown.
    """

    container_id: str
    cgroup_id: int | None
    handler: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class ReadSandboxLog:
    """Read what this container's sandbox wrote since it was found: it has ended.

    `sentry` tells which sandbox that was, also where it was found before its container's cgroup.
    """

    container_id: str
    cgroup_id: int | None
    sentry: int | None


@dataclass(frozen=True, slots=True)
class FollowUsage:
    """Sample what this container uses: its counters cannot be read. `pid` is its main process."""

    container_id: str
    cgroup_id: int | None
    pid: int
    memory_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class FindExit:
    """Find in the journal the exit of a life that was told, and is not remembered.

    `cgroup_id` is the life's; `episode_ids` are those that the exit may have where its cgroup was
    not known as it was told.
    """

    container_id: str
    cgroup_id: int | None
    episode_ids: tuple[str, ...]


Observation = (
    CounterReading
    | CgroupRemoved
    | LineageReading
    | UsageReading
    | AuditReading
    | Surveyed
    | FoundRisen
    | VictimNamed
    | ProcessesSeen
    | LogRead
    | EvidenceLost
    | Recorded
    | ContainerSeen
    | RuntimeOom
    | ContainerEnded
    | LastLookReading
    | SandboxSeen
    | SandboxLogRead
    | UsageSampled
    | SignalledByKiller
    | ClockStepped
    | ExitFound
)
Question = (
    Describe
    | Measure
    | Audit
    | Look
    | LastLook
    | FindSandbox
    | ReadSandboxLog
    | FollowUsage
    | FindExit
)
