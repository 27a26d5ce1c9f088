"""The containerd witness against a gRPC server that speaks as much of its API as is asked of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Place, Places
from oomwatch.events import Container, Pod
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation, RuntimeOom
from oomwatch.sources.runtimes import grpc_api
from oomwatch.sources.runtimes import source as runtime_source
from oomwatch.sources.runtimes.grpc_runtimes import Containerd
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.v1 import containerd_pb2 as pb

WEB = "ee129607aff3d1cf1f1f4fdcbb5c38b4fb3a3b0f2bb6b6d3c56a07d9c1b0f0aa"
OTHER = "0ba8ac17e4e7a31fb82279503552fe94e64bab4745bf6fd2ff231e7c8ca8bed0"
POD = {
    "io.kubernetes.pod.name": "api-0",
    "io.kubernetes.pod.namespace": "prod",
    "io.kubernetes.pod.uid": "u1",
    "io.kubernetes.container.name": "api",
}
SPEC = {"linux": {"resources": {"memory": {"limit": 32 << 20}}, "cgroupsPath": "/x"}}
PID = 2**22 + 1
"""Nobody's."""
Kind = TypeVar("Kind", bound=Observation)
Context = grpc.aio.ServicerContext[Any, Any]


def container(container_id: str, labels: dict[str, str] | None = None) -> pb.Container:
    return pb.Container(
        id=container_id,
        labels=labels or {},
        image="docker.io/library/shop:1",
        runtime=pb.Runtime(name="io.containerd.runc.v2"),
        spec=AnyMessage(value=json.dumps(SPEC).encode()),
    )


NO_UTF8 = b"\x0a\x05\x0a\x03\xff\xfe\xfd"
"""A container whose id is no UTF-8."""


