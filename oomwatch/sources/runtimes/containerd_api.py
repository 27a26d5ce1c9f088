"""Follows one containerd: its containers, in all namespaces, and what becomes of their tasks.

Of its API (github.com/containerd/containerd, api/services), and what follows from it:

- Events are of all namespaces unless a filter asks for one; every other call is about one.
- An event names a container, and nothing of it. So: it is looked up as it is made, before it runs,
  for one that runs with --rm may be gone by the time that its start is read. Its specification then
  says where its cgroup was: containerd's own layout, /NAMESPACE/ID, shows no container.
- A container's specification is tens of kilobytes. So: the list is asked for one by one.
- /tasks/exit is also of execs; the init's carries the container's id.
- Docker is a client of containerd, in the namespace "moby": it keeps names and labels to itself.

It imports grpc and the generated messages, and is imported itself once the socket is there.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from oomwatch.containers import claims
from oomwatch.containers.claims import Json, at, parse_json
from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.errors import RuntimeUnreachable
from oomwatch.events import Container
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation, RuntimeOom
from oomwatch.sources.runtimes.grpc_api import GrpcApi
from oomwatch.sources.runtimes.v1 import containerd_pb2 as pb

_SERVICES = "/containerd.services"
_SUBSCRIBE = f"{_SERVICES}.events.v1.Events/Subscribe"
_NAMESPACES = f"{_SERVICES}.namespaces.v1.Namespaces/List"
_CONTAINERS = f"{_SERVICES}.containers.v1.Containers/ListStream"
_CONTAINER = f"{_SERVICES}.containers.v1.Containers/Get"
_TASKS = f"{_SERVICES}.tasks.v1.Tasks/List"

_TOPICS = ("/containers/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete")
_MOST_NAMESPACES = 64
_CONTAINERS_REMEMBERED = 16384
_SPEC_BYTES = 1 << 20
_SHIM = re.compile(r"io\.containerd\.([a-z0-9_-]+)\.v\d+")
_DOCKER = "moby"
_NERDCTL_NAME = "nerdctl/name"

_Key = tuple[str, str, int]
"""A life: a namespace, a container's id, which is unique in it alone, and the pid of its init."""

_Message = TypeVar("_Message", bound=Message)


