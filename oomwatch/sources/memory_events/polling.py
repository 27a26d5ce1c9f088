"""Looking without being told: for cgroups that thrash, and for those that cannot be watched."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from oomwatch.sources.memory_events.node import Node
from oomwatch.sources.memory_events.tree import Tree

REST_SECONDS = 0.025
"""How often a resting cgroup is read: with a kill inside, this is how late it can be seen."""

WAKES_BEFORE_REST = 3
WAKES_WITHIN_SECONDS = 1.0
QUIET_POLLS = 4
BACK_OFF = 8
"""A quiet cgroup is polled up to this many times less often than a lively one."""


class Resting:
    """Cgroups whose watch was taken back because its wakes told of no kill.

    `changed` is called with each whose counters moved since the last poll.
    """

    def __init__(
        self, tree: Tree, flush: Callable[[], None], changed: Callable[[Node], None]
    ) -> None:
        self._tree = tree
        self._flush = flush
        self._changed = changed
        self._wakes: dict[Node, tuple[int, float]] = {}
        self._quiet: dict[Node, tuple[int, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._quiet)

    def woken(self, node: Node, *, rose: bool) -> None:
        """Count a wake; enough of them without a kill send the cgroup to rest."""
        if rose or node.gone:
            self._wakes.pop(node, None)
            return
        now = asyncio.get_running_loop().time()
        wakes, since = self._wakes.get(node, (0, now))
        if now - since > WAKES_WITHIN_SECONDS:
            wakes, since = 0, now
        wakes += 1
        if wakes < WAKES_BEFORE_REST:
            self._forget_old(now)
            self._wakes[node] = (wakes, since)
            return
        self._wakes.pop(node, None)
        self._tree.rest_counter(node)
        self._quiet[node] = (0, b"")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REST_SECONDS, self._poll)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self._timer = None
        for node, (quiet, text) in list(self._quiet.items()):
            if node.gone:
                del self._quiet[node]
                continue
            self._tree.look(node)
            if self._tree.last_text != text:
                self._quiet[node] = (0, self._tree.last_text)
                self._changed(node)
            elif quiet + 1 < QUIET_POLLS:
                self._quiet[node] = (quiet + 1, text)
            else:
                del self._quiet[node]
                self._tree.rewatch(node)
                self._tree.look(node)
        if self._quiet:
            self._timer = asyncio.get_running_loop().call_later(REST_SECONDS, self._poll)
        self._flush()

    def _forget_old(self, now: float) -> None:
        if len(self._wakes) > 1024:
            for node, (_, since) in list(self._wakes.items()):
                if node.gone or now - since > WAKES_WITHIN_SECONDS:
                    del self._wakes[node]


class Unwatched:
    """Cgroups that no watch could be had for: exactly those are polled."""

    def __init__(self, tree: Tree, interval: float, flush: Callable[[], None]) -> None:
        self._tree = tree
        self._interval = interval
        self._flush = flush
        self._intervals: dict[Node, float] = {}
        self._heap: list[tuple[float, int, Node]] = []
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Take up the nodes that the tree could not watch; call after anything was attached."""
        now = asyncio.get_running_loop().time()
        for node in self._tree.take_newly_unwatched():
            if node not in self._intervals:
                self._push(node, now, self._interval)
        if self._heap and self._timer is None:
            self._arm()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, node: Node, now: float, interval: float) -> None:
        self._intervals[node] = interval
        heapq.heappush(self._heap, (now + interval, id(node), node))

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(self._heap[0][0], loop.time() + 0.001), self._poll)

    def _poll(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        looked = 0
        while self._heap and self._heap[0][0] <= now and looked < 512:
            _, _, node = heapq.heappop(self._heap)
            interval = self._intervals.pop(node, None)
            if interval is None or node.gone or node not in self._tree.unwatched:
                continue
            looked += 1
            lively = self._look(node)
            longest = self._interval * BACK_OFF
            if interval >= longest:
                self._tree.rewatch(node)
            if node in self._tree.unwatched:
                interval = self._interval if lively else min(interval * 2, longest)
                self._push(node, now, interval)
        self.schedule()
        if self._heap and self._timer is None:
            self._arm()
        self._flush()

    def _look(self, node: Node) -> bool:
        """Read what no watch tells of: the counter, and the directory. True if anything was new."""
        tree = self._tree
        before = tree.cgroups
        if not node.has_counter:
            tree.watch_counter(node, tree.directory(node))
        if not node.events_watch:
            tree.look(node)
        if not node.directory_watch:
            for _ in tree.relist(node):
                pass
        return tree.cgroups != before or bool(tree.pending_observations)
