"""Kills where no counter can be read: there a witness's word is the kill, and all there is.

On a host whose memory controller is bound to cgroup v1, or that has none, the kernel's log and its
tracepoint are left. One event per cgroup and moment: what a group loses together is told together.
`kill_count` is the number of processes, since nobody counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomwatch.correlator.names import Name
from oomwatch.correlator.testimony import with_names
from oomwatch.events import Confidence, OomKill, Scope
from oomwatch.observations import VictimNamed


@dataclass(slots=True)
class _Open:
    names: list[Name]
    due: float


class LoggedKills:
    """Names on their way to being told as kills."""

    def __init__(self, boot: str, settle_seconds: float) -> None:
        self.told = 0
        self._boot = boot
        self._settle_seconds = settle_seconds
        self._open: dict[str | None, _Open] = {}

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while nothing is open."""
        return min((kill.due for kill in self._open.values()), default=None)

    def add(self, name: Name, now: float) -> None:
        """Take in a name; a second witness of one that is known changes nothing."""
        if name.claimed:
            return
        name.claimed = True
        kill = self._open.setdefault(name.cgroup, _Open([], now + self._settle_seconds))
        kill.names.append(name)

    def waiting(self) -> list[VictimNamed]:
        """Return the records of the kills that are not told yet."""
        return [r for kill in self._open.values() for name in kill.names for r in name.records]

    def expire(self, now: float) -> list[OomKill]:
        """Return the kills that have settled."""
        due = [cgroup for cgroup, kill in self._open.items() if kill.due <= now]
        return [self._tell(cgroup, self._open.pop(cgroup).names) for cgroup in due]

    def _tell(self, cgroup: str | None, names: list[Name]) -> OomKill:
        first = names[0].records[0]
        self.told += len(names)
        bare = OomKill(
            episode_id=f"{self._boot}-{first.source}-{first.sequence}",
            detect_time=first.seen_time,
            scope=Scope.UNKNOWN,
            confidence=Confidence.CONFIRMED,
            recovered=any(r.recovered for name in names for r in name.records),
            kill_count=len(names),
            victim_cgroup=cgroup,
        )
        return with_names(bare, names)
