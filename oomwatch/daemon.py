"""The composition root: the only place that knows every part, and joins them.

`Watcher` is everything but the network: `oomwatch tail` runs it in its own process where no daemon
answers; `oomwatch.serving` puts the gRPC server in front of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket as socket_module
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import oomwatch
from oomwatch.config import Config
from oomwatch.containers.lives import Life
from oomwatch.containers.paths import identify
from oomwatch.containers.registry import Containers
from oomwatch.correlator import Correlator
from oomwatch.correlator.names import KEEP_SECONDS
from oomwatch.errors import OwnFault
from oomwatch.events import Container, ContainerExit, Entry, EvidenceGap, OomKill, SourceState
from oomwatch.finalizing import Finalization
from oomwatch.journal import Journal, Retention
from oomwatch.ledger import Ledger, LedgerChange
from oomwatch.observations import ContainerSeen, Observation, Recorded
from oomwatch.own_process import own_cgroup
from oomwatch.pipeline import Pipeline
from oomwatch.recollection import Recollection
from oomwatch.registration import Registration, several_begin_so
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.samples import Samples
from oomwatch.sources.sandboxes import Sandboxes, note
from oomwatch.status import CgroupReport, NodeStatus
from oomwatch.subscriptions import Subscriptions
from oomwatch.witnesses import Witnesses

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

AUDIT_SECONDS = 30.0
"""How often the node's sum is held against what was told: one file read. Kills that no cgroup's
counter shows (in the root cgroup, or in one that came and went while inotify overflowed) raise no
notification at all, so this cannot be awaited."""

RECALLED = 4096
"""Events of the journal that are looked through at the start, for the kills and the exits that may
still be amended. An exit of before that is found in the journal when it is asked for."""

_SLICE = 64
"""Cgroups whose names are read before whatever else waits has its turn: some 2 ms."""


class Watcher:
    """Watches this host: sources, correlator, journal and subscriptions, joined.

    Raises what makes watching impossible: `NoCgroupRoot`, `NoMemoryController`, `JournalLocked`,
    `JournalUnusable`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.witnesses = Witnesses(config)
        self.memory_events = self.witnesses.memory_events
        self.boot_id = _boot_id()
        self.journal = Journal.open(
            config.state_dir,
            retention=Retention(
                max_events=config.kept_events,
                max_age_seconds=config.retention_age_seconds,
            ),
        )
        rows = self.journal.load_ledger(self.boot_id)
        self._log_place = self.journal.load_log_place(self.boot_id)
        self.witnesses.follow_log_from(self._log_place)
        self._earlier = self.journal.earlier_boot(self.boot_id) if _has_boot_id() else None
        # Whoever was here in an earlier boot has not seen anything of this one's.
        self._resumed = rows is not None or self._earlier is not None
        self.correlator = Correlator(
            self.boot_id,
            Ledger(rows or ()),
            resumed=self._resumed,
            counted=self.memory_events is not None,
            whole_host=self.witnesses.host_paths is None,
            containers=Containers(
                self.journal.load_lives(self.boot_id),
                identify=partial(identify, layouts=config.layouts),
            ),
        )
        self.samples = Samples()
        self.sandboxes = Sandboxes(
            self.memory_events.hierarchy if self.memory_events is not None else None
        )
        self.recollection = Recollection(self.journal)
        self.pipeline = Pipeline(
            self.correlator,
            self.journal,
            (self.sandboxes, self.samples, self.recollection, *self.witnesses.all),
        )
        self.registration = Registration(
            self.correlator.containers,
            self.memory_events.hierarchy if self.memory_events is not None else None,
            emit=self.pipeline.emit,
            report=self._report,
            states=self.witnesses.states,
        )
        self.finalization = Finalization(
            self.correlator.exits,
            emit=self.pipeline.emit,
            find=self._find_container,
            runs=self._runs,
        )
        self.subscriptions = Subscriptions(self.journal)
        self.on_health: Callable[[bool], None] = lambda _: None
        self.on_told: Callable[[tuple[Entry, ...]], None] = lambda _: None
        self.broken: asyncio.Future[None] | None = None
        """Fails with OwnFault where oomwatch cannot go on; there from `start` on."""
        self._cgroup = own_cgroup()
        self._start_time = 0
        self._unreachable: dict[str, str] = {}
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
        self.broken = asyncio.get_running_loop().create_future()
        self.broken.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.pipeline.on_fault = self._fault
        if self._earlier is not None:
            self.journal.append([self._reboot_gap(*self._earlier)], LedgerChange())
        if self._resumed:
            self.correlator.exits.unwatched_until(self._start_time)
        await self._recall()
        self.recollection.start(self._recollected)
        self.sandboxes.start(self.pipeline.emit)
        self.samples.start(self.pipeline.emit)
        naming = self.witnesses.naming
        for source in self.witnesses.beside:
            await source.start(self._emit_names if source in naming else self.pipeline.emit)
        self.witnesses.refuse_blindness()
        self.correlator.expect(frozenset(source.name for source in naming if source.active))
        if self.memory_events is not None:
            # Last: what is killed while the tree is taken in is named already.
            await self.memory_events.start(self.pipeline.emit)
        # Before anybody relies on us: from here on the next start knows what is old, and that is
        # so also where there was nothing to write down. An unwell disk is told, not waited for.
        self.journal.append((), LedgerChange())
        await self.journal.flush()
        if self.witnesses.notice is not None:
            log.warning("%s", self.witnesses.notice)
        if self.memory_events is not None:
            self._audit_later(self.memory_events)

    def _recollected(self, observations: Sequence[Observation]) -> None:
        self.pipeline.emit(observations)
        self.finalization.written()

    def _emit_names(self, observations: Sequence[Observation]) -> None:
        host_paths = self.witnesses.host_paths
        if host_paths is not None:
            observations = host_paths.ours(observations)
        self.pipeline.emit(observations)

    async def stop(self) -> None:
        """Stop every part, and commit what was told."""
        if self._audit_timer is not None:
            self._audit_timer.cancel()
        await self.sandboxes.stop()
        await self.samples.stop()
        for source in self.witnesses.all:
            await source.stop()
        # Last: a runtime's word that came just now may ask for an exit of long ago.
        await self.recollection.stop()
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
        followed = self.memory_events
        problems = self.problems()
        return NodeStatus(
            version=oomwatch.__version__,
            hostname=socket_module.gethostname(),
            boot_id=self.boot_id,
            kernel_release=platform.release(),
            cgroup_root=str(self.config.cgroup_root),
            start_time=self._start_time,
            healthy=not problems,
            cgroups=followed.tree.cgroups if followed is not None else 0,
            kills_told=self.correlator.kills_told,
            subscribers=self.subscriptions.count,
            sources=tuple(map(self._with_faults, self.witnesses.states())),
            journal=journal,
            problems=problems,
        )

    def problems(self) -> tuple[str, ...]:
        """What was promised and is not kept now, a sentence each; empty is health."""
        found = list(self._unreachable.values())
        journal = self.journal.status()
        if not journal.healthy:
            found.append(journal.detail)
        if not self.witnesses.see_kills:
            found.append("no kill can be seen: no source is active; each says why")
        return tuple(found)

    def degraded(self) -> dict[str, bool]:
        """Whether each source is degraded, by name; the status says how."""
        states = map(self._with_faults, self.witnesses.states())
        degraded: dict[str, bool] = {}
        for state in states:  # a runtime that is looked for at two sockets is here twice
            degraded[state.name] = degraded.get(state.name, False) or state.degraded
        return degraded

    def unreachable(self, address: str, sentence: str | None) -> None:
        """Note why nobody can connect at an address; `None` once they can again."""
        if sentence is None:
            self._unreachable.pop(address, None)
        else:
            self._unreachable[address] = sentence
        self.on_health(not self.problems())

    def _with_faults(self, state: SourceState) -> SourceState:
        failure = self.pipeline.failing.get(state.name)
        if failure is None:
            return state
        detail = f"it failed to answer ({failure}), a fault of oomwatch's own: its log has more"
        return replace(state, degraded=True, detail=detail)

    async def list_cgroups(
        self, prefix: str = "/", after_path: str = "", limit: int = 500
    ) -> list[CgroupReport]:
        """Report cgroups at and below `prefix` by path, the first `limit` after `after_path`."""
        if self.memory_events is None:
            return []
        reports = await self.memory_events.report(prefix, after_path, limit)
        return self.registration.named(reports)

    async def get_cgroup(self, path: str) -> CgroupReport | None:
        """Report one cgroup; `None` if there is none of that path."""
        report = await self._report(path)
        return self.registration.named([report])[0] if report is not None else None

    async def get_cgroup_by_id(self, cgroup_id: int) -> CgroupReport | None:
        """Report one cgroup by its inode; `None` if there is none."""
        followed = self.memory_events
        path = followed.path_of(cgroup_id) if followed is not None else None
        return await self.get_cgroup(path) if path is not None else None

    async def get_container(self, container_id: str) -> CgroupReport | None:
        """Report the container whose id begins so; raises LookupError where several do.

        Those of which nobody spoke count too, by the names of their cgroups.
        """
        lives = self.correlator.containers.lives
        spoken = [life.container_id for life in lives.starting_with(container_id)]
        unspoken = {}
        if container_id not in spoken:
            unspoken = await self._named_by_their_cgroups(container_id)
        if unspoken:
            exact = container_id in unspoken
            found = [container_id] if exact else sorted({*unspoken, *spoken})
            if len(found) > 1:
                raise several_begin_so(container_id, found)
            return await self.get_cgroup(unspoken[found[0]])
        return await self.registration.get(container_id)

    async def watch_container(
        self,
        container: Container,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> CgroupReport:
        """Register a worker's container; see `Registration.watch`."""
        report = await self.registration.watch(
            container, pid=pid, cgroup=cgroup, memory_limit_bytes=memory_limit_bytes
        )
        await self.sandboxes.settled()
        life = self.correlator.containers.lives.newest(container.id)
        seen = self.correlator.exits.sandbox(life) if life is not None else None
        return report if seen is None else replace(report, notes=(*report.notes, note(seen)))

    def is_registered(self, container_id: str) -> bool:
        """Whether a worker registered it, and it has neither ended nor been unwatched."""
        return self.registration.is_registered(container_id)

    def unwatch_container(self, container_id: str) -> bool:
        """Forget a worker's word on a container; False where it gave none."""
        return self.registration.unwatch(container_id)

    async def finalize_container(self, container_id: str, **ended: Any) -> Entry:
        """Give a container's exit, judged and written down; see `Finalization.finalize`."""
        revision, event = await self.finalization.finalize(container_id, **ended)
        return Entry(revision, self.journal.id, event)

    def _find_container(self, container_id: str) -> ContainerSeen | None:
        """Find a container of which nobody spoke, by the name of its cgroup."""
        if self.memory_events is None:
            return None
        cgroups = self.memory_events.named_after(container_id)
        return self.correlator.containers.owners.found(container_id, cgroups, _now())

    async def _named_by_their_cgroups(self, beginning: str) -> dict[str, str]:
        """The cgroup of each container of which nobody spoke, by its id, where that begins so."""
        if self.memory_events is None:
            return {}
        found = {}
        for number, cgroup in enumerate(self.memory_events.named_after(beginning)):
            if number % _SLICE == 0:
                # One letter may fit ten thousand, and kills must not wait for a client's question.
                await asyncio.sleep(0)
            seen = self.correlator.containers.owners.named(cgroup, _now())
            if seen is not None and seen.container.id.startswith(beginning):
                found[seen.container.id] = cgroup.path
        return found

    def _runs(self, life: Life) -> bool:
        """Do processes of a life go on, for all that its cgroup shows?"""
        watched = self.memory_events
        return watched is not None and watched.populated(life.cgroup, life.cgroup_id)

    async def _recall(self) -> None:
        """Let exits and kills of this boot that are in the journal stand.

        Lines of the log that were not told may still add to the kills of the minute before.
        """
        place = self._log_place
        lately = int(KEEP_SECONDS * 1_000_000)
        since = None if place is None or place.wall_time is None else place.wall_time - lately
        newest: int | None = None
        told: list[Entry] = []
        after = max(self.journal.oldest_revision - 1, self.journal.newest_revision - RECALLED)
        prefix = f"{self.boot_id[:8]}-"
        while entries := await self.journal.read(after, 500):
            for entry in entries:
                if entry.event.episode_id.startswith(prefix):
                    self.correlator.exits.recall(entry.revision, entry.event)
                    if since is not None and entry.event.detect_time >= since:
                        told.append(entry)
            after = entries[-1].revision
            newest = entries[-1].event.detect_time
        self.correlator.recall(told, asyncio.get_running_loop().time())
        self.witnesses.recall_lives(self.correlator.containers.lives.end_untold(), newest)

    async def _report(self, path: str) -> CgroupReport | None:
        if self.memory_events is None:
            return None
        return await self.memory_events.report_one(path)

    def _fault(self, error: Exception) -> None:
        assert self.broken is not None
        if not self.broken.done():
            self.broken.set_exception(
                OwnFault(
                    f"oomwatch has a fault of its own ({type(error).__name__}: {error}) and ends; "
                    "start it again: the journal and the kernel's counters have what was not told"
                )
            )

    def _reboot_gap(self, boot_id: str, newest: int | None) -> EvidenceGap:
        """Close the questions of a boot that is over: its counters are gone."""
        return EvidenceGap(
            episode_id=f"{self.boot_id[:8]}-after-{boot_id[:8]}",
            detect_time=_now(),
            source=MemoryEvents.name,
            reason=(
                f"the node was started anew (boot {boot_id[:8]} is over): what was killed at its "
                "end and not told by then cannot be known any more"
            ),
            occur_after=newest,
            recovered=True,
        )

    def _look_for_ourselves(self, entry: Entry) -> None:
        """Say so where the last victim was the oomwatch before this one."""
        kill = entry.event
        if not isinstance(kill, OomKill) or self.journal.died is None:
            return
        named = any(victim.pid == self.journal.died for victim in kill.victims)
        if named or (kill.recovered and kill.victim_cgroup and kill.victim_cgroup == self._cgroup):
            log.error(
                "revision %d: the oomwatch before this one (process %d) was %s for want of memory "
                "itself: give it more, or a lower oom_score_adj",
                entry.revision,
                self.journal.died,
                "killed" if named else "probably killed",
            )

    def _committed(self, entries: tuple[Entry, ...]) -> None:
        self.subscriptions.published(entries)
        self.on_told(entries)
        for entry in entries:
            self._look_for_ourselves(entry)
        self.pipeline.emit(
            [
                Recorded(entry.event.episode_id, entry.event.victim_cgroup, entry.revision)
                for entry in entries
                if isinstance(entry.event, OomKill) and entry.event.kill_count is not None
            ]
            + [
                Recorded(entry.event.episode_id, None, entry.revision)
                for entry in entries
                if isinstance(entry.event, ContainerExit)
            ]
        )
        self.finalization.written()

    def _journal_health(self, healthy: bool, detail: str) -> None:
        (log.info if healthy else log.error)("%s", detail)
        self.on_health(healthy and not self.problems())

    def _audit_later(self, followed: MemoryEvents) -> None:
        loop = asyncio.get_running_loop()
        self._audit_timer = loop.call_later(AUDIT_SECONDS, self._audit, followed)

    def _audit(self, followed: MemoryEvents) -> None:
        self.pipeline.audit(followed.tree.root.cgroup)
        self._audit_later(followed)


def _boot_id() -> str:
    """The kernel's random id of this boot (man 4 random); without /proc, an id of this process."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def _has_boot_id() -> bool:
    return _BOOT_ID.exists()


def _now() -> int:
    return time.time_ns() // 1000
