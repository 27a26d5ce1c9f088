"""The kernel log across restarts, overruns and what takes it away, while real kills go on."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.daemon import Watcher
from oomwatch.events import EvidenceGap, OomKill
from oomwatch.rpc.server import RpcServer
from tests.component.faults import seen_degraded
from tests.kernel import workload
from tests.kernel.test_daemon import COMMAND, Daemon, daemon
from tests.kernel.watching import SECONDS, watching
from tests.kernel.workload import LIMIT, Scratch, kills_below

REPORTS_EVERY_SECONDS = 5.5
"""The kernel prints ten reports in five seconds (mm/oom_kill.c, oom_rs): after a pause, these."""


async def journaled(watcher: Watcher) -> list[OomKill]:
    """Every kill and amendment in the journal."""
    entries = await watcher.journal.read(0, 10_000)
    return [entry.event for entry in entries if isinstance(entry.event, OomKill)]


def named(kills: list[OomKill], cgroup: str) -> dict[int, str | None]:
    """Who was named below a cgroup, and where."""
    ours = [kill for kill in kills if (kill.victim_cgroup or "").startswith(cgroup + "/")]
    return {victim.pid: kill.victim_cgroup for kill in ours for victim in kill.victims}


def counted(kills: list[OomKill], cgroup: str) -> int:
    """Kills told below a cgroup."""
    return sum(
        kill.kill_count or 0
        for kill in kills
        if (kill.victim_cgroup or kill.survivor_cgroup or "").startswith(cgroup)
    )


async def until(watcher: Watcher, cgroup: str, pids: set[int]) -> list[OomKill]:
    """Wait until these were named; return what was told."""
    kills: list[OomKill] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while not pids <= named(kills := await journaled(watcher), cgroup).keys():
                await asyncio.sleep(0.05)
    assert pids <= named(kills, cgroup).keys(), "\n".join(map(str, kills))
    return kills


@asynccontextmanager
async def deaf(watcher: Watcher) -> AsyncIterator[None]:
    """Let the naming witnesses hear nothing meanwhile, as where they are slow."""
    log, trace = watcher.witnesses.naming
    loop = asyncio.get_running_loop()
    feed = log._feed  # type: ignore[union-attr]
    loop.remove_reader(feed._fd)  # type: ignore[union-attr]
    await trace.stop()
    yield
    loop.add_reader(feed._fd, feed._wake)  # type: ignore[union-attr]


@contextmanager
def user_space_may_log() -> Iterator[None]:
    """Else the kernel takes ten lines in five seconds."""
    knob = Path("/proc/sys/kernel/printk_devkmsg")
    before = knob.read_text()
    knob.write_text("on\n")  # without its newline it is refused
    try:
        yield
    finally:
        knob.write_text(before)


def flood(lines: int = 6000) -> None:
    """Turn the kernel's buffer over."""
    with user_space_may_log(), Path("/dev/kmsg").open("wb", buffering=0) as kmsg:
        for number in range(lines):
            kmsg.write(f"<15>flood {number} ".encode() + b"x" * 800)


def killed(scratch: Scratch, cgroups: Sequence[Path]) -> dict[int, str]:
    """Kill once in each of some cgroups, and in one that comes and goes: where each pid was."""
    where = {}
    gone = scratch.make("gone", limit=LIMIT)
    for cgroup in (*cgroups, gone):
        hog = scratch.hog(cgroup)
        hog.wait()
        where[hog.pid] = f"{scratch.cgroup}/{cgroup.name}"
    workload.remove(gone)
    return where


@pytest.mark.timeout(300)
async def test_the_kills_of_a_downtime_have_their_names(tmp_path: Path) -> None:
    with Scratch("down") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(3)]
        where = {}
        old = scratch.hog(cgroups[0])
        old.wait()
        async with watching(tmp_path) as told:
            hog = scratch.hog(cgroups[0])
            where[hog.pid] = f"{scratch.cgroup}/c0"
            await until(told.watcher, scratch.cgroup, set(where))
        await asyncio.sleep(REPORTS_EVERY_SECONDS)
        where |= killed(scratch, cgroups)
        for _ in range(2):
            async with watching(tmp_path) as told:
                kills = await until(told.watcher, scratch.cgroup, set(where))
                await told.quiet()
        kills = [k for k in kills if (k.victim_cgroup or "").startswith(scratch.cgroup)]
        assert named(kills, scratch.cgroup) == where
        # One kill is older than the first start.
        assert counted(kills, scratch.cgroup) == kills_below(scratch.path) - 1
        whole = [victim.pid for kill in kills if kill.kill_count for victim in kill.victims]
        assert len(whole) == len(set(whole))
        recovered = [kill for kill in kills if kill.recovered and kill.kill_count]
        assert len(recovered) == 4
        for kill in recovered:
            assert kill.occur_time is not None
            assert kill.victims[0].anon_rss_bytes
            assert kill.limit_cgroup == kill.victim_cgroup


