"""What runtimes, workers and the cgroup tree say of containers, taken in as their lives.

Pure: fed with what sources say. Found are the lives in `lives`, and whose a cgroup is in `owners`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import WORKER, Life, LifeKey
from oomwatch.containers.meant import life_meant
from oomwatch.containers.owners import Owners
from oomwatch.containers.paths import Identity, identify
from oomwatch.observations import ContainerSeen

MOST_GONE = 512
"""Cgroups of whose removal it is known that it was: somebody may yet speak of one that he saw just
before. A boot gives no other the same inode."""

MOST_TURNS = 32
"""Lives that are remembered of those that a worker ran one after another in the same cgroup. Every
kill there has each of them looked at."""


class Containers:
    """The containers of a host: `lives` are known, `owners` are told by them."""

    def __init__(
        self,
        lives: Iterable[Life] = (),
        *,
        identify: Callable[[str], Identity | None] = identify,
    ) -> None:
        self.lives = KnownLives(lives)
        self.owners = Owners(self.lives, identify)
        self._gone: deque[int] = deque(maxlen=MOST_GONE)

    def seen(self, seen: ContainerSeen) -> Life | None:
        """Take in what a source says of a container; its life, `None` where that is nothing new.

        A life that was heard of without its cgroup is found again by its id.
        """
        if seen.source == WORKER:
            self._unregister(seen.container.id, seen.time, but=seen)
            self._take_over(seen)
        life = life_meant(seen, self.lives)
        if life is None:
            fresh = Life(seen.container.id, seen.cgroup_id, seen.time)
            while self.lives.of_key(fresh.key) is not None:
                fresh = replace(fresh, seen_time=fresh.seen_time + 1)
            self.lives.put(fresh.heard(seen))
        elif seen.listed and life.ended_time is not None and seen.source in life.said:
            return None  # it may be of another that was created under the same id since
        else:
            heard = life.heard(seen)
            if heard.cgroup_id is None:
                heard = replace(heard, cgroup_id=seen.cgroup_id)
            if heard == life:
                return None
            if heard.key == life.key:
                self.lives.put(heard)
            else:
                self.lives.place(life, heard)
        if seen.cgroup_id in self._gone:
            gone = self.lives.life(seen.container.id, seen.cgroup_id)
            if gone is not None:
                self.lives.end(gone, seen.time)
        return self.lives.newest(seen.container.id)

    def removed(self, cgroup_id: int, time: int) -> None:
        """A cgroup is gone: the lives in it have ended, and are remembered for a while."""
        self._gone.append(cgroup_id)
        for life in self.lives.lives_in(cgroup_id):
            self.lives.end(life, time)

    def ended(self, life: Life, time: int) -> None:
        """A life's end was told. Where a cgroup was never found, nothing else ends that life."""
        for other in self.lives.in_order(life.container_id):
            if other.cgroup_id is None and other.seen_time <= life.seen_time:
                self.lives.end(other, time)

    def only(self, cgroup_ids: frozenset[int], time: int) -> None:
        """These cgroups are all that exist: what lived in another ended while nobody watched."""
        for cgroup_id in [i for i in self.lives.cgroup_ids if i not in cgroup_ids]:
            self.removed(cgroup_id, time)

    def unwatched(self, container_id: str, time: int) -> bool:
        """Forget a worker's word on a container; False where it gave none."""
        return self._unregister(container_id, time)

    def end_told(self, key: LifeKey) -> None:
        """The exit of a life is told, and with it that of whatever else its cgroup is called."""
        life = self.lives.of_key(key)
        if life is not None:
            for one in (life, *self.lives.beside(life)):
                if not one.end_told:
                    self.lives.put(replace(one, end_told=True))

    def told_by_another_id(self, life: Life) -> bool:
        """May it be the exit of a worker's container in the same cgroup that was told, and not its
        own? A worker may run one after another there.
        """
        if life.registered or life.cgroup_id is None:
            return False
        return any(
            other.registered and other.end_told and other.container_id != life.container_id
            for other in self.lives.lives_in(life.cgroup_id)
        )

    def _take_over(self, seen: ContainerSeen) -> None:
        """Have the lives of a cgroup whose exits their worker was told end as its next begins."""
        if seen.cgroup_id is None:
            return
        before = [
            life
            for life in self.lives.lives_in(seen.cgroup_id)
            if life.registered and life.end_told and life.container_id != seen.container.id
        ]
        for life in before:
            self.lives.end(life, seen.time)
        for life in before[:-MOST_TURNS]:
            self.lives.forget(life)

    def _unregister(self, container_id: str, time: int, but: ContainerSeen | None = None) -> bool:
        """Drop a worker's word on the lives of an id that go on, but for the one it speaks of now.

        Where it speaks of another cgroup, the container moved. Of the same path made anew it did
        not: what was there before is gone, and keeps its name.
        """
        found = False
        for life in self.lives.of_id(container_id):
            if not life.registered or life.ended_time is not None:
                continue
            if but is not None and life.cgroup_id == but.cgroup_id:
                continue
            found = True
            gone = but is not None and life.cgroup == but.cgroup
            others = {source: said for source, said in life.said.items() if source != WORKER}
            if others and not gone:
                self.lives.put(replace(life, said=others))
            else:
                self.lives.end(life, time, moved=but is not None and not gone)
        return found
