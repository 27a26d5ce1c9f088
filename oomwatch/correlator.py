"""Joins what the witnesses saw into events: one per kill episode and victim cgroup.

Pure: observations and the time in, events and questions out; no clock, no I/O, no await.

    feed(observation, now) ──▶ Outcome(events, questions)
    expire(now)            ──▶ Outcome(events, questions)

A counter that rose opens a `_Pending` kill and asks for the victim's lineage (`Describe`); the
answer says whose limit it was. A kill of a group (memory.oom.group) settles for a moment, since the
kernel kills the members one after the other; any other is told at once. Telling books the kill in
the ledger, and the caller commits `ledger.take_changes()` with the events: that transaction is what
makes a crash lose nothing and double nothing.

`now` is monotonic, in seconds; times inside observations are microseconds of wall time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatchmethod

from oomwatch.attribution import UNKNOWN, Attribution, attribute
from oomwatch.events import (
    Cgroup,
    Confidence,
    Constraint,
    Event,
    Evidence,
    EvidenceGap,
    MemoryUsage,
    OomKill,
    Scope,
)
from oomwatch.ledger import Ledger
from oomwatch.observations import (
    Audit,
    AuditReading,
    CgroupRemoved,
    CounterReading,
    Describe,
    LineageReading,
    Measure,
    Observation,
    Question,
    Sight,
    Surveyed,
    UsageReading,
)
from oomwatch.residuals import Residual, Residuals

SETTLE_SECONDS = 0.025
"""How long a group kill, or a residual, is given before it is looked at again."""

SETTLE_LIMIT_SECONDS = 0.5
"""The longest that a kill is held back while its group is still being killed."""

EPISODE_SECONDS = 0.1
"""A kill in the same group this soon after the last one belongs to the same episode."""

HINT_SECONDS = 5.0
"""A rise of `oom` without a kill for this long is taken for what it was: a failed attempt."""

MAX_CANDIDATES = 64
"""Candidates named in one event; the rest are counted."""


@dataclass(slots=True)
class Outcome:
    """What to journal, in order, and what to ask the sources now."""

    events: list[Event] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


@dataclass(slots=True)
class _Pending:
    """A rise that was seen and is not told yet."""

    cgroup: Cgroup
    counter_id: int
    count: int
    first: CounterReading
    told_before: int
    opened: float
    last_rise: float
    recovered: bool
    deadline: float | None = None
    measuring: bool = False
    attribution: Attribution | None = None
    usage: MemoryUsage | None = None


@dataclass(slots=True)
class _Episode:
    """A group kill in progress: what its members share."""

    id: str
    attribution: Attribution
    active_until: float
    members: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Hint:
    """An `oom` that rose, waiting for its kill."""

    cgroup: Cgroup
    oom: int
    expires: float


class Correlator:
    """Turns observations into events, by way of the ledger.

    `resumed` says that the ledger was persisted earlier in this same boot: then a count beyond it
    is not a baseline but what happened while nobody watched, and is told as `recovered`.
    """

    def __init__(
        self,
        boot_id: str,
        ledger: Ledger,
        *,
        resumed: bool = False,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.ledger = ledger
        self.kills_told = 0
        self._boot = boot_id[:8]
        self._resumed = resumed
        self._settle_seconds = settle_seconds
        self._residuals = Residuals(settle_seconds)
        self._pending: dict[int, _Pending] = {}
        self._episodes: dict[int, _Episode] = {}
        self._hints: dict[int, _Hint] = {}
        self._revealed: dict[int, CounterReading] = {}

    def feed(self, observation: Observation, now: float) -> Outcome:
        """Take in one observation."""
        outcome = Outcome()
        self._take(observation, now, outcome)
        return outcome

    def expire(self, now: float) -> Outcome:
        """Do what has become due; call at `deadline`."""
        outcome = Outcome()
        for pending in [p for p in self._pending.values() if p.deadline and p.deadline <= now]:
            pending.deadline = None
            outcome.questions.append(Describe(pending.cgroup))
        for cgroup in self._residuals.take_due(now):
            outcome.questions.append(self._audit(cgroup))
        for hint in [h for h in self._hints.values() if h.expires <= now]:
            del self._hints[hint.cgroup.id]
            self.ledger.rebase(hint.cgroup, oom=hint.oom)
        for cgroup_id in [i for i, e in self._episodes.items() if e.active_until <= now]:
            del self._episodes[cgroup_id]
        return outcome

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next, monotonic seconds; `None` while nothing is open."""
        due = [p.deadline for p in self._pending.values() if p.deadline is not None]
        due += [hint.expires for hint in self._hints.values()]
        if self._residuals.deadline is not None:
            due.append(self._residuals.deadline)
        return min(due, default=None)

    @singledispatchmethod
    def _take(self, observation: Observation, now: float, outcome: Outcome) -> None:
        raise TypeError(f"no observation: {observation!r}")

    # Counters

    @_take.register
    def _counter(self, reading: CounterReading, now: float, outcome: Outcome) -> None:
        if reading.sight is Sight.BASELINE and not self._resumed:
            self._baseline(reading)
            return
        row = self.ledger.row(reading.cgroup)
        moved = row.counter_id not in (0, reading.counter_id)
        if reading.sight is Sight.REVEALED or moved:
            self._reveal(reading, now, outcome)
            return
        self._note_oom(reading, now)
        self._rise(reading, now, outcome)

    def _baseline(self, reading: CounterReading) -> None:
        """What was counted before our first look is old: told never, but known."""
        local = reading.local
        self.ledger.rebase(
            reading.cgroup,
            counter_id=reading.counter_id,
            told=local.oom_kill or 0,
            accounted=reading.subtree_kills or 0,
            oom=local.oom or 0,
            group_kill=local.oom_group_kill or 0,
        )

    def _note_oom(self, reading: CounterReading, now: float) -> None:
        oom = reading.local.oom
        if oom is not None and oom > self.ledger.row(reading.cgroup).oom:
            hint = self._hints.get(reading.cgroup.id)
            if hint is None or oom > hint.oom:
                self._hints[reading.cgroup.id] = _Hint(reading.cgroup, oom, now + HINT_SECONDS)

    def _rise(self, reading: CounterReading, now: float, outcome: Outcome) -> None:
        cgroup, count = reading.cgroup, reading.local.oom_kill
        if count is None:
            return
        pending = self._pending.get(cgroup.id)
        told = self.ledger.told(cgroup)
        rise = count - told - (pending.count if pending else 0)
        if rise < 0:
            self._went_back(reading, told, outcome)
        elif rise > 0 and pending is not None:
            pending.count += rise
            pending.last_rise = now
        elif rise > 0:
            self._pending[cgroup.id] = _Pending(
                cgroup=cgroup,
                counter_id=reading.counter_id,
                count=rise,
                first=reading,
                told_before=told,
                opened=now,
                last_rise=now,
                recovered=self._resumed and reading.sight is Sight.BASELINE,
            )
            outcome.questions.append(Describe(cgroup))

    def _went_back(self, reading: CounterReading, told: int, outcome: Outcome) -> None:
        """A counter never falls on a kernel; whatever this is, say so and go on from here."""
        count = reading.local.oom_kill or 0
        self._pending.pop(reading.cgroup.id, None)
        self.ledger.rebase(reading.cgroup, told=count, counter_id=reading.counter_id)
        outcome.events.append(
            EvidenceGap(
                episode_id=f"{self._boot}-gap-{reading.cgroup.id:x}-{reading.time:x}",
                detect_time=reading.time,
                source=reading.source,
                reason=f"oom_kill went back from {told} to {count}: kills between are not known",
                cgroup=reading.cgroup.path,
                occur_after=reading.looked_at,
            )
        )

    # Whose limit, and together with whom

    @_take.register
    def _lineage(self, reading: LineageReading, now: float, outcome: Outcome) -> None:
        for member in reading.members:
            self._counter(member.reading, now, outcome)
        pending = self._pending.get(reading.cgroup.id)
        if pending is None:
            return
        pending.usage = reading.usage or pending.usage
        if pending.attribution is None or pending.attribution.limit is None:
            # `oom` rises before the kill, so the first answer is right, and a later one may find
            # that another kill of the same group has claimed the rise.
            pending.attribution = attribute(reading, self.ledger)
        if pending.attribution.group is not None and self._still_settling(pending, now):
            pending.deadline = now + self._settle_seconds
            return
        limit = pending.attribution.limit
        if limit is not None and limit is not pending.cgroup:
            pending.measuring = True
            pending.deadline = now + SETTLE_LIMIT_SECONDS
            outcome.questions.append(Measure(limit))
        else:
            self._tell(pending, now, outcome)

    def _still_settling(self, pending: _Pending, now: float) -> bool:
        quiet = now - pending.last_rise >= self._settle_seconds * 0.9
        return not quiet and now - pending.opened < SETTLE_LIMIT_SECONDS

    @_take.register
    def _usage(self, reading: UsageReading, now: float, outcome: Outcome) -> None:
        for pending in list(self._pending.values()):
            said = pending.attribution
            if pending.measuring and said is not None and said.limit is reading.cgroup:
                pending.usage = reading.usage or pending.usage
                self._tell(pending, now, outcome)

    def _tell(self, pending: _Pending, now: float, outcome: Outcome) -> None:
        del self._pending[pending.cgroup.id]
        said, episode_id = self._episode(pending, now)
        first, after = pending.first, pending.told_before + pending.count
        evidence = [
            Evidence(
                source=first.source,
                time=first.time,
                detail=f"oom_kill {pending.told_before} -> {after} in {pending.cgroup.path}",
            )
        ]
        if said.limit is not None:
            evidence.append(
                Evidence(
                    source=first.source,
                    time=first.time,
                    detail=f"oom {said.limit_from} -> {said.limit_to} in {said.limit.path}",
                )
            )
        self._attribute(said, pending.count)
        outcome.events.append(
            OomKill(
                episode_id=episode_id,
                detect_time=first.time,
                occur_after=first.looked_at,
                recovered=pending.recovered,
                scope=self._scope(said, pending.cgroup),
                confidence=Confidence.CONFIRMED,
                kill_count=pending.count,
                victim_cgroup=pending.cgroup.path,
                victim_cgroup_id=pending.cgroup.id,
                limit_cgroup=said.limit.path if said.limit is not None else None,
                group_kill=said.group_kill,
                constraint=Constraint.MEMCG if said.limit is not None else None,
                memory=pending.usage,
                evidence=tuple(evidence),
            )
        )
        self.ledger.tell(pending.cgroup, pending.count, pending.counter_id)
        self.kills_told += pending.count

    def _episode(self, pending: _Pending, now: float) -> tuple[Attribution, str]:
        """Return what is known of the kill, shared with the group that is killed along with it."""
        said = pending.attribution or UNKNOWN
        episode_id = (
            f"{self._boot}-{pending.cgroup.id:x}-{pending.counter_id:x}-{pending.told_before + 1}"
        )
        if said.group is None:
            return said, episode_id
        episode = self._episodes.get(said.group.id)
        if episode is None or episode.active_until <= now or pending.cgroup.id in episode.members:
            episode = self._episodes[said.group.id] = _Episode(episode_id, said, now)
        elif said.limit is None:
            said = episode.attribution
        episode.members.add(pending.cgroup.id)
        episode.active_until = now + EPISODE_SECONDS
        return said, episode.id

    @staticmethod
    def _scope(said: Attribution, victim: Cgroup) -> Scope:
        if said.limit is None:
            return said.scope
        return Scope.CONTAINER_LIMIT if said.limit is victim else Scope.ANCESTOR_LIMIT

    def _attribute(self, said: Attribution, kills: int) -> None:
        """Book the rise of `oom` as far as this kill explains it; the rest may be another's."""
        if said.group is not None and said.group_count is not None:
            self.ledger.rebase(said.group, group_kill=said.group_count)
        if said.limit is None:
            return
        claimed = min(self.ledger.row(said.limit).oom + kills, said.limit_to)
        self.ledger.rebase(said.limit, oom=claimed)
        hint = self._hints.get(said.limit.id)
        if hint is not None and hint.oom <= claimed:
            del self._hints[said.limit.id]

    # Cgroups that went, and what only their ancestors still know

    @_take.register
    def _removed(self, observation: CgroupRemoved, now: float, outcome: Outcome) -> None:
        cgroup = observation.cgroup
        pending = self._pending.get(cgroup.id)
        if pending is not None:
            self._tell(pending, now, outcome)
        self._residuals.removed(cgroup)
        self._hints.pop(cgroup.id, None)
        self._episodes.pop(cgroup.id, None)
        self._revealed.pop(cgroup.id, None)
        self.ledger.forget(cgroup)
        if cgroup.parent is not None:
            outcome.questions.append(self._audit(cgroup.parent))

    @_take.register
    def _surveyed(self, observation: Surveyed, now: float, outcome: Outcome) -> None:
        self.ledger.forget_all_but(observation.cgroup_ids)
        outcome.questions.append(self._audit(observation.root))

    def audit_all(self, root: Cgroup) -> Question:
        """Ask for an audit of the whole tree: one file is read where nothing is amiss."""
        return self._audit(root)

    def _audit(self, cgroup: Cgroup) -> Audit:
        return Audit(cgroup, self.ledger.accounted_by_id)

    @_take.register
    def _audited(self, reading: AuditReading, now: float, outcome: Outcome) -> None:
        for revealed in [r for r in self._revealed.values() if self._covers(reading, r.cgroup)]:
            self._settle_revealed(revealed, reading, now, outcome)
        below: dict[int, int] = {}
        for count in reversed(reading.counts):
            survivor = count.cgroup
            untold = count.subtree_kills - self.ledger.accounted(survivor)
            untold -= self._pending_below(survivor)
            own = untold - below.get(survivor.id, 0)
            residual = self._residuals.look(survivor, own, now)
            if residual is not None:
                outcome.events.append(self._tell_residual(residual, count.time))
                own -= residual.kills
            for ancestor in survivor.lineage():
                below[ancestor.id] = below.get(ancestor.id, 0) + max(own, 0)
        if not self._residuals.deadline:
            self._resumed = False

    def _tell_residual(self, residual: Residual, time: int) -> OomKill:
        survivor, kills, suspects = residual.survivor, residual.kills, residual.suspects
        accounted, omitted = self.ledger.accounted(survivor), residual.suspects_omitted
        single = suspects[0] if len(suspects) == 1 and not omitted else None
        detail = (
            f"oom_kill {accounted} -> {accounted + kills} below {survivor.path}, "
            "and no cgroup that is left there accounts for it"
        )
        if single is not None:
            detail += f"; {single.path} alone was removed meanwhile"
        named = () if single is not None else tuple(c.path for c in suspects[:MAX_CANDIDATES])
        omitted += len(suspects) - len(named) if single is None else 0
        self.ledger.tell_below(survivor, kills)
        self.kills_told += kills
        return OomKill(
            episode_id=f"{self._boot}-{survivor.id:x}-below-{accounted + 1}",
            detect_time=time,
            recovered=self._resumed,
            scope=Scope.UNKNOWN,
            confidence=Confidence.HIGH if single is not None else Confidence.CONFIRMED,
            kill_count=kills,
            victim_cgroup=single.path if single is not None else None,
            victim_cgroup_id=single.id if single is not None else None,
            survivor_cgroup=survivor.path,
            candidates=named,
            candidates_omitted=omitted or None,
            evidence=(Evidence(source="memory_events", time=time, detail=detail),),
        )

    def _pending_below(self, survivor: Cgroup) -> int:
        return sum(p.count for p in self._pending.values() if survivor in p.cgroup.lineage())

    # Counters whose file is another one than before

    def _reveal(self, reading: CounterReading, now: float, outcome: Outcome) -> None:
        """Hold a reading of a counter that may have started anew until its parent was read."""
        self._revealed[reading.cgroup.id] = reading
        pending = self._pending.get(reading.cgroup.id)
        if pending is not None:
            self._tell(pending, now, outcome)
        outcome.questions.append(self._audit(reading.cgroup.parent or reading.cgroup))

    @staticmethod
    def _covers(reading: AuditReading, cgroup: Cgroup) -> bool:
        return reading.asked in cgroup.lineage()

    def _settle_revealed(
        self, reading: CounterReading, audit: AuditReading, now: float, outcome: Outcome
    ) -> None:
        """Tell of a revealed counter at most what its nearest counted ancestor has untold."""
        cgroup = reading.cgroup
        del self._revealed[cgroup.id]
        counts = {count.cgroup.id: count.subtree_kills for count in audit.counts}
        local = reading.local.oom_kill or 0
        claim = 0
        for ancestor in cgroup.lineage():
            if ancestor is not cgroup and ancestor.id in counts:
                untold = counts[ancestor.id] - self.ledger.accounted(ancestor)
                claim = max(0, min(local, untold - self._pending_below(ancestor)))
                break
        subtree = reading.subtree_kills if reading.subtree_kills is not None else local
        self.ledger.rebase(
            cgroup,
            counter_id=reading.counter_id,
            told=local - claim,
            accounted=max(subtree - claim, local - claim),
            oom=max((reading.local.oom or 0) - claim, 0),
            group_kill=reading.local.oom_group_kill or 0,
        )
        self._rise(reading, now, outcome)
