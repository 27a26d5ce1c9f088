"""What a running oomwatch says about itself: the host, its sources, its journal, its cgroups."""

from __future__ import annotations

from dataclasses import dataclass

from oomwatch.events import Container, MemoryUsage, SourceState


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatus:
    """How the journal is doing.

    `path` is absent for a journal in memory. `newest_revision` is 0 while nothing was ever told.
    `healthy` is False while events cannot be written; `pending_events` are then held in memory.
    `disk_full` says that the oldest are deleted for the newest, as there is no room for both.
    """

    journal_id: str
    healthy: bool
    detail: str
    oldest_revision: int
    newest_revision: int
    events: int
    pending_events: int
    size_bytes: int | None = None
    path: str | None = None
    disk_full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """The answer to GetStatus. Times are microseconds since the Unix epoch.

    `problems` are sentences on what was promised and is not kept now, with the mend; with none of
    them the daemon is `healthy`, though a source may be degraded.
    """

    version: str
    hostname: str
    boot_id: str
    kernel_release: str
    cgroup_root: str
    start_time: int
    healthy: bool
    cgroups: int
    kills_told: int
    subscribers: int
    sources: tuple[SourceState, ...]
    journal: JournalStatus
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Witness:
    """One source as seen from one cgroup: its name and way ("memory_events by inotify").

    `active` says that it follows this cgroup now; where it does not, `detail` says why.
    """

    name: str
    active: bool = True
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupReport:
    """One watched cgroup, as `oomwatch list` shows it, and the container that it is, if it is one.

    `kills` is the kernel's own count for this cgroup (memory.events.local, `oom_kill`),
    `kills_below` that of it and everything below it, removed children included. Both are absent
    where the cgroup has no memory controller or is gone. `witnesses` are the sources that
    follow it and those that cannot. `notes` are sentences on how it is watched.
    """

    path: str
    id: int
    kills: int | None = None
    kills_below: int | None = None
    memory: MemoryUsage | None = None
    witnesses: tuple[Witness, ...] = ()
    notes: tuple[str, ...] = ()
    container: Container | None = None
