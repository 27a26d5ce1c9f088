"""The kills that were told, to be found by the life that an exit is of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from oomwatch.containers.lives import Life
from oomwatch.correlator.exits.ends import End, Place, is_own, kill_time
from oomwatch.correlator.path_index import PathIndex
from oomwatch.events import OomKill, Scope, Victim, upwards
from oomwatch.verdict import KillOfLife

MAX_CGROUPS = 4096
RECENT = 32
"""Kills kept in full for one cgroup; of older ones it is enough to know how many there were."""

FRESH = 1024
"""Kills kept as they were told, for those who name and amend them lately keep them as well."""

UNPLACED = 256
"""The same of those in no known cgroup, below one survivor: each has candidates of its own."""


@dataclass(slots=True, eq=False)
class _Told:
    event: OomKill
    leapt: int
    revision: int | None = None


@dataclass(slots=True)
class _InCgroup:
    """The kills of one cgroup: the last of them, and how many there were before those."""

    recent: list[_Told] = field(default_factory=list)
    older: int = 0
    older_time: int = 0


class KillsTold:
    """Kills by the cgroup they happened in; those of no known cgroup by what they were below.

    An exit asks for its own several times while its caller waits, and thousands may be kept: they
    are found by the cgroups around them and by their victims' pids, and never gone through.
    """

    def __init__(self) -> None:
        self._by_cgroup: dict[Place, _InCgroup] = {}
        self._within: PathIndex[Place] = PathIndex()
        self._by_pid: dict[int, list[_Told]] = {}
        self._by_revision: dict[int, list[_Told]] = {}
        """A sum of several kills is in parts, once one of them is named."""
        self._fresh: deque[_Told] = deque()
        self.leapt = 0
        self.turned_back = 0
        """How far the wall clock has leapt since the start, and how far of that back; microseconds.
        """

    def clock_stepped(self, microseconds: int) -> None:
        """Take in that the wall clock leapt: what was told before was dated by an older one."""
        self.leapt += microseconds
        self.turned_back -= min(0, microseconds)

    def told(self, event: OomKill) -> OomKill | None:
        """Take in a kill as it is told, or what amends one; return that as it was before."""
        if event.amends is None:
            self._put(fresh := _Told(event, self.leapt))
            self._fresh.append(fresh)
            if len(self._fresh) > FRESH:
                oldest = self._fresh.popleft()
                oldest.event = _kept(oldest.event)
            return None
        parts = self._by_revision.get(event.amends, [])
        told = _amended(parts, event)
        if told is None:
            return None
        before = told.event
        if before.victim_cgroup is not None and event.victim_cgroup is None and len(parts) > 1:
            return None  # names of a sum's, of which nobody can say in which of its parts they were
        # A runtime's word places one kill, and names nobody.
        placed = max(1, len(event.victims))
        left = (before.kill_count or 0) - placed
        if before.victim_cgroup is None and event.victim_cgroup is not None and left > 0:
            # A sum of several kills: this is of those alone that are placed, and whom else the sum
            # names lived in any of its parts.
            self._change(told, _without(before, event, left))
            part = _merged(replace(before, kill_count=placed, victims=()), event)
            parts.append(_Told(part, told.leapt, told.revision))
            self._put(parts[-1])
            return before
        was = self._take_from_sum(parts, told, event) or before
        kill = told.event
        if kill.victim_cgroup is None and event.victim_cgroup is not None and len(parts) > 1:
            kill = replace(kill, victims=())
        self._change(told, _merged(kill, event))
        return was

    def _take_from_sum(self, parts: list[_Told], told: _Told, event: OomKill) -> OomKill | None:
        """Have one more name in a cgroup take its kill from what is left of the sum, and return
        that as it was before.
        """
        rest = parts[0]
        if rest is told or rest.event.victim_cgroup is not None:
            return None
        before = rest.event
        known = {victim.pid for victim in (*told.event.victims, *event.victims)}
        counted, left = told.event.kill_count or 0, before.kill_count or 0
        more = min(max(0, len(known) - counted), left)
        told.event = replace(told.event, kill_count=counted + more)
        self._change(rest, _without(before, event, left - more))
        if left == more:
            self._take_out(rest)
            self._forget(rest)
        return before

    def _change(self, told: _Told, event: OomKill) -> None:
        former, place = _key(told.event), _key(event)
        self._unname(told)
        if former == place:
            told.event = event
            self._name(told)
            return
        self._take_out(told)
        told.event = event
        self._put(told)

    def _take_out(self, told: _Told) -> None:
        kills = self._by_cgroup.get(_key(told.event))
        if kills is not None and told in kills.recent:
            kills.recent.remove(told)

    def recorded(self, episode_id: str, victim_cgroup: str | None, revision: int) -> OomKill | None:
        """Take in a kill's revision, and return the kill; `None` where it is not known here."""
        for told in self._all():
            event = told.event
            if (event.episode_id, event.victim_cgroup) == (episode_id, victim_cgroup):
                if told.revision is None:
                    told.revision = revision
                    self._by_revision[revision] = [told]
                return event
        return None

    def knows(self, revisions: Iterable[int]) -> bool:
        """Are these kills all kept in full? Of many that came since, the oldest are not."""
        return all(revision in self._by_revision for revision in revisions)

    def of(self, end: End) -> list[KillOfLife]:
        """Return a life's kills in the order of time, those that may be its own included."""
        found: list[KillOfLife] = []
        named = [told for pid in end.pids for told in self._by_pid.get(pid, ())]
        for place in self._places(end.life, named):
            kills = self._by_cgroup[place]
            if kills.older:
                older = end.older_kills(place, kills.older, kills.older_time)
                found += [older] if older is not None else []
            for told in kills.recent:
                kill = end.kill(told.event, told.revision, end.leapt - told.leapt)
                found += [kill] if kill is not None else []
        return sorted(found, key=lambda kill: kill.time)

    def recovered_in(self, life: Life) -> int | None:
        """When the kernel killed last in a life while nobody watched; `None` if it did not."""
        times = [
            kill_time(told.event)
            for place in self._places(life, [])
            if is_own(life, place.path, place.cgroup_id)
            for told in self._by_cgroup[place].recent
            if told.event.recovered
        ]
        return max(times, default=None)

    def _places(self, life: Life, named: list[_Told]) -> dict[Place, None]:
        """Where a kill may be a life's: in its cgroup, in none that is known, by its pids."""
        places = dict.fromkeys(self._within.below(life.cgroup))
        places |= dict.fromkeys(_key(told.event) for told in named)
        above = (Place(None, None, path) for path in (*upwards(life.cgroup), None))
        return places | dict.fromkeys(place for place in above if place in self._by_cgroup)

    def _put(self, told: _Told) -> None:
        place = _key(told.event)
        kills = self._by_cgroup.pop(place, None) or _InCgroup()
        self._by_cgroup[place] = kills
        self._within.add(place.path or place.survivor, place)
        kills.recent.append(told)
        self._name(told)
        if len(kills.recent) > (UNPLACED if place.path is None else RECENT):
            oldest = kills.recent.pop(0)
            kills.older += oldest.event.kill_count or 0
            kills.older_time = kill_time(oldest.event)
            self._forget(oldest)
        if len(self._by_cgroup) > MAX_CGROUPS:
            self._drop(next(iter(self._by_cgroup)))

    def _drop(self, place: Place) -> None:
        for told in self._by_cgroup.pop(place).recent:
            self._forget(told)
        self._within.remove(place.path or place.survivor, place)

    def _forget(self, told: _Told) -> None:
        parts = self._by_revision.get(told.revision or 0, [])
        if told in parts:
            parts.remove(told)
        if not parts:
            self._by_revision.pop(told.revision or 0, None)
        self._unname(told)

    def _name(self, told: _Told) -> None:
        for victim in told.event.victims:
            of_pid = self._by_pid.setdefault(victim.pid, [])
            if told not in of_pid:
                of_pid.append(told)

    def _unname(self, told: _Told) -> None:
        for victim in told.event.victims:
            of_pid = self._by_pid.get(victim.pid, [])
            if told in of_pid:
                of_pid.remove(told)
            if not of_pid:
                self._by_pid.pop(victim.pid, None)

    def _all(self) -> Iterator[_Told]:
        # The newest first: it is those that are still written down and amended.
        for kills in reversed(self._by_cgroup.values()):
            yield from reversed(kills.recent)


