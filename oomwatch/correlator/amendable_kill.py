"""A kill that was told and may yet get names: how many it lacks, and which of them may be its.

A sum is one too: which of its kills was in which cgroup, names say, or the word of a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oomwatch.correlator.names import CLOCKS_APART_SECONDS, SAME_KILL_MICROSECONDS, Name
from oomwatch.correlator.told_kills import ToldKill
from oomwatch.events import Cgroup, Confidence, is_within
from oomwatch.observations import CgroupRemoved, RuntimeOom, VictimNamed


@dataclass(slots=True, kw_only=True, eq=False)
class AmendableKill(ToldKill):
    """A kill that was told, and how many of its victims have no name yet.

    `cgroup` is the victim's where its own counter showed the kill. `fresh` are the records that
    came since, which its next amendment will hold. Names of kills after `until` (microseconds since
    the epoch) are another's: after a restart the log is read of the time before and since. `gone`
    is when its cgroup was seen to be, on the monotonic clock and on the wall's. `suspects` are a
    sum's, where all of them are known: some may be lives of one path. `reported` are the candidates
    in which a runtime saw a kill that has no name yet, `words` what the next amendments will hold
    of that.
    """

    missing: int
    names: list[Name]
    cgroup: Cgroup | None = None
    fresh: list[tuple[Name, VictimNamed]] = field(default_factory=list)
    until: int | None = None
    gone: tuple[float, int] | None = None
    suspects: tuple[CgroupRemoved, ...] = ()
    reported: set[str] = field(default_factory=set)
    words: list[tuple[str, int, RuntimeOom]] = field(default_factory=list)

    @property
    def unplaced(self) -> int:
        """Kills of which nobody said where they were, be it known who was killed or not."""
        nowhere = sum(name.kills for name in self.names if name.cgroup is None)
        return self.missing + nowhere - len(self.reported)

    def lacks(self, cgroup: str | None) -> int:
        """How many names it may yet have of what was killed in a cgroup."""
        return min(self.missing, self.unplaced + (cgroup in self.reported))

    @property
    def confidence(self) -> Confidence:
        """How sure it is by now: what was found by elimination is the kernel's word once its log
        has printed that all the victims lived there.
        """
        where = self.event.victim_cgroup
        said = self.missing <= 0 and all(n.printed and n.cgroup == where for n in self.names)
        return Confidence.CONFIRMED if said else self.event.confidence

    def may_have(self, name: Name) -> bool:
        """Does a name's cgroup fit, and its time?"""
        if name.cgroup is None or (self.until is not None and name.time > self.until):
            return False
        counted = (self.event.occur_after, self.event.detect_time)
        if self.cgroup is not None and not name.may_be_in(self.cgroup, counted):
            return False
        if self._is_since(name):
            return False  # in a cgroup that was made anew under its path
        if self.event.victim_cgroup is not None:
            return name.cgroup == self.event.victim_cgroup
        return name.certain and name.cgroup in self.event.candidates

    def _is_since(self, name: Name) -> bool:
        """Is a name of a kill after its cgroup was gone? By both clocks: the wall's may have been
        set.
        """
        if self.gone is None:
            return False
        now, time = self.gone
        return (
            name.happened_at > now + CLOCKS_APART_SECONDS
            and name.time > time + CLOCKS_APART_SECONDS * 1e6
        )

    def may_have_below(self, name: Name) -> bool:
        """Can a name be of a sum that was told before, of a cgroup that nobody saw come and go?"""
        survivor = self.event.survivor_cgroup
        if survivor is None or self.event.victim_cgroup is not None or not name.certain:
            return False
        if name.cgroup is None or not is_within(name.cgroup, survivor):
            return False
        return name.time <= self.event.detect_time + SAME_KILL_MICROSECONDS

    def may_have_stray(self, name: Name) -> bool:
        """Can a name without a cgroup be its? Of a group's, only the group is known."""
        group, victim = name.group_cgroup, self.event.victim_cgroup
        return group is None or victim is None or is_within(victim, group)

    def take(self, name: Name) -> None:
        """Count a name that is its; the name's records are not `fresh` by that."""
        name.claimed = True
        self.missing -= name.kills
        if name.cgroup is not None:
            self.reported.discard(name.cgroup)
        self.names.append(name)
