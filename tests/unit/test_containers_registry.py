"""Whose a cgroup is: lives told apart, words joined, nothing guessed, nothing kept for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers import known_lives
from oomwatch.containers.lives import PATH as PATH_ALONE
from oomwatch.containers.lives import RESTART_MICROSECONDS, WORKER, Life, merged
from oomwatch.containers.owners import Owner
from oomwatch.containers.packing import PackedLives
from oomwatch.containers.registry import Containers
from oomwatch.events import Cgroup, Container, Pod
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


def test_a_path_alone_tells_the_id_and_no_name() -> None:
    owner = Containers().owners.of(f"{PATH}/nested/deeper", 9)
    assert owner is not None
    assert owner.container == Container(id=ID, runtime="docker")
    assert (owner.cgroup, owner.life) == (PATH, None)
    assert Containers().owners.of("/plain") is None


def test_a_runtimes_word_names_its_cgroup_and_what_is_below() -> None:
    containers = Containers()
    assert containers.seen(seen(WEB)) is not None
    assert containers.seen(seen(WEB)) is None, "said twice is nothing new"
    for cgroup in (PATH, f"{PATH}/init", f"{PATH}/docker/{OTHER}"):
        owner = containers.owners.of(cgroup)
        assert owner is not None
        assert (owner.container, owner.cgroup) == (WEB, PATH)


def test_what_is_nested_in_a_container_cannot_claim_to_be_another() -> None:
    containers = Containers()
    containers.seen(seen(Container(id=OTHER, name="bank"), f"/docker/{OTHER}", 8))
    owner = containers.owners.of(f"{PATH}/docker/{OTHER}")
    assert owner is not None
    assert (owner.container.id, owner.cgroup) == (ID, PATH)


USERS = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("life", "path", "false"),
    [
        (PATH, f"{USERS}/docker-{ID}.scope", True),
        (PATH, f"/system.slice/worker.service/lxc/{ID}", True),
        (PATH, f"/docker/{OTHER}/docker/{ID}", True),
        (None, f"/docker/{OTHER}/docker/{ID}", True),
        (None, f"{USERS}/user.slice/libpod-{ID}.scope", False),
        (PATH, PATH, False),
        (PATH, f"/kata_overhead/{ID}", False),
        (f"{USERS}/user.slice", f"{USERS}/user.slice/libpod-{ID}.scope", False),
        (f"{USERS}/docker-{ID}.scope/init", f"{USERS}/docker-{ID}.scope", False),
    ],
)
def test_a_cgroup_that_is_named_after_a_container_elsewhere_is_none_of_it(
    life: str | None, path: str, false: bool
) -> None:
    containers = Containers()
    containers.seen(seen(WEB, life, None if life is None else 7))
    owner = containers.owners.of(path)
    told = None if owner is None else owner.container.id
    assert told != ID if false else told == ID
    named = containers.owners.named(Cgroup(9, path[1:], Cgroup(1, "")), SECOND)
    assert (named is None) == false


def test_a_rootless_container_may_start_anew_elsewhere_below_its_users_service() -> None:
    """Once it has ended: whoever can name the one had named the other."""
    containers = Containers()
    containers.seen(seen(WEB, f"{USERS}/a.slice/libpod-{ID}.scope"))
    elsewhere = f"{USERS}/b.slice/libpod-{ID}.scope"
    another_users = f"/user.slice/user-1001.slice/user@1001.service/libpod-{ID}.scope"

    def whose(path: str) -> str | None:
        owner = containers.owners.of(path, 9)
        return owner.container.id if owner is not None else None

    assert ID not in (whose(elsewhere), whose(another_users)), "it runs"
    containers.removed(7, 2 * SECOND)
    assert whose(elsewhere) == ID
    assert containers.owners.named(Cgroup(9, elsewhere[1:], Cgroup(1, "")), 3 * SECOND) is not None
    assert whose(another_users) != ID
    assert whose(f"/system.slice/libpod-{OTHER}.scope/libpod-{ID}.scope") != ID


def test_of_cgroups_with_one_name_that_is_found_which_the_hosts_root_made() -> None:
    root = Cgroup(1, "")
    paths = (f"{USERS}/docker-{ID}.scope", f"/docker/{OTHER}/{ID}", PATH, f"/docker/{OTHER}")
    cgroups = [Cgroup(number, path[1:], root) for number, path in enumerate(paths, 20)]
    containers = Containers()
    for order in (cgroups, cgroups[::-1]):
        found = containers.owners.found(ID, order, SECOND)
        assert found is not None
        assert found.cgroup == PATH
    alone = containers.owners.found(ID, cgroups[:1], SECOND)
    assert alone is not None
    assert alone.cgroup == paths[0]
    assert containers.owners.found(ID, cgroups[3:], SECOND) is None


def test_a_cgroup_with_a_false_name_is_whose_it_is_otherwise() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    owner = containers.owners.of(f"{USERS}/docker-{ID}.scope")
    assert owner is not None
    assert (owner.container.name, owner.cgroup) == ("user@1000.service", USERS)
    # As long as nobody spoke of it the path is believed: rootless runtimes live there.
    assert containers.owners.of(f"{USERS}/docker-{OTHER}.scope") == Owner(
        Container(id=OTHER, runtime="docker"), f"{USERS}/docker-{OTHER}.scope"
    )


def test_a_container_told_without_its_cgroup_is_found_by_the_id_in_the_path() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    assert name_of(containers, PATH) == "web"
    assert name_of(containers, f"/docker/{OTHER}/docker/{ID}") is None, "a claim from inside"
    containers.seen(seen(WEB))
    owner = containers.owners.of(PATH, 7)
    assert owner is not None
    assert owner.life is not None
    assert owner.life.key == (ID, 7), "one life, not two"
    assert containers.lives.take_changes().forgotten == (owner.life.former_key,)


def test_a_place_that_is_told_late_is_found_by_its_path() -> None:
    """Also where the path shows nobody, and nobody knows its inode: containerd's own layout."""
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    containers.seen(seen(WEB, "/default/web", None, time=2 * SECOND))
    assert name_of(containers, "/default/web") == "web"
    assert len(containers.lives.in_order(ID)) == 1
    containers.seen(seen(WEB, "/moved/web", None, time=3 * SECOND))
    assert name_of(containers, "/moved/web") == "web"
    assert containers.owners.of("/default/web") is None


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


