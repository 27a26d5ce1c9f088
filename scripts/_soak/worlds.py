"""A tree of cgroups that come, are killed in, and go; and what its own counters say.

What happens is drawn from a seed. Each step is written down, so that a difference can be told as a
story. The counters are read from the tree's files: they, not this program, are the truth.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from oomwatch.testing import FakeCgroupTree

DEEPEST = 4
NAMES = ("a", "b", "c", "d", "e", "f")
"""Few, so that paths are used again and again."""


@dataclass(eq=False, slots=True)
class Life:
    """One life of a cgroup: its inode is its own, its path may be used again.

    `counted` is the last word of its own counter once it is gone, where that could be read.
    """

    id: int
    path: str
    parent: Life | None
    inner: bool = True
    group: bool = False
    children: dict[str, Life] = field(default_factory=dict)
    gone: bool = False
    counted: int | None = None

    def lineage(self) -> Iterator[Life]:
        """Yield this life and those above it, up to the root."""
        life: Life | None = self
        while life is not None:
            yield life
            life = life.parent

    def below(self) -> Iterator[Life]:
        """Yield this life and those below it, parents first."""
        yield self
        for child in list(self.children.values()):
            yield from child.below()

    @property
    def depth(self) -> int:
        """How far below the root."""
        return sum(1 for _ in self.lineage()) - 1


class World(ABC):
    """What all worlds share: the lives, the draw of what happens next, and the count."""

    def __init__(self, root: Path, scope: str, rng: random.Random, cgroups: int) -> None:
        self.root_path = root
        self.story: list[str] = []
        self.lives: dict[int, Life] = {}
        self._rng = rng
        self._cgroups = cgroups
        self.root = self._live("/", None)
        self.top = self.root if scope == "/" else self._live(scope, self.root)

    def step(self) -> None:
        """Let something happen."""
        rng = self._rng
        lives = [life for life in self.top.below() if self.top is not life]
        actions: list[tuple[int, Callable[[], object]]] = [
            (3 if len(lives) < self._cgroups else 0, self._come)
        ]
        if lives:
            actions += [(6, self._kill_one), (2, self._kill_above), (1, self._kill_group)]
            actions += [(1, self._thrash_one), (2, self._race_one), (1, self._brief)]
            actions += [(3 if len(lives) > self._cgroups // 3 else 1, self._go)]
        weights, what = zip(*actions, strict=True)
        rng.choices(what, weights)[0]()

    def note(self, words: str) -> None:
        """Write a line of the story, with the time as events have it."""
        self.story.append(f"{datetime.now(UTC):%H:%M:%S.%f} {words}")

    def kills(self, life: Life) -> tuple[int | None, int]:
        """What the kernel says: the life's own kills (None where it has no count), and the sum."""
        local = self.read(life, "memory.events.local")
        below = self.read(life, "memory.events")
        assert below is not None, f"{life.path} has no memory.events"
        return local, below

    def read(self, life: Life, name: str) -> int | None:
        """Read the `oom_kill` of one of its files."""
        try:
            text = (self.root_path / life.path.lstrip("/") / name).read_text()
        except FileNotFoundError:
            return None
        return next((int(v) for k, v in map(str.split, text.splitlines()) if k == "oom_kill"), None)

    @abstractmethod
    def quiet(self) -> None:
        """Return when nothing is under way any more."""

    @abstractmethod
    def close(self) -> None:
        """Remove everything."""

    @abstractmethod
    def _make(self, life: Life, name: str, *, inner: bool, group: bool) -> None:
        """Make a cgroup below a life."""

    @abstractmethod
    def _kill(self, victim: Life, limit: Life, kills: int) -> None:
        """Have processes of a cgroup killed at a limit."""

    @abstractmethod
    def _kill_as_one(self, group: Life, victims: list[Life]) -> None:
        """Have a group killed, by its memory.oom.group."""

    @abstractmethod
    def _thrash(self, life: Life) -> None:
        """Keep a cgroup at its limit, with nobody killed."""

    @abstractmethod
    def _remove(self, life: Life) -> bool:
        """Remove a cgroup without children, noting its last count; False if it cannot be now."""

    @abstractmethod
    def _kill_and_remove(self, life: Life) -> bool:
        """Kill in a cgroup and remove it without a pause; False if it cannot be now."""

    # What happens

    def _come(self, inner: bool | None = None) -> Life | None:
        rng = self._rng
        parents = [p for p in self.top.below() if p.inner and p.depth < self.top.depth + DEEPEST]
        parent = rng.choice(parents)
        free = [name for name in NAMES if name not in parent.children]
        if not free:
            return None
        name = rng.choice(free)
        inner = rng.random() < 0.4 if inner is None else inner
        group = rng.random() < 0.2
        self._make(parent, name, inner=inner, group=group)
        life = self._live(f"{parent.path.rstrip('/')}/{name}", parent, inner=inner, group=group)
        self.note(f"made {life.path} ({life.id}){' as a group' if group else ''}")
        return life

    def _live(
        self, path: str, parent: Life | None, *, inner: bool = True, group: bool = False
    ) -> Life:
        inode = os.stat(self.root_path / path.lstrip("/")).st_ino  # noqa: PTH116
        if inode in self.lives:
            self._ids_came_back(inode)
        life = self.lives[inode] = Life(inode, path, parent, inner, group)
        if parent is not None:
            parent.children[path.rpartition("/")[2]] = life
        return life

    def _ids_came_back(self, inode: int) -> NoReturn:
        raise RuntimeError(f"inode {inode} was used again: put the tree on a tmpfs")

    def _victims(self, top: Life) -> list[Life]:
        """The cgroups below one that processes may live in."""
        return [life for life in top.below() if life is not self.top and life is not self.root]

    def _kill_one(self) -> None:
        victims = self._victims(self.top)
        if victims:
            victim = self._rng.choice(victims)
            kills = self._rng.choice((1, 1, 1, 2, 5))
            self.note(f"killed {kills} in {victim.path} ({victim.id}) at its own limit")
            self._kill(victim, victim, kills)

    def _kill_above(self) -> None:
        victims = [v for v in self._victims(self.top) if v.depth > self.top.depth + 1]
        if victims:
            victim = self._rng.choice(victims)
            above = [life for life in victim.lineage() if life.depth > self.top.depth][1:]
            limit = self._rng.choice(above)
            self.note(f"killed 1 in {victim.path} ({victim.id}) at the limit of {limit.path}")
            self._kill(victim, limit, 1)

    def _kill_group(self) -> None:
        groups = [life for life in self.top.below() if life.group]
        if groups:
            group = self._rng.choice(groups)
            victims = self._victims(group)
            if victims:
                victims = self._rng.sample(victims, min(len(victims), 3))
                paths = ", ".join(f"{v.path} ({v.id})" for v in victims)
                self.note(f"killed the group {group.path} in {paths}")
                self._kill_as_one(group, victims)

    def _thrash_one(self) -> None:
        victims = self._victims(self.top)
        if victims:
            self._thrash(self._rng.choice(victims))

    def _race_one(self) -> None:
        leaves = [life for life in self._victims(self.top) if not life.children]
        if leaves:
            self._race(self._rng.choice(leaves))

    def _race(self, life: Life) -> None:
        if self._kill_and_remove(life):
            self.note(f"killed 1 in {life.path} ({life.id}) and removed it at once")
            self._forget(life)

    def _brief(self) -> None:
        life = self._come(inner=False)
        if life is None:
            return
        kills = self._rng.randrange(3)
        if kills:
            self.note(f"killed {kills} in {life.path} ({life.id})")
            self._kill(life, life, kills)
        self._remove_one(life)

    def _go(self) -> None:
        lives = [life for life in self.top.below() if life is not self.top and not life.gone]
        if lives:
            for life in reversed(list(self._rng.choice(lives).below())):
                if not life.children:
                    self._remove_one(life)

    def _remove_one(self, life: Life) -> None:
        if self._remove(life):
            self.note(f"removed {life.path} ({life.id}), which had counted {life.counted}")
            self._forget(life)

    def _forget(self, life: Life) -> None:
        life.gone = True
        assert life.parent is not None
        del life.parent.children[life.path.rpartition("/")[2]]


