"""For tests, ours and yours: a tree of plain files, a sink that remembers, a source to drive.

`FakeCgroupTree` writes the files that the kernel would, so that every part but the kernel itself
runs anywhere, at any scale: plain files raise the same inotify events. Put it on a tmpfs: its
inodes are not used again at once, as those of ext4 are. It proves nothing about the kernel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from oomwatch.containers.lives import LivesChange
from oomwatch.events import Event, EvidenceGap, OomKill, SourceState, is_within
from oomwatch.ledger import LedgerChange
from oomwatch.observations import Observation, Question
from oomwatch.sources import Emit


class FakeCgroupTree:
    """A directory that looks like a cgroup v2 hierarchy with the memory controller on.

    Paths are as the kernel writes them ("/a/b"); counts are kept here and written out, each file in
    place by one write. The root has a memory.events too, as the root of a cgroup namespace has.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._counts: dict[str, dict[str, int]] = {}
        self._below: dict[str, dict[str, int]] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._fill("/")

    def path(self, cgroup: str) -> Path:
        """The directory of a cgroup."""
        return self.root / cgroup.strip("/")

    def make(self, cgroup: str, *, limit_bytes: int | None = None, oom_group: bool = False) -> Path:
        """Make a cgroup below one that exists; its counters start at zero."""
        directory = self.path(cgroup)
        directory.mkdir()
        self._fill(cgroup, limit_bytes=limit_bytes, oom_group=oom_group)
        return directory

    def kill(
        self, cgroup: str, kills: int = 1, *, limit: str | None = None, group: str | None = None
    ) -> None:
        """Count kills in a cgroup, in the kernel's order: the limit's `oom`, then the victim's.

        `limit` is the cgroup whose limit was hit (the victim's own unless given, "" for the
        node's), `group` the one whose memory.oom.group is set.
        """
        limit = cgroup if limit is None else limit
        if limit:
            self._count(limit, "oom", 1)
        self._count(cgroup, "oom_kill", kills)
        if group is not None:
            self._count(group, "oom_group_kill", 1)

    def thrash(self, cgroup: str, times: int = 1) -> None:
        """Raise `max`: the cgroup was at its limit, and nobody was killed."""
        self._count(cgroup, "max", times)

    def remove(self, cgroup: str) -> None:
        """Remove a cgroup that has no children; its ancestors keep what it counted."""
        shutil.rmtree(self.path(cgroup))
        self._counts.pop(cgroup, None)
        self._below.pop(cgroup, None)

    def kill_and_remove(self, cgroup: str, kills: int = 1) -> None:
        """Remove a cgroup so soon after a kill in it that its own counter cannot be read.

        The sums rise first, as the kernel's do before the victim gets its signal: whoever sees the
        removal and then a sum without the kill would rightly take the cgroup for innocent.
        """
        self._count_above(cgroup, "oom_kill", kills)
        self.remove(cgroup)

    def kills(self, cgroup: str) -> int:
        """The hierarchical kill count, which is what must have been told."""
        return self._below[cgroup]["oom_kill"]

    def write(self, cgroup: str, name: str, text: str) -> None:
        """Write a file of a cgroup as it is, garbage included."""
        path = self.path(cgroup) / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, text.encode(), 0)
            os.ftruncate(fd, len(text.encode()))
        finally:
            os.close(fd)

    def _fill(
        self, cgroup: str, *, limit_bytes: int | None = None, oom_group: bool = False
    ) -> None:
        zeros = dict.fromkeys(("low", "high", "max", "oom", "oom_kill", "oom_group_kill"), 0)
        self._counts[cgroup], self._below[cgroup] = dict(zeros), dict(zeros)
        self.write(cgroup, "cgroup.subtree_control", "memory\n")
        self.write(cgroup, "memory.max", f"{'max' if limit_bytes is None else limit_bytes}\n")
        self.write(cgroup, "memory.current", "1048576\n")
        self.write(cgroup, "memory.peak", "2097152\n")
        self.write(cgroup, "memory.swap.current", "0\n")
        self.write(cgroup, "memory.oom.group", f"{int(oom_group)}\n")
        self._write_events(cgroup, "memory.events", zeros)
        self._write_events(cgroup, "memory.events.local", zeros)

    def _count(self, cgroup: str, name: str, rise: int) -> None:
        # As memcg_memory_event does: the cgroup's own count first, then the sums from it upwards.
        counts = self._counts[cgroup]
        counts[name] += rise
        self._write_events(cgroup, "memory.events.local", counts)
        self._below[cgroup][name] += rise
        self._write_events(cgroup, "memory.events", self._below[cgroup])
        self._count_above(cgroup, name, rise)

    def _count_above(self, cgroup: str, name: str, rise: int) -> None:
        while cgroup != "/":
            cgroup = cgroup.rpartition("/")[0] or "/"
            self._below[cgroup][name] += rise
            self._write_events(cgroup, "memory.events", self._below[cgroup])

    def _write_events(self, cgroup: str, name: str, counts: dict[str, int]) -> None:
        self.write(cgroup, name, "".join(f"{key} {value}\n" for key, value in counts.items()))


class MemorySink:
    """A journal that keeps everything in a list, and adds up what was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changes: list[LedgerChange] = []

    def append(self, events: Sequence[Event], change: LedgerChange, lives: LivesChange) -> None:
        """Take events and what changed with them."""
        self.events += events
        self.changes.append(change)

    @property
    def kills(self) -> list[OomKill]:
        """The kills told, in order."""
        return [event for event in self.events if isinstance(event, OomKill)]

    @property
    def gaps(self) -> list[EvidenceGap]:
        """The gaps told, in order."""
        return [event for event in self.events if isinstance(event, EvidenceGap)]

    def told(self, cgroup: str = "/") -> int:
        """Kills told at and below a cgroup."""
        total = 0
        for kill in self.kills:
            where = kill.victim_cgroup or kill.survivor_cgroup or ""
            if is_within(where, cgroup):
                total += kill.kill_count or 0
        return total


class FakeSource:
    """A witness that says what a test tells it to, and remembers what it was asked."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.questions: list[Question] = []
        self._emit: Emit = lambda _: None

    async def start(self, emit: Emit) -> None:
        """Keep the way out."""
        self._emit = emit

    def say(self, *observations: Observation) -> None:
        """Emit observations, as one batch."""
        self._emit(observations)

    def answer(self, question: Question) -> bool:
        """Remember the question, and leave it to others."""
        self.questions.append(question)
        return False

    def state(self) -> SourceState:
        """Active, as far as anyone can tell."""
        return SourceState(name=self.name, active=True)

    async def stop(self) -> None:
        """Nothing to give back."""
        self._emit = lambda _: None
