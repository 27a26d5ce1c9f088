"""Follows every cgroup below a root: woken by inotify, or polling where that is not to be had.

Three ways to follow a counter:

- *watched*: read when inotify says that the file changed. An idle host costs nothing.
- *resting*: a cgroup that thrashes at its limit raises `max` up to 100 times a second, and each
  wake costs more than the read. After a few wakes without a kill its watch is taken back and it is
  polled, with all others like it, by one timer; when it is quiet it is watched again.
- *unwatched*: no watch could be had (max_user_watches, no inotify). Polled, quiet ones less often.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from inotify_simple import Event

from oomwatch.cgroup import files
from oomwatch.cgroup.hierarchy import Hierarchy, locate
from oomwatch.events import Cgroup, SourceState
from oomwatch.observations import (
    Audit,
    AuditReading,
    Describe,
    LastLook,
    Look,
    Measure,
    Observation,
    Question,
    Surveyed,
)
from oomwatch.sources import Emit
from oomwatch.sources.memory_events import answers, inotify
from oomwatch.sources.memory_events.census import Census
from oomwatch.sources.memory_events.node import Node
from oomwatch.sources.memory_events.polling import Resting, Unwatched
from oomwatch.sources.memory_events.tree import Tree, wall_time
from oomwatch.sources.recent import Recent
from oomwatch.status import CgroupReport, Witness

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How soon what could not be read is tried again; no notification says when it can."""

POLL_SECONDS = 0.5
"""How often a cgroup that cannot be watched is read, by default; a quiet one up to 8 times less."""


