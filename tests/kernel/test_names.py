"""Who was killed: the kernel log and the tracepoint, joined with the counters, on real kills."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from oomwatch.events import Constraint, Scope, Victim
from tests.kernel import workload
from tests.kernel.watching import Told, run_races, watching, who_was_killed
from tests.kernel.workload import LIMIT, Scratch, little_memory, wait_for

HOSTILE = [
    b"a) total-vm:1kB",
    b",task=a,pid=1,u",
    b"Killed process ",
    b"a b\nc\td\\x41",
    b"\xff\xfe\x1b[2J\x9b",
    b"oom-kill:constr",
    b" ",
    b"x) total-vm:",
]


def victims(told: Told, cgroup: str) -> dict[int, Victim]:
    """Every victim that was named below a cgroup, amendments included."""
    return {v.pid: v for kill in told.below(cgroup, amendments=True) for v in kill.victims}


async def test_the_victim_of_its_own_limit() -> None:
    with Scratch("who") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            before = time.time_ns() // 1000
            hog = scratch.hog(cgroup)
            await told.until(lambda: bool(victims(told, scratch.cgroup)))
            await told.conserved(scratch)
            after = time.time_ns() // 1000
        (told_at_once, *_) = told.below(scratch.cgroup, amendments=True)
        assert told_at_once.kill_count == 1
        kill = told.below(scratch.cgroup, amendments=True)[-1]
        victim = victims(told, scratch.cgroup)[hog.pid]
        assert (victim.comm, victim.uid, victim.oom_score_adj) == ("busybox", 0, 1000)
        assert victim.anon_rss_bytes is not None
        assert 0 < victim.anon_rss_bytes <= LIMIT
        assert kill.occur_time is not None
        assert before - 1_000_000 <= kill.occur_time <= after
        sources = {
            e.source for k in told.below(scratch.cgroup, amendments=True) for e in k.evidence
        }
        assert sources == {"memory_events", "kernel_log", "tracepoint"}
        assert kill.constraint is Constraint.MEMCG
        assert kill.limit_cgroup == kill.victim_cgroup == f"{scratch.cgroup}/c"
        assert kill.invoker is not None


async def test_the_victim_of_the_parents_limit() -> None:
    with Scratch("who-parent") as scratch:
        scratch.hand_down()
        scratch.make("par", limit=LIMIT, below=True)
        child = scratch.make("par/c1")
        async with watching() as told:
            hog = scratch.hog(child)
            await told.until(lambda: hog.pid in victims(told, scratch.cgroup))
            await told.conserved(scratch)
        (kill,) = told.below(scratch.cgroup)
        assert kill.limit_cgroup == f"{scratch.cgroup}/par"
        assert kill.scope is Scope.ANCESTOR_LIMIT


async def test_the_first_process_lives_on_when_its_child_is_killed() -> None:
    with Scratch("who-child") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching() as told:
            shell = scratch.start(cgroup, "busybox tail /dev/zero; exec busybox sleep 1000")
            await told.until(lambda: bool(victims(told, scratch.cgroup)))
            await told.conserved(scratch)
        ((pid, victim),) = victims(told, scratch.cgroup).items()
        assert pid != shell.pid
        assert victim.main_process is not True
        shown = [k for k in told.below(scratch.cgroup, amendments=True) if k.tasks]
        assert shown, "the log has a table of its tasks"
        for kill in shown:
            assert {shell.pid, pid} <= {task.pid for task in kill.tasks}
            assert kill.task_count == len(kill.tasks)


async def test_the_victims_of_a_group_in_one_cgroup() -> None:
    with Scratch("who-alike") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT, group=True)
        async with watching() as told:
            processes = [scratch.sleeper(cgroup), scratch.sleeper(cgroup), scratch.hog(cgroup)]
            pids = {process.pid for process in processes}
            await told.until(lambda: victims(told, scratch.cgroup).keys() >= pids)
            await told.conserved(scratch)
        assert victims(told, scratch.cgroup).keys() == pids
        assert all(kill.group_kill for kill in told.below(scratch.cgroup))
        assert told.count(scratch.cgroup) == workload.kills_below(cgroup)


async def test_the_victims_of_a_group() -> None:
    with Scratch("who-group") as scratch:
        scratch.hand_down()
        parent = scratch.make("par", limit=LIMIT, group=True, below=True)
        first, second = scratch.make("par/c1"), scratch.make("par/c2")
        async with watching() as told:
            processes = [scratch.sleeper(second), scratch.sleeper(second), scratch.hog(first)]
            pids = {process.pid for process in processes}
            await told.until(lambda: victims(told, scratch.cgroup).keys() >= pids)
            await told.conserved(scratch)
        assert victims(told, scratch.cgroup).keys() == pids
        assert told.count(scratch.cgroup) == workload.kills_below(parent)


@pytest.mark.timeout(300)
async def test_the_victim_of_the_node() -> None:
    with Scratch("who-node") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c")
        async with watching() as told:
            with little_memory():
                hog = scratch.hog(cgroup)
                await told.until(lambda: hog.pid in victims(told, scratch.cgroup), 240)
            await told.conserved(scratch)
        kill = told.below(scratch.cgroup)[0]
        assert kill.scope is Scope.NODE
        assert kill.constraint in (None, Constraint.NONE)


@pytest.mark.timeout(300)
async def test_a_storm_past_the_rate_limit_names_every_victim() -> None:
    """The kernel prints ten reports in five seconds; the others have no cgroup in the log."""
    with Scratch("who-storm") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(40)]
        async with watching() as told:
            where = {}
            for cgroup in cgroups:
                where[scratch.hog(cgroup).pid] = f"{scratch.cgroup}/{cgroup.name}"
                await asyncio.sleep(0)
            await told.until(lambda: told.count(scratch.cgroup) == 40)
            await told.conserved(scratch)
        for kill in told.below(scratch.cgroup, amendments=True):
            for victim in kill.victims:
                assert where[victim.pid] == kill.victim_cgroup
        assert victims(told, scratch.cgroup).keys() == where.keys()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("racers", [1, 8])
async def test_killed_reaped_and_removed_and_still_named(racers: int) -> None:
    with Scratch("who-race") as scratch:
        scratch.hand_down()
        async with watching() as told:
            dead = await run_races(scratch.path, [(f"r{n}-", 40 // racers) for n in range(racers)])
            await told.conserved(scratch)
        for kill in told.below(scratch.cgroup, amendments=True):
            for victim in kill.victims:
                assert kill.victim_cgroup in (None, dead[victim.pid])
        kills = told.below(scratch.cgroup)
        assert sum(kill.kill_count or 0 for kill in kills) == 40
        named = [kill.victim_cgroup for kill in kills if kill.kill_count and kill.victim_cgroup]
        twice = [kill for kill in kills if named.count(kill.victim_cgroup or "") > 1]
        assert not twice, "\n".join(map(str, twice))
        for kill in kills:
            assert kill.victim_cgroup or kill.candidates


@pytest.mark.timeout(300)
async def test_victims_that_left_no_trace_are_known_from_before() -> None:
    """By the time that anything is read, each is reaped, and all but ten reports were left out."""
    count = 20
    with Scratch("who-gone") as scratch:
        scratch.hand_down()
        async with watching() as told:
            crowd = workload.start_crowd(scratch.path, count)
            await told.until(lambda: told.counters.figures["looks_at_processes"] >= count)
            output, _ = crowd.communicate()  # the loop stands still meanwhile
            assert crowd.returncode == 0
            dead = who_was_killed(output)
            await told.until(lambda: victims(told, scratch.cgroup).keys() == dead.keys())
            await told.conserved(scratch)
        assert told.count(scratch.cgroup) == count
        for kill in told.below(scratch.cgroup, amendments=True):
            for victim in kill.victims:
                assert kill.victim_cgroup == dead[victim.pid]
                assert victim.main_process is True


async def test_a_forged_line_is_nobodys_word() -> None:
    with Scratch("forged") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        forged = (
            (
                f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
                f"oom_memcg={scratch.cgroup}/c,task_memcg={scratch.cgroup}/c,task=init,pid=1,uid=0"
            ),
            (
                "Memory cgroup out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB, "
                "file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
            ),
        )
        async with watching() as told:
            for line in forged:
                Path("/dev/kmsg").write_text(f"<0>{line}\n")
            hog = scratch.hog(cgroup)
            await told.until(lambda: hog.pid in victims(told, scratch.cgroup))
            await told.conserved(scratch)
            state = {s.name: s for s in (await told.watcher.status()).sources}["kernel_log"]
            assert state.figures["not_the_kernels"] >= 2
        assert victims(told, "/").keys() == {hog.pid}


@pytest.mark.timeout(300)
async def test_hostile_names_forge_and_hide_nothing() -> None:
    with Scratch("hostile") as scratch:
        scratch.hand_down()
        async with watching() as told:
            for number, comm in enumerate(HOSTILE):
                cgroup = scratch.make(f"c{number}", limit=LIMIT)
                command = (sys.executable, "-I", "-S", workload.__file__, "comm")
                process = await asyncio.create_subprocess_exec(*command, str(cgroup), comm.hex())
                await process.wait()
                await told.until(lambda p=process: p.pid in victims(told, scratch.cgroup))  # type: ignore[misc]
                named = victims(told, scratch.cgroup)[process.pid].comm
                assert named is not None
                assert os.fsencode(named) == comm[:15]
            await told.conserved(scratch)
        assert told.count(scratch.cgroup) == len(HOSTILE)


async def test_without_any_naming_witness_the_counters_still_tell() -> None:
    with Scratch("nameless") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with watching(kernel_log=None) as told:
            scratch.hog(cgroup)
            await told.until(lambda: told.count(scratch.cgroup) == 1)
            await told.conserved(scratch)
        events = told.below(scratch.cgroup)
        assert events[0].victim_cgroup == f"{scratch.cgroup}/c"


async def test_the_tracefs_instance_goes_with_the_watcher() -> None:
    instances = Path("/sys/kernel/tracing/instances")
    left_over = instances / "oomwatch-999999999"
    left_over.mkdir()
    async with watching():
        assert [path.name for path in instances.glob("oomwatch-*")] == [f"oomwatch-{os.getpid()}"]
    wait_for(lambda: not list(instances.glob("oomwatch-*")), 5)
