"""Whose a cgroup is: by its path, by what was said, and which of the two is believed."""

from __future__ import annotations

import pytest

from oomwatch.containers.lives import PATH as PATH_ALONE
from oomwatch.containers.lives import WORKER
from oomwatch.containers.owners import Owner
from oomwatch.containers.registry import Containers
from oomwatch.events import Cgroup, Container
from tests.unit.test_containers_registry import ID, OTHER, PATH, SECOND, WEB, name_of, seen

USERS = "/user.slice/user-1000.slice/user@1000.service"


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
        (PATH, f"/system.slice/docker-{ID}.scope", False),
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
    nested = f"{USERS[1:]}/libpod-{OTHER}.scope/libpod-{ID}.scope"
    assert containers.owners.named(Cgroup(10, nested, Cgroup(1, "")), 3 * SECOND) is None


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


def test_two_nested_containers_that_were_both_told_are_told_apart() -> None:
    containers = Containers()
    containers.seen(seen(WEB))
    containers.seen(seen(Container(id=OTHER, name="inner"), f"{PATH}/docker/{OTHER}", 8))
    assert name_of(containers, f"{PATH}/docker/{OTHER}/x") == "inner"
    assert name_of(containers, f"{PATH}/x") == "web"


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


def test_two_workers_that_share_a_cgroup_are_not_guessed_between() -> None:
    containers = Containers()
    for id_ in ("a", "b"):
        containers.seen(seen(Container(id=id_), "/shared", 7, source=WORKER))
    assert containers.owners.of("/shared", 7) is None


def test_a_path_fills_in_what_nobody_said() -> None:
    containers = Containers()
    containers.seen(seen(Container(id=ID, name="web")))
    owner = containers.owners.of(PATH, 7)
    assert owner is not None
    assert owner.container == Container(id=ID, name="web", runtime="docker")


def test_a_path_names_only_a_containers_own_cgroup_of_which_nobody_spoke() -> None:
    root, containers = Cgroup(1, ""), Containers()
    own = Cgroup(7, PATH[1:], root)
    assert containers.owners.named(own, SECOND) is not None
    assert containers.owners.named(Cgroup(8, f"{PATH[1:]}/init", root), SECOND) is None
    assert containers.owners.named(Cgroup(9, "system.slice/nginx.service", root), SECOND) is None
    containers.seen(seen(WEB))
    assert containers.owners.named(own, SECOND) is None


def test_what_is_known_by_its_path_alone_makes_no_other_path_false() -> None:
    containers = Containers()
    containers.seen(seen(WEB, source=PATH_ALONE))
    owner = containers.owners.of(f"{USERS}/docker-{ID}.scope")
    assert owner is not None
    assert owner.container.id == ID


def test_of_a_time_after_all_lives_of_a_path_the_last_is_meant() -> None:
    containers = Containers()
    containers.seen(seen(Container(id="job", name="job"), "/job"))
    containers.removed(7, 2 * SECOND)
    owner = containers.owners.of("/job/inner", None, time=5 * SECOND)
    assert owner is not None
    assert owner.container.name == "job"


def test_of_a_time_between_two_lives_of_a_path_the_second_is_meant() -> None:
    """It was killed in before its container was spoken of: the first had gone."""
    containers = Containers()
    for number in range(2):
        container = Container(id=f"job-{number}", name=f"job-{number}")
        containers.seen(seen(container, "/job", 7 + number, time=(1 + 4 * number) * SECOND))
        containers.removed(7, 2 * SECOND)
    owner = containers.owners.of("/job/inner", None, time=4 * SECOND)
    assert owner is not None
    assert owner.container.name == "job-1"
