"""The journal: order, atomicity, retention, and what it refuses to open."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oomwatch.containers.lives import Life, LivesChange
from oomwatch.errors import HistoryCompacted, JournalError, JournalLocked, JournalUnusable
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    EvidenceGap,
    OomKill,
    Scope,
    Verdict,
)
from oomwatch.journal import Journal, Retention, exits
from oomwatch.ledger import LedgerChange, LedgerRow, LogPlace

BOUND = 20.0
NOTHING = LedgerChange()


def now_us() -> int:
    return time.time_ns() // 1000


def kill(number: int, detect_time: int | None = None) -> OomKill:
    return OomKill(
        episode_id=f"e{number}",
        detect_time=now_us() if detect_time is None else detect_time,
        scope=Scope.CONTAINER_LIMIT,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        container=Container(id="ab" * 32, labels={"k": "\udcff\n"}),
        victim_cgroup="/docker/x",
    )


def ended(
    episode_id: str, name: str, cgroup_id: int | None, amends: int | None = None
) -> ContainerExit:
    return ContainerExit(
        episode_id=f"boot-exit-{episode_id}",
        detect_time=now_us(),
        verdict=Verdict.UNKNOWN,
        confidence=Confidence.LOW,
        container=Container(id=name),
        cgroup_id=cgroup_id,
        amends=amends,
    )


def told(cgroup_id: int, count: int) -> LedgerRow:
    return LedgerRow(cgroup_id, 7, count, count, 0, 0)


class Taken:
    """What on_commit was called with."""

    def __init__(self) -> None:
        self.batches: list[tuple[Entry, ...]] = []

    def __call__(self, entries: tuple[Entry, ...]) -> None:
        self.batches.append(entries)

    @property
    def revisions(self) -> list[int]:
        return [entry.revision for batch in self.batches for entry in batch]


async def fill(journal: Journal, count: int, detect_time: int | None = None) -> None:
    journal.append([kill(number, detect_time) for number in range(count)], NOTHING)
    assert await asyncio.wait_for(journal.flush(), BOUND)


@pytest.fixture(params=["disk", "memory"])
def state_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "a" / "state" if request.param == "disk" else None


async def test_lives_are_there_again_also_those_that_nobody_could_place(tmp_path: Path) -> None:
    lives = (
        Life("ab" * 32, 7, now_us(), cgroup="/docker/x", said={"docker": Container(id="ab" * 32)}),
        Life("cd" * 32, None, now_us(), pid=395, said={"containerd": Container(id="cd" * 32)}),
    )
    journal = Journal.open(tmp_path)
    journal.start("boot", lambda _: None)
    journal.append((), NOTHING, LivesChange(lives))
    await journal.close()
    again = Journal.open(tmp_path)
    assert sorted(again.load_lives("boot"), key=lambda life: life.seen_time) == list(lives)
    await again.close()


async def test_many_appends_are_told_once_each_and_in_order(state_dir: Path | None) -> None:
    """Whatever transactions they share, revisions rise by one and keep the order of appending."""
    journal = Journal.open(state_dir)
    taken = Taken()
    journal.start("boot", taken)
    events = [kill(number) for number in range(2000)]
    for event in events:
        journal.append([event], NOTHING)
        if event is events[700]:
            await journal.flush()
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert taken.revisions == list(range(1, 2001))
    assert [entry.event for batch in taken.batches for entry in batch] == events
    assert len(taken.batches) < 1000
    assert journal.newest_revision == 2000
    read = await journal.read(0, 5000)
    assert read == [entry for batch in taken.batches for entry in batch]
    assert await journal.read(1990, 3) == read[1990:1993]
    assert await journal.get(17) == read[16]
    assert await journal.get(0) is await journal.get(2001) is None
    await journal.close()


async def test_a_few_entries_are_shown_while_they_are_synced_and_many_are_not(
    state_dir: Path | None,
) -> None:
    """What on_sync was given is what on_commit then gets, the very entries."""
    journal = Journal.open(state_dir)
    happened: list[tuple[str, tuple[Entry, ...]]] = []
    journal.start(
        "boot",
        lambda entries: happened.append(("committed", entries)),
        on_sync=lambda entries: happened.append(("syncing", entries)),
    )
    await fill(journal, 2)
    await fill(journal, 100)
    journal.append([], LedgerChange(rows=(told(5, 3),)))
    await journal.close()
    if state_dir is None:
        assert [what for what, _ in happened] == ["committed", "committed"]
        return
    assert [what for what, _ in happened] == ["syncing", "committed", "committed"]
    (_, shown), (_, committed), _ = happened
    assert len(shown) == len(committed) == 2
    assert all(one is other for one, other in zip(shown, committed, strict=True))


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Id, events, revisions and ledger outlive the process."""
    journal = Journal.open(tmp_path)
    assert journal.load_ledger("boot") is None
    journal.start("boot", Taken())
    journal.append([kill(1), kill(2)], LedgerChange(rows=(told(5, 2), told(6, 9))))
    journal.append([], LedgerChange(rows=(told(5, 3), told(2**63 + 1, 4)), removed=(6,)))
    await journal.close()

    again = Journal.open(tmp_path)
    assert again.id == journal.id
    assert (again.oldest_revision, again.newest_revision) == (1, 2)
    rows = again.load_ledger("boot")
    assert rows is not None
    assert sorted(rows, key=lambda row: row.cgroup_id) == [told(5, 3), told(2**63 + 1, 4)]
    taken = Taken()
    again.start("boot", taken)
    await fill(again, 1)
    assert taken.revisions == [3]
    await again.close()


