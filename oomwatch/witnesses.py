"""The witnesses that this host has: which can be had at all, and whose word is worth what.

Counters first. Where the usual place has none to read, the kernel's log and its tracepoint are
watched alone; where nothing is left that would see a kill, that is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oomwatch.cgroup.hierarchy import DEFAULT_ROOT
from oomwatch.cgroup.process import sees_the_hosts_cgroups, sees_the_hosts_pids
from oomwatch.config import Config
from oomwatch.containers.gvisor import inside_sandbox
from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.errors import CgroupError, NoMemoryController
from oomwatch.events import SourceState
from oomwatch.host_paths import HostPaths
from oomwatch.ledger import LogPlace
from oomwatch.sources import Source
from oomwatch.sources.kernel_log import KernelLog
from oomwatch.sources.killer_log import KillerLog
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.runtimes import USUAL_SOCKETS, runtime_sources
from oomwatch.sources.runtimes.source import RuntimeSource
from oomwatch.sources.tracepoint import Tracepoint


class Witnesses:
    """Every source, made and not started.

    `memory_events` is the counters' witness, `None` where there are none to read; `naming` those
    that name victims, `host_paths` what brings their names to the part of the host that is watched.
    """

    def __init__(self, config: Config) -> None:
        """Raises `CgroupError` where that leaves nothing to watch."""
        self.memory_events, self._no_counters = _memory_events(config)
        self.host_paths = _host_paths(self.memory_events)
        self.naming = _naming(config, self.memory_events)
        self.beside: tuple[Source, ...] = (
            *self.naming,
            *((KillerLog(config.killer_log),) if config.killer_log is not None else ()),
            *_runtimes(config, self.memory_events),
        )

    @property
    def all(self) -> tuple[Source, ...]:
        """The sources, that of the counters last."""
        if self.memory_events is None:
            return self.beside
        return (*self.beside, self.memory_events)

    def follow_log_from(self, place: LogPlace | None) -> None:
        """Say how far the kernel's log was told in this boot; `None` where it never was."""
        for source in self.naming:
            if isinstance(source, KernelLog):
                source.place = place

    def recall_lives(self, lives: Sequence[Life], since: int | None) -> None:
        """Say whose ends the runtimes are to be asked for: of these nobody told before a restart.

        `since` is when something was written down last (microseconds since the epoch).
        """
        for source in self.beside:
            if isinstance(source, RuntimeSource):
                source.recall([life for life in lives if source.name in life.said], since)

    @property
    def notice(self) -> str | None:
        """What a person should be told once, when watching begins; `None` where all is well."""
        if self._no_counters is None:
            return None
        names = " and ".join(source.name for source in self.naming if source.active)
        return f"no counters: {self._no_counters}. Watching by {names} alone"

    @property
    def see_kills(self) -> bool:
        """Is anybody there who would see a kill? A runtime's word alone is not enough for one."""
        witnesses: list[Source] = list(self.naming)
        if self.memory_events is not None:
            witnesses.append(self.memory_events)
        return any(source.state().active for source in witnesses)

    def states(self) -> tuple[SourceState, ...]:
        """How each is doing, one that cannot be had included."""
        states = tuple(source.state() for source in self.all)
        if self.memory_events is not None:
            return states
        detail = self._no_counters or ""
        blind = SourceState(name=MemoryEvents.name, active=False, degraded=True, detail=detail)
        return (blind, *states)

    def refuse_blindness(self) -> None:
        """Without counters, a log that cannot be read leaves nothing to watch."""
        if self._no_counters is None or any(source.active for source in self.naming):
            return
        others = "; ".join(source.state().detail for source in self.naming)
        raise NoMemoryController(f"{self._no_counters}; and nothing else is to be had: {others}")


def _memory_events(config: Config) -> tuple[MemoryEvents | None, str | None]:
    """The counters' witness, or why the usual place has none; elsewhere that is an error.

    Inside a gVisor sandbox the usual place has a constant row of zeros, and the log is made up.
    """
    why = None
    if config.cgroup_root == DEFAULT_ROOT:
        why = inside_sandbox(Path("/proc/version").read_text(errors="replace"))
    if why is not None:
        raise NoMemoryController(
            f"this is the inside of a gVisor sandbox ({why}): no kill can be seen from here; run "
            "oomwatch on its host"
        )
    try:
        return (
            MemoryEvents(
                config.cgroup_root,
                poll_seconds=config.poll_seconds,
                force_polling=config.force_polling,
            ),
            None,
        )
    except CgroupError as error:
        if config.cgroup_root != DEFAULT_ROOT or config.kernel_log is None:
            raise
        return None, str(error)


def _naming(config: Config, counters: MemoryEvents | None) -> tuple[KernelLog | Tracepoint, ...]:
    """The witnesses that name victims: none where the tree that is watched is no kernel's.

    The tracepoint has no path, and so names nobody in a part of the tree but by its pid.
    """
    if config.kernel_log is None:
        return ()
    if counters is not None and not counters.hierarchy.kernel:
        return ()
    log = KernelLog(config.kernel_log)
    own = counters is None or counters.hierarchy.real_root or sees_the_hosts_pids()
    return (log, Tracepoint()) if own else (log,)


def _host_paths(counters: MemoryEvents | None) -> HostPaths | None:
    """What brings the names of the whole host to those of the part that is watched, if it is."""
    if counters is None or counters.hierarchy.real_root or not counters.hierarchy.kernel:
        return None
    prefix = counters.hierarchy.prefix
    return HostPaths(prefix, counters.follows, ours=sees_the_hosts_cgroups())


def _runtimes(config: Config, counters: MemoryEvents | None) -> tuple[RuntimeSource, ...]:
    """The witnesses that name containers; beside a tree that is no kernel's, those asked for."""
    hierarchy = counters.hierarchy if counters is not None else None
    sockets = config.runtimes
    if sockets is None:
        sockets = USUAL_SOCKETS if hierarchy is None or hierarchy.kernel else ()
    return runtime_sources(sockets, Places(hierarchy))