def _kept(event: OomKill) -> OomKill:
    """As much of a kill as an exit is judged by: the rest is larger, and the journal has it."""
    limit, victim_cgroup = event.limit_cgroup, event.victim_cgroup
    return replace(
        event,
        container=None,
        limit_cgroup=victim_cgroup if limit == victim_cgroup else limit,
        victims=tuple(
            Victim(pid=victim.pid, comm=victim.comm, main_process=victim.main_process)
            for victim in event.victims
        ),
        invoker=None,
        tasks=(),
        evidence=(),
    )


def _key(event: OomKill) -> Place:
    if event.victim_cgroup is None:
        return Place(None, None, event.survivor_cgroup)
    return Place(event.victim_cgroup, event.victim_cgroup_id)


def _amended(parts: list[_Told], event: OomKill) -> _Told | None:
    """Which part of a kill an amendment is of: the one in its cgroup, else the first, which is what
    is left of a sum for as long as anything is.
    """
    same = (part for part in parts if _same_place(part.event, event))
    return next(same, parts[0] if parts else None)


def _same_place(part: OomKill, event: OomKill) -> bool:
    """Is it in the same cgroup, and not known to be in another life of that?"""
    inodes = {part.victim_cgroup_id, event.victim_cgroup_id} - {None}
    return part.victim_cgroup == event.victim_cgroup and len(inodes) <= 1


def _without(kill: OomKill, placed: OomKill, left: int) -> OomKill:
    """What is left of a sum, once some of its kills are known to have been in one cgroup."""
    mine = {victim.pid for victim in placed.victims}
    others = tuple(victim for victim in kill.victims if victim.pid not in mine)
    return replace(kill, kill_count=left, victims=others)


def _merged(kill: OomKill, amendment: OomKill) -> OomKill:
    placed = kill.victim_cgroup is None and amendment.victim_cgroup is not None
    sure = (
        amendment.confidence
        if placed
        else max(kill.confidence, amendment.confidence, key=lambda sure: sure.rank)
    )
    return replace(
        kill,
        victim_cgroup=kill.victim_cgroup or amendment.victim_cgroup,
        victim_cgroup_id=kill.victim_cgroup_id or amendment.victim_cgroup_id,
        limit_cgroup=amendment.limit_cgroup or kill.limit_cgroup,
        scope=amendment.scope if amendment.scope is not Scope.UNKNOWN else kill.scope,
        group_kill=kill.group_kill if amendment.group_kill is None else amendment.group_kill,
        occur_time=kill.occur_time or amendment.occur_time,
        confidence=sure,
        victims=tuple({v.pid: v for v in (*kill.victims, *amendment.victims)}.values()),
        candidates=() if amendment.victim_cgroup is not None else kill.candidates,
    )
