"""A socket that goes from its path while the daemon runs: told, and listened at anew."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from oomwatch import serving
from oomwatch.client import AsyncClient
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.errors import AddressError
from oomwatch.metrics import Metrics
from oomwatch.rpc import restoring
from oomwatch.rpc.server import RpcServer
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.rpc.v1.oomwatch_pb2_grpc import OomWatchServiceStub
from oomwatch.serving import Reach
from oomwatch.subscriptions import Earliest
from oomwatch.testing import FakeCgroupTree

BOUND = 30.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(restoring, "SETTLE_SECONDS", 0.1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(directory: Path, socket: Path) -> AsyncIterator[Watcher]:
    """A daemon at a socket, which notes where nobody can connect."""
    tree = FakeCgroupTree(directory / "cgroup")
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watcher:
        server = RpcServer(watcher, socket=socket)
        server.unreachable = watcher.unreachable
        async with server:
            yield watcher


async def revisions(stream: Any) -> list[int]:
    """Of the next events: bookmarks come in between, at moments of their own."""
    while not (answer := await stream.read()).events:
        assert answer.HasField("bookmark")
    return [event.revision for event in answer.events]


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


GOES = {
    "unlinked": lambda run: (run / "o.sock").unlink(),
    "renamed": lambda run: renamed(run / "o.sock"),
    "its directory removed": shutil.rmtree,
    "its directory renamed": renamed,
    "a directory above renamed": lambda run: renamed(run.parent),
}


@pytest.mark.parametrize("goes", GOES.values(), ids=GOES)
async def test_streams_go_on_and_new_clients_find_it_again(
    tmp_path: Path, goes: Callable[[Path], object]
) -> None:
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/a")
    run = tmp_path / "above" / "run"
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watcher:
        server = RpcServer(watcher, socket=run / "o.sock")
        said: list[str | None] = []
        server.unreachable = lambda _, sentence: said.append(sentence)
        # A plain stream: the client of oomwatch's own would resume where this one ended.
        connected = grpc.aio.insecure_channel(f"unix:{run / 'o.sock'}")
        async with server, connected as channel, asyncio.timeout(2 * BOUND):
            stream = OomWatchServiceStub(channel).Subscribe(pb.SubscribeRequest())
            assert (await stream.read()).HasField("bookmark")
            tree.kill("/a")
            assert await revisions(stream) == [1]
            for turn in range(1, 3):
                said.clear()
                goes(run)
                await until(lambda: said[-1:] == [None])
                assert "nobody can connect" in (said[0] or "")
                assert str(run / "o.sock") in (said[0] or "")
                # The same stream, of a server that takes no other; and everybody else.
                tree.kill("/a")
                assert await revisions(stream) == [turn + 1]
                async with AsyncClient(run / "o.sock") as after:
                    assert (await anext(aiter(after.subscribe(Earliest())))).revision == 1
                if (elsewhere := run.with_name("elsewhere")).exists():
                    shutil.rmtree(elsewhere)
                if (elsewhere := run.parent.with_name("elsewhere")).exists():
                    shutil.rmtree(elsewhere)
            assert not stream.done()
        assert [entry.name for entry in run.iterdir() if entry.name != "elsewhere"] == []


async def test_who_removes_the_directory_is_not_hindered(tmp_path: Path) -> None:
    """As `rm -r` does: first what is in it, then itself. In between nothing new is put there."""
    run = tmp_path / "run"
    async with served(tmp_path, run / "o.sock") as watcher:
        (run / "o.sock").unlink()
        await until(lambda: bool(watcher.problems()))
        await asyncio.sleep(restoring.SETTLE_SECONDS / 2)
        run.rmdir()
        await until(lambda: not watcher.problems())
        async with AsyncClient(run / "o.sock") as client:
            assert (await client.get_status()).healthy


async def test_where_it_cannot_be_had_that_is_said_until_it_can(tmp_path: Path) -> None:
    tree = FakeCgroupTree(tmp_path / "cgroup")
    socket = tmp_path / "run" / "o.sock"
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watcher:
        server = RpcServer(watcher, socket=socket, read_only_socket=tmp_path / "r.sock")
        server.unreachable = watcher.unreachable
        watcher.on_health = server.set_serving
        async with server, AsyncClient(tmp_path / "r.sock") as client:
            # Renamed over it: nothing that oomwatch would delete.
            (tmp_path / "file").write_text("somebody's")
            (tmp_path / "file").rename(socket)
            await until(lambda: any("is no socket" in one for one in watcher.problems()))
            (problem,) = watcher.problems()
            assert f"nobody can connect at unix:{socket}" in problem
            assert "move it away" in problem
            status = await client.get_status()
            assert (status.healthy, status.problems) == (False, (problem,))
            assert not await client.health()
            assert b"\noomwatch_healthy 0.0\n" in Metrics().render(status, "")[0]
            socket.unlink()
            await until(lambda: not watcher.problems())
            assert await client.health()
            async with AsyncClient(socket) as again:
                assert (await again.get_status()).healthy


async def test_a_directory_that_is_put_back_is_as_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    async with served(tmp_path, run / "o.sock") as watcher:
        run.rename(tmp_path / "away")
        run.write_text("")  # so that it cannot be made anew
        await until(lambda: any("cannot be listened on" in one for one in watcher.problems()))
        inode = (tmp_path / "away" / "o.sock").stat().st_ino
        run.unlink()
        (tmp_path / "away").rename(run)
        await until(lambda: not watcher.problems())
        async with AsyncClient(run / "o.sock") as client:
            assert (await client.get_status()).healthy
        assert (run / "o.sock").stat().st_ino == inode


async def test_whoever_asks_how_it_is_sees_what_no_notification_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that is mounted over the directory, or no inotify to be had."""

    def none() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("oomwatch.rpc.presence.open_inotify", none)
    tree = FakeCgroupTree(tmp_path / "cgroup")
    socket = tmp_path / "o.sock"
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watcher:
        server = RpcServer(watcher, socket=socket, read_only_socket=tmp_path / "r.sock")
        server.unreachable = watcher.unreachable
        async with server, AsyncClient(tmp_path / "r.sock") as client:
            socket.unlink()
            assert not await client.health()
            await until(socket.exists)
            assert await client.health()


@pytest.mark.parametrize("managed", [True, False], ids=["managed", "alone"])
async def test_who_has_a_service_manager_ends_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, managed: bool
) -> None:
    monkeypatch.setattr(serving, "UNREACHABLE_SECONDS", 0.2)
    tree = FakeCgroupTree(tmp_path / "cgroup")
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watcher:
        reach = Reach(watcher, managed=managed)
        reach.unreachable("unix:/a", "nobody can connect at unix:/a: …")
        reach.unreachable("unix:/a", None)
        await asyncio.sleep(0.4)
        assert not reach.given_up.done(), "it was found again in time"
        reach.unreachable("unix:/a", "nobody can connect at unix:/a: …")
        await asyncio.sleep(0.4)
        assert reach.given_up.done() is managed
        if managed:
            with pytest.raises(AddressError, match=r"connect at unix:/a.*service manager.*no kill"):
                reach.given_up.result()
        reach.close()
