"""The correlator against a model of the kernel's counters: nothing lost, nothing told twice."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatch.correlator import Correlator
from oomwatch.correlator.kills import EPISODE_SECONDS, HINT_SECONDS, SETTLE_SECONDS, Outcome
from oomwatch.correlator.names import KEEP_SECONDS
from oomwatch.events import (
    Cgroup,
    Confidence,
    Event,
    EvidenceGap,
    MemoryUsage,
    OomKill,
    Scope,
    Victim,
)
from oomwatch.ledger import Ledger, LedgerRow
from oomwatch.observations import (
    Audit,
    AuditReading,
    CgroupRemoved,
    CounterReading,
    Counters,
    Describe,
    EvidenceLost,
    FindExit,
    FindSandbox,
    FollowUsage,
    FoundRisen,
    LastLook,
    LineageMember,
    LineageReading,
    LogRead,
    LogSpan,
    Look,
    Measure,
    Observation,
    Question,
    ReadSandboxLog,
    Recorded,
    Sight,
    SubtreeCount,
    Surveyed,
    UsageReading,
    VictimNamed,
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
        self.time = 7
        self.root = ModelNode(Cgroup(1, "", None), None, group=False)

    def make(
        self, parent: ModelNode, name: str, *, group: bool = False, absent_at: float = 0.0
    ) -> ModelNode:
        self.ids += 1
        node = ModelNode(Cgroup(self.ids, name, parent.cgroup, absent_at), parent, group=group)
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
        counter_id = 0 if root else node.counter_id
        return CounterReading(node.cgroup, counter_id, self.time, local, subtree, sight)

    def find(self, cgroup: Cgroup) -> ModelNode | None:
        return next((n for n in self.root.below() if n.cgroup is cgroup), None)

    def answer(self, question: Question) -> list[Observation]:
        if isinstance(question, Look):
            at = (n for n in self.root.below() if n.cgroup.path == question.path)
            return [self.reading(node) for node in at]
        assert not isinstance(
            question, LastLook | FindSandbox | ReadSandboxLog | FollowUsage | FindExit
        ), "no container ends here"
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
        counts = [SubtreeCount(node.cgroup, node.subtree, self.time, node is not self.root)]
        for below in node.below():
            if below is not self.root:
                readings.append(self.reading(below))
            if below is not node:
                counts.append(SubtreeCount(below.cgroup, below.subtree, self.time))
        return [*readings, AuditReading(question.cgroup, tuple(counts))]


class Run:
    """A correlator on a model kernel, with what a journal would hold."""

    def __init__(self, kernel: Kernel, *, whole_host: bool = True) -> None:
        self.kernel = kernel
        self.whole_host = whole_host
        self.events: list[Event] = []
        self.rows: dict[int, LedgerRow] = {}
        self.now = 100.0
        self.start(resumed=False)

    def start(self, *, resumed: bool) -> None:
        """Start, or start again: what is not in `rows` and `events` is forgotten."""
        self.correlator = Correlator(
            BOOT, Ledger(self.rows.values()), resumed=resumed, whole_host=self.whole_host
        )
        nodes = list(self.kernel.root.below())
        self.feed(*(self.kernel.reading(node, Sight.BASELINE) for node in nodes))
        ids = frozenset(node.cgroup.id for node in nodes)
        self.feed(Surveyed(ids, self.kernel.root.cgroup, 0))

    def feed(self, *observations: Observation) -> None:
        queue = list(observations)
        while queue:
            self._take(self.correlator.feed(queue.pop(0), self.now), queue)
        self._commit()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        self.kernel.time += int(seconds * 1_000_000)
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
@settings(max_examples=300)
def test_what_is_told_is_what_was_counted_whatever_happens(seed: int) -> None:
    """Any order of kills, removals, missed notifications, restarts: the sums agree."""
    rng = random.Random(seed)
    kernel = Kernel()
    nodes = [kernel.make(kernel.root, f"t{n}") for n in range(2)]
    for node in nodes:
        kernel.kill(node, rng.randrange(3))
    before = kernel.root.subtree
    run = Run(kernel)
    if rng.random() < 0.7:
        run.correlator.expect(frozenset({"kernel_log"}))
    due: list[VictimNamed] = []
    for step in range(rng.randrange(1, 40)):
        while due and rng.random() < 0.6:
            run.feed(due.pop(rng.randrange(len(due))))
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
            due.append(named(step, rng.choice([node.cgroup.path, None])))
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
        for number, kill in enumerate(run.kills):
            run.feed(Recorded(kill.episode_id, kill.victim_cgroup, number))
    run.settle()
    run.settle()
    assert run.told == kernel.root.subtree - before
    for node in kernel.root.below():
        if node is not kernel.root:
            own = sum(k.kill_count or 0 for k in run.kills if k.victim_cgroup_id == node.cgroup.id)
            assert own <= node.kills
            assert run.correlator.ledger.told(node.cgroup) == node.kills
            assert run.correlator.ledger.accounted(node.cgroup) == node.subtree
    assert run.rows.keys() <= {node.cgroup.id for node in kernel.root.below()}
    counted = [kill for kill in run.kills if kill.kill_count is not None]
    episodes = [(kill.episode_id, kill.victim_cgroup_id) for kill in counted]
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


@pytest.mark.parametrize("answered", ["early", "never"])
def test_a_second_look_that_came_to_nothing_is_asked_for_again(
    kernel: Kernel, answered: str
) -> None:
    """A timer may be called a moment before its time, and a file may be unreadable for once."""
    child = kernel.make(kernel.root, "c")
    run = Run(kernel)
    kernel.kill(child)
    kernel.remove(child)
    run.feed(CgroupRemoved(child.cgroup, kernel.time))
    due = run.correlator.deadline
    assert due is not None
    (question,) = run.correlator.expire(due + 0.001).questions
    if answered == "early":
        run.now = due - 0.0005
        run.feed(*kernel.answer(question))
    else:
        run.now = due
        run.feed(AuditReading(kernel.root.cgroup, ()))
    assert run.told == 0
    run.pass_time(1)
    assert run.told == 1


def test_a_doubt_about_a_cgroup_that_went_meanwhile_is_left_to_the_sum_above(
    kernel: Kernel,
) -> None:
    """A sum may be read, and its cgroup be gone before it is taken in."""
    parent = kernel.make(kernel.root, "p")
    child = kernel.make(parent, "c")
    run = Run(kernel)
    kernel.kill(child)
    late = kernel.answer(Audit(parent.cgroup, {}))[-1]
    for node in (child, parent):
        kernel.remove(node)
        run.feed(CgroupRemoved(node.cgroup, kernel.time))
    run.feed(late)
    run.pass_time(2)
    assert run.told == 1
    assert run.correlator.deadline is None


def test_a_sum_that_leads_its_counter_is_no_residual(kernel: Kernel) -> None:
    """/proc/vmstat rises before the cgroup's counter: seen between the two, it proves nothing."""
    child = kernel.make(kernel.root, "c")
    run = Run(kernel)
    kernel.root.subtree += 1
    for _ in range(3):
        run.feed(*kernel.answer(run.correlator.audit_all(kernel.root.cgroup)))
    kernel.root.subtree -= 1
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.settle()
    assert [kill.victim_cgroup for kill in run.kills] == ["/c"]


