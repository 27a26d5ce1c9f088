"""Ends of the time while nobody watched: told once, marked recovered, by what is known of them."""

from __future__ import annotations

import pytest

from oomwatch.containers.lives import Life, LifeKey
from oomwatch.containers.registry import Containers
from oomwatch.correlator import Correlator
from oomwatch.correlator.exits import RUNTIME_SECONDS, WORKER_SECONDS
from oomwatch.correlator.lost_ends import LOST_SECONDS
from oomwatch.events import Cgroup, Confidence, OomKill, Verdict
from oomwatch.ledger import Ledger, LedgerRow
from oomwatch.observations import CounterReading, Counters, Sight, Surveyed
from oomwatch.verdict.words import STILL_DUE
from tests.unit.test_exits import BOOT, ID, Host, ruled


class Machine(Host):
    """A host whose daemon dies and starts again, from what was written down."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: dict[LifeKey, Life] = {}
        self.rows: dict[int, LedgerRow] = {}

    def crash(self) -> None:
        change = self.correlator.ledger.take_changes()
        self.rows.update((row.cgroup_id, row) for row in change.rows)
        lives = self.correlator.containers.take_changes()
        self.lives.update((life.key, life) for life in lives.kept)
        for key in lives.forgotten:
            self.lives.pop(key, None)
        self.correlator = Correlator(
            BOOT,
            Ledger([row for row in self.rows.values() if row.cgroup_id not in change.removed]),
            resumed=True,
            containers=Containers(self.lives.values()),
        )
        self.correlator.expect(frozenset({"kernel_log"}))
        for number, event in enumerate(self.journal):
            self.correlator.exits.recall(number + 1, event)

    def lose(self, cgroup: Cgroup, kills: int = 0) -> None:
        """A cgroup goes while nobody watches; the node's sum has what was killed in it."""
        del self.kills[cgroup]
        self.node_kills += kills

    def look_again(self) -> None:
        """Every cgroup that there is is looked at, for the first time since the restart."""
        old = Sight.BASELINE
        self.say(CounterReading(self.root, 0, self.wall, Counters(), self.node_kills, old))
        for cgroup, kills in self.kills.items():
            counters = Counters(0, kills, 0)
            self.say(CounterReading(cgroup, cgroup.id + 1000, self.wall, counters, None, old))
        ids = frozenset({self.root.id, *(cgroup.id for cgroup in self.kills)})
        self.say(Surveyed(ids, self.root, self.wall))


def test_an_end_while_nobody_watched_is_told_once_as_recovered() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    host.lose(cgroup)
    ended = host.wall
    host.pass_time(60)
    host.look_again()
    for _ in range(2):
        host.ended(137, exit_time=ended, cgroup_id=cgroup.id)
        host.pass_time(1)
    assert host.exit.recovered
    assert (host.exit.exit_time, host.exit.cgroup_id) == (ended, cgroup.id)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    host.crash()
    host.look_again()
    assert host.correlator.containers.end_untold() == []
    host.pass_time(2 * LOST_SECONDS)
    assert len(host.exits) == 1


def test_what_is_told_while_somebody_watches_is_not_recovered() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    host.look_again()
    host.pass_time(5)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(1)
    assert not host.exit.recovered


def test_a_kill_that_the_log_names_decides_on_an_end_while_nobody_watched() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    host.name(cgroup, 395)
    host.lose(cgroup, kills=1)
    ended = host.wall
    host.pass_time(60)
    host.look_again()
    host.ended(137, exit_time=ended, cgroup_id=cgroup.id)
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "confirmed")
    assert host.exit.kills == (1,)


def test_a_kill_without_a_name_may_be_of_what_went_while_nobody_watched() -> None:
    """There is no candidate for it: what went was not seen to go. Not to blame it would be a guess.

    What is still there was counted by itself, and is not meant.
    """
    host = Machine()
    cgroup = host.run(pid=395)
    other = host.run("b" * 64, pid=396)
    host.crash()
    host.lose(cgroup, kills=1)
    ended = host.wall
    host.pass_time(60)
    host.look_again()
    host.ended(137, exit_time=ended, cgroup_id=cgroup.id)
    host.pass_time(1)
    host.ended(137, container_id="b" * 64, cgroup_id=other.id)
    host.pass_time(1)
    (kill,) = [event for event in host.journal if isinstance(event, OomKill)]
    assert (kill.victim_cgroup, kill.candidates, kill.recovered) == (None, (), True)
    first, second = host.exits
    assert ruled(first) == ("unknown", "medium")
    assert ruled(second) == ("not_oom", "confirmed")


