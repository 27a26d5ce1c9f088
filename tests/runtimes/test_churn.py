"""Containers come and go by the dozen, and a daemon holds nothing of them but what it must."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import OomKill
from oomwatch.subscriptions import Earliest
from scripts._soak.churn import Holdings, holdings
from tests.kernel.test_daemon import daemon
from tests.kernel.watching import SECONDS
from tests.kernel.workload import ROOT
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DockerHost
from tests.runtimes.telling import run
from tests.runtimes.workloads import HOG

CYCLES = int(os.environ.get("OOMWATCH_DOCKER_CYCLES", "20"))
"""scripts/soak asks for more."""

AT_ONCE = 4
MAY_GROW = Holdings(8192, 0, 0, 0, 4 << 20)
"""By what the allocator holds back for each thread that was busy, and the journal's events; by no
descriptor, watch or thread. The bound is the same for twenty containers and for two hundred."""


async def cycle(host: DockerHost, number: int) -> str:
    """Start a container that removes itself, every other one by its kill; returns its id."""
    command = HOG if number % 2 else ("/bin/true",)
    spec = Spec(command=command, remove=True, name=f"cycle-{number}")
    container = await run(host, spec)
    assert (await asyncio.to_thread(container.wait)).exit_code == (137 if number % 2 else 0)
    return container.id


def lives(state: Path) -> list[dict[str, object]]:
    """What the journal's database keeps of containers."""
    with closing(sqlite3.connect(f"file:{state}/journal.db?mode=ro", uri=True)) as journal:
        return [json.loads(row) for (row,) in journal.execute("SELECT life FROM lives")]


def ledger(state: Path) -> set[int]:
    """The cgroups that the journal's database keeps sums of."""
    with closing(sqlite3.connect(f"file:{state}/journal.db?mode=ro", uri=True)) as journal:
        return {row for (row,) in journal.execute("SELECT cgroup_id FROM ledger")}


@pytest.mark.timeout(600 + 20 * CYCLES)
async def test_containers_come_and_go_and_leave_nothing_behind(
    docker_host: DockerHost, tmp_path: Path
) -> None:
    """No watch, descriptor or thread; of memory a name for each, which is bounded, and no sums."""
    async with daemon(tmp_path) as served, AsyncClient(served.socket) as client:
        assert served.process is not None
        pid = served.process.pid
        ids: list[str] = []

        async def cycles(first: int, count: int) -> Holdings:
            for number in range(first, first + count, AT_ONCE):
                few = (cycle(docker_host, number + one) for one in range(AT_ONCE))
                ids.extend(await asyncio.gather(*few))
            return await settled(pid, served.state, ids)

        warm = await cycles(0, AT_ONCE)
        last = await cycles(AT_ONCE, CYCLES)
        with suppress(TimeoutError):
            # gRPC's threads end when they were idle for a minute.
            async with asyncio.timeout(SECONDS):
                while last.grown(warm, MAY_GROW):
                    await asyncio.sleep(1)
                    last = holdings(pid, served.state)
        sys.stderr.write(f"\nwarm: {warm}\n{len(ids)} containers later: {last}\n")
        assert not last.grown(warm, MAY_GROW)
        exist = {path.stat().st_ino for path in (ROOT, *ROOT.rglob("*")) if path.is_dir()}
        assert ledger(served.state) <= exist
        kills = [entry.event async for entry in client.list_events(Earliest())]
        told = [kill for kill in kills if isinstance(kill, OomKill) and kill.amends is None]
        assert sum(kill.kill_count or 0 for kill in told) == len(ids) // 2


async def settled(pid: int, state: Path, ids: list[str]) -> Holdings:
    """Wait until each of these containers is known to have ended, once; say what is held then."""
    kept: list[dict[str, object]] = []

    def over() -> list[str]:
        return sorted(str(life["container_id"]) for life in kept if life.get("ended_time"))

    def wrong() -> list[dict[str, object]]:
        """The lives of the containers that have not just one that ended."""
        ended = over()
        lived = [life["container_id"] for life in kept]
        return [
            life
            for life in kept
            if not ended.count(str(life["container_id"])) == lived.count(life["container_id"]) == 1
        ]

    end = time.monotonic() + SECONDS
    while over() != sorted(ids) or len(kept) != len(ids):
        assert time.monotonic() < end, f"{len(kept)} lives of {len(ids)} containers: {wrong()}"
        await asyncio.sleep(0.5)
        kept = [life for life in lives(state) if life["container_id"] in ids]
    # What the daemon still did for the last of them: a look at Docker, a commit.
    await asyncio.sleep(2)
    return holdings(pid, state)
