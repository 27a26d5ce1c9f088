"""Counters that are held: what is new in them, by what their ancestors count."""

from __future__ import annotations

from dataclasses import replace

from oomwatch.correlator import Correlator
from oomwatch.correlator.held_counters import HeldCounters
from oomwatch.correlator.kills import SETTLE_SECONDS, OpenKills, Outcome
from oomwatch.correlator.names import Names
from oomwatch.events import Cgroup, EvidenceGap, OomKill
from oomwatch.ledger import Ledger
from oomwatch.observations import (
    Audit,
    AuditReading,
    CounterReading,
    Counters,
    Sight,
    SubtreeCount,
)

ROOT = Cgroup(1, "")
PARENT = Cgroup(2, "p", ROOT)
CHILD, OTHER = Cgroup(3, "c", PARENT), Cgroup(4, "o", PARENT)
ELSEWHERE = Cgroup(5, "e", ROOT)


class Books:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.kills = OpenKills("boot", self.ledger, Names(), SETTLE_SECONDS)
        self.held = HeldCounters("boot", self.ledger, self.kills)
        self.outcome = Outcome()

    def hold(self, cgroup: Cgroup, kills: int, subtree: int | None = None, oom: int = 0) -> None:
        self.held.hold(_reading(cgroup, 8, kills, subtree, oom), 1.0, self.outcome)

    def settled(self, asked: Cgroup, *counts: SubtreeCount) -> list[Cgroup]:
        audit = AuditReading(asked, counts)
        return [one.cgroup for one in self.held.settled(audit, 1.0, self.outcome)]


def _reading(
    cgroup: Cgroup, counter_id: int, kills: int, subtree: int | None = None, oom: int = 0
) -> CounterReading:
    local = Counters(oom, kills)
    return CounterReading(cgroup, counter_id, 7, local, subtree, Sight.REVEALED)


def test_one_is_held_until_what_is_above_it_was_read_and_settled_once() -> None:
    books = Books()
    books.hold(CHILD, 1)
    assert books.settled(ELSEWHERE, SubtreeCount(ELSEWHERE, 1, 7)) == []
    assert books.settled(PARENT, SubtreeCount(PARENT, 1, 7)) == [CHILD]
    assert books.settled(PARENT, SubtreeCount(PARENT, 1, 7)) == []


def test_of_a_cgroup_that_is_gone_nothing_is_settled() -> None:
    books = Books()
    books.hold(CHILD, 1)
    books.held.removed(CHILD)
    assert books.settled(PARENT, SubtreeCount(PARENT, 1, 7)) == []


def test_what_no_ancestor_misses_was_told_before_below_it_too() -> None:
    books = Books()
    books.hold(CHILD, 5, subtree=9, oom=4)
    assert books.settled(PARENT, SubtreeCount(PARENT, 3, 7)) == [CHILD]
    assert (books.ledger.told(CHILD), books.ledger.accounted(CHILD)) == (2, 6)
    assert books.ledger.oom(CHILD) == 1
    assert books.ledger.counter_id(CHILD) == 8


def test_what_is_open_below_an_ancestor_is_not_missed_there() -> None:
    books = Books()
    books.kills.rise(_reading(OTHER, 9, 2), 1.0, books.outcome, recovered=False)
    books.hold(CHILD, 5)
    books.settled(PARENT, SubtreeCount(PARENT, 3, 7))
    assert books.ledger.told(CHILD) == 4


def test_a_kill_that_is_open_is_told_before_its_counter_is_held() -> None:
    books = Books()
    books.kills.rise(_reading(CHILD, 7, 2), 1.0, books.outcome, recovered=False)
    books.hold(CHILD, 1)
    (kill,) = books.outcome.events
    assert isinstance(kill, OomKill)
    assert kill.kill_count == 2


def test_where_no_ancestor_counts_it_is_said_that_nobody_knows() -> None:
    books = Books()
    books.hold(CHILD, 5)
    assert books.settled(PARENT) == [CHILD]
    (gap,) = books.outcome.events
    assert isinstance(gap, EvidenceGap)
    assert gap.cgroup == CHILD.path
    assert books.ledger.told(CHILD) == 5


def test_its_parent_is_asked_for() -> None:
    outcome = Correlator("boot", Ledger()).feed(_reading(CHILD, 8, 1), 1.0)
    assert [one.cgroup for one in outcome.questions if isinstance(one, Audit)] == [PARENT]
    assert not outcome.events


def test_what_is_held_shows_what_it_counts_by_now() -> None:
    books = Books()
    books.hold(CHILD, 1)
    assert books.held.takes(_reading(CHILD, 8, 3))
    assert not books.held.takes(_reading(CHILD, 9, 5)), "another file once more"
    assert not books.held.takes(_reading(OTHER, 8, 5))
    audit = AuditReading(PARENT, (SubtreeCount(PARENT, 3, 7),))
    (settled,) = books.held.settled(audit, 1.0, books.outcome)
    assert settled.local.oom_kill == 3


def test_one_that_was_read_late_waits_for_the_root_and_is_told_what_nobody_told_there() -> None:
    books = Books()
    late = replace(_reading(CHILD, 8, 5, subtree=7), sight=Sight.LATE)
    assert books.held.hold(late, 1.0, books.outcome) is ROOT
    assert books.settled(PARENT, SubtreeCount(PARENT, 9, 7)) == []
    assert books.settled(ROOT, SubtreeCount(ROOT, 2, 7)) == [CHILD]
    assert (books.ledger.told(CHILD), books.ledger.accounted(CHILD)) == (3, 5)
    assert not books.outcome.events


def test_of_one_that_was_read_late_the_books_stand_where_no_ancestor_counts() -> None:
    books = Books()
    books.ledger.tell(CHILD, 2, 8)
    books.held.hold(replace(_reading(CHILD, 8, 5), sight=Sight.LATE), 1.0, books.outcome)
    assert books.settled(ROOT) == [CHILD]
    assert books.ledger.told(CHILD) == 2


def test_of_the_same_counter_that_was_told_further_meanwhile_nothing_is_taken_back() -> None:
    books = Books()
    books.ledger.tell(CHILD, 4, 8)
    books.hold(CHILD, 1)
    assert books.settled(PARENT, SubtreeCount(PARENT, 4, 7)) == [CHILD]
    assert books.ledger.told(CHILD) == 4


def test_one_that_was_read_late_and_is_another_file_is_taken_for_replaced() -> None:
    books = Books()
    books.ledger.tell(CHILD, 4, 7)
    books.held.hold(replace(_reading(CHILD, 8, 5), sight=Sight.LATE), 1.0, books.outcome)
    assert books.settled(ROOT, SubtreeCount(ROOT, 5, 7)) == [CHILD]
    assert (books.ledger.counter_id(CHILD), books.ledger.told(CHILD)) == (8, 4)
