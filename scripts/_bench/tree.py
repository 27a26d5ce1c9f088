"""A cgroup tree of plain files, light enough for 100,000 cgroups, and what happens in it.

Where oomwatch.testing.FakeCgroupTree writes every file of every cgroup, here only the targets of
kills have all of them: the sums of all others are one file, linked. A change is one write of one
open file, as a kernel's notification is one; none is ever shortened, so none shows half a text.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

Script = Iterable[tuple[float, str, str]]
"""Seconds from now, "kill" or "thrash", and a cgroup; in order of time."""

BELOW_ONE = 100
"""Leaves in a slice: the tree has three levels, as that of a container host has at the least."""

_ZEROS = b"low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
_VALUES = {
    "memory.max": b"67108864\n",
    "memory.peak": b"67108864\n",
    "memory.current": b"1048576\n",
    "memory.swap.current": b"0\n",
    "memory.oom.group": b"0\n",
}


class Tree:
    """`cgroups` leaves below slices; `targets` of them, evenly spread, can be killed in."""

    def __init__(self, root: Path, cgroups: int, targets: int) -> None:
        self.root = root
        self.cgroups = cgroups
        self.kills: list[tuple[str, int]] = []
        self._fds: dict[str, int] = {}
        self._counts: dict[str, list[int]] = {}
        self.leaves = paths = [
            f"/s{leaf // BELOW_ONE}/c{leaf % BELOW_ONE}" for leaf in range(cgroups)
        ]
        step = max(1, cgroups // targets)
        self.targets = paths[::step][:targets]
        whole = {"", *self.targets, *(path.rpartition("/")[0] for path in self.targets)}
        root.mkdir()
        template = root.with_name(f"{root.name}.zeros")
        template.write_bytes(_ZEROS)
        made = {""}
        self._fill("", template, whole=True)
        for path in paths:
            above = path.rpartition("/")[0]
            if above not in made:
                made.add(above)
                self._make(above, template, whole=above in whole)
            self._make(path, template, whole=path in whole)
        template.unlink()

    def _make(self, path: str, template: Path, *, whole: bool) -> None:
        os.mkdir(f"{self.root}{path}")  # noqa: PTH102 - a Path costs more than the call
        self._fill(path, template, whole=whole)

    def _fill(self, path: str, template: Path, *, whole: bool) -> None:
        directory = f"{self.root}{path}"
        _create(f"{directory}/memory.events.local", _ZEROS)
        if not whole:
            os.link(template, f"{directory}/memory.events")
            return
        _create(f"{directory}/memory.events", _ZEROS)
        _create(f"{directory}/cgroup.subtree_control", b"memory\n")
        for name, value in _VALUES.items():
            _create(f"{directory}/{name}", value)

    def kill(self, cgroup: str) -> None:
        """Count a kill at the cgroup's own limit, and remember when it was written."""
        above = cgroup
        while above:
            self._write(above, "memory.events", kills=1)
            above = above.rpartition("/")[0]
        self._write("", "memory.events", kills=1)
        self.kills.append((cgroup, time.monotonic_ns()))
        self._write(cgroup, "memory.events.local", kills=1)

    def thrash(self, cgroup: str) -> None:
        """Count that the cgroup was at its limit, and nobody was killed."""
        self._write(cgroup, "memory.events.local", highs=1)

    def take_kills(self) -> list[tuple[str, int]]:
        """Return the kills since the last call: cgroup, and CLOCK_MONOTONIC nanoseconds."""
        kills, self.kills = self.kills, []
        return kills

    def play(self, script: Script) -> None:
        """Do what a script says."""
        began = time.monotonic()
        for due, what, cgroup in script:
            pause = began + due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            (self.kill if what == "kill" else self.thrash)(cgroup)

    def close(self) -> None:
        """Remove the tree."""
        for fd in self._fds.values():
            os.close(fd)
        shutil.rmtree(self.root)

    def _write(self, cgroup: str, name: str, *, kills: int = 0, highs: int = 0) -> None:
        path = f"{cgroup}/{name}"
        counts = self._counts.setdefault(path, [0, 0])
        counts[0] += kills
        counts[1] += highs
        if path not in self._fds:
            self._fds[path] = os.open(f"{self.root}{path}", os.O_WRONLY | os.O_CLOEXEC)
        done, high = counts
        text = f"low 0\nhigh 0\nmax {high}\noom {done}\noom_kill {done}\noom_group_kill 0\n"
        os.pwrite(self._fds[path], text.encode(), 0)


def kills(targets: list[str], count: int, apart: float) -> Script:
    """A script: kills one after the other in turn."""
    for number in range(count):
        yield (number + 1) * apart, "kill", targets[number % len(targets)]


def thrashing(targets: list[str], seconds: float, a_second: int) -> Script:
    """A script: each target at its limit so often a second, evenly spread."""
    apart = 1 / (a_second * len(targets))
    for number in range(int(seconds / apart)):
        yield number * apart, "thrash", targets[number % len(targets)]


def _create(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.write(fd, text)
    os.close(fd)