async def test_the_place_in_the_kernel_log_is_kept_for_its_boot(tmp_path: Path) -> None:
    place = LogPlace("kmsg", 3, 9, (4, 7), 11, 12)
    journal = Journal.open(tmp_path)
    assert journal.load_log_place("boot") is None
    journal.start("boot", Taken())
    journal.append([kill(1)], LedgerChange(log=place))
    journal.append([kill(2)], LedgerChange())
    await journal.close()
    journal = Journal.open(tmp_path)
    assert journal.load_log_place("boot") == place
    assert journal.load_log_place("another") is None
    journal.start("another", Taken())
    journal.append([], LedgerChange(log=LogPlace("kmsg", 1, 1)))
    await journal.close()
    journal = Journal.open(tmp_path)
    assert journal.load_log_place("boot") is None
    assert journal.load_log_place("another") == LogPlace("kmsg", 1, 1)
    await journal.close()


async def test_a_change_without_events_is_committed_and_not_told(state_dir: Path | None) -> None:
    """The ledger moves by itself when only counters did."""
    journal = Journal.open(state_dir)
    taken = Taken()
    journal.start("boot", taken)
    journal.append([], LedgerChange(rows=(told(5, 1),)))
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert taken.batches == []
    assert journal.load_ledger("boot") == (told(5, 1),)
    await journal.close()


async def test_a_boot_without_rows_is_known_and_the_last_boot_forgotten(tmp_path: Path) -> None:
    """'Nothing was told yet' is not 'never seen': only the latter is a first start."""
    journal = Journal.open(tmp_path)
    journal.start("one", Taken())
    journal.append([], LedgerChange(rows=(told(5, 1),)))
    await journal.close()

    journal = Journal.open(tmp_path)
    assert journal.load_ledger("two") is None
    journal.start("two", Taken())
    journal.append([], NOTHING)
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert journal.load_ledger("two") == ()
    assert journal.load_ledger("one") is None
    await journal.close()


async def test_events_and_ledger_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    """A row that the table refuses takes its events back with it, and nothing is dropped."""
    journal = Journal.open(tmp_path)
    healths: asyncio.Queue[bool] = asyncio.Queue()
    taken = Taken()
    journal.start("boot", taken, lambda healthy, sentence: healths.put_nowait(healthy))
    await fill(journal, 1)
    with sqlite3.connect(tmp_path / "journal.db", isolation_level=None) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        journal.append([kill(1), kill(2)], LedgerChange(rows=(told(5, 2),)))
        assert not await asyncio.wait_for(journal.flush(), BOUND)
        assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)
        status = journal.status()
        assert (status.healthy, status.pending_events) == (False, 2)
        assert str(tmp_path) in status.detail
        other.execute("DROP TRIGGER refuse")
        while not await asyncio.wait_for(healths.get(), BOUND):
            pass
    other.close()
    assert await asyncio.wait_for(journal.flush(), BOUND)
    assert taken.revisions == [1, 2, 3]
    assert journal.load_ledger("boot") == (told(5, 2),)
    assert journal.status().healthy
    await journal.close()


