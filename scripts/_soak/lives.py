"""The daemon, started, killed and started again, on one state directory and one socket."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

CHECKOUT = Path(__file__).parents[2]

ANSWER_SECONDS = 300.0
"""Python starts in 10 s and more where the processor is emulated."""


class Lives:
    """One daemon at a time, forked from a process that has imported it all."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket = directory / "oomwatch.sock"
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self.pid: int | None = None
        self.ready = False
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        notify = directory / "notify.sock"
        self._notified.bind(str(notify))
        self._server = subprocess.Popen(
            [
                *(sys.executable, "-m", "scripts._soak.fork_server", str(self.log), "serve"),
                *("--socket", str(self.socket), "--state-dir", str(self.state)),
                *("--log-level", "info", *arguments),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._answer()

    def start(self, die: tuple[str, int] | None = None) -> None:
        """Begin a life, which ends in its n-th commit if it is told to `die` there."""
        self._hear()
        self.pid = self._ask({"die": die})
        self.ready = False

    def watch(self, seconds: float) -> bool:
        """Wait for so long, or until the daemon says that it watches or is about to end.

        Returns whether it watches.
        """
        if not self.ready and self._readable(seconds):
            self._hear()
        return self.ready

    @property
    def dead(self) -> bool:
        """Has it ended by itself? It stays a zombie until `end`."""
        assert self.pid is not None
        text = Path(f"/proc/{self.pid}/stat").read_bytes()
        return text.rpartition(b")")[2].split()[0] in (b"Z", b"X")

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End this life, and return its exit status (negative for a signal)."""
        assert self.pid is not None
        pid, self.pid = self.pid, None
        os.kill(pid, number)
        return int(self._ask({"wait": pid}))

    def close(self) -> None:
        """End the daemon, and the process that it is forked from."""
        if self.pid is not None:
            self.end()
        self._server.communicate()
        self._notified.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._notified], [], [], seconds)[0])

    def _hear(self) -> None:
        while self._readable(0):
            self.ready = self._notified.recv(64) == b"READY=1"

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        return self._answer()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError("the fork server does not answer")
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended: see above, and {self.log}")
        return json.loads(line)
