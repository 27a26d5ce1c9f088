"""What can be set from outside, and what holds where nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oomwatch.cgroup.hierarchy import DEFAULT_ROOT
from oomwatch.containers.layouts import Layout
from oomwatch.sources.kernel_log import DEFAULT_KERNEL_LOG
from oomwatch.sources.memory_events.source import POLL_SECONDS
from oomwatch.sources.runtimes import RuntimeSocket

MEMORY_EVENTS = 10_000
"""Events kept in memory at most, where there is no state directory: some 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What can be set from outside.

    A `state_dir` of `None` keeps the journal in memory, with no more than the last 10,000 events.
    `kernel_log` is read where the tree that is watched is a kernel's, and nowhere else.
    `killer_log` is where userspace OOM killers write what they kill.
    `runtimes` are asked for names; `None` means those at their usual sockets, where the tree that
    is watched is a kernel's. `layouts` are patterns for the paths of an operator's own containers.
    """

    cgroup_root: Path = DEFAULT_ROOT
    state_dir: Path | None = None
    kernel_log: Path | None = DEFAULT_KERNEL_LOG
    killer_log: Path | None = None
    runtimes: tuple[RuntimeSocket, ...] | None = None
    layouts: tuple[Layout, ...] = ()
    poll_seconds: float = POLL_SECONDS
    force_polling: bool = False
    retention_events: int = 100_000
    retention_age_seconds: float = 30 * 86400.0

    @property
    def kept_events(self) -> int:
        """How many events the journal keeps."""
        if self.state_dir is None:
            return min(self.retention_events, MEMORY_EVENTS)
        return self.retention_events
