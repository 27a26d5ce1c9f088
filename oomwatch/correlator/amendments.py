"""Amends kills by the names that come after they were told.

An event is never rewritten. What is learned after it was journaled is appended as an amendment:
the same episode and cgroup, the revision that it amends, and no `kill_count`.

So is a sum of kills in cgroups that are gone parted: by names that say where they lived, and by
runtimes that say in which of their containers somebody was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oomwatch.correlator.amendable_kill import AmendableKill
from oomwatch.correlator.names import (
    CLOCKS_APART_SECONDS,
    KEEP_SECONDS,
    SAME_KILL_MICROSECONDS,
    Name,
    life_of,
)
from oomwatch.correlator.recall import Recalled
from oomwatch.correlator.testimony import evidence_of, with_names
from oomwatch.correlator.told_kills import IsCandidate, ToldKills
from oomwatch.events import Cgroup, Confidence, OomKill
from oomwatch.observations import CgroupRemoved, Recorded, RuntimeOom, VictimNamed

MAX_TOLD = 4096
"""Kills that can still be amended."""


class Amendments:
    """The kills of the last moments, for which a name may still come."""

    def __init__(self, settle_seconds: float) -> None:
        self._told: ToldKills[AmendableKill] = ToldKills(settle_seconds)
        self._in_cgroup: dict[int, list[AmendableKill]] = {}
        """Those that its own counter showed, by the inode of a cgroup that is not gone."""

    def told(
        self,
        event: OomKill,
        names: list[Name],
        now: float,
        cgroup: Cgroup | None = None,
        suspects: Sequence[CgroupRemoved] = (),
    ) -> None:
        """Remember a kill that was told, with the names that it had; `cgroup` is the victim's
        where its own counter showed it, `suspects` are where it may have been where a sum did.
        """
        told = self._told
        while told and (now - told.oldest.at > KEEP_SECONDS or len(told) >= MAX_TOLD):
            self._forget_oldest()
        missing = (event.kill_count or 0) - sum(name.kills for name in names)
        one = AmendableKill(event=event, at=now, missing=missing, names=list(names), cgroup=cgroup)
        if event.survivor_cgroup is not None:
            one.gone = now, event.detect_time
        if event.victim_cgroup is None and not event.candidates_omitted:
            one.suspects = tuple(suspects)
        if cgroup is not None:
            self._in_cgroup.setdefault(cgroup.id, []).append(one)
        told.add(one)

    def _forget_oldest(self) -> None:
        oldest = self._told.oldest
        if oldest.cgroup is not None and oldest in self._in_cgroup.get(oldest.cgroup.id, ()):
            self._in_cgroup[oldest.cgroup.id].remove(oldest)
            if not self._in_cgroup[oldest.cgroup.id]:
                del self._in_cgroup[oldest.cgroup.id]
        self._told.forget_oldest()

    def removed(self, cgroup: Cgroup, time: int, now: float) -> None:
        """A cgroup is gone: what is killed under its path from now on is another's."""
        for told in self._in_cgroup.pop(cgroup.id, ()):
            told.gone = now, time

    def recall(self, recalled: Recalled, now: float) -> None:
        """Remember a kill that was told before a restart."""
        event = recalled.event
        after = SAME_KILL_MICROSECONDS
        if event.survivor_cgroup is not None:
            after = round(CLOCKS_APART_SECONDS * 1e6)  # its cgroup was gone by then
        self._told.add(
            AmendableKill(
                event=event,
                at=now,
                revision=recalled.revision,
                missing=recalled.missing,
                names=list(recalled.names),
                reported=set(recalled.reported),
                until=event.detect_time + after,
            )
        )

    def waiting(self) -> list[VictimNamed]:
        """Return the records that are to amend a kill, and have not."""
        return [record for told in self._told for _, record in told.fresh]

    def late(self, name: Name, record: VictimNamed, now: float) -> bool:
        """Take in a record that came after its kill was told; False if it is of no such kill."""
        if name.claimed:
            for told in reversed(self._told):
                if any(known is name for known in told.names):
                    told.missing -= record.repeated
                    self._note(told, name, record, now)
                    return True
            return False
        cgroup, enough = name.cgroup, 1 if name.certain else name.kills
        for told in self._told:
            # First what costs little: in a storm thousands are gone through, and fit none.
            if told.missing < enough or told.event.victim_cgroup not in (None, cgroup):
                continue
            if told.lacks(cgroup) >= enough and told.may_have(name):
                self._take(told, name, now)
                return True
        return False

    @property
    def has_unplaced(self) -> bool:
        """Is there a sum with kills of which nobody said where they were?"""
        return any(t.event.victim_cgroup is None and t.unplaced > 0 for t in self._told)

    def reported(self, oom: RuntimeOom, is_its: IsCandidate, now: float) -> bool:
        """Take in a runtime's word on a kill that no counter showed: it is one of a sum's.

        False if there is none of which just one candidate is the container's that it means,
        and which has a kill left that nobody has placed. Nor while another word on that container
        is still to be told: this may be a second runtime's on the same kill.
        """
        untold = ((path, told) for told in self._told for path, *_ in told.words)
        if any(is_its(path, told.event.detect_time) is not None for path, told in untold):
            return False
        for told in self._told:
            if told.event.victim_cgroup is not None or told.unplaced <= 0:
                continue
            read = told.event.detect_time
            each = {path: is_its(path, read) for path in told.event.candidates}
            mine = [(path, inode) for path, inode in each.items() if inode is not None]
            placed = told.reported.union(name.cgroup for name in told.names if name.cgroup)
            if len(mine) == 1 and mine[0][0] not in placed:
                told.reported.add(mine[0][0])
                told.words.append((*mine[0], oom))
                self._told.amend(told, now)
                return True
        return False

    def late_below(self, name: Name, now: float) -> bool:
        """Take in what was written while nobody watched, of a cgroup that came and went then.

        No counter will show its kill any more: it is in the sum of what is left above it, and that
        was told without candidates, since nobody saw it. False if there is no such kill.
        """
        sums = [t for t in self._told if t.lacks(None) >= name.kills and t.may_have_below(name)]
        if not sums:
            return False
        self._take(max(sums, key=lambda told: len(told.event.survivor_cgroup or "")), name, now)
        return True

    def _take(self, told: AmendableKill, name: Name, now: float) -> None:
        told.take(name)
        for record in name.records:
            self._note(told, name, record, now)

    def adopt(self, strays: list[Name], now: float) -> None:
        """Take in names without a cgroup that can be of one kill alone, and are all that it lacks.

        Every other kill of the last moments has its names by then, and every other name its kill.
        """
        nameless = [told for told in self._told if told.missing > 0]
        for told in nameless:
            mine = [name for name in strays if not name.claimed and told.may_have_stray(name)]
            others = [other for other in nameless if other is not told]
            unsure = any(other.may_have_stray(name) for name in mine for other in others)
            if mine and not unsure and sum(name.kills for name in mine) == told.missing:
                for name in mine:
                    self._take(told, name, now)

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while there is nothing to amend."""
        return self._told.deadline

    def recorded(self, recorded: Recorded) -> None:
        """Take in a kill's revision: from now on it can be amended."""
        self._told.recorded(recorded)

    def expire(self, now: float) -> list[OomKill]:
        """Return the amendments that are due."""
        events: list[OomKill] = []
        for told, revision in self._told.take_due(now):
            events += self._amendments(told, revision)
        return events

    def _note(self, told: AmendableKill, name: Name, record: VictimNamed, now: float) -> None:
        told.fresh.append((name, record))
        self._told.amend(told, now)

    @staticmethod
    def _amendments(told: AmendableKill, revision: int) -> list[OomKill]:
        """What came since, in one event for each cgroup: of several kills in one sum, each name
        knows where it lived alone.
        """
        fresh, told.fresh = told.fresh, []
        words, told.words = told.words, []
        by_cgroup: dict[tuple[str | None, int | None], list[tuple[Name, VictimNamed]]] = {}
        for name, record in fresh:
            where = (told.event.victim_cgroup, told.event.victim_cgroup_id)
            if where[0] is None:
                where = (name.cgroup, life_of(name, told.suspects))
            by_cgroup.setdefault(where, []).append((name, record))
        event = replace(told.event, confidence=told.confidence)
        # A runtime's word counts nothing: that it means the kill of this sum is an inference.
        reported = replace(told.event, confidence=Confidence.HIGH)
        return [_in_cgroup(reported, revision, *word) for word in words] + [
            _amendment(_bare(event, revision, *where), each) for where, each in by_cgroup.items()
        ]


def _bare(event: OomKill, revision: int, cgroup: str | None, cgroup_id: int | None) -> OomKill:
    return replace(
        event,
        victim_cgroup=cgroup,
        victim_cgroup_id=cgroup_id,
        candidates=event.candidates if cgroup is None else (),
        candidates_omitted=event.candidates_omitted if cgroup is None else None,
        amends=revision,
        kill_count=None,
        memory=None,
        victims=(),
        evidence=(),
    )


def _amendment(bare: OomKill, fresh: Sequence[tuple[Name, VictimNamed]]) -> OomKill:
    bare = replace(bare, detect_time=max(record.seen_time for _, record in fresh))
    names = list({id(name): name for name, _ in fresh}.values())
    return with_names(bare, names, [record for _, record in fresh])


def _in_cgroup(
    event: OomKill, revision: int, cgroup: str, cgroup_id: int, oom: RuntimeOom
) -> OomKill:
    bare = _bare(event, revision, cgroup, cgroup_id or None)
    return replace(bare, detect_time=oom.seen_time, evidence=(evidence_of(oom),))
