"""A victim that is the main process of a container lived in that container's cgroup.

The kernel prints a victim's cgroup in ten reports of five seconds at most (`oom_rs` in
mm/oom_kill.c), its pid always. Of twenty containers that die at once half have no more than that,
and their cgroups are gone before anybody can look. The runtime said whose main process it is.
"""

from __future__ import annotations

from oomwatch.containers.known_lives import KnownLives
from oomwatch.correlator.names import CLOCKS_APART_SECONDS, Name
from oomwatch.events import Victim
from oomwatch.observations import VictimNamed

_CLOCKS_APART = round(CLOCKS_APART_SECONDS * 1e6)


def word_on(name: Name, lives: KnownLives) -> VictimNamed | None:
    """Return the word of who started a container on a victim; `None` where its cgroup is known.

    The pid was looked up when the life was first heard of, and no other process can have it before
    that one is reaped: the life must have been heard of by the kill, and not have ended.
    """
    if name.cgroup is not None:
        return None
    life = lives.of_main_process(name.victim.pid)
    if life is None or life.cgroup is None or life.moved:
        return None
    if name.time < life.seen_time - _CLOCKS_APART:
        return None
    if life.ended_time is not None and name.time > life.ended_time:
        return None
    return VictimNamed(
        source=life.source,
        sequence=0,
        time=name.time,
        seen_time=life.seen_time,
        victim=Victim(pid=name.victim.pid, main_process=True),
        detail=f"pid {name.victim.pid} is the main process of {life.container_id}",
        cgroup=life.cgroup,
    )
