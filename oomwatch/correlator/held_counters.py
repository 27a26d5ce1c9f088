"""Counters of which it is not known how much is new: held until what is above them was read.

Pure, a part of the correlator. One whose file is another than before may have started from 0, or
have lived on hidden; of one that could not be read at the start others told meanwhile. Of what such
a one shows at most as much is told as the nearest ancestor that is counted has untold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from oomwatch.correlator.kills import OpenKills, Outcome
from oomwatch.events import Cgroup, EvidenceGap
from oomwatch.ledger import Ledger
from oomwatch.observations import AuditReading, CounterReading, Sight


class HeldCounters:
    """Readings of such counters, by their cgroups."""

    def __init__(self, boot: str, ledger: Ledger, kills: OpenKills) -> None:
        self._boot = boot
        self._ledger = ledger
        self._kills = kills
        self._held: dict[int, CounterReading] = {}

    def takes(self, reading: CounterReading) -> bool:
        """Take in what a counter shows by now, if it is held."""
        held = self._held.get(reading.cgroup.id)
        if held is None or held.counter_id != reading.counter_id:
            return False
        self._held[reading.cgroup.id] = replace(held, local=reading.local)
        return True

    def hold(self, reading: CounterReading, now: float, outcome: Outcome) -> Cgroup:
        """Hold a reading until the sum of the cgroup that is returned was read."""
        self._held[reading.cgroup.id] = reading
        self._kills.close(reading.cgroup, now, outcome)
        *_, root = reading.cgroup.lineage()
        return (root if reading.sight is Sight.LATE else reading.cgroup.parent) or reading.cgroup

    def removed(self, cgroup: Cgroup) -> None:
        """Take in that a cgroup is gone."""
        self._held.pop(cgroup.id, None)

    def settled(
        self, audit: AuditReading, now: float, outcome: Outcome
    ) -> Iterator[CounterReading]:
        """Yield those that an audit settles, booked but for what is to be told of them.

        That must be booked before the next is asked for: they may have one ancestor.
        """
        for held in [r for r in self._held.values() if _covers(audit, r)]:
            del self._held[held.cgroup.id]
            moved = self._ledger.counter_id(held.cgroup) not in (0, held.counter_id)
            if held.sight is Sight.LATE and not moved:
                self._settle_late(held, audit)
                yield held
            else:
                yield self._settle_revealed(held, audit, now, outcome)

    def _settle_revealed(
        self, reading: CounterReading, audit: AuditReading, now: float, outcome: Outcome
    ) -> CounterReading:
        """Book of a revealed counter as told all but what is untold above."""
        cgroup = reading.cgroup
        local = reading.local.oom_kill or 0
        if self._ledger.counter_id(cgroup) == reading.counter_id:
            # The same counter, and it may have risen since that was read.
            self._kills.close(cgroup, now, outcome)
            local = max(local, self._ledger.told(cgroup))
            reading = replace(reading, local=replace(reading.local, oom_kill=local))
        claim = min(local, self._untold_above(cgroup, audit))
        if not audit.counts:
            outcome.events.append(self._unknowable(reading))
        subtree = reading.subtree_kills if reading.subtree_kills is not None else local
        self._ledger.rebase(
            cgroup,
            counter_id=reading.counter_id,
            told=local - claim,
            accounted=max(subtree - claim, local - claim),
            oom=max((reading.local.oom or 0) - claim, 0),
            group_kill=reading.local.oom_group_kill or 0,
        )
        return reading

    def _settle_late(self, reading: CounterReading, audit: AuditReading) -> None:
        """Book as told what was told below an ancestor since the restart."""
        cgroup = reading.cgroup
        if audit.counts:
            untold = self._untold_above(cgroup, audit)
            self._ledger.rebase(
                cgroup,
                told=max(self._ledger.told(cgroup), (reading.local.oom_kill or 0) - untold),
                accounted=max(
                    self._ledger.accounted(cgroup), (reading.subtree_kills or 0) - untold
                ),
            )

    def _untold_above(self, cgroup: Cgroup, audit: AuditReading) -> int:
        """Kills that the nearest counted ancestor counts and nobody accounts for."""
        counts = {count.cgroup.id: count.subtree_kills for count in audit.counts}
        for ancestor in cgroup.lineage():
            if ancestor is not cgroup and ancestor.id in counts:
                untold = counts[ancestor.id] - self._ledger.accounted(ancestor)
                return max(0, untold - self._kills.count_below(ancestor))
        return 0

    def _unknowable(self, reading: CounterReading) -> EvidenceGap:
        return EvidenceGap(
            episode_id=f"{self._boot}-gap-{reading.cgroup.id:x}-{reading.time:x}",
            detect_time=reading.time,
            source=reading.source,
            reason="its counter was replaced, and no ancestor counts what it held before",
            cgroup=reading.cgroup.path,
            occur_after=reading.looked_at,
        )


def _covers(audit: AuditReading, held: CounterReading) -> bool:
    if held.sight is Sight.LATE:
        return audit.asked.parent is None
    return audit.asked in held.cgroup.lineage()
