"""The clients against a real server: over a Unix socket, over TLS, and across its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from oomwatch.client import AsyncClient, Bookmark, Client, ClientTls
from oomwatch.errors import (
    AddressError,
    DaemonUnavailable,
    HistoryCompacted,
    JournalReset,
    JournalStalled,
    RequestRefused,
)
from oomwatch.events import Confidence, Container, Entry, Event, OomKill, Scope
from oomwatch.journal import Journal, Retention
from oomwatch.ledger import LedgerChange
from oomwatch.rpc.server import Limits, RpcServer, TlsFiles
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.rpc.v1 import oomwatch_pb2_grpc
from oomwatch.status import CgroupReport, NodeStatus
from oomwatch.subscriptions import (
    AfterRevision,
    Earliest,
    EventFilter,
    LastN,
    SubscriptionClosed,
    Subscriptions,
)
from tests.component.backends import NoContainers

NOW = time.time_ns() // 1000


def kill(number: int) -> OomKill:
    return OomKill(
        episode_id=f"episode-{number}",
        detect_time=NOW + number,
        scope=Scope.UNKNOWN,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        victim_cgroup="/even" if number % 2 == 0 else "/odd",
    )


class Node(NoContainers):
    """A journal in a directory (or in memory) and its subscriptions, as a server's backend."""

    def __init__(
        self, state_dir: Path | None = None, keep: int = 100_000, ring_entries: int = 4096
    ) -> None:
        self.journal = Journal.open(state_dir, retention=Retention(max_events=keep))
        self.subscriptions = Subscriptions(self.journal, ring_entries=ring_entries)
        self.journal.start("boot", self.subscriptions.published)

    async def tell(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            events: tuple[Event, ...] = (kill(number),)
            self.journal.append(events, LedgerChange())
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
            cgroup_root="/",
            start_time=NOW,
            healthy=True,
            cgroups=1200,
            kills_told=0,
            subscribers=self.subscriptions.count,
            sources=(),
            journal=self.journal.status(),
        )

    async def list_cgroups(self, prefix: str, after_path: str, limit: int) -> list[CgroupReport]:
        paths = (f"{prefix.rstrip('/')}/{number:04}" for number in range(1200))
        return [CgroupReport(path=path, id=9) for path in paths if path > after_path][:limit]

    async def get_cgroup(self, path: str) -> CgroupReport | None:
        return CgroupReport(path=path, id=9) if path == "/a" else None


@contextlib.asynccontextmanager
async def serving(path: Path, state_dir: Path | None = None) -> AsyncIterator[Node]:
    node = Node(state_dir)
    try:
        async with RpcServer(node, socket=path):
            yield node
    finally:
        await node.close()


async def take(entries: AsyncIterator[Entry], count: int) -> list[int]:
    async with asyncio.timeout(20):
        return [(await anext(entries)).revision for _ in range(count)]


