"""A process's cgroup is found as the watched tree names it, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.locating import locate, nearest_counted
from oomwatch.cgroup.resolving import Resolved
from oomwatch.errors import NoSuchCgroup, NoSuchProcess
from oomwatch.testing import FakeCgroupTree

PID = 42
INITIAL = "cgroup:[4026531835]"


class House:
    """A tree, and a /proc that shows one process in it."""

    def __init__(self, directory: Path, *, prefix: str = "", namespace: str = INITIAL) -> None:
        self.tree = FakeCgroupTree(directory / "cgroup")
        self.proc = directory / "proc"
        (self.proc / "self" / "ns").mkdir(parents=True)
        (self.proc / "self" / "ns" / "cgroup").symlink_to(namespace)
        self.hierarchy = Hierarchy(
            directory=str(self.tree.root),
            prefix=prefix,
            real_root=not prefix,
            kernel=True,
            local_events=False,
        )

    def runs(self, shown: str, pid: int = PID) -> None:
        """/proc shows a process in this cgroup, beside what version 1 has."""
        (self.proc / str(pid)).mkdir(exist_ok=True)
        lines = f"4:memory:/v1\n1:name=systemd:/x\n0::{shown}\n"
        (self.proc / str(pid) / "cgroup").write_text(lines)

    def found(self) -> Resolved:
        return locate(self.hierarchy, PID, str(self.proc))

    def at(self, cgroup: str, path: str | None = None) -> Resolved:
        return Resolved(path or cgroup, self.tree.path(cgroup).stat().st_ino)


def test_on_the_host_the_path_is_believed(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.tree.make("/a")
    house.runs("/a")
    assert house.found() == house.at("/a")


def test_in_a_namespace_the_path_is_believed_only_with_the_process_in_it(tmp_path: Path) -> None:
    house = House(tmp_path, namespace="cgroup:[4026532000]")
    for cgroup in ("/a", "/host", "/host/a"):
        house.tree.make(cgroup)
    house.tree.write("/a", "cgroup.procs", "7\n")
    house.tree.write("/host/a", "cgroup.procs", f"1\n{PID}\n")
    house.runs("/a")
    assert house.found() == house.at("/host/a")


def test_a_process_outside_ones_own_namespace_is_searched_for(tmp_path: Path) -> None:
    house = House(tmp_path, namespace="cgroup:[4026532000]")
    for cgroup in ("/pod", "/pod/c1", "/pod/c2"):
        house.tree.make(cgroup)
    house.tree.write("/pod/c2", "cgroup.procs", f"{PID}\n")
    house.runs("/../c2")
    assert house.found() == house.at("/pod/c2")


def test_below_a_part_of_the_tree_paths_are_the_kernels(tmp_path: Path) -> None:
    house = House(tmp_path, prefix="/slice")
    house.tree.make("/a")
    house.tree.write("/a", "cgroup.procs", f"{PID}\n")
    house.runs("/slice/a")
    assert house.found() == house.at("/a", "/slice/a")


def test_a_cgroup_that_is_not_in_the_tree_is_not_guessed(tmp_path: Path) -> None:
    house = House(tmp_path, namespace="cgroup:[4026532000]")
    house.tree.make("/a")
    house.tree.write("/a", "cgroup.procs", f"1{PID}\n")
    house.runs("/a")
    with pytest.raises(NoSuchCgroup, match="process 42 is in cgroup /a, which is not below"):
        house.found()


def test_a_process_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(NoSuchProcess, match="there is no process 42"):
        House(tmp_path).found()


def test_a_process_of_version_1_alone_is_in_no_cgroup(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.runs("/a")
    (house.proc / str(PID) / "cgroup").write_text("4:memory:/a\n")
    with pytest.raises(NoSuchCgroup, match="no cgroup of version 2"):
        house.found()


def test_a_cgroup_that_was_removed_is_gone(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.runs("/a (deleted)")
    with pytest.raises(NoSuchCgroup):
        house.found()


def test_the_nearest_that_counts_is_above_a_leaf_without_memory_files(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.tree.make("/a")
    (house.tree.path("/a") / "b" / "c").mkdir(parents=True)
    leaf = Resolved("/a/b/c", 1)
    assert nearest_counted(house.hierarchy, leaf) == house.at("/a")
    assert nearest_counted(house.hierarchy, house.at("/a")) == house.at("/a")
    assert nearest_counted(house.hierarchy, Resolved("/none", 1)) is None
