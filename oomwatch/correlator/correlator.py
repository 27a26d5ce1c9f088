"""Joins what the witnesses saw into events: one per kill episode and victim cgroup.

Pure: observations and the time in, events and questions out; no clock, no I/O, no await.

    feed(observation, now) ──▶ Outcome(events, questions)
    expire(now)            ──▶ Outcome(events, questions)

Telling a kill books it in the ledger, and the caller commits `take_changes()` with the
events: that transaction is what makes a crash lose nothing and double nothing.

`now` is monotonic, in seconds; times inside observations are microseconds of wall time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from oomwatch.containers.registry import Containers
from oomwatch.correlator import main_processes
from oomwatch.correlator.exits import Exits
from oomwatch.correlator.held_counters import HeldCounters
from oomwatch.correlator.kills import SETTLE_SECONDS, OpenKills, Outcome
from oomwatch.correlator.log_progress import LogProgress
from oomwatch.correlator.logged import LoggedKills
from oomwatch.correlator.lost_ends import LostEnds
from oomwatch.correlator.names import Name, Names
from oomwatch.correlator.owned_kills import OwnedKills
from oomwatch.correlator.ownership import Ownership
from oomwatch.correlator.recall import recall
from oomwatch.correlator.residents import Residents
from oomwatch.correlator.residual_kills import ResidualKills
from oomwatch.correlator.residuals import Residuals
from oomwatch.correlator.runtime_words import RuntimeWords
from oomwatch.events import Cgroup, Entry, EvidenceGap
from oomwatch.ledger import Ledger, LedgerChange
from oomwatch.observations import (
    Audit,
    AuditReading,
    CgroupRemoved,
    ClockStepped,
    ContainerEnded,
    ContainerSeen,
    CounterReading,
    EvidenceLost,
    ExitFound,
    FoundRisen,
    LastLookReading,
    LineageReading,
    LogRead,
    Look,
    Observation,
    ProcessesSeen,
    Question,
    Recorded,
    RuntimeOom,
    SandboxLogRead,
    SandboxSeen,
    Sight,
    SignalledByKiller,
    Surveyed,
    UsageReading,
    UsageSampled,
    VictimNamed,
)

STRAY_SECONDS = 2.0
"""How long after the last name without a cgroup it is asked whose it was."""


class Correlator:
    """Turns observations into events, by way of the ledger.

    `resumed` says that the ledger was persisted earlier in this same boot: then a count beyond it
    is not a baseline but what happened while nobody watched, and is told as `recovered`. `counted`
    is False where no counter can be read: then a witness's word is a kill by itself. `whole_host`
    is False where only a part of it is watched: a name of nowhere may then be of a kill elsewhere.
    """

    def __init__(
        self,
        boot_id: str,
        ledger: Ledger,
        *,
        resumed: bool = False,
        counted: bool = True,
        whole_host: bool = True,
        settle_seconds: float = SETTLE_SECONDS,
        containers: Containers | None = None,
    ) -> None:
        self.ledger = ledger
        self.containers = containers or Containers()
        self._boot = boot_id[:8]
        self._resumed = self._continues = resumed
        self._settle_seconds = settle_seconds
        self._whole_host = whole_host
        self._names = Names()
        self._residents = Residents()
        self._kills = OpenKills(self._boot, ledger, self._names, settle_seconds)
        owned = OwnedKills(settle_seconds)
        self._words = RuntimeWords(self.containers, owned, self._kills.amendments.reported)
        self._ownership = Ownership(self.containers, owned, self._words)
        self._log = LogProgress()
        self._root: Cgroup | None = None
        self._unsummed = False
        """Could the root's sum not be read as a baseline?"""
        self._unwatched_until: int | None = None
        """Until all that went while nobody watched is known."""
        self._unclaimed_due: float | None = None
        self._strays_due: float | None = None
        self._logged = None if counted else LoggedKills(self._boot, settle_seconds)
        self._held = HeldCounters(self._boot, ledger, self._kills)
        self._residuals = Residuals(settle_seconds)
        self._residual_kills = ResidualKills(self._boot, ledger, self._names)
        self.exits = Exits(
            self._boot,
            self.containers,
            self._kills,
            self._residuals,
            name=self._ownership.name,
            counted=counted,
        )
        self._first = True
        self._baselines: set[int] = set()
        self._lost_ends = LostEnds(self.containers.lives)
        self._early: list[ContainerEnded] = []

    def feed(self, observation: Observation, now: float) -> Outcome:
        """Take in one observation."""
        outcome = Outcome()
        if self._first:
            # Of lives from before a restart nobody may speak again.
            self._first = False
            for life in self.containers.lives.running():
                outcome.questions += self.exits.watched(life)
            outcome.questions += self.exits.sought()
            if self._logged is not None:
                self.exits.reopen(now, outcome)
        self._take(observation, now, outcome)
        self.exits.advance(now, outcome)
        if isinstance(observation, AuditReading) and outcome.events:
            # A runtime's word may have come before the sum in which its kill is.
            self._place_words(now)
        return outcome

    def expire(self, now: float) -> Outcome:
        """Do what has become due; call at `deadline`."""
        outcome = Outcome()
        self._kills.expire(now, outcome)
        outcome.events += self._kills.amendments.expire(now)
        if self._logged is not None:
            outcome.events += self._logged.expire(now)
        outcome.questions += [self._audit(cgroup) for cgroup in self._residuals.take_due(now)]
        if self._unclaimed_due is not None and self._unclaimed_due <= now:
            # A name that no counter has shown: its kill is in a cgroup that is gone, or has none.
            self._unclaimed_due = None
            if self._root is not None:
                outcome.questions.append(self._audit(self._root))
        if self._strays_due is not None and self._strays_due <= now:
            self._strays_due = None
            self._kills.adopt(self._names.strays(), now)
        for ended in self._lost_ends.expire(now):
            self._ended(ended, now, outcome)
        outcome.events += self._ownership.expire(now)
        self.exits.expire(now, outcome)
        return outcome

    def expect(self, witnesses: frozenset[str]) -> None:
        """Say which witnesses will name every victim: a kill waits for them a moment."""
        self._kills.naming = witnesses

    def recall(self, entries: Iterable[Entry], now: float) -> None:
        """Take in what was told lately before a restart: what is read again amends it."""
        told = [entry for entry in entries if entry.event.episode_id.startswith(self._boot)]
        self._ownership.recall(told, now)
        for recalled in recall(told, now):
            self._names.recall(recalled.names)
            self._kills.amendments.recall(recalled, now)

    def take_changes(self, now: float, *, told: bool) -> LedgerChange:
        """Return what is to be committed with the events, of which there are some if `told`.

        Before the first look at the tree is over, no place in the log is: to have one means that
        the boot is known, and what a counter shows beyond the ledger new.
        """
        change = self.ledger.take_changes()
        if self._logged is None and self._root is None:
            return change
        waiting = (record.span for record in self._waiting(now))
        place = self._log.take(waiting, committing=told or bool(change))
        return replace(change, log=place) if place is not None else change

    def _waiting(self, now: float) -> Iterator[VictimNamed]:
        """The records that are in no event yet; gone through only where a place is to be noted."""
        yield from self._names.waiting(now)
        yield from self._kills.amendments.waiting()
        if self._logged is not None:
            yield from self._logged.waiting()

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next, monotonic seconds; `None` while nothing is open."""
        due = (
            self._kills.deadline,
            self._kills.amendments.deadline,
            self._residuals.deadline,
            self._unclaimed_due,
            self._strays_due,
            self._ownership.deadline,
            self.exits.deadline,
            self._lost_ends.deadline,
            self._logged.deadline if self._logged is not None else None,
        )
        return min((time for time in due if time is not None), default=None)

    @property
    def kills_told(self) -> int:
        """Kills told since the start."""
        logged = self._logged.told if self._logged is not None else 0
        return self._kills.told + self._residual_kills.told + logged

    def _take(self, observation: Observation, now: float, outcome: Outcome) -> None:
        match observation:
            case CounterReading():
                self._counter(observation, now, outcome)
            case LineageReading():
                self._lineage(observation, now, outcome)
            case UsageReading():
                self._kills.measured(observation, now, outcome)
            case CgroupRemoved():
                self._removed(observation, now, outcome)
            case AuditReading():
                self._audited(observation, now, outcome)
            case FoundRisen():
                self._residuals.came_and_went(observation.cgroup)
            case Surveyed():
                self._surveyed(observation, now, outcome)
            case VictimNamed():
                self._named(observation, now, outcome)
            case ProcessesSeen():
                self._lived(observation, now, outcome)
            case LogRead():
                self._log.read(observation)
            case Recorded():
                self._kills.amendments.recorded(observation)
                self._ownership.recorded(observation)
                self.exits.recorded(observation, outcome)
            case EvidenceLost():
                outcome.events.append(self._lost(observation))
            case ContainerSeen():
                self._ownership.seen(observation, now)
                outcome.questions += self.exits.seen(observation)
                self.exits.placed(observation.container.id, now, outcome)
            case SandboxSeen():
                self.exits.found(observation, now, outcome)
            case SandboxLogRead():
                self.exits.sandbox_wrote(observation, outcome)
            case UsageSampled():
                self.exits.sampled(observation)
            case ClockStepped():
                self.exits.clock_stepped(observation.microseconds)
            case SignalledByKiller():
                self.exits.signalled(observation, outcome)
            case RuntimeOom():
                self._words.heard(observation, now)
                self._place_words(now, observation.container_id)
            case ContainerEnded():
                self._ended(observation, now, outcome)
            case ExitFound():
                for ended in self.exits.found_exit(observation):
                    self._ended(ended, now, outcome)
            case LastLookReading():
                self.exits.looked(observation)
                if self.exits.wants_sums and self._root is not None:
                    outcome.questions.append(self._audit(self._root))

    # Counters

    def _counter(self, reading: CounterReading, now: float, outcome: Outcome) -> None:
        if self._held.takes(reading):
            return
        late = reading.sight is Sight.LATE
        if not (self._continues if late else self._resumed or reading.sight is not Sight.BASELINE):
            self._baseline(reading)
            return
        moved = self.ledger.counter_id(reading.cgroup) not in (0, reading.counter_id)
        if reading.sight is Sight.YOUNG and reading.cgroup.id not in self._baselines:
            return  # it was no baseline to us, since we went on from earlier: all of it is told
        late = late and reading.cgroup.parent is not None
        if late or reading.sight in (Sight.REVEALED, Sight.YOUNG) or moved:
            above = self._held.hold(reading, now, outcome)
            outcome.questions.append(self._audit(above))
            return
        self._rise(reading, now, outcome)

    def _rise(self, reading: CounterReading, now: float, outcome: Outcome) -> None:
        recovered = (self._resumed and reading.sight is Sight.BASELINE) or (
            self._continues and reading.sight is Sight.LATE
        )
        self._kills.note_oom(reading, now)
        if (reading.local.oom_kill or 0) > self.ledger.told(reading.cgroup):
            self._residuals.rose(reading.cgroup, reading.time)
        self._kills.rise(reading, now, outcome, recovered=recovered)

    def _baseline(self, reading: CounterReading) -> None:
        """What was counted before our first look is old: told never, but known."""
        local = reading.local
        if reading.cgroup.parent is None:
            self._unsummed = reading.subtree_kills is None
        if local.oom_kill:
            self._baselines.add(reading.cgroup.id)
        self.ledger.rebase(
            reading.cgroup,
            counter_id=reading.counter_id,
            told=local.oom_kill or 0,
            accounted=reading.subtree_kills or 0,
            oom=local.oom or 0,
            group_kill=local.oom_group_kill or 0,
        )

    def _lineage(self, reading: LineageReading, now: float, outcome: Outcome) -> None:
        for member in reading.members:
            self._counter(member.reading, now, outcome)
        self._kills.described(reading, now, outcome)

    # Names

    def _named(self, record: VictimNamed, now: float, outcome: Outcome) -> None:
        name = self._names.add(record, now)
        if name is None:
            return
        known = self._residents.word_on(name) or main_processes.word_on(name, self.containers.lives)
        if known is not None:
            name.records.append(known)
        if self._logged is not None:
            self._logged.add(name, now)
            return
        for word in [record, known] if known is not None and name.claimed else [record]:
            self._join(name, word, now, outcome)

    def _lived(self, look: ProcessesSeen, now: float, outcome: Outcome) -> None:
        """Take in who lives where, also for a victim that was named a moment before."""
        self._residents.seen(look)
        for name in self._names.lately(frozenset(r.pid for r in look.residents)):
            known = self._residents.word_on(name)
            if known is not None:
                name.records.append(known)
                self._join(name, known, now, outcome)

    def _join(self, name: Name, record: VictimNamed, now: float, outcome: Outcome) -> None:
        """Bring a name to its kill: one that was told, one that is open, or one to look for."""
        late = self._kills.amendments.late(name, record, now)
        if late or name.claimed or self._kills.named(name, now, outcome):
            return
        if record.recovered and self._root is not None:
            # Every counter was read since. One that is in doubt is told by this name.
            doubted = self._residuals.in_doubt(name.cgroup or "/")
            if not doubted and self._kills.amendments.late_below(name, now):
                return
        if name.cgroup is not None:
            if self._root is not None:  # else every counter is about to be read
                outcome.questions.append(Look(name.cgroup))
        elif self._whole_host:
            self._strays_due = now + STRAY_SECONDS
        else:
            return
        if self._unclaimed_due is None:
            self._unclaimed_due = now + self._settle_seconds

    def _place_words(self, now: float, container_id: str | None = None) -> None:
        if self._kills.amendments.has_unplaced:
            self._words.place_in_sums(now, container_id)

    def _lost(self, lost: EvidenceLost) -> EvidenceGap:
        return EvidenceGap(
            episode_id=f"{self._boot}-lost-{lost.source}-{lost.time:x}",
            detect_time=lost.time,
            source=lost.source,
            reason=lost.reason,
            lost_count=lost.count,
            occur_after=lost.since,
        )

    # Cgroups that went, and what only their ancestors still know

    def _removed(self, observation: CgroupRemoved, now: float, outcome: Outcome) -> None:
        cgroup = observation.cgroup
        self._kills.close(cgroup, now, outcome)
        self._kills.forget(cgroup)
        self._kills.amendments.removed(cgroup, observation.time, now)
        self._residuals.removed(observation)
        self._residents.removed(cgroup)
        self.exits.hit_limit(cgroup.id, observation.limit_hits)
        named = self.containers.owners.named(cgroup, observation.time)
        if named is not None:
            # Nobody spoke of it yet; its end may still be asked about.
            self.containers.seen(named)
        self.containers.removed(cgroup.id, observation.time)
        self._lost_ends.removed(cgroup.id, now)
        if named is not None:
            self.exits.placed(named.container.id, now, outcome)
        self._held.removed(cgroup)
        self._baselines.discard(cgroup.id)
        self.ledger.forget(cgroup)
        if cgroup.parent is not None:
            outcome.questions.append(self._audit(cgroup.parent))

    def _ended(self, ended: ContainerEnded, now: float, outcome: Outcome) -> None:
        if self._logged is None and self._root is None:
            # Until every cgroup was looked at, one that is there looks gone, and no sum is known.
            self._early.append(ended)
            return
        life = self.exits.ended(ended, now, outcome)
        if life is not None:
            self.containers.ended(life, ended.time)

    def _surveyed(self, observation: Surveyed, now: float, outcome: Outcome) -> None:
        first = self._root is None
        if first and not self._resumed:
            self.exits.began(observation.time, max(observation.cgroup_ids, default=0))
        # Again means after an overflow.
        self._residuals.unseen = self._resumed or not first
        self._root = observation.root
        if first and self._resumed:
            self._unwatched_until = observation.time
            self.exits.unwatched_until(observation.time)
        if observation.whole:
            until, self._unwatched_until = self._unwatched_until, None
            self.ledger.forget_all_but(observation.cgroup_ids)
            self.containers.only(observation.cgroup_ids, until or observation.time)
            if until is not None:
                self._lost_ends.surveyed(now)
        if first:
            self.exits.reopen(now, outcome)
        early, self._early = self._early, []
        for ended in early:
            self._ended(ended, now, outcome)
        outcome.questions.append(self._audit(observation.root))

    def audit_all(self, root: Cgroup) -> Question:
        """Ask for an audit of the whole tree: one file is read where nothing is amiss."""
        return self._audit(root)

    def _audit(self, cgroup: Cgroup) -> Audit:
        return Audit(cgroup, self.ledger.accounted_by_id)

    def _audited(self, reading: AuditReading, now: float, outcome: Outcome) -> None:
        if reading.counts:
            self._residuals.summed(reading.asked, reading.counts[0].cgroup)
            if self._unsummed and reading.counts[0].cgroup is self._root:
                self._unsummed = False
                old = reading.counts[0].subtree_kills - self._kills.count_below(self._root)
                self.ledger.rebase(self._root, accounted=old)
        elif reading.asked is not self._root:
            self._residuals.gone(reading.asked)
        for settled in self._held.settled(reading, now, outcome):
            self._baselines.discard(settled.cgroup.id)
            self._rise(settled, now, outcome)
        below: dict[int, int] = {}
        for count in reversed(reading.counts):
            survivor = count.cgroup
            untold = count.subtree_kills - self.ledger.accounted(survivor)
            untold -= self._kills.count_below(survivor)
            own = untold - below.get(survivor.id, 0)
            residual = self._residuals.look(
                survivor, own, self.ledger.accounted(survivor), count.time, now
            )
            if residual is not None:
                told = self._residual_kills.tell(
                    residual, count, recovered=self._resumed, awaited=self._kills.awaits
                )
                for event, names in told:
                    outcome.events.append(event)
                    self._kills.amendments.told(event, names, now, suspects=residual.suspects)
                own -= residual.kills
            elif untold == 0 and survivor is self._root:
                self._residuals.unseen &= not self._residuals.proves(survivor, count.time)
            for ancestor in survivor.lineage():
                below[ancestor.id] = below.get(ancestor.id, 0) + max(own, 0)
        if reading.asked is self._root and reading.counts and not self._residuals.deadline:
            # Not before all of the tree was looked at: what was not yet would pass for a baseline.
            self._resumed = False
        self.exits.audited(reading)