async def test_every_call_gives_our_own_types(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as node, AsyncClient(tmp_path / "s") as client:
        await node.tell(range(1, 1201))
        entries = [entry async for entry in client.list_events()]
        assert entries[0] == Entry(1, node.journal.id, kill(1))
        assert [entry.revision for entry in entries] == list(range(1, 1201))
        even = EventFilter(cgroups=("/even",))
        assert [e.revision async for e in client.list_events(LastN(4), even)] == [1198, 1200]
        assert await client.get_event(7) == Entry(7, node.journal.id, kill(7))
        assert await client.get_event(5000) is None
        assert await client.get_status() == await node.status()
        assert await client.get_container("/a") == CgroupReport(path="/a", id=9)
        assert await client.get_container("/b") is None
        paths = [report.path async for report in client.list_containers("/x")]
        assert paths == [f"/x/{number:04}" for number in range(1200)]
        assert await client.health() is True


async def test_batches_tell_when_the_past_is_over(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as node, AsyncClient(f"unix:{tmp_path / 's'}") as client:
        await node.tell(range(1, 151))
        marks: list[Bookmark] = []
        feed = client.subscribe(Earliest(), on_bookmark=marks.append)
        revisions: list[int] = []
        while not (batch := await feed.next()).caught_up:
            revisions += [entry.revision for entry in batch.entries]
        assert revisions == list(range(1, 151))
        assert (batch.cursor, feed.journal_id) == (150, node.journal.id)
        assert marks == [
            Bookmark(0, node.journal.id, False),
            Bookmark(150, node.journal.id, True),
        ]


async def test_a_subscription_outlives_restarts_and_neither_misses_nor_doubles(
    tmp_path: Path,
) -> None:
    path, state = tmp_path / "s", tmp_path / "state"
    async with AsyncClient(path) as client:
        entries = aiter(client.subscribe(Earliest()))
        seen: list[int] = []
        told = 0
        for _ in range(4):
            async with serving(path, state) as node:
                await node.tell(range(told + 1, told + 101))
                told += 100
                seen += await take(entries, 70)
        async with serving(path, state):
            seen += await take(entries, 400 - len(seen))
    assert sorted(set(seen)) == seen
    assert len(seen) == 400


async def test_one_that_saw_only_a_bookmark_resumes_after_it(tmp_path: Path) -> None:
    path, state = tmp_path / "s", tmp_path / "state"
    async with AsyncClient(path) as client:
        feed = client.subscribe()
        async with serving(path, state) as node:
            await node.tell([1, 2])
            assert (await feed.next()).cursor == 2
        node = Node(state)
        await node.tell([3])
        await node.close()
        async with serving(path, state):
            assert await take(aiter(feed), 1) == [3]


async def test_another_journal_after_a_restart_is_no_silence(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path / "s") as client:
        feed = client.subscribe(Earliest())
        async with serving(tmp_path / "s") as node:
            await node.tell([1])
            assert await take(aiter(feed), 1) == [1]
        node = Node()
        await node.tell([1, 2, 3])
        async with RpcServer(node, socket=tmp_path / "s"):
            with pytest.raises(JournalReset, match=node.journal.id) as raised:
                await take(aiter(feed), 1)
            assert raised.value.journal_id == node.journal.id
        await node.close()


async def test_a_compacted_cursor_is_no_silence(tmp_path: Path) -> None:
    node = Node(keep=10, ring_entries=4)
    for number in range(1, 600):
        await node.tell([number])
    async with RpcServer(node, socket=tmp_path / "s"), AsyncClient(tmp_path / "s") as client:
        with pytest.raises(HistoryCompacted) as raised:
            await client.subscribe(AfterRevision(1)).next()
        assert raised.value.requested_revision == 1
        assert raised.value.oldest_revision == node.journal.oldest_revision
        with pytest.raises(HistoryCompacted):
            await anext(client.list_events(AfterRevision(1)))
    await node.close()


async def test_no_daemon_is_told_at_once(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path / "s") as client:
        async with asyncio.timeout(8):  # less than the client's own, of 10 s
            with pytest.raises(DaemonUnavailable, match=f"no daemon answers at unix:{tmp_path}/s"):
                await client.subscribe().next()
            with pytest.raises(DaemonUnavailable):
                await client.get_status()


async def test_a_daemon_that_stays_away_is_given_up_when_asked(tmp_path: Path) -> None:
    async with AsyncClient(tmp_path / "s", reconnect_seconds=0.2) as client:
        feed = client.subscribe()
        async with serving(tmp_path / "s"):
            await feed.next()
        async with asyncio.timeout(5):
            with pytest.raises(DaemonUnavailable, match="did not come back"):
                await feed.next()


async def test_a_cancelled_read_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as node, AsyncClient(tmp_path / "s") as client:
        feed = client.subscribe()
        await feed.next()

        async def read_past_bookmarks() -> None:
            while True:
                assert not (await feed.next()).entries

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_past_bookmarks(), 0.05)
        await node.tell([1, 2])
        assert await take(aiter(feed), 2) == [1, 2]


async def test_closing_ends_a_reader_that_waits(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"), AsyncClient(tmp_path / "s") as client:
        feed = client.subscribe()
        await feed.next()
        reading = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        feed.close()
        async with asyncio.timeout(5):
            with pytest.raises(SubscriptionClosed):
                await reading


async def test_a_refusal_keeps_the_daemons_sentence(tmp_path: Path) -> None:
    node = Node()
    server = RpcServer(node, socket=tmp_path / "s", limits=Limits(streams=1))
    async with server, AsyncClient(tmp_path / "s") as client:
        with pytest.raises(ValueError, match="0 or more"):
            await client.subscribe(LastN(-1)).next()
        await client.subscribe().next()
        with pytest.raises(RequestRefused, match="1 streams open, its most") as raised:
            await client.subscribe().next()
        assert raised.value.status == "RESOURCE_EXHAUSTED"
    await node.close()


class Patient(Node):
    """Notes how long it was to wait for witnesses, by the request and by the call's deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    async def finalize_container(
        self, container_id: str, *, maximum_wait: float | None, **_: object
    ) -> Entry:
        self.waits.append(maximum_wait)
        if container_id == "stalled":
            raise JournalStalled("the exit is judged, and cannot be written: ask again")
        return Entry(1, self.journal.id, kill(1))


async def test_a_wait_that_is_asked_for_is_not_cut_by_the_time_of_any_other_call(
    tmp_path: Path,
) -> None:
    node = Patient()
    async with RpcServer(node, socket=tmp_path / "s"), AsyncClient(tmp_path / "s") as client:
        await client.finalize("job-17", exit_code=137, maximum_wait=45.0)
    async with (
        RpcServer(node, socket=tmp_path / "s"),
        AsyncClient(tmp_path / "s", timeout=60.0) as client,
    ):
        await client.finalize("job-17", exit_code=137)
    assert node.waits == [45.0, 0.05]
    await node.close()


async def test_witnesses_are_awaited_no_longer_than_the_callers_deadline(tmp_path: Path) -> None:
    node = Patient()
    request = pb.FinalizeContainerRequest(container_id="job-17", exit_code=137)
    request.maximum_wait.FromSeconds(45)
    async with (
        RpcServer(node, socket=tmp_path / "s"),
        grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel,
    ):
        await oomwatch_pb2_grpc.OomWatchServiceStub(channel).FinalizeContainer(request, timeout=20)
    (wait,) = node.waits
    assert wait is not None
    assert wait < 20
    await node.close()


async def test_who_answers_that_it_cannot_now_is_not_said_to_be_nobody(tmp_path: Path) -> None:
    node = Patient()
    async with RpcServer(node, socket=tmp_path / "s"), AsyncClient(tmp_path / "s") as client:
        with pytest.raises(DaemonUnavailable, match="the exit is judged") as raised:
            await client.finalize("stalled", exit_code=137)
    assert str(raised.value).startswith("no answer now from the daemon at unix:")
    await node.close()


@contextlib.contextmanager
def daemon(path: Path, events: int) -> Iterator[None]:
    """A server in a thread of its own, for clients without a loop."""
    ready: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def run() -> None:
        async with serving(path) as node:
            await node.tell(range(1, events + 1))
            end = asyncio.Event()
            ready.put((asyncio.get_running_loop(), end))
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    loop, end = ready.get(timeout=20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


def test_the_plain_client_makes_the_same_calls(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", 600), Client(tmp_path / "s") as client:
        assert [entry.revision for entry in client.list_events()] == list(range(1, 601))
        entries = client.subscribe(Earliest())
        assert [next(entries).revision for _ in range(600)] == list(range(1, 601))
        assert client.get_status().hostname == "node-7"
        assert client.health() is True
        assert client.get_event(1) is not None
        assert client.get_container("/b") is None
        assert len(list(client.list_containers())) == 1200
    with pytest.raises(DaemonUnavailable), Client(tmp_path / "s") as client:
        next(client.subscribe())


WAIT_FOR_EVER = """
import sys
from oomwatch.client import Client
from tests.component.backends import NoContainers
with Client(sys.argv[1]) as client:
    try:
        for entry in client.subscribe(on_bookmark=lambda mark: print("waiting", flush=True)):
            pass
    except KeyboardInterrupt:
        print("interrupted", client.health())
"""


def test_ctrl_c_ends_the_plain_client_at_once(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", 1):
        command = [sys.executable, "-W", "error", "-c", WAIT_FOR_EVER, str(tmp_path / "s")]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "waiting\n"
            os.kill(waiting.pid, signal.SIGINT)
            out, err = waiting.communicate(timeout=20)
            assert (out, err) == ("interrupted True\n", "")


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, a server's pair for 127.0.0.1 and a client's pair."""
    made = tmp_path_factory.mktemp("pem")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
        "-addext", "keyUsage=critical,keyCertSign", cwd=made,
    )  # fmt: skip
    for name in ("server", "client"):
        (made / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(
            "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
            f"/CN={name}", cwd=made,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
            cwd=made,
        )  # fmt: skip
    return made


async def test_tls_needs_no_client_certificate_unless_a_ca_is_given(pem: Path) -> None:
    node = Node()
    server_files = TlsFiles(pem / "server.pem", pem / "server.key")
    async with RpcServer(node, socket=None, listen="127.0.0.1:0", tls=server_files) as server:
        address = f"127.0.0.1:{server.port}"
        async with AsyncClient(address, tls=ClientTls(ca=pem / "ca.pem")) as client:
            assert await client.health() is True
        async with AsyncClient(address, insecure=True, timeout=2) as client:
            with pytest.raises(DaemonUnavailable):
                await client.health()
    await node.close()


async def test_mutual_tls_refuses_who_has_no_certificate(pem: Path) -> None:
    node = Node()
    files = TlsFiles(pem / "server.pem", pem / "server.key", pem / "ca.pem")
    async with RpcServer(node, socket=None, listen="127.0.0.1:0", tls=files) as server:
        address = f"127.0.0.1:{server.port}"
        ours = ClientTls(ca=pem / "ca.pem", certificate=pem / "client.pem", key=pem / "client.key")
        async with AsyncClient(address, tls=ours) as client:
            assert await client.health() is True
        async with AsyncClient(address, tls=ClientTls(ca=pem / "ca.pem"), timeout=2) as client:
            with pytest.raises(DaemonUnavailable):
                await client.health()
    await node.close()


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"ca": "client.pem"}, "was not signed by the CA that was given"),
        ({"ca": "ca.pem", "server_name": "node-8"}, "is for another name than node-8"),
        (None, "does it want TLS"),
    ],
)
async def test_what_is_wrong_with_tls_is_said_so_that_it_can_be_mended(
    tls: dict[str, str] | None, words: str, pem: Path
) -> None:
    node = Node()
    files = TlsFiles(pem / "server.pem", pem / "server.key")
    given = None
    if tls is not None:
        # A path may be text, as an address may.
        given = ClientTls(ca=str(pem / tls["ca"]), server_name=tls.get("server_name"))
    async with RpcServer(node, socket=None, listen="127.0.0.1:0", tls=files) as server:
        address = f"127.0.0.1:{server.port}"
        async with AsyncClient(address, tls=given, insecure=tls is None) as client:
            with pytest.raises(DaemonUnavailable, match=words) as raised:
                await client.health()
    assert str(raised.value).startswith(f"no daemon answers at {address}: ")
    await node.close()


