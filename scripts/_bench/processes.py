"""The processes that are measured, and what /proc says of them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

READY_SECONDS = 120.0
ANSWER_SECONDS = 120.0

_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far, all its threads together."""

    time: float
    cpu_seconds: float
    switches: int
    main_switches: int

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.time - earlier.time,
            self.cpu_seconds - earlier.cpu_seconds,
            self.switches - earlier.switches,
            self.main_switches - earlier.main_switches,
        )

    @property
    def cpu_percent(self) -> float:
        """Percent of one core."""
        return 100 * self.cpu_seconds / self.time


def usage(pid: int) -> Usage:
    """Read a process's threads; /proc/PID/status would count the switches of its main one only."""
    switches: dict[int, int] = {}
    cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            cpu += int((task / "schedstat").read_text().split()[0])
            switches[int(task.name)] = _sum_of(task / "status", "ctxt_switches:")
    return Usage(time.monotonic(), cpu / 1e9, sum(switches.values()), switches.get(pid, 0))


def resident_mib(pid: int) -> float:
    """Resident memory, shared libraries included."""
    return _sum_of(Path(f"/proc/{pid}/status"), "VmRSS:") / 1024


def _sum_of(status: Path, key: str) -> int:
    return sum(int(line.split()[1]) for line in status.read_text().splitlines() if key in line)


class Helper:
    """A process that says "ready", then answers each line with a line of JSON."""

    def __init__(self, module: str, *arguments: object, first: object = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"scripts._bench.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        if first is not None:
            self.say(json.dumps(first))
        if self._line(READY_SECONDS) != "ready\n":
            self.close()
            raise RuntimeError(f"{module} did not become ready: see its words above")

    def say(self, line: object) -> None:
        """Say a line, to be answered in time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the next answer."""
        return json.loads(self._line(ANSWER_SECONDS))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, seconds: float) -> str:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise TimeoutError(f"no answer within {seconds:g} s")
        return self._process.stdout.readline()


class Daemon:
    """The daemon over a tree, from a start that is timed to an end in good order.

    Its journal is below `disk`. Once it has ended, `stamps` are the times it came by its places.
    """

    def __init__(self, tree: Path, disk: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="oomwatch-bench-", dir=disk))
        self.socket = self._directory / "oomwatch.sock"
        self.stamps: dict[str, list[int]] = {}
        self._stamps_file = self._directory / "stamps.json"
        notify = self._directory / "notify.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(notify))
            manager.settimeout(READY_SECONDS)
            arguments = (
                *(sys.executable, "-m", "scripts._bench.daemon", self._stamps_file, "serve"),
                *("--cgroup-root", tree, "--state-dir", self._directory / "state"),
                *("--socket", self.socket, "--log-level", "warning"),
            )
            self._process = subprocess.Popen(
                arguments, env={**os.environ, "NOTIFY_SOCKET": str(notify)}
            )
            self.pid = self._process.pid
            try:
                manager.recv(64)
            except BaseException:
                self.close()
                raise
            self._ready = time.monotonic_ns()

    @property
    def start_seconds(self) -> float:
        """From the end of its imports until it watched and answered; known once it has ended."""
        return (self._ready - self.stamps["imported"][0]) / 1e9

    def close(self) -> None:
        """End it with SIGTERM, and remove its journal."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with suppress(FileNotFoundError):
            found = json.loads(self._stamps_file.read_text())
            self.stamps = {**found, "imported": [found["imported"]]}
        shutil.rmtree(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def watches(needed: int) -> Iterator[None]:
    """Have room for so many inotify watches, where this user may make it; what was is put back."""
    before = int(_WATCHES.read_text())
    raised = False
    if before < needed:
        try:
            _WATCHES.write_text(str(needed))
            raised = True
        except OSError as error:
            print(f"{_WATCHES}: {before}, {needed} wanted ({error.strerror}): some are polled")
    try:
        yield
    finally:
        if raised:
            _WATCHES.write_text(str(before))
