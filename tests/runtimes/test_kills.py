"""Every kill in every runtime's container is told once, as the container's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.kernel.watching import Told
from tests.runtimes.containers import Host, Running, Spec
from tests.runtimes.telling import (
    LABELS,
    WAITING_ITSELF,
    at_its_own_limit,
    following,
    let_go,
    let_go_and_see_off,
    run,
    told_in_a_storm,
    told_once,
    watching_with,
)
from tests.runtimes.workloads import CHILD_KILLED, HOG, tried


@pytest.mark.parametrize(
    "runtime",
    tried(
        *("docker-runc", "systemd_docker-runc", "podman-crun", "containerd-runc"),
        also=(
            *("docker-crun", "containerd-crun", "docker-runsc"),
            *("hand-runc", "hand-crun", "hand-runsc"),
        ),
    ),
    indirect=True,
)
async def test_the_main_process_at_its_limit(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    spec = Spec(command=HOG, handler=handler, name=f"main-{handler}", labels=LABELS)
    async with watching_with(host) as told:
        await following(told, host)
        container = await run(host, spec)
        try:
            assert (await asyncio.to_thread(container.wait)).exit_code == 137
            await told_once(told, host, spec, container)
            await at_its_own_limit(told, container)
        finally:
            await asyncio.to_thread(container.remove)


@pytest.mark.parametrize(
    "runtime",
    tried(
        *("docker-crun", "systemd_docker-runc", "podman-crun", "containerd-crun"),
        also=("docker-runc", "containerd-runc", "hand-runc", "hand-crun"),
    ),
    indirect=True,
)
async def test_a_child_at_the_limit_while_the_container_lives(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    spec = Spec(command=CHILD_KILLED, handler=handler, name=f"child-{handler}", labels=LABELS)
    async with watching_with(host) as told:
        container = await run(host, spec)
        try:
            await told_once(told, host, spec, container)
            await at_its_own_limit(told, container)
            assert await asyncio.to_thread(container.pid) > 0
        finally:
            await asyncio.to_thread(container.remove)


@pytest.mark.parametrize(
    "runtime",
    tried(
        *("docker-crun", "systemd_docker-runc", "podman-crun", "containerd-crun"),
        also=("docker-runc", "containerd-runc"),
    ),
    indirect=True,
)
async def test_a_container_that_removes_itself(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    spec = Spec(command=HOG, handler=handler, name=f"gone-{handler}", labels=LABELS, remove=True)
    async with watching_with(host) as told:
        await following(told, host)
        container = await run(host, spec)
        ended = await asyncio.to_thread(container.wait)
        # Of what it has removed Podman tells 0, whatever it was.
        assert ended.exit_code == 137 or host.runtime == "podman"
        await told_once(told, host, spec, container)


@asynccontextmanager
async def twenty(
    host: Host, handler: str, name: str
) -> AsyncIterator[tuple[Told, dict[Running, Spec]]]:
    """A watcher, and twenty containers that wait to be let go, each with what it was made from."""
    spec = Spec(command=WAITING_ITSELF, handler=handler, labels=LABELS)
    specs = [replace(spec, name=f"{name}-{handler}-{number}") for number in range(20)]
    async with watching_with(host) as told:
        await following(told, host)
        containers = await asyncio.gather(*(run(host, one) for one in specs))
        try:
            yield told, dict(zip(containers, specs, strict=True))
        finally:
            await asyncio.gather(*(asyncio.to_thread(one.remove) for one in containers))


async def all_told(
    told: Told, host: Host, containers: dict[Running, Spec], victims: list[int]
) -> None:
    """Wait until each container's kill is told by its name, and all that the node counts once."""
    for (container, spec), victim in zip(containers.items(), victims, strict=True):
        await told_in_a_storm(told, host, spec, container, victim)
    await told.conserved()


# Twenty starts and removals take dockerd minutes where the processor is emulated.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "runtime",
    tried(
        *("docker-runc", "podman-crun", "containerd-crun"),
        also=("systemd_docker-runc", "docker-crun", "containerd-runc"),
    ),
    indirect=True,
)
async def test_twenty_containers_at_once(runtime: tuple[Host, str]) -> None:
    async with twenty(*runtime, "one-of-twenty") as (told, containers):
        victims = [await let_go(container.cgroup) for container in containers]
        for container in containers:
            assert (await asyncio.to_thread(container.wait)).exit_code == 137
        await all_told(told, runtime[0], containers, victims)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "runtime",
    tried("systemd_docker-runc", also=("docker-runc", "containerd-runc")),
    indirect=True,
)
async def test_twenty_containers_whose_counters_are_gone_before_anybody_could_read_them(
    runtime: tuple[Host, str],
) -> None:
    """As systemd may remove them at once: it is up to the log then, and to the runtime's word."""
    async with twenty(*runtime, "unread") as (told, containers):
        # Not awaited: the watcher, on this same loop, stands still meanwhile.
        victims = let_go_and_see_off([container.cgroup for container in containers])
        await all_told(told, runtime[0], containers, victims)
        assert all(kill.survivor_cgroup for kill in told.kills)
