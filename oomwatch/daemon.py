"""The composition root: the only place that knows every part, and joins them.

`Watcher` is everything but the network: `oomwatch tail` runs it in its own process where no daemon
answers. `serve` puts the gRPC server in front of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import socket as socket_module
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import oomwatch
from oomwatch.cgroup.hierarchy import DEFAULT_ROOT
from oomwatch.correlator import Correlator
from oomwatch.events import Entry
from oomwatch.journal import Journal, Retention
from oomwatch.ledger import Ledger
from oomwatch.pipeline import Pipeline
from oomwatch.sources import Source
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.memory_events.source import POLL_SECONDS
from oomwatch.status import CgroupReport, NodeStatus
from oomwatch.subscriptions import Subscriptions

if TYPE_CHECKING:
    from oomwatch.rpc.server import RpcServer

log = logging.getLogger(__name__)

AUDIT_SECONDS = 30.0
"""How often the node's sum is held against what was told: one file read. Kills that no cgroup's
counter shows (in the root cgroup, or in one that came and went while inotify overflowed) raise no
notification at all, so this cannot be awaited."""

MEMORY_EVENTS = 10_000
"""Events kept in memory at most, where there is no state directory: some 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What can be set from outside.

    A `state_dir` of `None` keeps the journal in memory, with no more than the last 10,000 events.
    """

    cgroup_root: Path = DEFAULT_ROOT
    state_dir: Path | None = None
    poll_seconds: float = POLL_SECONDS
    force_polling: bool = False
    retention_events: int = 100_000
    retention_age_seconds: float = 30 * 86400.0


class Watcher:
    """Watches this host: sources, correlator, journal and subscriptions, joined.

    Raises on construction what makes watching impossible: `NoCgroupRoot`, `NoMemoryController`,
    `JournalLocked`, `JournalUnusable`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.memory_events = MemoryEvents(
            config.cgroup_root,
            poll_seconds=config.poll_seconds,
            force_polling=config.force_polling,
        )
        self.sources: tuple[Source, ...] = (self.memory_events,)
        self.boot_id = _boot_id()
        self.journal = Journal.open(
            config.state_dir,
            retention=Retention(
                max_events=_kept(config),
                max_age_seconds=config.retention_age_seconds,
            ),
        )
        rows = self.journal.load_ledger(self.boot_id)
        self.correlator = Correlator(self.boot_id, Ledger(rows or ()), resumed=rows is not None)
        self.pipeline = Pipeline(self.correlator, self.journal, self.sources)
        self.subscriptions = Subscriptions(self.journal)
        self.on_health: Callable[[bool], None] = lambda _: None
        self._start_time = 0
        self._audit_timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Take in the host as it is, then follow it; returns once every source is watching."""
        self._start_time = _now()
        self.journal.start(
            self.boot_id,
            self._committed,
            on_health=self._journal_health,
            on_sync=self.subscriptions.coming,
        )
        for source in self.sources:
            await source.start(self.pipeline.emit)
        self._audit_later()

    async def stop(self) -> None:
        """Stop every part, and commit what was told."""
        if self._audit_timer is not None:
            self._audit_timer.cancel()
        for source in self.sources:
            await source.stop()
        self.pipeline.stop()
        self.subscriptions.close()
        await self.journal.close()

    async def __aenter__(self) -> Watcher:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def status(self) -> NodeStatus:
        """Describe the host, the sources and the journal as they are now."""
        journal = self.journal.status()
        states = tuple(source.state() for source in self.sources)
        return NodeStatus(
            version=oomwatch.__version__,
            hostname=socket_module.gethostname(),
            boot_id=self.boot_id,
            kernel_release=platform.release(),
            cgroup_root=str(self.config.cgroup_root),
            start_time=self._start_time,
            healthy=journal.healthy and any(state.active for state in states),
            cgroups=self.memory_events.tree.cgroups,
            kills_told=self.correlator.kills_told,
            subscribers=self.subscriptions.count,
            sources=states,
            journal=journal,
        )

    async def list_cgroups(
        self, prefix: str = "/", after_path: str = "", limit: int = 500
    ) -> list[CgroupReport]:
        """Report cgroups at and below `prefix` by path, the first `limit` after `after_path`."""
        return await self.memory_events.report(prefix, after_path, limit)

    async def get_cgroup(self, path: str) -> CgroupReport | None:
        """Report one cgroup; `None` if there is none of that path."""
        reports = await self.memory_events.report(path, "", 1)
        return reports[0] if reports and reports[0].path == path else None

    def _committed(self, entries: tuple[Entry, ...]) -> None:
        self.subscriptions.published(entries)

    def _journal_health(self, healthy: bool, detail: str) -> None:
        (log.info if healthy else log.error)("%s", detail)
        self.on_health(healthy)

    def _audit_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._audit_timer = loop.call_later(AUDIT_SECONDS, self._audit)

    def _audit(self) -> None:
        self.pipeline.audit(self.memory_events.tree.root.cgroup)
        self._audit_later()


async def serve(
    config: Config,
    make_server: Callable[[Watcher], RpcServer],
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the daemon until this task is cancelled, then end every stream and commit.

    `make_server` builds the gRPC server in front of the watcher; `ready` is called once both watch
    and answer.
    """
    watcher = Watcher(config)
    try:
        await watcher.start()
        server = make_server(watcher)
        watcher.on_health = server.set_serving
        await server.start()
        # What is here by now stays for good. Frozen, no collection of cycles walks it again: with
        # 100,000 cgroups that would hold up a kill for 35 ms.
        gc.collect()
        gc.freeze()
        try:
            ready()
            await asyncio.get_running_loop().create_future()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await server.stop()
    finally:
        await watcher.stop()


def _kept(config: Config) -> int:
    if config.state_dir is None:
        return min(config.retention_events, MEMORY_EVENTS)
    return config.retention_events


def _boot_id() -> str:
    """The kernel's random id of this boot (man 4 random); without /proc, an id of this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def _now() -> int:
    return time.time_ns() // 1000
