"""Real cgroups in which real processes are killed, one after the other and quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.kernel import workload
from tests.kernel.workload import Scratch

LIMIT = 2 << 20


class KernelTree:
    """What `FakeCgroupTree` is to plain files: "/" is a cgroup of its own, below the real root."""

    root = workload.ROOT

    def __init__(self, name: str) -> None:
        self._scratch = Scratch(name)
        self._scratch.hand_down()
        self._killer = workload.start_asked()
        self._before = workload.node_kills()

    def make(self, cgroup: str) -> None:
        """Make a cgroup below one that exists."""
        self._path(cgroup).mkdir()

    def kill(self, cgroup: str) -> None:
        """Have a process killed at the cgroup's own limit, and reaped."""
        path = self._path(cgroup)
        workload.configure(path, limit=LIMIT)
        assert self._killer.stdin is not None
        assert self._killer.stdout is not None
        self._killer.stdin.write(f"{path}\n")
        self._killer.stdin.flush()
        if not self._killer.stdout.readline():
            raise RuntimeError(f"nobody was killed in {path}: see above")

    def remove(self, cgroup: str) -> None:
        """Remove a cgroup."""
        workload.remove(self._path(cgroup))

    def kill_and_remove(self, cgroup: str) -> None:
        """Remove a cgroup as soon as its victim is reaped."""
        self.kill(cgroup)
        while not workload.removed(self._path(cgroup)):
            pass

    def kills(self, cgroup: str) -> int:
        """What must have been told for a cgroup and below it; "/" is the whole node."""
        if cgroup == "/":
            return workload.node_kills() - self._before
        return workload.kills_below(self._path(cgroup))

    def close(self) -> None:
        """Remove what is left."""
        self._killer.communicate()
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, cgroup: str) -> Path:
        return self._scratch.path / cgroup.strip("/")
