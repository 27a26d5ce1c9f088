"""The command line of scripts/soak."""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from oomwatch.testing import FakeCgroupTree
from scripts._soak import bounded, churn, crash
from scripts._soak.confined import Confined
from scripts._soak.kernel_tree import KernelTree
from scripts._soak.kernel_world import ROOT, KernelWorld
from scripts._soak.truth import DifferenceError
from scripts._soak.worlds import FakeWorld, World


def main(arguments: list[str]) -> int:
    """Run what was asked for; 1 at the first difference."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--crash", action="store_true", help="the daemon dies; every sum must hold")
    what.add_argument("--churn", action="store_true", help="cgroups come and go; nothing may grow")
    what.add_argument(
        "--bounded", action="store_true", help="10,000 kills, and 96 MiB for the daemon"
    )
    parser.add_argument("--deaths", type=int, metavar="N", help="end after so many deaths")
    parser.add_argument("--minutes", type=float, metavar="N", help="end after so many minutes")
    parser.add_argument("--seed", type=int, metavar="N", help="what happens, in which order")
    parser.add_argument("--kernel", action="store_true", help="on this kernel, not on a fake tree")
    parser.add_argument("--disk", default=tempfile.gettempdir(), metavar="DIR", help="for journals")
    asked = parser.parse_args(arguments)
    if (asked.kernel or asked.bounded) and "memory" not in _controllers():
        parser.error("that needs cgroup v2's memory controller: scripts/vm -- scripts/soak ...")
    if asked.deaths is None and asked.minutes is None:
        asked.deaths = 1000
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    # Hours of it are watched through a pipe.
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, line_buffering=True)
    print(f"seed {seed}")
    seconds = asked.minutes * 60 if asked.minutes is not None else 86400.0
    with (
        tempfile.TemporaryDirectory(prefix="oomwatch-soak-", dir=asked.disk) as disk,
        tempfile.TemporaryDirectory(dir=crash.memory_directory()) as memory,
    ):
        if asked.churn or asked.bounded:
            with ExitStack() as end:
                cgroups: churn.Tree = (
                    end.enter_context(KernelTree("soak"))
                    if asked.kernel
                    else FakeCgroupTree(Path(memory) / "tree")
                )
                if asked.bounded:
                    return _bounded(cgroups, Path(disk), seconds)
                minutes = 5.0 if asked.minutes is None else asked.minutes
                flat = churn.run(cgroups, Path(disk), minutes * 60, say)
            print("flat" if flat else "something grew, or was not told")
            return 0 if flat else 1
        rng = random.Random(seed + 1)
        world: World
        if asked.kernel:
            world, pace, tree = KernelWorld(rng), crash.EMULATED, ROOT
        else:
            tree = Path(memory) / "tree"
            world, pace = FakeWorld(tree, rng, idle=300), crash.NATIVE
        try:
            crash.run(
                world,
                Path(disk),
                seed,
                pace,
                deaths=asked.deaths,
                seconds=seconds,
                arguments=("--cgroup-root", str(tree)),
                say=say,
            )
        except DifferenceError as difference:
            print(difference)
            return 1
        finally:
            world.close()
    return 0


def _bounded(tree: churn.Tree, disk: Path, seconds: float) -> int:
    with Confined(disk, "--cgroup-root", str(tree.root)) as daemon:
        try:
            bounded.run(
                tree, daemon, kills=10_000, cgroups=1000, subscribers=6, seconds=seconds, say=say
            )
        except DifferenceError as difference:
            print(difference)
            return 1
    return 0


def _controllers() -> list[str]:
    path = ROOT / "cgroup.controllers"
    return path.read_text().split() if path.exists() else []


def say(words: str) -> None:
    """Print at once: an hour is long to wait for a line."""
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
