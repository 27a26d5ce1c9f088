"""The daemon, begun anew, in a cgroup with a limit of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from scripts._soak.lives import ANSWER_SECONDS, CHECKOUT
from tests.kernel import workload
from tests.kernel.workload import ROOT

LIMIT = 96 << 20


class Confined:
    """`oomwatch serve` in a cgroup without swap; `begin` is a command that it is begun by.

    Nothing of it is shared with who starts it, as it is where one forks: what it holds is counted
    in its own cgroup, program and libraries included where nobody else had them before.
    """

    process: subprocess.Popen[bytes]

    def __init__(
        self, directory: Path, *arguments: str, limit: int = LIMIT, begin: tuple[str, ...] = ()
    ) -> None:
        self.socket = directory / "oomwatch.sock"
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self.cgroup = ROOT / f"oomwatch-confined-{os.getpid()}"
        self._notify = directory / "notify.sock"
        self._begin = begin
        self._arguments = ("--socket", str(self.socket), "--state-dir", str(self.state), *arguments)
        workload.make(self.cgroup, limit=limit)

    def start(self) -> None:
        """Start it, and return once it watches."""
        self._notify.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
            self.log.open("ab") as log,
        ):
            notified.bind(str(self._notify))
            notified.settimeout(ANSWER_SECONDS)
            self.process = subprocess.Popen(
                [
                    *("sh", "-c", f'echo 0 >{self.cgroup}/cgroup.procs && exec "$@"', "sh"),
                    *(*self._begin, sys.executable, "-m", "oomwatch.cli.main", "serve"),
                    *self._arguments,
                ],
                cwd=CHECKOUT,
                env={**os.environ, "NOTIFY_SOCKET": str(self._notify)},
                stderr=log,
            )
            while notified.recv(64) != b"READY=1":
                pass

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return self.process.poll() is None

    @property
    def killed(self) -> int:
        """How often was it the victim?"""
        return workload.counters(self.cgroup)["oom_kill"]

    def held(self) -> str:
        """What its cgroup held at most and holds now, in words."""
        lines = (self.cgroup / "memory.stat").read_text().splitlines()
        stat = {name: int(value) for name, value in (line.split() for line in lines)}
        peak = self.cgroup / "memory.peak"
        words = [f"peak {_mebibytes(int(peak.read_text()))}"] if peak.exists() else []
        words.append(f"now {_mebibytes(int((self.cgroup / 'memory.current').read_text()))}")
        words += [f"{name} {_mebibytes(stat[name])}" for name in ("anon", "shmem", "file")]
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        words.append(f"resident at most {_mebibytes(resident << 10)}")
        words.append(f"at its limit {workload.counters(self.cgroup)['max']} times")
        return ", ".join(words)

    def close(self) -> None:
        """End it, and remove its cgroup."""
        self.process.kill()
        self.process.wait()
        workload.remove(self.cgroup)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
