"""The exits of the last while, one for each life: found by whose end a word is on.

A runtime often cannot say in which cgroup a container ended: that is gone before it is looked up.
Which life it means follows from the order of lives, and from what other sources said.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from oomwatch.containers.key_index import KeyIndex
from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import RESTART_MICROSECONDS, WORKER, Life, LifeKey
from oomwatch.correlator.exits.words import Exit
from oomwatch.events import Container, ContainerExit
from oomwatch.observations import ContainerEnded

MAX_EXITS = 4096
"""Exits that can still be asked for again and amended."""

AMEND_SECONDS = 60.0
"""How long after an exit was told a kill that is told, or named, may still change it."""


class ExitBook:
    """Exits by their lives, and by the episodes that the journal knows them by."""

    def __init__(self, boot: str, lives: KnownLives) -> None:
        self._boot = boot
        self._lives = lives
        self._exits: dict[LifeKey, Exit] = {}
        self._by_episode: dict[str, Exit] = {}
        self._by_container: KeyIndex[str, Exit] = KeyIndex()

    def of(self, life: Life) -> Exit | None:
        """The exit of a life, if it has one already."""
        return self._exits.get(life.key) or self._exits.get(life.former_key)

    def first_revision(self, life: Life) -> int | None:
        """Where a life's exit was written down first; `None` where that is not known here."""
        exit_ = self.of(life)
        return None if exit_ is None else exit_.first_revision

    def in_episode(self, episode_id: str) -> Exit | None:
        """The exit that the journal knows by this."""
        return self._by_episode.get(episode_id)

    def _own(self, life: Life) -> Life:
        return self.life(life.container_id, life.cgroup_id) or life

    def life(self, container_id: str, cgroup_id: int | None) -> Life | None:
        """The life that is meant; `None` where nobody ever spoke of that container."""
        life = self._lives.life(container_id, cgroup_id)
        if life is not None:
            if life.registered or life.cgroup_id is None:
                return life
            # A worker may know a runtime's container by an id of its own: one life, one exit.
            # Unless that ran several there, one after another: what is around them has its own.
            own = self._lives.in_cgroup(life.cgroup_id)
            alone = own is not None and own.registered and not self._lives.turns(own)[0]
            return own if own is not None and alone else life
        for exit_ in reversed(self._by_container[container_id]):
            if cgroup_id in (None, exit_.life.cgroup_id):
                return exit_.life
        return None

    def meant(self, ended: ContainerEnded, runs: Callable[[Life], bool]) -> Life | None:
        """The life whose end a worker tells: where it names none, the newest that does not run and
        of which nobody told another status. A runtime may have started the next one by then.
        """
        newest = self.life(ended.container_id, ended.cgroup_id)
        if ended.cgroup_id is not None or newest is None or newest.cgroup_id is None:
            return newest
        for life in reversed(self._since(ended.container_id, ended.time)):
            if life.cgroup_id is None:
                continue
            told_of = self._own(life)
            exit_ = self.of(told_of)
            if exit_ is None:
                if life.ended_time is not None or not runs(life):
                    return told_of
            elif len({exit_.said.exit_code, ended.exit_code} - {None}) <= 1:
                return told_of
        return newest

    def ending(self, ended: ContainerEnded) -> Life | None:
        """The life whose end is told; `None` where nobody ever spoke of that container."""
        life = self._next_to_end(ended) or self.life(ended.container_id, ended.cgroup_id)
        return None if life is not None and _is_anothers(life, ended) else life

    def _next_to_end(self, ended: ContainerEnded) -> Life | None:
        """Ends come in the order of lives: where a runtime could not say in which cgroup it was,
        it means the first life that it has not told the end of.
        """
        if ended.cgroup_id is not None or ended.source == WORKER:
            return None
        lives = [
            life
            for life in self._since(ended.container_id, ended.time)
            if not _is_anothers(life, ended)
        ]
        told_of = [life if life.cgroup_id is None else self._own(life) for life in lives]
        exits = [(life, self.of(life)) for life in told_of]
        for life, exit_ in exits:
            if exit_ is not None and exit_.repeats(ended):
                return life
        for life, exit_ in exits:
            if exit_ is None or ended.source not in exit_.words:
                return life
        return None

    def same_end(self, life: Life, ended: ContainerEnded) -> Exit | None:
        """Find the exit that this is another source's word on, though one of the two could not say
        in which cgroup it was: a container that ends at once is gone before it is looked up.
        """
        for exit_ in reversed(self._by_container[life.container_id]):
            if exit_.seen_time < _long_before(ended.time):
                return None
            if (exit_.life.cgroup_id is None) == (life.cgroup_id is None):
                continue
            if ended.source in exit_.words:
                continue
            codes = {exit_.said.exit_code, ended.exit_code} - {None}
            if len(codes) <= 1:
                return exit_
        return None

    def found_its_place(self, container_id: str) -> tuple[Exit, Life] | None:
        """An exit that was of no known cgroup, and its life, if the registry has placed that."""
        for life in self._lives.in_order(container_id):
            exit_ = self._exits.get(life.former_key) if life.cgroup_id is not None else None
            if exit_ is not None and exit_.life.cgroup_id is None:
                return exit_, life
        return None

    def _since(self, container_id: str, time: int) -> list[Life]:
        """The lives that may have ended at a time, in the order in which they began."""
        return [
            life
            for life in self._lives.in_order(container_id)
            if life.ended_time is None or life.ended_time >= _long_before(time)
        ]

    def add(self, life: Life, seen_time: int) -> tuple[Exit, list[Exit]]:
        """Begin a life's exit; also returns those that are too many now."""
        exit_ = Exit(life, self._episode_id(life.key), seen_time)
        return exit_, self._put(exit_)

    def episode_ids(self, life: Life) -> tuple[str, ...]:
        """The episodes that a life's exit may have been told in, by what was known of it then."""
        return tuple({self._episode_id(key): None for key in (life.key, life.former_key)})

    def _episode_id(self, key: LifeKey) -> str:
        container_id, cgroup_id = key
        return f"{self._boot}-exit-{abs(cgroup_id):x}-{container_id}"

    def recall(self, revision: int, event: ContainerExit) -> Exit | None:
        """Take in an exit that was journaled in this same boot, and is not kept here."""
        container = event.container
        if container is None:
            return None
        life = self._recalled_life(container, event)
        exit_ = self._by_episode.get(event.episode_id)
        if exit_ is None:
            exit_ = Exit(life, event.episode_id, event.detect_time, recalled=True)
            self._put(exit_)
        elif life.key != exit_.life.key:
            self.move(exit_, life)
        exit_.recall(event)
        exit_.revision = revision
        exit_.first_revision = event.amends or revision
        return exit_

    def _recalled_life(self, container: Container, event: ContainerExit) -> Life:
        if event.cgroup_id is None:
            for life in reversed(self._lives.in_order(container.id)):
                if life.cgroup_id is None and life.seen_time <= event.detect_time:
                    return life
        return Life(
            container.id,
            event.cgroup_id,
            event.detect_time,
            cgroup=event.cgroup,
            said={"journal": container},
        )

    def move(self, exit_: Exit, life: Life) -> None:
        """Put an exit into the life that it is known to be of from now on.

        Whoever asked about it before is still answered by the key that it had.
        """
        self._exits[life.key] = exit_
        if life.container_id != exit_.life.container_id:
            self._by_container.discard(exit_.life.container_id, exit_)
            self._by_container.add(life.container_id, exit_)
        exit_.life = life

    def answer(self, key: LifeKey) -> tuple[int, ContainerExit] | None:
        """The exit of a life as it was written down last, with its revision; `None` so far."""
        exit_ = self._exits.get(key)
        if exit_ is None or exit_.told is None or exit_.revision is None:
            return None
        return exit_.revision, exit_.told

    def _put(self, exit_: Exit) -> list[Exit]:
        self._exits[exit_.life.key] = self._by_episode[exit_.episode_id] = exit_
        self._by_container.add(exit_.life.container_id, exit_)
        forgotten = []
        for first in list(islice(self._exits, max(0, len(self._exits) - MAX_EXITS))):
            # The key itself: it may be that of a life which its exit was not in after all.
            oldest = self._exits.pop(first, None)
            if oldest is None:
                continue
            if oldest.told is None:
                self._exits[first] = oldest  # a node that is shut down ends all of its containers
                continue
            for key in (oldest.life.key, oldest.life.former_key):
                if self._exits.get(key) is oldest:
                    del self._exits[key]
            if self._by_episode.get(oldest.episode_id) is oldest:
                del self._by_episode[oldest.episode_id]
                self._by_container.discard(oldest.life.container_id, oldest)
            forgotten.append(oldest)
        return forgotten


def _is_anothers(life: Life, ended: ContainerEnded) -> bool:
    """Is an end, told of no cgroup, known to be of another life: by its init, or by its time?"""
    if ended.cgroup_id is not None or ended.source == WORKER:
        return False
    # A worker may have told the pid of another process in it.
    if ended.pid is not None and life.pid is not None and not life.registered:
        return ended.pid != life.pid
    if ended.exit_time is None or life.start_time is None:
        return False
    # What lives shortly may have its start dated after its end.
    return ended.exit_time < life.start_time - RESTART_MICROSECONDS


def _long_before(time: int) -> float:
    return time - AMEND_SECONDS * 1e6