@pytest.mark.parametrize(
    ("kills", "named", "verdict", "confidence"),
    [
        (0, False, Verdict.NOT_OOM, Confidence.CONFIRMED),
        (1, False, Verdict.UNKNOWN, Confidence.MEDIUM),
        (1, True, Verdict.OOM, Confidence.CONFIRMED),
    ],
    ids=["nothing was killed", "something was", "its main process was"],
)
def test_an_end_that_nobody_can_tell_of_any_more_is_told_by_the_counters(
    kills: int, named: bool, verdict: Verdict, confidence: Confidence
) -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    if named:
        host.name(cgroup, 395)
    host.lose(cgroup, kills)
    host.pass_time(3600)
    host.look_again()
    host.pass_time(LOST_SECONDS - 1)
    assert not host.exits
    host.pass_time(2)
    assert (host.exit.verdict, host.exit.confidence) == (verdict, confidence)
    assert (host.exit.exit_code, host.exit.exit_time) == (None, None)
    assert host.exit.recovered


def test_an_end_that_a_runtime_was_away_for_and_has_forgotten_is_told_as_well() -> None:
    host = Machine()
    gone, told = host.run(pid=395), host.run("b" * 64, pid=396)
    host.kill(gone, pid=395)
    host.ended(0, container_id="b" * 64, cgroup_id=told.id)
    host.pass_time(1)
    for cgroup in (gone, told):
        host.remove(cgroup)
    ended = host.wall
    host.pass_time(LOST_SECONDS + 1)
    _, lost = host.exits
    assert (lost.cgroup_id, ruled(lost)) == (gone.id, ("oom", "confirmed"))
    assert (lost.exit_code, lost.exit_time, lost.recovered) == (None, ended, False)


def test_who_knows_after_all_how_it_ended_amends_that() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    host.lose(cgroup)
    ended = host.wall
    host.pass_time(60)
    host.look_again()
    host.pass_time(LOST_SECONDS + 1)
    host.ended(3, exit_time=ended, cgroup_id=cgroup.id)
    lost, known = host.exits
    assert known.amends is not None
    assert (lost.exit_code, known.exit_code, known.exit_time) == (None, 3, ended)


def test_what_a_worker_alone_knows_is_left_to_its_call() -> None:
    host = Machine()
    cgroup = host.run(source="worker", pid=395)
    host.crash()
    host.lose(cgroup)
    host.look_again()
    host.pass_time(2 * LOST_SECONDS)
    assert not host.exits
    host.ended(137, source="worker")
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_an_end_that_was_held_for_a_worker_as_the_daemon_died_is_told_after_all() -> None:
    host = Machine()
    cgroup = host.run(source="worker", pid=395)
    host.seen(cgroup, ID, source="docker")
    ended = host.wall
    host.ended(137, exit_time=ended)
    assert not host.exits
    host.crash()
    host.look_again()
    (life,) = host.correlator.containers.end_untold()
    assert life.said.keys() == {"worker", "docker"}
    host.ended(137, exit_time=ended, cgroup_id=cgroup.id)
    host.pass_time(WORKER_SECONDS + 1)
    assert host.exit.recovered


def test_a_runtime_that_answers_before_the_first_look_is_judged_after_it() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.crash()
    host.kills[cgroup] += 1
    host.node_kills += 1
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(5)
    assert not host.exits
    host.look_again()
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "high")


def test_no_removal_is_awaited_of_a_cgroup_that_went_while_nobody_watched() -> None:
    """A container that no runtime could place: its removal is over, and was seen by nobody."""
    host = Machine()
    host.heard_of("docker")
    host.crash()
    ended = host.wall
    host.pass_time(60)
    host.look_again()
    host.ended(143, source="worker", exit_time=ended)
    assert ruled(host.exit) == ("not_oom", "low")
    assert STILL_DUE not in " ".join(host.exit.reasons)
