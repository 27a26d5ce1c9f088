"""Whose limit was it, and was it a group kill? Read off the counters from the victim to the root.

mm/memcontrol.c raises the local `oom` of the cgroup whose limit was hit before a kill, and the
local `oom_group_kill` of the cgroup that is killed together; mm/oom_kill.c raises `oom_kill` where
the victim lived. So a rise of `oom` on the way up *hints* at the limit: it counts attempts, and can
rise without a kill. Two rises are two answers, and then the scope is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from oomwatch.events import Cgroup, Scope
from oomwatch.ledger import Ledger
from oomwatch.observations import LineageMember, LineageReading


@dataclass(frozen=True, slots=True)
class Attribution:
    """What the counters say about one kill.

    `limit` is the cgroup whose limit was hit (with `limit_from` and `limit_to`, its `oom` before
    and now), absent for the node's and where it cannot be told. `group` is the topmost cgroup that
    was killed together and `group_count` its `oom_group_kill`, absent where the kernel has none;
    `group_kill` says whether there was a group, absent where that cannot be read.
    """

    scope: Scope
    limit: Cgroup | None = None
    limit_from: int = 0
    limit_to: int = 0
    group: Cgroup | None = None
    group_count: int | None = None
    group_kill: bool | None = None


UNKNOWN = Attribution(Scope.UNKNOWN)
"""What is known of a kill whose lineage could not be read."""


def attribute(reading: LineageReading, ledger: Ledger) -> Attribution:
    """Say whose limit it was, from counters that rose beyond what the ledger attributed already."""
    rises: list[tuple[Cgroup, int, int]] = []
    for member in reading.members:
        cgroup, oom = member.reading.cgroup, member.reading.local.oom
        before = ledger.oom(cgroup)
        if oom is not None and oom > before:
            rises.append((cgroup, before, oom))
    seen_whole = _starts_at(reading.members, reading.cgroup)
    limit: Cgroup | None = None
    limit_from = limit_to = 0
    if len(rises) == 1 and seen_whole:
        limit, limit_from, limit_to = rises[0]
        scope = Scope.CONTAINER_LIMIT if limit is reading.cgroup else Scope.ANCESTOR_LIMIT
    elif not rises and seen_whole and reading.complete:
        scope = Scope.NODE
    else:
        scope = Scope.UNKNOWN
    group = _group(reading.members, limit, ledger)
    if group is not None:
        count = group.reading.local.oom_group_kill
        cgroup = group.reading.cgroup
        return Attribution(scope, limit, limit_from, limit_to, cgroup, count, True)
    readable = any(member.group is not None for member in reading.members)
    return Attribution(scope, limit, limit_from, limit_to, group_kill=False if readable else None)


def _starts_at(members: tuple[LineageMember, ...], cgroup: Cgroup) -> bool:
    return bool(members) and members[0].reading.cgroup is cgroup


def _group(
    members: Iterable[LineageMember], limit: Cgroup | None, ledger: Ledger
) -> LineageMember | None:
    """The topmost cgroup up to the limit that is killed as one (mem_cgroup_get_oom_group).

    A rise of `oom_group_kill` names it; but that line came with kernel 5.17, and is raised after
    the first kill. Where memory.oom.group is set the kernel kills the whole group, on any version.
    """
    group: LineageMember | None = None
    for member in members:
        count = member.reading.local.oom_group_kill
        if count is not None and count > ledger.group_kill(member.reading.cgroup):
            return member
        if member.group:
            group = member
        if member.reading.cgroup is limit:
            break
    return group
