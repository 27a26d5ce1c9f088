"""systemd's journal as it is, kept by a real journald: what it has of the kernel's log."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from oomwatch.events import Entry, EvidenceGap, OomKill
from oomwatch.sources.kernel_log.source import DEFAULT_KERNEL_LOG, SYSTEMD_JOURNAL
from tests.kernel.test_log_place import (
    REPORTS_EVERY_SECONDS,
    counted,
    flood,
    killed,
    named,
    until,
)
from tests.kernel.watching import SECONDS, watching
from tests.kernel.workload import LIMIT, Scratch, kills_below
from tests.runtimes.workloads import only_where_all


def in_the_ring(pid: int) -> bool:
    """Has the kernel's buffer a line on the death of a process?"""
    wanted = f"Killed process {pid} ".encode()
    descriptor = os.open(DEFAULT_KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                if wanted in os.read(descriptor, 8192):
                    return True
            except BrokenPipeError:
                continue  # overwritten meanwhile
            except BlockingIOError:
                return False
    finally:
        os.close(descriptor)


async def in_the_journal(pids: set[int]) -> None:
    """Wait until journald has written down a line on the death of each."""
    wanted = {f"Killed process {pid} " for pid in pids}
    command = ("journalctl", "--quiet", "--no-pager", "--dmesg", "--output=cat")
    async with asyncio.timeout(SECONDS):
        while True:
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            if all(words in done.stdout for words in wanted):
                return
            await asyncio.sleep(0.5)


def pids_of(kill: OomKill) -> set[int | None]:
    """Whom it names."""
    return {victim.pid for victim in kill.victims}


@only_where_all
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("journald")
@pytest.mark.parametrize("log", [DEFAULT_KERNEL_LOG, SYSTEMD_JOURNAL], ids=["kmsg", "journal"])
async def test_the_journal_names_the_kills_of_a_downtime_that_the_ring_has_lost(
    tmp_path: Path, log: Path
) -> None:
    with Scratch(f"ring-{log.name}") as scratch:
        scratch.hand_down()
        kept = [scratch.make(f"kept{number}", limit=LIMIT) for number in range(2)]
        async with watching(tmp_path, kernel_log=log) as told:
            hog = scratch.hog(kept[0])
            where = {hog.pid: f"{scratch.cgroup}/kept0"}
            await until(told.watcher, scratch.cgroup, set(where))
            await told.quiet()
            newest = told.watcher.journal.newest_revision
        before = set(where)
        await asyncio.sleep(REPORTS_EVERY_SECONDS)
        where |= killed(scratch, kept)
        await in_the_journal(set(where))
        flood()
        assert not any(map(in_the_ring, where))
        entries: list[Entry] = []
        for _ in range(2):
            async with watching(tmp_path, kernel_log=log) as told:
                kills = await until(told.watcher, scratch.cgroup, set(where))
                await told.quiet()
                entries = await told.watcher.journal.read(0, 10_000)
        kills = [
            k
            for k in kills
            if (k.victim_cgroup or k.survivor_cgroup or "").startswith(scratch.cgroup)
        ]
        assert named(kills, scratch.cgroup) == where
        assert counted(kills, scratch.cgroup) == kills_below(scratch.path)
        new = [entry.event for entry in entries if entry.revision > newest]
        late = [each for each in new if isinstance(each, OomKill) and not before & pids_of(each)]
        assert all(kill.recovered for kill in late)
        pids = [victim.pid for kill in late for victim in kill.victims]
        assert sorted(pids) == sorted(where.keys() - before), "each is named once"
        gaps = [entry.event for entry in entries if isinstance(entry.event, EvidenceGap)]
        # The journal lacks nothing; of the ring it is said what it had lost.
        assert bool(gaps) is (log == DEFAULT_KERNEL_LOG)
