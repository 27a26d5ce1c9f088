"""What was told before a restart, as far as a line of the log may still add to it.

Read back from the journal: the kills of this boot, the victims that they and their amendments name,
and how many they lack. A line that is read again then amends the event that was told, and a second
witness's word on a victim that has its name is no second victim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from oomwatch.correlator.names import Name
from oomwatch.events import Entry, OomKill
from oomwatch.observations import VictimNamed

_RECALLED = "journal"
_LOG = "kernel_log"


@dataclass(slots=True)
class Recalled:
    """A kill that was told, its revision, its victims by name, and how many kills have none.

    `reported` are the cgroups in which a runtime's word placed some of those.
    """

    event: OomKill
    revision: int
    names: list[Name]
    missing: int
    reported: set[str] = field(default_factory=set)


def recall(entries: Iterable[Entry], now: float) -> list[Recalled]:
    """Return the kills among what was told in this boot, in order."""
    told: dict[int, Recalled] = {}
    lines: dict[int, int] = {}
    for entry in entries:
        event = entry.event
        if not isinstance(event, OomKill):
            continue
        of = entry.revision if event.amends is None else event.amends
        if event.kill_count is not None:
            told[of] = Recalled(event, of, [], event.kill_count)
        if of not in told:
            continue
        kill = told[of]
        known = {name.victim.pid for name in kill.names}
        kill.names += [n for n in _names(event, now) if n.victim.pid not in known]
        if kill.event.victim_cgroup is None and event.victim_cgroup is not None:
            kill.reported.add(event.victim_cgroup)
        kill.reported -= {name.cgroup for name in kill.names if name.cgroup is not None}
        # A group's first victim is counted twice, and has two lines.
        lines[of] = lines.get(of, 0) + sum(each.source == _LOG for each in event.evidence)
        kill.missing = (kill.event.kill_count or 0) - max(len(kill.names), lines[of])
    return list(told.values())


def _names(event: OomKill, now: float) -> list[Name]:
    if event.occur_time is None:
        return []
    return [
        Name(
            [
                VictimNamed(
                    source=_RECALLED,
                    sequence=0,
                    time=event.occur_time,
                    seen_time=event.detect_time,
                    victim=victim,
                    detail="",
                    cgroup=event.victim_cgroup,
                )
            ],
            now,
            claimed=True,
        )
        for victim in event.victims
    ]
