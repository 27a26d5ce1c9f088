"""Answers to the correlator's questions: looks that are made now, not waited for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from oomwatch.cgroup import files
from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.events import Cgroup, is_within
from oomwatch.observations import (
    Audit,
    AuditReading,
    CounterReading,
    Describe,
    LastLook,
    LastLookReading,
    LineageMember,
    LineageReading,
    Measure,
    SubtreeCount,
    UsageReading,
)
from oomwatch.sources.memory_events.node import Node
from oomwatch.sources.memory_events.tree import Tree, wall_time
from oomwatch.status import CgroupReport, Witness


def find(tree: Tree, cgroup: Cgroup) -> Node | None:
    """Return the node that follows this life of a cgroup, `None` if it is gone."""
    node: Node | None = tree.root
    for ancestor in reversed(list(cgroup.lineage())[:-1]):
        node = node.child(ancestor.name) if node is not None else None
    return node if node is not None and node.cgroup is cgroup else None


def at(tree: Tree, path: str) -> Node | None:
    """Return the node at the kernel's path of a cgroup, `None` if it is not followed."""
    prefix = tree.hierarchy.prefix
    if not is_within(path, prefix):
        return None
    node: Node | None = tree.root
    for part in path[len(prefix) :].split("/"):
        if part and node is not None:
            node = node.child(part)
    return node


def last_look(tree: Tree, question: LastLook) -> LastLookReading:
    """Read a cgroup and all below it once more; what rose is in `tree.take()`.

    A cgroup whose making was not told yet is taken in first: the question may overtake it. What was
    read at an earlier look says nothing of the end: where one of them cannot be read there is no
    count.
    """
    asked = (question.path, question.cgroup_id)
    node = at(tree, question.path) or _taken_in(tree, question.path)
    if node is None or question.cgroup_id not in (None, node.cgroup.id):
        return LastLookReading(*asked, wall_time(), present=False)
    followed = list(node.subtree())
    for below in followed:
        if below.has_counter:
            tree.look(below)
    known = node.has_counter and tree.unreadable.keys().isdisjoint(followed)
    kills = node.seen.oom_kill if known else None
    marks = files.read_killer_marks(tree.directory(node))
    runs = files.read_populated(tree.directory(node))
    present = tree.still_there(node)
    hits = tree.limit_hits.get(node)
    return LastLookReading(*asked, wall_time(), present, kills, marks, hits, present and runs)


def populated(tree: Tree, path: str, cgroup_id: int | None) -> bool:
    """Do processes live in this life of a cgroup?"""
    node = at(tree, path)
    if node is None or node.cgroup.id != cgroup_id or not tree.still_there(node):
        return False
    return files.read_populated(tree.directory(node))


def _taken_in(tree: Tree, path: str) -> Node | None:
    node: Node | None = tree.root
    for part in path.removeprefix(tree.hierarchy.prefix).split("/"):
        if part and node is not None:
            node = node.child(part) or tree.attach(node, part)
    return node


def describe(tree: Tree, question: Describe) -> LineageReading:
    """Read the counters of a cgroup and its ancestors, leaf first."""
    node = find(tree, question.cgroup)
    directory = tree.directory(node) if node is not None else ""
    usage = files.read_usage(directory) if node is not None else None
    read: list[tuple[CounterReading, str]] = []
    complete = tree.hierarchy.real_root and node is not None
    while node is not None:
        reading = tree.reading(node, directory)
        if reading is not None:
            read.append((reading, directory))
        elif node.parent is not None:
            complete = False
        node = node.parent
        directory = directory.rpartition("/")[0]
    below = _up_to_the_limit([reading for reading, _ in read], question)
    members = tuple(
        LineageMember(reading, files.read_group(directory) if number < below else None)
        for number, (reading, directory) in enumerate(read)
    )
    return LineageReading(question.cgroup, members, complete, usage)


def _up_to_the_limit(readings: list[CounterReading], question: Describe) -> int:
    """How many cgroups, from the victim on, may be killed as one: those up to the limit's."""
    rises = [
        number
        for number, reading in enumerate(readings)
        if (reading.local.oom or 0) > question.attributed.get(reading.cgroup.id, 0)
    ]
    if len(rises) == 1 and readings[0].cgroup is question.cgroup:
        return rises[0] + 1
    return len(readings)


def measure(tree: Tree, question: Measure) -> UsageReading:
    """Read a cgroup's memory figures."""
    node = find(tree, question.cgroup)
    usage = files.read_usage(tree.directory(node)) if node is not None else None
    return UsageReading(question.cgroup, usage)


def audit(tree: Tree, question: Audit) -> Iterator[AuditReading | None]:
    """Read a sum, then what is below it where the sums differ from what is accounted for.

    Yields `None` now and then, so that a large tree holds nobody up, and the reading at the end.
    Counters that were found on the way are in `tree.take()`, in the order in which they were read.
    """
    top = find(tree, question.cgroup)
    kills = None
    read_time = wall_time()
    while top is not None:
        read_time = wall_time()
        kills = tree.subtree_kills(top)
        if kills is not None and tree.still_there(top):
            break
        top = top.parent
    if top is None or kills is None:
        yield AuditReading(question.cgroup, ())
        return
    counts_itself = top.parent is not None or not tree.hierarchy.real_root
    counts = [SubtreeCount(top.cgroup, kills, read_time, counts_itself)]
    if kills != question.expected.get(top.cgroup.id, 0) or tree.hierarchy.local_events:
        done = 0
        stack = [top]
        while stack:
            node = stack.pop()
            if node.has_counter and not node.gone:
                tree.look(node)
            for child in list((node.children or {}).values()):
                read_time = wall_time()
                below = tree.subtree_kills(child)
                if below is None or below != question.expected.get(child.cgroup.id, 0):
                    if not tree.still_there(child):
                        continue  # its path may be another's by now, and the sum read there
                    stack.append(child)
                    if below is not None:
                        counts.append(SubtreeCount(child.cgroup, below, read_time))
                done += 1
                if done % 256 == 0:
                    yield None
    yield AuditReading(question.cgroup, tuple(counts))


def select(tree: Tree, prefix: str, after_path: str, limit: int) -> list[Node]:
    """Return the nodes at and below a path, in order of path, the first `limit` after another."""
    found: list[tuple[str, Node]] = []
    for node in tree.root.subtree():
        path = node.cgroup.path
        if path > after_path and is_within(path, prefix):
            found.append((path, node))
    return [node for _, node in heapq.nsmallest(limit, found, key=lambda row: row[0])]


def report(
    rows: list[tuple[Node, str, tuple[Witness, ...]]], hierarchy: Hierarchy
) -> list[CgroupReport]:
    """Read the figures of cgroups for people to look at; run in a thread, it changes nothing."""
    reader = files.EventsReader()

    def kills(path: str) -> int | None:
        try:
            return reader.read(path).counters.oom_kill
        except OSError:
            return None

    reports = []
    for node, directory, witnesses in rows:
        local = kills(f"{directory}/{files.EVENTS_LOCAL}")
        below = None if hierarchy.local_events else kills(f"{directory}/{files.EVENTS}")
        if node.parent is None and hierarchy.real_root:
            below = files.read_node_kills()
        reports.append(
            CgroupReport(
                path=node.cgroup.path,
                id=node.cgroup.id,
                kills=local,
                kills_below=below,
                memory=files.read_usage(directory),
                witnesses=witnesses,
            )
        )
    return reports
