"""Which life is meant: what is said late, twice, or of a list begins no life that never was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers.lives import PATH as PATH_ALONE
from oomwatch.containers.lives import RESTART_MICROSECONDS
from oomwatch.containers.meant import LATE_MICROSECONDS
from oomwatch.containers.registry import Containers
from oomwatch.events import Cgroup, Container
from tests.unit.test_containers_registry import ID, PATH, SECOND, WEB, end_newest, name_of, seen


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


def test_two_lives_may_be_heard_of_in_one_microsecond() -> None:
    containers = Containers()
    for _ in range(2):
        containers.seen(seen(WEB, None, None))
        end_newest(containers, ID, SECOND)
    assert len(containers.lives.in_order(ID)) == 2


def test_a_cgroup_that_is_removed_long_after_an_end_was_not_that_lifes() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    end_newest(containers, ID, 2 * SECOND)
    late = 3 * SECOND + LATE_MICROSECONDS
    containers.seen(seen(Container(id=ID), PATH, 7, source=PATH_ALONE, time=late))
    assert [life.cgroup_id for life in containers.lives.in_order(ID)] == [None, 7]


def test_a_list_tells_of_no_beginning_and_a_later_start_of_one() -> None:
    containers = Containers()
    containers.seen(seen(WEB, None, None))
    end_newest(containers, ID, 2 * SECOND)
    again = seen(WEB, None, None, time=4 * SECOND)
    containers.seen(replace(again, listed=True))
    assert len(containers.lives.in_order(ID)) == 1
    containers.seen(replace(again, start_time=3 * SECOND))
    assert len(containers.lives.in_order(ID)) == 2
