"""The kills that were told lately: as whose, who spoke of them, and what was learned of them since.

`ownership` learns whose they are, and `runtime_words` which runtimes saw them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from oomwatch.containers.owners import Owner
from oomwatch.correlator.told_kills import ToldKill, ToldKills
from oomwatch.events import Evidence, OomKill

MAX_TOLD = 4096
LATE_SECONDS = 600.0
"""How long after a kill a name that is learned still amends it. Later it is found by asking."""


@dataclass(slots=True, kw_only=True, eq=False)
class OwnedKill(ToldKill):
    """A kill that was told, or a part of a sum: as whose, and what was learned of it since.

    `read` is when a count showed it (microseconds since the epoch), `named` are the pids of a
    part's victims. `runtimes` are those that spoke of it, `evidence` what its next amendment will
    hold of that, `learned` when the last of what is to amend it was learned.
    """

    owner: Owner | None
    read: int
    runtimes: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    learned: int = 0
    named: frozenset[int] = frozenset()

    def heard(self, event: OomKill) -> None:
        """Take in who speaks of it in an event, and of which victims.

        Where a victim is named, a runtime may have said that it is a container's init, and no more.
        """
        said = [one.source for one in event.evidence] if not event.victims else []
        self.runtimes += tuple(dict.fromkeys(one for one in said if one not in self.runtimes))
        self.named |= {victim.pid for victim in event.victims}

    def take_amendment(self) -> OomKill:
        """What was learned; its container, and the scope that follows from it, are added to it as
        to any event.
        """
        evidence, self.evidence = self.evidence, ()
        return replace(
            self.event,
            detect_time=self.learned,
            amends=self.revision,
            kill_count=None,
            memory=None,
            victims=(),
            invoker=None,
            evidence=evidence,
        )


class OwnedKills(ToldKills[OwnedKill]):
    """Told kills with their owners, as many as can still be amended."""

    def remember(self, event: OomKill, owner: Owner | None, now: float, read: int) -> OwnedKill:
        """Remember one that is told; `read` is when a count showed it.

        What nothing can amend any more is forgotten, so that a daemon does not grow old.
        """
        while self and (
            len(self) >= MAX_TOLD
            or (now - self.oldest.at >= LATE_SECONDS and self.oldest.due is None)
        ):
            self.forget_oldest()
        kill = OwnedKill(event=event, at=now, revision=event.amends, owner=owner, read=read)
        kill.heard(event)
        self.add(kill)
        return kill

    def amended(self, event: OomKill, owner: Owner | None, now: float) -> OwnedKill | None:
        """Take in what others amend: what this learned of the limit stands when we amend after it.

        What was in a cgroup of its own is a part of a sum, and another's from then on.
        """
        parts = [kill for kill in self if kill.revision == event.amends]
        for kill in parts:
            if kill.event.victim_cgroup == event.victim_cgroup or kill.event.kill_count == 1:
                kill.event = replace(event, kill_count=kill.event.kill_count)
                kill.owner = owner
                kill.heard(event)
                return kill
        return self.remember(event, owner, now, parts[0].read) if parts else None

    def recent(self, now: float, seconds: float = LATE_SECONDS) -> Iterator[OwnedKill]:
        """The kills told lately, the last one first."""
        return takewhile(lambda kill: now - kill.at < seconds, reversed(self))

    def learned_of(self, kill: OwnedKill, time: int, now: float) -> None:
        """Something was learned of a kill, at a time in microseconds since the epoch."""
        kill.learned = max(kill.learned, time)
        self.amend(kill, now)
