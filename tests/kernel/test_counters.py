"""Each row of the counter table: what the kernel counts, and what is told of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from oomwatch.events import Confidence, Scope
from tests.kernel.watching import watching
from tests.kernel.workload import (
    LIMIT,
    MEBIBYTE,
    Scratch,
    counters,
    kills_below,
    little_memory,
    wait_for,
)


async def test_own_limit() -> None:
    with Scratch("own") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            scratch.hog(cgroup)
            await told.until(lambda: bool(told.below(scratch.cgroup)))
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.victim_cgroup == kill.limit_cgroup == f"{scratch.cgroup}/c"
        assert kill.victim_cgroup_id == cgroup.stat().st_ino
        assert kill.scope is Scope.CONTAINER_LIMIT
        assert kill.confidence is Confidence.CONFIRMED
        assert kill.kill_count == 1
        assert kill.group_kill is False
        assert kill.memory is not None
        assert kill.memory.limit_bytes == LIMIT
        peak = cgroup / "memory.peak"
        assert (kill.memory.peak_bytes is not None) == peak.exists()
        assert kill.memory.swap_bytes in (0, None)


async def test_the_parents_limit() -> None:
    with Scratch("parent") as scratch:
        scratch.hand_down()
        parent = scratch.make("par", limit=LIMIT, below=True)
        child = scratch.make("par/c1")
        async with watching() as told:
            scratch.hog(child)
            await told.until(lambda: bool(told.below(scratch.cgroup)))
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.victim_cgroup == f"{scratch.cgroup}/par/c1"
        assert kill.limit_cgroup == f"{scratch.cgroup}/par"
        assert kill.scope is Scope.ANCESTOR_LIMIT
        assert kill.memory is not None
        assert kill.memory.limit_bytes == LIMIT
        assert counters(parent)["oom"] >= 1  # attempts: one more, now and then, on 7.2
        assert counters(child) == counters(child) | {"oom": 0, "oom_kill": 1}


async def test_a_group_of_three_in_one_cgroup() -> None:
    with Scratch("group") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("g", limit=LIMIT, group=True)
        async with watching() as told:
            others = [scratch.sleeper(cgroup), scratch.sleeper(cgroup)]
            scratch.hog(cgroup)
            for other in others:
                wait_for(lambda other=other: other.poll() == -signal.SIGKILL)
            await told.until(lambda: bool(told.below(scratch.cgroup)))
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.group_kill is True
        assert kill.kill_count == counters(cgroup)["oom_kill"] >= 3
        assert kill.limit_cgroup == kill.victim_cgroup == f"{scratch.cgroup}/g"


async def test_a_group_over_two_cgroups_is_one_episode() -> None:
    with Scratch("groups") as scratch:
        scratch.hand_down()
        parent = scratch.make("par", limit=LIMIT, group=True, below=True)
        first, second = scratch.make("par/c1"), scratch.make("par/c2")
        async with watching() as told:
            scratch.sleeper(second)
            scratch.sleeper(second)
            scratch.hog(first)
            await told.until(lambda: len(told.below(scratch.cgroup)) == 2)
            await told.conserved(scratch)
        kills = {kill.victim_cgroup: kill for kill in told.below(scratch.cgroup)}
        assert {path: kill.kill_count for path, kill in kills.items()} == {
            f"{scratch.cgroup}/par/c1": counters(first)["oom_kill"],
            f"{scratch.cgroup}/par/c2": counters(second)["oom_kill"],
        }
        assert len({kill.episode_id for kill in kills.values()}) == 1
        for kill in kills.values():
            assert kill.group_kill is True
            assert kill.limit_cgroup == f"{scratch.cgroup}/par"
            assert kill.scope is Scope.ANCESTOR_LIMIT
        assert kills_below(parent) == told.count(scratch.cgroup)


async def test_an_ancestors_limit_with_the_group_below_it() -> None:
    with Scratch("limit-above") as scratch:
        scratch.hand_down()
        scratch.make("d", limit=LIMIT, below=True)
        member = scratch.make("d/m", group=True)
        async with watching() as told:
            scratch.sleeper(member)
            scratch.hog(member)
            await told.until(lambda: bool(told.below(scratch.cgroup)))
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.victim_cgroup == f"{scratch.cgroup}/d/m"
        assert kill.limit_cgroup == f"{scratch.cgroup}/d"
        assert kill.scope is Scope.ANCESTOR_LIMIT
        assert kill.group_kill is True


async def test_sigkill_and_cgroup_kill_are_no_oom() -> None:
    with Scratch("sigkill") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            sleeper = scratch.sleeper(cgroup)
            sleeper.kill()
            sleeper.wait()
            if (cgroup / "cgroup.kill").exists():
                sleeper = scratch.sleeper(cgroup)
                (cgroup / "cgroup.kill").write_text("1")
                sleeper.wait()
            await told.conserved(scratch)
        assert told.below(scratch.cgroup) == []


async def test_lowering_the_limit_below_what_is_used() -> None:
    with Scratch("lowered") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=256 * MEBIBYTE)
        async with watching() as told:
            # A shell variable of 32 MiB that stays: the process lives until the limit falls.
            scratch.start(
                cgroup,
                "a=$(busybox head -c 8388608 /dev/zero | busybox tr '\\0' x); "
                "b=$a$a; busybox sleep 1000; echo $b",
            )
            used = cgroup / "memory.current"
            wait_for(lambda: int(used.read_text()) > 16 * MEBIBYTE)
            wait_for(lambda: "sleep" in _names(cgroup))
            (cgroup / "memory.max").write_text(str(4 * MEBIBYTE))
            await told.until(lambda: bool(told.below(scratch.cgroup)))
            await told.conserved(scratch)
        assert all(
            kill.limit_cgroup == kill.victim_cgroup == f"{scratch.cgroup}/c"
            for kill in told.below(scratch.cgroup)
        )


def _names(cgroup: Path) -> set[str]:
    names = set()
    for pid in (cgroup / "cgroup.procs").read_text().split():
        try:
            names.add(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()[1])
        except (OSError, IndexError):
            continue
    return names


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", [False, True], ids=["alone", "oom_group"])
async def test_the_node_runs_out(group: bool) -> None:
    with Scratch("node") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", group=group)
        async with watching() as told:
            if group:
                scratch.sleeper(cgroup)
            with little_memory():
                scratch.hog(cgroup)
                await told.until(lambda: bool(told.below(scratch.cgroup)), 240)
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.scope is Scope.NODE
        assert kill.limit_cgroup is None
        assert kill.victim_cgroup == f"{scratch.cgroup}/c"
        assert kill.group_kill is group
        assert counters(cgroup)["oom"] == 0
