"""What is said of containers: who speaks of a life, when it ends, and what a worker takes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers import known_lives, registry
from oomwatch.containers.lives import PATH as PATH_ALONE
from oomwatch.containers.lives import WORKER
from oomwatch.containers.registry import Containers
from oomwatch.events import Container
from oomwatch.observations import ContainerSeen

ID = "ee12" + "0" * 60
OTHER = "ff34" + "0" * 60
PATH = f"/docker/{ID}"
SECOND = 1_000_000


def seen(
    container: Container,
    cgroup: str | None = PATH,
    cgroup_id: int | None = 7,
    *,
    source: str = "docker",
    time: int = SECOND,
    limit: int | None = None,
) -> ContainerSeen:
    return ContainerSeen(
        source=source,
        time=time,
        container=container,
        cgroup=cgroup,
        cgroup_id=cgroup_id,
        memory_limit_bytes=limit,
    )


WEB = Container(id=ID, name="web", runtime="docker", image="nginx")


def name_of(containers: Containers, cgroup: str, cgroup_id: int | None = None) -> str | None:
    owner = containers.owners.of(cgroup, cgroup_id)
    return owner.container.name if owner is not None else None


def test_one_container_that_two_runtimes_speak_of_is_one() -> None:
    """Docker's is containerd's as well, and a pod's is the CRI's and containerd's."""
    docker = Container(id=ID, name="web", runtime="docker", handler="runc", labels={"app": "web"})
    containerd = Container(id=ID, runtime="containerd", image="nginx", labels={})
    for first, second in (("docker", "containerd"), ("containerd", "docker")):
        containers = Containers()
        said = {"docker": docker, "containerd": containerd}
        containers.seen(seen(said[first], source=first))
        containers.seen(seen(said[second], source=second, time=2 * SECOND))
        owner = containers.owners.of(PATH, 7)
        assert owner is not None
        assert owner.container == replace(docker, image="nginx")
        assert len(containers.lives.in_order(ID)) == 1
        containers.removed(7, 3 * SECOND)
        assert not [*containers.lives.running()]


def test_the_lives_of_one_id_are_told_apart_by_their_cgroup() -> None:
    containers = Containers()
    containers.seen(seen(WEB, cgroup_id=7, time=1 * SECOND))
    containers.removed(7, 2 * SECOND)
    containers.seen(seen(WEB, cgroup_id=9, time=3 * SECOND))
    newest = containers.lives.newest(ID)
    assert newest is not None
    assert newest.cgroup_id == 9
    for cgroup_id in (7, 9):
        owner = containers.owners.of(PATH, cgroup_id)
        assert owner is not None
        assert owner.life is not None
        assert owner.life.cgroup_id == cgroup_id
    ended = containers.lives.life(ID, 7)
    assert ended is not None
    assert ended.ended_time == 2 * SECOND


@pytest.mark.parametrize("source", ["docker", WORKER])
def test_who_speaks_of_a_cgroup_that_is_gone_speaks_of_a_life_that_ended(source: str) -> None:
    """He looked it up just before it was removed, and nothing would end that life again."""
    containers = Containers()
    containers.removed(7, SECOND)
    containers.seen(seen(WEB, source=source, time=2 * SECOND))
    life = containers.lives.newest(ID)
    assert life is not None
    assert life.ended_time == 2 * SECOND
    assert containers.lives.registered == 0
    assert name_of(containers, PATH, 7) == "web"


def test_of_thousands_that_had_their_turn_in_a_cgroup_only_the_last_are_remembered() -> None:
    containers = Containers()
    for number in range(1, 200):
        containers.seen(seen(Container(id=f"job-{number}"), "/slot", 7, source=WORKER, time=number))
        containers.end_told((f"job-{number}", 7))
    assert len(containers.lives.lives_in(7)) == registry.MOST_TURNS + 1
    assert containers.lives.take_changes().forgotten
    owner = containers.owners.of("/slot", 7)
    assert owner is not None
    assert owner.container.id == "job-199"


def test_an_id_registered_elsewhere_leaves_its_old_cgroup() -> None:
    containers = Containers()
    job = Container(id="job")
    containers.seen(seen(job, "/a", 7, source=WORKER))
    containers.seen(seen(job, "/b", 8, source=WORKER, time=2 * SECOND))
    assert containers.lives.registered == 1
    newest = containers.lives.newest("job")
    assert newest is not None
    assert newest.cgroup == "/b"
    first = containers.lives.life("job", 7)
    assert first is not None
    assert first.ended_time == 2 * SECOND
    assert containers.owners.of("/a", 7) is None
    containers.seen(seen(job, "/a", 7, source=WORKER, time=3 * SECOND))
    back = containers.owners.of("/a", 7)
    assert back is not None, "and may come back"
    assert containers.owners.of("/b", 8) is None