class FakeContainerd:
    """The runtime's state, and its misbehaviour."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, pb.Container]] = {"default": {}}
        self.tasks: dict[str, list[pb.Process]] = {}
        # Answers by the call's last word, as bytes; and the calls that never answer.
        self.raw: dict[str, bytes] = {}
        # The containers of which a message is made that cannot be read.
        self.unreadable: set[str] = set()
        self.hangs: set[str] = set()
        self.go_on = asyncio.Event()
        self.calls: list[str] = []
        self.filters: list[str] = []
        self._queues: set[asyncio.Queue[bytes]] = set()

    @property
    def following(self) -> bool:
        return bool(self._queues)

    def run(self, namespace: str, told: pb.Container) -> None:
        self.containers.setdefault(namespace, {})[told.id] = told
        self.tasks.setdefault(namespace, []).append(
            pb.Process(id=told.id, pid=PID, status=pb.STATUS_RUNNING)
        )

    def event(self, namespace: str, topic: str, event: Message) -> None:
        stamp = Timestamp()
        stamp.GetCurrentTime()
        self.send(
            pb.Envelope(
                timestamp=stamp,
                namespace=namespace,
                topic=topic,
                event=AnyMessage(value=event.SerializeToString()),
            ).SerializeToString()
        )

    def send(self, message: bytes) -> None:
        for queue in self._queues:
            queue.put_nowait(message)

    async def _gate(self, name: str) -> bytes | None:
        self.calls.append(name)
        if name in self.hangs:
            await self.go_on.wait()
        return self.raw.get(name)

    async def namespaces(self, _: bytes, context: Context) -> bytes:
        answer = await self._gate("namespaces")
        names = [pb.Namespace(name=name) for name in self.containers]
        return answer or pb.ListNamespacesResponse(namespaces=names).SerializeToString()

    async def list_tasks(self, _: bytes, context: Context) -> bytes:
        answer = await self._gate("tasks")
        tasks = self.tasks.get(namespace_of(context), [])
        return answer or pb.ListTasksResponse(tasks=tasks).SerializeToString()

    async def list_containers(self, _: bytes, context: Context) -> AsyncIterator[bytes]:
        answer = await self._gate("list")
        for one in self.containers[namespace_of(context)].values():
            if one.id in self.unreadable:
                yield NO_UTF8
                continue
            yield answer or pb.ListContainerMessage(container=one).SerializeToString()

    async def get(self, request: bytes, context: Context) -> bytes:
        answer = await self._gate("get")
        container_id = pb.GetContainerRequest.FromString(request).id
        found = self.containers.get(namespace_of(context), {}).get(container_id)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such container")
        return answer or pb.GetContainerResponse(container=found).SerializeToString()

    async def subscribe(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        self.filters = list(pb.SubscribeRequest.FromString(request).filters)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
            "events": {"Subscribe": stream(self.subscribe)},
            "namespaces": {"List": unary(self.namespaces)},
            "containers": {"ListStream": stream(self.list_containers), "Get": unary(self.get)},
            "tasks": {"List": unary(self.list_tasks)},
        }
        return [
            grpc.method_handlers_generic_handler(
                f"containerd.services.{name}.v1.{name.capitalize()}", handlers
            )
            for name, handlers in methods.items()
        ]


def namespace_of(context: Context) -> str:
    metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
    return metadata["containerd-namespace"]


@asynccontextmanager
async def listening(fake: FakeContainerd, socket: Path) -> AsyncIterator[None]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(fake.handlers())
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        remove(socket)


def remove(socket: Path) -> None:
    socket.unlink(missing_ok=True)


class Following:
    def __init__(self, fake: FakeContainerd, source: Containerd) -> None:
        self.fake, self.source = fake, source
        self.observations: list[Observation] = []

    def emit(self, observations: Sequence[Observation]) -> None:
        self.observations += observations

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [seen for seen in self.observations if isinstance(seen, kind)]

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not seen():
                await asyncio.sleep(0.005)

    async def some(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)

    async def event(self, topic: str, event: Message, namespace: str = "default") -> None:
        await self.until(lambda: self.fake.following and self.source.active)
        self.fake.event(namespace, topic, event)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "containerd.sock"


class EachInItsOwn(Places):
    """Every pid lives in a cgroup of its own, whose inode is the pid."""

    def __init__(self) -> None:
        super().__init__(None)

    def locate(self, container_id: str, pid: int | None) -> Place:
        return Place() if pid is None else Place(pid, f"/default/{container_id}", pid)


@asynccontextmanager
async def started(
    fake: FakeContainerd, socket: Path, places: Places | None = None
) -> AsyncIterator[Following]:
    source = Containerd("containerd", socket, SocketDirectories(), places or Places(None))
    watch = Following(fake, source)
    await source.start(watch.emit)
    try:
        yield watch
    finally:
        await source.stop()


@asynccontextmanager
async def following(fake: FakeContainerd, socket: Path) -> AsyncIterator[Following]:
    socket.parent.mkdir(exist_ok=True)
    async with listening(fake, socket), started(fake, socket) as watch:
        yield watch


async def test_containers_of_every_namespace_are_described(socket: Path) -> None:
    fake = FakeContainerd()
    fake.run("default", container("redis", {"team": "a"}))
    fake.run("k8s.io", container(WEB, POD))
    async with following(fake, socket) as watch:
        redis, web = await watch.some(ContainerSeen, 2)
    assert redis.container == Container(
        id="redis",
        runtime="containerd",
        handler="runc",
        image="docker.io/library/shop:1",
        labels={"team": "a"},
    )
    assert redis.memory_limit_bytes == 32 << 20
    assert web.container.name == "api"
    assert web.container.pod == Pod(uid="u1", name="api-0", namespace="prod")
    assert 'topic=="/tasks/oom"' in fake.filters
    # There is no such process: its pid is nobody's, and its place what its specification says.
    assert (redis.pid, redis.cgroup, redis.cgroup_id) == (None, "/x", None)


@pytest.mark.parametrize(
    ("path", "cgroup"),
    [
        ("/default/redis", "/default/redis"),
        (f"/docker/{WEB}", None),
        (f"/docker/{OTHER}", None),
        ("system.slice:docker:x", None),
        ("/default/../docker", None),
        ("/", None),
        (7, None),
    ],
)
async def test_a_place_is_claimed_only_where_its_path_shows_nobody(
    socket: Path, path: object, cgroup: str | None
) -> None:
    fake = FakeContainerd()
    told = container(WEB)
    told.spec.value = json.dumps({"linux": {"cgroupsPath": path}}).encode()
    fake.run("default", told)
    async with following(fake, socket) as watch:
        (seen,) = await watch.some(ContainerSeen)
    assert seen.cgroup == cgroup


async def test_dockers_containers_are_dockers(socket: Path) -> None:
    fake = FakeContainerd()
    fake.run("moby", container(WEB, {"com.docker/engine.bundle.path": "/x"}))
    async with following(fake, socket) as watch:
        (web,) = await watch.some(ContainerSeen)
    assert (web.container.runtime, web.container.labels) == ("docker", None)


@pytest.mark.parametrize(
    ("name", "binary", "handler"),
    [
        ("io.containerd.runc.v2", "", "runc"),
        ("io.containerd.runc.v2", "/usr/bin/crun", "crun"),
        ("io.containerd.runsc.v1", "", "runsc"),
        ("/opt/my-shim", "", None),
    ],
)
async def test_the_oci_runtime_is_told(
    socket: Path, name: str, binary: str, handler: str | None
) -> None:
    fake = FakeContainerd()
    told = container(WEB)
    told.runtime.name = name
    told.runtime.options.value = pb.RuncOptions(binary_name=binary).SerializeToString()
    fake.run("default", told)
    async with following(fake, socket) as watch:
        (web,) = await watch.some(ContainerSeen)
    assert web.container.handler == handler


async def test_a_life_is_told_from_its_making_to_its_end(socket: Path) -> None:
    fake = FakeContainerd()
    exited = Timestamp(seconds=1795385309, nanos=805177056)
    async with following(fake, socket) as watch:
        await watch.until(lambda: "list" in fake.calls)
        fake.containers["default"]["job"] = container("job")
        await watch.event("/containers/create", pb.ContainerCreate(id="job"))
        await watch.event("/tasks/start", pb.TaskStart(container_id="job", pid=2**22 + 1))
        await watch.event("/tasks/oom", pb.TaskOom(container_id="job"))
        await watch.event(
            "/tasks/exit", pb.TaskExit(container_id="job", id="exec-1", exit_status=1)
        )
        await watch.event(
            "/tasks/exit",
            pb.TaskExit(container_id="job", id="job", exit_status=137, exited_at=exited),
        )
        await watch.event("/tasks/delete", pb.TaskDelete(container_id="job", exit_status=137))
        await watch.event("/tasks/oom", pb.TaskOom(container_id="last"))
        await watch.some(RuntimeOom, 2)
    assert [(one.created, one.listed) for one in watch.all(ContainerSeen)] == [
        (True, False),
        (False, False),
    ]
    oom = watch.all(RuntimeOom)[0]
    assert abs(oom.time - time.time_ns() // 1000) < 60_000_000
    (ended,) = watch.all(ContainerEnded)
    assert (ended.exit_code, ended.exit_time) == (137, 1795385309805177)
    assert (ended.stop_requested, ended.oom_killed) == (None, None)


async def test_a_container_that_cannot_be_read_costs_no_other_its_name(socket: Path) -> None:
    fake = FakeContainerd()
    for one in ("odd", "job"):
        fake.run("default", container(one))
    fake.unreadable = {"odd"}
    async with following(fake, socket) as watch:
        (seen,) = await watch.some(ContainerSeen)
        await watch.event("/tasks/oom", pb.TaskOom(container_id="odd"))
        await watch.some(RuntimeOom)
        assert watch.source.state().figures["connections"] == 1
    assert seen.container.id == "job"


@pytest.mark.parametrize("answers", ["another", "nothing", "no message"])
async def test_an_answer_about_another_container_is_none_and_costs_no_other(
    socket: Path, answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_api, "ANSWER_SECONDS", 0.5)
    fake = FakeContainerd()
    async with following(fake, socket) as watch:
        await watch.until(lambda: "list" in fake.calls)
        fake.containers["default"].update({one: container(one) for one in ("job", "next")})
        if answers == "another":
            another = pb.GetContainerResponse(container=container("bank"))
            fake.raw = {"get": another.SerializeToString()}
        elif answers == "no message":
            fake.raw = {"get": NO_UTF8}
        else:
            fake.hangs = {"get"}
        await watch.event("/containers/create", pb.ContainerCreate(id="job"))
        await watch.event("/tasks/oom", pb.TaskOom(container_id="job"))
        await watch.some(RuntimeOom)
        fake.raw, fake.hangs = {}, set()
        await watch.event("/containers/create", pb.ContainerCreate(id="next"))
        (seen,) = await watch.some(ContainerSeen)
        assert watch.source.state().figures["connections"] == 1
    assert seen.container.id == "next"


async def test_an_exit_that_was_not_told_is_in_the_deletion(socket: Path) -> None:
    fake = FakeContainerd()
    fake.run("default", container("job"))
    async with following(fake, socket) as watch:
        await watch.some(ContainerSeen)
        await watch.event(
            "/tasks/delete", pb.TaskDelete(container_id="job", pid=PID, exit_status=3)
        )
        (ended,) = await watch.some(ContainerEnded)
    assert ended.exit_code == 3


async def test_what_ended_while_it_was_away_is_found(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    fake = FakeContainerd()
    fake.run("default", container("job"))
    async with started(fake, socket) as watch:
        await watch.until(lambda: "there is no" in watch.source.state().detail)
        socket.parent.mkdir()
        async with listening(fake, socket):
            await watch.some(ContainerSeen)
        await watch.until(lambda: not watch.source.active)
        fake.tasks["default"][0].status = pb.STATUS_STOPPED
        fake.tasks["default"][0].exit_status = 137
        async with listening(fake, socket):
            (ended,) = await watch.some(ContainerEnded)
    assert (ended.container_id, ended.exit_code) == ("job", 137)
    assert watch.source.state().figures["connections"] == 2


async def test_what_ended_while_we_were_down_is_asked_for(socket: Path) -> None:
    fake = FakeContainerd()
    for name in ("job", "anew"):
        fake.run("default", container(name))
    job, anew = fake.tasks["default"]
    job.status, job.exit_status = pb.STATUS_STOPPED, 137
    anew.status, anew.exit_status, anew.pid = pb.STATUS_STOPPED, 0, PID + 2
    socket.parent.mkdir()
    source = Containerd("containerd", socket, SocketDirectories(), Places(None))
    source.recall([Life("job", 7, 1, pid=PID), Life("anew", 8, 1, pid=PID + 1)], None)
    watch = Following(fake, source)
    async with listening(fake, socket):
        await source.start(watch.emit)
        await watch.some(ContainerSeen, 2)
        await source.stop()
    (ended,) = watch.all(ContainerEnded)
    assert (ended.container_id, ended.cgroup_id, ended.exit_code) == ("job", 7, 137)


@pytest.mark.parametrize("known", [True, False])
async def test_an_exit_that_is_read_once_the_next_life_runs_is_not_of_that(
    socket: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    fake = FakeContainerd()
    fake.run("default", container("job"))
    socket.parent.mkdir()
    async with started(fake, socket, EachInItsOwn()) as watch:
        if known:
            async with listening(fake, socket):
                await watch.some(ContainerSeen)
            await watch.until(lambda: not watch.source.active)
        # It ends and is started anew between the subscription and the list.
        fake.tasks["default"][0].pid = PID + 1
        fake.hangs = {"tasks"}
        async with listening(fake, socket):
            await watch.until(lambda: fake.following)
            for pid, status in ((PID, 137), (PID + 1, 0)):
                exited = pb.TaskExit(container_id="job", id="job", pid=pid, exit_status=status)
                fake.event("default", "/tasks/exit", exited)
            fake.go_on.set()
            first, second = await watch.some(ContainerEnded, 2)
    assert (first.cgroup_id, first.pid, first.exit_code) == (PID if known else None, PID, 137)
    assert (second.cgroup_id, second.pid, second.exit_code) == (PID + 1, PID + 1, 0)


@pytest.mark.parametrize("call", ["namespaces", "tasks", "list"])
async def test_one_that_never_answers_costs_only_names(
    socket: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_api, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    fake = FakeContainerd()
    fake.run("default", container("job"))
    fake.hangs = {call}
    async with following(fake, socket) as watch:
        await watch.until(lambda: "DEADLINE_EXCEEDED" in watch.source.state().detail)
        fake.hangs = set()
        await watch.some(ContainerSeen)


@pytest.mark.parametrize(
    ("call", "lie"),
    [
        ("namespaces", b"\xff\xff\xff"),
        ("tasks", b"\x0a\x05abc"),
        ("list", b"\x00" * (grpc_api.LARGEST_BYTES + 1)),
    ],
    ids=["no message", "cut off", "too large"],
)
async def test_one_that_lies_is_left_and_tried_again(
    socket: Path, call: str, lie: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    fake = FakeContainerd()
    fake.run("default", container("job"))
    fake.raw = {call: lie}
    async with following(fake, socket) as watch:
        await watch.until(lambda: "does not answer" in watch.source.state().detail)
        fake.raw = {}
        await watch.some(ContainerSeen)


async def test_what_makes_no_sense_is_passed_over(socket: Path) -> None:
    fake = FakeContainerd()
    odd = container("../../etc")
    big = container("big", {f"label-{index}": "x" for index in range(1000)})
    big.spec.value = b"[" * 500_000
    big.image = "i" * 5000
    fake.containers["../x"] = {}
    fake.run("default", odd)
    fake.run("default", big)
    async with following(fake, socket) as watch:
        (seen,) = await watch.some(ContainerSeen)
        await watch.event("/tasks/oom", pb.TaskOom(container_id="../../etc"))
        await watch.event("/tasks/start", pb.TaskStart(container_id="no/id", pid=1))
        await watch.event("/tasks/exit", pb.TaskExit(container_id="", id=""))
        await watch.event("/tasks/oom", pb.TaskOom(container_id="a"), namespace="../x")
        fake.send(pb.Envelope(namespace="a", topic="/tasks/exit").SerializeToString())
        broken = AnyMessage(value=b"\xff\xff")
        for topic in ("/tasks/oom", "/tasks/exit", "/tasks/start", "/nonsense"):
            fake.send(pb.Envelope(namespace="a", topic=topic, event=broken).SerializeToString())
        await watch.event(
            "/tasks/exit",
            pb.TaskExit(
                container_id="big",
                id="big",
                exit_status=2**32 - 1,
                exited_at=Timestamp(seconds=-1),
            ),
        )
        (ended,) = await watch.some(ContainerEnded)
    assert seen.container.id == "big"
    assert seen.container.labels is not None
    assert len(seen.container.labels) == 256
    assert seen.container.image == "i" * 1024
    assert seen.memory_limit_bytes is None
    assert watch.all(RuntimeOom) == []
    assert (ended.exit_code, ended.exit_time) == (None, None)
