"""A world of real cgroups, in which real processes are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scripts._soak.worlds import Life, World
from tests.kernel.workload import removed

ROOT = Path("/sys/fs/cgroup")
LIMIT = 8 << 20
ROOM = 64 << 20
"""What a cgroup has whose processes are killed at the limit of one above it."""

_BOUND = 60.0
_HOG = "echo 0 >{procs} || exit 9; echo 1000 >/proc/self/oom_score_adj; exec busybox tail /dev/zero"


class KernelWorld(World):
    """Cgroups below one of its own, which `close` removes.

    A cgroup with children has no processes of its own (the rule of cgroup v2); killing takes a
    moment, so a cgroup in which it goes on is left alone until it is over.
    """

    def __init__(self, rng: random.Random, *, cgroups: int = 12) -> None:
        self._path = ROOT / f"oomwatch-soak-{os.getpid()}"
        self._path.mkdir()
        self._hand_down(self._path)
        self._hogs: dict[Life, list[subprocess.Popen[bytes]]] = {}
        super().__init__(ROOT, f"/{self._path.name}", rng, cgroups)

    def read(self, life: Life, name: str) -> int | None:
        """The node's own sum is in /proc/vmstat."""
        if life is not self.root:
            return super().read(life, name)
        if name == "memory.events.local":
            return None
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def quiet(self) -> None:
        """Wait for every process to be killed."""
        for life in list(self._hogs):
            for hog in self._hogs.pop(life):
                hog.wait(_BOUND)

    def close(self) -> None:
        """Kill what is left, and remove every cgroup."""
        for hogs in self._hogs.values():
            for hog in hogs:
                hog.kill()
                hog.wait()
        for directory, _, _ in os.walk(self._path, topdown=False):
            for pid in (Path(directory) / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _until(lambda directory=directory: removed(Path(directory)))  # type: ignore[misc]

    def _victims(self, top: Life) -> list[Life]:
        self._reap()
        return [
            life
            for life in super()._victims(top)
            if not life.inner and len(self._hogs.get(life, ())) < 3
        ]

    def _reap(self) -> None:
        for life, hogs in list(self._hogs.items()):
            left = [hog for hog in hogs if hog.poll() is None]
            if left:
                self._hogs[life] = left
            else:
                del self._hogs[life]

    def _path_of(self, life: Life) -> Path:
        return ROOT / life.path.lstrip("/")

    def _hand_down(self, path: Path) -> None:
        (path / "cgroup.subtree_control").write_text("+memory")

    def _limit(self, life: Life, size: int) -> None:
        path = self._path_of(life)
        (path / "memory.max").write_text(str(size))
        with suppress(FileNotFoundError):
            (path / "memory.swap.max").write_text("0")

    def _make(self, life: Life, name: str, *, inner: bool, group: bool) -> None:
        path = self._path_of(life) / name
        path.mkdir()
        if group:
            (path / "memory.oom.group").write_text("1")
        if inner:
            self._hand_down(path)

    def _hog(self, life: Life) -> None:
        command = _HOG.format(procs=self._path_of(life) / "cgroup.procs")
        nowhere = subprocess.DEVNULL
        hog = subprocess.Popen(
            ["busybox", "sh", "-c", command], stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
        self._hogs.setdefault(life, []).append(hog)

    def _kill(self, victim: Life, limit: Life, kills: int) -> None:
        self._limit(victim, LIMIT if limit is victim else ROOM)
        if limit is not victim:
            self._limit(limit, LIMIT)
        for _ in range(min(kills, 2)):
            self._hog(victim)

    def _kill_as_one(self, group: Life, victims: list[Life]) -> None:
        if group.inner:
            self._limit(group, LIMIT)
        for victim in victims:
            self._limit(victim, ROOM if group.inner else LIMIT)
            self._hog(victim)

    def _thrash(self, life: Life) -> None:
        """Real ones thrash on their way to the kill."""

    def _remove(self, life: Life) -> bool:
        for hog in self._hogs.pop(life, []):
            hog.wait(_BOUND)
        path = self._path_of(life)
        _until(lambda: not (path / "cgroup.procs").read_text())
        # Now that nothing can be counted there any more.
        life.counted = self.read(life, "memory.events.local")
        _until(lambda: removed(path))
        return True

    def _kill_and_remove(self, life: Life) -> bool:
        if life.inner:
            return False
        self._limit(life, LIMIT)
        self._hog(life)
        for hog in self._hogs.pop(life):
            hog.wait(_BOUND)
        _until(lambda: removed(self._path_of(life)), pause=0)
        return True


def _until(true: Callable[[], bool], *, pause: float = 0.002) -> None:
    end = time.monotonic() + _BOUND
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("a cgroup could not be removed")
        time.sleep(pause)
