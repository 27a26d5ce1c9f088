"""What a person sees who types `oomwatch tail` beside a dockerd: names, images and scopes."""

from __future__ import annotations

import asyncio
import signal
import sys
from functools import partial
from pathlib import Path

from tests.kernel import workload
from tests.runtimes.api import IMAGE
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DockerHost
from tests.runtimes.processes import DaemonProcess, wait_for
from tests.runtimes.telling import run
from tests.runtimes.workloads import CHILD_KILLED, HOG, LIMIT


async def test_the_table_shows_names_images_and_scopes(
    docker_host: DockerHost, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    pod = workload.ROOT / "oomwatch-tail"
    workload.make(pod, limit=LIMIT)
    (pod / "cgroup.subtree_control").write_text("+memory")
    tail = DaemonProcess(
        (sys.executable, "-m", "oomwatch", "tail", "--cgroup-root", "/sys/fs/cgroup"),
        output,
        lambda: "REVISION" in output.read_text(),
    )
    tail.start()
    kills = (
        ("own", Spec(command=HOG, name="tail-main")),
        ("own", Spec(command=CHILD_KILLED, name="tail-child")),
        ("own", Spec(command=HOG, name="tail-removed", remove=True)),
        ("ancestor", Spec(command=HOG, name="tail-pod", memory=None, parent=f"/{pod.name}")),
    )

    def lines(name: str = "") -> list[list[str]]:
        """The cells of the lines about containers of the tests' image."""
        whose = f"{name} ({IMAGE})"
        return [line.split() for line in output.read_text().splitlines() if whose in line]

    def shown(name: str, scope: str) -> bool:
        return any(scope in line for line in lines(name))

    containers = []
    try:
        for scope, spec in kills:
            containers.append(await run(docker_host, spec))
            assert spec.name is not None
            await asyncio.to_thread(wait_for, partial(shown, spec.name, scope), tail.last_words)
    finally:
        for container in containers:
            await asyncio.to_thread(container.remove)
        tail.stop(signal.SIGINT)
        workload.remove(pod)
    counts = [line[3] for line in lines()]
    assert counts.count("1") <= len(kills), "none is counted twice"
