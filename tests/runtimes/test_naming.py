"""Kills are told with the container's name, whatever becomes of its runtime meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from oomwatch.sources.runtimes import RuntimeSocket
from tests.kernel.watching import watching
from tests.runtimes.api import ApiHost
from tests.runtimes.containers import Host, Spec
from tests.runtimes.ctr import ContainerdHost
from tests.runtimes.hosts import DockerHost, PodmanHost
from tests.runtimes.telling import (
    LABELS,
    WAITING,
    following,
    let_go,
    run,
    told_once,
    watching_with,
    words,
)
from tests.runtimes.workloads import HOG, only_where_all, tried


@pytest.mark.parametrize("runtime", tried("docker-runc", also=["containerd-runc"]), indirect=True)
async def test_a_runtimes_own_word_is_evidence_and_no_second_event(
    runtime: tuple[Host, str],
) -> None:
    host, handler = runtime
    spec = Spec(command=HOG, handler=handler, name="reported", labels=LABELS)
    async with watching_with(host) as told:
        await following(told, host)
        container = await run(host, spec)
        try:
            await told.until(
                lambda: any(
                    evidence.source == host.runtime
                    for kill in words(told, container)
                    for evidence in kill.evidence
                )
            )
            await told_once(told, host, spec, container)
        finally:
            await asyncio.to_thread(container.remove)


@pytest.mark.parametrize(
    "runtime",
    tried("docker-runc", "podman-crun", "containerd-runc", also=["systemd_docker-runc"]),
    indirect=True,
)
async def test_a_watcher_that_comes_after_the_container_knows_its_name(
    runtime: tuple[Host, str],
) -> None:
    host, handler = runtime
    spec = Spec(command=WAITING, handler=handler, name="before", labels=LABELS)
    container = await run(host, spec)
    try:
        async with watching_with(host) as told:
            await let_go(container.cgroup)
            await told_once(told, host, spec, container)
    finally:
        await asyncio.to_thread(container.remove)


@pytest.mark.parametrize(
    "runtime", tried("docker-runc", "podman-crun", "containerd-runc"), indirect=True
)
async def test_the_runtime_restarts_while_containers_run(runtime: tuple[Host, str]) -> None:
    """They run on, are killed in while it is away, and are told by name; so is what comes after."""
    host, handler = runtime
    assert isinstance(host, DockerHost | PodmanHost | ContainerdHost)
    spec = Spec(command=WAITING, handler=handler, name="survivor", labels=LABELS)
    # Alone, for containerd is asked about Docker's containers as well.
    socket = RuntimeSocket(host.runtime, host.socket)
    container = await run(host, spec)
    try:
        async with watching(runtimes=(socket,)) as told:
            # Known from now on, since the source lists what runs before anything else.
            await following(told, host)
            await let_go(container.cgroup)
            await told_once(told, host, spec, container)
            await asyncio.to_thread(host.daemon.stop)
            try:
                await let_go(container.cgroup)
                await told_once(told, host, spec, container, kills=2)
            finally:
                await asyncio.to_thread(host.daemon.start)
            await following(told, host)
            after = Spec(command=HOG, handler=handler, name="after", labels=LABELS)
            later = await run(host, after)
            try:
                await told_once(told, host, after, later)
            finally:
                await asyncio.to_thread(later.remove)
    finally:
        await asyncio.to_thread(container.remove)


@only_where_all
async def test_containerds_image_is_told(containerd_host: ContainerdHost) -> None:
    spec = Spec(command=HOG, name="of-an-image", labels=LABELS)
    async with watching_with(containerd_host) as told:
        await following(told, containerd_host)
        image = await asyncio.to_thread(containerd_host.import_image)
        container = await asyncio.to_thread(containerd_host.run, spec, image=image)
        try:
            kill = await told_once(told, containerd_host, spec, container)
            assert kill.container is not None
            assert (kill.container.id, kill.container.image) == (container.id, image)
        finally:
            await asyncio.to_thread(container.remove)


@only_where_all
async def test_two_containers_of_one_name_are_two(docker_host: ApiHost) -> None:
    """One that is made again under an old name is another container, with a kill of its own."""
    spec = Spec(command=HOG, name="again", labels=LABELS)
    async with watching_with(docker_host) as told:
        await following(told, docker_host)
        for _ in range(2):
            container = await run(docker_host, spec)
            try:
                await told_once(told, docker_host, spec, container)
            finally:
                await asyncio.to_thread(container.remove)
        ids = {kill.container.id for kill in told.kills if kill.container is not None}
        assert len(ids) == 2