def test_two_nested_containers_that_were_both_told_are_told_apart() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id=OTHER, name="inner"), f"{PATH}/docker/{OTHER}", 8))
    assert name_of(containers, f"{PATH}/docker/{OTHER}/x") == "inner"
    assert name_of(containers, f"{PATH}/x") == "web"


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


def test_another_container_under_an_old_path_does_not_get_the_old_ones_kills() -> None:
    containers = Containers()
    containers.seen(seen(Container(id="old", name="old"), "/lxc.payload.a", 7, source="lxd"))
    containers.removed(7, 2 * SECOND)
    new = Container(id="new", name="new")
    containers.seen(seen(new, "/lxc.payload.a", 9, source="lxd", time=3 * SECOND))
    assert name_of(containers, "/lxc.payload.a", 7) == "old"
    assert name_of(containers, "/lxc.payload.a", 9) == "new"
    at_the_time = containers.owners.of("/lxc.payload.a/nested", None, time=SECOND + 1)
    assert at_the_time is not None
    after = containers.owners.of("/lxc.payload.a/nested", None, time=4 * SECOND)
    assert after is not None
    assert after.container.name == "new"


def test_of_a_path_whose_removals_are_told_late_each_time_has_its_own_life() -> None:
    """A kill whose inode nobody knows is not given to a container that came after it."""
    containers = Containers()
    for number in range(3):
        life = Container(id="job", name=f"life-{number}")
        containers.seen(seen(life, "/job", 7 + number, source=WORKER, time=number * 2 * SECOND))
    for number in range(3):
        containers.removed(7 + number, 9 * SECOND)
    for number in range(3):
        owner = containers.owners.of("/job", None, time=(number * 2 + 1) * SECOND)
        assert owner is not None
        assert owner.container.name == f"life-{number}"


