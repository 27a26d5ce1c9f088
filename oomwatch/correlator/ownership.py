"""Gives each event its container, and says whose limit it was as seen from there.

A name that is learned after its kill was told amends it, and so does the word of a runtime that saw
the same kill: an event is never held back for either, and never rewritten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from oomwatch.containers.lives import Life
from oomwatch.containers.owners import Owner
from oomwatch.containers.registry import Containers
from oomwatch.correlator.told_kills import IsCandidate, ToldKill, ToldKills
from oomwatch.events import Entry, Event, Evidence, EvidenceGap, OomKill, Scope, Victim, is_within
from oomwatch.observations import ContainerSeen, Recorded, RuntimeOom

MAX_TOLD = 4096
LATE_SECONDS = 600.0
"""How long after a kill a name that is learned still amends it. Later it is found by asking."""

RUNTIME_SECONDS = 30.0
"""How far apart a kill and a runtime's word on it may come: a busy Docker takes seconds."""


Place = Callable[[RuntimeOom, IsCandidate, float], bool]
"""Has a runtime's word say which of a sum's candidates was meant."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Told(ToldKill):
    """A kill that was told, or a part of a sum: as whose, and what was learned of it since.

    `read` is when a count showed it (microseconds since the epoch), `named` are the pids of a
    part's victims.
    """

    owner: Owner | None
    read: int
    runtimes: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    learned: int = 0
    named: frozenset[int] = frozenset()

    def heard(self, event: OomKill) -> None:
        """Take in who speaks of it in an event, and of which victims.

        Where a victim is named, a runtime may have said that it is a container's init, and no more.
        """
        said = [one.source for one in event.evidence] if not event.victims else []
        self.runtimes += tuple(dict.fromkeys(one for one in said if one not in self.runtimes))
        self.named |= {victim.pid for victim in event.victims}

    def words_to_come(self, at: float) -> int:
        """How many words of one runtime may be on it, of those that came until then."""
        kills = self.event.kill_count or max(1, len(self.named))
        return kills if at - self.at < RUNTIME_SECONDS else 1


@dataclass(frozen=True, slots=True)
class _Word:
    """A runtime's word on a kill that was not told yet."""

    oom: RuntimeOom
    at: float


