"""Ends of the time while nobody watched: told once, marked recovered, by what is known of them."""

from __future__ import annotations

import pytest

from oomwatch.containers.lives import Life, LifeKey
from oomwatch.containers.registry import Containers
from oomwatch.correlator import Correlator
from oomwatch.correlator.exits import RUNTIME_SECONDS, WORKER_SECONDS
from oomwatch.correlator.lost_ends import LOST_SECONDS
from oomwatch.events import (
    Cgroup,
    Confidence,
    Container,
    ContainerExit,
    Entry,
    OomKill,
    Verdict,
)
from oomwatch.ledger import Ledger, LedgerRow
from oomwatch.observations import (
    ContainerSeen,
    CounterReading,
    Counters,
    LastLook,
    SandboxSeen,
    Sight,
    Surveyed,
)
from oomwatch.verdict.words import STILL_DUE
from tests.unit.test_exits import BOOT, ID, WAIT_SECONDS, Host, ruled, sandboxed


class Machine(Host):
    """A host whose daemon dies and starts again, from what was written down."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: dict[LifeKey, Life] = {}
        self.rows: dict[int, LedgerRow] = {}

    def crash(self, *, read_back: int | None = None) -> None:
        """Die and start again; of the journal the last few events may be read back alone."""
        change = self.correlator.ledger.take_changes()
        self.rows.update((row.cgroup_id, row) for row in change.rows)
        lives = self.correlator.containers.lives.take_changes()
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
        told = [Entry(number + 1, "j", event) for number, event in enumerate(self.journal)]
        for entry in told[-read_back:] if read_back else told:
            self.correlator.exits.recall(entry.revision, entry.event)
        self.correlator.recall(told, self.now)
        self.written = len(self.journal)
        self.lagging, self.unanswered = None, []

    def lose(self, cgroup: Cgroup, kills: int = 0) -> None:
        """A cgroup goes while nobody watches; the node's sum has what was killed in it."""
        del self.kills[cgroup]
        self.node_kills += kills

    def look_again(self, *, whole: bool = True) -> None:
        """Every cgroup that there is is looked at, for the first time since the restart.

        Where that is not whole, none can be listed.
        """
        old = Sight.BASELINE
        self.say(CounterReading(self.root, 0, self.wall, Counters(), self.node_kills, old))
        for cgroup, kills in self.kills.items() if whole else ():
            counters = Counters(0, kills, 0)
            self.say(CounterReading(cgroup, cgroup.id + 1000, self.wall, counters, None, old))
        ids = frozenset({self.root.id, *(cgroup.id for cgroup in self.kills if whole)})
        self.say(Surveyed(ids, self.root, self.wall, whole))


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
    assert host.correlator.containers.lives.end_untold() == []
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


@pytest.mark.parametrize("gone", [False, True])
def test_an_end_after_the_clock_was_set_back_is_not_recovered(gone: bool) -> None:
    """Though by that clock it was before the start; and what was recovered stays that."""
    host = Machine()
    before, cgroup = host.run("b" * 64, pid=396), host.run(pid=395)
    host.crash()
    host.lose(before)
    host.look_again()
    host.ended(None, container_id="b" * 64, cgroup_id=before.id)
    host.pass_time(5)
    host.set_clock(-3600)
    host.pass_time(5)
    if gone:
        host.remove(cgroup)
    host.ended(137, exit_time=host.wall, cgroup_id=cgroup.id)
    host.pass_time(5)
    recovered, watched = host.exits
    assert (recovered.recovered, watched.recovered) == (True, False)
    host.ended(3, container_id="b" * 64, cgroup_id=before.id)
    host.pass_time(5)
    *_, amended = host.exits
    assert (amended.amends, amended.recovered) == (1, True)


def test_what_could_not_be_listed_after_a_restart_has_not_ended() -> None:
    """Once it can, what is not there ended while nobody watched."""
    host = Machine()
    here, gone = host.run(pid=395), host.run("b" * 64, pid=396)
    host.crash()
    host.lose(gone)
    host.look_again(whole=False)
    host.pass_time(2 * LOST_SECONDS)
    assert not host.exits
    host.look_again()
    host.pass_time(LOST_SECONDS + 1)
    assert (host.exit.cgroup_id, host.exit.recovered, host.exit.exit_time) == (gone.id, True, None)
    host.kill(here, pid=395)
    host.ended(137, cgroup_id=here.id)
    host.pass_time(1)
    _, exit_ = host.exits
    assert (ruled(exit_), exit_.recovered) == (("oom", "confirmed"), False)


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
    (life,) = host.correlator.containers.lives.end_untold()
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


