"""What containers without counters use, sampled from real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import pytest

from oomwatch.observations import FollowUsage, Observation, UsageSampled
from oomwatch.sources import samples as module
from oomwatch.sources.samples import Samples

BOUND = 60.0
MEBIBYTE = 1 << 20
HOLD = "held = bytearray(b'x') * (int(input()) << 20); print(); input()"


class Sampling:
    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.taken: list[UsageSampled] = []

    def take(self, observations: Sequence[Observation]) -> None:
        self.taken += [one for one in observations if isinstance(one, UsageSampled)]

    async def until(self, least: int, after: int = 0) -> UsageSampled:
        async with asyncio.timeout(BOUND):
            while not any(one.usage_bytes >= least for one in self.taken[after:]):
                await asyncio.sleep(0.01)
        return next(one for one in self.taken[after:] if one.usage_bytes >= least)


@pytest.fixture
async def sampling(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sampling]:
    monkeypatch.setattr(module, "SHORTEST_PAUSE_SECONDS", 0.01)
    samples = Samples()
    sampling = Sampling(samples)
    samples.start(sampling.take)
    yield sampling
    await samples.stop()


def holder(code: str = HOLD) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


async def test_a_trees_memory_is_counted_once(sampling: Sampling) -> None:
    """A forked child shares its parent's pages: by resident size they would count twice."""
    code = "import os; held = bytearray(b'x') * (64 << 20); os.fork(); print(flush=True); input()"
    process = holder(code)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    try:
        sampling.samples.answer(FollowUsage("c", 7, process.pid, 100 * MEBIBYTE))
        sample = await sampling.until(64 * MEBIBYTE)
        assert sample.usage_bytes < 110 * MEBIBYTE
        assert (sample.container_id, sample.cgroup_id) == ("c", 7)
        assert sample.limit_bytes == 100 * MEBIBYTE
    finally:
        process.communicate("\n\n")


async def test_it_runs_only_while_there_is_somebody_to_sample(sampling: Sampling) -> None:
    samples = sampling.samples
    assert not asyncio.all_tasks() - {asyncio.current_task()}
    process = holder()
    samples.answer(FollowUsage("c", None, process.pid, None))
    await sampling.until(1)
    task = samples._task
    assert task is not None
    process.communicate("1\n\n")
    async with asyncio.timeout(BOUND):
        await task
    samples.answer(FollowUsage("c", None, process.pid, None))
    assert samples._task is task, "a process that is gone is not followed"


async def test_the_pause_keeps_its_share_of_a_core(
    sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module, "_round", lambda _: ([], [], 0.2))
    monkeypatch.setattr(asyncio, "sleep", paused)
    process = holder()
    try:
        sampling.samples.answer(FollowUsage("c", None, process.pid, None))
        async with asyncio.timeout(BOUND):
            while len(pauses) < 3:
                await sleep(0.01)
        await sampling.samples.stop()
        assert all(0.2 / (0.2 + pause) < 0.01 for pause in pauses[:3])
    finally:
        process.communicate("1\n\n")


async def test_others_questions_are_left_to_others(sampling: Sampling) -> None:
    from oomwatch.observations import Look

    assert not sampling.samples.answer(Look("/a"))
