"""The CRI witness against a gRPC server that speaks as much of the interface as is asked of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.events import Container, Pod
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation
from oomwatch.sources.runtimes import cri_api, grpc_api
from oomwatch.sources.runtimes.grpc_runtimes import Cri
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.v1 import cri_pb2 as pb

API = "0ba8ac17e4e7a31fb82279503552fe94e64bab4745bf6fd2ff231e7c8ca8bed0"
SANDBOX = "ee129607aff3d1cf1f1f4fdcbb5c38b4fb3a3b0f2bb6b6d3c56a07d9c1b0f0aa"
Kind = TypeVar("Kind", bound=Observation)
Context = grpc.aio.ServicerContext[Any, Any]


class FakeCri:
    """The runtime's state."""

    def __init__(self, *, serves_events: bool = True) -> None:
        self.serves_events = serves_events
        self.statuses: dict[str, pb.ContainerStatus] = {}
        self.info = json.dumps({"pid": 2**22 + 1})
        self.lists = 0
        # The containers that cannot be described: why, None where that is never said.
        self.broken: dict[str, grpc.StatusCode | None] = {}
        # Of which container the status is that is given for another's.
        self.confuses: dict[str, str] = {}
        self._queues: set[asyncio.Queue[bytes]] = set()

    @property
    def following(self) -> bool:
        return bool(self._queues)

    def run(self, container_id: str) -> None:
        self.statuses[container_id] = pb.ContainerStatus(
            id=container_id,
            metadata=pb.ContainerMetadata(name="api"),
            state=pb.CONTAINER_STATE_RUNNING,
            image=pb.ImageSpec(image="sha256:abc", user_specified_image="shop:1"),
            labels={"app": "api"},
            resources=pb.ContainerResources(
                linux=pb.LinuxContainerResources(memory_limit_in_bytes=32 << 20)
            ),
        )

    def end(self, container_id: str) -> None:
        status = self.statuses[container_id]
        status.state = pb.CONTAINER_STATE_EXITED
        status.exit_code, status.reason = 137, "OOMKilled"
        status.finished_at = 1795385309805177056

    def event(self, container_id: str, kind: pb.ContainerEventType) -> None:
        event = pb.ContainerEventResponse(container_id=container_id, container_event_type=kind)
        for queue in self._queues:
            queue.put_nowait(event.SerializeToString())

    async def version(self, _: bytes, context: Context) -> bytes:
        return pb.VersionResponse(runtime_name="cri-o").SerializeToString()

    async def pods(self, _: bytes, context: Context) -> bytes:
        metadata = pb.PodSandboxMetadata(name="api-0", uid="u1", namespace="prod")
        pod = pb.PodSandbox(id=SANDBOX, metadata=metadata, runtime_handler="runsc")
        return pb.ListPodSandboxResponse(items=[pod]).SerializeToString()

    async def containers(self, _: bytes, context: Context) -> bytes:
        self.lists += 1
        listed = [
            pb.Container(
                id=one.id,
                pod_sandbox_id=SANDBOX,
                metadata=one.metadata,
                image=pb.ImageSpec(image="shop:1"),
                state=one.state,
            )
            for one in self.statuses.values()
        ]
        return pb.ListContainersResponse(containers=listed).SerializeToString()

    async def status(self, request: bytes, context: Context) -> bytes:
        asked = pb.ContainerStatusRequest.FromString(request)
        assert asked.verbose
        if asked.container_id in self.broken:
            code = self.broken[asked.container_id]
            if code is None:
                await asyncio.Event().wait()
            assert code is not None
            await context.abort(code, "cannot describe it")
        found = self.statuses.get(asked.container_id)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such container")
        found = self.statuses[self.confuses.get(asked.container_id, asked.container_id)]
        answer = pb.ContainerStatusResponse(status=found, info={"info": self.info})
        return answer.SerializeToString()

    async def events(self, _: bytes, context: Context) -> AsyncIterator[bytes]:
        if not self.serves_events:
            await context.abort(grpc.StatusCode.UNKNOWN, "pod events are not enabled")
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


@asynccontextmanager
async def listening(fake: FakeCri, socket: Path) -> AsyncIterator[None]:
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Version": unary(fake.version),
        "ListPodSandbox": unary(fake.pods),
        "ListContainers": unary(fake.containers),
        "ContainerStatus": unary(fake.status),
        "GetContainerEvents": stream(fake.events),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", methods)]
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


