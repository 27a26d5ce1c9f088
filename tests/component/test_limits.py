"""Who may do what at which address, and how much of it: told to a real client in a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
    reflection_pb2,
    reflection_pb2_grpc,
)

from oomwatch.daemon import Watcher
from oomwatch.errors import AddressError
from oomwatch.rpc import server as server_module
from oomwatch.rpc.limits import CallRate, Limits
from oomwatch.rpc.server import RpcServer, UnixSocket
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.rpc.v1 import oomwatch_pb2_grpc
from oomwatch.status import CgroupReport
from tests.unprivileged import let_in

BOUND = 30.0
Stub = oomwatch_pb2_grpc.OomWatchServiceStub

CHANGES: list[tuple[str, Message]] = [
    ("WatchContainer", pb.WatchContainerRequest(container=pb.Container(id="c"), cgroup="/a")),
    ("FinalizeContainer", pb.FinalizeContainerRequest(container_id="c", exit_code=0)),
    ("UnwatchContainer", pb.UnwatchContainerRequest(container_id="c")),
]


@asynccontextmanager
async def asking(target: str) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        yield Stub(channel)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """What a call or the beginning of a stream is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (call.read() if hasattr(call, "read") else call)
    return raised.value


@pytest.mark.parametrize(("name", "request_"), CHANGES)
async def test_at_the_read_only_socket_one_may_read_and_change_nothing(
    watcher: Watcher, tmp_path: Path, name: str, request_: Message
) -> None:
    server = RpcServer(watcher, socket=tmp_path / "s", read_only_socket=tmp_path / "r")
    async with server, asking(f"unix:{tmp_path / 'r'}") as reader:
        refused = await refusal(getattr(reader, name)(request_))
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert name in (refused.details() or "")
        assert "--socket" in (refused.details() or "")
        assert (await reader.GetStatus(pb.GetStatusRequest())).status.hostname
        assert (await reader.Subscribe(pb.SubscribeRequest()).read()).HasField("bookmark")
        async with asking(f"unix:{tmp_path / 's'}") as worker:
            try:
                await getattr(worker, name)(request_)
            except grpc.aio.AioRpcError as error:
                code = error.code()
            else:
                code = grpc.StatusCode.OK
        assert code is not grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(("name", "request_"), CHANGES)
async def test_over_tcp_who_shows_no_certificate_may_change_nothing(
    watcher: Watcher, name: str, request_: Message
) -> None:
    async with (
        RpcServer(watcher, socket=None, listen="127.0.0.1:0", insecure=True) as server,
        asking(f"127.0.0.1:{server.port}") as anybody,
    ):
        refused = await refusal(getattr(anybody, name)(request_))
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "client certificate" in (refused.details() or "")


async def test_both_sockets_are_removed_at_the_end(watcher: Watcher, tmp_path: Path) -> None:
    place = tmp_path / "run"
    async with RpcServer(watcher, socket=place / "s", read_only_socket=place / "r"):
        assert {entry.name for entry in place.iterdir()} == {"s", "r"}
    assert not list(place.iterdir())


async def test_a_read_only_socket_that_cannot_be_had_leaves_nothing_behind(
    watcher: Watcher, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "r").write_text("somebody's")
    with pytest.raises(AddressError, match="is no socket"):
        await RpcServer(watcher, socket=place / "s", read_only_socket=place / "r").start()
    assert [entry.name for entry in place.iterdir()] == ["r"]


@pytest.mark.parametrize("second", ["s", "../run/s", "link/s"])
def test_one_path_is_not_listened_on_for_workers_and_for_readers(
    watcher: Watcher, tmp_path: Path, second: str
) -> None:
    """Whatever each is called by: else the one would take the other for another daemon."""
    place = tmp_path / "run"
    place.mkdir()
    (place / "link").symlink_to(place)
    with pytest.raises(AddressError, match=r"--socket .*/s and --read-only-socket .*/s are one"):
        RpcServer(watcher, socket=place / "s", read_only_socket=place / second)