def test_a_second_look_at_another_kill_is_a_first_look(kernel: Kernel) -> None:
    """What the first look saw was told meanwhile, and the sum has risen for another reason."""
    parent = kernel.make(kernel.root, "p")
    gone, young = kernel.make(parent, "gone"), kernel.make(parent, "young")
    run = Run(kernel)
    kernel.remove(gone)
    parent.subtree += 1  # young's kill, before its own counter could be read
    run.feed(CgroupRemoved(gone.cgroup, 7))
    young.kills = young.subtree = young.oom = 1
    run.feed(kernel.reading(young))
    parent.subtree += 1  # the same again, in one that is not known yet
    run.pass_time(SETTLE_SECONDS)
    assert [kill.victim_cgroup for kill in run.kills] == ["/p/young"]


def test_a_group_above_the_limit_was_not_killed(kernel: Kernel) -> None:
    """mem_cgroup_get_oom_group looks no higher than the cgroup whose limit was hit."""
    parent = kernel.make(kernel.root, "p", group=True)
    child = kernel.make(parent, "c")
    run = Run(kernel)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    (kill,) = run.kills
    assert kill.group_kill is False


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


def test_a_sum_that_could_not_be_read_at_the_start_is_of_before(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    kernel.kill(child, 3)
    run = Run(Kernel())
    run.kernel, run.correlator = kernel, Correlator(BOOT, Ledger())
    unread = replace(kernel.reading(kernel.root, Sight.BASELINE), subtree_kills=None)
    run.feed(unread, kernel.reading(child, Sight.BASELINE))
    run.feed(Surveyed(frozenset({1, child.cgroup.id}), kernel.root.cgroup, 0))
    run.settle()
    assert run.told == 0
    kernel.kill(child)
    run.settle()
    assert run.told == 1


def test_after_a_restart_the_only_one_seen_to_go_is_not_the_only_suspect(kernel: Kernel) -> None:
    """What else came and went while nobody watched is not known."""
    parent = kernel.make(kernel.root, "p")
    unseen, gone = kernel.make(parent, "unseen"), kernel.make(parent, "gone")
    run = Run(kernel)
    kernel.kill(unseen, 3)
    kernel.remove(unseen)
    run.start(resumed=True)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.kill_count, kill.victim_cgroup, kill.candidates) == (3, None, ("/p/gone",))
    # Once the sums agree again, elimination is good again.
    run.settle()
    later = kernel.make(parent, "later")
    kernel.kill(later)
    kernel.remove(later)
    run.feed(CgroupRemoved(later.cgroup, kernel.time))
    run.pass_time(1)
    assert run.kills[1].victim_cgroup == "/p/later"


