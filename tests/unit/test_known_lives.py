"""The lives that are known: found, bounded, kept with the journal, and back from there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers import known_lives
from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import PATH as PATH_ALONE
from oomwatch.containers.lives import WORKER, Life
from oomwatch.containers.registry import Containers
from oomwatch.events import Cgroup, Container
from tests.unit.test_containers_registry import ID, PATH, SECOND, WEB, end_newest, name_of, seen


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


def test_what_is_forgotten_is_found_by_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 1)
    lives = KnownLives()
    life = Life(ID, 7, SECOND, cgroup="/before", pid=395, said={"docker": WEB})
    lives.put(life)
    lives.put(replace(life, cgroup=PATH))
    lives.put(Life("next", 9, SECOND, cgroup="/next", pid=396))
    assert not lives.at("/before")
    assert not lives.at(PATH)
    assert not lives.lives_in(7)
    assert not lives.is_known(7)
    assert not lives.in_order(ID)
    assert lives.of_main_process(395) is None
    change = lives.take_changes()
    assert [life.container_id for life in change.kept] == ["next"]
    assert change.forgotten == ((ID, 7),)


def test_what_is_forgotten_and_comes_back_at_once_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 1)
    lives = KnownLives()
    first, second = Life("a", 7, SECOND), Life("b", 8, SECOND)
    for life in (first, second, first):
        lives.put(life)
    change = lives.take_changes()
    assert (change.kept, change.forgotten) == ((first,), (second.key,))


def test_a_pid_is_the_newest_lifes_that_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 1)
    lives = KnownLives()
    lives.put(Life("a", 7, SECOND, pid=395))
    lives.put(Life("b", 8, SECOND, pid=395))
    found = lives.of_main_process(395)
    assert found is not None
    assert found.container_id == "b"


def test_where_there_are_too_many_those_that_ended_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_LIVES", 2)
    lives = KnownLives()
    for number in (1, 2):
        lives.put(Life(f"c{number}", number, SECOND, said={"docker": WEB}))
    lives.end(Life("c2", 2, SECOND), 2 * SECOND)
    lives.put(Life("c3", 3, SECOND, said={"docker": WEB}))
    assert [life.container_id for life in lives.running()] == ["c1", "c3"]


def test_who_is_spoken_of_late_makes_room_among_those_known_by_their_path_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_ENDED", 2)
    lives = KnownLives()
    by_path = [
        Life(f"c{number}", number, SECOND, ended_time=SECOND, said={PATH_ALONE: WEB})
        for number in (1, 2, 3)
    ]
    for life in (*by_path[:2], replace(by_path[1], said={"docker": WEB}), by_path[2]):
        lives.put(life)
    assert [lives.newest(life.container_id) is None for life in by_path] == [False] * 3


def test_a_life_ends_once() -> None:
    lives = KnownLives()
    life = Life(ID, 7, SECOND)
    lives.put(life)
    for time in (2 * SECOND, 3 * SECOND):
        lives.end(life, time)
    ended = lives.newest(ID)
    assert ended is not None
    assert ended.ended_time == 2 * SECOND


def test_a_life_of_no_known_cgroup_is_put_in_order_by_when_the_others_began() -> None:
    """One in a lower inode began before one in a higher, however late it was heard of."""
    lives = KnownLives()
    for cgroup_id, time in ((7, 5), (8, 3), (None, 4)):
        lives.put(Life(ID, cgroup_id, time * SECOND))
    assert [life.cgroup_id for life in lives.in_order(ID)] == [7, 8, None]


def test_the_end_is_untold_of_what_ran_and_did_not_move() -> None:
    lives = KnownLives()
    ran = Life("ran", 7, SECOND, ended_time=2 * SECOND)
    for life in (
        ran,
        Life("with a pid", None, SECOND, pid=395),
        Life("never ran", None, SECOND),
        replace(ran, container_id="told", end_told=True),
        replace(ran, container_id="moved", moved=True),
    ):
        lives.put(life)
    assert [life.container_id for life in lives.end_untold()] == ["ran", "with a pid"]
