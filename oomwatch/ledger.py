"""The ledger: which kills were told, for which counter, so that none is lost or told twice.

The kernel keeps two sums for each cgroup: its own kills (memory.events.local) and those of it and
everything below it (memory.events; /proc/vmstat for the real root), in which removed children live
on. The ledger keeps the same two for what was *told*. A kill told for a cgroup adds to its `told`
and to the `accounted` of every cgroup from it to the root; then

    rise     = local count - told          kills of this cgroup that were not told yet
    residual = subtree count - accounted   kills below it that no readable counter showed

Cgroups with nothing but zeros have no row: an idle host costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from oomwatch.events import Cgroup


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What was told of one cgroup, as it is persisted.

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
class LogPlace:
    """Up to where a log's kills were told: what a restart reads again, and what of it is new.

    Places are numbers that rise along the log: the kernel's sequence in /dev/kmsg, the offset in a
    text file, the kernel's stamp in systemd's journal. `log` says of which they are, so that those
    of another one, or of a file that was rotated away, are not taken for its own. Everything before
    `next` was read; of that, the kill lines at `untold` alone are in no event yet. `begin` is where
    reading must begin, so that their reports are read whole, and that of a kill that was underway.
    `stamp` and `wall_time` are the last record's, by the kernel's clock and by ours, in
    microseconds; `None` while none was read, or the log has no stamps.
    """

    log: str
    begin: int
    next: int
    untold: tuple[int, ...] = ()
    stamp: int | None = None
    wall_time: int | None = None


@dataclass(frozen=True, slots=True)
class LedgerChange:
    """Rows to write and cgroup ids to forget, committed with the events they belong to.

    `log` is the place up to which the kernel log was told with these events, `None` where it is
    the one that was committed before.
    """

    rows: tuple[LedgerRow, ...] = ()
    removed: tuple[int, ...] = ()
    log: LogPlace | None = None

    def __bool__(self) -> bool:
        return bool(self.rows or self.removed or self.log)


class Ledger:
    """The sums told so far, and which rows changed since they were last taken to be persisted."""

    def __init__(self, rows: Iterable[LedgerRow] = ()) -> None:
        self._rows: dict[int, _Row] = {row.cgroup_id: _Row(row) for row in rows}
        self._dirty: set[int] = set()
        self._removed: set[int] = set()
        self._accounted = _Column(self._rows, "accounted")
        self._ooms = _Column(self._rows, "oom")

    @property
    def accounted_by_id(self) -> Mapping[int, int]:
        """A live view: kills accounted for by cgroup id, absent where it is 0."""
        return self._accounted

    @property
    def oom_by_id(self) -> Mapping[int, int]:
        """A live view: the local `oom` that was attributed, by cgroup id, absent where it is 0."""
        return self._ooms

    def row(self, cgroup: Cgroup) -> LedgerRow:
        """Return what was told of the cgroup: all zeros where nothing was."""
        row = self._rows.get(cgroup.id)
        return row.frozen() if row is not None else LedgerRow(cgroup.id, 0, 0, 0, 0, 0)

    def told(self, cgroup: Cgroup) -> int:
        """Kills told for the cgroup itself, its baseline included."""
        row = self._rows.get(cgroup.id)
        return row.told if row is not None else 0

    def accounted(self, cgroup: Cgroup) -> int:
        """Kills told for the cgroup and everything below it, its baseline included."""
        row = self._rows.get(cgroup.id)
        return row.accounted if row is not None else 0

    def counter_id(self, cgroup: Cgroup) -> int:
        """The counter that kills of the cgroup were told from; 0 while none is known."""
        row = self._rows.get(cgroup.id)
        return row.counter_id if row is not None else 0

    def oom(self, cgroup: Cgroup) -> int:
        """The local `oom` up to which limits have been attributed."""
        row = self._rows.get(cgroup.id)
        return row.oom if row is not None else 0

    def group_kill(self, cgroup: Cgroup) -> int:
        """The local `oom_group_kill` up to which group kills have been attributed."""
        row = self._rows.get(cgroup.id)
        return row.group_kill if row is not None else 0

    def tell(self, cgroup: Cgroup, kills: int, counter_id: int | None = None) -> None:
        """Book kills told for this cgroup itself."""
        row = self._writable(cgroup)
        row.told += kills
        if counter_id is not None:
            row.counter_id = counter_id
        self.tell_below(cgroup, kills)

    def tell_below(self, survivor: Cgroup, kills: int) -> None:
        """Book kills told for something below this cgroup that no longer has a counter."""
        for cgroup in survivor.lineage():
            self._writable(cgroup).accounted += kills

    def rebase(
        self,
        cgroup: Cgroup,
        *,
        counter_id: int | None = None,
        told: int | None = None,
        accounted: int | None = None,
        oom: int | None = None,
        group_kill: int | None = None,
    ) -> None:
        """Take these counts as told already: a baseline, or a counter that started anew."""
        row = self._writable(cgroup)
        if counter_id is not None:
            row.counter_id = counter_id
        if told is not None:
            row.told = told
        if accounted is not None:
            row.accounted = accounted
        if oom is not None:
            row.oom = oom
        if group_kill is not None:
            row.group_kill = group_kill

    def forget(self, cgroup: Cgroup) -> None:
        """Drop the row of a removed cgroup; what it added to its ancestors stays."""
        if self._rows.pop(cgroup.id, None) is not None:
            self._dirty.discard(cgroup.id)
            self._removed.add(cgroup.id)

    def forget_all_but(self, cgroup_ids: frozenset[int]) -> None:
        """Drop the rows of every cgroup that no longer exists."""
        for cgroup_id in self._rows.keys() - cgroup_ids:
            del self._rows[cgroup_id]
            self._dirty.discard(cgroup_id)
            self._removed.add(cgroup_id)

    def take_changes(self) -> LedgerChange:
        """Return what changed since the last call, to commit with the events it belongs to."""
        change = LedgerChange(
            rows=tuple(self._rows[cgroup_id].frozen() for cgroup_id in sorted(self._dirty)),
            removed=tuple(sorted(self._removed)),
        )
        self._dirty.clear()
        self._removed.clear()
        return change

    def _writable(self, cgroup: Cgroup) -> _Row:
        row = self._rows.get(cgroup.id)
        if row is None:
            row = self._rows[cgroup.id] = _Row(LedgerRow(cgroup.id, 0, 0, 0, 0, 0))
            self._removed.discard(cgroup.id)
        self._dirty.add(cgroup.id)
        return row


class _Row:
    """A row in memory, which changes in place."""

    __slots__ = ("accounted", "cgroup_id", "counter_id", "group_kill", "oom", "told")

    def __init__(self, row: LedgerRow) -> None:
        self.cgroup_id = row.cgroup_id
        self.counter_id = row.counter_id
        self.told = row.told
        self.accounted = row.accounted
        self.oom = row.oom
        self.group_kill = row.group_kill

    def frozen(self) -> LedgerRow:
        return LedgerRow(
            self.cgroup_id, self.counter_id, self.told, self.accounted, self.oom, self.group_kill
        )


class _Column(Mapping[int, int]):
    """One column of the rows, read only and always current."""

    __slots__ = ("_name", "_rows")

    def __init__(self, rows: dict[int, _Row], name: str) -> None:
        self._rows = rows
        self._name = name

    def __getitem__(self, cgroup_id: int) -> int:
        return int(getattr(self._rows[cgroup_id], self._name))

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
