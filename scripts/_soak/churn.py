"""Cgroups by the thousand come, are killed in, and go: what the daemon holds must stay flat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol

from scripts._soak.lives import ANSWER_SECONDS, Lives
from scripts._soak.truth import Tally

ROUND = 100
KEPT_EVENTS = 2000
WARM_ROUNDS = 300
"""By then retention is at work, and what is kept of recent events for streams is full."""
WARM_SHARE = 0.25
"""Of the time: what is kept for minutes (names that may still come) is as much as it will be."""


class Tree(Protocol):
    """Cgroups to kill in: a `FakeCgroupTree`, or the kernel's own."""

    @property
    def root(self) -> Path:
        """What the daemon watches."""

    def make(self, cgroup: str) -> object:
        """Make a cgroup."""

    def kill(self, cgroup: str) -> None:
        """Kill in it."""

    def remove(self, cgroup: str) -> None:
        """Remove it."""

    def kill_and_remove(self, cgroup: str) -> None:
        """Remove it so soon after a kill that its counter may not be read."""

    def kills(self, cgroup: str) -> int:
        """How many were killed in a cgroup and below it."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process holds: resident KiB, descriptors, inotify watches, threads, and the journal's
    bytes.
    """

    resident_kib: int
    descriptors: int
    watches: int
    threads: int
    journal_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.resident_kib / 1024:.1f} MiB resident, {self.descriptors} descriptors, "
            f"{self.watches} watches, {self.threads} threads, "
            f"{self.journal_bytes / 1024:.0f} KiB of journal"
        )

    def grown(self, since: Holdings, may_grow: Holdings) -> bool:
        """Does it hold more than before, by more than it may?"""
        held = zip(*map(astuple, (self, since, may_grow)), strict=True)
        return any(now - before > bound for now, before, bound in held)


MAY_GROW = Holdings(4096, 4, 8, 0, 2 << 20)
"""Between the end of the warm-up and the end: what the allocator and the log's end make of it."""


def holdings(pid: int, state: Path) -> Holdings:
    """Look at a process and its journal now."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    descriptors = watches = 0
    for descriptor in (process / "fdinfo").iterdir():
        with suppress(FileNotFoundError):
            watches += descriptor.read_text().count("inotify wd:")
            descriptors += 1
    size = sum(path.stat().st_size for path in state.glob("journal.db*"))
    threads = len(list((process / "task").iterdir()))
    return Holdings(resident, descriptors, watches, threads, size)


def run(tree: Tree, directory: Path, seconds: float, say: Callable[[str], None]) -> bool:
    """Churn for so long; True if everything stayed flat and every kill was told once."""
    arguments = ("--cgroup-root", str(tree.root), "--retention-events", str(KEPT_EVENTS))
    with Lives(directory, *arguments) as lives:
        lives.start()
        while not lives.watch(1.0):
            pass
        assert lives.pid is not None
        tally = Tally(lives.state)
        begun = time.monotonic()
        warm: Holdings | None = None
        made, next_word = 0, 0.0
        for rounds, made in enumerate(churn(tree), 1):
            tally.read()
            took = time.monotonic() - begun
            if warm is None and rounds >= WARM_ROUNDS and took > seconds * WARM_SHARE:
                warm = holdings(lives.pid, lives.state)
                say(f"warm after {took:.0f} s and {made} cgroups: {warm}")
            if took > next_word:
                next_word = took + 60
                say(f"{took:.0f} s, {made} cgroups: {holdings(lives.pid, lives.state)}")
            if took > seconds and warm is not None:
                break
        told = caught_up(tally, tree)
        last = holdings(lives.pid, lives.state)
        say(f"at the end, {made} cgroups and {tree.kills('/')} kills later: {last}")
        say(f"told: {tally}")
        assert warm is not None
        return told and not last.grown(warm, MAY_GROW)


def churn(tree: Tree) -> Iterator[int]:
    """Make a hundred, kill in some, remove them all; yields how many there have been."""
    made = 0
    while True:
        for number in range(ROUND):
            cgroup = f"/churn-{made + number}"
            tree.make(cgroup)
            if number % 5 == 0:
                tree.kill(cgroup)
        for number in range(ROUND):
            cgroup = f"/churn-{made + number}"
            if number % 10 == 1:
                tree.kill_and_remove(cgroup)
            else:
                tree.remove(cgroup)
        made += ROUND
        yield made
        time.sleep(0.02)


def caught_up(tally: Tally, tree: Tree) -> bool:
    """Wait until every kill is told, and see that none is told twice."""
    end = time.monotonic() + ANSWER_SECONDS
    while tally.kills < tree.kills("/") and time.monotonic() < end:
        time.sleep(0.2)
        tally.read()
    time.sleep(2.0)
    tally.read()
    return tally.kills == tree.kills("/") and not tally.skipped
