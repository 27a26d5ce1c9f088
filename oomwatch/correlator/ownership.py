"""Gives each event its container, and says whose limit it was as seen from there.

A name that is learned after its kill was told amends it: an event is never held back for it, and
never rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from oomwatch.containers.lives import Life
from oomwatch.containers.owners import Owner
from oomwatch.containers.registry import Containers
from oomwatch.correlator.owned_kills import OwnedKills
from oomwatch.correlator.runtime_words import RuntimeWords
from oomwatch.events import Entry, Event, EvidenceGap, OomKill, Scope, Victim, is_within
from oomwatch.observations import ContainerSeen, Recorded


class Ownership:
    """Names events, and amends those that were told before their container was known."""

    def __init__(self, containers: Containers, told: OwnedKills, words: RuntimeWords) -> None:
        self._containers = containers
        self._told = told
        self._words = words

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
                self._told.amended(event, owner, now)
            else:
                self._told.remember(event, owner, now, event.detect_time)
                self.recorded(Recorded(event.episode_id, event.victim_cgroup, entry.revision))

    def seen(self, seen: ContainerSeen, now: float) -> None:
        """Take in who a container is; what was told of it lately is to be amended."""
        life = self._containers.seen(seen)
        if life is None:
            return
        for told in self._told.recent(now):
            if not _may_be_of(told.event.victim_cgroup, life):
                continue
            owner = self._owner(told.event)
            if owner is not None and (
                told.owner is None or owner.container != told.owner.container
            ):
                self._told.learned_of(told, seen.time, now)

    def recorded(self, recorded: Recorded) -> None:
        """Take in a kill's revision: from now on it can be amended."""
        self._told.recorded(recorded)

    def expire(self, now: float) -> list[OomKill]:
        """Return the amendments that are due, also by a runtime's word; `name` is to name them."""
        return [told.take_amendment() for told, _ in self._told.take_due(now)]

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
        if event.amends is not None:
            told = self._told.amended(event, owner, now)
        else:
            told = self._told.remember(event, owner, now, event.detect_time)
        if told is None:
            return event
        said = self._words.take_on(told, now)
        return replace(event, evidence=(*event.evidence, *said)) if said else event

    def _owner(self, event: OomKill) -> Owner | None:
        if event.victim_cgroup is None:
            return None
        time = event.occur_time or event.detect_time
        return self._containers.owners.of(event.victim_cgroup, event.victim_cgroup_id, time)


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
