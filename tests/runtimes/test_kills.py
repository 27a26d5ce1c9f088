"""Every kill in every runtime's container is told once, of the container's own cgroup."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oomwatch.events import OomKill
from tests.kernel.watching import Told, watching
from tests.runtimes.containers import Host, Running, Spec
from tests.runtimes.workloads import CHILD_KILLED, HOG

RUNTIMES = [
    *("docker-runc", "docker-crun", "docker-runsc", "podman-crun"),
    *("containerd-runc", "hand-runc", "hand-crun", "hand-runsc"),
]


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> tuple[Host, str]:
    """A runtime that runs, and the OCI runtime to use with it."""
    name, _, handler = str(request.param).partition("-")
    return request.getfixturevalue(f"{name}_host"), handler


async def run(host: Host, spec: Spec) -> Running:
    """Start a container without holding up the watcher."""
    return await asyncio.to_thread(host.run, spec)


async def only_kill(told: Told, cgroup: str) -> OomKill:
    """Wait for a kill in a cgroup; it is told once, and is all that the node counts."""
    await told.until(lambda: told.count(cgroup) >= 1)
    await told.conserved()
    (kill,) = told.below(cgroup)
    assert kill.victim_cgroup == cgroup
    return kill


@pytest.mark.parametrize("runtime", RUNTIMES, indirect=True)
async def test_the_main_process_at_its_limit(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    async with watching() as told:
        container = await run(host, Spec(command=HOG, handler=handler))
        try:
            ended = await asyncio.to_thread(container.wait)
            assert ended.exit_code == 137
            kill = await only_kill(told, container.cgroup)
            assert kill.limit_cgroup == container.cgroup
            assert kill.kill_count == 1
        finally:
            await asyncio.to_thread(container.remove)


@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if "runsc" not in r], indirect=True)
async def test_a_child_at_the_limit_while_the_container_lives(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    async with watching() as told:
        container = await run(host, Spec(command=CHILD_KILLED, handler=handler))
        try:
            await only_kill(told, container.cgroup)
            assert await asyncio.to_thread(container.pid) > 0
        finally:
            await asyncio.to_thread(container.remove)


@pytest.mark.parametrize("runtime", ["docker-runc", "docker-crun"], indirect=True)
async def test_a_container_that_removes_itself(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    async with watching() as told:
        container = await run(host, Spec(command=HOG, handler=handler, remove=True))
        ended = await asyncio.to_thread(container.wait)
        assert ended.exit_code == 137
        await only_kill(told, container.cgroup)


@pytest.mark.parametrize("runtime", ["docker-runc"], indirect=True)
async def test_twenty_containers_at_once(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    spec = Spec(command=HOG, handler=handler)
    async with watching() as told:
        starting = (run(host, replace(spec, name=f"one-of-twenty-{n}")) for n in range(20))
        containers = await asyncio.gather(*starting)
        try:
            for container in containers:
                assert (await asyncio.to_thread(container.wait)).exit_code == 137
            await told.until(lambda: all(told.count(one.cgroup) for one in containers))
            await told.conserved()
            assert [told.count(one.cgroup) for one in containers] == [1] * 20
        finally:
            for container in containers:
                await asyncio.to_thread(container.remove)
