"""Who lived where is told of a victim only where nothing speaks against it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from oomwatch.cgroup.process import Stat, read_cmdline, read_pids, read_stat
from oomwatch.correlator.names import Name
from oomwatch.correlator.residents import (
    FORGET_MICROSECONDS,
    KEEP_MICROSECONDS,
    MAX_RESIDENTS,
    Residents,
)
from oomwatch.events import Cgroup, Victim
from oomwatch.observations import ProcessesSeen, Resident, VictimNamed
from oomwatch.sources.memory_events.census import oldest

ROOT = Cgroup(1, "")
A, B = Cgroup(2, "a", ROOT), Cgroup(3, "b", ROOT)
SECOND = 1_000_000


def lives(pid: int, **more: object) -> Resident:
    fields = {"comm": "hog", "started": 7, "oldest": True} | more
    return Resident(pid, **fields)  # type: ignore[arg-type]


def look(cgroup: Cgroup, time: int, *residents: Resident, complete: bool = True) -> ProcessesSeen:
    return ProcessesSeen(cgroup, time, residents, complete)


def victim(time: int, comm: str | None = "hog", cgroup: str | None = None, **more: object) -> Name:
    record = VictimNamed(
        source="kernel_log",
        sequence=1,
        time=time,
        seen_time=time + 9,
        victim=Victim(pid=7, comm=comm, **more),  # type: ignore[arg-type]
        detail="Killed process 7",
        cgroup=cgroup,
    )
    return Name([record], 0.0)


@pytest.fixture
def residents() -> Residents:
    return Residents()


def test_a_victim_that_was_seen_before_its_kill_is_known(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7, cmdline=("hog", "-x"))))
    word = residents.word_on(victim(SECOND + 5))
    assert word is not None
    assert (word.cgroup, word.printed) == ("/a", False)
    assert word.victim == Victim(pid=7, cmdline=("hog", "-x"), main_process=True)


def test_nothing_is_said_of_a_pid_that_may_be_another_processs(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7)))
    assert residents.word_on(victim(SECOND, comm="other")) is None
    assert residents.word_on(victim(SECOND, comm=None)) is None
    assert residents.word_on(victim(2 * SECOND + KEEP_MICROSECONDS)) is None
    assert residents.word_on(victim(SECOND, cgroup="/b")) is None
    assert residents.word_on(victim(SECOND)) is not None


def test_one_that_is_seen_long_after_the_kill_is_another(residents: Residents) -> None:
    residents.seen(look(A, 5 * SECOND, lives(7)))
    assert residents.word_on(victim(SECOND)) is None


def test_one_that_was_missing_before_the_kill_is_another(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7), lives(8, started=9, oldest=False)))
    residents.seen(look(A, 3 * SECOND, lives(8, started=9)))
    assert residents.word_on(victim(4 * SECOND)) is None
    assert residents.word_on(victim(2 * SECOND)) is not None


def test_one_that_was_seen_in_two_cgroups_is_in_neither(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7)))
    residents.seen(look(B, 2 * SECOND, lives(7)))
    assert residents.word_on(victim(2 * SECOND)) is None


def test_a_pid_used_again_in_its_cgroup_is_the_later_process(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7, cmdline=("old",))))
    residents.seen(look(A, 2 * SECOND, lives(7, started=150, cmdline=("new",))))
    word = residents.word_on(victim(2 * SECOND + 5))
    assert word is not None
    assert word.victim.cmdline == ("new",)
    assert word.victim.main_process is False


def test_what_is_seen_after_the_kill_does_not_make_a_main_process(residents: Residents) -> None:
    """In a group kill the first process may be gone already when the last is still there."""
    residents.seen(look(A, SECOND + 5, lives(7)))
    word = residents.word_on(victim(SECOND))
    assert word is not None
    assert (word.cgroup, word.victim.main_process) == ("/a", None)


def test_a_process_that_runs_another_program_is_the_same_process(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7, comm="runc:[2:INIT]", cmdline=("runc", "init"))))
    residents.seen(look(A, 2 * SECOND, lives(7)))
    residents.seen(look(A, SECOND, lives(7, comm="runc:[2:INIT]", cmdline=("runc", "init"))))
    word = residents.word_on(victim(2 * SECOND + 5))
    assert word is not None
    assert word.victim == Victim(pid=7, main_process=True)


def test_nothing_is_said_twice(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7, cmdline=("hog",))))
    known = victim(SECOND + 5, cgroup="/a", cmdline=("hog",), main_process=True)
    assert residents.word_on(known) is None


def test_a_command_line_that_was_read_later_is_added(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7)))
    residents.seen(look(A, 2 * SECOND, lives(8, started=9)))
    residents.seen(look(A, SECOND, lives(7, cmdline=("hog",))))
    word = residents.word_on(victim(SECOND + 5))
    assert word is not None
    assert word.victim.cmdline == ("hog",)


def test_no_more_are_remembered_than_the_bound(residents: Residents) -> None:
    for pid in range(1, MAX_RESIDENTS + 100):
        residents.seen(look(A, SECOND, lives(pid), complete=False))
    assert residents.word_on(victim(SECOND + 5)) is None
    assert len(residents._stays) == MAX_RESIDENTS


def test_who_was_seen_too_long_ago_to_be_named_is_forgotten(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7)))
    residents.seen(look(B, SECOND + FORGET_MICROSECONDS, lives(8)))
    assert residents.word_on(victim(SECOND + 5)) is not None
    residents.seen(look(B, SECOND + FORGET_MICROSECONDS + 1, lives(8)))
    assert len(residents._stays) == 1


def test_of_a_cgroup_that_is_gone_only_who_lived_there_is_remembered(residents: Residents) -> None:
    residents.seen(look(A, SECOND, lives(7)))
    residents.removed(A)
    assert not residents._pids
    assert not residents._oldest
    word = residents.word_on(victim(SECOND + 5))
    assert word is not None
    assert word.victim.main_process


def stats(*rows: tuple[int, int, int]) -> dict[int, Stat | None]:
    return {pid: Stat("x", parent, started) for pid, parent, started in rows}


def test_the_oldest_of_a_cgroup_began_before_all_others() -> None:
    assert oldest(stats((7, 1, 50), (8, 7, 60)), whole=True) == {7: True, 8: False}


def test_of_two_in_one_tick_the_child_is_not_the_oldest() -> None:
    assert oldest(stats((8, 7, 50), (7, 1, 50)), whole=True) == {7: True, 8: False}
    assert oldest(stats((8, 1, 50), (7, 1, 50)), whole=True) == {7: None, 8: None}


def test_nobody_is_the_oldest_of_those_that_were_not_all_seen() -> None:
    assert oldest(stats((7, 1, 50), (8, 7, 60)), whole=False) == {7: None, 8: False}
    assert oldest({**stats((7, 1, 50)), 8: None}, whole=True) == {7: None}


def test_stat_is_read_by_its_last_bracket(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    tail = "S 3 " + " ".join("0" for _ in range(17)) + " 4711 0 0"
    (tmp_path / "7" / "stat").write_bytes(b"7 (a) S 1 (\xff) " + tail.encode() + b"\n")
    assert read_stat(7, str(tmp_path)) == Stat(os.fsdecode(b"a) S 1 (\xff"), 3, 4711)
    assert read_stat(8, str(tmp_path)) is None


def test_a_real_process_is_known_by_its_start() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        stat = read_stat(process.pid)
        assert stat is not None
        assert stat.parent == os.getpid()
        assert read_stat(process.pid) == stat or stat.comm != "sleep"
        process.kill()
    assert read_stat(process.pid) is None
    assert read_cmdline(process.pid) == ()


def test_pids_are_read_up_to_a_bound(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.write_text("3\n5\n0\n8\n")
    assert read_pids(str(tmp_path), 10) == ([3, 5, 8], True)
    assert read_pids(str(tmp_path), 2) == ([3, 5], False)
    procs.write_text("")
    assert read_pids(str(tmp_path), 2) == ([], False)