def due(event: ContainerExit) -> bool:
    return STILL_DUE in " ".join(event.reasons)


def judged_too_soon(host: Machine, code: int = 137) -> Cgroup:
    """The daemon dies after an exit whose counters could not be read within its caller's wait."""
    cgroup = host.run(pid=395)
    host.lagging = LastLook
    host.ended(code, source="worker", cgroup_id=cgroup.id)
    host.pass_time(WAIT_SECONDS)
    assert due(host.exit)
    host.crash()
    return cgroup


@pytest.mark.parametrize(
    ("there", "killed", "named", "expected"),
    [
        (True, False, False, ("not_oom", "confirmed")),
        (True, True, False, ("oom", "high")),
        (False, False, False, ("not_oom", "confirmed")),
        (False, True, False, ("unknown", "medium")),
        (False, True, True, ("oom", "confirmed")),
    ],
    ids=["there", "there, killed in", "gone", "gone, something killed", "gone, it was named"],
)
def test_what_was_due_as_the_daemon_died_amends_the_exit_after_a_restart(
    there: bool, killed: bool, named: bool, expected: tuple[str, str]
) -> None:
    host = Machine()
    cgroup = judged_too_soon(host)
    if named:
        host.name(cgroup, 395)
    if not there:
        host.lose(cgroup, int(killed))
    elif killed:
        host.kill(cgroup, told=False)
    host.pass_time(60)
    host.look_again()
    host.pass_time(1)
    first, amended = host.exits[0], host.exits[-1]
    assert ruled(amended) == expected
    assert amended.amends == host.journal.index(first) + 1
    assert amended.episode_id == first.episode_id
    assert not due(amended)
    assert not amended.recovered, "it ended before the daemon died"
    told = len(host.exits)
    host.crash()
    host.look_again()
    host.pass_time(2 * LOST_SECONDS)
    assert len(host.exits) == told, "what is settled is not judged again"


def test_what_is_due_through_several_deaths_amends_after_the_last() -> None:
    host = Machine()
    cgroup = judged_too_soon(host)
    host.crash()
    host.lagging = LastLook
    host.look_again()
    host.pass_time(1)
    assert due(host.exit)
    host.crash()
    host.lose(cgroup)
    host.look_again()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "confirmed")
    assert len(host.exits) == 2


def test_a_kill_that_was_told_just_before_the_daemon_died_amends_the_exit() -> None:
    """Its event was committed, and the exit's amendment was not: a kill is told before that."""
    host = Machine()
    cgroup = host.run(pid=395)
    host.lagging = LastLook
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    host.kill(cgroup, 395)
    host.pass_time(1)
    host.journal = host.journal[
        : 1
        + next(number for number, event in enumerate(host.journal) if isinstance(event, OomKill))
    ]
    assert due(host.exit)
    host.crash()
    host.lose(cgroup)
    host.look_again()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")
    assert host.exits[-1].kills == (2,)


def test_a_word_that_comes_with_the_restart_is_of_the_exit_that_was_due() -> None:
    host = Machine()
    cgroup = judged_too_soon(host)
    host.lose(cgroup)
    host.ended(137, cgroup_id=cgroup.id, oom_killed=False)
    host.look_again()
    host.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "confirmed")
    assert host.exits[-1].stop_requested
    assert not due(host.exits[-1])
    assert {event.amends for event in host.exits[1:]} == {1}


def test_a_word_that_comes_while_the_exit_is_looked_at_anew_does_not_end_that() -> None:
    host = Machine()
    cgroup = judged_too_soon(host)
    host.kill(cgroup, told=False)
    host.look_again()
    host.ended(137, cgroup_id=cgroup.id, oom_killed=True)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "high")


