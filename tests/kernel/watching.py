"""A watcher of this machine's real cgroups, and what it told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.events import Entry, EvidenceGap, OomKill, SourceState
from oomwatch.subscriptions import EventFilter, Latest, SubscriptionClosed
from tests.kernel import workload
from tests.kernel.workload import Scratch

SECONDS = 120.0
"""Emulated machines are slow, and never this slow."""

in_a_vm = pytest.mark.skipif(
    os.environ.get("OOMWATCH_IN_VM") != "1",
    reason="it would change what all of this host relies on",
)


class Told:
    """What a watcher told since it was started."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.entries: list[Entry] = []
        self.node_before = workload.node_kills()

    @property
    def counters(self) -> SourceState:
        """How the counters' witness is doing."""
        assert self.watcher.memory_events is not None
        return self.watcher.memory_events.state()

    @property
    def kills(self) -> list[OomKill]:
        """The kills, in order."""
        return [entry.event for entry in self.entries if isinstance(entry.event, OomKill)]

    @property
    def gaps(self) -> list[EvidenceGap]:
        """The gaps, in order."""
        return [entry.event for entry in self.entries if isinstance(entry.event, EvidenceGap)]

    def below(self, cgroup: str, *, amendments: bool = False) -> list[OomKill]:
        """The kills told for a cgroup and what is below it, with what amends them if asked for."""
        found = []
        for kill in self.kills:
            if kill.amends is not None and not amendments:
                continue
            where = (kill.victim_cgroup or kill.survivor_cgroup or "/") + "/"
            if where.startswith(cgroup.rstrip("/") + "/"):
                found.append(kill)
        return found

    def count(self, cgroup: str = "/") -> int:
        """Kills told at and below a cgroup."""
        return sum(kill.kill_count or 0 for kill in self.below(cgroup))

    async def until(self, true: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until something is so; on failure say what was told instead."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            told = "\n".join(map(str, self.kills[-20:]))
            raise AssertionError(f"it did not come true; told, last of all:\n{told}") from None

    async def conserved(self, scratch: Scratch | None = None) -> None:
        """What was told is what the kernel counts: at the node, and below the scratch cgroup."""
        await self.until(lambda: self.count() >= workload.node_kills() - self.node_before)
        await self.quiet()
        # It may kill on meanwhile: what is told twice stays too many.
        await self.until(lambda: self.count() == workload.node_kills() - self.node_before)
        if scratch is not None:
            assert self.count(scratch.cgroup) == workload.kills_below(scratch.path)

    async def quiet(self, seconds: float = 1.0) -> None:
        """Wait until no look is due within so long, and what was told has been committed."""
        async with asyncio.timeout(SECONDS):
            while True:
                await asyncio.sleep(0.05)
                deadline = self.watcher.correlator.deadline
                if deadline is None or deadline > time.monotonic() + seconds:
                    break
        await self.watcher.journal.flush()
        await asyncio.sleep(0.02)


@asynccontextmanager
async def watching(state_dir: Path | None = None, **options: object) -> AsyncIterator[Told]:
    """Watch this machine; what is told is kept in `Told`."""
    async with Watcher(Config(state_dir=state_dir, **options)) as watcher:  # type: ignore[arg-type]
        told = Told(watcher)
        subscription = await watcher.subscriptions.open(Latest(), EventFilter())

        async def follow() -> None:
            with contextlib.suppress(SubscriptionClosed):
                while True:
                    batch = await subscription.next()
                    told.entries += batch.entries

        following = asyncio.create_task(follow())
        yield told
        if watcher.memory_events is not None:
            assert told.counters.figures["faults"] == 0
    await following


async def run_races(directory: Path, each: list[tuple[str, int]]) -> dict[int, str]:
    """Run racers side by side, each in a process of its own; return who was killed where."""

    async def racer(prefix: str, count: int) -> bytes:
        command = (sys.executable, "-I", "-S", workload.__file__, "race")
        process = await asyncio.create_subprocess_exec(
            *command,
            str(directory),
            prefix,
            str(count),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output

    racers: list[Awaitable[bytes]] = [racer(prefix, count) for prefix, count in each]
    dead: dict[int, str] = {}
    for output in await asyncio.gather(*racers):
        dead |= who_was_killed(output)
    return dead


def who_was_killed(output: bytes) -> dict[int, str]:
    """Read what a workload printed: the cgroup of each pid."""
    lines = (line.split(" ", 1) for line in output.decode().splitlines())
    return {int(pid): path.removeprefix(str(workload.ROOT)) for pid, path in lines}