def test_a_worker_calls_it_by_its_own_id_and_the_runtime_fills_in_the_rest() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    job = Container(id="job-17", name="job", labels={"team": "a"})
    containers.seen(seen(job, source=WORKER))
    owner = containers.owners.of(PATH, 7)
    assert owner is not None
    assert owner.container == Container(
        id="job-17", name="job", runtime="docker", image="nginx", labels={"team": "a"}
    )


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


def test_two_workers_that_share_a_cgroup_are_not_guessed_between() -> None:
    containers = Containers()
    for id_ in ("a", "b"):
        containers.seen(seen(Container(id=id_), "/shared", 7, source=WORKER))
    assert containers.owners.of("/shared", 7) is None


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


def test_an_end_may_push_out_another_life_that_is_to_end_with_it() -> None:
    """Nothing was heard for a day, and the worker's life of that cgroup had ended before."""
    day = known_lives.ENDED_SECONDS * SECOND
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id="job"), source=WORKER, time=2 * SECOND))
    containers.unwatched("job", 3 * SECOND)
    containers.removed(7, day + 4 * SECOND)
    ended = containers.lives.newest(ID)
    assert ended is not None
    assert ended.ended_time == day + 4 * SECOND
    assert containers.lives.newest("job") is None


def test_what_is_unwatched_may_push_out_an_older_life_of_its_own_id() -> None:
    day = known_lives.ENDED_SECONDS * SECOND
    containers = Containers()
    job = Container(id="job")
    for number, cgroup_id in enumerate((7, 8, 7)):
        containers.seen(seen(job, f"/{cgroup_id}", cgroup_id, source=WORKER, time=number))
    assert containers.unwatched("job", 2 * day)
    (life,) = containers.lives.in_order("job")
    assert (life.cgroup_id, life.ended_time) == (7, 2 * day)


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


def test_what_is_gone_is_remembered_within_bounds() -> None:
    containers = Containers()
    for number in range(known_lives.MAX_ENDED + 10):
        cgroup = f"/a/{number}"
        containers.seen(seen(Container(id=f"c{number}"), cgroup, 10 + number, time=number))
        containers.removed(10 + number, number)
    assert containers.lives.newest("c0") is None
    assert containers.lives.newest("c11") is not None
    day = known_lives.ENDED_SECONDS * SECOND
    containers.seen(seen(Container(id="late"), "/late", 5, time=2 * day))
    assert containers.lives.newest("c11") is None
    assert containers.lives.newest("late") is not None


def test_what_is_known_by_its_path_alone_takes_no_place_of_what_somebody_spoke_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_ENDED", 3)
    containers = Containers()
    containers.seen(seen(WEB))
    containers.removed(7, 2 * SECOND)
    for number in range(10):
        cgroup = Cgroup(10 + number, f"docker/{number:064}", Cgroup(1, ""))
        named = containers.owners.named(cgroup, 3 * SECOND)
        assert named is not None
        containers.seen(named)
        containers.removed(cgroup.id, 3 * SECOND)
    assert name_of(containers, PATH) == "web"
    assert [containers.lives.newest(f"{number:064}") is None for number in range(10)] == [
        *[True] * 7,
        *[False] * 3,
    ]
    # Who is spoken of late is one of those from then on, and once.
    containers.seen(seen(Container(id=f"{9:064}", name="late"), None, 19, time=4 * SECOND))
    for number in range(3):
        containers.seen(seen(Container(id=f"c{number}"), None, 30 + number, time=5 * SECOND))
        containers.removed(30 + number, 5 * SECOND)
    assert containers.lives.newest(ID) is None
    assert containers.lives.newest(f"{9:064}") is None
    assert containers.lives.newest("c0") is not None


def end_newest(containers: Containers, container_id: str, time: int) -> None:
    life = containers.lives.newest(container_id)
    assert life is not None
    containers.ended(life, time)


def test_lives_whose_cgroups_were_never_found_are_as_many_as_there_were_ends() -> None:
    containers = Containers()
    for number in range(3):
        containers.seen(seen(WEB, None, None, time=number * SECOND))
        containers.seen(seen(WEB, None, None, time=number * SECOND + 1))
        end_newest(containers, ID, number * SECOND + 2)
    lives = containers.lives.in_order(ID)
    assert [life.seen_time for life in lives] == [0, SECOND, 2 * SECOND]
    again = Containers(containers.lives.take_changes().kept)
    assert [life.key for life in again.lives.in_order(ID)] == [life.key for life in lives]


