"""Follows one runtime by Kubernetes' Container Runtime Interface: its pods and their containers.

Of the interface (k8s.io/cri-api, runtime/v1), and what follows from it:

- A container names its pod's sandbox, and the sandbox names the pod. So: pods are listed first.
- The pid and the cgroup are not in it. containerd and CRI-O tell the pid where `verbose` is asked
  for, as JSON under "info".
- GetContainerEvents is not served by all, and where it is, may be switched off (CRI-O's
  `enable_pod_events`). So: without it the containers are listed anew every 10 s, which is nothing
  beside the kubelet, who lists them every second. One that came and went between two lists is
  among those that ended: the runtime keeps it until the kubelet removes it.
- Where it is served, events may be dropped all the same: CRI-O discards those that its channel has
  no room for. So the containers are listed anew every minute too.
- It has no word for a kill: `reason` is "OOMKilled" once a container has ended of it.

It imports grpc and the generated messages, and is imported itself once the socket is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from oomwatch.containers import claims
from oomwatch.containers.claims import at, parse_json
from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.errors import RuntimeUnreachable
from oomwatch.events import Container, Pod
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation
from oomwatch.sources.runtimes.grpc_api import GrpcApi
from oomwatch.sources.runtimes.v1 import cri_pb2 as pb

LIST_SECONDS = 10.0
"""How often containers are listed where no events are served."""

LIST_BESIDE_EVENTS_SECONDS = 60.0
"""How often they are listed where events are."""

_SERVICE = "/runtime.v1.RuntimeService"
_CONTAINERS_REMEMBERED = 16384
_INFO_BYTES = 1 << 20


class CriFollower:
    """What is known of one runtime, over all connections to it."""

    def __init__(
        self, name: str, places: Places, tell: Callable[[Sequence[Observation]], None]
    ) -> None:
        self._name = name
        self._places = places
        self._tell = tell
        self._runtime: str | None = None
        # Of the containers that run: the inode of each one's cgroup, where it was found.
        self._running: OrderedDict[str, int | None] = OrderedDict()
        # The same from before a restart.
        self._recalled: dict[str, int | None] = {}
        # Those whose end is told, and those that had ended before the first list.
        self._over: set[str] | None = None

    def recall(self, lives: Sequence[Life]) -> None:
        """Look for the ends of these lives at the first connection."""
        self._recalled = {life.container_id: life.cgroup_id for life in lives}

    async def follow(self, socket: Path, connected: Callable[[], None]) -> None:
        """Follow until the connection is lost, which is a `RuntimeUnreachable`."""
        async with GrpcApi(socket) as api:
            version = await api.call(f"{_SERVICE}/Version", pb.VersionRequest(), pb.VersionResponse)
            self._runtime = claims.text(version.runtime_name) if version is not None else None
            events = api.follow(
                f"{_SERVICE}/GetContainerEvents", pb.GetEventsRequest(), pb.ContainerEventResponse
            )
            await self._take_list(api)
            connected()
            # Where they are not served, or the runtime is gone, the next list tells which.
            with contextlib.suppress(RuntimeUnreachable):
                await self._follow_events(api, events)
            while True:
                await asyncio.sleep(LIST_SECONDS)
                await self._take_list(api)

    async def _follow_events(
        self, api: GrpcApi, events: AsyncIterator[pb.ContainerEventResponse]
    ) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LIST_BESIDE_EVENTS_SECONDS

        async def next_event() -> pb.ContainerEventResponse | None:
            return await anext(events, None)

        coming = asyncio.create_task(next_event())
        try:
            while True:
                await asyncio.wait({coming}, timeout=max(0.0, due - loop.time()))
                if loop.time() >= due:
                    await self._take_list(api)
                    due = loop.time() + LIST_BESIDE_EVENTS_SECONDS
                if coming.done():
                    event = coming.result()
                    if event is None:
                        return
                    await self._take(api, event)
                    coming = asyncio.create_task(next_event())
        finally:
            coming.cancel()
            await asyncio.wait({coming})

    async def _take_list(self, api: GrpcApi) -> None:
        """Take in what runs, and how what ran at the last look has ended."""
        pods = await self._list_pods(api)
        answer = await api.call(
            f"{_SERVICE}/ListContainers", pb.ListContainersRequest(), pb.ListContainersResponse
        )
        listed = [one for one in answer.containers if claims.plausible_id(one.id)] if answer else []
        running = {one.id for one in listed if one.state == pb.CONTAINER_STATE_RUNNING}
        over = {one.id for one in listed if one.state == pb.CONTAINER_STATE_EXITED}
        for ended in self._recalled.keys() & over:
            self._running[ended] = self._recalled[ended]
        self._recalled = {}
        known = over if self._over is None else self._over
        passed, self._over = over - known - self._running.keys(), over
        for missing in [known for known in self._running if known not in running]:
            await self._look_at_end(api, missing)
        for one in listed:
            if one.id in passed or (one.id in running and one.id not in self._running):
                await self._look_at_start(api, one, pods.get(one.pod_sandbox_id))
        for one_id in passed & self._running.keys():
            await self._look_at_end(api, one_id)

    async def _list_pods(self, api: GrpcApi) -> dict[str, pb.PodSandbox]:
        answer = await api.call(
            f"{_SERVICE}/ListPodSandbox", pb.ListPodSandboxRequest(), pb.ListPodSandboxResponse
        )
        return {one.id: one for one in answer.items} if answer is not None else {}

    async def _take(self, api: GrpcApi, event: pb.ContainerEventResponse) -> None:
        kind = event.container_event_type
        if kind == pb.CONTAINER_EVENT_TYPE_STARTED:
            # The event names no pod, and a sandbox's own start is none of a container.
            await self._take_list(api)
        elif kind == pb.CONTAINER_EVENT_TYPE_STOPPED and event.container_id in self._running:
            await self._look_at_end(api, event.container_id)

    async def _look_at_start(
        self, api: GrpcApi, told: pb.Container, sandbox: pb.PodSandbox | None
    ) -> None:
        # One that cannot be described, or is gone already, is what the list says of it.
        answer = await self._status(api, told.id) or pb.ContainerStatusResponse()
        info = answer.info.get("info", "")
        pid = claims.count(at(parse_json(info), "pid")) if len(info) <= _INFO_BYTES else None
        place = self._places.locate(told.id, pid)
        self._running[told.id] = place.cgroup_id
        if len(self._running) > _CONTAINERS_REMEMBERED:
            self._running.popitem(last=False)
        known = claims.labels(dict(answer.status.labels or told.labels))
        image = answer.status.image if answer.status.HasField("image") else told.image
        container = Container(
            id=told.id,
            name=claims.text(told.metadata.name),
            runtime=self._runtime,
            handler=claims.text(sandbox.runtime_handler) if sandbox is not None else None,
            image=claims.text(image.user_specified_image) or claims.text(image.image),
            labels=known,
            pod=_pod(sandbox) or claims.pod_of(known),
        )
        limit = answer.status.resources.linux.memory_limit_in_bytes
        self._tell(
            [
                ContainerSeen(
                    source=self._name,
                    time=_now(),
                    container=container,
                    cgroup=place.cgroup,
                    cgroup_id=place.cgroup_id,
                    pid=place.pid,
                    memory_limit_bytes=claims.count(limit),
                )
            ]
        )

    async def _look_at_end(self, api: GrpcApi, container_id: str) -> None:
        """It ran and does no more: its status says how it ended, unless it was removed already."""
        cgroup_id = self._running.pop(container_id)
        if self._over is not None:
            self._over.add(container_id)
        answer = await self._status(api, container_id)
        if answer is None or answer.status.state != pb.CONTAINER_STATE_EXITED:
            return
        status = answer.status
        self._tell(
            [
                ContainerEnded(
                    source=self._name,
                    time=_now(),
                    container_id=container_id,
                    cgroup_id=cgroup_id,
                    exit_code=status.exit_code if 0 <= status.exit_code <= 255 else None,
                    exit_time=claims.count(status.finished_at // 1000),
                    # The interface must say "OOMKilled" for a kill at the cgroup's own limit.
                    oom_killed=status.reason == "OOMKilled" if status.reason else None,
                )
            ]
        )

    async def _status(self, api: GrpcApi, container_id: str) -> pb.ContainerStatusResponse | None:
        request = pb.ContainerStatusRequest(container_id=container_id, verbose=True)
        answer = await api.describe(
            container_id, f"{_SERVICE}/ContainerStatus", request, pb.ContainerStatusResponse
        )
        return answer if answer is not None and answer.status.id == container_id else None


def _pod(sandbox: pb.PodSandbox | None) -> Pod | None:
    if sandbox is None:
        return None
    told = sandbox.metadata
    return Pod(
        uid=claims.text(told.uid),
        name=claims.text(told.name),
        namespace=claims.text(told.namespace),
    )


def _now() -> int:
    return time.time_ns() // 1000
