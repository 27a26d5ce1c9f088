"""Victims that a witness has named: which witnesses mean the same one, and whose kill each is.

The kernel's log and its tracepoint name; they do not count. A name is claimed once, by the kill
that a counter showed in its cgroup. One kill has up to two records: a hit of the tracepoint and a
line of the log, of one pid within moments; the first victim of a group has its line twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import takewhile

from oomwatch.events import Cgroup, Constraint, Invoker, Victim, is_within
from oomwatch.observations import CgroupRemoved, VictimNamed

SAME_KILL_MICROSECONDS = 2_000_000
"""Two witnesses that name one pid within this time mean one kill: pids are not reused so soon."""

READ_LATE_MICROSECONDS = 30_000_000
"""And so does a witness's first word on it within this, of a process of the same name: one who read
late, on a host that stood still, may date it by as much. Seen: a line that was dated 5 s after its
kill became a second victim, and took the kill of another cgroup."""

SAME_KILL_SECONDS = SAME_KILL_MICROSECONDS / 1e6
"""And so does its first word that comes within this after the other's, whatever it is dated: the
clock may have been set between the two."""

CLOCKS_APART_SECONDS = 0.1
"""How far a witness's clock, brought to ours, may be off at most while nobody stood still."""

KEEP_SECONDS = 60.0
"""How long a name waits for its kill. Some never get one: a victim that was exiting already is
named by the tracepoint, and counted by nobody."""

MAX_NAMES = 4096


@dataclass(slots=True)
class Name:
    """One killed process, with all that its witnesses said."""

    records: list[VictimNamed]
    arrived: float
    claimed: bool = False

    @property
    def pid(self) -> int:
        """The process, by its pid on this host."""
        return self.records[0].victim.pid

    @property
    def victim(self) -> Victim:
        """The process: each field from the first witness that has it, the log before the others."""
        merged, *others = (record.victim for record in self._by_weight())
        for other in others:
            known = {
                field.name: getattr(other, field.name)
                for field in fields(other)
                if getattr(merged, field.name) in (None, ())
            }
            merged = replace(merged, **known)
        return merged

    @property
    def cgroup(self) -> str | None:
        """Where it lived: as the kernel printed it, else as /proc showed it."""
        return next((r.cgroup for r in self._by_weight() if r.cgroup is not None), None)

    @property
    def certain(self) -> bool:
        """Is that certain, or only likely?"""
        return all(r.certain for r in self._by_weight()[:1])

    @property
    def printed(self) -> bool:
        """Did the kernel itself say where it lived, and no more than one cgroup fit that?"""
        return any(r.printed and r.certain and r.cgroup is not None for r in self.records)

    @property
    def limit_cgroup(self) -> str | None:
        """Whose limit was hit, if the kernel printed that."""
        return next((r.limit_cgroup for r in self.records if r.limit_cgroup is not None), None)

    @property
    def node_wide(self) -> bool:
        """Did the kernel print that the node (or a cpuset, or a policy) had run out?"""
        return any(record.node_wide for record in self.records)

    @property
    def constraint(self) -> Constraint | None:
        """What bounded the allocation, if the kernel printed that."""
        return next((r.constraint for r in self.records if r.constraint is not None), None)

    @property
    def invoker(self) -> Invoker | None:
        """Whose allocation failed, if the kernel printed that."""
        return next((r.invoker for r in self.records if r.invoker is not None), None)

    @property
    def group_kill(self) -> bool | None:
        """Was it killed with its group, if the kernel printed that?"""
        return next((r.group_kill for r in self.records if r.group_kill is not None), None)

    @property
    def group_cgroup(self) -> str | None:
        """The cgroup that was killed as one, if the kernel printed it: the victim lived below."""
        return next((r.group_cgroup for r in self.records if r.group_cgroup is not None), None)

    @property
    def time(self) -> int:
        """When the kernel did it: the earliest that a witness says."""
        return min(record.time for record in self.records)

    @property
    def happened_at(self) -> float:
        """When that was, in monotonic seconds: its age when it was read, which no step of the wall
        clock changes, before it arrived.
        """
        first = self.records[0]
        return self.arrived - max(0, first.seen_time - first.time) / 1e6

    def may_be_in(self, cgroup: Cgroup, counted: tuple[int | None, int]) -> bool:
        """Can this be what a cgroup counted between two looks, or was it in an earlier life?

        `counted` is when it was looked at before the kill and after (`None` where nobody had looked
        before), microseconds of wall time: they say nothing if that was set back meanwhile.
        """
        if self.happened_at < cgroup.absent_at - CLOCKS_APART_SECONDS:
            return False
        before, after = counted
        if before is None or before > after:
            return True
        return self.time >= before - CLOCKS_APART_SECONDS * 1e6

    @property
    def kills(self) -> int:
        """How often the kernel counted it: once for each of its lines, and once at least."""
        return max(1, len({_line(r) for r in self.records if r.source == "kernel_log"}))

    def named_by(self, source: str) -> bool:
        """Has this witness named it?"""
        return any(record.source == source for record in self.records)

    def add(self, record: VictimNamed) -> bool:
        """Take in one more record; False if it is one of these, and tells nothing more."""
        known = any(_line(each) == _line(record) for each in self.records)
        before = self._said() if known else None
        self.records.append(record)
        return self._said() != before

    def may_hold(self, record: VictimNamed, now: float) -> bool:
        """May a record of the same pid that comes now be of this kill?"""
        apart = abs(self.time - record.time)
        if apart <= SAME_KILL_MICROSECONDS:
            return True
        comms = {self.victim.comm, record.victim.comm} - {None}
        first = not self.named_by(record.source)
        near = apart <= READ_LATE_MICROSECONDS or now - self.arrived <= SAME_KILL_SECONDS
        return first and near and len(comms) <= 1

    def _said(self) -> tuple[object, ...]:
        return (
            self.victim,
            self.cgroup,
            self.limit_cgroup,
            self.node_wide,
            self.constraint,
            self.invoker,
            self.group_kill,
            self.group_cgroup,
        )

    def _by_weight(self) -> list[VictimNamed]:
        return sorted(self.records, key=lambda r: (r.cgroup is None, not r.certain, not r.printed))


