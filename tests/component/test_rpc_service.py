"""Every call over a real Unix socket, with a real journal behind it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status  # type: ignore[import-untyped]

from oomwatch.client import AsyncClient
from oomwatch.errors import AddressError, RequestRefused
from oomwatch.events import (
    Confidence,
    Container,
    Entry,
    Event,
    Evidence,
    MemoryUsage,
    OomKill,
    Pod,
    Scope,
    SourceState,
)
from oomwatch.journal import Journal, Retention
from oomwatch.ledger import LedgerChange
from oomwatch.rpc import health as health_module
from oomwatch.rpc import streams, translator
from oomwatch.rpc.server import Limits, RpcServer
from oomwatch.rpc.translator import entry_from_message
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.rpc.v1 import oomwatch_pb2_grpc
from oomwatch.status import CgroupReport, NodeStatus, Witness
from oomwatch.subscriptions import Subscriptions
from tests.component.backends import NoContainers

Stub = oomwatch_pb2_grpc.OomWatchServiceStub

# Events older than what the journal keeps would be deleted under the test.
NOW = time.time_ns() // 1000


def kill(number: int, **changes: Any) -> OomKill:
    event = OomKill(
        episode_id=f"episode-{number}",
        detect_time=NOW + number,
        scope=Scope.CONTAINER_LIMIT,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        victim_cgroup=f"/docker/{number:04}",
        victim_cgroup_id=1000 + number,
        container=Container(
            id=f"{number:04}abcdef",
            name=f"web-{number}",
            runtime="docker",
            labels={"app": "even" if number % 2 == 0 else "odd"},
            pod=Pod(name=f"pod-{number}", namespace="default"),
        ),
        memory=MemoryUsage(limit_bytes=1 << 25),
        evidence=(Evidence(source="memory_events", time=number, detail="oom_kill 0 -> 1"),),
    )
    return replace(event, **changes)


@dataclass
class Node(NoContainers):
    """A journal with its subscriptions, and what else a server asks for."""

    journal: Journal
    subscriptions: Subscriptions
    cgroups: list[CgroupReport] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        state_dir: Path | None = None,
        retention: Retention | None = None,
        ring_entries: int = 4096,
    ) -> Node:
        journal = Journal.open(state_dir, retention=retention)
        node = cls(journal, Subscriptions(journal, ring_entries=ring_entries))
        hub = node.subscriptions
        journal.start("boot", hub.published, on_sync=hub.coming)
        return node

    async def tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self.journal.append((event,), LedgerChange())
        assert await self.journal.flush()

    async def close(self) -> None:
        self.subscriptions.close()
        await self.journal.close()

    async def status(self) -> NodeStatus:
        return NodeStatus(
            version="1",
            hostname="node-7",
            boot_id="boot",
            kernel_release="6.1",
            cgroup_root="/sys/fs/cgroup",
            start_time=5,
            healthy=True,
            cgroups=len(self.cgroups),
            kills_told=3,
            subscribers=self.subscriptions.count,
            sources=(SourceState(name="memory_events", active=True, figures={"watches": 2}),),
            journal=self.journal.status(),
        )

    async def list_cgroups(self, prefix: str, after_path: str, limit: int) -> list[CgroupReport]:
        found = [
            report
            for report in self.cgroups
            if report.path > after_path and (report.path + "/").startswith(prefix.rstrip("/") + "/")
        ]
        return found[:limit]

    async def get_cgroup(self, path: str) -> CgroupReport | None:
        return next((report for report in self.cgroups if report.path == path), None)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def channel(path: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]
    )


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node.open()
    yield node
    await node.close()


@pytest.fixture
async def stub(node: Node, tmp_path: Path) -> AsyncIterator[Stub]:
    path = tmp_path / "s"
    async with RpcServer(node, socket=path), channel(path) as connected:
        yield Stub(connected)


async def read(call: Any, events: int, caught_up: bool = False) -> list[Entry]:
    """Read until that many events came, and until the stream has caught up if that is asked."""
    entries: list[Entry] = []
    done = False
    async with asyncio.timeout(10):
        while len(entries) < events or (caught_up and not done):
            response = await call.read()
            assert bool(response.events) != response.HasField("bookmark")
            entries += map(entry_from_message, response.events)
            done = done or response.bookmark.caught_up
    return entries


def revisions(entries: Iterable[Entry]) -> list[int]:
    return [entry.revision for entry in entries]


DEEP = base64.urlsafe_b64encode(b"[" * 20_000).decode()
START = pb.StartPosition


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (START(), []),
        (START(latest=pb.LatestPosition()), []),
        (START(earliest=pb.EarliestPosition()), list(range(1, 201))),
        (START(after_revision=pb.AfterRevisionPosition(revision=197)), [198, 199, 200]),
        (START(last_events=2), [199, 200]),
        (START(last_events=0), []),
    ],
)
async def test_a_stream_begins_where_it_was_asked_to_and_goes_on_live(
    node: Node, stub: Stub, start: pb.StartPosition, expected: list[int]
) -> None:
    await node.tell(map(kill, range(1, 201)))
    call = stub.Subscribe(pb.SubscribeRequest(start=start))
    assert revisions(await read(call, len(expected), caught_up=True)) == expected
    await node.tell([kill(201)])
    (entry,) = await read(call, 1)
    assert entry == Entry(201, node.journal.id, kill(201))


async def test_since_means_the_time_of_detection_and_includes_it(node: Node, stub: Stub) -> None:
    await node.tell(map(kill, range(1, 6)))
    start = pb.StartPosition()
    start.since_time.FromMicroseconds(NOW + 4)
    call = stub.Subscribe(pb.SubscribeRequest(start=start))
    assert revisions(await read(call, 2, caught_up=True)) == [4, 5]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pb.EventFilter(container_ids=["0003", "0004abcd"]), [3, 4]),
        (pb.EventFilter(names=["web-2"]), [2]),
        (pb.EventFilter(label_selectors=["app=odd"]), [1, 3, 5]),
        (pb.EventFilter(pods=["pod-5"], namespaces=["default"]), [5]),
        (pb.EventFilter(runtimes=["podman"]), []),
        (pb.EventFilter(cgroups=["/docker/0001"]), [1]),
        (pb.EventFilter(kinds=[pb.KIND_EVIDENCE_GAP]), []),
        (pb.EventFilter(minimum_confidence=pb.CONFIDENCE_CONFIRMED), [1, 2, 3, 5]),
    ],
)
async def test_filters_select_in_streams_and_in_pages(
    node: Node, stub: Stub, wanted: pb.EventFilter, expected: list[int]
) -> None:
    events = [kill(number) for number in range(1, 6)]
    events[3] = replace(events[3], confidence=Confidence.LOW)
    await node.tell(events)
    start = pb.StartPosition(earliest=pb.EarliestPosition())
    call = stub.Subscribe(pb.SubscribeRequest(start=start, filter=wanted))
    assert revisions(await read(call, len(expected), caught_up=True)) == expected
    page = await stub.ListEvents(pb.ListEventsRequest(filter=wanted))
    assert [event.revision for event in page.events] == expected
    assert page.next_page_token == ""
    assert page.bookmark.revision == 5


async def test_what_a_stream_waits_for_is_encoded_once_and_before_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node.open(tmp_path / "state")
    encoded: list[tuple[int, int]] = []

    def frame(entry: Entry) -> bytes:
        encoded.append((entry.revision, node.journal.newest_revision))
        return translator.frame(entry)

    monkeypatch.setattr(streams, "frame", frame)
    async with RpcServer(node, socket=tmp_path / "s"), channel(tmp_path / "s") as connected:
        calls = [Stub(connected).Subscribe(pb.SubscribeRequest()) for _ in range(2)]
        for call in calls:
            await read(call, 0, caught_up=True)
        for number in (1, 2):
            async with asyncio.timeout(10):
                while sum(map(len, node.subscriptions._waiting.values())) < 2:
                    await asyncio.sleep(0.01)
            await node.tell([kill(number)])
            for call in calls:
                assert await read(call, 1) == [Entry(number, node.journal.id, kill(number))]
    assert encoded == [(1, 0), (2, 1)]
    await node.close()


async def test_bookmarks_come_at_creation_at_catch_up_and_then_regularly(
    node: Node, tmp_path: Path
) -> None:
    await node.tell(map(kill, range(1, 101)))
    async with (
        RpcServer(node, socket=tmp_path / "s", bookmark_seconds=0.1),
        channel(tmp_path / "s") as connected,
    ):
        call = Stub(connected).Subscribe(
            pb.SubscribeRequest(start=START(last_events=3), filter=pb.EventFilter(names=["none"]))
        )
        marks = [(await call.read()).bookmark for _ in range(3)]
        assert [(mark.revision, mark.caught_up) for mark in marks] == [
            (97, False),
            (100, True),
            (100, True),
        ]
        assert {mark.journal_id for mark in marks} == {node.journal.id}
        await node.tell([kill(101)])
        async with asyncio.timeout(10):
            while (await call.read()).bookmark.revision < 101:
                pass


def error_info(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    (detail,) = rpc_status.from_call(error).details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.domain == "oomwatch"
    return info.reason, dict(info.metadata)


async def test_a_compacted_cursor_says_what_is_left(tmp_path: Path) -> None:
    node = Node.open(retention=Retention(max_events=10), ring_entries=4)
    for number in range(1, 600):
        await node.tell([kill(number)])
    async with RpcServer(node, socket=tmp_path / "s"), channel(tmp_path / "s") as connected:
        start = START(after_revision=pb.AfterRevisionPosition(revision=1))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await Stub(connected).Subscribe(pb.SubscribeRequest(start=start)).read()
        with pytest.raises(grpc.aio.AioRpcError) as listed:
            await Stub(connected).ListEvents(pb.ListEventsRequest(start=start))
    oldest = node.journal.oldest_revision
    assert oldest > 5
    expected = {"requested_revision": "1", "oldest_revision": str(oldest)}
    assert error_info(raised.value) == ("HISTORY_COMPACTED", expected)
    assert error_info(listed.value) == ("HISTORY_COMPACTED", expected)
    await node.close()


async def test_a_cursor_of_another_journal_says_so(node: Node, stub: Stub) -> None:
    start = START(after_revision=pb.AfterRevisionPosition(revision=0, journal_id="other"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Subscribe(pb.SubscribeRequest(start=start)).read()
    reason, metadata = error_info(raised.value)
    assert reason == "JOURNAL_RESET"
    assert metadata["journal_id"] == node.journal.id
    assert metadata["requested_journal_id"] == "other"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetEvent(pb.GetEventRequest(revision=1, journal_id="other"))
    assert error_info(raised.value)[0] == "JOURNAL_RESET"


async def test_pages_put_together_are_the_history(node: Node, stub: Stub) -> None:
    await node.tell(map(kill, range(1, 251)))
    found: list[int] = []
    token = ""
    pages = 0
    while pages == 0 or token:
        page = await stub.ListEvents(pb.ListEventsRequest(page_size=100, page_token=token))
        found += [event.revision for event in page.events]
        token, pages = page.next_page_token, pages + 1
    assert found == list(range(1, 251))
    assert pages == 3


async def test_one_page_reads_a_bounded_part_of_the_journal(
    node: Node, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oomwatch.rpc.service.SCANNED_A_CALL", 500)
    await node.tell(map(kill, range(1, 1201)))
    nothing = pb.EventFilter(names=["none"])
    page = await stub.ListEvents(pb.ListEventsRequest(filter=nothing))
    assert (len(page.events), page.bookmark.revision) == (0, 500)
    page = await stub.ListEvents(
        pb.ListEventsRequest(filter=nothing, page_token=page.next_page_token)
    )
    assert page.bookmark.revision == 1000


async def test_one_event_by_its_revision(node: Node, stub: Stub) -> None:
    await node.tell([kill(1)])
    answer = await stub.GetEvent(pb.GetEventRequest(revision=1))
    assert entry_from_message(answer.event) == Entry(1, node.journal.id, kill(1))
    with pytest.raises(grpc.aio.AioRpcError, match="it keeps 1 to 1") as raised:
        await stub.GetEvent(pb.GetEventRequest(revision=2))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "request_", "sentence"),
    [
        ("ListEvents", pb.ListEventsRequest(page_size=1001), "from 0 to 1000"),
        ("ListEvents", pb.ListEventsRequest(page_size=-1), "from 0 to 1000"),
        ("ListEvents", pb.ListEventsRequest(page_token="x"), "leave it empty"),
        ("ListEvents", pb.ListEventsRequest(filter=pb.EventFilter(names=["x"] * 65)), ""),
        (
            "ListEvents",
            pb.ListEventsRequest(filter=pb.EventFilter(names=[f"{n}" for n in range(65)])),
            "at most 64",
        ),
        (
            "ListEvents",
            pb.ListEventsRequest(filter=pb.EventFilter(names=["x" * 513])),
            "at most 512",
        ),
        ("ListEvents", pb.ListEventsRequest(start=START(last_events=-1)), "0 or more"),
        ("GetEvent", pb.GetEventRequest(), "revisions begin at 1"),
        ("ListContainers", pb.ListContainersRequest(cgroup_prefix="docker"), "begins with '/'"),
        ("ListContainers", pb.ListContainersRequest(page_token="{"), "leave it empty"),
        ("GetContainer", pb.GetContainerRequest(), "say which one"),
        # What fuzzing found.
        (
            "ListEvents",
            pb.ListEventsRequest(start=START(since_time={"seconds": 2**63 - 1})),
            "9999",
        ),
        ("ListEvents", pb.ListEventsRequest(start=START(since_time={"nanos": -1})), "9999"),
        ("ListEvents", pb.ListEventsRequest(page_token=DEEP), "leave it empty"),
        ("ListContainers", pb.ListContainersRequest(page_token=DEEP), "leave it empty"),
        (
            "FinalizeContainer",
            pb.FinalizeContainerRequest(container_id="x", exit_time={"seconds": 2**62}),
            "9999",
        ),
    ],
)
async def test_a_request_past_a_bound_is_told_which(
    stub: Stub, method: str, request_: Any, sentence: str
) -> None:
    if not sentence:
        await getattr(stub, method)(request_)  # one term said 65 times is one term
        return
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(stub, method)(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in (raised.value.details() or "")


async def test_a_page_token_past_every_revision_is_none(node: Node, stub: Stub) -> None:
    token = base64.urlsafe_b64encode(json.dumps([node.journal.id, 2**63]).encode()).decode()
    with pytest.raises(grpc.aio.AioRpcError, match="leave it empty"):
        await stub.ListEvents(pb.ListEventsRequest(page_token=token))


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetContainer", pb.GetContainerRequest(cgroup="/\x1b[2J\n" + "x" * 5000)),
        ("ListContainers", pb.ListContainersRequest(cgroup_prefix="\u202e\n" + "x" * 5000)),
        ("GetEvent", pb.GetEventRequest(revision=1, journal_id="\x1b]0;" + "x" * 5000)),
    ],
)
async def test_what_is_quoted_in_a_refusal_is_escaped_and_cut(
    stub: Stub, method: str, request_: Any
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(stub, method)(request_)
    words = raised.value.details() or ""
    assert words
    assert words.isprintable()
    assert len(words) < 3000


async def test_an_unknown_kind_in_a_filter_is_refused(stub: Stub) -> None:
    wanted = pb.EventFilter()
    wanted.kinds.append(77)  # type: ignore[arg-type]
    with pytest.raises(grpc.aio.AioRpcError, match="kind 77 is not one") as raised:
        await stub.Subscribe(pb.SubscribeRequest(filter=wanted)).read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_request_are_refused(node: Node, tmp_path: Path) -> None:
    async with RpcServer(node, socket=tmp_path / "s"), channel(tmp_path / "s") as connected:
        for method in ("ListEvents", "GetStatus"):
            call: Any = connected.unary_unary(f"/oomwatch.v1.OomWatchService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"\x0a\xff")
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_that_is_too_large_is_refused(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ListEvents(pb.ListEventsRequest(page_token="x" * 300_000))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_are_bounded_and_a_closed_one_makes_room(node: Node, tmp_path: Path) -> None:
    server = RpcServer(node, socket=tmp_path / "s", limits=Limits(streams=2))
    async with server, channel(tmp_path / "s") as connected:
        stub = Stub(connected)
        calls = [stub.Subscribe(pb.SubscribeRequest()) for _ in range(2)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="2 streams open, its most") as raised:
            await stub.Subscribe(pb.SubscribeRequest()).read()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()
        async with asyncio.timeout(10):
            while server.streams == 2:
                await asyncio.sleep(0)
        assert node.subscriptions.count == 1
        assert (await stub.Subscribe(pb.SubscribeRequest()).read()).HasField("bookmark")


async def test_streams_of_one_tcp_connection_are_bounded(node: Node) -> None:
    server = RpcServer(
        node, socket=None, listen="127.0.0.1:0", insecure=True, limits=Limits(streams_a_peer=1)
    )
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as connected:
        stub = Stub(connected)
        first = stub.Subscribe(pb.SubscribeRequest())
        await first.read()
        with pytest.raises(grpc.aio.AioRpcError, match="1 streams open, its most"):
            await stub.Subscribe(pb.SubscribeRequest()).read()


async def test_cgroups_are_listed_in_pages(node: Node, stub: Stub) -> None:
    node.cgroups = [
        CgroupReport(
            path=f"/a/{n:03}", id=n, kills=0, witnesses=(Witness("memory_events by inotify"),)
        )
        for n in range(250)
    ]
    paths: list[str] = []
    token = ""
    for size in (100, 100, 50):
        page = await stub.ListContainers(pb.ListContainersRequest(page_token=token))
        assert len(page.containers) == size
        paths += [report.cgroup for report in page.containers]
        token = page.next_page_token
    assert token == ""
    assert paths == [report.path for report in node.cgroups]
    answer = await stub.GetContainer(pb.GetContainerRequest(cgroup="/a/007"))
    assert (answer.container.cgroup_id, answer.container.kills) == (7, 0)
    assert not answer.container.HasField("kills_below")
    with pytest.raises(grpc.aio.AioRpcError, match="no cgroup '/b' is watched"):
        await stub.GetContainer(pb.GetContainerRequest(cgroup="/b"))


async def test_what_fails_in_the_daemon_is_logged_and_harms_nobody_else(
    node: Node, stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> NodeStatus:
        raise KeyError("a bug")

    monkeypatch.setattr(node, "status", fail)
    with pytest.raises(grpc.aio.AioRpcError, match="GetStatus failed in the daemon") as raised:
        await stub.GetStatus(pb.GetStatusRequest())
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "a bug" in caplog.text
    assert await stub.ListEvents(pb.ListEventsRequest()) is not None


async def test_health_is_told_by_service_and_changes_at_once(node: Node, tmp_path: Path) -> None:
    server = RpcServer(node, socket=tmp_path / "s")
    async with server, channel(tmp_path / "s") as connected:
        health = health_pb2_grpc.HealthStub(connected)
        ask = health_pb2.HealthCheckRequest
        serving = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", "oomwatch.v1.OomWatchService"):
            assert (await health.Check(ask(service=service))).status == serving
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Check(ask(service="other"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(ask())
        assert (await watch.read()).status == serving
        node.trouble = ("the disk is full",)
        server.set_serving(False)
        assert (await watch.read()).status == not_serving
        assert (await health.Check(ask())).status == not_serving
        node.trouble = ()
        server.set_serving(True)
        assert (await watch.read()).status == serving


async def test_the_health_of_sources_has_names_of_its_own(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe of the daemon restarts nothing where a source is poor; one of the sources sees it."""
    monkeypatch.setattr(health_module, "_LOOK_SECONDS", 0.05)
    node.poor = {"kernel_log": False, "tracepoint": False}
    async with RpcServer(node, socket=tmp_path / "s"), AsyncClient(tmp_path / "s") as client:
        sources = health_module.SOURCES
        assert await client.health(sources)
        async with channel(tmp_path / "s") as connected:
            asked = health_pb2.HealthCheckRequest(service=f"{sources}/kernel_log")
            watch = health_pb2_grpc.HealthStub(connected).Watch(asked)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            node.poor = {"kernel_log": True, "tracepoint": False}
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await client.health()
        assert not await client.health(sources)
        assert await client.health(f"{sources}/tracepoint")
        assert not await client.health(f"{sources}/kernel_log")
        with pytest.raises(RequestRefused, match=f"names here are .*{sources}/ with"):
            await client.health(f"{sources}/other")