class ContainerdFollower:
    """What is known of one containerd, over all connections to it."""

    def __init__(
        self, name: str, places: Places, tell: Callable[[Sequence[Observation]], None]
    ) -> None:
        self._name = name
        self._places = places
        self._tell = tell
        # Of the lives that have not ended: the inode of each one's cgroup, where it was found.
        self._running: OrderedDict[_Key, int | None] = OrderedDict()
        # The same from before a restart, of whichever namespace.
        self._recalled: dict[tuple[str, int], int | None] = {}

    def recall(self, lives: Sequence[Life]) -> None:
        """Look for the ends of these lives at the first connection."""
        self._recalled = {(o.container_id, o.pid): o.cgroup_id for o in lives if o.pid is not None}

    async def follow(self, socket: Path, connected: Callable[[], None]) -> None:
        """Follow until the connection is lost, which is a `RuntimeUnreachable`."""
        async with GrpcApi(socket) as api:
            filters = [f'topic=="{topic}"' for topic in _TOPICS]
            events = api.follow(_SUBSCRIBE, pb.SubscribeRequest(filters=filters), pb.Envelope)
            answer = await api.call(
                _NAMESPACES, pb.ListNamespacesRequest(), pb.ListNamespacesResponse
            )
            connected()
            await self._take_lists(api, [one.name for one in answer.namespaces] if answer else [])
            async for envelope in events:
                await self._take(api, envelope)
        raise RuntimeUnreachable("it closed the connection")

    async def _take_lists(self, api: GrpcApi, namespaces: list[str]) -> None:
        for namespace in namespaces[:_MOST_NAMESPACES]:
            if claims.plausible_id(namespace) is None:
                continue
            answer = await api.call(_TASKS, pb.ListTasksRequest(), pb.ListTasksResponse, namespace)
            pids: dict[str, int] = {}
            for task in answer.tasks if answer is not None else ():
                if (task.id, task.pid) in self._recalled:
                    recalled = self._recalled.pop((task.id, task.pid))
                    self._remember((namespace, task.id, task.pid), recalled)
                if task.status != pb.STATUS_STOPPED:
                    pids[task.id] = task.pid
                elif (namespace, task.id, task.pid) in self._running:
                    key = (namespace, task.id, task.pid)
                    self._end(key, task.exit_status, task.exited_at)
            listed = api.list(
                _CONTAINERS, pb.ListContainersRequest(), pb.ListContainerMessage, namespace
            )
            async for message in listed:
                pid = pids.get(message.container.id, 0)
                self._describe(namespace, message.container, pid, listed=True)

    async def _take(self, api: GrpcApi, envelope: pb.Envelope) -> None:
        namespace = claims.plausible_id(envelope.namespace)
        if namespace is None:
            return
        match envelope.topic:
            case "/containers/create":
                created = _read(envelope.event, pb.ContainerCreate)
                if created is not None:
                    # It has not begun: that is told by its task.
                    await self._look_up(api, (namespace, created.id, 0))
            case "/tasks/start":
                started = _read(envelope.event, pb.TaskStart)
                if started is not None:
                    await self._look_up(api, (namespace, started.container_id, started.pid))
            case "/tasks/oom":
                oom = _read(envelope.event, pb.TaskOom)
                if oom is not None and claims.plausible_id(oom.container_id):
                    self._witness(oom.container_id, envelope.timestamp)
            case "/tasks/exit":
                exited = _read(envelope.event, pb.TaskExit)
                if exited is not None and exited.id == exited.container_id:
                    key = (namespace, exited.container_id, exited.pid)
                    self._end(key, exited.exit_status, exited.exited_at)
            case "/tasks/delete":
                # An exit that was not told: its own event was lost.
                deleted = _read(envelope.event, pb.TaskDelete)
                if deleted is not None and deleted.id in ("", deleted.container_id):
                    key = (namespace, deleted.container_id, deleted.pid)
                    if key in self._running:
                        self._end(key, deleted.exit_status, deleted.exited_at)

    async def _look_up(self, api: GrpcApi, key: _Key) -> None:
        namespace, container_id, pid = key
        if claims.plausible_id(container_id) is None:
            return
        if pid:
            self._remember(key, None)
        answer = await api.describe(
            container_id,
            _CONTAINER,
            pb.GetContainerRequest(id=container_id),
            pb.GetContainerResponse,
            namespace,
        )
        if answer is not None and answer.container.id == container_id:
            self._describe(namespace, answer.container, pid)

    def _describe(
        self, namespace: str, told: pb.Container, pid: int, *, listed: bool = False
    ) -> None:
        """Tell who a container is; where it is, if it runs. It began with its task, not before."""
        container_id = claims.plausible_id(told.id)
        if container_id is None:
            return
        dockers = namespace == _DOCKER
        known = claims.labels(dict(told.labels)) or {}
        spec: Json = None
        if len(told.spec.value) <= _SPEC_BYTES:
            spec = parse_json(told.spec.value)
        container = Container(
            id=container_id,
            name=claims.text(known.get(claims.CONTAINER_NAME) or known.get(_NERDCTL_NAME)),
            runtime="docker" if dockers else "containerd",
            handler=_handler(told.runtime),
            image=claims.text(told.image),
            labels=None if dockers else known,
            pod=claims.pod_of(known),
        )
        place = self._places.locate(container_id, claims.count(pid))
        if place.cgroup is None:
            claimed = self._places.claimed(at(spec, "linux", "cgroupsPath"))
            place = replace(place, cgroup=claimed.cgroup)
        if pid:
            self._remember((namespace, container_id, pid), place.cgroup_id)
        self._tell(
            [
                ContainerSeen(
                    source=self._name,
                    time=_now(),
                    container=container,
                    cgroup=place.cgroup,
                    cgroup_id=place.cgroup_id,
                    pid=place.pid,
                    memory_limit_bytes=claims.count(
                        at(spec, "linux", "resources", "memory", "limit")
                    ),
                    listed=listed,
                    created=not (listed or pid),
                )
            ]
        )

    def _remember(self, key: _Key, cgroup_id: int | None) -> None:
        self._running[key] = cgroup_id
        if len(self._running) > _CONTAINERS_REMEMBERED:
            self._running.popitem(last=False)

    def _witness(self, container_id: str, stamp: Timestamp) -> None:
        now = _now()
        self._tell(
            [
                RuntimeOom(
                    source=self._name,
                    time=_microseconds(stamp) or now,
                    seen_time=now,
                    container_id=container_id,
                    detail="containerd reports /tasks/oom",
                )
            ]
        )

    def _end(self, key: _Key, status: int, stamp: Timestamp) -> None:
        cgroup_id = self._running.pop(key, None)
        if claims.plausible_id(key[1]) is None:
            return
        self._tell(
            [
                ContainerEnded(
                    source=self._name,
                    time=_now(),
                    container_id=key[1],
                    cgroup_id=cgroup_id,
                    pid=claims.count(key[2]),
                    exit_code=status if 0 <= status <= 255 else None,
                    exit_time=_microseconds(stamp),
                )
            ]
        )


def _read(event: Any, kind: type[_Message]) -> _Message | None:
    try:
        return kind.FromString(event.value)
    except DecodeError:
        return None


def _handler(runtime: pb.Runtime) -> str | None:
    """The OCI runtime: the shim's name tells it, but for runc's, which runs what it is told to."""
    match = _SHIM.fullmatch(runtime.name)
    if match is None:
        return None
    if match[1] == "runc":
        options = _read(runtime.options, pb.RuncOptions)
        if options is not None and options.binary_name:
            return claims.text(PurePosixPath(options.binary_name).name)
    return match[1]


def _microseconds(stamp: Timestamp) -> int | None:
    """Microseconds since the epoch; `None` for no time, and for one that can be none."""
    if not 0 < stamp.seconds < 2**33 or not 0 <= stamp.nanos < 10**9:
        return None
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


def _now() -> int:
    return time.time_ns() // 1000
