"""The daemon, its clients and its commands, while real kills go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import Entry, OomKill
from oomwatch.subscriptions import Earliest, EventFilter
from tests.kernel import workload
from tests.kernel.watching import SECONDS
from tests.kernel.workload import LIMIT, ROOT, Scratch, kills_below

COMMAND = (sys.executable, "-m", "oomwatch.cli.main")


class Daemon:
    """`oomwatch serve` in a process of its own, with a journal on disk.

    `begin` is what it is begun by: a command that takes something away from it, say.
    """

    def __init__(self, directory: Path, begin: tuple[str, ...] = ()) -> None:
        self._begin = begin
        self.socket = directory / "oomwatch.sock"
        self.state = directory / "state"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and return once it answers."""
        self.process = await asyncio.create_subprocess_exec(
            *(
                *self._begin,
                *COMMAND,
                "serve",
                "--socket",
                str(self.socket),
                "--state-dir",
                str(self.state),
            )
        )
        async with asyncio.timeout(SECONDS):
            while True:
                assert self.process.returncode is None, "the daemon ended at its start"
                with contextlib.suppress(Exception):
                    async with AsyncClient(self.socket) as client:
                        if await client.health():
                            return
                await asyncio.sleep(0.2)

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal, and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def daemon(directory: Path, begin: tuple[str, ...] = ()) -> AsyncIterator[Daemon]:
    served = Daemon(directory, begin)
    await served.start()
    try:
        yield served
    finally:
        if served.process is not None and served.process.returncode is None:
            served.process.kill()
            await served.process.wait()


class Follower:
    """A subscriber that resumes by itself, and what it was sent."""

    def __init__(self, socket: Path, cgroup: str) -> None:
        self.entries: list[Entry] = []
        self._client = AsyncClient(socket)
        self._filter = EventFilter(cgroups=(cgroup,))
        self._task = asyncio.create_task(self._follow())

    @property
    def revisions(self) -> list[int]:
        """What it was sent, in the order it came."""
        return [entry.revision for entry in self.entries]

    @property
    def told(self) -> int:
        """Kills told so far."""
        events = [entry.event for entry in self.entries]
        return sum(event.kill_count or 0 for event in events if isinstance(event, OomKill))

    async def until(self, kills: int) -> None:
        """Wait for that many kills."""
        async with asyncio.timeout(SECONDS):
            while self.told < kills:
                assert not self._task.done(), "the subscription ended"
                await asyncio.sleep(0.02)

    async def caught_up_with(self, other: Follower) -> None:
        """Wait until both were sent the same: names that come late amend what was told."""
        async with asyncio.timeout(SECONDS):
            while self.revisions != other.revisions:
                assert not self._task.done(), "the subscription ended"
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End the subscription."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._client.close()

    async def _follow(self) -> None:
        async for entry in self._client.subscribe(Earliest(), self._filter):
            self.entries.append(entry)


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


@pytest.mark.any_kernel
@pytest.mark.timeout(300)
async def test_killed_and_started_again_while_kills_go_on(tmp_path: Path) -> None:
    """A subscriber sees each kill once, across deaths by SIGKILL and an end by SIGTERM."""
    with Scratch("restart") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(4)]
        async with daemon(tmp_path) as served:
            follower = Follower(served.socket, scratch.cgroup)
            expected = 0
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                for cgroup in cgroups:
                    scratch.hog(cgroup)
                await follower.until(expected + 1)
                status = await served.end(number)
                assert status == (0 if number is signal.SIGTERM else -signal.SIGKILL)
                for cgroup in cgroups:
                    scratch.hog(cgroup)
                gone = scratch.make("gone", limit=LIMIT)
                scratch.hog(gone).wait()
                workload.remove(gone)
                for process in scratch.processes:
                    process.wait()
                await served.start()
                expected = kills_below(scratch.path)
                await follower.until(expected)
            await follower.close()
        revisions = [entry.revision for entry in follower.entries]
        assert revisions == sorted(set(revisions))
        assert follower.told == kills_below(scratch.path)
        recovered = [e.event for e in follower.entries if isinstance(e.event, OomKill)]
        assert any(event.recovered for event in recovered)
        assert any(event.survivor_cgroup == scratch.cgroup for event in recovered)


@pytest.mark.timeout(300)
async def test_two_clients_one_of_them_slow(tmp_path: Path) -> None:
    with Scratch("clients") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(10)]
        async with daemon(tmp_path) as served:
            channel = grpc.aio.insecure_channel(f"unix:{served.socket}")
            subscribe: Any = channel.unary_stream("/oomwatch.v1.OomWatchService/Subscribe")
            never_read = subscribe(b"")
            follower = Follower(served.socket, scratch.cgroup)
            for cgroup in cgroups:
                scratch.hog(cgroup)
            await follower.until(10)
            late = Follower(served.socket, scratch.cgroup)
            await late.caught_up_with(follower)
            begun = time.monotonic()
            assert await served.end(signal.SIGTERM) == 0
            assert time.monotonic() - begun < SECONDS / 4
            assert not served.socket.exists()
            never_read.cancel()
            await channel.close()
            await follower.close()
            await late.close()


@pytest.mark.any_kernel
@pytest.mark.timeout(300)
async def test_selftest_shows_its_kill_and_cleans_up(tmp_path: Path) -> None:
    status, out, errors = await run("selftest", "--cgroup-root", str(ROOT), "-o", "json")
    assert status == 0, errors
    event = json.loads(out)
    assert event["kind"] == "oom_kill"
    assert event["scope"] == "container_limit"
    assert event["confidence"] == "confirmed"
    async with daemon(tmp_path) as served:
        status, out, errors = await run("selftest", "--socket", str(served.socket))
        assert status == 0, errors
        assert "selftest" in out
        status, out, _ = await run("list", "--socket", str(served.socket), "-o", "json")
        assert status == 0
        assert all("selftest" not in line for line in out.splitlines())
        status, out, _ = await run("show", "1", "--socket", str(served.socket))
        assert status == 0
    assert not list(ROOT.glob("oomwatch-selftest*"))


@pytest.mark.timeout(300)
async def test_tail_watches_by_itself_and_ends_on_ctrl_c() -> None:
    with Scratch("tail") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        tail = await asyncio.create_subprocess_exec(
            *(*COMMAND, "tail", "--cgroup-root", str(ROOT), "-o", "json"),
            *("--filter", f"cgroup={scratch.cgroup}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert tail.stdout is not None
        assert tail.stderr is not None
        async with asyncio.timeout(SECONDS):
            assert b"watching" in await tail.stderr.readline()
            line = b""
            while not line:
                # The sentence comes before the first look: kill until one is told.
                scratch.hog(cgroup).wait()
                with contextlib.suppress(TimeoutError):
                    line = await asyncio.wait_for(tail.stdout.readline(), 5)
            tail.send_signal(signal.SIGINT)
            assert await tail.wait() == 130
        assert json.loads(line)["victim_cgroup"] == f"{scratch.cgroup}/c"
