"""oomwatch in a container of its own, beside those that it watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from tests.kernel.workload import ROOT
from tests.runtimes.api import IMAGE
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DockerHost
from tests.runtimes.processes import wait_for
from tests.runtimes.workloads import HOG

_CHECKOUT = Path(__file__).resolve().parents[2]
# The image has no Python: it borrows this machine's, and where the venv's was made from.
_BORROWED = {"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(_CHECKOUT)}


@contextmanager
def sidecar(host: DockerHost) -> Iterator[Container]:
    """`oomwatch tail` in a container: no capability, no network, namespaces of its own."""
    mounts = {path: {"bind": path, "mode": "ro"} for path in _BORROWED}
    mounts[str(ROOT)] = {"bind": "/host/cgroup", "mode": "ro"}
    container = host.client.containers.run(
        IMAGE,
        [
            *(sys.executable, "-m", "oomwatch.cli.main", "tail", "--output", "json"),
            *("--cgroup-root", "/host/cgroup"),
        ],
        detach=True,
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        user="65534:65534",
        volumes=mounts,
        working_dir=str(_CHECKOUT),
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def told(container: Container) -> list[dict[str, Any]]:
    """The events that it has printed."""
    printed = container.logs(stdout=True, stderr=False).decode()
    with contextlib.suppress(ValueError):
        return [json.loads(line) for line in printed.splitlines()]
    return []


async def test_a_sidecar_tells_the_kills_of_the_containers_beside_it(
    docker_host: DockerHost,
) -> None:
    with sidecar(docker_host) as beside:
        wait_for(
            lambda: b"watching" in beside.logs(stdout=False).lower(),
            lambda: f"it does not watch: {beside.logs().decode()}",
        )
        worker = await asyncio.to_thread(docker_host.run, Spec(command=HOG, name="beside"))
        try:
            wait_for(lambda: bool(told(beside)), lambda: beside.logs().decode())
            kill = told(beside)[0]
            assert kill["victim_cgroup"] == worker.cgroup
            assert kill["kill_count"] == 1
            assert kill["confidence"] == "confirmed"
            assert kill["container"]["id"] == worker.id
        finally:
            await asyncio.to_thread(worker.remove)