@pytest.mark.parametrize("removed", [False, True])
def test_of_a_place_that_was_due_as_the_daemon_died_nothing_more_is_awaited(
    removed: bool,
) -> None:
    host = Machine()
    host.heard_of("docker")
    cgroup = host.make(ID)
    host.ended(143, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert due(host.exit)
    host.crash()
    host.look_again()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "low")
    assert not due(host.exits[-1])
    if removed:
        host.remove(cgroup)
        host.pass_time(1)
        assert host.exits[-1].cgroup_id == cgroup.id
        assert ruled(host.exits[-1]) == ("not_oom", "confirmed")


@pytest.mark.parametrize("named", ["never", "read on", "late"])
def test_a_name_that_was_due_as_the_daemon_died_amends_the_exit(named: str) -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.kill(cgroup)
    killed = host.wall
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("oom", "high")
    assert due(host.exit)
    host.crash()
    if named == "read on":
        host.name(cgroup, 395, killed)
    host.lose(cgroup)
    host.look_again()
    host.pass_time(3)
    if named == "late":
        host.name(cgroup, 395, killed)
        host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "high" if named == "never" else "confirmed")
    assert not due(host.exits[-1])
    assert "its counters, read after the exit, hold no further kill" in host.exits[-1].reasons


@pytest.mark.parametrize("code", [0, 137, 143])
def test_a_sandbox_that_was_due_as_the_daemon_died_is_not_judged_as_a_plain_container(
    code: int,
) -> None:
    host = Machine()
    cgroup = host.run(pid=395, handler="runsc")
    host.ended(code, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert due(host.exit)
    host.remove(cgroup)
    host.crash()
    host.look_again()
    host.pass_time(1)
    host.say(SandboxSeen(container_id=ID, cgroup_id=cgroup.id, time=host.wall))
    host.pass_time(1)
    assert {ruled(event) for event in host.exits} == {("unknown", "low")}
    assert not due(host.exits[-1])


def test_a_verdict_whose_evidence_died_with_the_daemon_stands_and_nothing_is_due_to_it() -> None:
    host = Machine()
    cgroup = sandboxed(host)
    host.kill(cgroup)
    host.ended(0, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("oom", "high")
    assert due(host.exit)
    host.crash()
    host.lose(cgroup)
    host.look_again()
    host.pass_time(1)
    assert f"{STILL_DUE}where the gVisor" in " ".join(host.exits[-1].reasons)
    host.say(SandboxSeen(container_id=ID, cgroup_id=cgroup.id, time=host.wall))
    host.pass_time(1)
    assert {ruled(event) for event in host.exits} == {("oom", "high")}
    assert not due(host.exits[-1])


def test_what_was_amended_before_the_daemon_died_is_not_looked_at_anew() -> None:
    host = Machine()
    cgroup = sandboxed(host)
    host.kill(cgroup)
    host.ended(0, source="worker")
    host.pass_time(WAIT_SECONDS)
    host.name(cgroup, 500)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")
    told = len(host.exits)
    host.crash()
    host.lose(cgroup)
    host.look_again()
    host.pass_time(1)
    assert len(host.exits) == told


def test_kills_that_are_not_read_back_are_not_forgotten_by_what_amends_the_exit() -> None:
    host = Machine()
    cgroup = host.run(pid=395)
    host.kill(cgroup, 396)
    host.pass_time(120)
    host.lagging = LastLook
    host.ended(1, source="worker", cgroup_id=cgroup.id)
    host.pass_time(WAIT_SECONDS)
    assert due(host.exit)
    host.crash(read_back=1)
    host.look_again()
    host.pass_time(1)
    last = host.exits[-1]
    assert (ruled(last), last.oom_kills, due(last)) == (("unknown", "low"), 1, False)


def test_without_counters_what_was_due_as_the_daemon_died_is_looked_at_anew() -> None:
    host = Host(counted=False)
    container = Container(id=ID, handler="runsc")
    host.say(ContainerSeen(source="docker", time=host.wall, container=container, pid=4000))
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert due(host.exit)
    lives = host.correlator.containers.lives.take_changes().kept
    host.correlator = Correlator(BOOT, Ledger(), counted=False, containers=Containers(lives))
    host.correlator.exits.recall(1, host.exit)
    host.heard_of("containerd")
    host.say(SandboxSeen(container_id=ID, cgroup_id=None, time=host.wall))
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("unknown", "low")
    assert not due(host.exits[-1])
