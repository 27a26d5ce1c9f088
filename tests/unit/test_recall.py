"""After a restart: a line that is read again adds to what was told, and is never a second kill."""

from __future__ import annotations

from dataclasses import replace

from oomwatch.correlator import Correlator
from oomwatch.events import Confidence, Entry, Event, Evidence, OomKill, Scope, Victim
from oomwatch.ledger import Ledger
from oomwatch.observations import LogRead, LogSpan, VictimNamed

BOOT = "0b9e5a8c-0000-4000-8000-000000000000"
SECOND = 1_000_000
TOLD = 1_795_000_000 * SECOND


def kill(**more: object) -> OomKill:
    fields: dict[str, object] = {
        "episode_id": f"{BOOT[:8]}-1",
        "detect_time": TOLD,
        "scope": Scope.UNKNOWN,
        "confidence": Confidence.CONFIRMED,
        "kill_count": 1,
        "victim_cgroup": "/c",
    }
    return OomKill(**fields | more)  # type: ignore[arg-type]


def named(pid: int, seconds: float, cgroup: str | None = "/c", line: int = 9) -> VictimNamed:
    return VictimNamed(
        source="kernel_log",
        sequence=line,
        time=TOLD + round(seconds * SECOND),
        seen_time=TOLD + 600 * SECOND,
        victim=Victim(pid=pid, comm="hog"),
        detail=f"Killed process {pid}",
        cgroup=cgroup,
        printed=True,
        limit_cgroup="/c",
        span=LogSpan("kmsg", line, line),
        recovered=True,
    )


def restarted(*events: OomKill, counted: bool = True) -> Correlator:
    correlator = Correlator(BOOT, Ledger(), resumed=True, counted=counted)
    entries = [Entry(revision, "j", event) for revision, event in enumerate(events, 17)]
    correlator.recall(entries, 0)
    return correlator


def feed(correlator: Correlator, *records: VictimNamed) -> list[Event]:
    events: list[Event] = []
    for record in records:
        events += correlator.feed(record, 1).events
    return [*events, *correlator.expire(2).events]


def test_a_kill_that_was_told_without_its_name_is_amended() -> None:
    correlator = restarted(kill())
    (amendment,) = feed(correlator, named(7, 0.01))
    assert isinstance(amendment, OomKill)
    assert (amendment.amends, amendment.kill_count) == (17, None)
    assert [victim.pid for victim in amendment.victims] == [7]
    assert amendment.limit_cgroup == "/c"
    assert feed(correlator, named(8, 0.02, line=10)) == []


def test_a_kill_of_the_downtime_does_not_name_the_one_before() -> None:
    assert feed(restarted(kill()), named(7, 60)) == []


def test_another_boots_kills_are_not_amended() -> None:
    assert feed(restarted(kill(episode_id="ffffffff-1")), named(7, 0.01)) == []


def test_a_second_witness_of_a_told_victim_is_no_second_victim() -> None:
    hit = Evidence(source="tracepoint", time=TOLD, detail="oom:mark_victim pid=7")
    told = kill(occur_time=TOLD, victims=(Victim(pid=7),), evidence=(hit,))
    (amendment,) = feed(restarted(told), named(7, 0.01))
    assert isinstance(amendment, OomKill)
    assert [victim.comm for victim in amendment.victims] == ["hog"]
    assert [each.source for each in amendment.evidence] == ["kernel_log"]


def test_what_an_amendment_named_is_not_missing() -> None:
    line = Evidence(source="kernel_log", time=TOLD, detail="Killed process 7")
    amendment = kill(
        kill_count=None, amends=17, occur_time=TOLD, victims=(Victim(pid=7),), evidence=(line,)
    )
    assert feed(restarted(kill(), amendment), named(8, 0.01)) == []


def test_a_groups_first_victim_was_counted_twice() -> None:
    line = Evidence(source="kernel_log", time=TOLD, detail="Killed process 7")
    group = kill(kill_count=3, occur_time=TOLD, victims=(Victim(pid=7),), evidence=(line, line))
    amended = feed(restarted(group), named(8, 0.01), named(9, 0.02, line=10))
    pids = [v.pid for event in amended if isinstance(event, OomKill) for v in event.victims]
    assert pids == [8]


def test_from_the_log_alone_a_second_witness_is_no_second_kill() -> None:
    told = kill(occur_time=TOLD, victims=(Victim(pid=7),))
    assert feed(restarted(told, counted=False), named(7, 0.01)) == []
    (recovered,) = feed(restarted(told, counted=False), named(8, 60))
    assert isinstance(recovered, OomKill)
    assert (recovered.recovered, recovered.kill_count) == (True, 1)


def test_a_line_is_untold_until_it_is_in_an_event() -> None:
    correlator = restarted(kill(), counted=False)
    record = named(8, 60)
    correlator.feed(record, 1)
    correlator.feed(LogRead("kmsg", 10, 20), 1)
    place = correlator.take_changes(1, told=True).log
    assert place is not None
    assert (place.begin, place.next, place.untold) == (9, 20, (9,))
    assert correlator.expire(2).events
    place = correlator.take_changes(2, told=True).log
    assert place is not None
    assert (place.begin, place.untold) == (10, ())


def test_a_kill_that_a_runtimes_word_placed_before_the_restart_is_placed() -> None:
    both = kill(victim_cgroup=None, kill_count=2, survivor_cgroup="/p", candidates=("/p/a", "/p/b"))
    said = Evidence(source="docker", time=TOLD, detail="docker reports oom")
    placed = kill(kill_count=None, amends=17, victim_cgroup="/p/a", evidence=(said,))
    lines = [named(7, -3, "/p/b", 9), named(8, -2, "/p/b", 10), named(9, -1, "/p/a", 11)]
    told = feed(restarted(both, placed), *lines)
    where = [(k.victim_cgroup, k.victims[0].pid) for k in told if isinstance(k, OomKill)]
    assert where == [("/p/b", 7), ("/p/a", 9)]
    line = Evidence(source="kernel_log", time=TOLD, detail="Killed process 9")
    its_name = replace(placed, occur_time=TOLD, victims=(Victim(pid=9),), evidence=(line,))
    (told_b,) = feed(restarted(both, placed, its_name), named(7, -3, "/p/b", 9))
    assert isinstance(told_b, OomKill)
    assert told_b.victim_cgroup == "/p/b"


def test_a_name_of_after_a_sum_was_told_is_of_no_kill_in_it() -> None:
    one = kill(victim_cgroup=None, survivor_cgroup="/p", candidates=("/p/a", "/p/b"))
    assert feed(restarted(one), named(7, 0.5, "/p/a")) == []
    (amendment,) = feed(restarted(one), named(7, 0.05, "/p/a"))
    assert isinstance(amendment, OomKill)
    assert amendment.victim_cgroup == "/p/a"