def _line(record: VictimNamed) -> tuple[str, int, bool]:
    """Which line of a log it is; of one line, later ones may tell more."""
    return record.source, record.sequence, record.repeated


def life_of(name: Name, removed: Iterable[CgroupRemoved]) -> int | None:
    """The inode of the one cgroup, of those of its path that were removed, in which it can have
    been; `None` where that is not known.
    """
    fit = {
        one.cgroup.id
        for one in removed
        if one.cgroup.path == name.cgroup
        and name.time <= one.time + CLOCKS_APART_SECONDS * 1e6
        and name.may_be_in(one.cgroup, counted=(one.looked_at, one.time))
    }
    return fit.pop() if len(fit) == 1 and min(fit) > 0 else None


class Names:
    """The names of the last moments, in the order of the kills."""

    def __init__(self) -> None:
        self._names: list[Name] = []
        self._last: dict[int, Name] = {}
        """The latest of each pid: in a storm there are thousands, and each is asked for often."""

    def add(self, record: VictimNamed, now: float) -> Name | None:
        """Take in a record: a new name, or another witness of one that is known.

        `None` where it tells nothing that was not known.
        """
        self._forget(now)
        known = self._last.get(record.victim.pid)
        if known is not None and known.may_hold(record, now):
            return known if known.add(record) else None
        name = Name([record], now)
        self._put(name)
        return name

    def recall(self, names: list[Name]) -> None:
        """Take in names that were told before a restart: another witness of one is no new one."""
        for name in names:
            self._put(name)

    def _put(self, name: Name) -> None:
        self._names.append(name)
        self._last[name.pid] = name

    def waiting(self, now: float) -> list[VictimNamed]:
        """Return the records of the names that may still find their kill."""
        return [
            record
            for name in self._names
            if not name.claimed and now - name.arrived < KEEP_SECONDS
            for record in name.records
        ]

    def strays(self) -> list[Name]:
        """Return the names that no kill has claimed, and of which nobody knows the cgroup."""
        return [name for name in self._names if not name.claimed and name.cgroup is None]

    def unclaimed(self, cgroup: Cgroup, counted: tuple[int | None, int]) -> list[Name]:
        """Return the names that no kill has claimed, of what a cgroup counted between two looks."""
        path = cgroup.path
        return [
            name
            for name in self._names
            if not name.claimed and name.cgroup == path and name.may_be_in(cgroup, counted)
        ]

    def unclaimed_below(self, cgroup: str, since: int) -> list[Name]:
        """Return the names that no kill has claimed, of a cgroup and those below it.

        Only those killed after `since`: what was killed before has been told, with its name or not.
        """
        return [
            name
            for name in self._names
            if not name.claimed
            and name.cgroup
            and name.certain
            and name.time > since
            and is_within(name.cgroup, cgroup)
        ]

    def lately(self, pids: frozenset[int]) -> list[Name]:
        """Return the names of these pids among those of the last moments, claimed or not."""
        if not self._names:
            return []
        since = self._names[-1].arrived - SAME_KILL_SECONDS
        return [
            name
            for name in takewhile(lambda name: name.arrived >= since, reversed(self._names))
            if name.pid in pids
        ]

    @staticmethod
    def first(names: list[Name], kills: int) -> list[Name]:
        """Return the first names that make up no more than so many kills.

        Those that are only likely are taken where there are no more of them than kills.
        """
        if sum(name.kills for name in names) > kills:
            names = [name for name in names if name.certain]
        taken: list[Name] = []
        for name in names:
            if kills <= 0:
                break
            taken.append(name)
            kills -= name.kills
        return taken

    def _forget(self, now: float) -> None:
        stale = 0
        for name in self._names:
            if now - name.arrived < KEEP_SECONDS and len(self._names) - stale <= MAX_NAMES:
                break
            stale += 1
            if self._last.get(name.pid) is name:
                del self._last[name.pid]
        del self._names[:stale]
