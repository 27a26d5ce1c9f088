"""The correlator against a model of the kernel's counters: nothing lost, nothing told twice."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatch.correlator import Correlator
from oomwatch.events import Cgroup, Confidence, Event, EvidenceGap, MemoryUsage, OomKill, Scope
from oomwatch.kills import EPISODE_SECONDS, HINT_SECONDS, SETTLE_SECONDS, Outcome
from oomwatch.ledger import Ledger, LedgerRow
from oomwatch.observations import (
    Audit,
    AuditReading,
    CgroupRemoved,
    CounterReading,
    Counters,
    Describe,
    LineageMember,
    LineageReading,
    Measure,
    Observation,
    Question,
    Sight,
    SubtreeCount,
    Surveyed,
    UsageReading,
)

BOOT = "0b9e5a8c-0000-4000-8000-000000000000"


class ModelNode:
    def __init__(self, cgroup: Cgroup, parent: ModelNode | None, *, group: bool) -> None:
        self.cgroup, self.parent, self.group = cgroup, parent, group
        self.children: dict[str, ModelNode] = {}
        self.oom = self.kills = self.groups = self.subtree = 0
        self.counter_id = cgroup.id + 1000

    def up(self) -> Iterable[ModelNode]:
        node: ModelNode | None = self
        while node is not None:
            yield node
            node = node.parent

    def below(self) -> Iterable[ModelNode]:
        yield self
        for child in list(self.children.values()):
            yield from child.below()


class Kernel:
    """Counts as mm/memcontrol.c does, and answers as a source with no delay would."""

    def __init__(self) -> None:
        self.ids = 1
        self.root = ModelNode(Cgroup(1, "", None), None, group=False)

    def make(self, parent: ModelNode, name: str, *, group: bool = False) -> ModelNode:
        self.ids += 1
        node = ModelNode(Cgroup(self.ids, name, parent.cgroup), parent, group=group)
        parent.children[name] = node
        return node

    def kill(self, node: ModelNode, kills: int = 1, *, limit: ModelNode | None = None) -> None:
        if limit is not None:
            limit.oom += 1
        node.kills += kills
        for above in node.up():
            above.subtree += kills

    def remove(self, node: ModelNode) -> None:
        assert node.parent is not None
        del node.parent.children[node.cgroup.name]

    def reading(self, node: ModelNode, sight: Sight = Sight.FOLLOWED) -> CounterReading:
        root = node is self.root
        local = Counters() if root else Counters(node.oom, node.kills, node.groups)
        subtree = node.subtree if sight is Sight.BASELINE else None
        return CounterReading(node.cgroup, 0 if root else node.counter_id, 7, local, subtree, sight)

    def find(self, cgroup: Cgroup) -> ModelNode | None:
        return next((n for n in self.root.below() if n.cgroup is cgroup), None)

    def answer(self, question: Question) -> list[Observation]:
        node = self.find(question.cgroup)
        if isinstance(question, Measure):
            return [UsageReading(question.cgroup, MemoryUsage(limit_bytes=1))]
        if isinstance(question, Describe):
            members = (
                tuple(
                    LineageMember(self.reading(n), n.group) for n in node.up() if n is not self.root
                )
                if node
                else ()
            )
            return [LineageReading(question.cgroup, members, node is not None, None)]
        return self._audit(question, node)

    def _audit(self, question: Audit, node: ModelNode | None) -> list[Observation]:
        if node is None:
            return [AuditReading(question.cgroup, ())]
        readings: list[Observation] = []
        counts = [SubtreeCount(node.cgroup, node.subtree, 7, node is not self.root)]
        for below in node.below():
            if below is not self.root:
                readings.append(self.reading(below))
            if below is not node:
                counts.append(SubtreeCount(below.cgroup, below.subtree, 7))
        return [*readings, AuditReading(question.cgroup, tuple(counts))]


class Run:
    """A correlator on a model kernel, with what a journal would hold."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.events: list[Event] = []
        self.rows: dict[int, LedgerRow] = {}
        self.now = 100.0
        self.start(resumed=False)

    def start(self, *, resumed: bool) -> None:
        """Start, or start again: what is not in `rows` and `events` is forgotten."""
        self.correlator = Correlator(BOOT, Ledger(self.rows.values()), resumed=resumed)
        nodes = list(self.kernel.root.below())
        self.feed(*(self.kernel.reading(node, Sight.BASELINE) for node in nodes))
        ids = frozenset(node.cgroup.id for node in nodes)
        self.feed(Surveyed(ids, self.kernel.root.cgroup))

    def feed(self, *observations: Observation) -> None:
        queue = list(observations)
        while queue:
            self._take(self.correlator.feed(queue.pop(0), self.now), queue)
        self._commit()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.correlator.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            queue: list[Observation] = []
            self._take(self.correlator.expire(self.now), queue)
            while queue:
                self._take(self.correlator.feed(queue.pop(0), self.now), queue)
            self._commit()
        self.now = end

    def _take(self, outcome: Outcome, queue: list[Observation]) -> None:
        self.events += outcome.events
        for question in outcome.questions:
            queue += self.kernel.answer(question)

    def _commit(self) -> None:
        change = self.correlator.ledger.take_changes()
        self.rows.update({row.cgroup_id: row for row in change.rows})
        for removed in change.removed:
            self.rows.pop(removed, None)

    def settle(self) -> None:
        question = self.correlator.audit_all(self.kernel.root.cgroup)
        self.feed(*self.kernel.answer(question))
        self.pass_time(1)

    @property
    def kills(self) -> list[OomKill]:
        return [event for event in self.events if isinstance(event, OomKill)]

    @property
    def told(self) -> int:
        return sum(kill.kill_count or 0 for kill in self.kills)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_what_is_told_is_what_was_counted_whatever_happens(seed: int) -> None:
    """Any order of kills, removals, missed notifications, restarts: the sums agree."""
    rng = random.Random(seed)
    kernel = Kernel()
    nodes = [kernel.make(kernel.root, f"t{n}") for n in range(2)]
    for node in nodes:
        kernel.kill(node, rng.randrange(3))
    before = kernel.root.subtree
    run = Run(kernel)
    for step in range(rng.randrange(1, 40)):
        nodes = [node for node in kernel.root.below() if node is not kernel.root]
        node = rng.choice([*nodes, kernel.root])
        action = rng.choice(["make", "kill", "kill", "missed", "remove", "wait", "restart", "root"])
        if action == "make":
            made = kernel.make(node, f"n{step}", group=rng.random() < 0.2)
            if rng.random() < 0.5:
                kernel.kill(made)
            run.feed(kernel.reading(made))
        elif action in ("kill", "missed") and node is not kernel.root:
            limit = rng.choice([*list(node.up())[:-1], None])
            kernel.kill(node, rng.randrange(1, 4), limit=limit)
            if action == "kill":
                run.feed(kernel.reading(node))
        elif action == "remove" and node is not kernel.root and not node.children:
            kernel.remove(node)
            run.feed(CgroupRemoved(node.cgroup, 7))
        elif action == "root":
            kernel.root.subtree += 1
        elif action == "wait":
            run.pass_time(rng.choice([0.01, 0.03, 6]))
        elif action == "restart":
            run.start(resumed=True)
    run.settle()
    run.settle()
    assert run.told == kernel.root.subtree - before
    for node in kernel.root.below():
        if node is not kernel.root:
            own = sum(k.kill_count or 0 for k in run.kills if k.victim_cgroup_id == node.cgroup.id)
            assert own <= node.kills
            assert run.correlator.ledger.told(node.cgroup) == node.kills
            assert run.correlator.ledger.accounted(node.cgroup) == node.subtree
    episodes = [(kill.episode_id, kill.victim_cgroup_id) for kill in run.kills]
    assert len(set(episodes)) == len(episodes)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_two_limits_that_rose_are_two_answers(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    child = kernel.make(parent, "c")
    run = Run(kernel)
    parent.oom += 1
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    (kill,) = run.kills
    assert kill.scope is Scope.UNKNOWN
    assert kill.limit_cgroup is None


def test_one_attempt_of_an_ancestor_explains_one_kill_only(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    first, second = kernel.make(parent, "a"), kernel.make(parent, "b")
    run = Run(kernel)
    kernel.kill(first, limit=parent)
    run.feed(kernel.reading(first))
    kernel.kill(second)
    run.feed(kernel.reading(second))
    assert [kill.scope for kill in run.kills] == [Scope.ANCESTOR_LIMIT, Scope.NODE]


def test_an_attempt_without_a_kill_is_forgotten(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    child = kernel.make(parent, "c")
    run = Run(kernel)
    parent.oom += 1
    run.feed(kernel.reading(parent))
    run.pass_time(HINT_SECONDS + 1)
    kernel.kill(child)
    run.feed(kernel.reading(child))
    assert run.kills[0].scope is Scope.NODE


def test_a_limit_that_cannot_be_seen_whole_is_not_the_nodes(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = Run(kernel)
    kernel.kill(child)
    outcome = run.correlator.feed(kernel.reading(child), run.now)
    assert [type(question) for question in outcome.questions] == [Describe]
    reading = kernel.answer(outcome.questions[0])[0]
    assert isinstance(reading, LineageReading)
    partial = LineageReading(reading.cgroup, reading.members, complete=False, usage=None)
    (kill,) = run.correlator.feed(partial, run.now).events
    assert isinstance(kill, OomKill)
    assert kill.scope is Scope.UNKNOWN


def test_a_group_settles_into_one_event_a_cgroup(kernel: Kernel) -> None:
    group = kernel.make(kernel.root, "g", group=True)
    first, second = kernel.make(group, "a"), kernel.make(group, "b")
    run = Run(kernel)
    kernel.kill(first, limit=group)
    run.feed(kernel.reading(first))
    group.groups += 1
    kernel.kill(first)
    kernel.kill(second, 2)
    assert run.kills == []
    run.pass_time(SETTLE_SECONDS / 2)
    run.feed(kernel.reading(second))
    run.pass_time(EPISODE_SECONDS * 5)
    assert sorted((k.victim_cgroup, k.kill_count) for k in run.kills) == [("/g/a", 2), ("/g/b", 2)]
    assert len({kill.episode_id for kill in run.kills}) == 1
    assert {kill.limit_cgroup for kill in run.kills} == {"/g"}


def test_a_residual_is_told_only_after_a_second_look(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = kernel.make(parent, "gone")
    run = Run(kernel)
    kernel.kill(gone, limit=gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    assert run.kills == []
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    assert kill.victim_cgroup == "/p/gone"
    assert kill.survivor_cgroup == "/p"
    assert kill.confidence is Confidence.HIGH


def test_one_removed_after_the_first_look_may_have_been_meant(kernel: Kernel) -> None:
    """Removals are told late: the first to be told of need not be the first that went."""
    parent = kernel.make(kernel.root, "p")
    gone, innocent = kernel.make(parent, "gone"), kernel.make(parent, "innocent")
    run = Run(kernel)
    kernel.kill(gone, limit=gone)
    kernel.remove(gone)
    kernel.remove(innocent)
    run.feed(CgroupRemoved(innocent.cgroup, 7))
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    assert kill.victim_cgroup is None
    assert set(kill.candidates) == {"/p/gone", "/p/innocent"}


def test_the_roots_own_processes_make_an_elimination_less_sure(kernel: Kernel) -> None:
    gone = kernel.make(kernel.root, "gone")
    run = Run(kernel)
    kernel.kill(gone, limit=gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.confidence) == ("/gone", Confidence.MEDIUM)


def test_several_removed_at_once_are_named_as_candidates(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = [kernel.make(parent, name) for name in "ab"]
    run = Run(kernel)
    kernel.kill(gone[0], limit=gone[0])
    for node in gone:
        kernel.remove(node)
    outcome = [run.correlator.feed(CgroupRemoved(node.cgroup, 7), run.now) for node in gone]
    for question in outcome[-1].questions:
        run.feed(*kernel.answer(question))
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    assert kill.victim_cgroup is None
    assert kill.candidates == ("/p/a", "/p/b")
    assert kill.confidence is Confidence.CONFIRMED


def test_a_new_counter_is_told_no_further_than_its_parent_counts(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    child = kernel.make(parent, "c")
    run = Run(kernel)
    kernel.kill(child, 2, limit=child)
    run.feed(kernel.reading(child))
    child.counter_id += 1
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child, Sight.REVEALED))
    run.settle()
    assert run.told == 3
    child.counter_id += 1
    child.kills = child.oom = child.subtree = 0
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child, Sight.REVEALED))
    run.settle()
    assert run.told == 4
    assert all(kill.victim_cgroup == "/p/c" for kill in run.kills)


def test_a_counter_that_falls_is_a_gap(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = Run(kernel)
    kernel.kill(child, 2, limit=child)
    run.feed(kernel.reading(child))
    child.kills = 1
    run.feed(kernel.reading(child))
    assert [type(event) for event in run.events] == [OomKill, EvidenceGap]