async def test_tls_with_a_server_that_has_none_is_said(pem: Path) -> None:
    node = Node()
    async with RpcServer(node, socket=None, listen="127.0.0.1:0", insecure=True) as server:
        tls = ClientTls(ca=pem / "ca.pem")
        async with AsyncClient(f"127.0.0.1:{server.port}", tls=tls) as client:
            with pytest.raises(DaemonUnavailable, match="does it speak without TLS"):
                await client.health()
    with pytest.raises(AddressError, match="is a Unix socket: TLS is for HOST:PORT"):
        AsyncClient("/run/s", tls=tls)
    await node.close()


async def test_a_name_that_nobody_knows_is_nobody() -> None:
    async with AsyncClient("nowhere.invalid:1", insecure=True) as client:
        with pytest.raises(
            DaemonUnavailable, match=r"no daemon answers at nowhere\.invalid:1.*right"
        ):
            await client.health()


async def test_a_port_that_nobody_listens_at_is_said_with_the_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with AsyncClient(f"127.0.0.1:{port}", insecure=True) as client:
        with pytest.raises(DaemonUnavailable, match="does it run, and listen there"):
            await client.health()


async def test_what_cannot_be_meant_is_refused_before_it_is_sent() -> None:
    """Of two places gRPC would send the one that was set last, and say nothing."""
    async with AsyncClient("/nowhere/s") as client:
        with pytest.raises(ValueError, match="give one of them"):
            await client.watch_container(Container(id="a"), pid=1, cgroup="/a")
        with pytest.raises(ValueError, match="give one of them"):
            await client.get_container("/a", container_id="a")
        with pytest.raises(ValueError, match="60 at the most"):
            await client.finalize("a", exit_code=1, maximum_wait=float("inf"))


