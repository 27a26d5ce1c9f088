"""Whose a cgroup is: the lives of the containers that a runtime or a worker spoke of.

Pure: fed with what sources say, asked by path. What nobody spoke of is known by its path alone.

A cgroup lies in one container, and maybe in others around that: a container in a container, a
service of systemd's in a container. The one that is told is the innermost that a runtime or a
worker of this host spoke of: those are the containers that it asks about. Where nobody spoke it is
the outermost that the path shows, since what is nested was named by whoever lives in it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import itemgetter

from oomwatch.containers.key_index import KeyIndex
from oomwatch.containers.lives import PATH, WORKER, Life, LifeKey, LivesChange, merged
from oomwatch.containers.packing import PackedLives
from oomwatch.containers.paths import Identity, identify
from oomwatch.events import Cgroup, Container, is_within, upwards
from oomwatch.observations import ContainerSeen

MAX_REGISTERED = 10_000
"""Containers that workers may have registered at one time."""

MAX_LIVES = 20_000
MAX_ENDED = 4096
"""Lives whose cgroup is gone, kept so that what comes last still finds their name: so many that
somebody spoke of, and as many that are known by their path alone. Whoever may make cgroups, a user
of rootless Podman too, makes as many of those as he likes: they take no other's place."""

ENDED_SECONDS = 86_400

LATE_MICROSECONDS = 60_000_000
"""How long after a life's end was told the removal of its cgroup may still say where it was."""

MOST_GONE = 512
"""Cgroups of whose removal it is known that it was: somebody may yet speak of one that he saw just
before. A boot gives no other the same inode."""

RESTART_MICROSECONDS = 100_000
"""No runtime starts a container so soon after its last start: Docker waits at least as long."""

LATE_START_MICROSECONDS = 1_000_000
"""How long after its end a life may be said to have begun by a source that speaks of it for the
first time: Docker dates a start when that has returned, 20 ms after the end of `true` on an
emulated processor."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a cgroup is: the container, the path of its own cgroup, and its life if it is known."""

    container: Container
    cgroup: str
    life: Life | None = None


