"""Puts what witnesses say of a kill into its event: who was killed, at whose limit, who said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oomwatch.correlator.names import Name
from oomwatch.events import Constraint, Evidence, OomKill, Scope
from oomwatch.observations import RuntimeOom, VictimNamed


def evidence_of(word: VictimNamed | RuntimeOom) -> Evidence:
    """A witness's word as it is listed in an event."""
    return Evidence(source=word.source, time=word.seen_time, detail=word.detail)


def with_names(
    event: OomKill, names: Sequence[Name], records: Sequence[VictimNamed] | None = None
) -> OomKill:
    """Return the event with its victims, and with what their witnesses say of the limit.

    The kernel's log says whose limit it was; that outranks what the counters hint at. `records` are
    those to be listed as evidence, all of the names' unless given.
    """
    if not names:
        return event
    if records is None:
        records = [record for name in names for record in name.records]
    limit = next((n.limit_cgroup for n in names if n.limit_cgroup is not None), None)
    node_wide = any(name.node_wide for name in names)
    scope, limit_cgroup = event.scope, event.limit_cgroup
    if node_wide:
        scope, limit_cgroup = Scope.NODE, None
    elif limit is not None:
        own = limit == event.victim_cgroup
        scope, limit_cgroup = Scope.CONTAINER_LIMIT if own else Scope.ANCESTOR_LIMIT, limit
    table = next((r for name in names for r in name.records if r.task_count is not None), None)
    group_kill = next((n.group_kill for n in names if n.group_kill is not None), None)
    return replace(
        event,
        scope=scope,
        limit_cgroup=limit_cgroup,
        occur_time=min(name.time for name in names),
        group_kill=event.group_kill if group_kill is None else group_kill,
        constraint=_constraint(names) or (None if node_wide else event.constraint),
        victims=(*event.victims, *(name.victim for name in names)),
        invoker=event.invoker or next((n.invoker for n in names if n.invoker), None),
        tasks=table.tasks if table is not None else event.tasks,
        task_count=table.task_count if table is not None else event.task_count,
        evidence=(*event.evidence, *(evidence_of(record) for record in records)),
    )


def _constraint(names: Sequence[Name]) -> Constraint | None:
    return next((name.constraint for name in names if name.constraint is not None), None)
