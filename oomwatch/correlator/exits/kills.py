"""The kills that were told, as the verdict on an exit needs them: whose life, and was it its init?

A kill is a life's by its cgroup's inode, by its path where it happened in a cgroup nested in the
container, or by a pid that is known. In a cgroup that several containers share only a pid decides;
without one the kill is "one of N", and no verdict rests on it alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from oomwatch.containers.lives import Life
from oomwatch.events import OomKill, Scope, is_within
from oomwatch.verdict import KillOfLife, VictimRole
from oomwatch.verdict.words import size

MAX_CGROUPS = 4096
RECENT = 32
"""Kills kept in full for one cgroup; of older ones it is enough to know how many there were."""

NESTED_MICROSECONDS = 2_000_000
"""How long before it was first heard of a container may have lived already."""

_MAX_WORDS = 3


_Place = tuple[str | None, int | None]
"""A cgroup's path and inode, as far as they are known."""

_NOWHERE: _Place = (None, None)


@dataclass(slots=True, eq=False)
class _Told:
    event: OomKill
    revision: int | None = None


@dataclass(slots=True)
class _InCgroup:
    """The kills of one cgroup: the last of them, and how many there were before those."""

    recent: deque[_Told] = field(default_factory=deque)
    older: int = 0
    older_time: int = 0


class KillsTold:
    """Kills by the cgroup they happened in; those of no known cgroup by their candidates.

    An exit asks for its own several times while its caller waits, and thousands may be kept: they
    are found by the cgroups around them and by their victims' pids, and never gone through.
    """

    def __init__(self) -> None:
        self._by_cgroup: dict[_Place, _InCgroup] = {}
        self._within: dict[str, dict[_Place, None]] = {}
        self._by_pid: dict[int, list[_Told]] = {}
        self._by_revision: dict[int, _Told] = {}

    def told(self, event: OomKill) -> None:
        """Take in a kill as it is told, or what amends one."""
        if event.amends is None:
            self._put(_Told(event))
            return
        told = self._by_revision.get(event.amends)
        if told is None:
            return
        kills = self._by_cgroup.get(_key(told.event))
        self._unname(told)
        told.event = _merged(told.event, event)
        self._name(told)
        if kills is not None and self._by_cgroup.get(_key(told.event)) is not kills:
            if told in kills.recent:
                kills.recent.remove(told)
            self._put(told)

    def recorded(self, episode_id: str, victim_cgroup: str | None, revision: int) -> None:
        """Take in a kill's revision."""
        for told in self._all():
            event = told.event
            if (event.episode_id, event.victim_cgroup) == (episode_id, victim_cgroup):
                if told.revision is None:
                    told.revision = revision
                    self._by_revision[revision] = told
                return

    def of(
        self, life: Life, exit_time: int, sharing: int, roles: dict[int, VictimRole]
    ) -> list[KillOfLife]:
        """Return a life's kills in the order of time, those that may be its own included.

        `sharing` is how many containers live in its cgroup; `roles` are a sandbox's processes. Of a
        kill that only a count showed it is known between which times it was: the time that is
        returned is the one nearest to the exit's.
        """
        found: list[KillOfLife] = []
        pids = roles.keys() | ({life.pid} if life.pid is not None else set())
        named = [told for pid in pids for told in self._by_pid.get(pid, ())]
        for place in self._places(life, named):
            path, cgroup_id = place
            kills = self._by_cgroup[place]
            own = _is_own(life, path, cgroup_id)
            if own and kills.older and _alive(life, path, kills.older_time):
                found.append(
                    KillOfLife(
                        time=kills.older_time,
                        kill_count=kills.older,
                        words="further kills of earlier",
                        candidates=sharing,
                    )
                )
            for told in kills.recent:
                kill = _as_seen_from(life, told, own, sharing, roles, exit_time)
                if kill is not None:
                    found.append(kill)
        return sorted(found, key=lambda kill: kill.time)

    def _places(self, life: Life, named: list[_Told]) -> dict[_Place, None]:
        """Where a kill may be a life's: in its cgroup, in none that is known, by its pids."""
        places = dict(self._within.get(life.cgroup, {})) if life.cgroup is not None else {}
        places |= dict.fromkeys(_key(told.event) for told in named)
        if _NOWHERE in self._by_cgroup:
            places[_NOWHERE] = None
        return places

    def _put(self, told: _Told) -> None:
        place = _key(told.event)
        kills = self._by_cgroup.pop(place, None) or _InCgroup()
        self._by_cgroup[place] = kills
        for path in _lineage(place[0]):
            self._within.setdefault(path, {})[place] = None
        kills.recent.append(told)
        self._name(told)
        if len(kills.recent) > RECENT:
            oldest = kills.recent.popleft()
            kills.older += oldest.event.kill_count or 0
            kills.older_time = _time(oldest.event)
            self._forget(oldest)
        if len(self._by_cgroup) > MAX_CGROUPS:
            self._drop(next(iter(self._by_cgroup)))

    def _drop(self, place: _Place) -> None:
        for told in self._by_cgroup.pop(place).recent:
            self._forget(told)
        for path in _lineage(place[0]):
            places = self._within[path]
            del places[place]
            if not places:
                del self._within[path]

    def _forget(self, told: _Told) -> None:
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


def concerns(life: Life, event: OomKill) -> bool:
    """May a kill, or what amends one, change the verdict on this life's exit?"""
    if event.victim_cgroup is None:
        return True
    pids = {victim.pid for victim in event.victims}
    return _is_own(life, event.victim_cgroup, event.victim_cgroup_id) or life.pid in pids


