"""Finds gVisor sandboxes: which of the host's processes a container is, and in which cgroup.

Nothing is followed: it answers when a container of such a handler is heard of, and again when it
has ended, with what the sandbox itself wrote. /proc is read in a thread, for it can be long.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.locating import locate
from oomwatch.cgroup.process import read_cmdline, read_pids, read_stat, sees_the_hosts_pids
from oomwatch.containers.gvisor import Handlers, SandboxProcesses, find, running
from oomwatch.containers.gvisor_log import SandboxLog, logs_of, read
from oomwatch.errors import NoSuchCgroup, NoSuchProcess
from oomwatch.observations import (
    FindSandbox,
    Question,
    ReadSandboxLog,
    SandboxLogRead,
    SandboxSeen,
)
from oomwatch.sources import Emit

log = logging.getLogger(__name__)

_LOOKS = 5
_PAUSE_SECONDS = 0.2
"""A runtime may tell of a container just before its sandbox has got its name."""

_PIDS = 4096
_MOST_LOGS = 4096


class Sandboxes:
    """Answers `FindSandbox`; `hierarchy` is the one that is watched, `None` where there is none."""

    name = "gvisor"

    def __init__(self, hierarchy: Hierarchy | None) -> None:
        self._hierarchy = hierarchy
        self._handlers = Handlers()
        self._emit: Emit = lambda _: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._logs: dict[int, tuple[SandboxLog, ...]] = {}
        """By the sentry, which a pod's containers share."""

    def start(self, emit: Emit) -> None:
        """Say from now on where sandboxes are."""
        self._emit = emit

    def answer(self, question: Question) -> bool:
        """Look for a sandbox, if the handler is gVisor's; others' questions are left to others."""
        if isinstance(question, ReadSandboxLog):
            self._emit([self._read(question)])
            return True
        if not isinstance(question, FindSandbox):
            return False
        if question.handler in self._handlers:
            # It may end before it is found, and is a sandbox all the same.
            self._emit([replace(_bare(question), sought=True)])
            task = asyncio.get_running_loop().create_task(self._look(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def settled(self) -> None:
        """Wait until every sandbox that was asked for is found, or given up."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, question: FindSandbox) -> None:
        try:
            seen = await self._find(question)
        except Exception:
            # Its exit waits for it, and is not to be told for ever that this is still due.
            log.exception("failed to answer %r; please report it", question)
            seen = _bare(question)
        self._emit([seen])

    async def _find(self, question: FindSandbox) -> SandboxSeen:
        seen = await asyncio.to_thread(look, question, self._hierarchy)
        for _ in range(_LOOKS):
            if seen.sentry is not None:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            seen = await asyncio.to_thread(look, question, self._hierarchy)
        if seen.sentry is not None:
            self._logs.pop(seen.sentry, None)  # a pid is used again
            self._logs[seen.sentry] = logs_of(seen.sentry, read_cmdline(seen.sentry))
            if len(self._logs) > _MOST_LOGS:
                del self._logs[next(iter(self._logs))]
        return seen

    def _read(self, question: ReadSandboxLog) -> SandboxLogRead:
        sentry = question.sentry
        words = read(self._logs.get(sentry, ()) if sentry is not None else ())
        return SandboxLogRead(
            container_id=question.container_id,
            cgroup_id=question.cgroup_id,
            stubs=words.stubs,
            lines=words.lines,
            out_of_memory=words.out_of_memory,
        )


def look(question: FindSandbox, hierarchy: Hierarchy | None) -> SandboxSeen:
    """Look for one sandbox now. Blocks: it reads all of /proc."""
    bare = _bare(question)
    found = find(running(), question.container_id, question.pid)
    if found is None or hierarchy is None or not sees_the_hosts_pids():
        return bare
    try:
        place = locate(hierarchy, found.sentry)
    except (NoSuchCgroup, NoSuchProcess):
        return bare
    directory = hierarchy.directory + place.path.removeprefix(hierarchy.prefix)
    return replace(
        bare,
        cgroup=place.path,
        sandbox_cgroup_id=place.cgroup_id or None,
        alone=_alone(directory, found),
        sentry=found.sentry,
        stubs=found.stubs,
        gofers=found.gofers,
    )


def _bare(question: FindSandbox) -> SandboxSeen:
    return SandboxSeen(
        container_id=question.container_id,
        cgroup_id=question.cgroup_id,
        time=time.time_ns() // 1000,
    )


def _alone(directory: str, sandbox: SandboxProcesses) -> bool:
    """Is there nobody in the cgroup but the sandbox? Its runtime's own commands do not count."""
    pids, whole = read_pids(directory, _PIDS)
    return whole and not any(_is_another(pid, sandbox) for pid in pids if pid not in sandbox.all)


def _is_another(pid: int, sandbox: SandboxProcesses) -> bool:
    """Is a process neither a stub that has just come, nor a runsc command?"""
    stat = read_stat(pid)
    if stat is None or stat.parent in sandbox.all:
        return False
    return os.path.basename(next(iter(read_cmdline(pid)), "")) != "runsc"


def note(seen: SandboxSeen) -> str:
    """Say in a sentence how a sandbox is watched, for whoever registers it."""
    if seen.cgroup is None:
        return (
            "a gVisor sandbox of which nothing is visible here: its end is judged by its exit "
            "status and what was sampled of it, and never surely"
        )
    if not seen.alone:
        return (
            f"a gVisor sandbox in a cgroup that others share, {seen.cgroup}: a kill there is its "
            f"own where the victim is its sentry (pid {seen.sentry}) or one of its processes, and "
            "one of several where the victim has no name"
        )
    return (
        f"a gVisor sandbox with a cgroup of its own, {seen.cgroup}, whose counters are the "
        f"kernel's word on it; its sentry is pid {seen.sentry}"
    )
