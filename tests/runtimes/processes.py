"""Daemons that the tests start themselves, each with its output in a file."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SECONDS = 240.0
"""Emulated machines are slow, and never this slow."""


class DaemonProcess:
    """One daemon; `ready` says when it answers."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self._ready = ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the daemon that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return once it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )
        process = self._process
        wait_for(
            lambda: self._ready() or process.poll() is not None,
            lambda: f"{self.command[0]} did not come up:\n{self.last_words()}",
        )
        assert process.poll() is None, f"{self.command[0]} ended at once:\n{self.last_words()}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and return once it has ended. What it started may live on."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.command[0]} did not end: {self.last_words()}") from None

    def last_words(self) -> str:
        """The end of what it logged."""
        return self.log.read_text(errors="replace")[-3000:]


def wait_for(true: Callable[[], bool], otherwise: Callable[[], str] | str) -> None:
    """Wait for a condition that no descriptor tells of; fail after a bound, with the words."""
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.05)


def answers(path: Path) -> bool:
    """Whether something listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