def test_unwatching_forgets_the_worker_and_keeps_the_runtime() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id=ID, name="mine"), source=WORKER))
    assert name_of(containers, PATH) == "mine"
    assert containers.unwatched(ID, 5 * SECOND)
    assert name_of(containers, PATH) == "web"
    assert not containers.unwatched(ID, 5 * SECOND)
    assert containers.lives.registered == 0
    containers.seen(seen(Container(id=ID, name="again"), source=WORKER))
    assert (name_of(containers, PATH), containers.lives.registered) == ("again", 1)


def end_newest(containers: Containers, container_id: str, time: int) -> None:
    life = containers.lives.newest(container_id)
    assert life is not None
    containers.ended(life, time)


def test_a_life_whose_cgroup_was_never_found_ends_as_its_runtime_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_ENDED", 3)
    containers = Containers()
    for number in range(10):
        short = replace(WEB, id=f"{number:064}")
        containers.seen(seen(short, None, None, time=number * SECOND))
        end_newest(containers, short.id, number * SECOND)
    kept = [containers.lives.newest(f"{number:064}") for number in range(10)]
    assert [life is not None for life in kept] == [False] * 7 + [True] * 3
    assert name_of(containers, f"/docker/{9:064}", 99) == "web"


def test_a_list_renames_nothing_that_has_ended() -> None:
    """It may be of another that was created under the same id since, and does not run."""
    containers = Containers()
    containers.seen(seen(WEB, source="containerd"))
    containers.removed(7, 2 * SECOND)
    shop = seen(replace(WEB, name="shop"), "/shop", None, source="containerd", time=3 * SECOND)
    containers.seen(replace(shop, listed=True))
    assert name_of(containers, PATH, 7) == "web"
    # One of which that source has not spoken yet is named by it.
    named = replace(WEB, id="new")
    containers.seen(seen(Container(id="new"), "/new", 8, source=PATH_ALONE))
    containers.removed(8, 2 * SECOND)
    containers.seen(replace(seen(named, None, None, time=3 * SECOND), listed=True))
    assert name_of(containers, "/new", 8) == "web"


def test_containers_count_as_registered_once_and_until_they_end() -> None:
    containers = Containers()
    for number in range(3):
        containers.seen(seen(Container(id=f"job-{number}"), None, number + 1, source=WORKER))
        containers.seen(seen(Container(id=f"job-{number}", name="x"), None, number + 1))
    assert containers.lives.registered == 3
    containers.removed(1, 2 * SECOND)
    containers.removed(1, 3 * SECOND)
    assert containers.lives.registered == 2
    containers.seen(seen(Container(id="job-1"), None, 9, source=WORKER, time=4 * SECOND))
    assert containers.lives.registered == 2, "it runs elsewhere now"
    containers.unwatched("job-2", 5 * SECOND)
    assert containers.lives.registered == 1


def test_an_end_is_not_that_of_a_life_that_began_later() -> None:
    containers = Containers()
    first, second = (
        replace(seen(WEB, None, None, time=time), start_time=time) for time in (SECOND, 3 * SECOND)
    )
    containers.seen(first)
    life = containers.lives.newest(ID)
    assert life is not None
    containers.ended(life, 2 * SECOND)
    containers.seen(second)
    containers.ended(life, 4 * SECOND)
    assert [one.ended_time for one in containers.lives.in_order(ID)] == [2 * SECOND, None]


def test_the_exit_of_a_workers_container_is_that_of_its_runtimes_too() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id="job"), source=WORKER))
    runtimes = containers.lives.newest(ID)
    assert runtimes is not None
    assert not containers.told_by_another_id(runtimes), "it runs"
    containers.end_told(("job", 7))
    assert [life.end_told for life in containers.lives.lives_in(7)] == [True, True]
    assert containers.told_by_another_id(runtimes)


def test_a_path_that_is_made_anew_leaves_what_ended_there_its_workers_name() -> None:
    containers = Containers()
    mine = Container(id=ID, name="mine")
    containers.seen(seen(WEB))
    containers.seen(seen(mine, source=WORKER))
    containers.seen(seen(replace(mine, name="again"), PATH, 9, source=WORKER, time=2 * SECOND))
    assert [name_of(containers, PATH, cgroup_id) for cgroup_id in (7, 9)] == ["mine", "again"]


def test_a_worker_that_says_it_once_more_pushes_out_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_ENDED", 1)
    containers = Containers()
    containers.seen(seen(WEB))
    containers.removed(7, 2 * SECOND)
    for time in (3, 4):
        containers.seen(seen(Container(id="job"), "/job", 8, source=WORKER, time=time * SECOND))
    assert containers.lives.newest(ID) is not None
    assert containers.lives.registered == 1


def test_what_has_ended_is_unwatched_no_more_and_keeps_its_workers_name() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id=ID, name="mine"), source=WORKER))
    containers.removed(7, 2 * SECOND)
    assert not containers.unwatched(ID, 3 * SECOND)
    assert name_of(containers, PATH, 7) == "mine"
