"""Containers by way of Docker's API, which Podman speaks as well."""

from __future__ import annotations

import concurrent.futures
import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from tests.runtimes.containers import Ended, Spec, now
from tests.runtimes.processes import SECONDS

IMAGE = "oomwatch-busybox:latest"
# Asking for the version costs Podman half a minute under emulation: it asks dpkg for each part's.
_API_VERSION = "1.41"


class ApiHost:
    """A runtime behind a socket that speaks Docker's API."""

    def __init__(
        self, runtime: str, socket: Path, root: Path, cgroup_of: Callable[[str], str]
    ) -> None:
        self.runtime = runtime
        self.socket = socket
        self._root = root
        self._cgroup_of = cgroup_of
        self.client = docker.DockerClient(
            base_url=f"unix://{socket}", version=_API_VERSION, timeout=int(SECONDS)
        )
        self._waiters = concurrent.futures.ThreadPoolExecutor(max_workers=32)

    def load_image(self) -> None:
        """Give it the image, which no registry is needed for."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(self._root, arcname=".")
        name, tag = IMAGE.split(":")
        self.client.api.import_image_from_data(archive.getvalue(), repository=name, tag=tag)

    def run(self, spec: Spec) -> ApiContainer:
        """Start a container; returns once the runtime says that it was started."""
        asked = now()
        container = self.client.containers.create(
            IMAGE,
            list(spec.command),
            name=spec.name,
            # Podman's service was started with its one OCI runtime.
            runtime=None if self.runtime == "podman" else spec.handler,
            network_mode="none",
            mem_limit=spec.memory,
            init=spec.init,
            auto_remove=spec.remove,
            labels=dict(spec.labels or {}),
            cgroup_parent=spec.parent,
            volumes={str(spec.gate): {"bind": "/gate", "mode": "rw"}} if spec.gate else None,
            restart_policy=(
                {"Name": "on-failure", "MaximumRetryCount": spec.restarts}
                if spec.restarts
                else None
            ),
        )
        # Asked before it starts: one that removes itself cannot be asked afterwards.
        removed = self._waiters.submit(_exit_code, container, "removed") if spec.remove else None
        container.start()
        cgroup = (
            f"{spec.parent}/{container.id}" if spec.parent else self._cgroup_of(str(container.id))
        )
        return ApiContainer(container, cgroup, removed, asked, now())

    def close(self) -> None:
        """Remove every container, and hang up."""
        with suppress(docker.errors.APIError):
            for container in self.client.containers.list(all=True):
                with suppress(docker.errors.APIError):
                    container.remove(force=True)
        self._waiters.shutdown(cancel_futures=True)
        self.client.close()


class ApiContainer:
    """A container that was started through Docker's API."""

    def __init__(
        self,
        container: Container,
        cgroup: str,
        removed: concurrent.futures.Future[int] | None,
        asked: float,
        started: float,
    ) -> None:
        self.container = container
        self.cgroup = cgroup
        self._removed = removed
        self._asked = asked
        self._started = started

    @property
    def id(self) -> str:
        """The runtime's id of it."""
        return str(self.container.id)

    def state(self) -> dict[str, Any]:
        """`State`, as inspecting it shows."""
        self.container.reload()
        state: dict[str, Any] = self.container.attrs["State"]
        return state

    def pid(self) -> int:
        """The pid that the runtime reports for it; 0 when it does not run."""
        return int(self.state()["Pid"])

    def kill(self, signal: str = "KILL") -> None:
        """Send its main process a signal, through the runtime."""
        self.container.kill(signal)

    def stop(self, seconds: int = 10) -> None:
        """Ask it to end, and kill it when it has not within the time."""
        self.container.stop(timeout=seconds)

    def wait(self) -> Ended:
        """Return once it has ended, and was removed if it removes itself."""
        if self._removed is not None:
            exit_code = self._removed.result(SECONDS)
        else:
            exit_code = _exit_code(self.container, "not-running")
        ended = now()
        oom_killed = None
        with suppress(NotFound):
            oom_killed = bool(self.state()["OOMKilled"])
        return Ended(exit_code, oom_killed, self._asked, self._started, ended)

    def remove(self) -> None:
        """Remove it, running or not; nothing happens when it is gone already."""
        with suppress(NotFound):
            self.container.remove(force=True)


def _exit_code(container: Container, until: Literal["removed", "not-running"]) -> int:
    return container.wait(timeout=SECONDS, condition=until)["StatusCode"]
