"""oomwatch in a container of its own, beside those that it watches: docs/deploy.md, row by row."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
from docker.models.containers import Container

from oomwatch import events
from oomwatch.client import AsyncClient
from oomwatch.errors import OomwatchError
from tests.kernel.watching import SECONDS
from tests.kernel.workload import ROOT
from tests.runtimes.api import IMAGE
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DOCKER_SOCKET, DockerHost
from tests.runtimes.processes import wait_for
from tests.runtimes.telling import LABELS, WAITING, WAITING_ITSELF, let_go, run
from tests.runtimes.workloads import only_where_all

_CHECKOUT = Path(__file__).resolve().parents[2]
# The image has no Python: it borrows this machine's, and where the venv's was made from.
_BORROWED = {"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(_CHECKOUT)}
_NOBODY = 65534

Shape = dict[str, Any]
"""What a container of oomwatch's is given beside the cgroup tree, in the Docker SDK's words."""

COUNTERS: Shape = {"user": f"{_NOBODY}:{_NOBODY}"}
LOG: Shape = {"user": "0:0", "cap_add": ["SYSLOG"], "devices": ["/dev/kmsg:/dev/kmsg:r"]}
PIDS: Shape = {**LOG, "pid_mode": "host"}
NAMES: Shape = {**PIDS, "mounted": {str(DOCKER_SOCKET): {"bind": str(DOCKER_SOCKET), "mode": "rw"}}}


@contextmanager
def sidecar(host: DockerHost, shape: Shape, *words: str) -> Iterator[Container]:
    """oomwatch in a container: no capability, no network, namespaces of its own, but for a shape's.

    The root file system is for reading only, as all of a container's files may be.
    """
    volumes = {path: {"bind": path, "mode": "ro"} for path in _BORROWED}
    volumes[str(ROOT)] = {"bind": "/host/cgroup", "mode": "ro"}
    given = {key: value for key, value in shape.items() if key != "mounted"}
    container = host.client.containers.run(
        IMAGE,
        [sys.executable, "-m", "oomwatch.cli.main", *words, "--cgroup-root", "/host/cgroup"],
        detach=True,
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        read_only=True,
        volumes={**volumes, **shape.get("mounted", {})},
        working_dir=str(_CHECKOUT),
        **given,
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def watches(beside: Container) -> bool:
    """Does it say that it watches?"""
    return b"watching" in beside.logs(stdout=False).lower()


def told(beside: Container) -> list[dict[str, Any]]:
    """The kills that it has printed, and what amends them."""
    printed = beside.logs(stdout=True, stderr=False).decode()
    with contextlib.suppress(ValueError):
        return [json.loads(line) for line in printed.splitlines()]
    return []


def said(beside: Container, what: Callable[[dict[str, Any]], object]) -> list[Any]:
    """What its kills say of one thing, where they do."""
    return [found for kill in told(beside) if (found := what(kill))]


def pids(kill: dict[str, Any]) -> list[int]:
    return [victim["pid"] for victim in kill.get("victims", ())]


def command_lines(kill: dict[str, Any]) -> list[list[str]]:
    return [victim["cmdline"] for victim in kill.get("victims", ()) if victim.get("cmdline")]


def name(kill: dict[str, Any]) -> Any:
    return kill["container"].get("name")


@only_where_all
async def test_each_mount_and_right_adds_what_the_table_says(docker_host: DockerHost) -> None:
    """Beside one kill, all at once: starting a Python takes seconds in an emulated machine."""
    command = ("tail", "--output", "json")
    shapes = (COUNTERS, LOG, PIDS, NAMES)
    with ExitStack() as stack:
        spec = Spec(command=WAITING, name="beside", labels=LABELS)
        worker = await run(docker_host, spec)
        stack.callback(worker.remove)
        all_of = [stack.enter_context(sidecar(docker_host, one, *command)) for one in shapes]
        for beside in all_of:
            await until(partial(watches, beside), beside)
        await let_go(worker.cgroup)
        for beside in all_of:
            await until(partial(told, beside), beside)
            assert sum(kill.get("kill_count") or 0 for kill in told(beside)) == 1
            kill = told(beside)[0]
            assert kill["victim_cgroup"] == kill["limit_cgroup"] == worker.cgroup
            assert kill["confidence"] == "confirmed"
            assert kill["container"]["id"] == worker.id
        counters, log, hosts_pids, names = all_of
        await until(partial(said, log, pids), log)
        while not said(hosts_pids, command_lines):
            # Of a victim that is gone before its line is read there is nothing left to look up.
            await let_go(worker.cgroup)
            await asyncio.sleep(20)
        await until(partial(said, names, name), names)
        assert said(names, name)[0] == "beside"
        assert said(hosts_pids, command_lines)[0][0][0] == "/bin/dd"
        # The log's pids are the host's, and in a PID namespace of its own nobody's to look up.
        assert said(log, pids)[:1] == said(hosts_pids, pids)[:1]
        assert not said(log, command_lines)
        assert not said(counters, pids)
        assert not [found for beside in all_of[:3] for found in said(beside, name)]


async def test_a_worker_registers_by_path_and_asks_over_a_shared_directory(
    docker_host: DockerHost, tmp_path: Path
) -> None:
    os.chown(tmp_path, _NOBODY, _NOBODY)
    shape = {**COUNTERS, "mounted": {str(tmp_path): {"bind": "/shared", "mode": "rw"}}}
    words = ("serve", "--socket", "/shared/oomwatch.sock")
    with sidecar(docker_host, shape, *words) as beside:
        async with AsyncClient(tmp_path / "oomwatch.sock") as client:
            await answers(client, beside)
            job = await run(docker_host, Spec(command=WAITING_ITSELF))
            try:
                container = events.Container(id="job-17", labels=LABELS)
                report = await client.watch_container(container, cgroup=job.cgroup)
                assert report.path == job.cgroup
                assert any(
                    one.active and one.name.startswith("memory_events") for one in report.witnesses
                )
                await let_go(job.cgroup)
                ended = await asyncio.to_thread(job.wait)
                entry = await client.finalize("job-17", exit_code=ended.exit_code, maximum_wait=5)
                exit_ = entry.event
                assert isinstance(exit_, events.ContainerExit)
                assert (exit_.verdict, exit_.oom_kills) == (events.Verdict.OOM, 1)
                assert exit_.confidence.rank >= events.Confidence.HIGH.rank
            finally:
                await asyncio.to_thread(job.remove)


async def until(true: Callable[[], object], beside: Container) -> None:
    """Wait for something to be so; on failure say what the sidecar printed instead."""
    await asyncio.to_thread(wait_for, lambda: bool(true()), lambda: beside.logs().decode())


async def answers(client: AsyncClient, beside: Container) -> None:
    """Wait until a daemon answers."""
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                with contextlib.suppress(OomwatchError, grpc.aio.AioRpcError):
                    if await client.health():
                        return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"it does not answer: {beside.logs().decode()}") from None
