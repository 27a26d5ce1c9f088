"""Tells the kills that only a sum still shows: by name, by elimination, or by candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from oomwatch.correlator.names import Name, Names, life_of
from oomwatch.correlator.residuals import Residual
from oomwatch.correlator.testimony import with_names
from oomwatch.events import Cgroup, Confidence, Evidence, OomKill, Scope
from oomwatch.ledger import Ledger
from oomwatch.observations import SubtreeCount

MAX_CANDIDATES = 64
"""Candidates named in one event; the rest are counted."""


class ResidualKills:
    """Turns residuals into events, and books them below the survivor."""

    def __init__(self, boot: str, ledger: Ledger, names: Names) -> None:
        self.told = 0
        self._boot = boot
        self._ledger = ledger
        self._names = names

    def tell(
        self,
        residual: Residual,
        count: SubtreeCount,
        *,
        recovered: bool,
        awaited: Callable[[Name], bool] = lambda _: False,
    ) -> list[tuple[OomKill, list[Name]]]:
        """Return the kills of a residual with the names that each has.

        A witness that named a cgroup below the survivor, since the sums last agreed, says where;
        what is left over is told by elimination, or with its candidates. `awaited` says of a name
        that its cgroup's own counter showed a kill which is about to be told: it is that kill's.
        """
        told: list[tuple[OomKill, list[Name]]] = []
        left = residual.kills
        for name in self._names.unclaimed_below(residual.survivor.path, residual.since):
            if awaited(name):
                continue
            if name.kills > left:
                break
            name.claimed = True
            left -= name.kills
            event = with_names(self._named(name, residual, count), [name])
            told.append((replace(event, recovered=recovered), [name]))
        if left > 0:
            event = self._unnamed(replace(residual, kills=left), count)
            told.append((replace(event, recovered=recovered), []))
        return told

    def _named(self, name: Name, residual: Residual, count: SubtreeCount) -> OomKill:
        """A path that the kernel printed; whose life of it, where one alone can be meant.

        What was killed in a cgroup before its own counter was last read, that has shown.
        """
        omitted = residual.suspects_omitted
        return replace(
            self._bare(residual.survivor, name.kills, count, f"and {name.cgroup} is gone"),
            victim_cgroup=name.cgroup,
            victim_cgroup_id=None if omitted else life_of(name, residual.suspects),
        )

    def _unnamed(self, residual: Residual, count: SubtreeCount) -> OomKill:
        survivor, suspects, omitted = (
            residual.survivor,
            residual.suspects,
            residual.suspects_omitted,
        )
        said = "and no cgroup that is left there accounts for it"
        if not count.counts_itself:
            said += f"; a process in {survivor.path} itself has no counter of its own"
        if len(suspects) == 1 and not omitted and residual.settled:
            single = suspects[0].cgroup
            said += f"; {single.path} alone was removed meanwhile"
            return replace(
                self._bare(survivor, residual.kills, count, said),
                confidence=Confidence.HIGH if count.counts_itself else Confidence.MEDIUM,
                victim_cgroup=single.path,
                victim_cgroup_id=single.id if single.id > 0 else None,
            )
        named = tuple(removed.cgroup.path for removed in suspects[:MAX_CANDIDATES])
        return replace(
            self._bare(survivor, residual.kills, count, said),
            candidates=named,
            candidates_omitted=omitted + len(suspects) - len(named) or None,
        )

    def _bare(self, survivor: Cgroup, kills: int, count: SubtreeCount, said: str) -> OomKill:
        """Book the kills, and return what their sum says of them."""
        accounted = self._ledger.accounted(survivor)
        self._ledger.tell_below(survivor, kills)
        self.told += kills
        detail = f"oom_kill {accounted} -> {accounted + kills} below {survivor.path}, {said}"
        return OomKill(
            episode_id=f"{self._boot}-{survivor.id:x}-below-{accounted + 1}",
            detect_time=count.time,
            scope=Scope.UNKNOWN,
            confidence=Confidence.CONFIRMED,
            kill_count=kills,
            survivor_cgroup=survivor.path,
            evidence=(Evidence(source="memory_events", time=count.time, detail=detail),),
        )
