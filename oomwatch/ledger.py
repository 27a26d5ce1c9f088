"""The ledger: which kills were told, for which counter, so that none is lost or told twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What was told of one cgroup, as it is persisted. Cgroups with nothing but zeros have none.

    `cgroup_id` is the inode of the directory, `counter_id` that of its memory.events.local (0 where
    it has none); `told` the kills told for the cgroup itself, baseline included; `accounted` those
    told for it and everything below it, likewise; `oom` and `group_kill` are the local counters of
    those names up to which limits and group kills have been attributed.
    """

    cgroup_id: int
    counter_id: int
    told: int
    accounted: int
    oom: int
    group_kill: int


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """Rows to write and cgroup ids to forget, in the same transaction as the events they belong to."""

    rows: tuple[LedgerRow, ...] = ()
    removed: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.removed)