async def test_reflection_describes_the_service(node: Node, tmp_path: Path) -> None:
    async with RpcServer(node, socket=tmp_path / "s"):

        def describe() -> tuple[set[str], str]:
            with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as connected:
                database = ProtoReflectionDescriptorDatabase(connected)
                found = database.FindFileContainingSymbol("oomwatch.v1.OomWatchService")
                return set(database.get_services()), found.name

        services, name = await asyncio.to_thread(describe)
    assert {"oomwatch.v1.OomWatchService", "grpc.health.v1.Health"} <= services
    assert name == "oomwatch/v1/oomwatch.proto"


async def test_stopping_ends_every_stream_unavailable_at_once(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = RpcServer(node, socket=path)
    await server.start()
    async with channel(path) as connected:
        calls = [Stub(connected).Subscribe(pb.SubscribeRequest()) for _ in range(50)]
        watch = health_pb2_grpc.HealthStub(connected).Watch(health_pb2.HealthCheckRequest())
        for call in [*calls, watch]:
            await call.read()
        async with asyncio.timeout(10):
            await server.stop()
            for call in [*calls, watch]:
                assert await call.code() is grpc.StatusCode.UNAVAILABLE
                assert "shutting down" in await call.details()
    assert names_in(tmp_path) == []


async def test_a_client_that_reads_nothing_harms_nobody_and_delays_no_stop(
    node: Node, tmp_path: Path
) -> None:
    server = RpcServer(node, socket=tmp_path / "s")
    await server.start()
    async with channel(tmp_path / "s") as stuck, channel(tmp_path / "s") as connected:
        start = pb.SubscribeRequest(start=START(earliest=pb.EarliestPosition()))
        asleep = Stub(stuck).Subscribe(start)
        awake = Stub(connected).Subscribe(start)
        detail = "x" * 20_000
        evidence = (Evidence(source="memory_events", time=1, detail=detail),)
        await node.tell(kill(number, evidence=evidence) for number in range(1, 1001))  # 20 MB
        assert revisions(await read(awake, 1000)) == list(range(1, 1001))
        async with asyncio.timeout(10):  # it would wait for ever, or until the stream is ended
            await server.stop()
        asleep.cancel()


async def test_the_socket_is_open_to_its_group_and_nobody_else(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "run" / "oomwatch" / "s"
    old = os.umask(0)
    try:
        async with RpcServer(node, socket=path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            assert names_in(path.parent) == ["s"]
    finally:
        os.umask(old)
    assert not path.exists()


async def test_a_stale_socket_is_replaced(node: Node, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "s"))
    async with RpcServer(node, socket=tmp_path / "s"), channel(tmp_path / "s") as connected:
        assert await Stub(connected).ListEvents(pb.ListEventsRequest()) is not None


async def test_a_live_socket_is_refused_and_left_alone(node: Node, tmp_path: Path) -> None:
    async with RpcServer(node, socket=tmp_path / "s"), channel(tmp_path / "s") as connected:
        with pytest.raises(AddressError, match=r"another daemon answers at .*/s: stop it"):
            await RpcServer(node, socket=tmp_path / "s").start()
        assert await Stub(connected).ListEvents(pb.ListEventsRequest()) is not None
        assert names_in(tmp_path) == ["s"]


async def test_of_two_that_start_at_once_one_is_refused(node: Node, tmp_path: Path) -> None:
    servers = [RpcServer(node, socket=tmp_path / "s") for _ in range(2)]
    ends = await asyncio.gather(*(one.start() for one in servers), return_exceptions=True)
    assert [type(end) for end in ends if end is not None] == [AddressError]
    async with channel(tmp_path / "s") as connected:
        assert await Stub(connected).ListEvents(pb.ListEventsRequest()) is not None
    for one in servers:
        await one.stop()
    assert names_in(tmp_path) == []


async def test_a_file_that_is_no_socket_is_never_deleted(node: Node, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(AddressError, match="is no socket: oomwatch does not delete it"):
        await RpcServer(node, socket=tmp_path / "s").start()
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_socket_that_another_took_over_is_not_removed(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = RpcServer(node, socket=path)
    await server.start()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(path))
        await server.stop()
        assert path.exists()


async def test_a_stream_that_nobody_reads_is_ended_in_words_and_its_cursor_resumes(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads meanwhile is sent everything, and so is who stalled, once it comes back."""
    monkeypatch.setattr(streams, "STALLED_SECONDS", 0.5)
    path = tmp_path / "s"
    async with RpcServer(node, socket=path), channel(path) as one, channel(path) as other:
        from_the_first = pb.SubscribeRequest(start=START(earliest=pb.EarliestPosition()))
        stalled, reader = Stub(one).Subscribe(from_the_first), Stub(other).Subscribe(from_the_first)
        seen = await read(stalled, 0, caught_up=True)
        await read(reader, 0, caught_up=True)
        assert node.subscriptions.count == 2
        # More than gRPC holds for a client that does not read.
        number = 0
        async with asyncio.timeout(40):
            while node.subscriptions.count == 2:
                detail = "x" * 100_000
                evidence = (Evidence(source="memory_events", time=1, detail=detail),)
                await node.tell([kill(number + n, evidence=evidence) for n in range(1, 21)])
                number += 20
                assert revisions(await read(reader, 20))[-1] == number

        async def read_on() -> None:
            while True:
                seen.extend(map(entry_from_message, (await stalled.read()).events))

        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(read_on(), 40)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "nothing was read of this stream for 0.5 s" in (ended.value.details() or "")
        after = pb.AfterRevisionPosition(revision=len(seen), journal_id=node.journal.id)
        resumed = Stub(one).Subscribe(pb.SubscribeRequest(start=START(after_revision=after)))
        seen += await read(resumed, number - len(seen))
        assert revisions(seen) == list(range(1, number + 1))