class Following:
    def __init__(self, fake: FakeCri, source: Cri) -> None:
        self.fake, self.source = fake, source
        self.observations: list[Observation] = []

    def emit(self, observations: Sequence[Observation]) -> None:
        self.observations += observations

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not seen():
                await asyncio.sleep(0.005)

    async def some(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        def all_of() -> list[Kind]:
            return [seen for seen in self.observations if isinstance(seen, kind)]

        await self.until(lambda: len(all_of()) >= count)
        return all_of()


@asynccontextmanager
async def following(fake: FakeCri, directory: Path) -> AsyncIterator[Following]:
    socket = directory / "crio.sock"
    source = Cri("cri", socket, SocketDirectories(), Places(None))
    watch = Following(fake, source)
    async with listening(fake, socket):
        await source.start(watch.emit)
        try:
            yield watch
        finally:
            await source.stop()


async def test_a_container_is_told_with_its_pod(tmp_path: Path) -> None:
    fake = FakeCri()
    fake.run(API)
    async with following(fake, tmp_path) as watch:
        (seen,) = await watch.some(ContainerSeen)
    assert seen.container == Container(
        id=API,
        name="api",
        runtime="cri-o",
        handler="runsc",
        image="shop:1",
        labels={"app": "api"},
        pod=Pod(uid="u1", name="api-0", namespace="prod"),
    )
    assert seen.memory_limit_bytes == 32 << 20


@pytest.mark.parametrize("serves_events", [True, False], ids=["events", "lists"])
async def test_what_starts_and_ends_is_told(
    tmp_path: Path, serves_events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cri_api, "LIST_SECONDS", 60.0 if serves_events else 0.02)
    fake = FakeCri(serves_events=serves_events)
    async with following(fake, tmp_path) as watch:
        await watch.until(lambda: fake.following or not serves_events)
        await watch.until(lambda: watch.source.active)
        fake.run(API)
        fake.event(API, pb.CONTAINER_EVENT_TYPE_STARTED)
        await watch.some(ContainerSeen)
        fake.end(API)
        fake.event(API, pb.CONTAINER_EVENT_TYPE_STOPPED)
        (ended,) = await watch.some(ContainerEnded)
        # The next list holds what has ended as well.
        before = fake.lists
        fake.event(API, pb.CONTAINER_EVENT_TYPE_STARTED)
        await watch.until(lambda: fake.lists > before + (not serves_events))
        figures = watch.source.state().figures
        assert (figures["seen"], figures["ended"]) == (1, 1)
    assert (ended.container_id, ended.exit_code, ended.oom_killed) == (API, 137, True)
    assert ended.exit_time == 1795385309805177
    assert ended.stop_requested is None


async def test_what_a_runtime_has_no_event_of_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may drop them, where somebody is slow to read; other events may come meanwhile."""
    monkeypatch.setattr(cri_api, "LIST_BESIDE_EVENTS_SECONDS", 0.05, raising=False)
    fake = FakeCri()
    async with following(fake, tmp_path) as watch:
        await watch.until(lambda: fake.following and watch.source.active)
        fake.run(API)
        await watch.some(ContainerSeen)
        fake.end(API)
        fake.event("other", pb.CONTAINER_EVENT_TYPE_STOPPED)
        (ended,) = await watch.some(ContainerEnded)
        fake.run("next")
        fake.event("next", pb.CONTAINER_EVENT_TYPE_STARTED)
        _, following_one = await watch.some(ContainerSeen, 2)
        assert watch.source.state().figures["connections"] == 1
    assert (ended.container_id, following_one.container.id) == (API, "next")


async def test_one_that_came_and_went_between_two_lists_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cri_api, "LIST_SECONDS", 0.02)
    fake = FakeCri(serves_events=False)
    fake.run("before")
    fake.end("before")
    async with following(fake, tmp_path) as watch:
        await watch.until(lambda: watch.source.active)
        fake.run(API)
        fake.end(API)
        (seen,) = await watch.some(ContainerSeen)
        (ended,) = await watch.some(ContainerEnded)
        before = fake.lists
        await watch.until(lambda: fake.lists > before + 2)
        figures = watch.source.state().figures
        assert (figures["seen"], figures["ended"]) == (1, 1)
    assert (seen.container.name, ended.exit_code, ended.oom_killed) == ("api", 137, True)
    assert seen.container.pod == Pod(uid="u1", name="api-0", namespace="prod")


async def test_what_ended_while_we_were_down_is_asked_for(tmp_path: Path) -> None:
    fake = FakeCri()
    for container_id in (API, "runs", "told"):
        fake.run(container_id)
    fake.end(API)
    fake.end("told")
    source = Cri("cri", tmp_path / "crio.sock", SocketDirectories(), Places(None))
    source.recall([Life(API, 7, 1), Life("runs", 8, 1), Life("removed", 9, 1)], None)
    watch = Following(fake, source)
    async with listening(fake, tmp_path / "crio.sock"):
        await source.start(watch.emit)
        (ended,) = await watch.some(ContainerEnded)
        (seen,) = await watch.some(ContainerSeen)
        await watch.until(lambda: fake.following)
        fake.end("runs")
        fake.event("runs", pb.CONTAINER_EVENT_TYPE_STOPPED)
        assert len(await watch.some(ContainerEnded, 2)) == 2
        await source.stop()
    assert (ended.container_id, ended.cgroup_id, ended.oom_killed) == (API, 7, True)
    assert seen.container.id == "runs"


async def test_a_container_that_was_removed_at_once_has_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cri_api, "LIST_SECONDS", 0.02)
    fake = FakeCri(serves_events=False)
    fake.run(API)
    async with following(fake, tmp_path) as watch:
        await watch.some(ContainerSeen)
        del fake.statuses[API]
        before = fake.lists
        await watch.until(lambda: fake.lists > before + 2)
        assert watch.source.active
        assert watch.source.state().figures["ended"] == 0


@pytest.mark.parametrize(
    "why",
    [grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND, None],
)
async def test_a_container_that_cannot_be_described_costs_no_other_its_name(
    tmp_path: Path, why: grpc.StatusCode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_api, "ANSWER_SECONDS", 0.5)
    fake = FakeCri()
    fake.run(SANDBOX)
    fake.run(API)
    fake.broken = {SANDBOX: why}
    async with following(fake, tmp_path) as watch:
        broken, whole = await watch.some(ContainerSeen, 2)
        assert watch.source.state().figures["connections"] == 1
    assert (broken.container.id, broken.container.name) == (SANDBOX, "api")
    assert (broken.container.image, broken.memory_limit_bytes) == ("shop:1", None)
    assert broken.container.pod == Pod(uid="u1", name="api-0", namespace="prod")
    assert (whole.container.id, whole.memory_limit_bytes) == (API, 32 << 20)


async def test_a_status_of_another_container_is_none(tmp_path: Path) -> None:
    fake = FakeCri()
    fake.run(SANDBOX)
    fake.run(API)
    fake.statuses[API].resources.linux.memory_limit_in_bytes = 1 << 20
    fake.confuses = {SANDBOX: API}
    async with following(fake, tmp_path) as watch:
        seen = await watch.some(ContainerSeen, 2)
        await watch.until(lambda: fake.following)
        fake.confuses = {API: SANDBOX}
        fake.end(SANDBOX)
        fake.event(API, pb.CONTAINER_EVENT_TYPE_STOPPED)
        fake.event(SANDBOX, pb.CONTAINER_EVENT_TYPE_STOPPED)
        (ended,) = await watch.some(ContainerEnded)
    limits = {one.container.id: one.memory_limit_bytes for one in seen}
    assert limits == {SANDBOX: None, API: 1 << 20}
    assert ended.container_id == SANDBOX


async def test_where_two_containers_in_turn_have_no_answer_it_is_the_runtime_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_api, "ANSWER_SECONDS", 0.3)
    fake = FakeCri()
    fake.run(SANDBOX)
    fake.run(API)
    fake.broken = {SANDBOX: None, API: None}
    async with following(fake, tmp_path) as watch:
        await watch.until(lambda: "DEADLINE_EXCEEDED" in watch.source.state().detail)


async def test_what_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    fake = FakeCri()
    fake.run(API)
    fake.run("../../etc")
    fake.statuses[API].resources.linux.memory_limit_in_bytes = -1
    fake.info = "[" * 100_000
    async with following(fake, tmp_path) as watch:
        await watch.until(lambda: fake.following)
        (seen,) = await watch.some(ContainerSeen)
        fake.event("nobody", pb.CONTAINER_EVENT_TYPE_STOPPED)
        fake.end(API)
        fake.statuses[API].exit_code = -1
        fake.statuses[API].finished_at = -5
        fake.event(API, pb.CONTAINER_EVENT_TYPE_STOPPED)
        (ended,) = await watch.some(ContainerEnded)
        assert watch.source.state().figures["seen"] == 1
    assert (seen.container.id, seen.memory_limit_bytes, seen.pid) == (API, None, None)
    assert (ended.exit_code, ended.exit_time) == (None, None)