class FakeWorld(World):
    """A tree of plain files, where everything happens at once and as often as one likes."""

    def __init__(self, root: Path, rng: random.Random, *, cgroups: int = 40, idle: int = 0) -> None:
        self._tree = FakeCgroupTree(root)
        super().__init__(root, "/", rng, cgroups)
        if idle:
            self._tree.make("/idle")
            for number in range(idle):
                self._tree.make(f"/idle/{number}")

    def quiet(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Whoever made the directory removes it."""

    def _make(self, life: Life, name: str, *, inner: bool, group: bool) -> None:
        self._tree.make(f"{life.path.rstrip('/')}/{name}", oom_group=group)

    def _kill(self, victim: Life, limit: Life, kills: int) -> None:
        # The node's own want of memory raises no limit's `oom`.
        where = "" if self._rng.random() < 0.1 else limit.path
        for _ in range(kills):
            self._tree.kill(victim.path, limit=where)

    def _kill_as_one(self, group: Life, victims: list[Life]) -> None:
        for number, victim in enumerate(victims):
            limit, first = (group.path, group.path) if number == 0 else ("", None)
            self._tree.kill(victim.path, self._rng.choice((1, 2, 3)), limit=limit, group=first)

    def _thrash(self, life: Life) -> None:
        self._tree.thrash(life.path, 3)

    def _remove(self, life: Life) -> bool:
        life.counted = self.read(life, "memory.events.local")
        self._tree.remove(life.path)
        return True

    def _kill_and_remove(self, life: Life) -> bool:
        life.counted = (self.read(life, "memory.events.local") or 0) + 1
        self._tree.kill_and_remove(life.path)
        return True
