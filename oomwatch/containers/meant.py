"""Which life of its container a source speaks of.

A word that names the cgroup names the life. Runtimes leave it out as often as not, and many speak
late, of what has ended.
"""

from __future__ import annotations

from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import PATH, RESTART_MICROSECONDS, Life
from oomwatch.observations import ContainerSeen

LATE_MICROSECONDS = 60_000_000
"""How long after a life's end was told the removal of its cgroup may still say where it was."""

LATE_START_MICROSECONDS = 1_000_000
"""How long after its end a life may be said to have begun by a source that speaks of it for the
first time: Docker dates a start when that has returned, 20 ms after the end of `true` on an
emulated processor."""


def life_meant(seen: ContainerSeen, lives: KnownLives) -> Life | None:
    """The life that a source speaks of; `None` where it is one that was not heard of before."""
    container_id = seen.container.id
    if seen.cgroup_id is None:
        newest = lives.newest(container_id)
        return newest if newest is None or _speaks_of(seen, newest) else None
    named = lives.of_key((container_id, seen.cgroup_id))
    return named or _now_placed(seen, lives.in_order(container_id))


def _now_placed(seen: ContainerSeen, in_order: list[Life]) -> Life | None:
    """A life that was told without its cgroup, which is told now.

    The path of a cgroup is told as that is removed; any other word is of what has not ended.
    """
    lives = [life for life in in_order if life.cgroup_id is None]
    for life in lives if seen.source == PATH else ():
        # Cgroups are removed in the order of the lives in them.
        if life.ended_time is not None and life.ended_time >= seen.time - LATE_MICROSECONDS:
            return life
    return lives[-1] if lives and lives[-1].ended_time is None else None


def _speaks_of(seen: ContainerSeen, newest: Life) -> bool:
    """Is a word that names no cgroup of the newest life, and of none that began since?

    Of one that has ended, a source that did not tell of its beginning yet speaks late, and so does
    one that tells the same beginning again, or a list, which tells of none.
    """
    if newest.ended_time is None or seen.listed:
        return True
    began, first = seen.start_time, seen.source not in newest.begun_by
    if began is None:
        return first
    if first:
        return began < newest.ended_time + LATE_START_MICROSECONDS
    if newest.start_time is None:
        return began < newest.ended_time
    # Asked again after it was slow to answer, Docker shows what has ended, once or twice more.
    return began < newest.start_time + RESTART_MICROSECONDS
