"""The vocabulary: what oomwatch tells, and the words it tells it in.

Every type is frozen. A field that is not known is `None` (or an empty tuple) and is then absent
from the JSON and the protobuf message; it is never guessed, and never 0 in place of unknown.

Units: `*_bytes` are bytes, signed 64 bit; `*_time` and `occur_after` are whole microseconds since
the Unix epoch by CLOCK_REALTIME; cgroup paths are as the kernel writes them, absolute from the
root of the hierarchy and beginning with "/".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What an event tells."""

    OOM_KILL = "oom_kill"
    CONTAINER_EXIT = "container_exit"
    MEMORY_PRESSURE = "memory_pressure"
    EVIDENCE_GAP = "evidence_gap"


class Scope(StrEnum):
    """Whose limit was hit, seen from the victim's cgroup."""

    CONTAINER_LIMIT = "container_limit"
    ANCESTOR_LIMIT = "ancestor_limit"
    DESCENDANT = "descendant"
    NODE = "node"
    UNKNOWN = "unknown"


class Confidence(StrEnum):
    """How sure an event is; `confirmed` needs the kernel's own word."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CONFIRMED = "confirmed"

    @property
    def rank(self) -> int:
        """Position in the order low < medium < high < confirmed, from 0."""
        return _CONFIDENCE_ORDER.index(self)


_CONFIDENCE_ORDER = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH, Confidence.CONFIRMED)


class Constraint(StrEnum):
    """What bounded the allocation that failed (include/linux/oom.h, enum oom_constraint)."""

    MEMCG = "memcg"
    NONE = "none"
    CPUSET = "cpuset"
    MEMORY_POLICY = "memory_policy"


class Verdict(StrEnum):
    """Was an exit caused by running out of memory?"""

    OOM = "oom"
    NOT_OOM = "not_oom"
    UNKNOWN = "unknown"


class PressureLevel(StrEnum):
    """Which line of a PSI file: some tasks stalled, or all (Documentation/accounting/psi.rst)."""

    SOME = "some"
    FULL = "full"


@dataclass(frozen=True, slots=True, eq=False)
class Cgroup:
    """One life of one cgroup: the directory with inode `id`, until it is removed.

    A path that is removed and made again is another Cgroup. `name` is the last part of the path;
    for the root it is the path of the watched root itself ("" for the real one). At `absent_at`
    (monotonic seconds) it was known not to be there yet; 0 where nobody looked: whoever was killed
    at its path before that lived in another.
    """

    id: int
    name: str
    parent: Cgroup | None = None
    absent_at: float = 0.0

    @property
    def path(self) -> str:
        """Absolute path from the root of the hierarchy, "/" for the root."""
        names = [cgroup.name for cgroup in self.lineage()]
        return "/".join(reversed(names)) or "/"

    def lineage(self) -> Iterator[Cgroup]:
        """Yield this cgroup, its parent, and so on up to the watched root."""
        cgroup: Cgroup | None = self
        while cgroup is not None:
            yield cgroup
            cgroup = cgroup.parent

    def __repr__(self) -> str:
        return f"<Cgroup {self.id} {self.path}>"


def upwards(path: str | None) -> Iterator[str]:
    """A cgroup's path and those around it, up to the root's; nothing for none."""
    while path:
        yield path
        path = path.rpartition("/")[0] or ("/" if path != "/" else None)


def is_within(path: str, above: str) -> bool:
    """Is a cgroup's path another's, or below it? "/" is above every path."""
    return (path + "/").startswith(above.rstrip("/") + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One piece of evidence under an event: which witness, when, and what it saw in words."""

    source: str
    time: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The Kubernetes pod that a container belongs to."""

    uid: str | None = None
    name: str | None = None
    namespace: str | None = None


LONGEST_ID = 256
"""Characters of the longest id of a container that a request may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Who a cgroup is. `handler` is the OCI runtime's name: runc, crun, runsc, …"""

    id: str
    name: str | None = None
    runtime: str | None = None
    handler: str | None = None
    image: str | None = None
    labels: Mapping[str, str] | None = None
    pod: Pod | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """One process that the kernel killed. Pids are those of the initial PID namespace.

    The sizes are those that the kernel printed. `main_process` is True where it was the first
    process of its cgroup, False where another was.
    """

    pid: int
    comm: str | None = None
    cmdline: tuple[str, ...] = ()
    uid: int | None = None
    total_vm_bytes: int | None = None
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None
    shmem_rss_bytes: int | None = None
    pgtables_bytes: int | None = None
    oom_score_adj: int | None = None
    main_process: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoker:
    """The task whose allocation ran into the limit; it need not be the victim."""

    comm: str | None = None
    gfp_mask: str | None = None
    order: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A row of the table that the kernel printed before a kill: who held how much, then.

    The table lists those that could have been killed. `pid` is a thread's and `tgid` its process's;
    `rss_bytes` is all resident memory, `swap_bytes` what was swapped out.
    """

    pid: int
    tgid: int | None = None
    uid: int | None = None
    comm: str | None = None
    total_vm_bytes: int | None = None
    rss_bytes: int | None = None
    swap_bytes: int | None = None
    pgtables_bytes: int | None = None
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """Figures of one cgroup, read when the kill was seen.

    `limit_bytes` is memory.max, absent where there is no limit; `peak_bytes` is memory.peak,
    absent before kernel 5.19.
    """

    limit_bytes: int | None = None
    peak_bytes: int | None = None
    current_bytes: int | None = None
    swap_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OomKill:
    """The kernel killed `kill_count` times in one cgroup, in one episode.

    `victim_cgroup` is where the killed process lived. It is absent where that cannot be known: then
    the kill happened somewhere below `survivor_cgroup` (the nearest cgroup that still exists), in
    one of `candidates` or in a cgroup that came and went unseen. `candidates_omitted` counts those
    that were left out because the list is bounded.

    `limit_cgroup` is the cgroup whose limit was hit, absent for the node's and for an unknown one.
    `memory` is the limit cgroup's where that is known, and else the victim cgroup's.

    `kill_count` is the rise of the kernel's counter; `victims` are distinct processes. They can
    differ: a group kill counts its first victim twice. An amendment (`amends` is the revision that
    it adds to) has no `kill_count`.

    `occur_time` is when the kernel did it, known from its log or its tracepoint only; `occur_after`
    is the last look that showed less. `recovered` marks what happened while nobody watched.

    `tasks` are the largest of the `task_count` that the kernel listed before it chose its victim,
    the largest first: known from its log only, and only where it printed its report.
    """

    kind: ClassVar[Kind] = Kind.OOM_KILL

    episode_id: str
    detect_time: int
    scope: Scope
    confidence: Confidence
    kill_count: int | None = None
    occur_time: int | None = None
    occur_after: int | None = None
    kernel_time_seconds: float | None = None
    recovered: bool = False
    amends: int | None = None
    container: Container | None = None
    victim_cgroup: str | None = None
    victim_cgroup_id: int | None = None
    limit_cgroup: str | None = None
    survivor_cgroup: str | None = None
    candidates: tuple[str, ...] = ()
    candidates_omitted: int | None = None
    group_kill: bool | None = None
    constraint: Constraint | None = None
    victims: tuple[Victim, ...] = ()
    invoker: Invoker | None = None
    memory: MemoryUsage | None = None
    tasks: tuple[Task, ...] = ()
    task_count: int | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerExit:
    """A container's life ended, with the verdict on why.

    `kills` are the revisions of the `OomKill` events that the verdict rests on, `oom_kills` the
    number of kills in that life. `cgroup_id` tells the lives of one container apart.
    """

    kind: ClassVar[Kind] = Kind.CONTAINER_EXIT

    episode_id: str
    detect_time: int
    verdict: Verdict
    confidence: Confidence
    container: Container | None = None
    cgroup: str | None = None
    cgroup_id: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    exit_time: int | None = None
    stop_requested: bool | None = None
    reasons: tuple[str, ...] = ()
    kills: tuple[int, ...] = ()
    oom_kills: int | None = None
    recovered: bool = False
    amends: int | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPressure:
    """Tasks of a cgroup (or of the node: "/") stalled on memory for longer than a threshold."""

    kind: ClassVar[Kind] = Kind.MEMORY_PRESSURE

    episode_id: str
    detect_time: int
    cgroup: str
    level: PressureLevel
    stall_microseconds: int
    window_microseconds: int
    confidence: Confidence = Confidence.CONFIRMED
    container: Container | None = None
    memory: MemoryUsage | None = None
    recovered: bool = False
    amends: int | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceGap:
    """Evidence may have been lost: between `occur_after` and `detect_time`, `source` was blind.

    `lost_count` is how many records were lost, absent where that cannot be known; `cgroup` is the
    cgroup below which it matters, absent for the whole node.
    """

    kind: ClassVar[Kind] = Kind.EVIDENCE_GAP

    episode_id: str
    detect_time: int
    source: str
    reason: str
    confidence: Confidence = Confidence.CONFIRMED
    cgroup: str | None = None
    lost_count: int | None = None
    occur_after: int | None = None
    recovered: bool = False
    amends: int | None = None
    container: Container | None = None
    evidence: tuple[Evidence, ...] = ()


Event = OomKill | ContainerExit | MemoryPressure | EvidenceGap


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with its place in a journal. Revisions only rise; they need not be without gaps."""

    revision: int
    journal_id: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """How one witness is doing: what `doctor`, `GetStatus` and the health service show.

    `detail` is a sentence for people: what is seen, or why not and what would mend it.
    `figures` are counts worth a metric (watches, polled cgroups, overflows, …).
    """

    name: str
    active: bool
    degraded: bool = False
    detail: str = ""
    figures: Mapping[str, int] = field(default_factory=dict)
