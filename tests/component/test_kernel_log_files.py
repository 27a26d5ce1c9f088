"""Logs that others write: a syslog's file across rotation, and systemd's journal by journalctl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomwatch.ledger import LogPlace
from oomwatch.observations import EvidenceLost, LogRead, Observation, VictimNamed
from oomwatch.sources import recent
from oomwatch.sources.kernel_log import SYSTEMD_JOURNAL, KernelLog, systemd
from oomwatch.sources.kernel_log.clock import Anchor
from oomwatch.sources.kernel_log.naming import Naming

SECONDS = 20.0


def report(pid: int, when: str = "Nov 22 06:40:46") -> str:
    prefix = f"{when} node1 kernel: [ 25.8] "
    return (
        f"{prefix}oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
        f"oom_memcg=/c,task_memcg=/c,task=hog,pid={pid},uid=0\n"
        f"{prefix}Memory cgroup out of memory: Killed process {pid} (hog) total-vm:9kB, "
        "anon-rss:5kB, file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0\n"
    )


class Heard:
    """What the witness said."""

    def __init__(self, witness: KernelLog) -> None:
        self.witness = witness
        self.said: list[Observation] = []

    def take(self, observations: Sequence[Observation]) -> None:
        self.said += observations

    @property
    def victims(self) -> list[VictimNamed]:
        return [each for each in self.said if isinstance(each, VictimNamed)]

    @property
    def pids(self) -> list[int]:
        return [each.victim.pid for each in self.victims]

    @property
    def gaps(self) -> list[EvidenceLost]:
        return [each for each in self.said if isinstance(each, EvidenceLost)]

    @property
    def place(self) -> LogPlace:
        """What would be committed, with nothing waiting."""
        read = [each for each in self.said if isinstance(each, LogRead)][-1]
        return LogPlace(read.log, read.begin, read.next, (), read.stamp, read.wall_time)

    async def until(self, true: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                while not true():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not so: {self.said}; {self.witness.state()}") from None


@asynccontextmanager
async def following(path: Path, place: LogPlace | None = None) -> AsyncIterator[Heard]:
    witness = KernelLog(path, place)
    heard = Heard(witness)
    await witness.start(heard.take)
    try:
        yield heard
    finally:
        await witness.stop()


def rename(path: Path, to: Path) -> None:
    path.rename(to)


def make_directory(path: Path) -> None:
    path.mkdir()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def cut(path: Path) -> None:
    path.write_text("")


@pytest.fixture
def kern_log(tmp_path: Path) -> Path:
    path = tmp_path / "kern.log"
    write(path, report(1))
    return path


async def test_what_was_there_is_old_and_what_comes_is_told(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        assert heard.witness.active
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
    (victim,) = heard.victims
    assert (victim.cgroup, victim.limit_cgroup, victim.recovered) == ("/c", "/c", False)
    assert victim.victim.anon_rss_bytes == 5120


async def test_half_a_line_waits_for_its_end(kern_log: Path) -> None:
    head, tail = report(2)[:-9], report(2)[-9:]
    write(kern_log, head)
    async with following(kern_log) as heard:
        write(kern_log, tail + report(3))
        await heard.until(lambda: 3 in heard.pids)
        assert heard.pids == [2, 3]


async def test_the_file_is_followed_when_it_is_renamed_and_made_anew(kern_log: Path) -> None:
    descriptors = open_descriptors()
    async with following(kern_log) as heard:
        for number in range(1, 4):
            old = kern_log.with_suffix(f".log.{number}")
            rename(kern_log, old)
            write(old, report(10 * number))
            write(kern_log, report(10 * number + 1))
            await heard.until(lambda n=number: 10 * n + 1 in heard.pids)  # type: ignore[misc]
            # The daemon writes to the old one until it is told.
            write(old, report(10 * number + 2))
            await heard.until(lambda n=number: len(heard.pids) == 3 * n)  # type: ignore[misc]
        assert sorted(heard.pids) == [10, 11, 12, 20, 21, 22, 30, 31, 32]
        assert heard.gaps == []
        # The watches' own, the file, and the one before it.
        assert open_descriptors() == descriptors + 3


async def test_the_file_is_followed_when_it_is_copied_and_cut(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
        shutil.copy(kern_log, kern_log.with_suffix(".1"))
        os.truncate(kern_log, 0)
        write(kern_log, report(3)[: len(report(3)) // 2])
        await heard.until(lambda: len(heard.gaps) == 1)
        write(kern_log, report(3)[len(report(3)) // 2 :])
        await heard.until(lambda: heard.pids == [2, 3])
        assert heard.gaps[0].count is None


async def test_a_restart_goes_on_where_it_was(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
    write(kern_log, report(3))
    async with following(kern_log, heard.place) as again:
        assert again.pids == [3]
        assert again.victims[0].recovered
        write(kern_log, report(4))
        await again.until(lambda: again.pids == [3, 4])
        assert not again.victims[1].recovered


async def test_a_restart_goes_on_where_the_first_start_began(kern_log: Path) -> None:
    """No line came between them: what the first found there is old for the second too."""
    async with following(kern_log) as heard:
        pass
    write(kern_log, report(2))
    async with following(kern_log, heard.place) as again:
        assert again.pids == [2]


async def test_a_restart_finds_the_file_that_was_rotated_meanwhile(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
    write(kern_log, report(3))
    rename(kern_log, kern_log.with_suffix(".log.1"))
    write(kern_log, report(4))
    async with following(kern_log, heard.place) as again:
        assert again.pids == [3, 4]
        assert again.gaps == []


async def test_a_restart_says_when_the_file_is_gone(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
    # Kept, so that its inode is not used again.
    rename(kern_log, kern_log.with_name("elsewhere"))
    write(kern_log, report(4))
    async with following(kern_log, heard.place) as again:
        assert again.pids == [4]
        assert len(again.gaps) == 1


async def test_a_file_that_is_not_there_is_followed_once_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    async with following(path) as heard:
        state = heard.witness.state()
        assert (state.active, state.degraded) == (False, True)
        assert str(path) in state.detail
        write(path, report(2))
        await heard.until(lambda: heard.pids == [2])
        assert heard.witness.state().active


async def test_what_cannot_be_read_any_more_is_said_until_it_can(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        rename(kern_log, kern_log.with_suffix(".1"))
        make_directory(kern_log)
        await heard.until(lambda: not heard.witness.active)
        assert "cannot be read any more" in heard.witness.state().detail
        rename(kern_log, kern_log.with_suffix(".d"))
        write(kern_log, report(2))
        await heard.until(lambda: heard.pids == [2])
        assert heard.witness.active


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with following(tmp_path / "none" / "kern.log") as heard:
        state = heard.witness.state()
        assert not state.active
        assert "kern.log" in state.detail


async def test_other_programs_lines_name_nobody(kern_log: Path) -> None:
    async with following(kern_log) as heard:
        write(kern_log, report(2).replace("kernel:", "forger[1]:") + report(3))
        await heard.until(lambda: heard.pids == [3])


# journalctl: a program that stands for it, since no journald runs here. It proves the child's life.

STAND_IN = """#!{python}
import json, os, sys, time
place = {place!r}
with open(place + "/calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
begin = 0
for argument in sys.argv[1:]:
    if argument.startswith("--after-cursor="):
        begin = int(argument.split("=")[1]) + 1
    if argument == "--lines=1":
        begin = max(0, len(open(place + "/entries").readlines()) - 1)
with open(place + "/pid", "w") as mine:
    mine.write(str(os.getpid()))
while True:
    entries = open(place + "/entries").readlines()
    for number in range(begin, len(entries)):
        print(json.dumps({{"__CURSOR": str(number), **json.loads(entries[number])}}), flush=True)
    begin = max(begin, len(entries))
    if "--follow" not in sys.argv:
        break
    time.sleep(0.02)
"""


class Journal:
    """The entries that the stand-in knows, and how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "entries").touch()

    def write(self, pid: int, stamp: int, **fields: str) -> None:
        for line in report(pid).splitlines():
            entry = {
                "MESSAGE": line.partition("] ")[2],
                "_TRANSPORT": "kernel",
                "SYSLOG_FACILITY": "0",
                "_SOURCE_MONOTONIC_TIMESTAMP": str(stamp),
                "__REALTIME_TIMESTAMP": str(time.time_ns() // 1000),
                **fields,
            }
            write(self.directory / "entries", json.dumps(entry) + "\n")

    @property
    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    program = tmp_path / "bin" / "journalctl"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, place=str(tmp_path)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(systemd, "_JOURNALD_SECONDS", 0.0)
    return Journal(tmp_path)


async def test_the_journal_is_followed_and_only_the_kernels_word_counts(journal: Journal) -> None:
    async with following(SYSTEMD_JOURNAL) as heard:
        await heard.until(lambda: (journal.directory / "pid").exists())
        journal.write(2, 10, _TRANSPORT="syslog", SYSLOG_IDENTIFIER="kernel")
        journal.write(3, 20, SYSLOG_FACILITY="1")
        journal.write(4, 30)
        await heard.until(lambda: heard.pids != [])
        assert heard.pids == [4]
        pid = journal.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_journalctl_is_started_again_from_its_cursor(journal: Journal) -> None:
    async with following(SYSTEMD_JOURNAL) as heard:
        await heard.until(lambda: (journal.directory / "pid").exists())
        journal.write(2, 10)
        await heard.until(lambda: heard.pids == [2])
        os.kill(journal.pid, 9)
        journal.write(3, 20)
        await heard.until(lambda: heard.pids == [2, 3])
        assert "--after-cursor=1" in journal.calls[-1]
        assert heard.witness.state().figures["restarts"] == 1
        assert heard.witness.active


async def test_a_restart_reads_of_the_journal_what_was_not_told(journal: Journal) -> None:
    journal.write(2, 10)
    journal.write(3, 20)
    place = LogPlace("systemd journal", 10, 11, (), 10, time.time_ns() // 1000)
    async with following(SYSTEMD_JOURNAL, place) as heard:
        await heard.until(lambda: heard.pids == [3])
        assert heard.victims[0].recovered


async def test_a_first_start_that_is_killed_before_any_line_knows_where_it_began(
    journal: Journal,
) -> None:
    """Else the next one would be a first start again, and what was killed meanwhile be old news."""
    journal.write(1, 5, __REALTIME_TIMESTAMP="1000000")
    journal.write(2, 10, __REALTIME_TIMESTAMP="2000000")
    async with following(SYSTEMD_JOURNAL) as heard:
        place = heard.place
        assert (place.log, place.next) == ("systemd journal", 11)
        assert heard.pids == []
    journal.write(3, 20)
    async with following(SYSTEMD_JOURNAL, place) as heard:
        await heard.until(lambda: heard.pids == [3])
        assert heard.victims[0].recovered


async def test_what_was_lost_is_shown_for_a_while_and_counted_for_good(
    kern_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(kern_log) as heard:
        assert not heard.witness.state().degraded
        cut(kern_log)
        await heard.until(lambda: heard.gaps != [])
        state = heard.witness.state()
        assert state.degraded
        assert state.active
        assert "records were lost" in state.detail
        assert "victims may lack their names" in state.detail
        monkeypatch.setattr(recent, "SHOWN_SECONDS", 0.0)
        state = heard.witness.state()
        assert (state.degraded, state.figures and state.figures["losses"]) == (False, 1)


async def test_lines_that_could_not_be_taken_in_cost_no_others(
    kern_log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Naming, read: Sequence[object]) -> list[Observation]:
        monkeypatch.undo()
        raise ValueError("seeded")

    async with following(kern_log) as heard:
        monkeypatch.setattr(Naming, "take", fails)
        write(kern_log, report(2))
        await heard.until(lambda: heard.witness.state().degraded)
        state = heard.witness.state()
        assert "it failed (ValueError: seeded), a fault of oomwatch's own" in state.detail
        write(kern_log, report(3))
        await heard.until(lambda: heard.pids == [3])
    assert "these lines name nobody" in caplog.text


async def test_without_journalctl_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    async with following(SYSTEMD_JOURNAL) as heard:
        state = heard.witness.state()
        assert not state.active
        assert "journalctl cannot be run" in state.detail


async def test_what_the_buffer_lost_is_looked_up_in_the_journal(journal: Journal) -> None:
    for number in range(1, 7):
        journal.write(number, 10 * number)
    missing = systemd.Missing(Anchor(20, 1_795_000_000_000_020), 50, 100, 110)
    lines = await systemd.read_missing(missing)
    assert [line.record.line for line in lines] == [100, 101, 102, 103]
    assert {line.record.kernel_time_seconds for line in lines} == {30e-6, 40e-6}
    few = systemd.Missing(Anchor(20, 1_795_000_000_000_020), 50, 100, 102)
    assert len(await systemd.read_missing(few)) == 2
