"""The kills between their first sight and their telling, one of a cgroup at a time.

Each open exit asks for them with each thing that is learned, and as a node runs out, hundreds of
both are open at once: they are found by the cgroups around them, and never gone through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oomwatch.correlator.attribution import Attribution
from oomwatch.correlator.names import Name
from oomwatch.correlator.path_index import PathIndex
from oomwatch.events import Cgroup, MemoryUsage
from oomwatch.observations import CounterReading


@dataclass(slots=True)
class Pending:
    """A rise that was seen and is not told yet."""

    cgroup: Cgroup
    counter_id: int
    count: int
    first: CounterReading
    told_before: int
    opened: float
    last_rise: float
    recovered: bool
    deadline: float | None = None
    measuring: bool = False
    measured: bool = False
    attribution: Attribution | None = None
    usage: MemoryUsage | None = None

    def may_be(self, name: Name) -> bool:
        """Can a name be of this kill?"""
        if name.cgroup != self.cgroup.path:
            return False
        return name.may_be_in(self.cgroup, self.counted)

    @property
    def counted(self) -> tuple[int | None, int]:
        """Between which looks it was."""
        return self.first.looked_at, self.first.time


class PendingKills:
    """The kills that are open, in the order in which they were seen."""

    def __init__(self) -> None:
        self._by_id: dict[int, Pending] = {}
        self._within: PathIndex[int] = PathIndex()

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, pending: Pending) -> None:
        """Open a kill in a cgroup that has none open."""
        cgroup = pending.cgroup
        self._by_id[cgroup.id] = pending
        self._within.add(cgroup.path, cgroup.id)

    def get(self, cgroup_id: int) -> Pending | None:
        """Return the kill that is open in a cgroup."""
        return self._by_id.get(cgroup_id)

    def below(self, path: str | None) -> list[Pending]:
        """Return those at and below a path; none where it is not known."""
        return [self._by_id[cgroup_id] for cgroup_id in self._within.below(path)]

    def remove(self, cgroup_id: int) -> None:
        """Close what is open in a cgroup, if anything is."""
        pending = self._by_id.pop(cgroup_id, None)
        if pending is not None:
            self._within.remove(pending.cgroup.path, cgroup_id)
