"""The lives that are known: found by what they share, bounded, with what changed of them.

Those that ended lately are known too. Anybody may look a life up; it is kept by `registry` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import itemgetter

from oomwatch.containers.key_index import KeyIndex
from oomwatch.containers.lives import Life, LifeKey, LivesChange, the_one
from oomwatch.containers.packing import PackedLives

MAX_LIVES = 20_000
MAX_ENDED = 4096
"""Lives whose cgroup is gone, kept so that what comes last still finds their name: so many that
somebody spoke of, and as many that are known by their path alone. Whoever may make cgroups, a user
of rootless Podman too, makes as many of those as he likes: they take no other's place."""

ENDED_SECONDS = 86_400


class KnownLives:
    """Lives by container, path, cgroup and main process; any that is kept may push out another."""

    def __init__(self, lives: Iterable[Life] = ()) -> None:
        self._lives = PackedLives()
        self._by_id: KeyIndex[str, LifeKey] = KeyIndex()
        self._by_path: KeyIndex[int, LifeKey] = KeyIndex()
        self._by_cgroup: KeyIndex[int, LifeKey] = KeyIndex()
        self._by_pid: dict[int, LifeKey] = {}
        # By whether somebody spoke of them.
        self._ended: tuple[dict[LifeKey, int], dict[LifeKey, int]] = {}, {}
        self._registered = 0
        self._kept: dict[LifeKey, Life] = {}
        self._forgotten: set[LifeKey] = set()
        self._take_in(lives)

    # What is asked

    @property
    def registered(self) -> int:
        """How many containers workers have registered and not yet ended."""
        return self._registered

    @property
    def cgroup_ids(self) -> Iterable[int]:
        """The inodes of the cgroups in which a life was told to be; none may be kept meanwhile."""
        return self._by_cgroup

    def of_key(self, key: LifeKey) -> Life | None:
        """Just this life."""
        return self._lives.get(key)

    def of_id(self, container_id: str) -> list[Life]:
        """Every life of a container by its whole id, in the order in which they were heard of."""
        return [self._lives[key] for key in self._by_id[container_id]]

    def newest(self, container_id: str) -> Life | None:
        """The newest life of a container by its whole id, also one that ended."""
        keys = self._by_id[container_id]
        return self._lives[keys[-1]] if keys else None

    def life(self, container_id: str, cgroup_id: int | None) -> Life | None:
        """One life of several; the newest where no cgroup is named."""
        if cgroup_id is None:
            return self.newest(container_id)
        return self._lives.get((container_id, cgroup_id))

    def in_order(self, container_id: str) -> list[Life]:
        """The lives of a container in the order in which they began, as far as that is known.

        Inodes rise; a life whose cgroup is not known is put in by when it was first heard of.
        """
        lives = sorted(self.of_id(container_id), key=lambda life: life.cgroup_id or 0)
        began: dict[LifeKey, int] = {}
        latest = sys.maxsize
        for life in reversed(lives):
            if life.cgroup_id is not None:
                latest = min(latest, life.seen_time)
                began[life.key] = latest
        return sorted(lives, key=lambda life: began.get(life.key, life.seen_time))

    def starting_with(self, prefix: str) -> list[Life]:
        """The newest life of each container whose id begins so, two at most."""
        exact = self.newest(prefix)
        if exact is not None:
            return [exact]
        found = []
        for container_id in self._by_id:
            if container_id.startswith(prefix):
                found.append(self._lives[self._by_id[container_id][-1]])
                if len(found) == 2:
                    break
        return found

    def running(self) -> Iterator[Life]:
        """The lives that are not known to have ended; none may be kept meanwhile."""
        return (life for life in self._lives.values() if life.ended_time is None)

    def end_untold(self) -> list[Life]:
        """The lives that ran, as far as is known, and whose exit was not told."""
        return [
            life
            for life in self._lives.values()
            if not (life.end_told or life.moved) and (life.cgroup_id or life.pid) is not None
        ]

    def of_main_process(self, pid: int) -> Life | None:
        """The newest life whose main process had this pid when it was looked up."""
        key = self._by_pid.get(pid)
        return self._lives[key] if key is not None else None

    def at(self, path: str) -> list[Life]:
        """Every life that was told to be in a cgroup of this path."""
        lives = (self._lives[key] for key in self._by_path[_hash(path)])
        return [life for life in lives if life.cgroup == path]

    def lives_in(self, cgroup_id: int) -> list[Life]:
        """Every life that was told to be in just this cgroup."""
        return [self._lives[key] for key in self._by_cgroup[cgroup_id]]

    def is_known(self, cgroup_id: int) -> bool:
        """Was a life told to be in just this cgroup?"""
        return bool(self._by_cgroup[cgroup_id])

    def in_cgroup(self, cgroup_id: int) -> Life | None:
        """The life in just this cgroup, whose own it is; `None` where several share it."""
        return the_one(self.lives_in(cgroup_id))

    def beside(self, life: Life) -> list[Life]:
        """What runtimes say of a cgroup that a worker knows by an id of its own."""
        if not life.registered or life.cgroup_id is None:
            return []
        return [
            other
            for other in self.lives_in(life.cgroup_id)
            if not other.registered and other.container_id != life.container_id
        ]

    def turns(self, life: Life) -> tuple[list[Life], bool]:
        """The last that a worker ran before this life in its cgroup, and whether one came after."""
        if life.cgroup_id is None or not life.registered:
            return [], False
        others = [
            other
            for other in self.lives_in(life.cgroup_id)
            if other.registered and other.container_id != life.container_id
        ]
        before = [
            other
            for other in others
            if other.ended_time is not None and other.ended_time <= life.seen_time
        ]
        latest = max((other.ended_time or 0 for other in before), default=0)
        over = life.ended_time
        return [other for other in before if other.ended_time == latest], over is not None and any(
            over <= other.seen_time for other in others
        )

    # What is kept

    def put(self, life: Life) -> None:
        """Keep a life as it is now."""
        # One key for all that holds it: there may be ten thousand.
        key = life.key
        old = self._lives.get(key)
        self._lives[key] = life
        self._index(key, life, old)
        self._kept[key] = life
        self._forgotten.discard(key)
        self._bound(life.seen_time)

    def place(self, life: Life, placed: Life) -> None:
        """A life's cgroup is known now: it keeps its place among the others of its container."""
        at = self._by_id[life.container_id].index(life.key)
        self._forget(life.key)
        self.put(placed)
        self._by_id.put_back(life.container_id, placed.key, at)

    def end(self, life: Life, time: int, *, moved: bool = False) -> None:
        """A life has ended, unless that is known, or the end of another has pushed it out."""
        now = self._lives.get(life.key)
        if now is not None and now.ended_time is None:
            self.put(replace(now, ended_time=time, moved=moved))
            self._bound(time)

    def forget(self, life: Life) -> None:
        """Keep a life no longer, if it is still kept."""
        if life.key in self._lives:
            self._forget(life.key)

    def take_changes(self) -> LivesChange:
        """What changed since the last call, to be kept with the journal."""
        if not self._kept and not self._forgotten:
            return LivesChange()
        change = LivesChange(tuple(self._kept.values()), tuple(self._forgotten))
        self._kept, self._forgotten = {}, set()
        return change

    def _take_in(self, lives: Iterable[Life]) -> None:
        """Put in what was kept, the oldest first; of all together only the packed are held."""
        order: list[tuple[int, LifeKey]] = []
        for life in lives:
            key = life.key
            self._lives[key] = life
            order.append((life.seen_time, key))
        order.sort(key=itemgetter(0))
        self._lives.arrange(key for _, key in order)
        for _, key in order:
            self._index(key, self._lives[key], None)
        if order:
            self._bound(order[-1][0])

    def _index(self, key: LifeKey, life: Life, old: Life | None) -> None:
        if old is None:
            self._by_id.add(life.container_id, key)
            if life.cgroup_id is not None:
                self._by_cgroup.add(life.cgroup_id, key)
        if life.cgroup is not None and (old is None or old.cgroup != life.cgroup):
            if old is not None and old.cgroup is not None:
                self._by_path.discard(_hash(old.cgroup), key)
            self._by_path.add(_hash(life.cgroup), key)
        if old is not None and old.pid != life.pid:
            self._forget_pid(old)
        if life.pid is not None:
            self._by_pid[life.pid] = key
        self._ended[not life.spoken_of].pop(key, None)
        if life.ended_time is not None:
            self._ended[life.spoken_of][key] = life.ended_time
        else:
            self._ended[life.spoken_of].pop(key, None)
        self._registered += life.awaited - (old is not None and old.awaited)

    def _bound(self, now: int) -> None:
        oldest = now - ENDED_SECONDS * 1_000_000
        for ended in self._ended:
            while ended:
                key, time = next(iter(ended.items()))
                if len(ended) <= MAX_ENDED and time > oldest and len(self._lives) <= MAX_LIVES:
                    break
                self._forget(key)
        while len(self._lives) > MAX_LIVES:
            self._forget(self._first_to_go())

    def _first_to_go(self) -> LifeKey:
        """The oldest of all that nobody registered: a runtime may tell of as many as it likes.

        Workers may register fewer than there is room for.
        """
        for _ in range(len(self._lives)):
            key = next(iter(self._lives))
            if not self._lives[key].awaited:
                break
            self._lives.put_last(key)
        return next(iter(self._lives))

    def _forget(self, key: LifeKey) -> None:
        life = self._lives.pop(key)
        for ended in self._ended:
            ended.pop(key, None)
        self._registered -= life.awaited
        self._by_id.discard(life.container_id, key)
        if life.cgroup is not None:
            self._by_path.discard(_hash(life.cgroup), key)
        if life.cgroup_id is not None:
            self._by_cgroup.discard(life.cgroup_id, key)
        self._forget_pid(life)
        self._kept.pop(key, None)
        self._forgotten.add(key)

    def _forget_pid(self, life: Life) -> None:
        if life.pid is not None and self._by_pid.get(life.pid) == life.key:
            del self._by_pid[life.pid]


def _hash(path: str) -> int:
    """What a path is found by: two hundred bytes as Kubernetes has it, which its life holds packed.

    Other paths may share it. Of 60 bits, since an int of more is half as large again.
    """
    return hash(path) & (1 << 60) - 1
