"""The lives of containers: one container in one cgroup directory, from its making to its removal.

A container that restarts under its id has several lives, and one that is made again under an old
name is another container: what tells them apart is the inode of the cgroup's directory, which a
boot never uses twice, and where that is not known when each was first heard of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TypeVar

from oomwatch.events import Container, Pod
from oomwatch.observations import ContainerSeen

WORKER = "worker"
"""The source of what a worker said of its own container: it outranks any runtime's word."""

PATH = "cgroup"
"""The source of what the path of a cgroup alone says of a container."""

RESTART_MICROSECONDS = 100_000
"""No runtime starts a container so soon after its last start: Docker waits at least as long."""

_RANK = {WORKER: 0, "docker": 1, "cri": 2, "containerd": 3}

LifeKey = tuple[str, int]
"""A container's id and its cgroup's inode. As long as that is not known minus when the life was
first heard of stands for it: lives without an inode are several as well."""

_Part = TypeVar("_Part", Container, Pod)


@dataclass(frozen=True, slots=True)
class Life:
    """One life, with what each source said of it.

    `cgroup` and `cgroup_id` are `None` where nobody could say. `seen_time` is when it was first
    heard of, `start_time` when it began if its runtime tells that, `ended_time` when its cgroup was
    seen to be gone; microseconds since the epoch.
    `moved` marks one that its worker said later to run elsewhere: the cgroup is no longer its own.
    `end_told` says that its exit was told: it is committed with that event.
    `counted_above` marks one whose own cgroup counts no kills: `cgroup` is the nearest above that.
    `begun_by` are the sources that told of it as it began, and not in a list alone: what they tell
    of once more, and after its end, is another.
    """

    container_id: str
    cgroup_id: int | None
    seen_time: int
    cgroup: str | None = None
    pid: int | None = None
    memory_limit_bytes: int | None = None
    start_time: int | None = None
    ended_time: int | None = None
    moved: bool = False
    end_told: bool = False
    counted_above: bool = False
    begun_by: tuple[str, ...] = ()
    said: Mapping[str, Container] = field(default_factory=dict)

    @property
    def key(self) -> LifeKey:
        """What tells it from every other life of this boot."""
        return self.former_key if self.cgroup_id is None else (self.container_id, self.cgroup_id)

    @property
    def former_key(self) -> LifeKey:
        """The key that it had while its cgroup was not known."""
        return (self.container_id, -self.seen_time)

    @property
    def registered(self) -> bool:
        """Did a worker name it?"""
        return WORKER in self.said

    @property
    def spoken_of(self) -> bool:
        """Did somebody tell of it? Else it is known by its cgroup's path alone."""
        return self.said.keys() != {PATH}

    @property
    def awaited(self) -> bool:
        """Did a worker name it, and nobody tell its end yet? Its cgroup may outlive it."""
        return self.registered and self.ended_time is None and not self.end_told

    @property
    def source(self) -> str:
        """Who knows it best, of those that spoke of it."""
        return min(self.said, key=_rank)

    @property
    def lives_with_others(self) -> bool:
        """Does its cgroup hold whatever else lives there, by the way in which it was found?"""
        return self.counted_above or self.cgroup == "/"

    @property
    def container(self) -> Container:
        """Who it is: each field from the source of the highest rank that has it."""
        return merged([self.said[source] for source in sorted(self.said, key=_rank)])

    def heard(self, seen: ContainerSeen) -> Life:
        """Return it with what a source says of it now; an old word stands where it says nothing.

        A worker's word is of a cgroup that was just looked up: what had ended there goes on. A
        runtime may speak of one that is gone. Where lives cannot be told apart, for want of a
        cgroup, the first one's beginning stands until that has ended.
        """
        limit = seen.memory_limit_bytes
        here = seen.source == WORKER
        begun_by = self.begun_by
        if not (seen.listed or seen.created) and seen.source not in begun_by:
            begun_by = _begun_by(*begun_by, seen.source)
        return replace(
            self,
            cgroup=seen.cgroup or self.cgroup,
            pid=seen.pid or self.pid,
            memory_limit_bytes=self.memory_limit_bytes if limit is None else limit,
            start_time=self.start_time or seen.start_time,
            ended_time=None if here else self.ended_time,
            moved=self.moved and not here,
            counted_above=seen.counted_above if here else self.counted_above,
            begun_by=begun_by,
            said={**self.said, sys.intern(seen.source): _shared(seen.container)},
        )


def the_one(lives: Iterable[Life]) -> Life | None:
    """Of a cgroup's lives the one whose own it is: the worker's, else the runtimes'.

    `None` where there is none, and where two workers share the cgroup. The newest where all ended.
    """
    several = sorted(lives, key=lambda life: (life.ended_time is None, life.seen_time))
    if not several:
        return None
    running = [life for life in several if life.ended_time is None] or several[-1:]
    registered = {life.container_id: life for life in running if life.registered}
    if len(registered) > 1:
        return None
    return next(iter(registered.values()), running[-1])


@lru_cache(64)
def _begun_by(*sources: str) -> tuple[str, ...]:
    """One tuple for all lives that the same sources told of in the same order."""
    return tuple(sys.intern(source) for source in sources)


def _shared(container: Container) -> Container:
    """The same, its common words held once: thousands have one image, and labels of few values."""
    pod = container.pod
    return replace(
        container,
        runtime=_interned(container.runtime),
        handler=_interned(container.handler),
        image=_interned(container.image),
        labels=(
            None
            if container.labels is None
            else {sys.intern(key): sys.intern(value) for key, value in container.labels.items()}
        ),
        pod=None if pod is None else replace(pod, namespace=_interned(pod.namespace)),
    )


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


def merged(words: Sequence[Container]) -> Container:
    """Join what several sources say of one container, the weightiest first; there must be one.

    Labels are those of the first source that has any: two sources' are not mixed.
    """
    container, *others = words
    for other in others:
        pods = [one.pod for one in (container, other) if one.pod is not None]
        if len(pods) == 2:
            pods = [_filled(pods[0], pods[1])]
        container = replace(_filled(container, other), pod=pods[0] if pods else None)
    return container


def _filled(whole: _Part, other: _Part) -> _Part:
    missing = {
        part.name: getattr(other, part.name)
        for part in fields(other)
        if getattr(whole, part.name) is None
    }
    return replace(whole, **missing)


def _rank(source: str) -> tuple[int, str]:
    return (_RANK.get(source, len(_RANK)), source)


@dataclass(frozen=True, slots=True)
class LivesChange:
    """What is to be kept of lives: those new or changed, and the keys of those forgotten."""

    kept: tuple[Life, ...] = ()
    forgotten: tuple[LifeKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kept or self.forgotten)
