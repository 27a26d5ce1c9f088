"""Pods by Kubernetes' Container Runtime Interface, against a runtime that serves it: containerd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oomwatch.events import ContainerExit, OomKill, Pod, Scope, Verdict
from oomwatch.sources.runtimes import RuntimeSocket
from tests.kernel.watching import Told, watching
from tests.runtimes.containers import Spec
from tests.runtimes.cri import CriContainer, CriHost, PodSandbox
from tests.runtimes.hosts import CONTAINERD_SOCKET
from tests.runtimes.images import IMAGE
from tests.runtimes.telling import LABELS, WAITING, WAITING_ITSELF, let_go
from tests.runtimes.workloads import HOG, LIMIT, only_where_all

CRI = (RuntimeSocket("cri", CONTAINERD_SOCKET),)
"""Alone: at this socket containerd's own API would tell names as well."""


@asynccontextmanager
async def running_pod(host: CriHost, name: str) -> AsyncIterator[PodSandbox]:
    """A pod, removed with its containers at the end."""
    pod = await asyncio.to_thread(host.run_pod, name)
    try:
        yield pod
    finally:
        await asyncio.to_thread(host.remove_pod, pod)


async def named(told: Told, container: CriContainer) -> OomKill:
    """Wait for the one kill of a container, by its name."""

    def by_name() -> list[OomKill]:
        found = told.below(container.cgroup, amendments=True)
        return [kill for kill in found if kill.container and kill.container.name]

    await told.until(lambda: bool(by_name()))
    await told.conserved()
    assert told.count(container.cgroup) == 1
    return by_name()[-1]


async def ended(told: Told, container: CriContainer) -> ContainerExit:
    """Wait for what is told of a container's end."""

    def exits() -> list[ContainerExit]:
        events = [entry.event for entry in told.entries]
        found = [event for event in events if isinstance(event, ContainerExit)]
        return [event for event in found if event.container and event.container.id == container.id]

    await told.until(lambda: bool(exits()))
    return exits()[-1]


async def test_a_kill_has_its_pod(cri_host: CriHost) -> None:
    spec = Spec(command=WAITING, name="api", labels=LABELS)
    async with running_pod(cri_host, "api-0") as pod:
        container = await asyncio.to_thread(cri_host.run, spec, pod)
        async with watching(runtimes=CRI) as told:
            await let_go(container.cgroup)
            kill = await named(told, container)
            known = kill.container
            assert known is not None
            assert (known.id, known.name, known.image) == (container.id, "api", IMAGE)
            assert known.pod == Pod(uid=pod.uid, name="api-0", namespace="shop")
            assert known.labels is not None
            assert LABELS.items() <= known.labels.items()
            assert kill.scope is Scope.CONTAINER_LIMIT
            life = told.watcher.correlator.containers.lives.newest(container.id)
            assert life is not None
            assert (life.cgroup, life.memory_limit_bytes) == (container.cgroup, LIMIT)


@only_where_all
async def test_an_end_is_told_by_the_containers_status(cri_host: CriHost) -> None:
    async with running_pod(cri_host, "api-1") as pod, watching(runtimes=CRI) as told:
        spec = Spec(command=WAITING_ITSELF, name="main")
        container = await asyncio.to_thread(cri_host.run, spec, pod)
        await told.until(
            lambda: told.watcher.correlator.containers.lives.newest(container.id) is not None
        )
        await let_go(container.cgroup)
        by_runtime = await asyncio.to_thread(container.wait)
        assert (by_runtime.exit_code, by_runtime.oom_killed) == (137, True)
        exit_ = await ended(told, container)
        assert (exit_.verdict, exit_.exit_code) == (Verdict.OOM, 137)
        assert any(evidence.source == "cri" for evidence in exit_.evidence)
        assert exit_.oom_kills == 1


@only_where_all
async def test_one_that_comes_and_goes_between_two_lists_has_its_name(cri_host: CriHost) -> None:
    """This containerd serves no events (1.7 and later do): what runs is listed every 10 s."""
    async with running_pod(cri_host, "api-2") as pod, watching(runtimes=CRI) as told:
        await told.until(
            lambda: any(s.name == "cri" and s.active for s in told.watcher.witnesses.states())
        )
        container = await asyncio.to_thread(
            cri_host.run, Spec(command=HOG, name="short", labels=LABELS), pod
        )
        kill = await named(told, container)
        assert kill.container is not None
        assert kill.container.name == "short"
        assert kill.container.pod == Pod(uid=pod.uid, name="api-2", namespace="shop")
        assert (await ended(told, container)).exit_code == 137
