"""The cgroups that are followed: attached as they appear, detached as they go.

The order in which a cgroup is taken in is what keeps a kill from falling between two looks:

1. watch its memory.events.local, then read: what rises after the read is notified;
2. read the hierarchical count before the local one, and both before the directory is watched: a
   child whose creation is notified is younger than every sum that was read, so it starts at 0;
3. watch the directory, then list it: a child is in the listing, or its creation is notified.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

from oomwatch.cgroup import files
from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.events import Cgroup
from oomwatch.observations import (
    CgroupRemoved,
    CounterReading,
    Counters,
    FoundRisen,
    LimitHits,
    Observation,
    Sight,
)
from oomwatch.sources.memory_events.inotify import Refused, Watcher
from oomwatch.sources.memory_events.node import NOTHING, ZERO, Node

_ALL_ZERO = (ZERO, Counters(0, 0, None))


PRESSURE_MICROSECONDS = 1_000_000
"""How long a figure of memory.pressure stands: it is one of ten seconds."""

FRESH_MICROSECONDS = 1000
"""A look so young needs no other: the wake that asks for a lineage has just read its first."""

_SHARED_MICROSECONDS = 1000


def wall_time() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class Tree:
    """All nodes below one root, their watches, and what was observed about them since `take`."""

    def __init__(self, hierarchy: Hierarchy, watcher: Watcher | None) -> None:
        self.hierarchy = hierarchy
        self.watcher = watcher
        self.by_watch: dict[int, Node] = {}
        self.unwatched: dict[Node, None] = {}
        self.last_text = b""
        self.limit_hits: dict[Node, LimitHits] = {}
        """How often a cgroup was at its limit, of the few that ever were."""
        self.cgroups = 0
        self.read_errors = 0
        self.drained_at = 0.0
        """When inotify's queue was last seen empty: what it told of later was made later."""
        self.unreadable: dict[Node, str] = {}
        """Cgroups whose counters could not be read when last tried, and why."""
        self.unlisted: dict[Node, bool] = {}
        """Cgroups whose directory could not be listed when last tried, and whether it never was:
        then what is in it was there before us."""
        self._never_read: set[Node] = set()
        """Cgroups that were there before us, and whose counters could not be read so far."""
        self._last_error = ""
        self._reader = files.EventsReader()
        self._batch: list[Observation] = []
        self._newly_unwatched: list[Node] = []
        self._unseen = 0
        self._surveyed_at = 0
        self._first_sight = Sight.BASELINE
        root = Cgroup(os.stat(hierarchy.directory).st_ino, hierarchy.prefix, None)
        self.root = Node(root, None, baseline=True)

    def take(self) -> list[Observation]:
        """Return what was observed since the last call, in order."""
        batch, self._batch = self._batch, []
        return batch

    def directory(self, node: Node) -> str:
        """The directory of a node, below the root that was given."""
        names: list[str] = []
        while node.parent is not None:
            names.append(node.cgroup.name)
            node = node.parent
        if not names:
            return self.hierarchy.directory
        names.append(self.hierarchy.directory)
        return "/".join(reversed(names))

    @property
    def pending_observations(self) -> int:
        """How many observations wait to be taken."""
        return len(self._batch)

    # Taking cgroups in and letting them go

    def survey(self) -> Iterator[None]:
        """Take in the whole tree from the top; yields now and then so that others may run."""
        self.cgroups = 1
        self.take_in(self.root, self.hierarchy.directory)
        yield from self._descend([self.root], baseline=True)
        self._first_sight = Sight.LATE

    def relist(self, node: Node) -> Iterator[None]:
        """List a directory again: attach what is new, detach what is gone, and so on below it."""
        yield from self._descend([node], baseline=False)

    def _descend(self, stack: list[Node], *, baseline: bool) -> Iterator[None]:
        done = 0
        while stack:
            node = stack.pop()
            if node.gone:
                continue
            if not baseline and self.unlisted.get(node):
                yield from self._descend([node], baseline=True)
                continue
            stack.extend(self._list(node, baseline=baseline))
            done += 1
            if done % 256 == 0:
                yield

    def _list(self, node: Node, *, baseline: bool) -> list[Node]:
        """Match the children with the directory; return those that may have children themselves."""
        directory = self.directory(node)
        try:
            status = os.stat(directory)
            if status.st_ino != node.cgroup.id:
                return []  # its path is another's by now: a removal is about to be told
            if status.st_nlink == 2 and not node.children:
                return []
            found = self._children(node, directory)
        except OSError as error:
            if self._failed(node, error):
                self.unlisted.setdefault(node, baseline)
            return []
        if self.unlisted.pop(node, None) is not None:
            self.unreadable.pop(node, None)
        for name, child in list((node.children or {}).items()):
            if found.get(name) != child.cgroup.id:
                self.detach(child)
        for name, inode in found.items():
            if node.child(name) is None:
                cgroup = Cgroup(inode, name, node.cgroup)
                self._attach_only(node, cgroup, f"{directory}/{name}", baseline=baseline)
        return list((node.children or {}).values())

    @staticmethod
    def _children(node: Node, directory: str) -> dict[str, int]:
        """List a node's children with their inodes: its own, not those of the next at its path."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_ino != node.cgroup.id:
                return {}
            with os.scandir(descriptor) as entries:
                return {e.name: e.inode() for e in entries if e.is_dir(follow_symlinks=False)}
        finally:
            os.close(descriptor)

    def attach(self, parent: Node, name: str) -> Node | None:
        """Take in a cgroup that has just appeared, and what is in it already."""
        directory = f"{self.directory(parent)}/{name}"
        try:
            inode = os.stat(directory, follow_symlinks=False).st_ino
        except OSError:
            return None
        if not self.still_there(parent):
            return None  # then it is a child of the next cgroup at the parent's path
        cgroup = Cgroup(inode, name, parent.cgroup, self.drained_at)
        node = self._attach_only(parent, cgroup, directory, baseline=False)
        for _ in self._descend([node], baseline=False):
            pass
        return node

    def _attach_only(self, parent: Node, cgroup: Cgroup, directory: str, *, baseline: bool) -> Node:
        node = Node(cgroup, parent, baseline=baseline)
        if parent.children is None:
            parent.children = {}
            self.watch_control(parent)
        parent.children[cgroup.name] = node
        self.cgroups += 1
        self.take_in(node, directory)
        return node

    def take_in(self, node: Node, directory: str) -> None:
        """Watch and read a cgroup, in the order that this module's docstring explains."""
        if node.parent is None and self.hierarchy.real_root:
            self._first_root_look(node)
        else:
            self.watch_counter(node, directory)
            if node.baseline:
                self._first_look(node, directory)
            elif node.has_counter:
                self.look(node)
        self.watch_directory(node, directory)
        if not node.baseline and node.parent is not None:
            self._sum_at_first(node)

    def _sum_at_first(self, node: Node) -> None:
        """Say so where somebody was killed below it, and went, before its directory was watched."""
        kills = self.subtree_kills(node)
        if kills and kills > (node.seen.oom_kill or 0):
            self._batch.append(FoundRisen(node.cgroup))

    def detach(self, node: Node) -> None:
        """Let go of a cgroup that was removed, and of everything below it, deepest first."""
        for removed in reversed(list(node.subtree())):
            for watch in (removed.events_watch, removed.directory_watch, removed.control_watch):
                self._unwatch(watch)
            self.unwatched.pop(removed, None)
            self.unreadable.pop(removed, None)
            self.unlisted.pop(removed, None)
            self._never_read.discard(removed)
            removed.gone = True
            self.cgroups -= 1
            hits = self.limit_hits.pop(removed, None)
            self._batch.append(CgroupRemoved(removed.cgroup, wall_time(), removed.looked_at, hits))
        if node.parent is not None and node.parent.child(node.cgroup.name) is node:
            assert node.parent.children is not None
            del node.parent.children[node.cgroup.name]

    def missed(self, parent: Node, name: str) -> None:
        """A cgroup came and went before it could be taken in: it is a suspect all the same."""
        self._unseen -= 1
        removed = Cgroup(self._unseen, name, parent.cgroup, self.drained_at)
        self._batch.append(CgroupRemoved(removed, wall_time()))

    def still_there(self, node: Node) -> bool:
        """Is the node what is at its path? Then a removal told of that path is an older one."""
        try:
            status = os.stat(self.directory(node), follow_symlinks=False)
        except OSError:
            return False
        return status.st_ino == node.cgroup.id

    # Watches

    def watch_counter(self, node: Node, directory: str) -> None:
        """Watch memory.events.local; a watch on a new file of that name replaces the old one."""
        path = f"{directory}/{files.EVENTS_LOCAL}"
        watch = self.watcher.watch_file(path) if self.watcher else Refused.NO_ROOM
        if isinstance(watch, int):
            node.has_counter = True
            if watch != node.events_watch:
                self._unwatch(node.events_watch)
                node.events_watch = watch
                self.by_watch[watch] = node
            return
        self._unwatch(node.events_watch)
        node.events_watch = 0
        node.has_counter = os.path.exists(path)
        if node.has_counter:
            self._cannot_watch(node)

    def rest_counter(self, node: Node) -> None:
        """Take the counter's watch back: its cgroup thrashes, and is polled for a while."""
        self._unwatch(node.events_watch)
        node.events_watch = 0

    def watch_directory(self, node: Node, directory: str) -> None:
        """Watch what is made and removed below a cgroup."""
        watch = self.watcher.watch_directory(directory) if self.watcher else Refused.NO_ROOM
        if isinstance(watch, int):
            node.directory_watch = watch
            self.by_watch[watch] = node
        elif watch is Refused.NO_ROOM:
            self._cannot_watch(node)

    def watch_control(self, node: Node) -> None:
        """Watch which controllers a cgroup hands down: its children's counters hang on it."""
        if self.watcher is None or node.control_watch:
            return
        watch = self.watcher.watch_file(f"{self.directory(node)}/cgroup.subtree_control")
        if isinstance(watch, int):
            node.control_watch = watch
            self.by_watch[watch] = node
        elif watch is Refused.NO_ROOM:
            self._cannot_watch(node)

    def take_newly_unwatched(self) -> list[Node]:
        """Return the nodes that a watch was refused for since the last call."""
        nodes, self._newly_unwatched = self._newly_unwatched, []
        return nodes

    def _cannot_watch(self, node: Node) -> None:
        if node not in self.unwatched:
            self.unwatched[node] = None
            self._newly_unwatched.append(node)

    def rewatch(self, node: Node) -> None:
        """Try again for the watches that could not be had."""
        directory = self.directory(node)
        self.unwatched.pop(node, None)
        if node.has_counter and not node.events_watch:
            self.watch_counter(node, directory)
        if not node.directory_watch:
            self.watch_directory(node, directory)
        if node.children is not None:
            self.watch_control(node)

    def _unwatch(self, watch: int) -> None:
        if watch and self.by_watch.pop(watch, None) is not None and self.watcher is not None:
            self.watcher.remove(watch)

    # Looks

    def look(self, node: Node) -> bool:
        """Read a cgroup's counters; observe what is new. True if its kill count rose."""
        began = wall_time()
        sight = Sight.FOLLOWED
        directory = self.directory(node)
        if node in self._never_read:
            self._first_look(node, directory)
            return False
        file = self._read_own(node, directory)
        if file is None or self._is_anothers(node, file):
            return False
        self._note_limit(node, file, directory)
        if node.counter_id not in (0, file.inode):
            sight = Sight.REVEALED
        rose = (file.counters.oom_kill or 0) > (node.seen.oom_kill or 0)
        if file.counters != node.seen or sight is Sight.REVEALED:
            if file.counters not in _ALL_ZERO or node.seen not in (NOTHING, *_ALL_ZERO):
                node.counter_id = file.inode
                self._observe(node, file.counters, sight=sight)
            node.seen = file.counters
        # Not when it was done: we may have been stopped since, and what it shows is older.
        node.looked_at = began
        return rose

    def _note_limit(self, node: Node, file: files.EventsFile, directory: str) -> None:
        """Note how often a cgroup was at its limit: a hint at its end, should that go uncounted."""
        count = files.parse_count(file.text, b"max")
        known = self.limit_hits.get(node)
        if not count or (known is not None and count <= known.count):
            return
        if known is None and node.baseline:
            self.limit_hits[node] = LimitHits(count)
            return
        now = wall_time()
        if known is not None and known.time and 0 <= now - known.time < PRESSURE_MICROSECONDS:
            self.limit_hits[node] = LimitHits(count, now, known.pressure)
        else:
            self.limit_hits[node] = LimitHits(count, now, files.read_pressure(directory))

    def _is_anothers(self, node: Node, file: files.EventsFile) -> bool:
        """Was the path used again, so that what was read is another cgroup's?

        Asked after the read, and only where it showed anything new: it costs a look at the path.
        """
        return file.counters != node.seen and not self.still_there(node)

    def reading(self, node: Node, directory: str) -> CounterReading | None:
        """Read a cgroup's counters for an answer; `None` where it has none, or is gone."""
        if not node.has_counter:
            return None
        seen_time = node.looked_at
        if node.counter_id and seen_time and 0 <= wall_time() - seen_time < FRESH_MICROSECONDS:
            return CounterReading(node.cgroup, node.counter_id, seen_time, node.seen)
        if node in self._never_read:
            return None
        began = wall_time()
        file = self._read_own(node, directory)
        if file is None or self._is_anothers(node, file):
            return None
        sight = Sight.REVEALED if node.counter_id not in (0, file.inode) else Sight.FOLLOWED
        looked_at, node.looked_at = node.looked_at, began
        node.seen, node.counter_id = file.counters, file.inode
        return CounterReading(
            node.cgroup, file.inode, wall_time(), file.counters, None, sight, looked_at
        )

    def reveal(self, node: Node) -> None:
        """Tell of a counter again that was taken for older than it is."""
        node.baseline = False
        if node.seen not in (NOTHING, *_ALL_ZERO):
            self._observe(node, node.seen, sight=Sight.YOUNG)

    def subtree_kills(self, node: Node) -> int | None:
        """Kills of a cgroup and everything below it, ever; `None` where nothing counts that."""
        if node.parent is None and self.hierarchy.real_root:
            return files.read_node_kills()
        if self.hierarchy.local_events:
            return None
        file = self._read(f"{self.directory(node)}/{files.EVENTS}")
        return file.counters.oom_kill if file is not None else None

    def _first_root_look(self, node: Node) -> None:
        node.looked_at = wall_time()
        kills = self.subtree_kills(node)
        self._batch.append(
            CounterReading(node.cgroup, 0, node.looked_at, NOTHING, kills, Sight.BASELINE)
        )

    def _first_look(self, node: Node, directory: str) -> None:
        """Read what was counted before us: the sum first, the cgroup's own only if there is any."""
        began = self._survey_time()
        errors = self.read_errors
        subtree = self._read(f"{directory}/{files.EVENTS}")
        if subtree is not None and subtree.counters in _ALL_ZERO:
            node.seen, node.looked_at = subtree.counters, began
            self._is_read(node)
            return
        if not node.has_counter:
            return
        local = self._read_own(node, directory)
        if self.read_errors > errors:
            self._never_read.add(node)
            self.unreadable[node] = self._last_error
            return
        if local is None or self._is_anothers(node, local):
            return
        node.seen, node.counter_id = local.counters, local.inode
        counted = subtree.counters.oom_kill if subtree and not self.hierarchy.local_events else None
        self._observe(node, local.counters, sight=self._first_sight, subtree=counted)
        node.looked_at = began

    def _survey_time(self) -> int:
        """The time, up to a millisecond ago: 100,000 looks of a survey share few numbers."""
        now = wall_time()
        if not 0 <= now - self._surveyed_at < _SHARED_MICROSECONDS:
            self._surveyed_at = now
        return self._surveyed_at

    def _observe(
        self, node: Node, counters: Counters, *, sight: Sight, subtree: int | None = None
    ) -> None:
        self._batch.append(
            CounterReading(
                node.cgroup,
                node.counter_id,
                wall_time(),
                counters,
                subtree,
                sight,
                node.looked_at,
            )
        )

    def _failed(self, node: Node, error: OSError) -> bool:
        """Note that a directory could not be listed; False where it is gone."""
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return False
        self.read_errors += 1
        self.unreadable[node] = error.strerror or str(error)
        return True

    def _read_own(self, node: Node, directory: str) -> files.EventsFile | None:
        """Read a cgroup's own counters; where they are there and not to be had, note why."""
        errors = self.read_errors
        file = self._read(f"{directory}/{files.EVENTS_LOCAL}")
        if file is None:
            if self.read_errors > errors:
                self.unreadable[node] = self._last_error
            return None
        if file.counters.oom_kill is None:
            self.read_errors += 1
            self.unreadable[node] = "it has no count of oom_kill"
            return None
        self._is_read(node)
        return file

    def _is_read(self, node: Node) -> None:
        self._never_read.discard(node)
        if self.unreadable and node not in self.unlisted:
            self.unreadable.pop(node, None)

    def _read(self, path: str) -> files.EventsFile | None:
        try:
            file = self._reader.read(path)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            if error.errno != errno.ENODEV:  # removed while the file was open
                self.read_errors += 1
                self._last_error = error.strerror or str(error)
            return None
        self.last_text = file.text
        return file
