"""The journal against crashes and full disks: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oomwatch.errors import JournalUnusable
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    EvidenceGap,
    Verdict,
)
from oomwatch.journal import Journal, Retention, writer
from oomwatch.journal.files import RESERVE_BYTES
from oomwatch.ledger import LedgerChange, LedgerRow

BOUND = 30.0

# Goes on from its own ledger: event N is the one with which `told` became N. Prints each revision
# after on_commit heard of it, as a subscriber would.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from oomwatch.events import EvidenceGap
from oomwatch.journal import Journal
from oomwatch.ledger import LedgerChange, LedgerRow

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    rows = journal.load_ledger("boot")
    told = rows[0].told if rows else 0
    def committed(entries):
        for entry in entries:
            os.write(1, f"{entry.revision} {entry.event.episode_id}\\n".encode())
    journal.start("boot", committed)
    while True:
        for _ in range(7):
            told += 1
            event = EvidenceGap(episode_id=f"e{told}", detect_time=2**51, source="s", reason="r")
            journal.append([event], LedgerChange(rows=(LedgerRow(1, 0, told, told, 0, 0),)))
        await asyncio.sleep(0)
        if told % 70 == 0:
            await journal.flush()

asyncio.run(main())
"""


def crash(path: Path, lines: int) -> list[tuple[int, str]]:
    """Run the writer, kill it after so many lines, and return what it told until then."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        told += writer.stdout.read().splitlines(keepends=True)
    complete = [line.split() for line in told if line.endswith(b"\n")]
    return [(int(revision), episode.decode()) for revision, episode in complete]


async def test_sigkill_in_the_middle_of_commits_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After each of several crashes: all that was told is there, once, and the ledger agrees."""
    told: list[tuple[int, str]] = []
    randomness = random.Random(7)
    for _ in range(6):
        told += crash(tmp_path, randomness.randrange(1, 400))
        journal = Journal.open(tmp_path, retention=Retention(max_age_seconds=1e10))
        entries = await journal.read(0, 1_000_000)
        rows = journal.load_ledger("boot")
        await journal.close()
        kept = [(entry.revision, entry.event.episode_id) for entry in entries]
        assert kept == [(number, f"e{number}") for number in range(1, len(kept) + 1)]
        assert set(told) <= set(kept)
        assert rows == (LedgerRow(1, 0, len(kept), len(kept), 0, 0),)
    assert len(told) == len(set(told))


def mount(path: Path, options: str) -> None:
    path.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    path = tmp_path / "tiny"
    mount(path, "size=24m")
    yield path
    # Lazily: a test that failed may have left its journal open.
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Use a disk up to its last block; returns what to remove to have it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return ballast


def gap(number: int) -> EvidenceGap:
    return EvidenceGap(episode_id=f"e{number}", detect_time=2**51, source="s", reason="r" * 1000)


class Recorder:
    """What the journal said, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.health: list[tuple[bool, str]] = []

    def committed(self, entries: tuple[Entry, ...]) -> None:
        self.entries += entries

    def healthy(self, healthy: bool, sentence: str) -> None:
        self.health.append((healthy, sentence))


async def test_a_full_disk_costs_old_history_and_no_new_event(tiny: Path) -> None:
    """Far more than fits: the oldest goes, by its own account, and every new event is told."""
    journal = Journal.open(tiny / "state", retention=Retention(max_age_seconds=1e10))
    heard = Recorder()
    journal.start("boot", heard.committed, heard.healthy)
    for number in range(1, 40_001):
        journal.append([gap(number)], LedgerChange(rows=(LedgerRow(1, 0, number, number, 0, 0),)))
        if number % 500 == 0:
            assert await asyncio.wait_for(journal.flush(), BOUND), journal.status()
    assert [entry.revision for entry in heard.entries] == list(range(1, 40_001))
    assert journal.compacted_events > 0
    assert journal.oldest_revision == journal.compacted_events + 1
    kept = await journal.read(journal.oldest_revision - 1, 100_000)
    assert [entry.revision for entry in kept] == list(range(journal.oldest_revision, 40_001))
    assert journal.load_ledger("boot") == (LedgerRow(1, 0, 40_000, 40_000, 0, 0),)
    await journal.close()
    again = Journal.open(tiny / "state", retention=Retention(max_age_seconds=1e10))
    assert again.newest_revision == 40_000
    await again.close()


async def test_a_full_disk_is_said_once_and_so_is_that_there_is_room(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a line a commit: the log may lie on the same disk."""
    caplog.set_level("INFO", "oomwatch.journal")
    monkeypatch.setattr(writer, "_AGE_CHECK_SECONDS", 0.0)
    journal, _ = await begun(tiny)
    ballast = fill(tiny)
    for number in range(2, 200):
        journal.append([gap(number)], LedgerChange())
        assert await asyncio.wait_for(journal.flush(), BOUND)
    (said,) = caplog.messages
    assert "the disk is full" in said
    assert "until space is freed" in said
    ballast.unlink()
    journal.append([gap(200)], LedgerChange())
    assert await asyncio.wait_for(journal.flush(), BOUND)
    await journal.close()
    gone = journal.compacted_events
    assert gone > 0
    (_, again) = caplog.messages
    assert again.endswith(
        f"there is room again; events deleted meanwhile: {gone}, up to revision {gone}"
    )


