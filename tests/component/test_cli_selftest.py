"""The self-test's process and cgroup, as far as they go without a kernel that kills."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.errors import CgroupError, NoCgroupRoot, NoMemoryController
from oomwatch.selftest import Hog, ScratchCgroup, remove_leftovers

BOUND_MS = 30_000


@pytest.fixture
def hog(tmp_path: Path) -> Iterator[Hog]:
    hog = Hog(tmp_path, 1 << 20)
    yield hog
    hog.close()


def dead(hog: Hog) -> bool:
    poll = select.poll()
    poll.register(hog.pidfd, select.POLLIN)
    return bool(poll.poll(BOUND_MS))


def test_a_process_that_nobody_kills_ends_by_itself(hog: Hog, tmp_path: Path) -> None:
    hog.go()
    assert dead(hog)
    assert hog.wait().signal == 0
    assert (tmp_path / "cgroup.procs").read_text() == str(hog.pid)


def test_it_waits_until_it_is_told_and_dies_when_it_is_closed(hog: Hog) -> None:
    poll = select.poll()
    poll.register(hog.pidfd, select.POLLIN)
    assert not poll.poll(0)
    hog.close()
    assert hog.wait().signal == signal.SIGKILL
    hog.close()


def test_a_kill_is_told_apart_from_an_end(hog: Hog) -> None:
    os.kill(hog.pid, signal.SIGKILL)
    assert dead(hog)
    assert hog.wait().signal == signal.SIGKILL


def test_it_offers_itself_as_the_first_victim(hog: Hog, tmp_path: Path) -> None:
    poll = select.poll()
    poll.register(hog.pidfd, select.POLLIN)
    path = Path(f"/proc/{hog.pid}/oom_score_adj")
    while not (tmp_path / "cgroup.procs").exists():
        assert not poll.poll(1), "it ended instead"
    assert path.read_text().strip() == "1000"


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"oomwatch-selftest-{gone.pid}-1").mkdir()
    living = tmp_path / f"oomwatch-selftest-{os.getpid()}-1"
    living.mkdir()
    other = tmp_path / "oomwatch-selftest-mine"
    other.mkdir()
    assert remove_leftovers(tmp_path) == [tmp_path / f"oomwatch-selftest-{gone.pid}-1"]
    assert sorted(tmp_path.iterdir()) == sorted([living, other])


def test_where_there_is_no_cgroup_v2_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NoCgroupRoot, match="is not there"), ScratchCgroup(tmp_path / "none"):
        pass
    with pytest.raises(NoMemoryController, match="is not cgroup v2"), ScratchCgroup(tmp_path):
        pass
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    with (
        pytest.raises(NoMemoryController, match=r"gave .* no memory\.max"),
        ScratchCgroup(tmp_path),
    ):
        pass
    assert not list(tmp_path.glob("oomwatch-selftest-*"))


def test_a_name_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    scratch = ScratchCgroup(tmp_path)
    scratch.directory.write_text("in the way")
    with pytest.raises(CgroupError, match="cannot be made"), scratch:
        pass
