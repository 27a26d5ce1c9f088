"""What the journal says of an event after it was told: what adds to it, and the container's end.

An event is never rewritten. A name that came late, of the container or of the victim, is in an
event of its own, which amends the first: whoever asks for the first wants the whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from oomwatch.events import ContainerExit, Entry, OomKill, Scope, is_within

READ_ON_MICROSECONDS = 3_600_000_000
"""How long after an event it is looked for what was learned of it: names come within ten minutes
(`correlator.owned_kills`), the end of a container that does not survive a kill sooner."""

MOST_READ = 50_000
"""Events that are looked through at most: of a storm."""


@dataclass(frozen=True, slots=True)
class Later:
    """What came after an event: those that amend it, and its container's end after a kill.

    `end` is `None` where none was told (yet), and after anything but a kill.
    """

    amendments: tuple[Entry, ...] = ()
    end: Entry | None = None


async def look_on(entry: Entry, following: AsyncIterator[Entry]) -> Later:
    """Look through the events that follow one, in their order, as far as they can be about it."""
    amendments: list[Entry] = []
    end = None
    until = entry.event.detect_time + READ_ON_MICROSECONDS
    read = 0
    async for later in following:
        read += 1
        if later.event.detect_time > until or read > MOST_READ:
            break
        if later.event.amends == entry.revision:
            amendments.append(later)
        elif end is None and _ends(later, entry, amendments):
            end = later
    return Later(tuple(amendments), end)


def whole(entry: Entry, later: Later) -> Entry:
    """A kill with all that was learned of it. What was several kills' sum stays as it was told:
    each of its amendments is about a part of it.
    """
    event = entry.event
    if not isinstance(event, OomKill) or event.victim_cgroup is None:
        return entry
    for amendment in later.amendments:
        if isinstance(amendment.event, OomKill):
            event = _merged(event, amendment.event)
    return replace(entry, event=event)


def _merged(event: OomKill, more: OomKill) -> OomKill:
    known = {victim.pid for victim in event.victims}
    limit_told = more.scope is not Scope.UNKNOWN
    times = [time for time in (event.occur_time, more.occur_time) if time is not None]
    return replace(
        event,
        container=more.container or event.container,
        scope=more.scope if limit_told else event.scope,
        limit_cgroup=more.limit_cgroup if limit_told else event.limit_cgroup,
        occur_time=min(times, default=None),
        group_kill=event.group_kill if more.group_kill is None else more.group_kill,
        constraint=more.constraint or event.constraint,
        confidence=max(event.confidence, more.confidence, key=lambda sure: sure.rank),
        victims=(*event.victims, *(v for v in more.victims if v.pid not in known)),
        invoker=event.invoker or more.invoker,
        tasks=event.tasks or more.tasks,
        task_count=more.task_count if event.task_count is None else event.task_count,
        evidence=(*event.evidence, *more.evidence),
    )


def _ends(later: Entry, entry: Entry, amendments: Sequence[Entry]) -> bool:
    """Is it an end of the life in which a kill was? Lives follow one another: the first is it.

    What amends an end is one as well: the end may have been told before the kill was found.
    """
    end, kill = later.event, entry.event
    if not isinstance(end, ContainerExit) or not isinstance(kill, OomKill):
        return False
    if {entry.revision, *(each.revision for each in amendments)} & set(end.kills):
        return True
    told = [event.container for event in (kill, *(each.event for each in amendments))]
    ids = {container.id for container in told if container is not None}
    if end.container is None or end.container.id not in ids:
        return False
    if end.amends and end.cgroup_id is None:
        return False  # of whichever life
    if end.cgroup != kill.victim_cgroup:  # it was nested in it, perhaps
        return is_within(kill.victim_cgroup or "/", end.cgroup or "/")
    return kill.victim_cgroup_id is None or end.cgroup_id in (None, kill.victim_cgroup_id)
