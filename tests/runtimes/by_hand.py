"""Containers without a daemon: an OCI runtime run by hand, as a small worker does it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.kernel.workload import ROOT
from tests.runtimes.containers import Ended, Spec, now
from tests.runtimes.hosts import runsc_wrapper
from tests.runtimes.processes import SECONDS, wait_for


class HandHost:
    """runc, crun or runsc itself."""

    runtime = "hand"

    def __init__(self, data: Path, root: Path) -> None:
        self._folder = data / "bundles"
        self._folder.mkdir(exist_ok=True)
        self.root = root
        self._runsc = str(runsc_wrapper(data))
        self._made = 0

    def run(self, spec: Spec) -> HandContainer:
        """Start a container; returns once its runtime says that it runs."""
        self._made += 1
        name = spec.name or f"hand-{self._made}"
        bundle = self._folder / name
        bundle.mkdir()
        cgroup = f"{spec.parent or '/by-hand'}/{name}"
        (bundle / "config.json").write_text(json.dumps(config(spec, self.root, cgroup)))
        runtime = [self._runsc] if spec.handler == "runsc" else [spec.handler]
        return HandContainer(name, cgroup, bundle, [*runtime, *spec.options], within=spec.within)


class HandContainer:
    """A container that was started by its runtime's own command."""

    def __init__(
        self, name: str, cgroup: str, bundle: Path, runtime: list[str], *, within: str | None
    ) -> None:
        self.id = name
        self.cgroup = cgroup
        self._bundle = bundle
        self._runtime = runtime
        self._asked = now()
        with (bundle / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*_moved(within), *runtime, "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_for(lambda: self._process.poll() is not None or self._status() != "", self.output)
        self._started = now()

    def output(self) -> str:
        """What it and its runtime printed."""
        return (self._bundle / "output").read_text(errors="replace")

    def pid(self) -> int:
        """The pid that the runtime reports for it; 0 when it does not run."""
        return int(self._state().get("pid", 0))

    def kill(self, signal: str = "KILL") -> None:
        """Send its main process a signal, through the runtime."""
        self._call("kill", self.id, signal)

    def stop(self, seconds: int = 10) -> None:
        """Ask it to end, and kill it when it has not within the time."""
        self.kill("TERM")
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill("KILL")

    def wait(self) -> Ended:
        """Return once it has ended; its runtime has then removed its cgroup."""
        exit_code = self._process.wait(SECONDS)
        return Ended(exit_code, None, self._asked, self._started, now())

    def remove(self) -> None:
        """Remove it, running or not; nothing happens when it is gone already."""
        self._call("delete", "--force", self.id)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._bundle, ignore_errors=True)

    def _status(self) -> str:
        status = self._state().get("status", "")
        return "" if status in ("creating", "created") else str(status)

    def _state(self) -> dict[str, Any]:
        done = self._call("state", self.id)
        state: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return state

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._runtime, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )


def _moved(cgroup: str | None) -> list[str]:
    """The words before a command that is to run in a cgroup."""
    if cgroup is None:
        return []
    return ["sh", "-c", f'echo 0 > {ROOT}{cgroup}/cgroup.procs; exec "$@"', "sh"]


def config(spec: Spec, root: Path, cgroup: str) -> dict[str, Any]:
    """The least of an OCI runtime specification (config.md) that all three accept."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
    ]
    if spec.gate is not None:
        gate = {"destination": "/gate", "type": "bind", "source": str(spec.gate)}
        mounts.append(gate | {"options": ["rbind", "rw"]})
    limits = {"memory": {"limit": spec.memory}} if spec.memory is not None else {}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(spec.command),
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "annotations": {**(spec.labels or {}), **(spec.annotations or {})},
        "linux": {
            "cgroupsPath": cgroup,
            "resources": limits,
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        },
    }