async def test_revisions_are_never_used_again(tmp_path: Path) -> None:
    """Also when retention left nothing in the table, and after opening it again."""
    journal = Journal.open(tmp_path)
    journal.start("boot", Taken())
    await fill(journal, 5, detect_time=1000)
    await journal.close()

    empty = Journal.open(tmp_path)
    assert (empty.oldest_revision, empty.newest_revision, empty.compacted_events) == (6, 5, 5)
    assert empty.status().events == 0
    await empty.close()

    again = Journal.open(tmp_path)
    taken = Taken()
    again.start("boot", taken)
    await fill(again, 2)
    assert taken.revisions == [6, 7]
    with pytest.raises(HistoryCompacted) as caught:
        await again.read(4, 10)
    assert (caught.value.requested_revision, caught.value.oldest_revision) == (4, 6)
    assert [entry.revision for entry in await again.read(5, 10)] == [6, 7]
    await again.close()


async def test_retention_by_count_keeps_the_newest(state_dir: Path | None) -> None:
    """It runs by itself, and what went is remembered."""
    journal = Journal.open(state_dir, retention=Retention(max_events=50))
    journal.start("boot", Taken())
    for _ in range(30):
        await fill(journal, 10)
    await journal.close() if state_dir else None
    if state_dir:
        journal = Journal.open(state_dir, retention=Retention(max_events=50))
        assert journal.oldest_revision == 251
    else:
        await until(lambda: journal.oldest_revision == 251)
        assert journal.compacted_events == 250
    assert [entry.revision for entry in await journal.read(250, 100)] == list(range(251, 301))
    assert await journal.get(250) is None
    assert await journal.cursor_for_last(3) == 297
    assert await journal.cursor_for_last(1000) == 250
    await journal.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_gap_of_revisions_is_no_compaction(tmp_path: Path) -> None:
    """Only what retention deleted is told as compacted."""
    journal = Journal.open(tmp_path)
    journal.start("boot", Taken())
    await fill(journal, 5)
    with sqlite3.connect(tmp_path / "journal.db") as other:
        other.execute("DELETE FROM events WHERE revision <= 2")
    other.close()
    assert [entry.revision for entry in await journal.read(0, 10)] == [3, 4, 5]
    await journal.close()


async def test_since_a_time_is_the_first_event_of_that_time(state_dir: Path | None) -> None:
    """A step of the clock back hides nothing that came after."""
    journal = Journal.open(state_dir, retention=Retention(max_age_seconds=1e10))
    journal.start("boot", Taken())
    journal.append([kill(n, time_) for n, time_ in enumerate((10, 20, 40, 30, 50))], NOTHING)
    assert await journal.flush()
    assert [await journal.revision_since(time_) for time_ in (0, 10, 11, 30, 45, 51)] == [
        0,
        0,
        1,
        2,
        4,
        5,
    ]
    await journal.close()


async def test_closing_commits_what_was_appended(tmp_path: Path) -> None:
    """close() right after a burst loses none of it, and later calls are refused."""
    journal = Journal.open(tmp_path)
    taken = Taken()
    journal.start("boot", taken)
    for number in range(1000):
        journal.append([kill(number)], NOTHING)
    await asyncio.wait_for(journal.close(), BOUND)
    await journal.close()
    assert taken.revisions == list(range(1, 1001))
    with pytest.raises(JournalError, match="closed"):
        journal.append([], NOTHING)
    with pytest.raises(JournalError, match="closed"):
        await journal.read(0, 1)
    assert not (tmp_path / "journal.db-wal").exists()