class Containers:
    """The lives that are known, those that ended lately included."""

    def __init__(
        self,
        lives: Iterable[Life] = (),
        *,
        identify: Callable[[str], Identity | None] = identify,
    ) -> None:
        self._identify = identify
        self._lives = PackedLives()
        self._by_id: KeyIndex[str, LifeKey] = KeyIndex()
        self._by_path: KeyIndex[int, LifeKey] = KeyIndex()
        self._by_cgroup: KeyIndex[int, LifeKey] = KeyIndex()
        self._by_pid: dict[int, LifeKey] = {}
        # By whether somebody spoke of them.
        self._ended: tuple[dict[LifeKey, int], dict[LifeKey, int]] = {}, {}
        self._gone: deque[int] = deque(maxlen=MOST_GONE)
        self._registered = 0
        self._kept: dict[LifeKey, Life] = {}
        self._forgotten: set[LifeKey] = set()
        self._take_in(lives)

    # What is said

    def seen(self, seen: ContainerSeen) -> Life | None:
        """Take in what a source says of a container; its life, `None` where that is nothing new.

        A life that was heard of without its cgroup is found again by its id.
        """
        if seen.source == WORKER:
            self._unregister(seen.container.id, seen.time, but=seen)
        life = self._with_cgroup(seen) or self._without_cgroup(seen)
        if life is None:
            fresh = Life(seen.container.id, seen.cgroup_id, seen.time)
            while fresh.key in self._lives:
                fresh = replace(fresh, seen_time=fresh.seen_time + 1)
            self._put(fresh.heard(seen))
        elif seen.listed and life.ended_time is not None and seen.source in life.said:
            return None  # it may be of another that was created under the same id since
        else:
            heard = life.heard(seen)
            if heard.cgroup_id is None:
                heard = replace(heard, cgroup_id=seen.cgroup_id)
            if heard == life:
                return None
            if heard.key == life.key:
                self._put(heard)
            else:
                self._place(life, heard)
        if seen.cgroup_id in self._gone and (gone := self._with_cgroup(seen)) is not None:
            self._end(gone.key, seen.time)
        return self.newest(seen.container.id)

    def removed(self, cgroup_id: int, time: int) -> None:
        """A cgroup is gone: the lives in it have ended, and are remembered for a while."""
        self._gone.append(cgroup_id)
        for key in list(self._by_cgroup[cgroup_id]):
            self._end(key, time)

    def ended(self, life: Life, time: int) -> None:
        """A life's end was told. Where a cgroup was never found, nothing else ends that life."""
        for other in self.in_order(life.container_id):
            if other.cgroup_id is None and other.seen_time <= life.seen_time:
                self._end(other.key, time)

    def only(self, cgroup_ids: frozenset[int], time: int) -> None:
        """These cgroups are all that exist: what lived in another ended while nobody watched."""
        for cgroup_id in [i for i in self._by_cgroup if i not in cgroup_ids]:
            self.removed(cgroup_id, time)

    def unwatched(self, container_id: str, time: int) -> bool:
        """Forget a worker's word on a container; False where it gave none."""
        return self._unregister(container_id, time)

    def end_told(self, key: LifeKey) -> None:
        """The exit of a life is told, and with it that of whatever else its cgroup is called."""
        life = self._lives.get(key)
        if life is not None:
            for one in (life, *self._beside(life)):
                if not one.end_told:
                    self._put(replace(one, end_told=True))

    def told_by_another_id(self, life: Life) -> bool:
        """May it be the exit of a worker's container in the same cgroup that was told, and not its
        own? A worker may run one after another there.
        """
        if life.registered or life.cgroup_id is None:
            return False
        others = (self._lives[key] for key in self._by_cgroup[life.cgroup_id])
        return any(
            other.registered and other.end_told and other.container_id != life.container_id
            for other in others
        )

    def take_changes(self) -> LivesChange:
        """What changed since the last call, to be kept with the journal."""
        if not self._kept and not self._forgotten:
            return LivesChange()
        change = LivesChange(tuple(self._kept.values()), tuple(self._forgotten))
        self._kept, self._forgotten = {}, set()
        return change

    # What is asked

    @property
    def registered(self) -> int:
        """How many containers workers have registered and not yet ended."""
        return self._registered

    def end_untold(self) -> list[Life]:
        """The lives that ran, as far as is known, and whose exit was not told."""
        return [
            life
            for life in self._lives.values()
            if not (life.end_told or life.moved) and (life.cgroup_id or life.pid) is not None
        ]

    def newest(self, container_id: str) -> Life | None:
        """The newest life of a container by its whole id, also one that ended."""
        keys = self._by_id[container_id]
        return self._lives[keys[-1]] if keys else None

    def in_order(self, container_id: str) -> list[Life]:
        """The lives of a container in the order in which they began, as far as that is known.

        Inodes rise; a life whose cgroup is not known is put in by when it was first heard of.
        """
        lives = [self._lives[key] for key in self._by_id[container_id]]
        lives.sort(key=lambda life: life.cgroup_id or 0)
        began: dict[LifeKey, int] = {}
        latest = sys.maxsize
        for life in reversed(lives):
            if life.cgroup_id is not None:
                latest = min(latest, life.seen_time)
                began[life.key] = latest
        return sorted(lives, key=lambda life: began.get(life.key, life.seen_time))

    def running(self) -> Iterator[Life]:
        """The lives that are not known to have ended; none may be told of meanwhile."""
        return (life for life in self._lives.values() if life.ended_time is None)

    def of_key(self, key: LifeKey) -> Life | None:
        """Just this life."""
        return self._lives.get(key)

    def life(self, container_id: str, cgroup_id: int | None) -> Life | None:
        """One life of several; the newest where no cgroup is named."""
        if cgroup_id is None:
            return self.newest(container_id)
        return self._lives.get((container_id, cgroup_id))

    def of_main_process(self, pid: int) -> Life | None:
        """The newest life whose main process had this pid when it was looked up."""
        key = self._by_pid.get(pid)
        return self._lives[key] if key is not None else None

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

    def in_cgroup(self, cgroup_id: int) -> Life | None:
        """The life in just this cgroup, whose own it is; `None` where several share it."""
        return self._one(self.lives_in(cgroup_id))

    def lives_in(self, cgroup_id: int) -> list[Life]:
        """Every life that was told to be in just this cgroup."""
        return [self._lives[key] for key in self._by_cgroup[cgroup_id]]

    def named(self, cgroup: Cgroup, time: int) -> ContainerSeen | None:
        """Who a cgroup is by its path, where it is a container's own and nobody spoke of it."""
        if self._by_cgroup[cgroup.id]:
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
        return identity is None or _others_may_name(identity)

    def owner(self, cgroup: str, cgroup_id: int | None = None, time: int = 0) -> Owner | None:
        """Whose a cgroup is; `None` where neither a source nor its path tells.

        `cgroup_id` is the inode of just this cgroup where it is known, `time` when it was seen
        alive (microseconds since the epoch), which tell the lives of a path apart.
        """
        identity = self._identify(cgroup)
        shown = {one.cgroup: one for one in identity.nested()} if identity else {}
        outermost = next(reversed(shown), None)
        # What is at the root is whatever else lives on the host.
        for path in takewhile("/".__ne__, upwards(cgroup)):
            lives = [life for life in self._at(path) if not life.moved]
            if path == outermost:
                # A runtime names its cgroups after its ids: found also where it told no path.
                named = (self._lives[key] for key in self._by_id[shown[path].container.id])
                lives += [life for life in named if life.cgroup is None]
            life = self._of_the_time(lives, cgroup_id if path == cgroup else None, time)
            if life is not None:
                words = [life.container, *(other.container for other in self._beside(life))]
                if path in shown:
                    words.append(shown[path].container)
                return Owner(merged(words), path, life)
        if outermost is None:
            return None
        if self._is_false(shown[outermost]):
            return self.owner(outermost.rpartition("/")[0], None, time)
        return Owner(shown[outermost].container, outermost)

    def _is_false(self, identity: Identity) -> bool:
        """Does a path claim to be a container that somebody spoke of, and that lives elsewhere?"""
        if not _others_may_name(identity):
            return False
        nested, unit = identity.outer is not None, _outermost_unit(identity.cgroup)
        lives = [self._lives[key] for key in self._by_id[identity.container.id]]
        spoken_of = [life for life in lives if life.spoken_of]
        return bool(spoken_of) and not any(
            not nested
            if life.cgroup is None
            else is_within(identity.cgroup, life.cgroup)
            or is_within(life.cgroup, identity.cgroup)
            # It may start anew elsewhere: whoever named this one had named that.
            or (not nested and life.ended_time is not None and _outermost_unit(life.cgroup) == unit)
            for life in spoken_of
        )

    def _at(self, path: str) -> list[Life]:
        """Every life that was told to be in a cgroup of this path."""
        lives = (self._lives[key] for key in self._by_path[_hash(path)])
        return [life for life in lives if life.cgroup == path]

    def _beside(self, life: Life) -> Iterator[Life]:
        """What runtimes say of a cgroup that a worker knows by an id of its own."""
        if life.registered and life.cgroup_id is not None:
            for key in self._by_cgroup[life.cgroup_id]:
                other = self._lives[key]
                if not other.registered and other.container_id != life.container_id:
                    yield other

    def _of_the_time(self, lives: list[Life], cgroup_id: int | None, time: int) -> Life | None:
        if cgroup_id is not None:
            # One of no known cgroup may be that of another, which began under the same id since.
            lives = [life for life in lives if life.cgroup_id == cgroup_id] or [
                life for life in lives if life.cgroup_id is None
            ]
        elif time:
            alive = [life for life in lives if life.ended_time is None or life.ended_time >= time]
            # A path is one life's at a time: the last that was heard of by then, and where none
            # was, the kill came before its container was spoken of.
            heard = [life for life in alive if life.seen_time <= time]
            last = max(heard, key=lambda life: life.seen_time, default=None)
            if last is not None:
                alive = [life for life in heard if life.cgroup_id == last.cgroup_id]
            lives = alive or lives[-1:]
        return self._one(lives)

    @staticmethod
    def _one(lives: Iterable[Life]) -> Life | None:
        """The one that is meant: the worker's, else the runtimes'; none where two workers share."""
        several = sorted(lives, key=lambda life: (life.ended_time is None, life.seen_time))
        if not several:
            return None
        running = [life for life in several if life.ended_time is None] or several[-1:]
        registered = {life.container_id: life for life in running if life.registered}
        if len(registered) > 1:
            return None
        return next(iter(registered.values()), running[-1])

    # Keeping

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

    def _unregister(self, container_id: str, time: int, but: ContainerSeen | None = None) -> bool:
        """Drop a worker's word on the lives of an id that go on, but for the one it speaks of now.

        Where it speaks of another cgroup, the container moved. Of the same path made anew it did
        not: what was there before is gone, and keeps its name.
        """
        found = False
        for key in list(self._by_id[container_id]):
            life = self._lives.get(key)
            if life is None or not life.registered or life.ended_time is not None:
                continue
            if but is not None and life.cgroup_id == but.cgroup_id:
                continue
            found = True
            gone = but is not None and life.cgroup == but.cgroup
            others = {source: said for source, said in life.said.items() if source != WORKER}
            if others and not gone:
                self._put(replace(life, said=others))
            else:
                self._end(key, time, moved=but is not None and not gone)
        return found

    def _with_cgroup(self, seen: ContainerSeen) -> Life | None:
        if seen.cgroup_id is None:
            return None
        return self._lives.get((seen.container.id, seen.cgroup_id))

    def _without_cgroup(self, seen: ContainerSeen) -> Life | None:
        """A life of the same id that was told without its cgroup, or is told so now.

        Of one that has ended, a source that did not tell of its beginning yet speaks late, and so
        does one that tells the same beginning again, or a list, which tells of none; and the path
        of a cgroup is told as that is removed. Any other word is of a life that began since.
        """
        newest = self.newest(seen.container.id)
        if seen.cgroup_id is None:
            return newest if newest is None or _speaks_of(seen, newest) else None
        lives = [life for life in self.in_order(seen.container.id) if life.cgroup_id is None]
        for life in lives if seen.source == PATH else ():
            # Cgroups are removed in the order of the lives in them.
            if life.ended_time is not None and life.ended_time >= seen.time - LATE_MICROSECONDS:
                return life
        return lives[-1] if lives and lives[-1].ended_time is None else None

    def _put(self, life: Life) -> None:
        # One key for all that holds it: there may be ten thousand.
        key = life.key
        old = self._lives.get(key)
        self._lives[key] = life
        self._index(key, life, old)
        self._kept[key] = life
        self._forgotten.discard(key)
        self._bound(life.seen_time)

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

    def _place(self, life: Life, placed: Life) -> None:
        """A life's cgroup is known now: it keeps its place among the others of its container."""
        at = self._by_id[life.container_id].index(life.key)
        self._forget(life.key)
        self._put(placed)
        self._by_id.put_back(life.container_id, placed.key, at)

    def _end(self, key: LifeKey, time: int, *, moved: bool = False) -> None:
        # Another that ended just before may have pushed it out.
        life = self._lives.get(key)
        if life is not None and life.ended_time is None:
            self._put(replace(life, ended_time=time, moved=moved))
            self._bound(time)

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


def _others_may_name(identity: Identity) -> bool:
    """May somebody else than the host's root have named a cgroup?

    Whoever has cgroups of his own can name one after any container whose id he knows: a user below
    his user@UID.service, a service, whoever lives in a container. Of the others a container may
    have two (Kata's /kata_overhead/ID).
    """
    above = identity.cgroup.rpartition("/")[0]
    return identity.outer is not None or _outermost_unit(above) is not None


def _outermost_unit(cgroup: str) -> str | None:
    """The service or scope, a user's user@UID.service for one, that a cgroup is below or is."""
    names = cgroup.split("/")
    for number, name in enumerate(names, 1):
        if name.endswith((".service", ".scope")):
            return "/".join(names[:number])
    return None


def _speaks_of(seen: ContainerSeen, newest: Life) -> bool:
    """Is a word that names no cgroup of the newest life, and of none that began since?"""
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


def _hash(path: str) -> int:
    """What a path is found by: two hundred bytes as Kubernetes has it, which its life holds packed.

    Other paths may share it. Of 60 bits, since an int of more is half as large again.
    """
    return hash(path) & (1 << 60) - 1
