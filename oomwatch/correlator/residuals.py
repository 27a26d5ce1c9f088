"""Kills that only an ancestor's counter still knows: who is suspected, and when to believe it.

A cgroup that is removed takes its own counter along; its parent's hierarchical counter keeps the
sum (mm/memcontrol.c, memcg_memory_event: the leaf is raised first, then each ancestor, and
/proc/vmstat one line before all of them). So a count read *before* the counters below it can only
be too small, but for the node's, which leads by a few instructions: a residual is believed when a
second look, a moment later, shows it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from oomwatch.events import Cgroup, upwards
from oomwatch.observations import CgroupRemoved

MAX_LOOKS = 20
"""Where kills go on and on, a residual is told after so many looks: half a second."""

LEAD_MICROSECONDS = 10_000
"""How long a kill may be in its cgroup's own counter before it is in the sums above: far less."""

ASK_AGAIN_SECONDS = 0.5
"""How soon a second look that nobody could make is asked for again."""

SET_BACK_MICROSECONDS = 60_000_000
"""A sum that seems to have been read this long before what is known already was read after the
clock was set back. Else all would be unsure below it until the clock is where it was."""

MAX_SUSPECTS = 4096
"""Removed cgroups remembered below one survivor; a clean audit forgets them long before."""


@dataclass(slots=True)
class Doubt:
    """A residual that was seen once, and when the second look is due (monotonic seconds).

    It is asked for at `ask_at`, and again until somebody has looked: a timer may be early, a
    file not to be read.

    `accounted` is what was told below the cgroup at that look. Had anything been told since, the
    second look could be at another kill than the first: then it counts as a first one, but for
    `looks` that never come to rest.
    """

    cgroup: Cgroup
    kills: int
    due: float
    accounted: int
    looks: int = 1
    ask_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Residual:
    """Kills to be told below a survivor, and the removed cgroups that they may have happened in.

    They happened after `since`, when its sum was last in balance (0 if that is not known). Where
    other kills were told between the looks, or cgroups may have come and gone unseen, it is not
    `settled`: then even a single suspect is no more than that.
    """

    survivor: Cgroup
    kills: int
    since: int
    suspects: tuple[CgroupRemoved, ...]
    suspects_omitted: int
    settled: bool


@dataclass(slots=True)
class _Suspects:
    """Removed cgroups, by inode."""

    seen: dict[int, CgroupRemoved] = field(default_factory=dict)
    omitted: int = 0

    def add(self, removed: CgroupRemoved) -> None:
        if len(self.seen) < MAX_SUSPECTS:
            self.seen[removed.cgroup.id] = removed
        else:
            self.omitted += 1


