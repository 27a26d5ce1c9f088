"""Kills are told with the container's name, whatever becomes of its runtime meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from oomwatch.events import OomKill
from tests.kernel.watching import Told, watching
from tests.kernel.workload import ROOT
from tests.runtimes.api import IMAGE, ApiContainer, ApiHost
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DockerHost
from tests.runtimes.workloads import HOG, script

# Waits for the file that `let_go` makes.
WAITING = script("while [ ! -e /tmp/go ]; do /bin/sleep 0.2; done; HOG; exec /bin/sleep 10000")


@pytest.fixture
def host(request: pytest.FixtureRequest) -> ApiHost:
    """A runtime that is asked through its API."""
    found: ApiHost = request.getfixturevalue(f"{request.param}_host")
    return found


def let_go(container: ApiContainer) -> None:
    """Let a WAITING container go over its limit; its runtime is not needed for it."""
    pid = min(map(int, (ROOT / container.cgroup[1:] / "cgroup.procs").read_text().split()))
    Path(f"/proc/{pid}/root/tmp/go").touch()


async def following(told: Told, runtime: str) -> None:
    """Wait until the watcher follows a runtime's events."""

    def active() -> bool:
        states = told.watcher.witnesses.states()
        return any(state.name == runtime and state.active for state in states)

    await told.until(active)


def words(told: Told, cgroup: str) -> list[OomKill]:
    """A kill and what amends it."""
    return told.below(cgroup, amendments=True)


async def told_by_name(told: Told, container: ApiContainer) -> OomKill:
    """Wait for the one kill of a container, by its name; return it, or the amendment."""

    def named() -> list[OomKill]:
        found = words(told, container.cgroup)
        return [kill for kill in found if kill.container and kill.container.name]

    await told.until(lambda: bool(named()))
    await told.conserved()
    assert told.count(container.cgroup) == 1
    kill = named()[-1]
    assert kill.container is not None
    assert kill.container.id == container.id
    return kill


@pytest.mark.parametrize("host", ["docker", "podman"], indirect=True)
async def test_a_kill_has_its_containers_name_image_and_labels(host: ApiHost) -> None:
    handler = "crun" if host.runtime == "podman" else "runc"
    spec = Spec(command=HOG, handler=handler, name="shop-web", labels={"app": "shop"})
    async with watching() as told:
        await following(told, host.runtime)
        container = await asyncio.to_thread(host.run, spec)
        try:
            kill = await told_by_name(told, container)
            known = kill.container
            assert known is not None
            assert (known.name, known.runtime) == ("shop-web", host.runtime)
            assert (known.image or "").endswith(IMAGE)
            assert known.labels is not None
            assert known.labels["app"] == "shop"
        finally:
            await asyncio.to_thread(container.remove)


async def test_dockers_own_oom_event_is_evidence_and_no_second_event(
    docker_host: DockerHost,
) -> None:
    async with watching() as told:
        await following(told, "docker")
        container = await asyncio.to_thread(docker_host.run, Spec(command=HOG))
        try:
            await told.until(
                lambda: any(
                    evidence.source == "docker"
                    for kill in words(told, container.cgroup)
                    for evidence in kill.evidence
                )
            )
            await told_by_name(told, container)
        finally:
            await asyncio.to_thread(container.remove)


async def test_a_watcher_that_comes_after_the_container_knows_its_name(
    docker_host: DockerHost,
) -> None:
    container = await asyncio.to_thread(docker_host.run, Spec(command=WAITING, name="before"))
    try:
        async with watching() as told:
            let_go(container)
            kill = await told_by_name(told, container)
            assert kill.container is not None
            assert kill.container.name == "before"
    finally:
        await asyncio.to_thread(container.remove)


async def test_the_runtime_restarts_while_containers_run(docker_host: DockerHost) -> None:
    """Its containers run on (live restore), are killed while it is away, and are told by name."""
    container = await asyncio.to_thread(docker_host.run, Spec(command=WAITING, name="survivor"))
    try:
        async with watching() as told:
            await following(told, "docker")
            # Known, since the source has listed what runs once it follows.
            await asyncio.to_thread(docker_host.daemon.stop)
            try:
                let_go(container)
                kill = await told_by_name(told, container)
            finally:
                await asyncio.to_thread(docker_host.daemon.start)
            assert kill.container is not None
            assert kill.container.name == "survivor"
            await following(told, "docker")
            later = await asyncio.to_thread(docker_host.run, Spec(command=HOG, name="later"))
            kill = await told_by_name(told, later)
            await asyncio.to_thread(later.remove)
            assert kill.container is not None
            assert kill.container.name == "later"
    finally:
        await asyncio.to_thread(container.remove)


def held() -> tuple[int, int, int]:
    """How many inotify watches, descriptors and threads this process has."""
    watches = 0
    for fd in Path("/proc/self/fdinfo").iterdir():
        try:
            watches += sum(line.startswith("inotify wd:") for line in fd.read_text().splitlines())
        except OSError:
            continue
    return watches, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


CYCLES = int(os.environ.get("OOMWATCH_DOCKER_CYCLES", "20"))
"""scripts/soak asks for more."""


async def test_containers_come_and_go_and_leave_nothing_behind(
    docker_host: DockerHost,
) -> None:
    async def cycle(number: int) -> None:
        spec = Spec(command=("/bin/true",), remove=True, name=f"cycle-{number}")
        container = await asyncio.to_thread(docker_host.run, spec)
        await asyncio.to_thread(container.wait)

    async with watching() as told:
        await following(told, "docker")
        # Pools of threads and of connections grow to what is needed, once.
        await asyncio.gather(*(cycle(number) for number in range(4)))
        await told.quiet()
        before = held()
        for first in range(4, 4 + CYCLES, 4):
            await asyncio.gather(*(cycle(number) for number in range(first, first + 4)))
        await told.until(lambda: held() <= before)
        assert told.kills == []
