"""Samples what containers use whose counters cannot be read: the PSS of their processes.

PSS counts a shared page once, in parts (Documentation/filesystems/proc.rst, smaps_rollup); the sum
of resident sizes counts it once for each process, and is not used. Where one process of a tree
cannot be read there is no sample: a part is no answer.

Reading PSS walks page tables and waits for whoever holds the process's memory: it is done in a
thread. However much there is to read, it takes no more than 1/150 of a core: the pause is as long
as that needs. It runs only while there is somebody to sample.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from oomwatch.cgroup.process import read_stat
from oomwatch.observations import FollowUsage, Question, UsageSampled
from oomwatch.sources import Emit

SHORTEST_PAUSE_SECONDS = 1.0
IDLE_SHARE = 150
"""How many times the cost of a round the pause after it is, at the least."""

MAX_FOLLOWED = 1000


@dataclass(frozen=True, slots=True)
class _Followed:
    """A container to be sampled; its main process is known by pid and start."""

    asked: FollowUsage
    started: int


class Samples:
    """Answers `FollowUsage` with a sample now and then, until the main process is gone."""

    name = "samples"

    def __init__(self) -> None:
        self._followed: dict[tuple[str, int | None], _Followed] = {}
        self._emit: Emit = lambda _: None
        self._task: asyncio.Task[None] | None = None

    def start(self, emit: Emit) -> None:
        """Say from now on what containers use."""
        self._emit = emit

    def answer(self, question: Question) -> bool:
        """Follow a container from now on."""
        if not isinstance(question, FollowUsage):
            return False
        stat = read_stat(question.pid)
        if stat is not None and len(self._followed) < MAX_FOLLOWED:
            key = (question.container_id, question.cgroup_id)
            self._followed[key] = _Followed(question, stat.started)
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._follow())
        return True

    async def stop(self) -> None:
        """Stop sampling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while self._followed:
            samples, gone, cost = await asyncio.to_thread(_round, dict(self._followed))
            for key in gone:
                self._followed.pop(key, None)
            if samples:
                self._emit(samples)
            await asyncio.sleep(max(SHORTEST_PAUSE_SECONDS, IDLE_SHARE * cost))


def _round(
    followed: dict[tuple[str, int | None], _Followed],
) -> tuple[list[UsageSampled], list[tuple[str, int | None]], float]:
    """Sample each container once; who is gone, and the seconds of CPU that it took."""
    import psutil

    began = time.thread_time()
    children: dict[int, list[int]] = {}
    for pid in psutil.pids():
        stat = read_stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    samples, gone = [], []
    for key, one in followed.items():
        main = read_stat(one.asked.pid)
        if main is None or main.started != one.started:
            gone.append(key)
            continue
        usage = _proportional(one.asked.pid, children)
        if usage is not None:
            samples.append(
                UsageSampled(
                    container_id=one.asked.container_id,
                    cgroup_id=one.asked.cgroup_id,
                    time=time.time_ns() // 1000,
                    usage_bytes=usage,
                    limit_bytes=one.asked.memory_limit_bytes,
                )
            )
    return samples, gone, time.thread_time() - began


def _proportional(pid: int, children: dict[int, list[int]]) -> int | None:
    """Sum the PSS of a process and its descendants; `None` where one of them cannot be read."""
    import psutil

    total = 0
    tree = [pid]
    while tree:
        one = tree.pop()
        tree += children.get(one, [])
        try:
            total += psutil.Process(one).memory_full_info().pss
        except psutil.AccessDenied:
            return None
        except psutil.Error:  # it has just ended
            continue
    return total