def _lineage(path: str | None) -> Iterator[str]:
    """A cgroup and those around it, up to the root; nothing for none."""
    while path:
        yield path
        path = path.rpartition("/")[0] or ("/" if path != "/" else None)


def _key(event: OomKill) -> _Place:
    if event.victim_cgroup is None:
        return _NOWHERE
    return (event.victim_cgroup, event.victim_cgroup_id)


def _merged(kill: OomKill, amendment: OomKill) -> OomKill:
    return replace(
        kill,
        victim_cgroup=kill.victim_cgroup or amendment.victim_cgroup,
        victim_cgroup_id=kill.victim_cgroup_id or amendment.victim_cgroup_id,
        limit_cgroup=amendment.limit_cgroup or kill.limit_cgroup,
        scope=amendment.scope if amendment.scope is not Scope.UNKNOWN else kill.scope,
        group_kill=kill.group_kill if amendment.group_kill is None else amendment.group_kill,
        occur_time=kill.occur_time or amendment.occur_time,
        victims=tuple({v.pid: v for v in (*kill.victims, *amendment.victims)}.values()),
        candidates=() if amendment.victim_cgroup is not None else kill.candidates,
    )


def _time(kill: OomKill) -> int:
    return kill.occur_time or kill.detect_time


def _is_own(life: Life, path: str | None, cgroup_id: int | None) -> bool:
    """Did it happen in the life's cgroup, or in one nested in it?"""
    if path is None or life.cgroup is None:
        return False
    if path == life.cgroup:
        return cgroup_id is None or life.cgroup_id is None or cgroup_id == life.cgroup_id
    return is_within(path, life.cgroup)


def _alive(life: Life, path: str | None, time: int) -> bool:
    """Did the life last at a time? Asked of a nested cgroup: a path alone fits several lives."""
    if path == life.cgroup and life.cgroup_id is not None:
        return True
    return time >= life.seen_time - NESTED_MICROSECONDS and (
        life.ended_time is None or time <= life.ended_time + NESTED_MICROSECONDS
    )


def _as_seen_from(
    life: Life,
    told: _Told,
    own: bool,
    sharing: int,
    roles: dict[int, VictimRole],
    exit_time: int,
) -> KillOfLife | None:
    event = told.event
    pids = {victim.pid for victim in event.victims}
    mine = bool(pids & roles.keys()) or (life.pid is not None and life.pid in pids)
    mine = mine and _alive(life, None, _time(event))
    candidates = 1
    if own and not mine and not _alive(life, event.victim_cgroup, _time(event)):
        return None
    if own and not mine and sharing > 1:
        if _all_named(event):
            return None
        candidates = sharing
    if not own and not mine:
        if event.victim_cgroup is not None or not _is_candidate(life, event):
            return None
        candidates = len(event.candidates) + (event.candidates_omitted or 0)
        # A single candidate is none that is known for certain.
        candidates = max(candidates, 2)
    main = _main_process(life, event, roles)
    return KillOfLife(
        time=event.occur_time or min(event.detect_time, max(exit_time, event.occur_after or 0)),
        kill_count=event.kill_count or 0,
        words=_words(event),
        revision=told.revision,
        main_process=main,
        whole_group=bool(event.group_kill) and event.victim_cgroup == life.cgroup,
        candidates=candidates,
        role=next((roles[pid] for pid in sorted(pids & roles.keys())), None),
        confidence=event.confidence,
    )


def _is_candidate(life: Life, event: OomKill) -> bool:
    cgroup = life.cgroup
    return cgroup is not None and any(is_within(path, cgroup) for path in event.candidates)


def _all_named(event: OomKill) -> bool:
    # The kernel counts the first victim of a group twice, as a rule.
    twice = 1 if event.group_kill else 0
    return len(event.victims) >= max(1, (event.kill_count or 0) - twice)


def _main_process(life: Life, event: OomKill, roles: dict[int, VictimRole]) -> bool | None:
    pids = {victim.pid for victim in event.victims}
    if any(roles.get(pid) is VictimRole.SENTRY for pid in pids):
        return True
    if not roles and life.pid is not None and life.pid in pids:
        return True
    # Who began first in a cgroup nested in it is the main process of what lives there.
    first = event.victim_cgroup == life.cgroup and any(v.main_process for v in event.victims)
    if first and life.pid is None:
        return True
    if _all_named(event) and (life.pid is not None or roles):
        # Of a sandbox, only the processes that are known by their pid are known to be others.
        return None if roles and not pids <= roles.keys() else False
    return None


def _words(event: OomKill) -> str:
    names = [f"{victim.comm or 'pid'}[{victim.pid}]" for victim in event.victims[:_MAX_WORDS]]
    if len(event.victims) > _MAX_WORDS:
        names.append(f"{len(event.victims) - _MAX_WORDS} more")
    who = ", ".join(names)
    return " ".join(word for word in (who, _where(event)) if word)


def _where(event: OomKill) -> str:
    match event.scope:
        case Scope.CONTAINER_LIMIT:
            limit = event.memory.limit_bytes if event.memory else None
            return "at its own limit" + (f" of {size(limit)}" if limit else "")
        case Scope.ANCESTOR_LIMIT:
            return f"at the limit of {event.limit_cgroup or 'a cgroup above it'}"
        case Scope.DESCENDANT:
            return f"at the limit of {event.limit_cgroup or 'a cgroup'} in it"
        case Scope.NODE:
            return "as the node ran out of memory"
        case Scope.UNKNOWN:
            return ""
        case _:
            assert_never(event.scope)