def test_a_life_whose_cgroup_is_found_late_keeps_its_place_among_the_others() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None, time=SECOND))
    end_newest(containers, ID, 2 * SECOND)
    containers.seen(seen(WEB, PATH, 8, time=3 * SECOND))
    containers.seen(seen(WEB, PATH, 7, source=PATH_ALONE, time=4 * SECOND))
    assert [life.cgroup_id for life in containers.lives.in_order(ID)] == [7, 8]
    newest = containers.lives.newest(ID)
    assert newest is not None
    assert newest.cgroup_id == 8


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


def test_a_container_that_runs_again_is_not_the_life_that_ended_unseen() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    end_newest(containers, ID, 2 * SECOND)
    containers.seen(seen(WEB, PATH, 7, time=3 * SECOND))
    again = containers.lives.life(ID, 7)
    assert again is not None
    assert again.ended_time is None


def test_the_path_of_a_cgroup_that_is_removed_late_joins_the_life_that_ended() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    end_newest(containers, ID, 2 * SECOND)
    named = containers.owners.named(Cgroup(7, PATH[1:], Cgroup(1, "")), 3 * SECOND)
    assert named is not None
    containers.seen(named)
    containers.removed(7, 3 * SECOND)
    assert name_of(containers, PATH, 7) == "web"


def test_a_runtime_that_speaks_late_speaks_of_the_life_that_ended() -> None:
    containers = Containers()
    containers.seen(seen(Container(id=ID), PATH, 7, source=PATH_ALONE))
    containers.removed(7, 2 * SECOND)
    for source in ("containerd", "docker"):
        containers.seen(seen(WEB, None, None, source=source, time=3 * SECOND))
    assert len(containers.lives.take_changes().kept) == 1
    assert name_of(containers, PATH, 7) == "web"
    # The same source once more: it runs again.
    containers.seen(seen(WEB, None, None, time=4 * SECOND))
    newest = containers.lives.newest(ID)
    assert newest is not None
    assert newest.ended_time is None


def test_a_list_that_still_shows_what_has_ended_tells_of_no_new_life() -> None:
    containers = Containers()
    for container in (WEB, replace(WEB, id="new")):
        for _ in range(2):
            containers.seen(replace(seen(container, None, None), listed=True))
            end_newest(containers, container.id, 2 * SECOND)
        assert len(containers.lives.in_order(container.id)) == 1
    # Listed with its cgroup: it was made since.
    containers.seen(replace(seen(WEB, PATH, 7, time=3 * SECOND), listed=True))
    assert len(containers.lives.in_order(ID)) == 2


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


def test_what_was_created_and_is_heard_of_late_began_only_once() -> None:
    """containerd says that it was created, and then that it was started; it is gone by then."""
    containers = Containers()
    for number in range(2):
        cgroup = seen(Container(id=ID), PATH, 7 + number, source=PATH_ALONE)
        containers.seen(replace(cgroup, time=number * SECOND))
        containers.removed(7 + number, number * SECOND + 1)
        late = seen(WEB, None, None, source="containerd", time=number * SECOND + 2)
        containers.seen(replace(late, created=True))
        containers.seen(late)
    assert [life.cgroup_id for life in containers.lives.in_order(ID)] == [7, 8]


def test_what_is_created_anew_under_an_old_id_leaves_the_old_one_its_name() -> None:
    """containerd's clients choose ids; the second is gone before its cgroup can be looked up."""
    containers = Containers()
    containers.seen(seen(WEB, source="containerd"))
    containers.removed(7, 2 * SECOND)
    shop = seen(replace(WEB, name="shop"), None, None, source="containerd", time=3 * SECOND)
    containers.seen(replace(shop, created=True))
    containers.seen(shop)
    assert name_of(containers, PATH, 7) == "web"
    assert [life.container.name for life in containers.lives.in_order(ID)] == ["web", "shop"]
    containers.seen(seen(Container(id=ID), PATH, 8, source=PATH_ALONE, time=4 * SECOND))
    assert name_of(containers, PATH, 8) == "shop"


