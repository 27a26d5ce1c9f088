"""A kill as it is seen from the end of one life: its own, another's, or one of several's?

A kill is a life's by its cgroup's inode, by its path where it happened in a cgroup nested in the
container, or by a pid that is known. In a cgroup that several containers share only a pid decides;
without one the kill is "one of N", and no verdict rests on it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from oomwatch.containers.lives import Life
from oomwatch.events import OomKill, Scope, is_within
from oomwatch.sizes import size
from oomwatch.verdict import KillOfLife, VictimRole

NESTED_MICROSECONDS = 2_000_000
"""How long before it was first heard of a container may have lived already."""

_MAX_WORDS = 3


class Place(NamedTuple):
    """Where a kill was: a cgroup's path and inode, as far as they are known.

    Of a kill in a cgroup that is not known, `survivor` is the one below which it was.
    """

    path: str | None
    cgroup_id: int | None
    survivor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a life, as the host's kernel sees that: in its sandbox's cgroup, where it has one.

    `sharing` is how many containers live in its cgroup, `others` are the main processes of those.
    A worker may have run others in that cgroup before and after: `after` and `until` are the
    revisions of the exits between which its own kills were told, `None` where there is no other.
    `roles` are a sandbox's processes, if it is one that is `sandboxed` and was found; `leapt`
    is how far the wall clock had leapt when its end was told, `turned_back` how far it was turned
    back in all.
    """

    life: Life
    exit_time: int
    sharing: int = 1
    others: frozenset[int] = frozenset()
    after: int | None = None
    until: int | None = None
    sandboxed: bool = False
    roles: Mapping[int, VictimRole] = field(default_factory=dict)
    leapt: int = 0
    turned_back: int = 0

    @property
    def pids(self) -> frozenset[int]:
        """The processes that are known to be of this life."""
        pid = self.life.pid
        return frozenset((*self.roles, *((pid,) if pid is not None else ())))

    def kill(self, event: OomKill, revision: int | None, leapt: int = 0) -> KillOfLife | None:
        """Return a kill as this life's, or as one that may be; `None` where it is another's.

        Of a kill that only a count showed it is known between which times it was, and where the
        wall clock `leapt` since a kill was told, two clocks dated it: the time that is returned is
        the one nearest to the exit's.
        """
        pids = {victim.pid for victim in event.victims}
        own = is_own(self.life, event.victim_cgroup, event.victim_cgroup_id)
        mine = bool(pids & self.pids) and self._alive(None, kill_time(event))
        candidates = 1
        place = Place(event.victim_cgroup, event.victim_cgroup_id)
        if own and not mine and not self._alive(place, kill_time(event)):
            return None
        if own and not mine and self._at_anothers_turn(revision):
            return None
        if own and not mine and self.sharing > 1:
            if _all_named(event) and (self.roles or pids <= self.others):
                return None
            candidates = self.sharing
        if own and not mine and self.after is not None and kill_time(event) < self.life.seen_time:
            # Before it was registered, and after the end of the one before it.
            candidates = max(candidates, 2)
        if not own and not mine:
            if event.victim_cgroup is not None or not self._is_candidate(event):
                return None
            candidates = len(event.candidates) + (event.candidates_omitted or 0)
            # A single candidate is none that is known for certain.
            candidates = max(candidates, 2)
        seen_time = min(event.detect_time, max(self.exit_time, event.occur_after or 0))
        time = event.occur_time or seen_time
        return KillOfLife(
            time=min(time, time + leapt, key=lambda at: abs(self.exit_time - at)),
            kill_count=event.kill_count or 0,
            words=_words(self.life, event),
            revision=revision,
            named=_all_named(event),
            main_process=self._main_process(event),
            whole_group=bool(event.group_kill) and event.victim_cgroup == self.life.cgroup,
            candidates=candidates,
            role=next((self.roles[pid] for pid in sorted(pids & self.roles.keys())), None),
            confidence=event.confidence,
        )

    def older_kills(self, place: Place, count: int, time: int) -> KillOfLife | None:
        """Return the kills of a cgroup of which no more is kept than how many they were."""
        words, cgroup = "further kills of earlier", self.life.cgroup
        if place.path is None:
            above = place.survivor
            if cgroup is None or above is None or not is_within(cgroup, above):
                return None
            return KillOfLife(time=time, kill_count=count, words=words, candidates=2)
        own = is_own(self.life, place.path, place.cgroup_id)
        if not own or not self._alive(place, time):
            return None
        turns = 1 if self.after is None and self.until is None else 2
        candidates = max(self.sharing, turns)
        return KillOfLife(time=time, kill_count=count, words=words, candidates=candidates)

    def _at_anothers_turn(self, revision: int | None) -> bool:
        if self.until is not None and (revision is None or revision > self.until):
            return True
        return self.after is not None and revision is not None and revision < self.after

    def _alive(self, place: Place | None, time: int) -> bool:
        """Did the life last at a time? Asked of what is not just its own cgroup: a path alone, its
        own or that of a nested cgroup, fits several lives.
        """
        life = self.life
        known = place is not None and None not in (place.cgroup_id, life.cgroup_id)
        if place is not None and known and place.path == life.cgroup:
            return True
        leeway = NESTED_MICROSECONDS + self.turned_back
        return time >= life.seen_time - leeway and (
            life.ended_time is None or time <= life.ended_time + leeway
        )

    def _is_candidate(self, event: OomKill) -> bool:
        cgroup = self.life.cgroup
        if self.life.lives_with_others:
            return event.survivor_cgroup == cgroup and not event.candidates
        if cgroup is None:
            return False
        if any(is_within(path, cgroup) for path in event.candidates):
            return True
        # What went while nobody watched is among no candidates, nor what was one too many: any
        # gone by then may be it.
        unnamed = event.recovered or bool(event.candidates_omitted)
        ended, above = self.life.ended_time, event.survivor_cgroup
        gone = ended is not None and ended <= event.detect_time
        return unnamed and gone and above is not None and is_within(cgroup, above)

    def _main_process(self, event: OomKill) -> bool | None:
        life, roles = self.life, self.roles
        pids = {victim.pid for victim in event.victims}
        if any(roles.get(pid) is VictimRole.SENTRY for pid in pids):
            return True
        if not roles and life.pid is not None and life.pid in pids:
            return True
        # Who began first in a cgroup nested in it is the main process of what lives there.
        first = event.victim_cgroup == life.cgroup and any(v.main_process for v in event.victims)
        if first and life.pid is None:
            return True
        if _all_named(event) and life.pid is not None:
            # Of a sandbox, only the processes that are known by their pid are known to be others.
            return None if self.sandboxed and not pids <= roles.keys() else False
        return None


