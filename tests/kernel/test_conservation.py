"""Nothing is lost, nothing told twice: races, storms, caches dropped, controllers switched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomwatch import daemon
from oomwatch.events import Scope
from tests.kernel import workload
from tests.kernel.watching import in_a_vm, run_races, watching
from tests.kernel.workload import LIMIT, Scratch, counters, inotify_limit, remove, wait_for


async def test_a_kill_right_after_mkdir() -> None:
    with Scratch("young") as scratch:
        scratch.hand_down()
        async with watching() as told:
            for number in range(5):
                scratch.hog(scratch.make(f"c{number}", limit=LIMIT))
            await told.until(lambda: told.count(scratch.cgroup) == 5)
            await told.conserved(scratch)
        assert {kill.victim_cgroup for kill in told.below(scratch.cgroup)} == {
            f"{scratch.cgroup}/c{number}" for number in range(5)
        }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("racers", [1, 8])
async def test_killed_reaped_and_removed_below_a_parent(racers: int) -> None:
    with Scratch("race") as scratch:
        scratch.hand_down()
        async with watching() as told:
            await run_races(scratch.path, [(f"r{n}-", 104 // racers) for n in range(racers)])
            await told.conserved(scratch)
        total = racers * (104 // racers)
        assert told.count(scratch.cgroup) == total
        for kill in told.below(scratch.cgroup):
            # Which of several that went at once it was, their parent's sum does not say; nor, where
            # other kills were told between the looks, whether it was the one that is known to be
            # gone. That one went is always known: its removal is told before the second look.
            assert kill.victim_cgroup or kill.candidates
            assert all(path.startswith(f"{scratch.cgroup}/r") for path in kill.candidates)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("racers", [1, 8])
async def test_killed_reaped_and_removed_at_the_top(racers: int) -> None:
    async with watching() as told:
        each = [(f"oomwatch-top{n}-", 104 // racers) for n in range(racers)]
        await run_races(workload.ROOT, each)
        await told.conserved()
    total = racers * (104 // racers)
    assert told.count() == total


async def test_still_told_after_the_caches_were_dropped() -> None:
    with Scratch("caches") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            Path("/proc/sys/vm/drop_caches").write_text("3")
            scratch.hog(cgroup)
            await told.until(lambda: told.count(scratch.cgroup) == 1)
            await told.conserved(scratch)


@pytest.mark.timeout(300)
async def test_still_told_after_the_node_ran_out() -> None:
    with Scratch("after-node") as scratch:
        scratch.hand_down()
        quiet, hungry = scratch.make("quiet", limit=LIMIT), scratch.make("hungry")
        async with watching() as told:
            with workload.little_memory():
                scratch.hog(hungry)
                await told.until(lambda: told.count(f"{scratch.cgroup}/hungry") == 1, 240)
            scratch.hog(quiet)
            await told.until(lambda: told.count(f"{scratch.cgroup}/quiet") == 1)
            await told.conserved(scratch)


@in_a_vm
async def test_a_kill_in_the_root_cgroup_is_found_by_the_nodes_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The root has no counter of its own, and nothing notifies of what the node's counts."""
    monkeypatch.setattr(daemon, "AUDIT_SECONDS", 2.0)
    with Scratch("root") as scratch:
        async with watching(kernel_log=None) as told:
            victim = scratch.start(
                workload.ROOT, "echo 1000 >/proc/self/oom_score_adj; exec busybox sleep 1000"
            )
            comm = Path(f"/proc/{victim.pid}/cmdline")
            wait_for(lambda: comm.read_bytes().startswith(b"busybox\0sleep"))
            # SysRq-f: the node kills whoever it would if it had run out.
            Path("/proc/sysrq-trigger").write_text("f")
            await told.until(lambda: told.count() == 1)
            await told.conserved()
        (kill,) = told.below("/")
        assert (kill.victim_cgroup, kill.survivor_cgroup) == (None, "/")


@in_a_vm
async def test_without_sums_what_a_removed_cgroup_counted_is_found_at_the_node() -> None:
    """Mounted with memory_localevents, a parent's memory.events has nothing of its children's."""
    with Scratch("local") as scratch, workload.mounted_with("memory_localevents"):
        scratch.hand_down()
        kept, gone = scratch.make("kept", limit=LIMIT), scratch.make("gone", limit=LIMIT)
        async with watching() as told:
            assert told.counters.degraded
            assert "memory_localevents" in told.counters.detail
            scratch.hog(kept)
            await told.until(lambda: told.count(f"{scratch.cgroup}/kept") == 1)
            scratch.hog(gone).wait()
            remove(gone)
            await told.conserved()
        assert told.count() == 2


async def test_a_controller_switched_off_and_on_between_two_kills() -> None:
    with Scratch("switched") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        control = scratch.path / "cgroup.subtree_control"
        async with watching() as told:
            for kills in (1, 2):
                scratch.hog(cgroup).wait()
                await told.until(lambda kills=kills: told.count(scratch.cgroup) == kills)  # type: ignore[misc]
            control.write_text("-memory")
            control.write_text("+memory")
            workload.configure(cgroup, limit=LIMIT)
            assert counters(cgroup)["oom_kill"] == 0
            scratch.hog(cgroup).wait()
            await told.until(lambda: told.count(scratch.cgroup) == 3)
            await told.conserved(scratch)
        last = told.below(scratch.cgroup)[-1]
        assert last.victim_cgroup == f"{scratch.cgroup}/c"


