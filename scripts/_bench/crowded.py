"""What a thousand subscribers of every sort do to those among them who read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from scripts._bench.figures import Figure, percentile
from scripts._bench.measures import Trees
from scripts._bench.processes import Daemon, Helper, resident_mib, usage
from scripts._bench.tree import Tree, kills

CROWD = {"silent": 333, "slow": 330, "restless": 20, "replaying": 1}
LIVE = 1000 - sum(CROWD.values())
HISTORY = 10_000
APART_SECONDS = 0.1
"""Each kill is written to 316 streams before the next one comes."""

_SETTLED_SECONDS = 20.0
"""By then who reads nothing has all that it takes in, and who connects in a loop is slowed down."""


def measure(trees: Trees, disk: Path, *, quick: bool) -> Iterator[Figure]:
    """Latency of those who read, before the others come, with them, and once they are gone."""
    tree = trees[1000]
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(tree.root, disk))
        _tell_history(tree, daemon)
        empty = resident_mib(daemon.pid)
        live = stack.enter_context(Helper("crowd", daemon.socket, "live", LIVE))
        times = 50 if quick else 150
        _delays(tree, live, times)
        alone = _delays(tree, live, times)
        with ExitStack() as others:
            for kind, count in CROWD.items():
                others.enter_context(Helper("crowd", daemon.socket, kind, count))
            time.sleep(_SETTLED_SECONDS)
            before = usage(daemon.pid)
            crowded = _delays(tree, live, 2 * times)
            used = usage(daemon.pid) - before
            full = resident_mib(daemon.pid)
        time.sleep(2.0)
        alone += _delays(tree, live, times)
    ratio = percentile(crowded, 50) / percentile(alone, 50)
    yield Figure(f"{LIVE} that read among 1,000 subscribers: p50", percentile(crowded, 50), "ms")
    yield Figure("  the same alone", percentile(alone, 50), "ms")
    yield Figure("  ratio", ratio, "×", 1.5)
    yield Figure("  p99", percentile(crowded, 99), "ms")
    yield Figure("  the same alone", percentile(alone, 99), "ms")
    yield Figure("  CPU, a kill each 0.1 s", used.cpu_percent, "%")
    yield Figure("  memory of 1,000 subscribers", full - empty, "MiB", 80.0)


def _tell_history(tree: Tree, daemon: Daemon) -> None:
    with Helper("subscriber", daemon.socket) as subscriber:
        subscriber.say(HISTORY)
        tree.play(kills(tree.targets, HISTORY, 0.0005))
        tree.take_kills()
        subscriber.answer()


def _delays(tree: Tree, live: Helper, count: int) -> list[float]:
    """Milliseconds from each kill to each subscriber; each kill is an event of its own."""
    live.say(count)
    tree.play(kills(tree.targets, count, APART_SECONDS))
    written = tree.take_kills()
    return [
        (seen - stamp) / 1e6
        for stamps in live.answer()["stamps"]
        for (_, stamp), seen in zip(written, stamps, strict=True)
    ]