@pytest.mark.parametrize("told_before", [True, False])
def test_what_has_ended_and_is_asked_for_again_is_no_life_that_began_since(
    told_before: bool,
) -> None:
    """Docker answered late, and was asked anew: its list, its start event and a look."""
    containers = Containers()
    place = seen(Container(id=ID), PATH, 7, source=PATH_ALONE)
    containers.seen(replace(place, start_time=SECOND if told_before else None))
    containers.removed(7, 10 * SECOND)
    for start in (None, SECOND, SECOND + 3000):
        late = seen(WEB, None, None, time=11 * SECOND)
        containers.seen(replace(late, start_time=start))
    assert len(containers.lives.take_changes().kept) == 1
    for number, start in enumerate((10 * SECOND, 11 * SECOND), 1):
        began = seen(WEB, None, None, time=12 * SECOND + number)
        containers.seen(replace(began, start_time=start))
        end_newest(containers, ID, start + SECOND // 2)
        assert len(containers.lives.in_order(ID)) == 1 + number


def test_a_start_that_is_dated_after_the_end_is_of_the_life_that_ended() -> None:
    """Docker dates the start of `true` when that has returned."""
    containers = Containers()
    containers.seen(seen(Container(id=ID), PATH, 7, source=PATH_ALONE))
    containers.removed(7, 10 * SECOND)
    for number in range(3):
        late = seen(WEB, None, None, time=11 * SECOND + number)
        containers.seen(replace(late, start_time=10 * SECOND + 20_000))
    (life,) = containers.lives.in_order(ID)
    assert (life.cgroup_id, life.container.name) == (7, "web")
    again = seen(WEB, None, None, time=12 * SECOND)
    containers.seen(replace(again, start_time=10 * SECOND + 120_000))
    assert len(containers.lives.in_order(ID)) == 2


def test_lives_that_end_before_they_are_placed_are_told_apart_by_when_they_began() -> None:
    containers = Containers()
    for number in range(3):
        start = SECOND + number * RESTART_MICROSECONDS
        word = seen(WEB, None, None, time=20 * SECOND + number)
        containers.seen(replace(word, start_time=start))
        # That they ended is heard after all of them began.
        end_newest(containers, ID, 30 * SECOND + number)
    assert len(containers.lives.in_order(ID)) == 3


def test_what_lives_on_is_bounded_too() -> None:
    containers = Containers()
    for number in range(known_lives.MAX_LIVES + 5):
        containers.seen(seen(Container(id=f"c{number}"), f"/a/{number}", 10 + number))
    assert containers.lives.newest("c4") is None
    assert containers.lives.newest("c5") is not None


def test_an_id_is_found_by_a_beginning_that_fits_one() -> None:
    containers = Containers()
    for id_ in ("abc1", "abc2", "abc"):
        containers.seen(seen(Container(id=id_), f"/{id_}", hash(id_)))
    assert [life.container_id for life in containers.lives.starting_with("abc1")] == ["abc1"]
    assert [life.container_id for life in containers.lives.starting_with("abc")] == ["abc"]
    assert len(containers.lives.starting_with("ab")) == 2
    assert containers.lives.starting_with("x") == []


def test_only_what_changed_is_kept_and_it_comes_back() -> None:
    containers = Containers()
    containers.seen(seen(WEB, limit=1 << 25))
    change = containers.lives.take_changes()
    assert [life.key for life in change.kept] == [(ID, 7)]
    assert not containers.lives.take_changes()
    again = Containers(change.kept)
    assert not again.lives.take_changes()
    assert name_of(again, PATH, 7) == "web"
    again.only(frozenset({1, 2}), 9 * SECOND)
    (gone,) = again.lives.take_changes().kept
    assert gone.ended_time == 9 * SECOND


def test_words_are_joined_field_by_field() -> None:
    one = Container(id="a", name="web", pod=Pod(name="p"))
    two = Container(id="b", name="x", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="q"))
    assert merged([one, two]) == Container(
        id="a", name="web", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="p")
    )