class Ownership:
    """Names events, and amends those that were told before their container was known."""

    def __init__(self, containers: Containers, settle_seconds: float, place: Place) -> None:
        self._containers = containers
        self._place = place
        self._told: ToldKills[_Told] = ToldKills(settle_seconds)
        self._words: deque[_Word] = deque(maxlen=MAX_TOLD)

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while there is nothing to amend."""
        return self._told.deadline

    def name(self, events: Sequence[Event], now: float) -> list[Event]:
        """Return the events with their containers."""
        return [self._named(event, now) for event in events]

    def recall(self, entries: Iterable[Entry], now: float) -> None:
        """Remember the kills that were told before a restart: a word may come that is on them."""
        for entry in entries:
            event = entry.event
            if not isinstance(event, OomKill):
                continue
            owner = self._owner(event)
            owner = None if owner is None else replace(owner, life=None)
            if event.amends is not None:
                self._amended(event, owner, now)
            else:
                self._remember(event, owner, now, event.detect_time)
                self.recorded(Recorded(event.episode_id, event.victim_cgroup, entry.revision))

    def seen(self, seen: ContainerSeen, now: float) -> None:
        """Take in who a container is; what was told of it lately is to be amended."""
        life = self._containers.seen(seen)
        if life is None:
            return
        for told in self._recent(now):
            if not _may_be_of(told.event.victim_cgroup, life):
                continue
            owner = self._owner(told.event)
            if owner is not None and (
                told.owner is None or owner.container != told.owner.container
            ):
                self._amend(told, seen.time, now)

    def runtime(self, oom: RuntimeOom, now: float) -> None:
        """Take in a runtime's word: evidence of the last kill in that container, or of the next.

        It may be the only one on a kill that is in a sum alone: see `place_in_sums`.
        """
        for told in self._recent(now, RUNTIME_SECONDS):
            if self._is_on(oom, told):
                told.runtimes += (oom.source,)
                told.evidence += (_evidence(oom),)
                self._amend(told, oom.seen_time, now)
                return
        self._words.append(_Word(oom, now))

    def place_in_sums(self, now: float, container_id: str | None = None) -> None:
        """Have the words on kills that were not told in their container say where a sum's were:
        those on one container, or all.

        Not while it runs: then its own counter has still to show the kill. Nor where as many were
        told in it as this runtime has words: then it means one of those, and comes late.
        """
        waiting = self._waiting(now)
        words = [w for w in waiting if container_id in (None, w.oom.container_id)]
        if not words:
            return
        # Once for all of them: in a storm there are thousands of both.
        told: dict[str, list[_Told]] = {}
        for one in self._recent(now):
            if one.owner is not None:
                for key in (one.owner.cgroup, one.owner.container.id or ""):
                    told.setdefault(key, []).append(one)
        on: dict[str, list[_Word]] = {}
        for word in waiting:
            on.setdefault(word.oom.container_id, []).append(word)
        for word in words:
            life = self._containers.lives.newest(word.oom.container_id)
            if life is None or life.ended_time is None:
                continue
            kills = {id(one): one for key in _keys(life) for one in told.get(key, ())}
            if not self._is_one_more(word, list(kills.values()), on[word.oom.container_id]):
                continue
            if self._place(word.oom, partial(self._candidate, word.oom), now):
                self._words.remove(word)
                on[word.oom.container_id].remove(word)

    def _is_one_more(self, word: _Word, told: Sequence[_Told], waiting: Sequence[_Word]) -> bool:
        """Has this runtime more words on a container than kills were told in that?"""
        oom = word.oom
        words = sum(oom.source in one.runtimes for one in told) + sum(
            other.oom.source == oom.source and self._in_one_life(oom, other.oom.time)
            for other in waiting
        )
        return words > sum(one.words_to_come(word.at) for one in told)

    def _candidate(self, oom: RuntimeOom, path: str, read: int) -> int | None:
        """The inode of a candidate that is the container's, 0 if it is not known; `None` if it is
        another's, or of another life of the container than is meant.
        """
        owner = self._containers.owners.of(path, None, oom.time)
        if not self._meant(oom, owner) or not self._in_one_life(oom, read):
            return None
        life = _last_by(oom.time, self._containers.lives.of_id(oom.container_id))
        return (life.cgroup_id or 0) if life is not None and life.cgroup == path else 0

    def _is_on(self, oom: RuntimeOom, told: _Told) -> bool:
        """Is a word on this kill, which lacks it?"""
        lacks = oom.source not in told.runtimes
        return lacks and self._meant(oom, told.owner) and self._in_one_life(oom, told.read)

    def _in_one_life(self, oom: RuntimeOom, read: int) -> bool:
        """Had the container not been started anew between a word and when a count was read?"""
        lives = self._containers.lives.of_id(oom.container_id)
        return _last_by(oom.time, lives) is _last_by(read, lives)

    def _waiting(self, now: float) -> list[_Word]:
        return [word for word in self._words if now - word.at < RUNTIME_SECONDS]

    def recorded(self, recorded: Recorded) -> None:
        """Take in a kill's revision: from now on it can be amended."""
        self._told.recorded(recorded)

    def expire(self, now: float) -> list[OomKill]:
        """Return the amendments that are due."""
        return [self._amendment(told) for told, _ in self._told.take_due(now)]

    def _named(self, event: Event, now: float) -> Event:
        if isinstance(event, OomKill):
            return self._kill(event, now)
        if isinstance(event, EvidenceGap) and event.cgroup is not None:
            owner = self._containers.owners.of(event.cgroup, None, event.detect_time)
            return event if owner is None else replace(event, container=owner.container)
        return event

    def _kill(self, event: OomKill, now: float) -> OomKill:
        owner = self._owner(event)
        if owner is not None:
            scope = scope_within(event, owner.cgroup)
            victims = tuple(_main_or_not(victim, owner) for victim in event.victims)
            event = replace(event, container=owner.container, scope=scope, victims=victims)
            # What is remembered of it is whose it was: the life would only be kept.
            owner = replace(owner, life=None)
        told: _Told | None
        if event.amends is not None:
            told = self._amended(event, owner, now)
        else:
            told = self._remember(event, owner, now, event.detect_time)
        if told is None:
            return event
        for word in self._waiting(now):
            if self._is_on(word.oom, told):
                self._words.remove(word)
                told.runtimes += (word.oom.source,)
                event = replace(event, evidence=(*event.evidence, _evidence(word.oom)))
        return event

    def _amended(self, event: OomKill, owner: Owner | None, now: float) -> _Told | None:
        """Take in what others amend: what this learned of the limit stands when we amend after it.

        What was in a cgroup of its own is a part of a sum, and another's from then on.
        """
        parts = [told for told in self._told if told.revision == event.amends]
        for told in parts:
            if told.event.victim_cgroup == event.victim_cgroup or told.event.kill_count == 1:
                told.event = replace(event, kill_count=told.event.kill_count)
                told.owner = owner
                told.heard(event)
                return told
        return self._remember(event, owner, now, parts[0].read) if parts else None

    def _remember(self, event: OomKill, owner: Owner | None, now: float, read: int) -> _Told:
        """One that nothing can amend any more is forgotten, so that a daemon does not grow old."""
        kills = self._told
        while kills and (
            len(kills) >= MAX_TOLD
            or (now - kills.oldest.at >= LATE_SECONDS and kills.oldest.due is None)
        ):
            kills.forget_oldest()
        told = _Told(event=event, at=now, revision=event.amends, owner=owner, read=read)
        told.heard(event)
        kills.add(told)
        return told

    def _meant(self, oom: RuntimeOom, owner: Owner | None) -> bool:
        """Is it this container that a runtime speaks of? A worker may call it by another id."""
        if owner is None:
            return False
        life = self._containers.lives.newest(oom.container_id)
        return owner.container.id == oom.container_id or (life is not None and _is_of(life, owner))

    def _owner(self, event: OomKill) -> Owner | None:
        if event.victim_cgroup is None:
            return None
        time = event.occur_time or event.detect_time
        return self._containers.owners.of(event.victim_cgroup, event.victim_cgroup_id, time)

    def _recent(self, now: float, seconds: float = LATE_SECONDS) -> Iterator[_Told]:
        """The kills told lately, the last one first."""
        return takewhile(lambda told: now - told.at < seconds, reversed(self._told))

    def _amend(self, told: _Told, time: int, now: float) -> None:
        told.learned = max(told.learned, time)
        self._told.amend(told, now)

    @staticmethod
    def _amendment(told: _Told) -> OomKill:
        """What was learned; `name` gives it its container, and the scope that follows from it."""
        evidence, told.evidence = told.evidence, ()
        return replace(
            told.event,
            detect_time=told.learned,
            amends=told.revision,
            kill_count=None,
            memory=None,
            victims=(),
            invoker=None,
            evidence=evidence,
        )