class MemoryEvents:
    """The memory.events witness.

    `root` is the directory to follow; `poll_seconds` how often what cannot be watched is read;
    `force_polling` does without inotify altogether.
    """

    name = "memory_events"

    def __init__(
        self, root: Path, *, poll_seconds: float = POLL_SECONDS, force_polling: bool = False
    ) -> None:
        self.hierarchy: Hierarchy = locate(root)
        self._force_polling = force_polling or not self.hierarchy.notifies
        self._poll_seconds = poll_seconds
        self._watcher: inotify.Watcher | None = None
        self._no_inotify = ""
        self._overflows = Recent()
        self._faults = Recent()
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._emit: Emit = lambda _: None
        self.tree: Tree
        self._census: Census
        self._resting: Resting
        self._unwatched: Unwatched

    async def start(self, emit: Emit) -> None:
        """Take in the tree that is there, then follow it."""
        self._emit = emit
        self._open_inotify()
        self.tree = Tree(self.hierarchy, self._watcher)
        self._census = Census(self.tree, emit)
        self._resting = Resting(self.tree, self._flush, self._census.at_limit)
        self._unwatched = Unwatched(self.tree, self._poll_seconds, self._flush)
        for _ in self.tree.survey():
            self._flush()
            await asyncio.sleep(0)
        self._flush([self._surveyed()])
        self._unwatched.schedule()
        if self._watcher is not None:
            asyncio.get_running_loop().add_reader(self._watcher.fileno(), self._wake)

    def answer(self, question: Question) -> bool:
        """Answer every question about counters; a long audit goes on in slices."""
        match question:
            case Describe():
                self._flush([answers.describe(self.tree, question)])
            case Measure():
                self._flush([answers.measure(self.tree, question)])
            case Audit():
                self._run(self._audit_slices(question))
            case LastLook():
                reading = answers.last_look(self.tree, question)
                self._flush([reading])
            case Look():
                node = answers.at(self.tree, question.path)
                if node is not None and node.has_counter:
                    self.tree.look(node)
                self._flush()
        return True

    async def report(self, prefix: str, after_path: str, limit: int) -> list[CgroupReport]:
        """Report cgroups at and below `prefix`, by path; the files are read in a thread."""
        nodes = answers.select(self.tree, prefix, after_path, limit)
        rows = [(node, self.tree.directory(node), self._witness(node)) for node in nodes]
        return await asyncio.to_thread(answers.report, rows, self.tree.hierarchy)

    def path_of(self, cgroup_id: int) -> str | None:
        """Return the path of the cgroup with this inode; `None` if it is not followed."""
        nodes = self.tree.root.subtree()
        return next((n.cgroup.path for n in nodes if n.cgroup.id == cgroup_id), None)

    def named_after(self, container_id: str) -> list[Cgroup]:
        """Return the cgroups whose name holds a container's id."""
        nodes = self.tree.root.subtree()
        return [node.cgroup for node in nodes if container_id in node.cgroup.name]

    def populated(self, path: str | None, cgroup_id: int | None) -> bool:
        """Do processes live in this cgroup, or below it? False where it is gone."""
        return path is not None and answers.populated(self.tree, path, cgroup_id)

    async def report_one(self, path: str) -> CgroupReport | None:
        """Report the cgroup at a path as the kernel writes it; `None` if it is not followed."""
        node = answers.at(self.tree, path)
        if node is None:
            return None
        row = (node, self.tree.directory(node), self._witness(node))
        (report,) = await asyncio.to_thread(answers.report, [row], self.tree.hierarchy)
        return report

    def _witness(self, node: Node) -> tuple[Witness, ...]:
        if node.parent is None and self.hierarchy.real_root:
            return (Witness(f"{self.name} by audit"),)
        if not node.has_counter:
            return ()
        return (Witness(f"{self.name} by {'inotify' if node.events_watch else 'polling'}"),)

    def follows(self, path: str) -> bool:
        """Is the cgroup at this path followed now?"""
        return hasattr(self, "tree") and answers.at(self.tree, path) is not None

    def state(self) -> SourceState:
        """Say how many cgroups are followed, and which way."""
        tree, polled, resting = self.tree, len(self.tree.unwatched), len(self._resting)
        figures = {
            "cgroups": tree.cgroups,
            "watches": len(tree.by_watch),
            "polled": polled,
            "resting": resting,
            "looks_at_processes": self._census.looks,
            "overflows": self._overflows.count,
            "faults": self._faults.count,
            "read_errors": tree.read_errors,
        }
        detail = f"{tree.cgroups} cgroups below {self.hierarchy.directory}, followed by inotify"
        if self._no_inotify:
            detail = f"{tree.cgroups} cgroups polled: {self._no_inotify}"
        elif polled:
            detail += (
                f"; {polled} polled for want of watches: raise fs.inotify.max_user_watches "
                f"(sysctl) above {2 * tree.cgroups + 1024}"
            )
        if not self.hierarchy.real_root and self.hierarchy.kernel:
            detail += "; not the root of the hierarchy: limits above it cannot be seen"
        if self.hierarchy.local_events:
            detail += "; memory_localevents is set: removed cgroups are missed below the node"
        if tree.unreadable:
            node, why = next(iter(tree.unreadable.items()))
            detail += (
                f"; {len(tree.unreadable)} could not be read when last tried, as {node.cgroup.path}"
                f" ({why}): what they count is told when they can, or below their parents"
            )
        lately = [recent.words for recent in (self._overflows, self._faults) if recent.words]
        detail = "; ".join((detail, *lately))
        degraded = bool(
            self._no_inotify or polled or self.hierarchy.local_events or tree.unreadable or lately
        )
        return SourceState(
            name=self.name, active=True, degraded=degraded, detail=detail, figures=figures
        )

    async def stop(self) -> None:
        """Give back the inotify instance and all timers."""
        for task in self._tasks:
            task.cancel()
        if self._retry is not None:
            self._retry.cancel()
        if hasattr(self, "_resting"):
            self._resting.stop()
            self._unwatched.stop()
        if self._watcher is not None:
            asyncio.get_running_loop().remove_reader(self._watcher.fileno())
            self._watcher.close()
            self._watcher = None

    def _open_inotify(self) -> None:
        if self._force_polling:
            self._no_inotify = (
                "inotify cannot see changes on this file system"
                if not self.hierarchy.notifies
                else "inotify is switched off"
            )
            return
        try:
            self._watcher = inotify.Watcher()
        except OSError as error:
            self._no_inotify = (
                f"no inotify instance ({error.strerror}): raise fs.inotify.max_user_instances "
                "or the limit of open files"
            )
            log.warning("%s; polling every %s s", self._no_inotify, self._poll_seconds)

    # inotify

    def _wake(self) -> None:
        assert self._watcher is not None
        began = time.monotonic()
        happened = self._watcher.read()
        try:
            self._take_in(happened)
        except Exception as error:
            # What else they told of is not known any more: as after an overflow.
            log.exception("a fault of oomwatch's own, please report it: reading every cgroup again")
            self._faults.note_fault(error)
            self._run(self._read_everything())
            self._flush()
        if self._watcher.drained:
            # An answer that was given meanwhile may have read on.
            self.tree.drained_at = max(self.tree.drained_at, began)

    def _take_in(self, happened: list[Event]) -> None:
        changed: dict[Node, None] = {}
        controls: dict[Node, None] = {}
        structure: list[tuple[Node, Event]] = []
        overflow = False
        for event in happened:
            if event.mask & inotify.OVERFLOW:
                overflow = True
                continue
            node = self.tree.by_watch.get(event.wd)
            if node is None:
                self._census.peopled(event.wd)
                continue
            if event.mask & inotify.IGNORED:
                self._ignored(node, event.wd)
            elif event.wd == node.events_watch:
                changed[node] = None
            elif event.wd == node.control_watch:
                controls[node] = None
            else:
                structure.append((node, event))
        # Counters first: a cgroup whose removal is next in the queue may still be readable.
        for node in changed:
            self._resting.woken(node, rose=self.tree.look(node))
        for node in changed:
            self._census.at_limit(node)
        for node, event in structure:
            self._restructure(node, event)
        for node in controls:
            self._controllers_changed(node)
        if overflow:
            self._overflows.note(
                "inotify's queue overflowed, and every cgroup was read again: of those that came "
                "and went meanwhile the kills are known by their parents alone; raise "
                "fs.inotify.max_queued_events (sysctl)"
            )
            log.warning("the inotify queue overflowed: reading every cgroup again")
            self._run(self._read_everything())
        self._unwatched.schedule()
        self._flush()

    def _ignored(self, node: Node, watch: int) -> None:
        """The kernel took a watch back, since what it watched is gone."""
        del self.tree.by_watch[watch]
        if watch == node.events_watch:
            node.events_watch = 0
            node.has_counter = False
        elif watch == node.control_watch:
            node.control_watch = 0
        elif watch == node.directory_watch:
            node.directory_watch = 0

    def _restructure(self, parent: Node, event: Event) -> None:
        if parent.gone:
            return
        tree, name = self.tree, event.name
        if not event.mask & inotify.DIRECTORY:
            if name == files.EVENTS_LOCAL and event.mask & inotify.CREATE:
                tree.watch_counter(parent, tree.directory(parent))
                tree.look(parent)
            return
        node = parent.child(name)
        if event.mask & inotify.CREATE:
            if node is not None and tree.still_there(node):
                if node.baseline:
                    tree.reveal(node)
                return
            if node is not None:
                tree.detach(node)
            node = tree.attach(parent, name)
            for below in node.subtree() if node is not None else ():
                self._census.born(below)
        elif node is None or tree.still_there(node):
            tree.missed(parent, name)
        else:
            tree.detach(node)

    def _controllers_changed(self, node: Node) -> None:
        """The children's counters may have gone, come, or been replaced."""
        for child in list((node.children or {}).values()):
            self.tree.watch_counter(child, self.tree.directory(child))
            if child.has_counter:
                self.tree.look(child)

    def _read_everything(self) -> Iterator[None]:
        yield from self.tree.relist(self.tree.root)
        for done, node in enumerate(self.tree.root.subtree()):
            if node.has_counter or node.events_watch:
                self.tree.watch_counter(node, self.tree.directory(node))
                self.tree.look(node)
            if done % 256 == 255:
                yield
        self._flush([self._surveyed()])

    def _surveyed(self) -> Surveyed:
        ids = frozenset(node.cgroup.id for node in self.tree.root.subtree())
        whole = not self.tree.unlisted
        return Surveyed(ids, self.tree.root.cgroup, wall_time(), whole)

    def _audit_slices(self, question: Audit) -> Iterator[None]:
        for reading in answers.audit(self.tree, question):
            if isinstance(reading, AuditReading):
                # Whatever a sum counts was made before that was read: by now its making has been
                # notified. Unread, it would be missing among those that the sum may be of.
                if self._watcher is not None:
                    self._wake()
                self._flush([reading])
            else:
                yield

    def _run(self, slices: Iterator[None]) -> None:
        """Do the first slice of a long look now, and the rest between other things."""
        if next(slices, self) is self:
            return
        self._flush()
        task = asyncio.get_running_loop().create_task(self._rest_of(slices))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _rest_of(self, slices: Iterator[None]) -> None:
        for _ in slices:
            self._flush()
            await asyncio.sleep(0)
        self._flush()

    def _flush(self, more: Iterable[Observation] = ()) -> None:
        batch = [*self.tree.take(), *more]
        if self.tree.unreadable and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)
        if batch:
            self._emit(batch)

    def _try_again(self) -> None:
        """Read everything again while something could not be read: out of descriptors, say."""
        self._retry = None
        self._run(self._read_everything())
