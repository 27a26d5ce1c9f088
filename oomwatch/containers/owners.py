"""Whose a cgroup is, by the lives that are known and by its path.

Pure: asked by path. What nobody spoke of is known by its path alone.

A cgroup lies in one container, and maybe in others around that: a container in a container, a
service of systemd's in a container. The one that is told is the innermost that a runtime or a
worker of this host spoke of: those are the containers that it asks about. Where nobody spoke it is
the outermost that the path shows, since what is nested was named by whoever lives in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile

from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import PATH, Life, merged, the_one
from oomwatch.containers.path_claims import contradict, others_may_name
from oomwatch.containers.paths import Identity, identify
from oomwatch.events import Cgroup, Container, upwards
from oomwatch.observations import ContainerSeen


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a cgroup is: the container, the path of its own cgroup, and its life if it is known."""

    container: Container
    cgroup: str
    life: Life | None = None


class Owners:
    """Tells owners; `identify` tells a container by a path alone."""

    def __init__(
        self, lives: KnownLives, identify: Callable[[str], Identity | None] = identify
    ) -> None:
        self._lives = lives
        self._identify = identify

    def of(self, cgroup: str, cgroup_id: int | None = None, time: int = 0) -> Owner | None:
        """Whose a cgroup is; `None` where neither a source nor its path tells.

        `cgroup_id` is the inode of just this cgroup where it is known, `time` when it was seen
        alive (microseconds since the epoch), which tell the lives of a path apart.
        """
        identity = self._identify(cgroup)
        shown = {one.cgroup: one for one in identity.nested()} if identity else {}
        outermost = next(reversed(shown), None)
        # What is at the root is whatever else lives on the host.
        for path in takewhile("/".__ne__, upwards(cgroup)):
            lives = [life for life in self._lives.at(path) if not life.moved]
            if path == outermost:
                # A runtime names its cgroups after its ids: found also where it told no path.
                named = self._lives.of_id(shown[path].container.id)
                lives += [life for life in named if life.cgroup is None]
            life = _of_the_time(lives, cgroup_id if path == cgroup else None, time)
            if life is not None:
                words = [life.container, *(other.container for other in self._lives.beside(life))]
                if path in shown:
                    words.append(shown[path].container)
                return Owner(merged(words), path, life)
        if outermost is None:
            return None
        if self._is_false(shown[outermost]):
            return self.of(outermost.rpartition("/")[0], None, time)
        return Owner(shown[outermost].container, outermost)

    def named(self, cgroup: Cgroup, time: int) -> ContainerSeen | None:
        """Who a cgroup is by its path, where it is a container's own and nobody spoke of it."""
        if self._lives.is_known(cgroup.id):
            return None
        identity = self._identify(cgroup.path)
        if identity is None or identity.cgroup != cgroup.path:
            return None
        container = identity.container
        if container.runtime == "systemd" or self._is_false(identity):
            return None
        return ContainerSeen(
            source=PATH, time=time, container=container, cgroup=cgroup.path, cgroup_id=cgroup.id
        )

    def found(
        self, container_id: str, cgroups: Iterable[Cgroup], time: int
    ) -> ContainerSeen | None:
        """Find a container of which nobody spoke, by its cgroup's name; `None` where none is.

        Of several with that name it is one that the host's root made, before any that a user or a
        container did.
        """
        found = (self.named(cgroup, time) for cgroup in cgroups)
        mine = [one for one in found if one is not None and one.container.id == container_id]
        return min(mine, key=self._is_a_claim, default=None)

    def _is_a_claim(self, seen: ContainerSeen) -> bool:
        identity = self._identify(seen.cgroup) if seen.cgroup is not None else None
        return identity is None or others_may_name(identity)

    def _is_false(self, identity: Identity) -> bool:
        return others_may_name(identity) and contradict(
            self._lives.of_id(identity.container.id), identity
        )


def _of_the_time(lives: list[Life], cgroup_id: int | None, time: int) -> Life | None:
    if cgroup_id is not None:
        # One of no known cgroup may be that of another, which began under the same id since.
        lives = [life for life in lives if life.cgroup_id == cgroup_id] or [
            life for life in lives if life.cgroup_id is None
        ]
        lives = _at_its_turn(lives, time)
    elif time:
        alive = [life for life in lives if life.ended_time is None or life.ended_time >= time]
        # A path is one life's at a time: the last that was heard of by then, and where none
        # was, the kill came before its container was spoken of.
        heard = [life for life in alive if life.seen_time <= time]
        last = max(heard, key=lambda life: life.seen_time, default=None)
        if last is not None:
            alive = [life for life in heard if life.cgroup_id == last.cgroup_id]
        lives = alive or lives[-1:]
    return the_one(lives)


def _at_its_turn(lives: list[Life], time: int) -> list[Life]:
    """Leave out what workers ran in a cgroup before or after a time; it may be 0 for now."""
    registered = [life for life in lives if life.registered]
    if len(registered) < 2 or not time:
        return lives
    lasted = [life for life in registered if life.ended_time is None or life.ended_time >= time]
    begun = [life for life in lasted if life.seen_time <= time] or lasted
    return [life for life in lives if not life.registered or life in begun] if begun else lives