async def test_other_kinds_come_back_as_they_were(state_dir: Path | None) -> None:
    """A gap in the evidence is history like any kill."""
    gap = EvidenceGap(episode_id="g", detect_time=now_us(), source="inotify", reason="overflow")
    journal = Journal.open(state_dir)
    journal.start("boot", Taken())
    journal.append([gap], NOTHING)
    assert await journal.flush()
    assert (await journal.read(0, 1))[0].event == gap
    await journal.close()


async def test_an_event_that_cannot_be_written_is_told_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    """A fault of ours shows in the health; the thread lives and closing does not hang."""
    journal = Journal.open(tmp_path)
    taken = Taken()
    journal.start("boot", taken)
    journal.append([kill(1, 10**18)], NOTHING)
    assert not await asyncio.wait_for(journal.flush(), BOUND)
    assert "cannot be written" in journal.status().detail
    await asyncio.wait_for(journal.close(), BOUND)
    assert taken.batches == []


async def test_files_are_private(tmp_path: Path) -> None:
    """Process names and labels are nobody's business but the operator's."""
    path = tmp_path / "deep" / "state"
    journal = Journal.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}
    assert {mode & 0o037 for mode in modes.values()} == {0}, modes
    assert modes["journal.db"] == 0o640
    status = journal.status()
    assert status.path == str(path / "journal.db")
    assert status.size_bytes is not None
    assert status.size_bytes > 0
    await journal.close()