def concerns(life: Life, event: OomKill) -> bool:
    """May a kill, or what amends one, change the verdict on this life's exit?"""
    pids = {victim.pid for victim in event.victims}
    if event.victim_cgroup is None:
        cgroup, above = life.cgroup, event.survivor_cgroup
        if cgroup is None or above is None or life.pid in pids:
            return True
        return is_within(cgroup, above) or is_within(above, cgroup)
    return is_own(life, event.victim_cgroup, event.victim_cgroup_id) or life.pid in pids


def kill_time(kill: OomKill) -> int:
    """When the kernel did it, or else when it was seen."""
    return kill.occur_time or kill.detect_time


def is_own(life: Life, path: str | None, cgroup_id: int | None) -> bool:
    """Did it happen in the life's cgroup, or in one nested in it?

    What is nested in the cgroup that counts for one without a counter is another's.
    """
    if path is None or life.cgroup is None:
        return False
    if path == life.cgroup:
        return cgroup_id is None or life.cgroup_id is None or cgroup_id == life.cgroup_id
    return is_within(path, life.cgroup) and not life.lives_with_others


def _all_named(event: OomKill) -> bool:
    # The kernel counts the first victim of a group twice, as a rule.
    twice = 1 if event.group_kill else 0
    return len(event.victims) >= max(1, (event.kill_count or 0) - twice)


def _words(life: Life, event: OomKill) -> str:
    names = [f"{victim.comm or 'pid'}[{victim.pid}]" for victim in event.victims[:_MAX_WORDS]]
    if len(event.victims) > _MAX_WORDS:
        names.append(f"{len(event.victims) - _MAX_WORDS} more")
    who = ", ".join(names)
    return " ".join(word for word in (who, _where(life, event)) if word)


def _where(life: Life, event: OomKill) -> str:
    """At whose limit it was, as seen from the container: an event may be seen from the victim's
    cgroup, which may be one nested in it.
    """
    limit = event.limit_cgroup
    if event.scope is Scope.NODE:
        return "as the node ran out of memory"
    if limit is None or event.scope is Scope.UNKNOWN:
        return ""
    if life.cgroup is None or life.lives_with_others or not is_within(limit, life.cgroup):
        return f"at the limit of {limit}"
    if limit != life.cgroup:
        return f"at the limit of {limit} in it"
    # Its figures may be the victim's cgroup's, where only the log told whose limit it was.
    known = event.memory if event.victim_cgroup == limit else None
    figure = f" of {size(known.limit_bytes)}" if known and known.limit_bytes else ""
    return f"at its own limit{figure}"
