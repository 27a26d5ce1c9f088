"""How long an event with its victims' names takes, beside the bare one of the counters.

Real kills on a real kernel, each alone, by a watcher in this process with its journal in memory: a
run with the witnesses that name, and one without. What is timed is from the counter's reading
(`detect_time`) until a subscriber has the first event of the kill.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from oomwatch.cgroup.hierarchy import DEFAULT_ROOT, locate
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.errors import CgroupError
from oomwatch.events import OomKill
from oomwatch.sources.kernel_log import DEFAULT_KERNEL_LOG
from oomwatch.subscriptions import EventFilter, Latest, Subscription
from scripts._bench.figures import Figure, percentile
from tests.kernel.workload import LIMIT, Scratch

KILLS = 60
APART_SECONDS = 0.6
"""So far apart the kernel prints every report: it prints ten in five seconds."""


def measure(*, quick: bool) -> Iterator[Figure]:
    """Give the figures; none, with a word on stderr, where no cgroup can be killed in."""
    try:
        real = locate(DEFAULT_ROOT).real_root
    except CgroupError:
        real = False
    if not real:
        print("bench: names: no cgroup v2 here; run it in scripts/vm", file=sys.stderr)
        return
    kills = KILLS // 3 if quick else KILLS
    bare, _ = asyncio.run(_run(kills, None))
    full, named = asyncio.run(_run(kills, DEFAULT_KERNEL_LOG))
    middle = statistics.median(bare)
    yield Figure(f"{kills} kills, the counters alone: p50", middle, "ms")
    yield Figure("  p99", percentile(bare, 99), "ms")
    yield Figure("with the names of their victims: p50", statistics.median(full), "ms")
    yield Figure("  p99", percentile(full, 99), "ms")
    yield Figure("  p50, of that without", statistics.median(full) / middle, "×")
    yield Figure("  named in the first event", 100 * named / kills, "%")


async def _run(kills: int, kernel_log: Path | None) -> tuple[list[float], int]:
    """Kill so often; return how long each event took, in ms, and how many had a victim."""
    took, named = [], 0
    with Scratch("bench-names") as scratch:
        scratch.hand_down()
        async with Watcher(Config(kernel_log=kernel_log)) as watcher:
            subscription = await watcher.subscriptions.open(Latest(), EventFilter())
            for number in range(kills):
                scratch.hog(scratch.make(f"c{number}", limit=LIMIT))
                event = await _next_kill(subscription)
                took.append((time.time_ns() // 1000 - event.detect_time) / 1000)
                named += bool(event.victims)
                await asyncio.sleep(APART_SECONDS)
    return took, named


async def _next_kill(subscription: Subscription) -> OomKill:
    """Wait for a kill; amendments are none."""
    while True:
        for entry in (await subscription.next()).entries:
            if isinstance(entry.event, OomKill) and entry.event.kill_count:
                return entry.event