def _last_by(time: int, lives: Sequence[Life]) -> Life | None:
    """The last of a container's lives that was heard of by then; the first where none was."""
    return next(
        (life for life in reversed(lives) if life.seen_time <= time), next(iter(lives), None)
    )


def _keys(life: Life) -> tuple[str, ...]:
    """By what an owner is known to be this life's container: a path begins with a slash, and no id
    does.
    """
    return (life.container_id,) if life.cgroup is None else (life.container_id, life.cgroup)


def _is_of(life: Life, owner: Owner) -> bool:
    return owner.container.id in _keys(life) or owner.cgroup in _keys(life)


def _main_or_not(victim: Victim, owner: Owner) -> Victim:
    """A container's init is its main process. Of any other pid a runtime's word says nothing: with
    gVisor it is that of a command, and not of the sandbox.
    """
    init = owner.life is not None and owner.life.pid == victim.pid
    return replace(victim, main_process=True) if init else victim


def _may_be_of(cgroup: str | None, life: Life) -> bool:
    """Can this cgroup be a container's? A cheap look, since all that was told lately is asked."""
    if cgroup is None:
        return False
    if life.cgroup is None:
        return life.container_id in cgroup
    return cgroup.startswith(life.cgroup)


def scope_within(event: OomKill, container_cgroup: str) -> Scope:
    """Whose limit was hit, seen from a container; what the counters said where none is known."""
    limit = event.limit_cgroup
    if limit is None or event.scope in (Scope.NODE, Scope.UNKNOWN):
        return event.scope
    if limit == container_cgroup:
        return Scope.CONTAINER_LIMIT
    return Scope.DESCENDANT if is_within(limit, container_cgroup) else Scope.ANCESTOR_LIMIT


def _evidence(oom: RuntimeOom) -> Evidence:
    return Evidence(source=oom.source, time=oom.seen_time, detail=oom.detail)