async def test_the_plain_client_is_refused_where_a_loop_runs(tmp_path: Path) -> None:
    client = Client(tmp_path / "s")
    with pytest.raises(RuntimeError, match="use AsyncClient"):
        client.get_status()
    with pytest.raises(RuntimeError, match="use AsyncClient"):
        next(client.subscribe())


def test_the_plain_client_tells_of_an_outage_too(tmp_path: Path) -> None:
    told: list[str | None] = []
    with Client(tmp_path / "s", reconnect_seconds=0.0) as client:
        with daemon(tmp_path / "s", 1):
            entries = client.subscribe(Earliest(), on_outage=told.append)
            assert next(entries).revision == 1
        with pytest.raises(DaemonUnavailable):
            next(entries)
    assert len(told) == 1
    assert told[0]


async def test_tcp_without_tls_is_for_those_who_ask_for_it(tmp_path: Path, pem: Path) -> None:
    node = Node()
    with pytest.raises(AddressError, match="open to the network"):
        await RpcServer(node, socket=None, listen="127.0.0.1:0").start()
    with pytest.raises(AddressError, match="over TCP"):
        AsyncClient("127.0.0.1:1")
    mismatched = TlsFiles(pem / "server.pem", pem / "client.key")
    with pytest.raises(AddressError, match=r"server\.pem with the key .* cannot be used"):
        await RpcServer(node, socket=None, listen="127.0.0.1:0", tls=mismatched).start()
    async with RpcServer(node, socket=None, listen="127.0.0.1:0", insecure=True) as server:
        async with AsyncClient(f"127.0.0.1:{server.port}", insecure=True) as client:
            assert await client.health() is True
        taken = RpcServer(
            node, socket=tmp_path / "s", listen=f"127.0.0.1:{server.port}", insecure=True
        )
        with pytest.raises(AddressError, match="is the port taken"):
            await taken.start()
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240
    await node.close()