async def test_a_controller_that_lived_on_hidden() -> None:
    """With another controller still on, the counter goes on from where it was."""
    with Scratch("hidden") as scratch:
        control = scratch.path / "cgroup.subtree_control"
        (workload.ROOT / "cgroup.subtree_control").write_text("+pids")
        control.write_text("+memory +pids")
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            scratch.hog(cgroup).wait()
            await told.until(lambda: told.count(scratch.cgroup) == 1)
            control.write_text("-memory")
            control.write_text("+memory")
            workload.configure(cgroup, limit=LIMIT)
            scratch.hog(cgroup).wait()
            await told.until(lambda: told.count(scratch.cgroup) == 2)
            await told.conserved(scratch)


@pytest.mark.timeout(300)
async def test_a_storm_of_kills_in_a_hundred_cgroups() -> None:
    with Scratch("storm") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(100)]
        async with watching() as told:
            for cgroup in cgroups:
                scratch.hog(cgroup)
                await asyncio.sleep(0)
            await told.until(lambda: told.count(scratch.cgroup) == 100)
            await told.conserved(scratch)
        kills = told.below(scratch.cgroup)
        assert len({kill.victim_cgroup for kill in kills}) == 100
        assert all(kill.scope is Scope.CONTAINER_LIMIT for kill in kills)


async def test_repeated_kills_in_one_cgroup() -> None:
    with Scratch("again") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            for _ in range(12):
                scratch.hog(cgroup)
            wait_for(lambda: all(process.poll() is not None for process in scratch.processes))
            await told.until(lambda: told.count(scratch.cgroup) >= 12)
            await told.conserved(scratch)
        assert told.count(scratch.cgroup) == counters(cgroup)["oom_kill"]


async def test_the_same_path_removed_and_made_again() -> None:
    with Scratch("reused") as scratch:
        scratch.hand_down()
        ids = set()
        async with watching() as told:
            for life in range(1, 5):
                cgroup = scratch.make("c", limit=LIMIT)
                ids.add(cgroup.stat().st_ino)
                scratch.hog(cgroup).wait()
                await told.until(lambda life=life: told.count(scratch.cgroup) == life)  # type: ignore[misc]
                remove(cgroup)
            await told.conserved(scratch)
        assert {kill.victim_cgroup_id for kill in told.below(scratch.cgroup)} == ids


async def test_a_nested_tree() -> None:
    with Scratch("nested") as scratch:
        scratch.hand_down()
        async with watching() as told:
            scratch.make("a", below=True)
            scratch.make("a/b", below=True)
            scratch.make("a/b/c", limit=LIMIT, below=True)
            deep = scratch.make("a/b/c/d")
            scratch.hog(deep).wait()
            await told.until(lambda: told.count(scratch.cgroup) == 1)
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.victim_cgroup == f"{scratch.cgroup}/a/b/c/d"
        assert kill.limit_cgroup == f"{scratch.cgroup}/a/b/c"


async def test_watches_that_run_out_mean_polling_of_just_those() -> None:
    with Scratch("watches") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(30)]
        with inotify_limit("max_user_watches", 20) as put_back:
            async with watching(poll_seconds=0.1) as told:
                state = told.counters
                assert state.degraded
                assert 0 < state.figures["polled"] <= state.figures["cgroups"]
                assert state.figures["watches"] <= 20
                assert "max_user_watches" in state.detail
                for cgroup in (cgroups[0], cgroups[-1]):
                    scratch.hog(cgroup).wait()
                scratch.hog(scratch.make("late", limit=LIMIT)).wait()
                await told.until(lambda: told.count(scratch.cgroup) == 3)
                await told.conserved(scratch)
                put_back()
                await told.until(lambda: told.counters.figures["polled"] == 0, 30)


async def test_no_inotify_instance_means_polling() -> None:
    with Scratch("instances") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        with inotify_limit("max_user_instances", 0):
            async with watching(poll_seconds=0.1) as told:
                assert "max_user_instances" in told.counters.detail
                scratch.hog(cgroup).wait()
                await told.until(lambda: told.count(scratch.cgroup) == 1)
                await told.conserved(scratch)


async def test_an_overflow_of_the_queue_loses_nothing() -> None:
    with Scratch("overflow") as scratch:
        scratch.hand_down()
        kept = scratch.make("kept", limit=LIMIT)
        with inotify_limit("max_queued_events", 8) as put_back:
            async with watching() as told:
                put_back()
                # The loop is held up meanwhile, so the queue of 8 runs over.
                for number in range(20):
                    path = scratch.make(f"c{number}", limit=LIMIT)
                    scratch.hog(path).wait()
                    if number % 2:
                        remove(path)
                scratch.hog(kept).wait()
                await told.until(lambda: told.count(scratch.cgroup) == 21)
                await told.conserved(scratch)
                assert told.counters.figures["overflows"] >= 1