def test_one_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    """The sentence names the pid; when that process is gone, the journal opens."""
    script = (
        "import sys, pathlib; from oomwatch.journal import Journal; "
        "j = Journal.open(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalLocked, match=rf"process {holder.pid}\b.*--state-dir"):
            Journal.open(tmp_path)
        holder.kill()
        holder.wait(BOUND)
    asyncio.run(Journal.open(tmp_path).close())


async def written(path: Path, events: int = 2000) -> Path:
    journal = Journal.open(path)
    journal.start("boot", Taken())
    await fill(journal, events)
    await journal.close()
    return path / "journal.db"


async def test_a_damaged_file_is_refused_with_path_and_mend(tmp_path: Path) -> None:
    """Garbage, a file cut short, another program's database, a newer schema: each a sentence."""
    database = await written(tmp_path)
    good = database.read_bytes()

    def refuses(sentence: str) -> None:
        with pytest.raises(JournalUnusable, match=sentence) as caught:
            Journal.open(tmp_path)
        assert str(database) in str(caught.value)
        assert ";" in str(caught.value)

    database.write_bytes(b"not a database, " * 4096)
    refuses("no SQLite database")
    database.write_bytes(good[: len(good) // 2])
    refuses("cut short|damaged")
    database.write_bytes(good[:100])
    refuses("journal")
    database.unlink()
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE songs (name)")
    other.close()
    refuses("another program")
    database.write_bytes(good)
    with sqlite3.connect(database) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    refuses("newer oomwatch.*schema 99")
    database.write_bytes(good)
    await Journal.open(tmp_path).close()


async def test_damage_found_while_reading_is_a_sentence(tmp_path: Path) -> None:
    """Pages overwritten in the middle are found when they are wanted."""
    database = await written(tmp_path)
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 3)
        file.write(b"\xff" * 65536)
    journal = Journal.open(tmp_path)
    with pytest.raises(JournalUnusable, match=r"journal\.db"):
        await journal.read(0, 2000)
    await journal.close()


async def test_what_cannot_be_read_stays_told_though_the_rest_can(tmp_path: Path) -> None:
    """Whoever asks for the rest says nothing of it; it is over when it can be read, or is gone."""
    journal = Journal.open(tmp_path)
    health: list[bool] = []
    journal.start("boot", Taken(), lambda healthy, sentence: health.append(healthy))
    await fill(journal, 3)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as beside:
        (text,) = beside.execute("SELECT event FROM events WHERE revision = 2").fetchone()
        beside.execute("UPDATE events SET event = '{' WHERE revision = 2")
        beside.commit()
        with pytest.raises(JournalUnusable):
            await journal.get(2)
        assert await journal.get(3) is not None
        assert not journal.status().healthy
        assert health == [False]
        beside.execute("UPDATE events SET event = ? WHERE revision = 2", (text,))
        beside.commit()
    await until(lambda: journal.status().healthy)
    assert health == [False, True]
    await journal.close()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file in the way is named, and so is what to do."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(JournalUnusable, match="--state-dir"):
            Journal.open(path)


async def test_a_removed_database_is_noticed(tmp_path: Path) -> None:
    """SQLite would write on into a file that has no name: events are held instead."""
    journal = Journal.open(tmp_path / "state")
    taken = Taken()
    journal.start("boot", taken)
    await fill(journal, 1)
    (tmp_path / "state").rename(tmp_path / "away")
    journal.append([kill(2)], NOTHING)
    assert not await asyncio.wait_for(journal.flush(), BOUND)
    assert "removed" in journal.status().detail
    (tmp_path / "away").rename(tmp_path / "state")
    await until(lambda: journal.status().healthy)
    assert taken.revisions == [1, 2]
    await journal.close()


def test_retention_has_bounds() -> None:
    """Keeping nothing, or less, is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        Retention(max_events=0)
    with pytest.raises(ValueError, match="0 or more"):
        Retention(max_age_seconds=-1)


UNSIGNED = (1 << 64) - 3

EXITS = (
    ended("1", "a", 7),
    ended("2", "b", 7),
    ended("3", "a", 8),
    ended("4", "a", None),
    ended("5", "a", UNSIGNED),
    ended("1", "a", 7, amends=1),
    ended("4", "a", None, amends=4),
)


async def test_the_exit_of_a_life_is_found_as_it_was_told_last(state_dir: Path | None) -> None:
    journal = Journal.open(state_dir)
    journal.start("boot", Taken())
    earlier = replace(ended("1", "a", 9), episode_id="earlier-exit-1")
    journal.append([*EXITS, kill(1), earlier], NOTHING)
    assert await asyncio.wait_for(journal.flush(), BOUND)
    none = ["boot-exit-none"]
    assert await journal.exit_of("a", 7, none) == (6, EXITS[5])
    assert await journal.exit_of("b", 7, none) == (2, EXITS[1])
    assert await journal.exit_of("a", UNSIGNED, none) == (5, EXITS[4])
    assert await journal.exit_of("a", UNSIGNED + 1, none) is None, "its nearest double is the same"
    assert await journal.exit_of("a", None, ["boot-exit-4"]) == (7, EXITS[6])
    assert await journal.exit_of("a", 70, ["boot-exit-4"]) == (7, EXITS[6]), "placed since"
    assert await journal.exit_of("a", None, none) is None
    assert await journal.exit_of("a", 9, none) is None, "an inode of another boot"
    assert await journal.exit_of("ab" * 32, None, none) is None, "its kill is no exit"
    await journal.close()


def test_an_exit_is_found_by_its_index(tmp_path: Path) -> None:
    asyncio.run(Journal.open(tmp_path).close())
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as beside:
        plan = beside.execute(f"EXPLAIN QUERY PLAN {exits._NEWEST_FIRST}", ("a", 1)).fetchall()
    assert ["exits_by_life" in step[3] for step in plan] == [True]


async def test_exits_are_found_in_a_journal_of_before_and_beside_a_row_that_is_damaged(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path)
    journal.start("boot", Taken())
    journal.append(EXITS, NOTHING)
    assert await asyncio.wait_for(journal.flush(), BOUND)
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as beside:
        beside.execute("DROP INDEX exits_by_life")
        beside.execute("UPDATE events SET event = '{' WHERE revision = 6")
        beside.commit()
    journal = Journal.open(tmp_path)
    assert await journal.exit_of("a", 7, ["boot-exit-1"]) == (1, EXITS[0])
    await journal.close()
    # It is deleted like any other.
    journal = Journal.open(tmp_path, retention=Retention(max_events=1))
    assert journal.oldest_revision == 7
    assert await journal.exit_of("a", 7, ["boot-exit-1"]) is None
    await journal.close()
