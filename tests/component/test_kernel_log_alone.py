"""The kernel's log without any counter, on hosts whose memory controller is bound to cgroup v1."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from oomwatch.cgroup.hierarchy import DEFAULT_ROOT, locate
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.errors import CgroupError, NoMemoryController
from oomwatch.events import Confidence, OomKill, Scope
from oomwatch.sources.kernel_log.clock import Anchor
from oomwatch.sources.kernel_log.kmsg import clocks
from oomwatch.sources.kernel_log.systemd import Missing, read_missing

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


async def with_a_report(watcher: Watcher, cgroup: Path) -> OomKill:
    """Kill until one is told with its limit: of many on this host the kernel reports a few."""
    for _ in range(20):
        pid = await killed_in(cgroup)
        (kill,) = [
            kill for kill in await told(watcher, pid) if pid in [v.pid for v in kill.victims]
        ]
        if kill.limit_cgroup is not None:
            return kill
        await asyncio.sleep(1)
    raise AssertionError("the kernel printed no report in 20 seconds")


async def test_a_real_kill_is_told_from_the_log_alone(v1_cgroup: Path) -> None:
    async with Watcher(Config()) as watcher:
        assert watcher.witnesses.notice is not None
        assert "kernel_log" in watcher.witnesses.notice
        status = await watcher.status()
        assert {state.name: state.active for state in status.sources}["memory_events"] is False
        forge()
        kill = await with_a_report(watcher, v1_cgroup)
    assert kill.victims[0].comm == "tail"
    assert kill.victim_cgroup == kill.limit_cgroup == f"/{v1_cgroup.name}"
    assert (kill.scope, kill.confidence) == (Scope.CONTAINER_LIMIT, Confidence.CONFIRMED)
    assert kill.kill_count == 1


def test_tail_does_not_say_that_it_watches_cgroups_where_it_cannot() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "oomwatch", "tail"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline().startswith(b"TIME ")
        tail.send_signal(signal.SIGINT)
        first, second = tail.stderr.read().decode().splitlines()
        assert tail.wait() == 130
    assert first.endswith("Watching by kernel_log alone")
    assert second.endswith(": watching this host itself, from now on")


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
    # Another's kills may be among them: the log is this host's.
    mine = {before, watched, *down, last}
    ours = [kill for kill in kills if mine & {victim.pid for victim in kill.victims}]
    pids = [victim.pid for kill in ours for victim in kill.victims if victim.pid in mine]
    assert sorted(pids) == sorted([watched, *down, last])
    recovered = {v.pid for kill in ours if kill.recovered for v in kill.victims}
    assert recovered & mine == {*down, last}
    times = [kill.occur_time or 0 for kill in ours]
    assert times == sorted(times)


JOURNALD = "/lib/systemd/systemd-journald"
IN_A_NAMESPACE = f"""
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal
test -s /etc/machine-id || {{ echo {"1" * 32} > /run/machine-id; \
    mount --bind /run/machine-id /etc/machine-id; }}
exec {JOURNALD}
"""


@pytest.fixture
async def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A real journald with a /run of its own, and a journalctl that sees it."""
    missing = [each for each in ("journalctl", "unshare", "nsenter") if not shutil.which(each)]
    if missing or not os.access(JOURNALD, os.X_OK):
        pytest.skip(f"needs systemd's journal, and {missing}")
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "sh", "-c", IN_A_NAMESPACE, stderr=asyncio.subprocess.DEVNULL
    )
    wrapper = tmp_path / "bin" / "journalctl"
    wrapper.parent.mkdir()
    real = shutil.which("journalctl")
    wrapper.write_text(f'#!/bin/sh\nexec nsenter --mount=/proc/{process.pid}/ns/mnt {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    try:
        async with asyncio.timeout(30):
            while not await kernel_lines():
                assert process.returncode is None, "journald ended"
                await asyncio.sleep(0.1)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def kernel_lines() -> bytes:
    """The journal's last record of the kernel."""
    journalctl = await asyncio.create_subprocess_exec(
        *("journalctl", "--dmesg", "--quiet", "--lines=1"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await journalctl.communicate()
    return output


@pytest.mark.usefixtures("journald")
async def test_a_real_kill_is_told_from_systemds_journal(v1_cgroup: Path, tmp_path: Path) -> None:
    """A real journald, its own restart of ours in between, and a line that user space forged."""
    config = Config(kernel_log=Path("journal"), state_dir=tmp_path / "state")
    before = await killed_in(v1_cgroup)
    async with Watcher(config) as watcher:
        forge()
        watched = await killed_in(v1_cgroup)
        await told(watcher, watched)
    down = await killed_in(v1_cgroup)
    kills: list[OomKill] = []
    for _ in range(2):
        async with Watcher(config) as watcher:
            kills = await told(watcher, down)
    pids = [victim.pid for kill in kills for victim in kill.victims]
    assert [pid for pid in pids if pid in (1, before, watched, down)] == [watched, down]


@pytest.mark.usefixtures("journald")
async def test_systemds_journal_has_what_the_buffer_lost(v1_cgroup: Path) -> None:
    begun = clocks()
    pid = await killed_in(v1_cgroup)
    missing = Missing(Anchor(begun.monotonic - 10**7, begun.wall), 1 << 62, 100, 1 << 40)
    said: list[bytes] = []
    async with asyncio.timeout(60):
        while not any(b"Killed process %d (" % pid in text for text in said):
            lines = await read_missing(missing)
            said = [line.record.text for line in lines]


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
