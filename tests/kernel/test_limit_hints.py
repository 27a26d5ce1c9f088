"""Signs that memory was short, at ends of which no counter could be read: hints, and never proof.

What is at its limit here fills it with page cache, as any program does that reads files: the kernel
makes room again and again, and kills nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import Container, ContainerExit
from oomwatch.verdict import evidence
from tests.kernel import workload
from tests.kernel.test_daemon import daemon
from tests.kernel.test_verdicts import NOT_CONFIRMED, UNKNOWN_MEDIUM, Worker, ruled
from tests.kernel.watching import SECONDS, Told, watching
from tests.kernel.workload import LIMIT, MEBIBYTE, Scratch, counters, remove

HINTED = "memory was short as it ended, which is a hint and no proof"
AT_ITS_LIMIT = "it was at its limit "
WAITED = ", with processes waiting for memory "
TRIES = 5

PAGE, HELD = 4096, 64 * MEBIBYTE
HOLD = f"busybox dd if=/dev/zero of=/dev/null bs={HELD} count=100000"

WITHOUT_CGROUPS = ("unshare", "--mount", "sh", "-c", 'umount -l /sys/fs/cgroup; exec "$@"', "sh")


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch("hints") as made:
        made.hand_down()
        yield made


@pytest.fixture
def reading() -> str:
    """What fills a container's limit with page cache, and goes on."""
    disk = str(workload.ram_disk())
    return "exec busybox cat " + " ".join([disk] * 100)


async def at_its_limit(told: Told) -> None:
    """Wait until a watcher has seen something at its limit."""
    assert told.watcher.memory_events is not None
    hits = told.watcher.memory_events.tree.limit_hits
    await told.until(lambda: any(hit.time for hit in hits.values()))


async def test_the_counters_are_taken_away_from_a_container_at_its_limit(
    scratch: Scratch, reading: str
) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        process, cgroup = await worker.start("c", reading)
        await at_its_limit(told)
        (scratch.path / "cgroup.subtree_control").write_text("-memory")
        assert not (cgroup / "memory.events").exists()
        process.kill()
        exit_ = await worker.finish("c", process)
        assert_hinted(exit_)


async def test_a_container_that_was_hardly_watched_is_removed_at_its_limit(
    scratch: Scratch, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is older than the watching: what was killed in it before is in no sum that was read."""
    # Two seconds are over before an emulated machine has begun to watch.
    monkeypatch.setattr(evidence, "NEAR_MICROSECONDS", int(SECONDS * 1e6))
    cgroup = scratch.make("c", limit=LIMIT)
    process = scratch.start(cgroup, reading)
    workload.wait_for(lambda: counters(cgroup)["max"] > 0)
    async with watching() as told:
        worker = Worker(told, scratch)
        await told.watcher.watch_container(Container(id="c"), pid=process.pid)
        await at_its_limit(told)
        process.kill()
        ended = time.time_ns() // 1000
        await asyncio.to_thread(process.wait, SECONDS)
        remove(cgroup)
        assert_hinted(await worker.ask("c", exit_code=137, exit_time=ended))


async def test_at_its_limit_and_killed_by_hand_is_no_oom_where_the_counters_say_so(
    scratch: Scratch, reading: str
) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        process, cgroup = await worker.start("c", reading)
        await at_its_limit(told)
        await told.until(lambda: int((cgroup / "memory.current").read_text()) >= LIMIT * 95 // 100)
        process.kill()
        exit_ = await worker.finish("c", process)
        assert ruled(exit_) == NOT_CONFIRMED, exit_
        assert exit_.reasons[0].startswith("SIGKILL, and not by the kernel's OOM killer"), exit_
        assert exit_.oom_kills == 0


@pytest.mark.any_kernel
async def test_the_usage_sampled_last_where_there_are_no_counters_at_all(
    tmp_path: Path, scratch: Scratch
) -> None:
    """Without cgroup v2 a container is its processes, and its limit what its worker says."""
    cgroup = scratch.make("c")
    async with daemon(tmp_path, WITHOUT_CGROUPS) as served, AsyncClient(served.socket) as client:
        for attempt in range(1, TRIES + 1):
            process = scratch.start(cgroup, f"exec {HOLD}")
            statm = Path(f"/proc/{process.pid}/statm")
            workload.wait_for(lambda at=statm: int(at.read_text().split()[1]) * PAGE > HELD)
            await client.watch_container(
                Container(id=f"c{attempt}"), pid=process.pid, memory_limit_bytes=HELD + MEBIBYTE
            )
            # Nobody tells that a sample was taken. The first is, at once, but for what an emulated
            # machine needs to load psutil; the next is a hundred and fifty times its cost away.
            await asyncio.sleep(15 * attempt)
            process.kill()
            await asyncio.to_thread(process.wait, SECONDS)
            exit_ = (await client.finalize(f"c{attempt}", exit_code=137)).event
            assert isinstance(exit_, ContainerExit)
            used = [reason for reason in exit_.reasons if "when last sampled" in reason]
            if used:
                assert ruled(exit_) == UNKNOWN_MEDIUM, exit_
                assert exit_.reasons[0].startswith(HINTED), exit_
                assert f"of its limit of {HELD // MEBIBYTE + 1} MiB (" in used[0]
                return
    raise AssertionError("it was never sampled")


def assert_hinted(exit_: ContainerExit) -> None:
    """It may have been for want of memory, and what points to it is named."""
    assert ruled(exit_) == UNKNOWN_MEDIUM, exit_
    assert exit_.reasons[0].startswith(HINTED), exit_
    hint = next(reason for reason in exit_.reasons if reason.startswith(AT_ITS_LIMIT))
    assert WAITED in hint
