"""The crash oracle on a fake tree, for a few deaths; `scripts/soak --crash` runs it for long."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest

from scripts._soak.crash import Pace, memory_directory, run
from scripts._soak.worlds import FakeWorld

PACE = Pace(longest_life=0.3, settle_seconds=60.0, deaths_between_checks=8, pause=0.003)


@pytest.mark.timeout(300)
def test_every_kill_is_told_once_however_often_the_daemon_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference says its seed: `scripts/soak --crash --seed N` begins with the same story."""
    seed = time.time_ns() % 2**32
    with tempfile.TemporaryDirectory(dir=memory_directory()) as memory:
        tree = Path(memory) / "tree"
        world = FakeWorld(tree, random.Random(seed), idle=300)
        figures = run(
            world,
            tmp_path,
            seed,
            PACE,
            deaths=16,
            seconds=240.0,
            arguments=("--cgroup-root", str(tree)),
        )
    assert "kills" in figures
    assert "subscribers saw all" in capsys.readouterr().out
