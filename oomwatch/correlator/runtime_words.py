"""Finds the kill that a runtime's word is evidence of: one that was told, the next, or a sum's.

A runtime says that somebody was killed in a container, and no more: not who, nor how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from oomwatch.containers.lives import Life
from oomwatch.containers.owners import Owner
from oomwatch.containers.registry import Containers
from oomwatch.correlator.owned_kills import OwnedKill, OwnedKills
from oomwatch.correlator.testimony import evidence_of
from oomwatch.correlator.told_kills import IsCandidate
from oomwatch.events import Evidence
from oomwatch.observations import RuntimeOom

MAX_WORDS = 4096
"""Words that wait at most."""

RUNTIME_SECONDS = 30.0
"""How far apart a kill and a runtime's word on it may come: a busy Docker takes seconds."""

Place = Callable[[RuntimeOom, IsCandidate, float], bool]
"""Has a runtime's word say which of a sum's candidates was meant."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A runtime's word on a kill that was not told yet."""

    oom: RuntimeOom
    at: float


class RuntimeWords:
    """The words of runtimes, each joined to the kill that it is on, or waiting for it."""

    def __init__(self, containers: Containers, told: OwnedKills, place: Place) -> None:
        self._containers = containers
        self._told = told
        self._place = place
        self._words: deque[_Word] = deque(maxlen=MAX_WORDS)

    def heard(self, oom: RuntimeOom, now: float) -> None:
        """Take in a runtime's word: evidence of the last kill in that container, or of the next.

        It may be the only one on a kill that is in a sum alone: see `place_in_sums`.
        """
        whose = self._whose(oom)
        for told in self._told.recent(now, RUNTIME_SECONDS):
            if self._is_on(oom, told, whose):
                told.runtimes += (oom.source,)
                told.evidence += (evidence_of(oom),)
                self._told.learned_of(told, oom.seen_time, now)
                return
        self._words.append(_Word(oom, now))

    def take_on(self, told: OwnedKill, now: float) -> tuple[Evidence, ...]:
        """Return what waited for this kill, which is about to be told: it waits no more."""
        evidence: tuple[Evidence, ...] = ()
        for word in self._waiting(now) if told.owner is not None else ():
            if self._is_on(word.oom, told, self._whose(word.oom)):
                self._words.remove(word)
                told.runtimes += (word.oom.source,)
                evidence += (evidence_of(word.oom),)
        return evidence

    def place_in_sums(self, now: float, container_id: str | None = None) -> None:
        """Have the words on kills that were not told in their container say where a sum's were:
        those on one container, or all.

        Not while it runs: then its own counter has still to show the kill. Nor where as many were
        told in it as this runtime has words: then it means one of those, and comes late.
        """
        waiting = self._waiting(now)
        words = [w for w in waiting if container_id in (None, w.oom.container_id)]
        if not words:
            return
        # Once for all of them: in a storm there are thousands of both.
        told: dict[str, list[OwnedKill]] = {}
        for one in self._told.recent(now):
            if one.owner is not None:
                for key in (one.owner.cgroup, one.owner.container.id or ""):
                    told.setdefault(key, []).append(one)
        on: dict[str, list[_Word]] = {}
        for word in waiting:
            on.setdefault(word.oom.container_id, []).append(word)
        for word in words:
            life = self._containers.lives.newest(word.oom.container_id)
            if life is None or life.ended_time is None:
                continue
            whose = self._whose(word.oom)
            kills = {id(one): one for key in whose for one in told.get(key, ())}
            if not self._is_one_more(word, list(kills.values()), on[word.oom.container_id]):
                continue
            if self._place(word.oom, partial(self._candidate, word.oom, whose), now):
                self._words.remove(word)
                on[word.oom.container_id].remove(word)

    def _is_one_more(
        self, word: _Word, told: Sequence[OwnedKill], waiting: Sequence[_Word]
    ) -> bool:
        """Has this runtime more words on a container than kills were told in that?"""
        oom = word.oom
        words = sum(oom.source in one.runtimes for one in told) + sum(
            other.oom.source == oom.source and self._in_one_life(oom, other.oom.time)
            for other in waiting
        )
        return words > sum(_words_to_come(one, word.at) for one in told)

    def _candidate(
        self, oom: RuntimeOom, whose: frozenset[str], path: str, read: int
    ) -> int | None:
        """The inode of a candidate that is the container's, 0 if it is not known; `None` if it is
        another's, or of another life of the container than is meant.
        """
        owner = self._containers.owners.of(path, None, oom.time)
        if not _is_of(whose, owner) or not self._in_one_life(oom, read):
            return None
        life = _last_by(oom.time, self._containers.lives.of_id(oom.container_id))
        return (life.cgroup_id or 0) if life is not None and life.cgroup == path else 0

    def _is_on(self, oom: RuntimeOom, told: OwnedKill, whose: frozenset[str]) -> bool:
        """Is a word on this kill, which lacks it?"""
        lacks = oom.source not in told.runtimes
        return lacks and _is_of(whose, told.owner) and self._in_one_life(oom, told.read)

    def _whose(self, oom: RuntimeOom) -> frozenset[str]:
        """By what the owner of a kill is known to be the container that a runtime speaks of: its
        id, and its cgroup, since a worker may call it by another. A path begins with a slash, and
        no id does.
        """
        life = self._containers.lives.newest(oom.container_id)
        cgroup = None if life is None else life.cgroup
        return frozenset(key for key in (oom.container_id, cgroup) if key is not None)

    def _in_one_life(self, oom: RuntimeOom, read: int) -> bool:
        """Had the container not been started anew between a word and when a count was read?"""
        lives = self._containers.lives.of_id(oom.container_id)
        return _last_by(oom.time, lives) is _last_by(read, lives)

    def _waiting(self, now: float) -> list[_Word]:
        return [word for word in self._words if now - word.at < RUNTIME_SECONDS]


def _words_to_come(told: OwnedKill, at: float) -> int:
    """How many words of one runtime may be on a kill, of those that came until then."""
    kills = told.event.kill_count or max(1, len(told.named))
    return kills if at - told.at < RUNTIME_SECONDS else 1


def _last_by(time: int, lives: Sequence[Life]) -> Life | None:
    """The last of a container's lives that was heard of by then; the first where none was."""
    return next(
        (life for life in reversed(lives) if life.seen_time <= time), next(iter(lives), None)
    )


def _is_of(whose: frozenset[str], owner: Owner | None) -> bool:
    return owner is not None and (owner.container.id in whose or owner.cgroup in whose)