def test_a_sum_that_was_read_before_a_kill_clears_nobody(kernel: Kernel) -> None:
    """It lacks the kill that was read since, and may hold another's in its place."""
    parent = kernel.make(kernel.root, "p", group=True)
    gone, other = kernel.make(parent, "gone"), kernel.make(parent, "other")
    run = Run(kernel)
    run.pass_time(1)
    kernel.kill(gone)
    kernel.remove(gone)
    run.correlator.feed(CgroupRemoved(gone.cgroup, kernel.time), run.now)
    stale = SubtreeCount(parent.cgroup, parent.subtree, kernel.time)
    kernel.kill(other, limit=other)
    run.feed(kernel.reading(other))
    run.feed(AuditReading(parent.cgroup, (stale,)))
    kernel.remove(other)
    kernel.kill(other)
    run.feed(CgroupRemoved(other.cgroup, kernel.time))
    run.pass_time(1)
    unnamed = [kill for kill in run.kills if kill.victim_cgroup is None]
    assert [set(kill.candidates) for kill in unnamed] == [{"/p/gone", "/p/other"}]


def test_one_that_came_and_went_before_the_first_look_may_have_been_it(kernel: Kernel) -> None:
    """Below a cgroup that was just made, the only one seen to go is not the only suspect."""
    run = Run(kernel)
    parent = kernel.make(kernel.root, "p")
    unseen = kernel.make(parent, "unseen")
    kernel.kill(unseen)
    kernel.remove(unseen)
    gone = kernel.make(parent, "gone")
    run.feed(kernel.reading(parent), FoundRisen(parent.cgroup), kernel.reading(gone))
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, kernel.time))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.candidates) == (None, ("/p/gone",))
    again = kernel.make(parent, "again")
    run.feed(kernel.reading(again))
    kernel.time += 1_000_000
    run.settle()
    kernel.kill(again)
    kernel.remove(again)
    run.feed(CgroupRemoved(again.cgroup, kernel.time))
    run.pass_time(1)
    assert run.kills[1].victim_cgroup == "/p/again", "once the sums agreed, it is sure again"


def test_who_was_told_by_elimination_is_not_so_again_before_the_sums_agree(
    kernel: Kernel,
) -> None:
    """A kill elsewhere may have stood in for one of its own: nobody can be cleared by that sum."""
    parent = kernel.make(kernel.root, "p")
    gone, busy = kernel.make(parent, "gone"), kernel.make(parent, "busy")
    run = Run(kernel)
    run.pass_time(1)
    kernel.kill(busy, limit=busy)
    run.feed(kernel.reading(busy))
    kernel.kill(gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, kernel.time))
    # Time passes for the timers, and none for the clock that stamps the looks.
    kernel.time -= 1_000_000
    run.pass_time(1)
    parent.subtree += 1
    kernel.root.subtree += 1
    kernel.time -= 2_000_000
    run.settle()
    eliminated, unsure = run.kills[1:]
    assert eliminated.victim_cgroup == "/p/gone"
    assert (unsure.victim_cgroup, unsure.candidates) == (None, ("/p/gone",))


def test_one_made_while_the_tree_was_taken_in_is_told_once(kernel: Kernel) -> None:
    """It was listed, and then its creation is notified: by then all of it may be told already."""
    run = Run(kernel)
    run.correlator = Correlator(BOOT, Ledger(run.rows.values()), resumed=True)
    young, other = kernel.make(kernel.root, "young"), kernel.make(kernel.root, "other")
    kernel.kill(young, 2)
    before = kernel.reading(young, Sight.YOUNG)
    run.feed(kernel.reading(young, Sight.BASELINE))
    kernel.kill(young)
    run.feed(kernel.reading(young))
    kernel.kill(other, 5)
    run.feed(before)
    run.feed(kernel.reading(other))
    run.settle()
    told = [(kill.victim_cgroup, kill.kill_count) for kill in run.kills]
    assert told == [("/young", 2), ("/young", 1), ("/other", 5)]


def test_one_that_was_young_at_the_first_start_is_told_to_the_last_kill(kernel: Kernel) -> None:
    """Its kills are no baseline; what rose since its count was read is told as well."""
    run = Run(kernel)
    young = kernel.make(kernel.root, "young")
    kernel.kill(young, 2)
    before = kernel.reading(young, Sight.YOUNG)
    run.feed(kernel.reading(young, Sight.BASELINE))
    assert run.told == 0
    kernel.kill(young)
    run.feed(kernel.reading(young))
    run.feed(before)
    run.settle()
    assert run.told == 3
    assert run.correlator.ledger.told(young.cgroup) == 3


