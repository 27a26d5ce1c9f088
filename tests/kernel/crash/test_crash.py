"""The crash oracle on this kernel: real kills, and a daemon that dies twenty times."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from scripts._soak.crash import Pace, run
from scripts._soak.kernel_world import ROOT, KernelWorld

PACE = Pace(longest_life=3.0, settle_seconds=60.0, deaths_between_checks=10, pause=0.05)


@pytest.mark.any_kernel
@pytest.mark.timeout(1500)
def test_every_kill_is_told_once_however_often_the_daemon_dies(tmp_path: Path) -> None:
    """A difference says its seed: `scripts/soak --crash --kernel --seed N` begins likewise."""
    seed = time.time_ns() % 2**32
    world = KernelWorld(random.Random(seed))
    try:
        figures = run(
            world,
            tmp_path,
            seed,
            PACE,
            deaths=20,
            seconds=1200.0,
            arguments=("--cgroup-root", str(ROOT)),
        )
    finally:
        world.close()
    assert figures.startswith("20 deaths")
