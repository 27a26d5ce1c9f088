"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from scripts._bench.crowded import measure as measure_crowd
from scripts._bench.figures import Figure, load, table
from scripts._bench.measures import Bench, Trees
from scripts._bench.names import measure as measure_names
from scripts._bench.processes import watches
from scripts._bench.scan import measure as measure_scan

MEMORY = Path("/dev/shm")
"""A tmpfs: a tree there costs no disk, and inodes are not used again at once."""


def main() -> int:
    """Measure what was asked for; 0 however slow it was, since a figure is no test."""
    names = {"sizes": "latency, start and memory by number of cgroups", "idle": "an idle host"}
    names |= {"containers": "10,000 of them known"}
    names |= {"thrash": "cgroups at their limits", "fanout": "500 subscribers"}
    names |= {"crowd": "1,000 of every sort"}
    names |= {"names": "an event with its victims, on a real kernel"}
    names |= {"help": "the command line's start", "scan": "a large log, beside grep"}
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="How fast oomwatch is here, beside its budgets. See docs/performance.md.",
        epilog="Names: " + "; ".join(f"{name} ({what})" for name, what in names.items()) + ".",
    )
    parser.add_argument("--quick", action="store_true", help="shorter, one round, ≤ 10,000 cgroups")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="only this")
    parser.add_argument("--rounds", type=int, help="take medians of so many (3; 1 if --quick)")
    parser.add_argument(
        "--disk", type=Path, default=Path(tempfile.gettempdir()), help="where journals lie"
    )
    options = parser.parse_args()
    # So that a bench that is told to end still removes its trees.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sizes = (1, 1000, 10_000) if options.quick else (1, 1000, 10_000, 100_000)
    rounds = options.rounds or (1 if options.quick else 3)
    with (
        tempfile.TemporaryDirectory(prefix="oomwatch-bench-", dir=MEMORY) as memory,
        # Two a cgroup, some for the slices, and what others of this user hold.
        watches(max(sizes) * 11 // 5 + 50_000),
        Trees(Path(memory)) as trees,
    ):
        bench = Bench(trees, options.disk, sizes, quick=options.quick, rounds=rounds)
        measures: dict[str, Callable[[], Iterable[Figure]]] = {
            "sizes": bench.by_size,
            "containers": bench.containers,
            "idle": bench.idle,
            "thrash": bench.thrash,
            "fanout": bench.fanout,
            "crowd": partial(measure_crowd, trees, options.disk, quick=options.quick),
            "names": partial(measure_names, quick=options.quick),
            "help": bench.help,
            "scan": partial(measure_scan, Path(memory), quick=options.quick, rounds=rounds),
        }
        figures: list[Figure] = []
        for name, measure in measures.items():
            if not options.only or name in options.only:
                _say(f"{name}: {load()}")
                began = time.monotonic()
                figures += measure()
                _say(f"{name}: took {time.monotonic() - began:.0f} s; {load()}")
    print(table(figures))
    return 0


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