def test_an_audit_while_the_tree_is_taken_in_makes_no_baseline_of_the_rest(kernel: Kernel) -> None:
    parent, late = kernel.make(kernel.root, "p"), kernel.make(kernel.root, "late")
    moved = kernel.make(parent, "moved")
    run = Run(kernel)
    kernel.kill(moved)
    run.feed(kernel.reading(moved))
    kernel.kill(late)
    moved.counter_id += 1
    run.correlator = Correlator(BOOT, Ledger(run.rows.values()), resumed=True)
    run.feed(kernel.reading(moved, Sight.BASELINE))
    run.feed(kernel.reading(late, Sight.BASELINE))
    ids = frozenset(node.cgroup.id for node in kernel.root.below())
    run.feed(Surveyed(ids, kernel.root.cgroup, 7))
    run.settle()
    assert run.told == 2
    assert run.kills[-1].recovered


def named(pid: int, cgroup: str | None, source: str = "kernel_log", **more: object) -> VictimNamed:
    fields = {"sequence": pid, "time": 6, "seen_time": 9, "detail": "killed"} | more
    return VictimNamed(source=source, victim=Victim(pid=pid), cgroup=cgroup, **fields)  # type: ignore[arg-type]


def expecting(kernel: Kernel) -> Run:
    run = Run(kernel)
    run.correlator.expect(frozenset({"kernel_log"}))
    return run


def test_a_kill_waits_for_its_name_and_no_longer(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    assert run.kills == []
    run.feed(named(7, "/c", limit_cgroup="/c"))
    (kill,) = run.kills
    assert [victim.pid for victim in kill.victims] == [7]
    assert kill.occur_time == 6
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.pass_time(SETTLE_SECONDS * 2)
    assert len(run.kills) == 2
    assert run.kills[1].victims == ()


def test_a_line_that_comes_first_asks_for_the_counter(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(named(7, "/c"))
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.kill_count) == ("/c", 1)
    assert [victim.pid for victim in kill.victims] == [7]


def test_a_line_without_a_count_is_no_kill(kernel: Kernel) -> None:
    kernel.make(kernel.root, "c")
    run = expecting(kernel)
    run.feed(named(7, "/c"))
    run.pass_time(1)
    assert run.events == []


def test_a_late_line_amends_and_never_makes_a_second_kill(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    run.feed(named(7, "/c"))
    assert len(run.kills) == 1
    run.feed(Recorded(kill.episode_id, "/c", 41))
    run.pass_time(1)
    amendment = run.kills[1]
    assert (amendment.amends, amendment.kill_count) == (41, None)
    assert [victim.pid for victim in amendment.victims] == [7]
    run.settle()
    assert run.told == 1


def test_two_witnesses_of_one_victim_are_one_victim(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(named(7, "/c", "tracepoint"))
    run.feed(kernel.reading(child))
    run.feed(named(7, "/c"))
    run.pass_time(1)
    (kill,) = run.kills
    assert len(kill.victims) == 1
    assert [e.source for e in kill.evidence].count("tracepoint") == 1


@pytest.mark.parametrize("seconds", [5, 86400, -3600])
def test_a_witness_that_dates_otherwise_names_no_second_victim(
    kernel: Kernel, seconds: int
) -> None:
    """Whoever read late, or after the clock was set: its line takes no other cgroup's kill."""
    parent = kernel.make(kernel.root, "p")
    child, gone = kernel.make(parent, "c"), kernel.make(parent, "gone")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.feed(replace(named(7, "/p/c", "tracepoint"), time=kernel.time))
    run.pass_time(1)
    run.feed(replace(named(7, "/p/c"), time=kernel.time + seconds * 1_000_000))
    kernel.kill(gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, kernel.time))
    run.pass_time(1)
    assert run.told == 2
    assert run.kills[-1].victim_cgroup == "/p/gone"
    assert sum(k.victim_cgroup == "/p/c" for k in run.kills if k.kill_count) == 1


def test_the_logs_word_outranks_the_counters_hint(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    child = kernel.make(parent, "c")
    run = expecting(kernel)
    parent.oom += 1
    kernel.kill(child, limit=child)
    run.feed(named(7, "/p/c", limit_cgroup="/p"))
    (kill,) = run.kills
    assert (kill.scope, kill.limit_cgroup) == (Scope.ANCESTOR_LIMIT, "/p")
    kernel.kill(child)
    run.feed(named(8, "/p/c", node_wide=True))
    assert run.kills[1].scope is Scope.NODE


def test_a_removed_cgroups_kill_is_told_by_name(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = [kernel.make(parent, name) for name in "ab"]
    run = expecting(kernel)
    kernel.kill(gone[0], limit=gone[0])
    for node in gone:
        kernel.remove(node)
    run.feed(named(7, "/p/a", time=8))
    for node in gone:
        run.feed(CgroupRemoved(node.cgroup, 7))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.confidence) == ("/p/a", Confidence.CONFIRMED)
    assert [victim.pid for victim in kill.victims] == [7]


def test_a_name_from_before_a_cgroup_was_made_is_an_earlier_lifes(kernel: Kernel) -> None:
    """A path had a life that nobody saw; its name is read, and the path is made anew."""
    run = expecting(kernel)
    run.feed(named(7, "/c"))
    run.pass_time(1)
    again = kernel.make(kernel.root, "c", absent_at=run.now)
    run.pass_time(1)
    kernel.kill(again, limit=again)
    run.feed(kernel.reading(again))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.victim_cgroup_id, kill.victims) == (again.cgroup.id, ())
    run.feed(Recorded(kill.episode_id, "/c", 41))
    late = replace(named(6, "/c"), time=0, seen_time=kernel.time)
    run.feed(late, replace(named(8, "/c"), time=kernel.time, seen_time=kernel.time))
    run.pass_time(1)
    amendment = run.kills[1]
    assert (amendment.amends, [v.pid for v in amendment.victims]) == (41, [8])


def test_a_sum_is_not_told_of_a_life_that_began_after_its_kill(kernel: Kernel) -> None:
    again = kernel.make(kernel.root, "c", absent_at=200.0)
    run = expecting(kernel)
    run.now = 201.0
    kernel.root.subtree += 1
    kernel.remove(again)
    run.feed(replace(named(7, "/c"), time=8, seen_time=8_000_000))
    run.feed(CgroupRemoved(again.cgroup, kernel.time))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.victim_cgroup_id) == ("/c", None)
    assert [victim.pid for victim in kill.victims] == [7]


def test_a_sum_is_not_told_of_a_life_whose_counter_had_not_shown_its_kill(kernel: Kernel) -> None:
    """What a counter does not show, though it was read after the kill, is another life's."""
    again = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.root.subtree += 1
    kernel.remove(again)
    run.feed(named(7, "/c", time=8_000_000, seen_time=9_000_000))
    run.feed(CgroupRemoved(again.cgroup, 9_500_000, looked_at=9_000_000))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.victim_cgroup_id) == ("/c", None)
    assert [victim.pid for victim in kill.victims] == [7]