@pytest.mark.timeout(300)
async def test_a_kill_told_before_a_crash_is_amended_after_it(tmp_path: Path) -> None:
    """Its event was committed, its line was not read: the next start has the line, and one kill."""
    with Scratch("crash") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        await asyncio.sleep(REPORTS_EVERY_SECONDS)
        async with watching(tmp_path / "before") as told, deaf(told.watcher):
            first = scratch.hog(cgroup)
            await told.until(lambda: told.count(scratch.cgroup) == 1)
            first.wait()
            assert told.below(scratch.cgroup)[0].victims == ()
            # What a crash leaves behind.
            shutil.copytree(tmp_path / "before", tmp_path / "after")
        meanwhile = scratch.hog(cgroup)
        meanwhile.wait()
        async with watching(tmp_path / "after") as told:
            pids = {first.pid, meanwhile.pid}
            kills = await until(told.watcher, scratch.cgroup, pids)
            await told.quiet()
        ours = [kill for kill in kills if kill.victim_cgroup == f"{scratch.cgroup}/c"]
        assert counted(ours, scratch.cgroup) == 2
        by_pid = {victim.pid: kill for kill in ours for victim in kill.victims}
        assert by_pid[first.pid].amends is not None
        assert by_pid[meanwhile.pid].recovered
        assert sum(len(kill.victims) for kill in ours) == 2


@pytest.mark.any_kernel
@pytest.mark.timeout(600)
async def test_whenever_the_daemon_is_killed_each_victim_is_named_once(tmp_path: Path) -> None:
    with Scratch("sigkill") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(2)]
        pids: dict[int, str] = {}
        async with daemon(tmp_path) as served:
            for round_ in range(4):
                await asyncio.sleep(REPORTS_EVERY_SECONDS)
                for cgroup in cgroups:
                    hog = scratch.hog(cgroup)
                    pids[hog.pid] = f"{scratch.cgroup}/{cgroup.name}"
                scratch.processes[-1 - round_ % 2].wait()
                assert await served.end(signal.SIGKILL) == -signal.SIGKILL
                for process in scratch.processes:
                    process.wait()
                await served.start()
            kills = await all_told(served, scratch, set(pids))
        assert counted(kills, scratch.cgroup) == kills_below(scratch.path) == len(pids)
        assert named(kills, scratch.cgroup) == pids
        whole = [kill for kill in kills if kill.kill_count is not None]
        again = [victim.pid for kill in whole for victim in kill.victims]
        assert len(again) == len(set(again))


async def all_told(served: Daemon, scratch: Scratch, pids: set[int]) -> list[OomKill]:
    """Wait until these were named, and return what the daemon told."""
    kills: list[OomKill] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS), AsyncClient(served.socket) as client:
            while not pids <= named(kills, scratch.cgroup).keys():
                await asyncio.sleep(0.2)
                entries = [entry async for entry in client.list_events()]
                kills = [e.event for e in entries if isinstance(e.event, OomKill)]
    return kills


@dataclass(frozen=True, slots=True)
class Node:
    """This machine."""

    root: Path = workload.ROOT

    def kills(self, path: str) -> int:
        return workload.kills_below(self.root / path.lstrip("/"))


@dataclass(frozen=True, slots=True)
class Here:
    """The daemon in this process."""

    socket: Path
    tree: Node