async def test_a_socket_has_the_mode_and_the_group_that_were_asked_for(
    watcher: Watcher, tmp_path: Path
) -> None:
    group = grp.getgrgid(os.getgid())
    by_name = UnixSocket(tmp_path / "s", 0o600, group.gr_name)
    by_number = UnixSocket(tmp_path / "r", 0o666, str(os.getgid()))
    async with RpcServer(watcher, socket=by_name, read_only_socket=by_number):
        for name, mode in (("s", 0o600), ("r", 0o666)):
            status = (tmp_path / name).stat()
            assert stat.S_IMODE(status.st_mode) == mode
            assert status.st_gid == os.getgid()


async def test_a_group_that_is_not_there_is_a_sentence(watcher: Watcher, tmp_path: Path) -> None:
    server = RpcServer(watcher, socket=UnixSocket(tmp_path / "s", 0o660, "no-such-group"))
    with pytest.raises(AddressError, match="no group 'no-such-group'"):
        await server.start()
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
async def test_who_is_not_of_the_group_cannot_connect(watcher: Watcher, tmp_path: Path) -> None:
    """The file's mode is the check of the peer's credentials, and the kernel makes it."""
    let_in(tmp_path)
    nobody = pwd.getpwnam("nobody")
    place = tmp_path / "s"

    def connects(uid: int, gid: int) -> str:
        script = (
            "import os, socket, sys\n"
            "os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[2]))\n"
            "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
            "except OSError as error: print(error.strerror)\n"
            "else: print('connected')\n"
        )
        command = [sys.executable, "-c", script, str(place), str(uid), str(gid)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    async with RpcServer(watcher, socket=UnixSocket(place, 0o660, "12345")):
        assert await asyncio.to_thread(connects, nobody.pw_uid, nobody.pw_gid) == (
            "Permission denied"
        )
        assert await asyncio.to_thread(connects, nobody.pw_uid, 12345) == "connected"


async def test_one_socket_cannot_take_all_streams(watcher: Watcher, tmp_path: Path) -> None:
    server = RpcServer(
        watcher,
        socket=tmp_path / "s",
        read_only_socket=tmp_path / "r",
        limits=Limits(streams=3, streams_a_peer=2),
    )
    async with (
        server,
        asking(f"unix:{tmp_path / 's'}") as worker,
        asking(f"unix:{tmp_path / 'r'}") as reader,
    ):
        held = [reader.Subscribe(pb.SubscribeRequest()) for _ in range(2)]
        for stream in held:
            await stream.read()
        refused = await refusal(reader.Subscribe(pb.SubscribeRequest()))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"unix:{tmp_path / 'r'} has 2 streams open" in (refused.details() or "")
        assert (await worker.Subscribe(pb.SubscribeRequest()).read()).HasField("bookmark")


async def test_one_tcp_host_is_one_peer_however_many_connections_it_makes(
    watcher: Watcher,
) -> None:
    server = RpcServer(
        watcher, socket=None, listen="127.0.0.1:0", insecure=True, limits=Limits(streams_a_peer=2)
    )
    async with server, contextlib.AsyncExitStack() as stack:
        target = f"127.0.0.1:{server.port}"
        stubs = [await stack.enter_async_context(asking(target)) for _ in range(3)]
        held = [stub.Subscribe(pb.SubscribeRequest()) for stub in stubs[:2]]
        for stream in held:
            await stream.read()
        refused = await refusal(stubs[2].Subscribe(pb.SubscribeRequest()))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "ipv4:127.0.0.1 has 2 streams open" in (refused.details() or "")


async def test_who_opens_streams_in_a_loop_waits_for_its_turn_and_nobody_else_does(
    watcher: Watcher, tmp_path: Path
) -> None:
    limits = Limits(openings_a_second=0.001, openings_at_once=2)
    server = RpcServer(
        watcher, socket=tmp_path / "s", read_only_socket=tmp_path / "r", limits=limits
    )
    async with (
        server,
        asking(f"unix:{tmp_path / 's'}") as restless,
        asking(f"unix:{tmp_path / 'r'}") as other,
    ):
        for _ in range(2):
            stream = restless.Subscribe(pb.SubscribeRequest())
            await stream.read()
            stream.cancel()
        waiting = [restless.Subscribe(pb.SubscribeRequest()) for _ in range(2)]
        async with asyncio.timeout(BOUND):
            while server.streams != 2:
                await asyncio.sleep(0.01)
        await other.Subscribe(pb.SubscribeRequest()).read()
        reads = [asyncio.ensure_future(stream.read()) for stream in waiting]
        await restless.GetStatus(pb.GetStatusRequest())
        assert not any(read.done() for read in reads)
        await server.stop()
        for read in reads:
            refused = await refusal(read)
            assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_opening_that_has_its_turn_is_let_in(watcher: Watcher, tmp_path: Path) -> None:
    limits = Limits(openings_a_second=20, openings_at_once=1)
    async with (
        RpcServer(watcher, socket=tmp_path / "s", limits=limits),
        asking(f"unix:{tmp_path / 's'}") as stub,
        asyncio.timeout(BOUND),
    ):
        streams = [stub.Subscribe(pb.SubscribeRequest()) for _ in range(5)]
        for stream in streams:
            assert (await stream.read()).HasField("bookmark")


async def test_a_connection_that_answers_no_ping_is_closed(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped would else hold its streams' messages for as long."""
    monkeypatch.setattr(server_module, "_KEEPALIVE_MILLISECONDS", 1000)
    monkeypatch.setattr(server_module, "_KEEPALIVE_ANSWER_MILLISECONDS", 1000)
    settings = b"\0\0\0\4\0\0\0\0\0"
    async with RpcServer(watcher, socket=tmp_path / "s"):
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.settimeout(BOUND)
            deaf.connect(str(tmp_path / "s"))
            deaf.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            while await asyncio.to_thread(deaf.recv, 4096):
                pass


async def test_reflection_is_counted_as_a_stream(watcher: Watcher, tmp_path: Path) -> None:
    server = RpcServer(watcher, socket=tmp_path / "s", limits=Limits(streams=1))
    async with server, grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        reflecting = reflection_pb2_grpc.ServerReflectionStub(channel)
        first = reflecting.ServerReflectionInfo()
        await first.write(asked)
        assert len((await first.read()).list_services_response.service) == 3
        refused = await refusal(Stub(channel).Subscribe(pb.SubscribeRequest()))
        assert "1 streams open" in (refused.details() or "")
        first.cancel()


async def test_filters_are_bounded_together_and_a_shared_one_counts_once(
    watcher: Watcher, tmp_path: Path
) -> None:
    def asked(*names: str) -> pb.SubscribeRequest:
        return pb.SubscribeRequest(filter=pb.EventFilter(names=names))

    server = RpcServer(watcher, socket=tmp_path / "s", limits=Limits(filter_terms=3))
    async with server, asking(f"unix:{tmp_path / 's'}") as stub:
        shared = [stub.Subscribe(asked("a", "b")) for _ in range(3)]
        for stream in shared:
            await stream.read()
        refused = await refusal(stub.Subscribe(asked("c", "d")))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 more are past 3" in (refused.details() or "")
        await stub.Subscribe(asked("c")).read()
        await stub.Subscribe(asked()).read()
        for stream in shared:
            stream.cancel()
        async with asyncio.timeout(BOUND):
            while server.streams > 2:
                await asyncio.sleep(0.01)
        await stub.Subscribe(asked("c", "d")).read()


async def test_calls_are_bounded_by_a_rate_and_a_health_check_is_not(
    watcher: Watcher, tmp_path: Path
) -> None:
    limits = Limits(calls_a_second_a_peer=0.001, calls_at_once_a_peer=2)
    server = RpcServer(
        watcher, socket=tmp_path / "s", read_only_socket=tmp_path / "r", limits=limits
    )
    async with server, asking(f"unix:{tmp_path / 's'}") as stub:
        for _ in range(2):
            await stub.GetStatus(pb.GetStatusRequest())
        refused = await refusal(stub.GetStatus(pb.GetStatusRequest()))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "call again in" in (refused.details() or "")
        async with asking(f"unix:{tmp_path / 'r'}") as other:
            await other.GetStatus(pb.GetStatusRequest())
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for _ in range(5):
                await health.Check(health_pb2.HealthCheckRequest())


async def test_all_peers_together_are_bounded_by_a_rate(watcher: Watcher, tmp_path: Path) -> None:
    limits = Limits(calls_a_second=0.001, calls_at_once=1)
    server = RpcServer(watcher, socket=tmp_path / "s", limits=limits)
    async with server, asking(f"unix:{tmp_path / 's'}") as stub:
        await stub.GetStatus(pb.GetStatusRequest())
        refused = await refusal(stub.GetStatus(pb.GetStatusRequest()))
        assert "all clients together" in (refused.details() or "")


async def test_long_calls_come_one_after_another_and_hold_up_nobody_else(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, under_way, most = asyncio.Event(), 0, 0

    async def slow(prefix: str, after_path: str, limit: int) -> list[CgroupReport]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await go_on.wait()
        under_way -= 1
        return []

    monkeypatch.setattr(watcher, "list_cgroups", slow)
    server = RpcServer(watcher, socket=tmp_path / "s", limits=Limits(long_calls=3))
    async with server, asking(f"unix:{tmp_path / 's'}") as stub:
        calls = [
            asyncio.ensure_future(stub.ListContainers(pb.ListContainersRequest())) for _ in range(5)
        ]
        refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=BOUND)
        error = refused.pop().exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "3 calls that list things" in (error.details() or "")
        await stub.GetStatus(pb.GetStatusRequest())
        go_on.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 2
        assert most == 1


def test_a_rate_lets_through_what_was_asked_for_and_says_when_to_come_back() -> None:
    rate = CallRate(10.0, 2.0, now=0.0)
    assert [rate.wait(0.0), rate.wait(0.0)] == [0.0, 0.0]
    assert rate.wait(0.0) == pytest.approx(0.1)
    assert rate.wait(0.05) == pytest.approx(0.05)
    assert rate.wait(0.1) == 0.0
    assert rate.wait(0.1) > 0
    # However long nobody called, no more is saved up than one burst.
    assert [rate.wait(1e6), rate.wait(1e6), rate.wait(1e6) > 0] == [0.0, 0.0, True]


async def test_connections_are_bounded_and_those_that_are_open_go_on(
    watcher: Watcher, tmp_path: Path
) -> None:
    server = RpcServer(watcher, socket=tmp_path / "s", limits=Limits(connections=2))
    target = f"unix:{tmp_path / 's'}"
    async with server, asking(target) as first, asking(target) as second:
        for stub in (first, second):
            await stub.GetStatus(pb.GetStatusRequest())
        with socket.socket(socket.AF_UNIX) as third:
            third.settimeout(BOUND)
            third.connect(str(tmp_path / "s"))
            assert await asyncio.to_thread(_ends, third)
        await first.GetStatus(pb.GetStatusRequest())


def _ends(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


async def test_a_request_past_its_size_and_metadata_past_theirs_are_refused(
    watcher: Watcher, tmp_path: Path
) -> None:
    async with (
        RpcServer(watcher, socket=tmp_path / "s") as _,
        asking(f"unix:{tmp_path / 's'}") as stub,
    ):
        large = await refusal(stub.ListEvents(pb.ListEventsRequest(page_token="x" * 300_000)))
        assert large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        much = await refusal(stub.GetStatus(pb.GetStatusRequest(), metadata=[("x", "y" * 20_000)]))
        assert much.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.GetStatus(pb.GetStatusRequest())
