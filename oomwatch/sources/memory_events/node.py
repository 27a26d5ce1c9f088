"""What is kept about one cgroup while it is followed: small, since there may be 100,000."""

from __future__ import annotations

from collections.abc import Iterator

from oomwatch.events import Cgroup
from oomwatch.observations import Counters

ZERO = Counters(0, 0, 0)
NOTHING = Counters()


class Node:
    """A cgroup in the tree that is followed.

    A watch descriptor of 0 means: not watched. `has_counter` says that there is a
    memory.events.local at all; `counter_id` is its inode, 0 while it was not worth looking up (all
    counts were zero). `seen` is what was last seen of it, `looked_at` when.
    """

    __slots__ = (
        "baseline",
        "cgroup",
        "children",
        "control_watch",
        "counter_id",
        "directory_watch",
        "events_watch",
        "gone",
        "has_counter",
        "looked_at",
        "parent",
        "seen",
    )

    def __init__(self, cgroup: Cgroup, parent: Node | None, *, baseline: bool) -> None:
        self.cgroup = cgroup
        self.parent = parent
        self.children: dict[str, Node] | None = None
        self.directory_watch = 0
        self.events_watch = 0
        self.control_watch = 0
        self.counter_id = 0
        self.has_counter = False
        self.seen: Counters = NOTHING
        self.looked_at: int | None = None
        self.baseline = baseline
        self.gone = False

    def child(self, name: str) -> Node | None:
        """Return the child of that name, if it is followed."""
        return self.children.get(name) if self.children else None

    def subtree(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first; the tree may change meanwhile."""
        stack = [self]
        while stack:
            node = stack.pop()
            if node.gone:
                continue
            yield node
            if node.children:
                stack.extend(node.children.values())

    def __repr__(self) -> str:
        return f"<Node {self.cgroup.path}>"
