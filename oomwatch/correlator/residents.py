"""Which process lived in which cgroup a moment ago: for victims that /proc no longer knows.

A pid alone is no identity, it is used again. So what was seen holds for a kill only where nothing
speaks against it: the same name; seen in one cgroup alone; seen no longer ago than ten seconds; and
not found missing from that cgroup at a look before the kill. A process that a look finds some time
after the kill is another one. Where any of this fails nothing is said: a name without a cgroup is
better than a wrong one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from oomwatch.correlator.names import READ_LATE_MICROSECONDS, SAME_KILL_MICROSECONDS, Name
from oomwatch.events import Cgroup, Victim
from oomwatch.observations import ProcessesSeen, Resident, VictimNamed

KEEP_MICROSECONDS = 10_000_000
FORGET_MICROSECONDS = KEEP_MICROSECONDS + READ_LATE_MICROSECONDS
"""By then a witness that read late has named whom it names."""

MAX_RESIDENTS = 8192
MAX_CGROUPS = 4096

_Life = tuple[int, int]


@dataclass(slots=True)
class _Stay:
    """A process in a cgroup: between which looks, and since which one it was missing there.

    `moved` says that it, or another of its pid, was seen in another cgroup as well.
    """

    cgroup: Cgroup
    resident: Resident
    first: int
    last: int
    missing: int | None = None
    moved: bool = False


class Residents:
    """The processes of cgroups that were at their limits lately."""

    def __init__(self) -> None:
        self._stays: OrderedDict[int, _Stay] = OrderedDict()
        self._pids: OrderedDict[int, frozenset[int]] = OrderedDict()
        self._oldest: OrderedDict[int, _Life] = OrderedDict()

    def seen(self, look: ProcessesSeen) -> None:
        """Take in a look; one that comes late, with command lines, may be older than the last."""
        here = look.cgroup.id
        for resident in look.residents:
            self._take(look, self._aged(here, resident))
        if look.complete:
            now = frozenset(resident.pid for resident in look.residents)
            for pid in self._pids.get(here, frozenset()) - now:
                stay = self._stays.get(pid)
                if stay is not None and stay.cgroup.id == here and stay.last < look.time:
                    stay.missing = stay.missing or look.time
            self._pids[here] = now
            self._pids.move_to_end(here)
        self._forget(look.time - FORGET_MICROSECONDS)
        _bound(self._pids, MAX_CGROUPS)
        _bound(self._oldest, MAX_CGROUPS)
        _bound(self._stays, MAX_RESIDENTS)

    def removed(self, cgroup: Cgroup) -> None:
        """A cgroup is gone: nobody is looked for in it again. Who lived in it may yet be named."""
        self._pids.pop(cgroup.id, None)
        self._oldest.pop(cgroup.id, None)

    def word_on(self, name: Name) -> VictimNamed | None:
        """Return what is known of a victim beside what its witnesses say; `None` for nothing new.

        It is one more witness of the same name: never a name by itself.
        """
        victim = name.victim
        stay = self._stays.get(victim.pid)
        if stay is None or not self._holds(stay, name, victim):
            return None
        path, resident, main = stay.cgroup.path, stay.resident, stay.resident.oldest
        if main and stay.first > name.time:
            main = None  # what was older may have been killed with it, and be gone by then
        adds = (
            name.cgroup is None
            or (resident.cmdline and not victim.cmdline)
            or (main is not None and victim.main_process is None)
        )
        if not adds:
            return None
        comm = f" ({resident.comm})" if resident.comm is not None else ""
        return VictimNamed(
            source="memory_events",
            sequence=0,
            time=name.time,
            seen_time=stay.last,
            victim=Victim(pid=victim.pid, cmdline=resident.cmdline, main_process=main),
            detail=f"pid {victim.pid}{comm} in cgroup.procs of {path}",
            cgroup=path,
        )

    def _take(self, look: ProcessesSeen, resident: Resident) -> None:
        stay = self._stays.get(resident.pid)
        if stay is None or look.time - stay.last > KEEP_MICROSECONDS:
            stay = _Stay(look.cgroup, resident, look.time, look.time)
        elif stay.cgroup is not look.cgroup:
            stay.moved = True
            stay.last = max(stay.last, look.time)
        elif not _same(stay.resident, resident):
            if look.time < stay.last:
                return
            stay = _Stay(look.cgroup, resident, look.time, look.time)
        else:
            stay.resident = _merged(stay.resident, resident, newer=look.time >= stay.last)
            stay.last = max(stay.last, look.time)
        self._stays[resident.pid] = stay
        self._stays.move_to_end(resident.pid)

    def _forget(self, before: int) -> None:
        while self._stays:
            pid, stay = next(iter(self._stays.items()))
            if stay.last >= before:
                return
            del self._stays[pid]

    def _aged(self, cgroup_id: int, resident: Resident) -> Resident:
        """A cgroup has one first process in its life: who comes after it is not the first."""
        if resident.started is None:
            return resident
        life = (resident.pid, resident.started)
        if resident.oldest:
            first = self._oldest.setdefault(cgroup_id, life)
            self._oldest.move_to_end(cgroup_id)
            return resident if first == life else replace(resident, oldest=False)
        return resident

    @staticmethod
    def _holds(stay: _Stay, name: Name, victim: Victim) -> bool:
        """Is it certain that this is the process that was killed?"""
        if stay.moved or (name.cgroup is not None and name.cgroup != stay.cgroup.path):
            return False
        if stay.missing is not None and name.time > stay.missing:
            return False
        if name.time + SAME_KILL_MICROSECONDS < stay.first:
            return False
        if name.time - stay.last > KEEP_MICROSECONDS:
            return False
        comm = stay.resident.comm
        if comm is None:  # it died while it was looked up
            return abs(name.time - stay.last) <= SAME_KILL_MICROSECONDS
        return comm == victim.comm


def _same(known: Resident, seen: Resident) -> bool:
    return None in (known.started, seen.started) or known.started == seen.started


def _merged(known: Resident, seen: Resident, *, newer: bool) -> Resident:
    """What both looks say; that it is the oldest, the first look alone.

    A process that is called otherwise than before has begun another program: its command line of
    before is no longer true.
    """
    oldest = False if seen.oldest is False else known.oldest
    if known.comm is None or (newer and seen.comm not in (None, known.comm)):
        return replace(seen, oldest=oldest)
    if seen.comm == known.comm and seen.cmdline:
        return replace(known, cmdline=seen.cmdline, oldest=oldest)
    return replace(known, oldest=oldest)


def _bound(kept: OrderedDict[int, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