@pytest.mark.parametrize("cgroup_id", [None, 2**63 + 7])
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"docker": Container(id=ID)},
        {WORKER: Container(id=ID, name="a\udcff", labels={}, pod=Pod())},
        {
            WORKER: Container(
                id=ID,
                name="web",
                runtime="docker",
                handler="runc",
                image="nginx:1.25",
                labels={"app": "web", "team": ""},
                pod=Pod(uid="8f", name="web-0", namespace="shop"),
            ),
            "docker": replace(WEB, labels=None),
        },
    ],
)
def test_a_packed_life_is_the_life_that_was_packed(
    cgroup_id: int | None, said: dict[str, Container]
) -> None:
    bare = Life(ID, cgroup_id, 2**50, said=said)
    whole = replace(
        bare,
        cgroup=PATH,
        pid=395,
        memory_limit_bytes=2**40,
        ended_time=2**51,
        moved=True,
    )
    lives = PackedLives()
    for life in (bare, whole):
        lives[life.key] = life
        assert lives[life.key] == life


def test_packed_lives_are_found_by_their_keys_whatever_came_since() -> None:
    lives = PackedLives()
    # The last as JSON of a runtime may have it: half of a pair is no UTF-8.
    ids = [*(f"job-{number:060x}" for number in range(200)), "job-\ud83d"]
    kept = [
        Life(id, n + 1, n, cgroup=f"/jobs/{id}", said={"docker": WEB}) for n, id in enumerate(ids)
    ]
    for life in kept:
        lives[life.key] = life
    assert [lives[life.key] for life in kept] == [
        replace(life, said={"docker": replace(WEB, id=life.container_id)}) for life in kept
    ]


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


def test_a_life_that_is_forgotten_no_longer_counts_as_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 2)
    containers = Containers()
    for number in range(5):
        containers.seen(seen(Container(id=f"job-{number}"), None, number + 1, source=WORKER))
    assert containers.lives.registered == 2


def test_what_a_runtime_tells_takes_no_place_of_what_a_worker_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 4)
    containers = Containers()
    for number in range(2):
        containers.seen(seen(Container(id=f"job-{number}"), None, number + 1, source=WORKER))
    for number in range(20):
        containers.seen(seen(Container(id=f"c{number}"), None, 10 + number))
    assert containers.lives.registered == 2
    assert [life.container_id for life in containers.lives.running() if life.registered] == [
        "job-0",
        "job-1",
    ]
    assert containers.lives.newest("c17") is None
    assert containers.lives.newest("c18") is not None


def test_lives_that_were_kept_come_back_in_the_order_of_time() -> None:
    first = Life(ID, 9, 1 * SECOND, cgroup=PATH, ended_time=2 * SECOND, said={"docker": WEB})
    second = replace(first, cgroup_id=7, seen_time=3 * SECOND, ended_time=None)
    containers = Containers(iter([second, first]))
    assert containers.lives.newest(ID) == second
    assert containers.lives.life(ID, 9) == first
    assert not containers.lives.take_changes(), "it is kept already"


def test_of_lives_that_were_kept_the_oldest_are_dropped_where_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 2)
    kept = [Life(f"job-{time}", time, time * SECOND, cgroup=PATH) for time in (4, 1, 5, 3, 2)]
    containers = Containers(iter(kept))
    assert [life.container_id for life in containers.lives.running()] == ["job-4", "job-5"]
    change = containers.lives.take_changes()
    assert set(change.forgotten) == {(f"job-{time}", time) for time in (1, 2, 3)}
    assert not change.kept
    assert containers.lives.newest("job-3") is None


def test_paths_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_lives, "_hash", lambda _: 7)
    containers = Containers()

    def put(number: int, path: str, cgroup_id: int) -> None:
        told = seen(Container(id=f"job-{number}"), None, cgroup_id, source=WORKER)
        containers.seen(replace(told, cgroup=path))

    def at(path: str) -> str | None:
        owner = containers.owners.of(path)
        return owner.container.id if owner is not None else None

    for number in (1, 2, 3):
        put(number, f"/jobs/{number}", number)
    assert [at(f"/jobs/{number}/inner") for number in range(5)] == [
        *(None, "job-1", "job-2", "job-3", None)
    ]
    put(3, "/jobs/9", 9)
    assert [at(path) for path in ("/jobs/1", "/jobs/9", "/jobs/3")] == ["job-1", "job-3", None]
