"""Containers by containerd's own command, as a rule without an image: a root is enough."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

from tests.runtimes.containers import Ended, Spec, now
from tests.runtimes.hosts import CONTAINERD_SOCKET
from tests.runtimes.images import IMAGE, import_image
from tests.runtimes.processes import SECONDS, DaemonProcess, wait_for

_CTR = ("ctr", "--address", str(CONTAINERD_SOCKET))
_names = itertools.count(1)


class ContainerdHost:
    """containerd, with runc or crun below its shim."""

    runtime = "containerd"
    socket = CONTAINERD_SOCKET

    def __init__(self, root: Path, daemon: DaemonProcess) -> None:
        self._root = root
        self.daemon = daemon

    def import_image(self, namespace: str = "default") -> str:
        """Have it know the image of the same root; returns the image's name."""
        import_image(self.socket, namespace, self._root)
        return IMAGE

    def run(
        self, spec: Spec, *, namespace: str = "default", image: str | None = None
    ) -> CtrContainer:
        """Start a container; returns once containerd says that it runs."""
        name = spec.name or f"ctr-{next(_names)}"
        words = [
            *("run", "--runc-binary", spec.handler, "--read-only"),
            *(("--rootfs",) if image is None else ()),
            *(("--rm",) if spec.remove else ()),
            *(("--memory-limit", str(spec.memory)) if spec.memory is not None else ()),
            *(
                w
                for key, value in (spec.labels or {}).items()
                for w in ("--label", f"{key}={value}")
            ),
            *(("--cgroup", f"{spec.parent}/{name}") if spec.parent else ()),
            *(image or str(self._root), name, *spec.command),
        ]
        return CtrContainer(name, f"{spec.parent or f'/{namespace}'}/{name}", namespace, words)


class CtrContainer:
    """A container that `ctr run` started and waits for."""

    def __init__(self, name: str, cgroup: str, namespace: str, words: list[str]) -> None:
        self.id = name
        self.cgroup = cgroup
        self._namespace = namespace
        self._asked = now()
        self._process = subprocess.Popen(
            [*_CTR, "--namespace", namespace, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(
            lambda: self._process.poll() is not None or self._status() in ("RUNNING", "STOPPED"),
            "ctr did not start the container",
        )
        self._started = now()

    def pid(self) -> int:
        """The pid that the runtime reports for it; 0 when it does not run."""
        return next((int(task[1]) for task in self._tasks() if task[2] == "RUNNING"), 0)

    def kill(self, signal: str = "KILL") -> None:
        """Send its main process a signal, through the runtime."""
        self._call("task", "kill", "--signal", signal, self.id)

    def stop(self, seconds: int = 10) -> None:
        """Ask it to end, and kill it when it has not within the time."""
        self.kill("TERM")
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill("KILL")

    def wait(self) -> Ended:
        """Return once it has ended, and ctr has removed its task."""
        _, errors = self._process.communicate(timeout=SECONDS)
        code = self._process.returncode
        assert "ctr:" not in errors, errors
        return Ended(code, None, self._asked, self._started, now())

    def remove(self) -> None:
        """Remove it, running or not; nothing happens when it is gone already."""
        # `ctr run` itself has ended where containerd was restarted meanwhile.
        self._call("task", "rm", "--force", self.id)
        self._process.communicate(timeout=SECONDS)
        self._call("container", "rm", self.id)

    def _status(self) -> str:
        return next((task[2] for task in self._tasks()), "")

    def _tasks(self) -> list[list[str]]:
        lines = self._call("task", "ls").splitlines()[1:]
        return [task for line in lines if (task := line.split())[0] == self.id]

    def _call(self, *words: str) -> str:
        done = subprocess.run(
            [*_CTR, "--namespace", self._namespace, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.stdout
