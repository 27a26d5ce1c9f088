"""One daemon in a cgroup of 96 MiB, and what may befall it: nothing is lost or told twice.

`tests/component/test_faults.py` has the faults that need no kernel; an overflow of inotify's queue
is in `test_conservation.py`, and an overrun of the kernel's log in `test_log_place.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.event_json import event_loads
from oomwatch.events import OomKill
from scripts._soak import bounded
from scripts._soak.confined import Confined
from scripts._soak.kernel_tree import KernelTree
from scripts._soak.truth import JournalReader
from tests.kernel import workload
from tests.kernel.watching import SECONDS, in_a_vm
from tests.kernel.workload import LIMIT, Scratch, kills_below, node_kills, wait_for

log = logging.getLogger(__name__)

STOPPED_SECONDS = float(os.environ.get("OOMWATCH_STOPPED_SECONDS", "5"))
REPORTS_SECONDS = 5.5
"""The kernel reports ten kills in five seconds (`oom_rs`, mm/oom_kill.c): without its report a
victim that is reaped at once has no cgroup, and nothing says when the next will be printed."""

THRASHED_SECONDS = float(os.environ.get("OOMWATCH_THRASHED_SECONDS", "5"))


@dataclass
class Told:
    """What the daemon wrote down, and what the kernel counted since it began."""

    daemon: Confined
    journal: JournalReader
    before: int = field(default_factory=node_kills)

    def kills(self) -> list[OomKill]:
        """Every kill told, amendments included, in order."""
        self.journal.read()
        events = map(event_loads, self.journal.written.values())
        return [event for event in events if isinstance(event, OomKill)]

    def count(self, cgroup: str = "/") -> int:
        """Kills told at and below a cgroup."""
        return sum(
            kill.kill_count or 0
            for kill in self.kills()
            if f"{kill.victim_cgroup or kill.survivor_cgroup}/".startswith(cgroup.rstrip("/") + "/")
        )

    def conserved(self, scratch: Scratch | None = None) -> None:
        """All is told, once; and what was told stays as it is, in order."""
        wait_for(lambda: self.count() >= node_kills() - self.before, SECONDS)
        # Whatever is told twice comes when an audit does, or a name.
        time.sleep(1.0)
        # The node may kill on meanwhile: what is told twice stays too many.
        wait_for(lambda: self.count() == node_kills() - self.before, SECONDS)
        if scratch is not None:
            assert self.count(scratch.cgroup) == kills_below(scratch.path)
        self.journal.check()
        assert not self.journal.differences
        assert self.daemon.alive

    def named(self, victims: dict[int, str]) -> None:
        """Each of these pids is told of once, as killed in its cgroup."""

        def where() -> dict[int, set[tuple[str, str | None]]]:
            found: dict[int, set[tuple[str, str | None]]] = {pid: set() for pid in victims}
            for kill in self.kills():
                for victim in kill.victims:
                    if victim.pid in found:
                        found[victim.pid].add((kill.episode_id, kill.victim_cgroup))
            return found

        with contextlib.suppress(TimeoutError):
            wait_for(lambda: all(where().values()), 10.0)
        assert {pid: [cgroup for _, cgroup in told] for pid, told in where().items()} == {
            pid: [cgroup] for pid, cgroup in victims.items()
        }


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """One daemon for all: a start takes 10 s and more under emulation."""
    directory = tmp_path_factory.mktemp("confined")
    with Confined(directory) as daemon:
        yield Told(daemon, JournalReader(daemon.state))


@pytest.fixture
def told(only: Told) -> Told:
    """The daemon, alive, however it was left."""
    if not only.daemon.alive:
        only.daemon.start()
    return only


@pytest.mark.timeout(300)
def test_kills_by_the_hundred_are_told_in_96_mebibytes(told: Told) -> None:
    """`scripts/soak --bounded` does it with 10,000."""
    with KernelTree("bounded") as tree:
        bounded.run(
            tree, told.daemon, kills=150, cgroups=50, subscribers=6, seconds=12.0, say=print
        )
    told.conserved()


def test_stopped_and_continued_it_tells_what_happened_meanwhile(told: Told) -> None:
    time.sleep(REPORTS_SECONDS)
    with Scratch("stopped") as scratch:
        scratch.hand_down()
        kept = [scratch.make(f"kept{number}", limit=LIMIT) for number in range(3)]
        told.daemon.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        victims: dict[int, str] = {}
        for number in range(3):
            gone = scratch.make(f"gone{number}", limit=LIMIT)
            victims |= killed(scratch, gone)
            workload.remove(gone)
        for cgroup in kept:
            victims |= killed(scratch, cgroup)
        time.sleep(max(0.0, begun + STOPPED_SECONDS - time.monotonic()))
        told.daemon.process.send_signal(signal.SIGCONT)
        told.conserved(scratch)
        told.named(victims)


@in_a_vm
def test_a_clock_that_is_set_back_and_forward_loses_and_doubles_nothing(told: Told) -> None:
    with Scratch("clock") as scratch, wall_clock() as later:
        scratch.hand_down()
        cgroups = [scratch.make(f"c{number}", limit=LIMIT) for number in range(3)]
        victims: dict[int, str] = {}
        for seconds in (-3600, 86400, 0):
            time.sleep(REPORTS_SECONDS)
            hogs = {scratch.hog(cgroup).pid: cgroup for cgroup in cgroups}
            later(seconds)
            gone = scratch.make(f"gone{seconds}", limit=LIMIT)
            victims |= killed(scratch, gone)
            workload.remove(gone)
            for process in scratch.processes:
                process.wait(SECONDS)
            victims |= {pid: f"{scratch.cgroup}/{path.name}" for pid, path in hogs.items()}
            told.conserved(scratch)
        told.named(victims)


@in_a_vm
@pytest.mark.timeout(300)
async def test_it_answers_while_the_node_thrashes(told: Told) -> None:
    pid = told.daemon.process.pid
    with Scratch("thrash") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with AsyncClient(told.daemon.socket) as client:
            calm = await answers(client, 2.0)
            with workload.little_memory(128 << 20), thrashing():
                refaults, faults = node_refaults(), major_faults(pid)
                busy = await answers(client, THRASHED_SECONDS)
                refaults, faults = node_refaults() - refaults, major_faults(pid) - faults
                scratch.hog(cgroup)
                told.conserved(scratch)
        log.info("GetStatus calm: %s; thrashing: %s", calm, busy)
        log.info("%d pages read again, %d faults of the daemon's", refaults, faults)
        assert "VmLck:\t       0 kB" not in Path(f"/proc/{pid}/status").read_text()
        # Otherwise nothing thrashed.
        assert refaults > 100 * THRASHED_SECONDS
        assert faults < 10


@pytest.mark.timeout(300)
def test_itself_the_victim_it_says_so_at_its_next_start(told: Told) -> None:
    daemon = told.daemon
    pid = daemon.process.pid
    limit = daemon.cgroup / "memory.max"
    before = limit.read_text()
    limit.write_text(str(LIMIT))
    assert daemon.process.wait(SECONDS) == -signal.SIGKILL
    limit.write_text(before)
    daemon.start()
    told.conserved()
    told.named({pid: f"/{daemon.cgroup.name}"})
    assert told.kills()[-1].recovered
    wait_for(lambda: f"(process {pid}) was killed for want of memory" in daemon.log.read_text())


def killed(scratch: Scratch, cgroup: Path) -> dict[int, str]:
    """Have a process killed; who it was, and where."""
    hog = scratch.hog(cgroup)
    assert hog.wait(SECONDS) == -signal.SIGKILL
    return {hog.pid: f"{scratch.cgroup}/{cgroup.name}"}


@contextmanager
def wall_clock() -> Iterator[Callable[[float], None]]:
    """Set the clock to so many seconds beside the truth; it is put right at the end."""
    truth = time.time() - time.monotonic()

    def beside(seconds: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, truth + time.monotonic() + seconds)

    try:
        yield beside
    finally:
        beside(0)


@contextmanager
def thrashing() -> Iterator[None]:
    """Two processes read again and again what does not fit into memory."""
    disk = str(workload.ram_disk())
    command = (sys.executable, "-I", "-S", workload.__file__, "thrash", disk)
    readers = [subprocess.Popen(command) for _ in range(2)]
    try:
        before = node_refaults()
        wait_for(lambda: node_refaults() > before + 1000)
        yield
        assert all(reader.poll() is None for reader in readers), "who thrashes was killed"
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def node_refaults() -> int:
    """Pages of files that were read anew after they had been dropped for want of memory."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    figures = {name: int(value) for name, value in (line.split() for line in lines)}
    return next(
        figures[name]
        for name in ("workingset_refault_file", "workingset_refault")  # the latter to 5.8
        if name in figures
    )


def major_faults(pid: int) -> int:
    """Pages that a process waited for (man 5 proc_pid_stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[9])


async def answers(client: AsyncClient, seconds: float) -> str:
    """Ask for its status again and again; how long it took. Fails where it does not answer."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        async with asyncio.timeout(SECONDS / 4):
            await client.get_status()
        took.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(0.05)
    took.sort()
    return (
        f"p50 {statistics.median(took):.0f} ms, p99 {took[len(took) * 99 // 100]:.0f}, "
        f"max {took[-1]:.0f}, of {len(took)}"
    )
