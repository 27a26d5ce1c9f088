"""What a worker tells of its containers: where one runs is looked up, and who watches it answered.

The calls WatchContainer, UnwatchContainer and GetContainer, but for their protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.locating import locate, nearest_counted, printed_cgroup
from oomwatch.cgroup.process import sees_the_hosts_pids
from oomwatch.cgroup.resolving import Resolved, resolve
from oomwatch.containers.lives import WORKER, Life
from oomwatch.containers.registry import Containers
from oomwatch.errors import BadCgroupPath, LimitReached, NoSuchCgroup
from oomwatch.escaping import quoted
from oomwatch.events import Container, SourceState
from oomwatch.observations import ContainerSeen, Observation
from oomwatch.status import CgroupReport, Witness

MAX_REGISTERED = 10_000
"""Containers that workers may have registered at one time."""

_TREE_LOOKS = 20
_TREE_PAUSE_SECONDS = 0.05
"""A cgroup that was just made is in the tree once its notification was read: in a moment."""


def several_begin_so(beginning: str, ids: Sequence[str]) -> LookupError:
    """The error for a beginning of an id that fits two containers or more."""
    first, second, *_ = ids
    return LookupError(
        f"container id {beginning!r} fits several, {first} and {second} among them: give more of it"
    )


class Registration:
    """Takes workers' words in, and answers with what is known of a container."""

    def __init__(
        self,
        containers: Containers,
        hierarchy: Hierarchy | None,
        *,
        emit: Callable[[Sequence[Observation]], None],
        report: Callable[[str], Awaitable[CgroupReport | None]],
        states: Callable[[], Sequence[SourceState]],
    ) -> None:
        """`hierarchy` is `None` where the kernel's log is all there is; `report` reads a cgroup."""
        self._containers = containers
        self._hierarchy = hierarchy
        self._emit = emit
        self._report = report
        self._states = states
        self._own_pids = sees_the_hosts_pids()

    async def watch(
        self,
        container: Container,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> CgroupReport:
        """Register a container, anew or for the first time, and say how it is watched.

        One of `pid` and `cgroup` says where it runs.
        Raises `NoSuchProcess` or `NoSuchCgroup` where it is gone, `BadCgroupPath` for a path that
        can be no cgroup's, `LimitReached` where workers have registered too many already.
        """
        self._refuse_too_many(container.id)
        own, counted = await asyncio.to_thread(self._look_up, pid, cgroup)
        # Others were registered meanwhile.
        self._refuse_too_many(container.id)
        self._emit(
            [
                ContainerSeen(
                    source=WORKER,
                    time=time.time_ns() // 1000,
                    container=container,
                    cgroup=counted.path,
                    cgroup_id=counted.cgroup_id or None,
                    pid=pid if self._own_pids else None,
                    memory_limit_bytes=memory_limit_bytes,
                    counted_above=counted != own,
                )
            ]
        )
        report = await self._of(counted.path, counted.cgroup_id)
        if report is None:
            # Its removal may have been told before its name: nothing else would end that life.
            self._containers.removed(counted.cgroup_id, time.time_ns() // 1000)
            self._emit([])
            raise NoSuchCgroup(
                f"cgroup {quoted(counted.path)} was removed as it was registered; what was killed "
                "in it is told by this name"
            )
        life = self._containers.lives.newest(container.id)
        return self._with_notes(report, life, None if counted == own else own.path)

    def is_registered(self, container_id: str) -> bool:
        """Whether a worker registered it, and it has neither ended nor been unwatched."""
        newest = self._containers.lives.newest(container_id)
        return newest is not None and newest.awaited

    def unwatch(self, container_id: str) -> bool:
        """Forget what a worker told of a container; False where it told nothing."""
        found = self._containers.unwatched(container_id, time.time_ns() // 1000)
        self._emit([])
        return found

    async def get(self, container_id: str) -> CgroupReport | None:
        """Report the container whose id begins so; `None` if there is none.

        Raises `LookupError` with a sentence where several begin so.
        """
        lives = self._containers.lives.starting_with(container_id)
        if len(lives) > 1:
            raise several_begin_so(container_id, [life.container_id for life in lives])
        life = lives[0] if lives else None
        if life is None or life.cgroup is None:
            return None
        report = await self._of(life.cgroup, life.cgroup_id or 0)
        report = report or self._named(CgroupReport(path=life.cgroup, id=life.cgroup_id or 0))
        return self._with_notes(report, life, None)

    def named(self, reports: Sequence[CgroupReport]) -> list[CgroupReport]:
        """Return reports of cgroups with the container that each is, where it is one's own."""
        return [self._named(report) for report in reports]

    def _named(self, report: CgroupReport) -> CgroupReport:
        owner = self._containers.owners.of(report.path, report.id)
        if owner is None or owner.cgroup != report.path:
            return report
        return replace(report, container=owner.container)

    def _find(self, pid: int | None, cgroup: str | None) -> Resolved:
        if pid is not None:
            if self._hierarchy is not None:
                return locate(self._hierarchy, pid)
            path = printed_cgroup(pid)
            if path is None:
                raise NoSuchCgroup(f"process {pid} is in no memory cgroup")
            return Resolved(path, 0)
        assert cgroup is not None
        if self._hierarchy is not None:
            return resolve(self._hierarchy, cgroup)
        return Resolved(cgroup.rstrip("/") or "/", 0)

    def _refuse_too_many(self, container_id: str) -> None:
        known = self.is_registered(container_id)
        if not known and self._containers.lives.registered >= MAX_REGISTERED:
            raise LimitReached(
                f"{MAX_REGISTERED} containers are registered already: unwatch or finalize those "
                "that have ended"
            )

    def _look_up(self, pid: int | None, cgroup: str | None) -> tuple[Resolved, Resolved]:
        """Its own cgroup, and the one whose counter counts its kills: the same, as a rule."""
        own = self._find(pid, cgroup)
        if self._hierarchy is None:
            return own, own
        counted = nearest_counted(self._hierarchy, own) or own
        if counted != own and not self._exists(own):
            # Its files went as it was removed; what is above it is none of its container's.
            raise NoSuchCgroup(f"cgroup {quoted(own.path)} was removed as it was looked up")
        return own, counted

    def _exists(self, cgroup: Resolved) -> bool:
        """Is just this one there, and not another that was made at its path?"""
        if self._hierarchy is None:
            return True
        try:
            return resolve(self._hierarchy, cgroup.path) == cgroup
        except (NoSuchCgroup, BadCgroupPath):
            return False

    async def _of(self, path: str, cgroup_id: int) -> CgroupReport | None:
        """Report a cgroup; `None` where it is gone."""
        for _ in range(_TREE_LOOKS):
            report = await self._report(path)
            if report is not None and report.id == cgroup_id:
                return self._named(report)
            if not await asyncio.to_thread(self._exists, Resolved(path, cgroup_id)):
                return None
            if self._hierarchy is None:
                break
            await asyncio.sleep(_TREE_PAUSE_SECONDS)
        return self._named(CgroupReport(path=path, id=cgroup_id))

    def _with_notes(
        self, report: CgroupReport, life: Life | None, leaf: str | None
    ) -> CgroupReport:
        states = [state for state in self._states() if state.name != "memory_events"]
        notes = list(report.notes)
        if leaf is not None:
            notes.append(
                f"its cgroup {leaf} has no memory controller: kills are those that {report.path} "
                "counts, with whatever else lives there"
            )
        limit = report.memory.limit_bytes if report.memory is not None else None
        given = life.memory_limit_bytes if life is not None else None
        if given is not None and given != limit:
            shown = f"memory.max is {limit} bytes" if limit is not None else "cgroup has no limit"
            notes.append(f"it was given a limit of {given} bytes, and its {shown}")
        if not report.witnesses:
            notes.append("no counter of its own is followed: kills are told by other witnesses")
        beside = tuple(Witness(state.name, state.active, state.detail) for state in states)
        return replace(report, notes=tuple(notes), witnesses=(*report.witnesses, *beside))
