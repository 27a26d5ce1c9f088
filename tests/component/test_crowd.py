"""Subscribers of every sort at once: those who read miss nothing, whatever the others do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from oomwatch.events import Evidence
from oomwatch.rpc import streams
from oomwatch.rpc.server import Limits, RpcServer
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.rpc.v1 import oomwatch_pb2_grpc
from tests.component.test_rpc_service import Node, kill

BOUND = 60.0
HISTORY, LIVE = 400, 200
EVERYTHING = pb.StartPosition(earliest=pb.EarliestPosition())

# A connection of its own, and one that takes in little for who does not read.
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024),
]


@asynccontextmanager
async def subscribed(path: Path, start: pb.StartPosition) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{path}", OPTIONS) as channel:
        request = pb.SubscribeRequest(start=start)
        call = oomwatch_pb2_grpc.OomWatchServiceStub(channel).Subscribe(request)
        assert (await call.read()).HasField("bookmark")
        yield call


def after(seen: list[int]) -> pb.StartPosition:
    return pb.StartPosition(after_revision=pb.AfterRevisionPosition(revision=seen[-1]))


async def read(call: Any, seen: list[int], through: int, pause: float = 0) -> None:
    while not seen or seen[-1] < through:
        for event in (await call.read()).events:
            seen.append(event.revision)
            await asyncio.sleep(pause)


async def read_to_the_end(path: Path, through: int, pause: float) -> list[int]:
    """Follow to a revision, and resume after the last one seen where a stream is ended."""
    seen: list[int] = []
    while not seen or seen[-1] < through:
        try:
            async with subscribed(path, after(seen) if seen else EVERYTHING) as call:
                await read(call, seen, through, pause)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    return seen


async def tell(node: Node, first: int, count: int) -> None:
    """Events that are large enough for gRPC not to hold all of them for who does not read."""
    evidence = (Evidence(source="memory_events", time=1, detail="x" * 2000),)
    await node.tell(kill(number, evidence=evidence) for number in range(first, first + count))


async def test_who_reads_misses_nothing_whatever_the_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "STALLED_SECONDS", 1.0)
    path, newest = tmp_path / "s", HISTORY + LIVE
    # Most of the history is no longer at hand: it is read from the disk.
    node = Node.open(tmp_path / "state", ring_entries=64)
    await tell(node, 1, HISTORY)
    begun = asyncio.Semaphore(0)
    told, over = asyncio.Event(), asyncio.Event()

    async def live() -> list[int]:
        seen: list[int] = []
        async with subscribed(path, pb.StartPosition()) as call:
            begun.release()
            await read(call, seen, newest)
        return seen

    async def silent() -> list[int]:
        seen: list[int] = []
        async with subscribed(path, EVERYTHING) as call:
            begun.release()
            await over.wait()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await read(call, seen, newest)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "nothing was read of this stream for 1 s" in (ended.value.details() or "")
        async with subscribed(path, after(seen)) as call:
            await read(call, seen, newest)
        return seen

    async def slow() -> list[int]:
        begun.release()
        return await read_to_the_end(path, newest, 0.005)

    async def restless() -> int:
        times = 0
        begun.release()
        while not told.is_set() or not times:
            async with subscribed(path, pb.StartPosition()):
                times += 1
        return times

    async def replaying() -> list[int]:
        begun.release()
        seen: list[int] = []
        while not told.is_set() or not seen:
            seen.clear()
            async with subscribed(path, EVERYTHING) as call:
                await read(call, seen, HISTORY)
            assert seen[:HISTORY] == list(range(1, HISTORY + 1))
        return seen

    async def all_of(call: Any, count: int) -> list[Any]:
        return await asyncio.gather(*(call() for _ in range(count)))

    async def until_ended(silent_ones: int) -> None:
        while node.subscriptions.count > silent_ones:
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING):
        limits = Limits(openings_a_second=2000)
        async with RpcServer(node, socket=path, limits=limits) as server, asyncio.timeout(BOUND):
            kinds: list[Awaitable[list[Any]]] = [
                asyncio.ensure_future(all_of(kind, count))
                for kind, count in ((live, 20), (silent, 20), (slow, 15), (restless, 4))
            ]
            kinds.append(asyncio.ensure_future(all_of(replaying, 1)))
            for _ in range(60):
                await begun.acquire()
            for number in range(HISTORY + 1, newest + 1, 10):
                await tell(node, number, 10)
            told.set()
            for seen in await kinds[0]:
                assert seen == list(range(HISTORY + 1, newest + 1))
            for seen in await kinds[2]:
                assert seen == list(range(1, newest + 1))
            assert all(await kinds[3])
            await kinds[4]
            await until_ended(0)
            over.set()
            for seen in await kinds[1]:
                assert seen == list(range(1, newest + 1))
            await until_ended(0)
            assert server.streams == 0
    await node.close()
    assert not caplog.records, "what subscribers do is nothing to log"


async def let_in(path: Path, streams: int) -> None:
    """Have so many streams at once. Raises AioRpcError where they are refused."""
    async with AsyncExitStack() as stack:
        for _ in range(streams):
            await stack.enter_async_context(subscribed(path, pb.StartPosition()))


async def until(done: Callable[[], Awaitable[None]]) -> None:
    """Try again while there is no place: the daemon hears of an end a moment after its client."""
    while True:
        try:
            return await done()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise


async def test_a_stream_that_was_ended_counts_until_its_client_takes_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its status waits behind a message that is held for it, and these are bounded."""
    monkeypatch.setattr(streams, "STALLED_SECONDS", 0.2)
    path = tmp_path / "s"
    node = Node.open()
    await tell(node, 1, HISTORY)
    async with (
        RpcServer(node, socket=path, limits=Limits(streams_a_peer=2)) as server,
        asyncio.timeout(BOUND),
    ):
        async with subscribed(path, EVERYTHING) as one, subscribed(path, EVERYTHING):
            while server.streams:
                await asyncio.sleep(0.01)
            assert node.subscriptions.count == 0
            with pytest.raises(grpc.aio.AioRpcError, match="has 2 streams open, its most"):
                await let_in(path, 1)
            with pytest.raises(grpc.aio.AioRpcError, match="nothing was read"):
                await read(one, [], HISTORY)
            await until(lambda: let_in(path, 1))
        await until(lambda: let_in(path, 2))
    await node.close()
    assert not caplog.records, "a client that hangs up is nothing to log"