async def test_that_history_goes_for_want_of_room_is_in_the_status_until_there_is_room(
    tiny: Path,
) -> None:
    """Who misses last week's kills asks the doctor, and reads no log of last week."""
    journal, heard = await begun(tiny)
    assert not journal.status().disk_full
    ballast = fill(tiny)
    for number in range(2, 500):
        journal.append([gap(number)], LedgerChange())
        assert await asyncio.wait_for(journal.flush(), BOUND)
    status = journal.status()
    assert status.disk_full
    assert status.healthy, "every event is written, if at the cost of others"
    assert "its disk is full: the oldest are deleted for the newest" in status.detail
    ballast.unlink()
    status = journal.status()
    assert not status.disk_full, "seen at once, and not at the next event"
    assert "full" not in status.detail
    assert heard.health == []
    await journal.close()


async def begun(disk: Path) -> tuple[Journal, Recorder]:
    """A journal with one event."""
    journal = Journal.open(disk / "state", retention=Retention(max_age_seconds=1e10))
    heard = Recorder()
    journal.start("boot", heard.committed, heard.healthy)
    journal.append([gap(1)], LedgerChange())
    assert await asyncio.wait_for(journal.flush(), BOUND)
    return journal, heard


async def test_on_a_disk_that_others_filled_the_reserve_is_spent(tiny: Path) -> None:
    """Every event is written at once; the next start on a disk with room sets it aside again."""
    journal, heard = await begun(tiny)
    reserve = tiny / "state" / "journal.reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    ballast = fill(tiny)
    for number in range(2, 500):
        journal.append([gap(number)], LedgerChange())
        assert await asyncio.wait_for(journal.flush(), BOUND)
    assert not reserve.exists()
    assert [entry.revision for entry in heard.entries] == list(range(1, 500))
    assert heard.health == [], "nobody was told that anything waits"
    await journal.close()
    ballast.unlink()
    await Journal.open(tiny / "state").close()
    assert reserve.stat().st_size == RESERVE_BYTES


async def test_a_disk_that_others_filled_holds_events_until_there_is_room(tiny: Path) -> None:
    """With no history to give up, events wait in order, the health says why, and then they go."""
    journal, heard = await begun(tiny)
    (tiny / "state" / "journal.reserve").unlink()
    ballast = fill(tiny)
    large = replace(gap(2), reason="r" * 400_000)
    journal.append([large], LedgerChange())
    journal.append([gap(3)], LedgerChange())
    assert not await asyncio.wait_for(journal.flush(), BOUND)
    status = journal.status()
    assert status.pending_events == 2
    assert "the disk is full" in status.detail
    assert "journal.db" in status.detail
    assert "free space" in status.detail
    ballast.unlink()
    async with asyncio.timeout(BOUND):
        while not journal.status().healthy:
            await asyncio.sleep(0.01)
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert [entry.event for entry in heard.entries] == [gap(1), large, gap(3)]
    assert heard.health[0][0] is False
    assert heard.health[-1] == (True, "")
    await journal.close()


async def test_a_journal_of_before_exits_were_indexed_opens_on_a_full_disk(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on without, also where the reserve is spent, and has the index when there is room."""

    def of(number: int) -> ContainerExit:
        return ContainerExit(
            episode_id=f"boot-exit-{number}",
            detect_time=2**51,
            container=Container(id=f"{number:064x}"),
            cgroup_id=number,
            verdict=Verdict.NOT_OOM,
            confidence=Confidence.HIGH,
        )

    def is_indexed() -> bool:
        with contextlib.closing(sqlite3.connect(tiny / "state/journal.db")) as beside:
            beside.execute("PRAGMA query_only = ON")
            ask = "SELECT 1 FROM sqlite_schema WHERE name = 'exits_by_life'"
            return bool(beside.execute(ask).fetchall())

    journal, _ = await begun(tiny)
    journal.append([of(number) for number in range(10_000)], LedgerChange())
    assert await asyncio.wait_for(journal.flush(), BOUND)
    await journal.close()
    with contextlib.closing(sqlite3.connect(tiny / "state/journal.db")) as beside:
        beside.execute("DROP INDEX exits_by_life")
        beside.execute("VACUUM")
    (tiny / "state/journal.reserve").unlink()
    ballast = fill(tiny)
    os.truncate(ballast, ballast.stat().st_size - (256 << 10))
    journal = Journal.open(tiny / "state", retention=Retention(max_age_seconds=1e10))
    (said,) = caplog.messages
    assert "no room for an index" in said
    heard = Recorder()
    journal.start("boot", heard.committed, heard.healthy)
    assert await journal.exit_of(f"{7:064x}", 7, ["boot-exit-7"]) == (9, of(7))
    journal.append([gap(2)], LedgerChange())
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert [entry.event for entry in heard.entries] == [gap(2)]
    await journal.close()
    assert not is_indexed()
    ballast.unlink()
    await Journal.open(tiny / "state", retention=Retention(max_age_seconds=1e10)).close()
    assert is_indexed()


def test_a_full_or_read_only_disk_at_the_start_is_a_sentence(tiny: Path) -> None:
    """No traceback: what is wrong, where, and what to do."""
    ballast = fill(tiny)
    with pytest.raises(JournalUnusable, match=r"state.*full.*free space"):
        Journal.open(tiny / "state")
    ballast.unlink()
    asyncio.run(Journal.open(tiny / "state").close())
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    with pytest.raises(JournalUnusable, match=r"state.*read-only.*--state-dir"):
        Journal.open(tiny / "state")
    with pytest.raises(JournalUnusable, match=r"other.*read-only.*--state-dir"):
        Journal.open(tiny / "other")