def test_a_name_from_before_a_counters_last_look_is_not_of_its_rise(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    run.feed(named(7, "/c", time=8_000_000, seen_time=9_000_000))
    kernel.time = 9_900_000
    kernel.kill(child, limit=child)
    run.feed(replace(kernel.reading(child), looked_at=9_000_000))
    run.feed(named(8, "/c", time=9_500_000, seen_time=9_900_000))
    (kill,) = run.kills
    assert [victim.pid for victim in kill.victims] == [8]


@pytest.mark.parametrize("seconds", [1, -3600, 86400])
def test_a_removed_cgroups_kill_is_told_by_name_after_the_clock_was_set(
    kernel: Kernel, seconds: int
) -> None:
    kernel.time = 10**15
    parent = kernel.make(kernel.root, "p")
    kept, *gone = (kernel.make(parent, name) for name in ("kept", "a", "b"))
    run = expecting(kernel)
    kernel.kill(kept, limit=kept)
    run.feed(kernel.reading(kept))
    run.feed(named(6, "/p/kept", time=kernel.time))
    run.settle()
    kernel.time += seconds * 1_000_000
    kernel.kill(gone[0], limit=gone[0])
    for node in gone:
        kernel.remove(node)
    run.feed(named(7, "/p/a", time=kernel.time))
    for node in gone:
        run.feed(CgroupRemoved(node.cgroup, kernel.time))
    run.pass_time(1)
    assert run.kills[-1].victim_cgroup == "/p/a"
    assert [victim.pid for victim in run.kills[-1].victims] == [7]
    # And who is next is known by elimination.
    kernel.time += 1_000_000
    run.settle()
    last = kernel.make(parent, "last")
    kernel.kill(last)
    kernel.remove(last)
    run.feed(CgroupRemoved(last.cgroup, kernel.time))
    run.pass_time(61)
    assert run.kills[-1].victim_cgroup == "/p/last"


def test_a_name_is_not_taken_from_a_kill_that_waits_for_another(kernel: Kernel) -> None:
    """Its own counter has shown the one; the sum holds one more, in a cgroup that is gone."""
    here, gone = (kernel.make(kernel.root, name) for name in "ab")
    run = Run(kernel)
    run.correlator.expect(frozenset({"kernel_log", "tracepoint"}))
    kernel.kill(gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.now += SETTLE_SECONDS * 0.9
    kernel.kill(here, limit=here)
    run.feed(named(7, "/a", time=8), kernel.reading(here))
    assert run.kills == []
    run.pass_time(1)
    told = {kill.victim_cgroup: [v.pid for v in kill.victims] for kill in run.kills}
    assert told["/a"] == [7]
    assert run.told == 2
    assert [kill.victim_cgroup for kill in run.kills].count("/a") == 1


def test_a_group_with_its_first_victim_counted_twice(kernel: Kernel) -> None:
    group = kernel.make(kernel.root, "g", group=True)
    run = expecting(kernel)
    kernel.kill(group, 3, limit=group)
    run.feed(kernel.reading(group))
    run.feed(named(7, "/g"), named(7, "/g", repeated=True), named(8, "/g"))
    run.pass_time(1)
    (kill,) = run.kills
    assert kill.kill_count == 3
    assert [victim.pid for victim in kill.victims] == [7, 8]


def test_a_line_of_which_more_is_told_later_is_the_same_line(kernel: Kernel) -> None:
    """`Tasks in X are going to be killed` comes after the first victim's line."""
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(named(7, "/c"), kernel.reading(child))
    (kill,) = run.kills
    run.feed(Recorded(kill.episode_id, "/c", 41))
    run.feed(named(7, "/c"))
    run.pass_time(1)
    assert len(run.kills) == 1  # nothing new
    run.feed(named(7, "/c", group_kill=True, group_cgroup="/c"))
    run.pass_time(1)
    amendment = run.kills[1]
    assert (amendment.amends, amendment.group_kill) == (41, True)
    run.settle()
    assert run.told == 1


def test_a_stray_of_a_group_is_of_no_kill_elsewhere(kernel: Kernel) -> None:
    """Where a group's member lived is not printed, but that it was the group's is."""
    inside = kernel.make(kernel.make(kernel.root, "g"), "c1")
    elsewhere = kernel.make(kernel.root, "other")
    run = expecting(kernel)
    for node in (inside, elsewhere):
        kernel.kill(node, limit=node)
        run.feed(kernel.reading(node))
    run.pass_time(1)
    for number, kill in enumerate(run.kills):
        run.feed(Recorded(kill.episode_id, kill.victim_cgroup, 41 + number))
    run.feed(named(7, None, group_cgroup="/g"), named(8, None))
    run.pass_time(5)
    assert len(run.kills) == 2  # 8 may be of either
    run.feed(named(8, "/other"))
    run.feed(named(9, None, group_cgroup="/nowhere"))
    run.pass_time(5)
    told = {kill.amends: [v.pid for v in kill.victims] for kill in run.kills[2:]}
    assert told == {42: [8], 41: [7]}


def test_a_stray_name_goes_to_the_only_kill_that_lacks_one(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    run.feed(named(7, None))
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.pass_time(1)
    run.feed(Recorded(run.kills[0].episode_id, "/c", 1))
    run.pass_time(5)
    assert [(kill.amends, [v.pid for v in kill.victims]) for kill in run.kills] == [
        (None, []),
        (1, [7]),
    ]


def test_a_name_that_comes_after_an_elimination_amends_it(kernel: Kernel) -> None:
    """And it is not left for the next kill that only the sum shows."""
    parent = kernel.make(kernel.root, "p")
    gone = [kernel.make(parent, name) for name in "ab"]
    run = expecting(kernel)
    for time, node in enumerate(gone):
        kernel.kill(node, limit=node)
        kernel.remove(node)
        run.feed(CgroupRemoved(node.cgroup, 7))
        run.pass_time(1)
        kill = run.kills[-1]
        assert kill.victim_cgroup == node.cgroup.path
        run.feed(Recorded(kill.episode_id, kill.victim_cgroup, time + 1))
        run.feed(named(time, node.cgroup.path, time=1))
        run.pass_time(1)
        assert (run.kills[-1].amends, run.kills[-1].victims[0].pid) == (time + 1, time)
    assert run.told == 2


@pytest.mark.parametrize(
    ("kills", "printed", "sure"),
    [(1, True, Confidence.CONFIRMED), (1, False, Confidence.HIGH), (2, True, Confidence.HIGH)],
)
def test_an_elimination_is_confirmed_by_the_kernels_word_on_all_its_victims(
    kernel: Kernel, kills: int, printed: bool, sure: Confidence
) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = kernel.make(parent, "a")
    run = expecting(kernel)
    for _ in range(kills):
        kernel.kill(gone, limit=gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.pass_time(1)
    assert (run.kills[0].victim_cgroup, run.kills[0].confidence) == ("/p/a", Confidence.HIGH)
    run.feed(Recorded(run.kills[0].episode_id, "/p/a", 1))
    run.feed(named(7, "/p/a", time=1, printed=printed))
    run.pass_time(1)
    assert (run.kills[1].amends, run.kills[1].confidence) == (1, sure)


def test_a_name_that_comes_late_says_which_candidate_it_was(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = [kernel.make(parent, name) for name in "ab"]
    run = expecting(kernel)
    kernel.kill(gone[0], limit=gone[0])
    for node in gone:
        kernel.remove(node)
    for node in gone:
        run.feed(CgroupRemoved(node.cgroup, 7))
    run.pass_time(1)
    assert run.kills[0].candidates == ("/p/a", "/p/b")
    run.feed(Recorded(run.kills[0].episode_id, None, 5))
    run.feed(named(7, "/p/a", time=1))
    run.pass_time(1)
    assert (run.kills[1].amends, run.kills[1].victim_cgroup) == (5, "/p/a")


def test_a_line_of_a_downtime_that_is_read_late_says_where_a_sums_kill_was(kernel: Kernel) -> None:
    """The ring had turned over, and the journal of systemd has it: the cgroup came and went."""
    parent = kernel.make(kernel.root, "p")
    run = expecting(kernel)
    for name in ("unseen", "other"):
        gone = kernel.make(parent, name)
        kernel.kill(gone, limit=gone)
        kernel.remove(gone)
    run.start(resumed=True)
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.kill_count, kill.survivor_cgroup, kill.candidates) == (2, "/p", ())
    run.feed(Recorded(kill.episode_id, None, 5))
    # Neither what is not below it, nor what was written later, nor what is read as it is written.
    run.feed(named(6, "/q/unseen", time=1, recovered=True))
    run.feed(named(7, "/p/later", time=kill.detect_time + 10**7, recovered=True))
    run.feed(named(8, "/p/now", time=1))
    run.pass_time(3)
    assert len(run.kills) == 1
    run.feed(named(9, "/p/unseen", time=1, recovered=True))
    run.pass_time(1)
    run.feed(named(10, "/p/other", time=1, recovered=True))
    run.pass_time(1)
    run.feed(named(11, "/p/a-third", time=1, recovered=True))
    run.pass_time(3)
    told = [(kill.amends, kill.victim_cgroup, kill.victims[0].pid) for kill in run.kills[1:]]
    assert told == [(5, "/p/unseen", 9), (5, "/p/other", 10)]
    assert run.told == 2


def test_names_of_one_sum_keep_their_own_cgroups(kernel: Kernel) -> None:
    """Two kills in cgroups that are gone are told as one sum; their names come one by one."""
    nodes = [kernel.make(kernel.root, name) for name in "ab"]
    run = Run(kernel)
    for node in nodes:
        kernel.kill(node, limit=node)
        kernel.remove(node)
    run.feed(*(CgroupRemoved(node.cgroup, 7) for node in nodes))
    run.pass_time(1)
    (kill,) = run.kills
    assert (kill.kill_count, kill.candidates) == (2, ("/a", "/b"))
    run.feed(Recorded(kill.episode_id, None, 41))
    run.feed(named(7, "/a", limit_cgroup="/a"), named(8, None))
    run.pass_time(5)
    told = {kill.victim_cgroup: [v.pid for v in kill.victims] for kill in run.kills[1:]}
    assert told == {"/a": [7], None: [8]}


def test_an_old_name_without_a_kill_is_not_given_to_a_later_one(kernel: Kernel) -> None:
    parent = kernel.make(kernel.root, "p")
    gone = kernel.make(parent, "gone")
    run = expecting(kernel)
    run.feed(named(7, "/p/other", time=1))
    run.settle()
    kernel.kill(gone, limit=gone)
    kernel.remove(gone)
    run.feed(CgroupRemoved(gone.cgroup, 7))
    run.pass_time(1)
    assert [(kill.victim_cgroup, kill.victims) for kill in run.kills] == [("/p/gone", ())]


def test_a_stray_name_is_not_guessed_while_a_told_kill_lacks_one(kernel: Kernel) -> None:
    children = [kernel.make(kernel.root, name) for name in "ab"]
    run = expecting(kernel)
    kernel.kill(children[0], limit=children[0])
    run.feed(kernel.reading(children[0]))
    run.pass_time(1)
    run.feed(named(1, None))
    kernel.kill(children[1], limit=children[1])
    run.feed(kernel.reading(children[1]))
    run.pass_time(9)
    assert [kill.victims for kill in run.kills] == [(), ()]


def test_a_likely_name_is_taken_where_no_other_claims_its_kill(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(named(7, "/c", certain=False))
    (kill,) = run.kills
    assert [victim.pid for victim in kill.victims] == [7]


def test_two_likely_names_of_one_kill_are_no_name(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    run.feed(named(7, "/c", certain=False), named(8, "/c", certain=False))
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.pass_time(5)
    assert [kill.victims for kill in run.kills] == [()]


def test_a_likely_name_says_nothing_of_a_cgroup_that_is_gone(kernel: Kernel) -> None:
    gone = [kernel.make(kernel.root, name) for name in "ab"]
    run = expecting(kernel)
    kernel.kill(gone[0], limit=gone[0])
    for node in gone:
        kernel.remove(node)
    run.feed(named(7, "/a", time=8, certain=False))
    for node in gone:
        run.feed(CgroupRemoved(node.cgroup, 7))
    run.pass_time(5)
    (kill,) = run.kills
    assert (kill.victim_cgroup, kill.candidates, kill.victims) == (None, ("/a", "/b"), ())


def test_a_stray_may_be_of_a_kill_elsewhere_on_the_host(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = Run(kernel, whole_host=False)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child), named(7, None))
    run.pass_time(5)
    assert [kill.victims for kill in run.kills] == [()]


def test_stray_names_are_not_guessed_between_two_kills(kernel: Kernel) -> None:
    children = [kernel.make(kernel.root, name) for name in "ab"]
    run = expecting(kernel)
    for pid, child in enumerate(children):
        run.feed(named(pid, None))
        kernel.kill(child, limit=child)
        run.feed(kernel.reading(child))
    run.pass_time(9)
    assert [kill.victims for kill in run.kills] == [(), ()]


def test_without_counters_a_name_is_a_kill_and_told_once() -> None:
    correlator = Correlator(BOOT, Ledger(), counted=False)
    for record in (named(7, "/c", "tracepoint"), named(7, "/c"), named(8, "/c"), named(9, None)):
        assert correlator.feed(record, 1.0).events == []
    assert correlator.deadline == pytest.approx(1.0 + SETTLE_SECONDS)
    kills = [e for e in correlator.expire(2.0).events if isinstance(e, OomKill)]
    told = {kill.victim_cgroup: [victim.pid for victim in kill.victims] for kill in kills}
    assert told == {"/c": [7, 8], None: [9]}
    assert sum(kill.kill_count or 0 for kill in kills) == correlator.kills_told == 3
    assert all(kill.confidence is Confidence.CONFIRMED for kill in kills)


def test_lost_records_are_a_gap(kernel: Kernel) -> None:
    run = Run(kernel)
    run.feed(EvidenceLost("kernel_log", "overwritten", 9, 5, 3))
    (gap,) = run.events
    assert isinstance(gap, EvidenceGap)
    assert (gap.source, gap.lost_count, gap.occur_after) == ("kernel_log", 3, 5)


def test_a_counter_that_falls_is_a_gap(kernel: Kernel) -> None:
    child = kernel.make(kernel.root, "c")
    run = Run(kernel)
    kernel.kill(child, 2, limit=child)
    run.feed(kernel.reading(child))
    child.kills = 1
    run.feed(kernel.reading(child))
    assert [type(event) for event in run.events] == [OomKill, EvidenceGap]


def test_a_late_line_is_untold_until_its_amendment(kernel: Kernel) -> None:
    """What a crash would lose is read again; what is in an event is not."""
    child = kernel.make(kernel.root, "c")
    run = expecting(kernel)
    kernel.kill(child, limit=child)
    run.feed(kernel.reading(child))
    run.pass_time(SETTLE_SECONDS * 2)
    (kill,) = run.kills
    run.feed(Recorded(kill.episode_id, "/c", 17))
    run.feed(named(7, "/c", span=LogSpan("kmsg", 40, 44)), LogRead("kmsg", 45, 50))
    place = run.correlator.take_changes(run.now, told=True).log
    assert place is not None
    assert (place.begin, place.next, place.untold) == (40, 50, (44,))
    run.pass_time(SETTLE_SECONDS * 2)
    assert run.kills[-1].amends == 17
    place = run.correlator.take_changes(run.now, told=True).log
    assert place is not None
    assert (place.begin, place.untold) == (45, ())


def test_a_name_that_finds_no_kill_is_not_waited_for_for_ever(kernel: Kernel) -> None:
    run = expecting(kernel)
    run.feed(named(7, None, span=LogSpan("kmsg", 40, 44)), LogRead("kmsg", 45, 50))
    place = run.correlator.take_changes(run.now, told=True).log
    assert place is not None
    assert place.untold == (44,)
    run.pass_time(KEEP_SECONDS + 1)
    place = run.correlator.take_changes(run.now, told=True).log
    assert place is not None
    assert place.untold == ()


def test_no_place_is_kept_before_the_first_look_is_over() -> None:
    """To have one makes the boot known, and what a counter shows beyond the ledger new."""
    correlator = Correlator(BOOT, Ledger())
    correlator.feed(LogRead("kmsg", 45, 50, keep=True), 1)
    assert correlator.take_changes(1, told=True).log is None


def test_of_a_paths_lives_in_a_downtime_the_one_that_is_there_was_the_last(kernel: Kernel) -> None:
    run = Run(kernel)
    old = kernel.make(kernel.root, "c")
    kernel.kill(old)
    kernel.remove(old)
    new = kernel.make(kernel.root, "c")
    kernel.kill(new)
    run.correlator = Correlator(BOOT, Ledger(run.rows.values()), resumed=True)
    run.feed(*(named(pid, "/c", time=pid * 10**7, recovered=True) for pid in (7, 8)))
    run.feed(kernel.reading(kernel.root, Sight.BASELINE), kernel.reading(new, Sight.BASELINE))
    ids = frozenset(node.cgroup.id for node in kernel.root.below())
    run.feed(Surveyed(ids, kernel.root.cgroup, 7))
    run.settle()
    told = {victim.pid: kill.victim_cgroup_id for kill in run.kills for victim in kill.victims}
    assert told == {7: None, 8: new.cgroup.id}
    assert run.told == 2
