"""Words on an exit that was told, and is not kept in memory any more: never a second exit."""

from __future__ import annotations

import pytest

from oomwatch.correlator.exits import PLACE_SECONDS, book
from oomwatch.correlator.exits.told_before import MOST_WORDS
from oomwatch.events import ContainerExit, Verdict
from oomwatch.observations import ExitFound, FindExit
from tests.unit.test_exits import ID, Host, ruled

OTHER = "b" * 64


@pytest.fixture(autouse=True)
def one_exit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_EXITS", 1)


def another_ends(host: Host) -> None:
    cgroup = host.run(OTHER, pid=7)
    host.ended(0, container_id=OTHER, cgroup_id=cgroup.id)
    host.pass_time(1)
    host.remove(cgroup)
    host.pass_time(1)


def told(host: Host) -> list[ContainerExit]:
    """The exits of the container that is not the other."""
    return [e for e in host.exits if e.container is not None and e.container.id == ID]


@pytest.mark.parametrize("source", ["docker", "worker"])
def test_what_says_nothing_new_is_answered_with_the_exit_that_there_is(source: str) -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup, 395)
    host.ended(137, source="worker")
    host.pass_time(1)
    another_ends(host)
    assert host.correlator.exits.answer((ID, cgroup.id)) is None
    host.ended(137, source=source, cgroup_id=cgroup.id)
    host.pass_time(1)
    (first,) = told(host)
    assert host.correlator.exits.answer((ID, cgroup.id)) == (host.journal.index(first) + 1, first)


def test_what_says_more_amends_the_exit_that_there_is() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    host.remove(cgroup)
    another_ends(host)
    host.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True)
    host.pass_time(1)
    first, amended = told(host)
    assert amended.amends == host.journal.index(first) + 1
    assert (amended.stop_requested, ruled(amended)) == (True, ruled(first))
    another_ends(host)
    host.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True)
    host.pass_time(1)
    assert told(host) == [first, amended]


def test_words_that_come_before_it_is_found_are_all_taken_in_once_it_is() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    another_ends(host)
    host.lagging = FindExit
    host.ended(137, source="worker", cgroup_id=cgroup.id)
    host.ended(source="worker", cgroup_id=cgroup.id, stop_requested=True)
    host.pass_time(1)
    assert len(told(host)) == 1
    host.answer_late()
    host.pass_time(1)
    assert told(host)[-1].stop_requested
    assert {event.amends for event in told(host)[1:]} == {host.journal.index(told(host)[0]) + 1}


def test_whoever_asks_on_while_the_journal_cannot_be_read_takes_no_more_room_for_it() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.ended(137, source="worker", cgroup_id=cgroup.id)
    host.pass_time(1)
    another_ends(host)
    host.lagging = FindExit
    host.ended(137, cgroup_id=cgroup.id, stop_requested=False)
    for _ in range(3 * MOST_WORDS):
        host.ended(137, source="worker", cgroup_id=cgroup.id)
    (question,) = set(host.unanswered)
    assert isinstance(question, FindExit)
    words = host.correlator.exits.found_exit(ExitFound(question, 1, told(host)[0]))
    assert [word.source for word in words] == ["docker", *["worker"] * MOST_WORDS]


def test_of_one_that_was_deleted_nothing_is_told_and_that_is_known() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    another_ends(host)
    host.deleted = len(host.journal)
    for _ in range(2):
        host.ended(137, source="worker", cgroup_id=cgroup.id)
        host.pass_time(1)
        assert host.correlator.exits.is_deleted((ID, cgroup.id))
    assert len(told(host)) == 1
    host.deleted = 0
    host.ended(137, source="worker", cgroup_id=cgroup.id)
    assert host.correlator.exits.answer((ID, cgroup.id)) is not None
    assert not host.correlator.exits.is_deleted((ID, cgroup.id)), "it was looked for again"


@pytest.mark.parametrize("removed", ["never", "before", "after"])
def test_one_that_was_told_of_no_cgroup_is_found_by_when_it_was_first_heard_of(
    removed: str,
) -> None:
    """Its cgroup's removal may say where it was, also once it is kept in the journal alone."""
    host = Host()
    host.heard_of("docker")
    life = host.correlator.containers.lives.newest(ID)
    assert life is not None
    cgroup = host.make(ID)
    host.ended(1)
    host.pass_time(PLACE_SECONDS + 1)
    for when in ("before", "after"):
        if removed == when:
            host.remove(cgroup)
            host.pass_time(1)
        if when == "before":
            another_ends(host)
    before = told(host)
    known = None if removed == "never" else cgroup.id
    host.ended(1, source="worker", cgroup_id=known)
    host.pass_time(1)
    assert {event.episode_id for event in told(host)} == {before[0].episode_id}
    if removed == "after":
        assert (told(host)[-1].amends, told(host)[-1].cgroup_id) == (1, cgroup.id)
    else:
        assert told(host) == before
    key = life.key if known is None else (ID, known)
    answer = host.correlator.exits.answer(key)
    assert answer is not None
    assert answer[1] == told(host)[-1]


def test_the_end_of_the_next_life_is_not_put_on_one_that_was_told_before() -> None:
    """Docker's `die` names no cgroup: it is of the first life without an end."""
    host = Host()
    first = host.run(pid=395)
    host.ended(1, cgroup_id=first.id)
    host.pass_time(1)
    host.remove(first)
    another_ends(host)
    second = host.run(pid=396)
    host.kill(second, 396)
    host.ended(137)
    host.pass_time(1)
    assert [(e.cgroup_id, e.amends) for e in told(host)] == [(first.id, None), (second.id, None)]
    assert told(host)[-1].verdict is Verdict.OOM


def test_whose_cgroup_a_workers_container_was_known_by_has_an_exit_of_its_own() -> None:
    """A worker runs its jobs one after another in a container of Docker's: each has an end."""
    host = Host()
    cgroup = host.run(pid=395)
    for job in ("job-1", "job-2"):
        host.seen(cgroup, job)
        host.ended(0, source="worker", container_id=job)
        host.pass_time(1)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    (first,) = told(host)
    assert first.exit_code == 137
    another_ends(host)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    assert told(host) == [first]


def test_one_that_was_put_into_another_life_makes_room_like_any_other() -> None:
    """It is kept under the key that it had as well, so that whoever asked by that is answered."""
    host = Host()
    host.heard_of("containerd")
    first = host.correlator.containers.lives.newest(ID)
    assert first is not None
    host.ended(1, source="containerd")
    host.pass_time(1)
    cgroup = host.make(ID)
    host.seen(cgroup, ID, source="docker")
    host.ended(1, cgroup_id=cgroup.id)
    host.pass_time(1)
    answer = host.correlator.exits.answer
    assert answer((ID, cgroup.id)) is not None
    assert answer(first.key) == answer((ID, cgroup.id))
    another_ends(host)
    assert (answer(first.key), answer((ID, cgroup.id))) == (None, None)
