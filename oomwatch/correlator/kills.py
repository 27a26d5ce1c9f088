"""Kills that were seen and are not told yet: whose limit, together with whom, and when to tell.

A counter that rose opens a kill and asks for the victim's lineage (`Describe`); the answer says
whose limit it was. A kill of a group (memory.oom.group) settles for a moment, since the kernel
kills the members one after the other; any other is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oomwatch.correlator.amendments import Amendments
from oomwatch.correlator.attribution import UNKNOWN, Attribution, attribute
from oomwatch.correlator.names import Name, Names
from oomwatch.correlator.pending_kills import Pending, PendingKills
from oomwatch.correlator.testimony import with_names
from oomwatch.events import (
    Cgroup,
    Confidence,
    Constraint,
    Event,
    Evidence,
    EvidenceGap,
    OomKill,
    Scope,
)
from oomwatch.ledger import Ledger
from oomwatch.observations import (
    CounterReading,
    Describe,
    LineageReading,
    Measure,
    Question,
    UsageReading,
)

SETTLE_SECONDS = 0.025
"""How long a group kill, or a residual, is given before it is looked at again."""

SETTLE_LIMIT_SECONDS = 0.5
"""The longest that a kill is held back while its group is still being killed."""

EPISODE_SECONDS = 1.0
"""A kill in another cgroup of a group this soon after the last one belongs to the same episode. The
kernel is done in milliseconds; a busy host may wake us a good deal later for one than another."""

HINT_SECONDS = 5.0
"""A rise of `oom` without a kill for this long is taken for what it was: a failed attempt."""


@dataclass(slots=True)
class Outcome:
    """What to journal, in order, and what to ask the sources now."""

    events: list[Event] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


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


class OpenKills:
    """The kills between their first sight and their telling, which books them in the ledger."""

    def __init__(self, boot: str, ledger: Ledger, names: Names, settle_seconds: float) -> None:
        self.told = 0
        self.naming: frozenset[str] = frozenset()
        self.amendments = Amendments(settle_seconds)
        self._names = names
        self._boot = boot
        self._ledger = ledger
        self._settle_seconds = settle_seconds
        self._pending = PendingKills()
        self._episodes: dict[int, _Episode] = {}
        self._hints: dict[int, _Hint] = {}

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while nothing is open."""
        due = [p.deadline for p in self._pending if p.deadline is not None]
        due += [hint.expires for hint in self._hints.values()]
        return min(due, default=None)

    def expire(self, now: float, outcome: Outcome) -> None:
        """Look again at what has settled, and forget attempts that had no kill."""
        for pending in self._pending:
            if pending.deadline is not None and pending.deadline <= now:
                pending.deadline = None
                pending.measuring = False
                outcome.questions.append(Describe(pending.cgroup, self._ledger.oom_by_id))
        for hint in [h for h in self._hints.values() if h.expires <= now]:
            del self._hints[hint.cgroup.id]
            self._ledger.rebase(hint.cgroup, oom=hint.oom)
        for cgroup_id in [i for i, e in self._episodes.items() if e.active_until <= now]:
            del self._episodes[cgroup_id]

    def count_below(self, survivor: Cgroup) -> int:
        """Kills that are open in a cgroup and below it."""
        below = self._pending.below(survivor.path)
        return sum(p.count for p in below if survivor in p.cgroup.lineage())

    def below(self, path: str) -> list[Cgroup]:
        """Return the cgroups at and below a path in which a kill is open."""
        return [pending.cgroup for pending in self._pending.below(path)]

    def awaits(self, name: Name) -> bool:
        """Is a kill in the cgroup of this name about to be told, which may be its own?"""
        return any(pending.may_be(name) for pending in self._pending.below(name.cgroup))

    def close(self, cgroup: Cgroup, now: float, outcome: Outcome) -> None:
        """Tell what is open in a cgroup as it is known now: nothing more can be read of it."""
        pending = self._pending.get(cgroup.id)
        if pending is not None:
            self._tell(pending, now, outcome)

    def forget(self, cgroup: Cgroup) -> None:
        """Drop what was kept about a removed cgroup."""
        self._hints.pop(cgroup.id, None)
        self._episodes.pop(cgroup.id, None)

    def note_oom(self, reading: CounterReading, now: float) -> None:
        """Keep a rise of `oom` in mind: its kill is due, or it was an attempt without one."""
        oom = reading.local.oom
        if oom is not None and oom > self._ledger.oom(reading.cgroup):
            hint = self._hints.get(reading.cgroup.id)
            if hint is None or oom > hint.oom:
                self._hints[reading.cgroup.id] = _Hint(reading.cgroup, oom, now + HINT_SECONDS)

    def rise(
        self, reading: CounterReading, now: float, outcome: Outcome, *, recovered: bool = False
    ) -> None:
        """Open a kill if the counter shows more than was told, or add to the one that is open."""
        cgroup, count = reading.cgroup, reading.local.oom_kill
        if count is None:
            return
        pending = self._pending.get(cgroup.id)
        told = self._ledger.told(cgroup)
        rise = count - told - (pending.count if pending else 0)
        if rise < 0:
            self._went_back(reading, told, outcome)
        elif rise > 0 and pending is not None:
            pending.count += rise
            pending.last_rise = now
        elif rise > 0:
            self._pending.add(
                Pending(
                    cgroup=cgroup,
                    counter_id=reading.counter_id,
                    count=rise,
                    first=reading,
                    told_before=told,
                    opened=now,
                    last_rise=now,
                    recovered=recovered,
                )
            )
            outcome.questions.append(Describe(cgroup, self._ledger.oom_by_id))

    def _went_back(self, reading: CounterReading, told: int, outcome: Outcome) -> None:
        """A counter never falls on a kernel; whatever this is, say so and go on from here."""
        count = reading.local.oom_kill or 0
        self._pending.remove(reading.cgroup.id)
        self._ledger.rebase(reading.cgroup, told=count, counter_id=reading.counter_id)
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

    def described(self, reading: LineageReading, now: float, outcome: Outcome) -> None:
        """Take in a victim's lineage; its counters must have been fed before."""
        pending = self._pending.get(reading.cgroup.id)
        if pending is None:
            return
        pending.usage = reading.usage or pending.usage
        if pending.attribution is None or pending.attribution.limit is None:
            # `oom` rises before the kill, so the first answer is right, and a later one may find
            # that another kill of the same group has claimed the rise.
            pending.attribution = attribute(reading, self._ledger)
        self._advance(pending, now, outcome)

    def named(self, name: Name, now: float, outcome: Outcome) -> bool:
        """Take in a name; False if no kill is open that it could be of."""
        for pending in self._pending.below(name.cgroup):
            if pending.may_be(name):
                self._advance(pending, now, outcome)
                return True
        return False

    def _advance(self, pending: Pending, now: float, outcome: Outcome) -> None:
        """Tell a kill, unless there is still something to wait for."""
        said = pending.attribution
        if said is None or pending.measuring:
            return
        if said.group is not None and self._still_settling(pending, now):
            pending.deadline = now + self._settle_seconds
        elif said.limit not in (None, pending.cgroup) and not pending.measured:
            assert said.limit is not None
            pending.measuring = True
            pending.deadline = now + SETTLE_LIMIT_SECONDS
            outcome.questions.append(Measure(said.limit))
        elif self._waits_for_names(pending, now):
            pending.deadline = pending.opened + self._settle_seconds
        else:
            self._tell(pending, now, outcome)

    def adopt(self, strays: list[Name], now: float) -> None:
        """Give names of nowhere to the one kill that lacks as many, when all has come to rest."""
        if not self._pending:
            self.amendments.adopt(strays, now)

    def _waits_for_names(self, pending: Pending, now: float) -> bool:
        """Is a witness due that has not named every victim, and the moment not over yet?"""
        if not self.naming or now - pending.opened >= self._settle_seconds * 0.9:
            return False
        names = self._names.unclaimed(pending.cgroup, pending.counted)
        named = (sum(n.kills for n in names if n.named_by(source)) for source in self.naming)
        return any(kills < pending.count for kills in named)

    def _claim(self, pending: Pending) -> list[Name]:
        """Take the names of this kill, as far as they have come.

        A path may have had several lives while nobody watched: the one that is there was the last.
        """
        names = self._names.unclaimed(pending.cgroup, pending.counted)
        if pending.recovered:
            mine = self._names.first(names[::-1], pending.count)[::-1]
        else:
            mine = self._names.first(names, pending.count)
        for name in mine:
            name.claimed = True
        return mine

    def _still_settling(self, pending: Pending, now: float) -> bool:
        quiet = now - pending.last_rise >= self._settle_seconds * 0.9
        return not quiet and now - pending.opened < SETTLE_LIMIT_SECONDS

    def measured(self, reading: UsageReading, now: float, outcome: Outcome) -> None:
        """Take in the figures of a limit's cgroup, and tell the kills that waited for them."""
        for pending in list(self._pending):
            said = pending.attribution
            if pending.measuring and said is not None and said.limit is reading.cgroup:
                pending.usage = reading.usage or pending.usage
                pending.measuring, pending.measured = False, True
                self._advance(pending, now, outcome)

    def _tell(self, pending: Pending, now: float, outcome: Outcome) -> None:
        self._pending.remove(pending.cgroup.id)
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
        names = self._claim(pending)
        event = with_names(
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
            ),
            names,
        )
        outcome.events.append(event)
        if self.naming:
            self.amendments.told(event, names, now, pending.cgroup)
        self._ledger.tell(pending.cgroup, pending.count, pending.counter_id)
        self.told += pending.count

    def _episode(self, pending: Pending, now: float) -> tuple[Attribution, str]:
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
            self._ledger.rebase(said.group, group_kill=said.group_count)
        if said.limit is None:
            return
        claimed = min(self._ledger.oom(said.limit) + kills, said.limit_to)
        self._ledger.rebase(said.limit, oom=claimed)
        hint = self._hints.get(said.limit.id)
        if hint is not None and hint.oom <= claimed:
            del self._hints[said.limit.id]
