"""Kills that only an ancestor's counter still knows: who is suspected, and when to believe it.

A cgroup that is removed takes its own counter along; its parent's hierarchical counter keeps the
sum (mm/memcontrol.c, memcg_memory_event: the leaf is raised first, then each ancestor, and
/proc/vmstat one line before all of them). So a count read *before* the counters below it can only
be too small, but for the node's, which leads by a few instructions: a residual is believed when a
second look, a moment later, shows it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from oomwatch.events import Cgroup

MAX_SUSPECTS = 4096
"""Removed cgroups remembered below one survivor; a clean audit forgets them long before."""


@dataclass(slots=True)
class Doubt:
    """A residual that was seen once, and when the second look is due (monotonic seconds).

    `suspects` are those of the first look: a cgroup removed later was still there to be read then.
    """

    cgroup: Cgroup
    kills: int
    due: float
    suspects: tuple[Cgroup, ...]
    suspects_omitted: int
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Residual:
    """Kills to be told below a survivor, and the removed cgroups that they may have happened in."""

    survivor: Cgroup
    kills: int
    suspects: tuple[Cgroup, ...]
    suspects_omitted: int


@dataclass(slots=True)
class _Suspects:
    cgroups: dict[int, Cgroup] = field(default_factory=dict)
    omitted: int = 0


class Residuals:
    """The removed cgroups that may hold untold kills, by nearest survivor, and the open doubts."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._suspects: dict[int, _Suspects] = {}
        self._doubts: dict[int, Doubt] = {}

    def removed(self, cgroup: Cgroup) -> None:
        """Suspect a removed cgroup, and whatever was suspected below it, at its parent."""
        parent = cgroup.parent
        below = self._suspects.pop(cgroup.id, None)
        self._doubts.pop(cgroup.id, None)
        if parent is None:
            return
        suspects = self._suspects.setdefault(parent.id, _Suspects())
        if below is not None:
            suspects.omitted += below.omitted
            self._add(suspects, below.cgroups.values())
        self._add(suspects, (cgroup,))

    def look(self, survivor: Cgroup, residual: int, now: float) -> Residual | None:
        """Take in one look at a survivor's residual; return what may be told of it now."""
        doubt = self._doubts.get(survivor.id)
        if residual <= 0:
            self._doubts.pop(survivor.id, None)
            if residual == 0:
                self._suspects.pop(survivor.id, None)
            return None
        if doubt is None:
            self._doubt(survivor, residual, now)
            return None
        if now < doubt.due:
            return None
        del self._doubts[survivor.id]
        kills = min(residual, doubt.kills)
        remaining = self._suspects.get(survivor.id)
        if remaining is not None:
            for cgroup in doubt.suspects:
                remaining.cgroups.pop(cgroup.id, None)
            remaining.omitted -= doubt.suspects_omitted
        if residual > kills:
            self._doubt(survivor, residual - kills, now)
        return Residual(survivor, kills, doubt.suspects, doubt.suspects_omitted)

    def _doubt(self, survivor: Cgroup, kills: int, now: float) -> None:
        suspects = self._suspects.get(survivor.id) or _Suspects()
        self._doubts[survivor.id] = Doubt(
            survivor,
            kills,
            now + self._settle_seconds,
            tuple(suspects.cgroups.values()),
            suspects.omitted,
        )

    @property
    def deadline(self) -> float | None:
        """When the next second look is due; `None` while nothing is in doubt."""
        return min((doubt.due for doubt in self._doubts.values() if not doubt.asked), default=None)

    def take_due(self, now: float) -> list[Cgroup]:
        """Return the cgroups whose second look is due, each once."""
        due = [doubt for doubt in self._doubts.values() if doubt.due <= now and not doubt.asked]
        for doubt in due:
            doubt.asked = True
        return [doubt.cgroup for doubt in due]

    @staticmethod
    def _add(suspects: _Suspects, cgroups: Iterable[Cgroup]) -> None:
        for cgroup in cgroups:
            if len(suspects.cgroups) < MAX_SUSPECTS:
                suspects.cgroups[cgroup.id] = cgroup
            else:
                suspects.omitted += 1