class Residuals:
    """The removed cgroups that may hold untold kills, by nearest survivor, and the open doubts."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._suspects: dict[int, _Suspects] = {}
        self._doubts: dict[int, Doubt] = {}
        self._passed_up: dict[int, Cgroup] = {}
        """Those whose sum is to be read, since a doubt below went with the cgroup it was about."""
        self._doubted: set[str] | None = None
        """The paths of both, until one of them changes: it is asked far more often than that."""
        self._balanced: dict[int, int] = {}
        self._rose: dict[int, int] = {}
        self._unsure: set[int] = set()
        self.unseen = False
        """May cgroups have come and gone that nobody saw, and the sums not agreed since?

        So it is after a start that goes on from an earlier one, and after inotify overflowed.
        """

    def rose(self, cgroup: Cgroup, time: int) -> None:
        """Note that a cgroup's own counter, read at `time`, showed a kill."""
        for ancestor in cgroup.lineage():
            self._rose[ancestor.id] = time

    def came_and_went(self, survivor: Cgroup) -> None:
        """Note that below it somebody was killed and went unseen: it may be any kill's cgroup."""
        self._unsure.add(survivor.id)

    def removed(self, removed: CgroupRemoved) -> None:
        """Suspect a removed cgroup, and whatever was suspected below it, at its parent."""
        cgroup, self._doubted = removed.cgroup, None
        below = self._suspects.pop(cgroup.id, None)
        doubts = (self._doubts.pop(cgroup.id, None), self._passed_up.pop(cgroup.id, None))
        self._balanced.pop(cgroup.id, None)
        self._rose.pop(cgroup.id, None)
        unsure = cgroup.id in self._unsure
        self._unsure.discard(cgroup.id)
        if cgroup.parent is None:
            return
        if unsure:
            self._unsure.add(cgroup.parent.id)
        if doubts != (None, None):
            self._passed_up[cgroup.parent.id] = cgroup.parent
        suspects = self._suspects.setdefault(cgroup.parent.id, _Suspects())
        if below is not None:
            suspects.omitted += below.omitted
            for suspect in below.seen.values():
                suspects.add(suspect)
        suspects.add(removed)

    def gone(self, survivor: Cgroup) -> None:
        """Leave a residual to the sum above: its cgroup went between the look and the doubt."""
        self._doubted = None
        self._doubts.pop(survivor.id, None)

    def summed(self, asked: Cgroup, read: Cgroup) -> None:
        """Take in that a cgroup's sum was read, or that of the nearest above it which has one."""
        self._doubted = None
        for cgroup in asked.lineage():
            self._passed_up.pop(cgroup.id, None)
            if cgroup is read:
                return

    def look(
        self, survivor: Cgroup, residual: int, accounted: int, time: int, now: float
    ) -> Residual | None:
        """Take in a survivor's residual, by a sum read at `time`; return what may be told of it.

        Whatever was removed since the sums were last in balance is a suspect, also what was removed
        after the first look: its removal may just not have been told yet.
        """
        self._mind_the_clock(survivor, time)
        self._doubted = None
        doubt = self._doubts.get(survivor.id)
        if residual <= 0:
            self._doubts.pop(survivor.id, None)
            if residual == 0:
                self._in_balance(survivor, time)
            return None
        if doubt is None:
            self._doubt(survivor, residual, accounted, now)
            return None
        if now < doubt.due:
            doubt.ask_at = doubt.due
            return None
        settled = accounted == doubt.accounted
        if not settled and doubt.looks < MAX_LOOKS:
            self._doubt(survivor, residual, accounted, now, doubt.looks + 1)
            return None
        del self._doubts[survivor.id]
        kills = min(residual, doubt.kills)
        suspects = self._suspects.get(survivor.id) or _Suspects()
        told = Residual(
            survivor,
            kills,
            self._balanced.get(survivor.id, 0),
            tuple(suspects.seen.values()),
            suspects.omitted,
            settled and not self.unseen and survivor.id not in self._unsure,
        )
        if residual > kills:
            self._doubt(survivor, residual - kills, accounted + kills, now)
        elif self.proves(survivor, time):
            self._in_balance(survivor, time)
        else:
            # Whoever this was stays a suspect, so that the next one is not told of it alone.
            self._unsure.add(survivor.id)
        return told

    def _mind_the_clock(self, survivor: Cgroup, time: int) -> None:
        """Where the clock was set back: all that is known is of now at the latest.

        Since when a sum was in balance is then not known, and any name may be of what it holds.
        """
        known = max(self._rose.get(survivor.id, 0), self._balanced.get(survivor.id, 0))
        if known - time < SET_BACK_MICROSECONDS:
            return
        self._rose = {node: min(rose, time) for node, rose in self._rose.items()}
        self._balanced = {node: then for node, then in self._balanced.items() if then <= time}
        for suspects in self._suspects.values():
            for node, removed in suspects.seen.items():
                suspects.seen[node] = replace(removed, time=min(removed.time, time))

    def _doubt(
        self, survivor: Cgroup, kills: int, accounted: int, now: float, looks: int = 1
    ) -> None:
        due = now + self._settle_seconds
        self._doubts[survivor.id] = Doubt(survivor, kills, due, accounted, looks, due)

    def proves(self, survivor: Cgroup, time: int) -> bool:
        """Does a sum that agrees, read at `time`, prove that all it held is told?

        Not where a kill below was seen since: that may be missing in the sum, and another that
        nobody saw be there in its place.
        """
        return self._rose.get(survivor.id, 0) < time - LEAD_MICROSECONDS

    def _in_balance(self, survivor: Cgroup, time: int) -> None:
        """All that the sum held at `time` is told: what was gone by then has no more to say."""
        if not self.proves(survivor, time):
            return
        self._unsure.discard(survivor.id)
        self._balanced[survivor.id] = time
        suspects = self._suspects.get(survivor.id)
        if suspects is None:
            return
        for cgroup_id, removed in list(suspects.seen.items()):
            if removed.time <= time:
                del suspects.seen[cgroup_id]
        if not suspects.seen:
            del self._suspects[survivor.id]

    def in_doubt(self, path: str) -> bool:
        """Is there a residual that may be of this cgroup, and awaits a look?"""
        if self._doubted is None:
            doubts = (doubt.cgroup for doubt in self._doubts.values())
            self._doubted = {cgroup.path for cgroup in (*doubts, *self._passed_up.values())}
        return bool(self._doubted) and any(above in self._doubted for above in upwards(path))

    @property
    def deadline(self) -> float | None:
        """When the next second look is to be asked for; `None` while nothing is in doubt."""
        return min((doubt.ask_at for doubt in self._doubts.values()), default=None)

    def take_due(self, now: float) -> list[Cgroup]:
        """Return the cgroups whose second look is to be asked for now."""
        due = [doubt for doubt in self._doubts.values() if doubt.ask_at <= now]
        for doubt in due:
            doubt.ask_at = now + ASK_AGAIN_SECONDS
        return [doubt.cgroup for doubt in due]