@pytest.mark.timeout(600)
async def test_an_overrun_is_said_and_every_kill_still_counted(tmp_path: Path) -> None:
    with Scratch("overrun") as scratch:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(4)]
        async with watching(tmp_path) as told:
            for cgroup in cgroups:
                scratch.hog(cgroup)
            flood()  # and the loop reads nothing meanwhile
            await told.until(lambda: told.count(scratch.cgroup) == 4)
            await told.until(lambda: bool(told.gaps))
            await told.conserved(scratch)
            (gap, *_) = told.gaps
            assert gap.source == "kernel_log"
            assert gap.lost_count is not None
            assert gap.lost_count > 100
            async with RpcServer(told.watcher, socket=tmp_path / "o.sock"):
                here = Here(tmp_path / "o.sock", Node())
                words = "the kernel log was overwritten before it could be read"
                now = await asyncio.to_thread(seen_degraded, here, words, "kernel_log")
                assert f"{gap.lost_count} records were lost" in now.degraded["kernel_log"]
            # The witness goes on.
            await asyncio.sleep(REPORTS_EVERY_SECONDS)
            hog = scratch.hog(cgroups[0])
            await until(told.watcher, scratch.cgroup, {hog.pid})
        scratch.hog(cgroups[0]).wait()
        flood()
        async with watching(tmp_path) as told:
            async with asyncio.timeout(SECONDS):
                while counted(await journaled(told.watcher), scratch.cgroup) < 6:
                    await asyncio.sleep(0.05)
            entries = await told.watcher.journal.read(0, 10_000)
            gaps = [e.event for e in entries if isinstance(e.event, EvidenceGap)]
            assert "while nobody read it" in gaps[-1].reason
            assert gaps[-1].lost_count
            assert gaps[-1].lost_count > 1000
            assert counted(await journaled(told.watcher), scratch.cgroup) == 6


@pytest.mark.timeout(300)
async def test_a_summary_in_pieces_is_read_as_one() -> None:
    """Two long paths pass the kernel's longest record."""
    with Scratch("pieces") as scratch:
        scratch.hand_down()
        names = [f"{letter * 200}" for letter in "abc"]
        scratch.make(names[0], below=True)
        scratch.make("/".join(names[:2]), below=True)
        leaf = scratch.make("/".join(names), limit=LIMIT)
        await asyncio.sleep(REPORTS_EVERY_SECONDS)
        async with watching() as told:
            hog = scratch.hog(leaf)
            # The tracepoint may be first, and the log amend.
            await told.until(lambda: any(kill.invoker for kill in told.kills))
            await told.conserved(scratch)
        # And amend again, where the tracepoint comes after it.
        named = [kill for kill in told.below(scratch.cgroup, amendments=True) if kill.invoker]
        assert {victim.pid for kill in named for victim in kill.victims} == {hog.pid}
        for kill in named:
            assert kill.victim_cgroup == kill.limit_cgroup == f"{scratch.cgroup}/{'/'.join(names)}"
            assert {victim.uid for victim in kill.victims} == {0}


WITHOUT = (
    *("unshare", "--mount", "sh", "-c"),
    'umount /sys/kernel/tracing; exec setpriv --bounding-set=-syslog,-sys_admin "$@"',
    "sh",
)
"""Neither CAP_SYSLOG (nor what older kernels take for it) nor tracefs."""


@pytest.mark.timeout(300)
async def test_without_the_log_and_tracefs_it_says_so_and_counts(tmp_path: Path) -> None:
    restrict = Path("/proc/sys/kernel/dmesg_restrict")
    before = restrict.read_text()
    restrict.write_text("1")
    try:
        with Scratch("blind") as scratch:
            scratch.hand_down()
            cgroup = scratch.make("c", limit=LIMIT)
            async with daemon(tmp_path, WITHOUT) as served, AsyncClient(served.socket) as client:
                states = {state.name: state for state in (await client.get_status()).sources}
                assert not states["kernel_log"].active
                assert "CAP_SYSLOG" in states["kernel_log"].detail
                assert not states["tracepoint"].active
                assert states["memory_events"].active
                scratch.hog(cgroup).wait()
                async with asyncio.timeout(SECONDS):
                    while not (told := [e.event async for e in client.list_events()]):
                        await asyncio.sleep(0.1)
            (kill,) = [each for each in told if isinstance(each, OomKill)]
            assert kill.victim_cgroup == f"{scratch.cgroup}/c"
            assert (kill.kill_count, kill.victims) == (1, ())
            doctor = await asyncio.create_subprocess_exec(
                *(*WITHOUT, sys.executable, *COMMAND[1:], "doctor", "-o", "json"),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await doctor.communicate()
            assert doctor.returncode == 0
            assert b"kernel.dmesg_restrict is 1" in said
    finally:
        restrict.write_text(before)
