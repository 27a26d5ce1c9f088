"""Ends of which nobody tells how they were: the container was removed before its runtime was asked.

Pure, a part of the correlator. Whose cgroup is gone has ended. Its runtime is awaited for how,
longer than any takes that answers. Where it says nothing (it was away, or we were, and the
container is not there any more) the exit is told by what the counters say alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import PATH, WORKER, Life, LifeKey
from oomwatch.observations import ContainerEnded

LOST_SECONDS = 60.0
"""How long after its cgroup was seen to be gone a runtime's word on the end is awaited."""


class LostEnds:
    """The lives that have ended, until somebody tells how or the wait is over."""

    def __init__(self, lives: KnownLives) -> None:
        self._lives = lives
        self._waiting: deque[tuple[float, LifeKey]] = deque()

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while no end is awaited."""
        return self._waiting[0][0] if self._waiting else None

    def surveyed(self, now: float) -> None:
        """Take in that every cgroup was looked at for the first time since a restart."""
        self._await(self._lives.end_untold(), now)

    def removed(self, cgroup_id: int, now: float) -> None:
        """Take in that a cgroup is gone."""
        self._await(self._lives.lives_in(cgroup_id), now)

    def expire(self, now: float) -> list[ContainerEnded]:
        """Return the ends that nobody told in time."""
        lost = []
        while self._waiting and self._waiting[0][0] <= now:
            life = self._lives.of_key(self._waiting.popleft()[1])
            if life is not None and life.ended_time is not None and not life.end_told:
                lost.append(
                    ContainerEnded(
                        source=PATH,
                        time=life.ended_time,
                        container_id=life.container_id,
                        cgroup_id=life.cgroup_id,
                    )
                )
        return lost

    def _await(self, lives: Iterable[Life], now: float) -> None:
        """What no runtime spoke of is left to its worker: nobody else was ever to tell its end."""
        self._waiting += [
            (now + LOST_SECONDS, life.key)
            for life in lives
            if life.ended_time is not None
            and not (life.end_told or life.moved)
            and life.said.keys() - {WORKER, PATH}
        ]
