"""The kernel's log without any counter, on hosts whose memory controller is bound to cgroup v1."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.cgroup.hierarchy import DEFAULT_ROOT, locate
from oomwatch.daemon import Config, Watcher
from oomwatch.errors import CgroupError, NoMemoryController
from oomwatch.events import Confidence, OomKill, Scope
from oomwatch.subscriptions import EventFilter, Latest

LIMIT = 16 << 20
V1 = Path("/sys/fs/cgroup/memory")


def why_not() -> str | None:
    """What this host lacks, or has too much of, for a kill that only its log tells of."""
    if os.geteuid() != 0 or not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        return "needs root and /dev/kmsg"
    try:
        locate(DEFAULT_ROOT)
    except CgroupError:
        return None if (V1 / "memory.limit_in_bytes").exists() else "no cgroup v1 memory either"
    return "this host has cgroup v2 memory: tests/kernel kills there"


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def v1_cgroup() -> Iterator[Path]:
    path = V1 / f"oomwatch-test-{os.getpid()}"
    path.mkdir()
    (path / "memory.limit_in_bytes").write_text(str(LIMIT))
    yield path
    path.rmdir()


def forge() -> None:
    """Write a kill into the log as user space can: it is nobody's word."""
    Path("/dev/kmsg").write_text(
        "<3>Memory cgroup out of memory: Killed process 1 (init) total-vm:1kB, "
        "anon-rss:1kB, file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n"
    )


async def killed_in(cgroup: Path) -> int:
    """Have a process killed at a cgroup's limit; return its pid."""
    hog = await asyncio.create_subprocess_exec(
        "sh", "-c", f"echo $$ > {cgroup}/cgroup.procs; exec tail /dev/zero"
    )
    assert await asyncio.wait_for(hog.wait(), 30) == -9
    return hog.pid


async def told(watcher: Watcher, pid: int) -> list[OomKill]:
    """Wait until a victim was told; return every kill in the journal."""
    async with asyncio.timeout(20):
        while True:
            entries = await watcher.journal.read(0, 1000)
            kills = [entry.event for entry in entries if isinstance(entry.event, OomKill)]
            if any(victim.pid == pid for kill in kills for victim in kill.victims):
                return kills
            await asyncio.sleep(0.02)


async def test_what_was_killed_while_nobody_watched_is_told_once(
    v1_cgroup: Path, tmp_path: Path
) -> None:
    """Nothing of before the first start; what came meanwhile at the next; none of it again."""
    before = await killed_in(v1_cgroup)
    async with Watcher(Config(state_dir=tmp_path)) as watcher:
        watched = await killed_in(v1_cgroup)
        await told(watcher, watched)
    down = [await killed_in(v1_cgroup) for _ in range(2)]
    for _ in range(2):
        async with Watcher(Config(state_dir=tmp_path)) as watcher:
            kills = await told(watcher, down[-1])
    last = await killed_in(v1_cgroup)
    async with Watcher(Config(state_dir=tmp_path)) as watcher:
        kills = await told(watcher, last)
    ours = [kill for kill in kills if kill.victim_cgroup == f"/{v1_cgroup.name}"]
    pids = [victim.pid for kill in ours for victim in kill.victims]
    assert sorted(pids) == sorted([watched, *down, last])
    assert before not in pids
    assert sum(kill.kill_count or 0 for kill in ours) == 4
    recovered = {v.pid for kill in ours if kill.recovered for v in kill.victims}
    assert recovered == {*down, last}
    assert all(kill.occur_time is not None for kill in ours)
    times = [kill.occur_time or 0 for kill in ours]
    assert times == sorted(times)


async def test_a_real_kill_is_told_from_the_log_alone(v1_cgroup: Path) -> None:
    async with Watcher(Config()) as watcher:
        assert watcher.notice is not None
        assert "kernel_log" in watcher.notice
        status = await watcher.status()
        assert {state.name: state.active for state in status.sources}["memory_events"] is False
        with await watcher.subscriptions.open(Latest(), EventFilter()) as subscription:
            forge()
            pid = await killed_in(v1_cgroup)
            async with asyncio.timeout(20):
                (entry,) = (await subscription.next()).entries
    kill = entry.event
    assert isinstance(kill, OomKill)
    assert [victim.pid for victim in kill.victims] == [pid]
    assert kill.victims[0].comm == "tail"
    assert kill.victim_cgroup == kill.limit_cgroup == f"/{v1_cgroup.name}"
    assert (kill.scope, kill.confidence) == (Scope.CONTAINER_LIMIT, Confidence.CONFIRMED)
    assert kill.kill_count == 1


@pytest.mark.skipif(
    Path("/sys/kernel/tracing/instances").is_dir(), reason="the tracepoint is to be had here"
)
async def test_without_a_log_there_is_nothing_left_to_watch() -> None:
    with pytest.raises(NoMemoryController, match="cgroup v2"):
        Watcher(Config(kernel_log=None))
    watcher = Watcher(Config(kernel_log=Path("/nonexistent/kmsg")))
    try:
        with pytest.raises(NoMemoryController, match="nothing else is to be had"):
            await watcher.start()
    finally:
        await watcher.stop()
