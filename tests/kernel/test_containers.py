"""A worker's containers on real cgroups: found by pid, named in every kill, told apart."""

from __future__ import annotations

from oomwatch.events import Container, OomKill, Scope
from tests.kernel import workload
from tests.kernel.watching import Told, watching
from tests.kernel.workload import LIMIT, Scratch

ID = "c0ffee" + "0" * 58


def of(told: Told, container: Container) -> list[OomKill]:
    """What was told of one container, amendments included."""
    return [kill for kill in told.kills if kill.container == container]


async def test_a_process_leads_to_its_container_and_its_kills_bear_the_name() -> None:
    web = Container(id="job-1", name="web", labels={"team": "a"})
    with Scratch("containers") as scratch:
        scratch.hand_down()
        scratch.make("outer", limit=4 * LIMIT, below=True)
        inner = scratch.make("outer/inner", limit=LIMIT)
        beside = scratch.make("outer/beside")
        sleeper = scratch.sleeper(beside)
        async with watching() as told:
            report = await told.watcher.watch_container(web, pid=sleeper.pid)
            assert report.path == f"{scratch.cgroup}/outer/beside"
            assert report.id == beside.stat().st_ino
            await told.watcher.watch_container(web, cgroup=f"{scratch.cgroup}/outer")
            scratch.hog(inner)
            await told.until(lambda: bool(of(told, web)))
            scratch.hog(beside)
            await told.until(lambda: sum(k.kill_count or 0 for k in of(told, web)) == 2)
            await told.conserved(scratch)
        nested, own = (k for k in of(told, web) if k.kill_count)
        assert (nested.scope, nested.victim_cgroup) == (
            Scope.DESCENDANT,
            f"{scratch.cgroup}/outer/inner",
        )
        assert (own.scope, own.limit_cgroup) == (Scope.CONTAINER_LIMIT, f"{scratch.cgroup}/outer")


async def test_a_path_that_is_made_again_is_another_life_of_it() -> None:
    """The name of what was killed and removed at once stays with its own cgroup."""
    with Scratch("lives") as scratch:
        scratch.hand_down()
        async with watching() as told:
            for number in range(3):
                await _live_and_die(told, scratch, number)
                # Until the sums agree again, two lives of a path are two candidates.
                await told.conserved(scratch)
        kills = [k for k in told.below(scratch.cgroup) if k.kill_count]
        assert [k.container.name for k in kills if k.container] == ["life-0", "life-1", "life-2"]
        assert len({k.victim_cgroup_id for k in kills}) == 3
        containers = told.watcher.correlator.containers
        assert {
            life.container.name
            for kill in kills
            if (life := containers.lives.life(ID, kill.victim_cgroup_id)) is not None
        } == {"life-0", "life-1", "life-2"}


async def test_lives_of_a_path_in_quick_succession_are_not_taken_for_one_another() -> None:
    """Nobody rests between them: a kill has its own life's name, or none."""
    with Scratch("succession") as scratch:
        scratch.hand_down()
        async with watching() as told:
            life_of = {await _live_and_die(told, scratch, n): f"life-{n}" for n in range(6)}
            await told.conserved(scratch)
        for kill in told.below(scratch.cgroup, amendments=True):
            pids = {victim.pid for victim in kill.victims} & life_of.keys()
            named = kill.container.name if kill.container is not None else None
            assert not pids or named in {None, *(life_of[pid] for pid in pids if pid)}


async def _live_and_die(told: Told, scratch: Scratch, number: int) -> int | None:
    """Register a life of the one path, have it killed, and remove it at once; its main pid."""
    container = Container(id=ID, name=f"life-{number}")
    cgroup = scratch.make(f"docker-{ID}.scope", limit=LIMIT)
    await told.watcher.watch_container(container, cgroup=f"{scratch.cgroup}/docker-{ID}.scope")
    hog = scratch.hog(cgroup)
    hog.wait()
    workload.remove(cgroup)
    return hog.pid
