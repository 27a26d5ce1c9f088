"""Following the kernel's log: what is told of it, what is lost, and where a restart goes on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatch.correlator.log_progress import MAX_UNTOLD, LogProgress
from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.record import Record
from oomwatch.ledger import LogPlace
from oomwatch.observations import EvidenceLost, LogRead, LogSpan, VictimNamed
from oomwatch.sources.kernel_log.clock import Clocks
from oomwatch.sources.kernel_log.feed import Line, Lost
from oomwatch.sources.kernel_log.kmsg import LOG, KmsgRecords
from oomwatch.sources.kernel_log.lines import LineCutter
from oomwatch.sources.kernel_log.naming import NOTE_LINES, Naming

NOW = Clocks(10**15, 10**9, 10**9)
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/c,task_memcg=/c,task=hog,pid={pid},uid=0"
)
KILLED = (
    "Memory cgroup out of memory: Killed process {pid} (hog) total-vm:9kB, anon-rss:5kB, "
    "file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
)


def record(sequence: int, text: str = "noise", priority: int = 6) -> Record:
    raw = parse_kmsg(f"{priority},{sequence},{sequence * 1000},-;{text}\n".encode())
    assert raw is not None
    return Record(
        **{name: getattr(raw, name) for name in raw.__slots__ if name != "line"}, line=sequence
    )


def place(begin: int, following: int, *untold: int) -> LogPlace:
    return LogPlace(LOG, begin, following, untold, 0, 10**15)


def told(lines: list[Line | Lost]) -> list[int]:
    return [each.record.line for each in lines if isinstance(each, Line) and each.told]


def lost(lines: list[Line | Lost]) -> list[int | None]:
    return [each.count for each in lines if isinstance(each, Lost)]


def test_a_first_start_tells_nothing_that_was_there() -> None:
    records = KmsgRecords()
    # The oldest record kept is not the first ever: that is no loss of ours.
    begun = records.begin([record(n) for n in range(50, 60)], None, NOW)
    assert (told(begun), lost(begun)) == ([], [])
    assert told(records.take([record(60)], NOW)) == [60]


def test_a_restart_tells_what_was_not_told_and_nothing_else() -> None:
    records = KmsgRecords()
    begun = records.begin([record(n) for n in range(50, 60)], place(52, 57, 53), NOW)
    assert (told(begun), lost(begun)) == ([53, 57, 58, 59], [])
    assert all(each.recovered for each in begun if isinstance(each, Line))
    assert lost(records.take([record(60)], NOW)) == []


def test_a_buffer_that_turned_over_is_a_loss_of_what_was_not_told() -> None:
    records = KmsgRecords()
    begun = records.begin([record(n) for n in range(50, 60)], place(10, 30, 12, 20), NOW)
    # 30 to 49 were never read; 12 and 20 were read, and are in no event.
    assert lost(begun) == [22]
    assert told(begun) == list(range(50, 60))
    (missing,) = records.take_missing()
    assert (missing.first, missing.end, missing.before) == (30, 50, 50_000)


def test_an_empty_buffer_loses_nothing() -> None:
    assert KmsgRecords().begin([], place(10, 30), NOW) == []


def test_every_jump_in_the_sequence_is_a_loss() -> None:
    records = KmsgRecords()
    records.begin([record(5)], None, NOW)
    assert lost(records.take([record(6)], NOW)) == []
    assert lost(records.take([record(16)], NOW)) == [9]
    assert records.lost == 9


def test_a_line_that_user_space_wrote_counts_and_is_not_told() -> None:
    records = KmsgRecords()
    records.begin([], None, NOW)
    assert told(records.take([record(1, KILLED.format(pid=7), priority=12)], NOW)) == []
    assert lost(records.take([record(2)], NOW)) == []
    assert records.foreign == 1


def follow(naming: Naming, *records: Record, told: bool = True) -> list[object]:
    lines = [Line(each, LOG, each.line + 1, 1, told=told) for each in records]
    return list(naming.take(lines))


def test_a_kill_says_where_its_report_begins() -> None:
    naming = Naming("kernel_log")
    follow(naming, record(10, SUMMARY.format(pid=7)), record(11))
    victim, read = follow(naming, record(12, KILLED.format(pid=7)))
    assert isinstance(victim, VictimNamed)
    assert victim.span == LogSpan(LOG, 10, 12)
    assert isinstance(read, LogRead)
    assert (read.begin, read.next, read.keep) == (10, 13, False)


def test_old_news_gives_a_new_kill_its_report() -> None:
    naming = Naming("kernel_log")
    follow(naming, record(10, SUMMARY.format(pid=7)), told=False)
    victim, _ = follow(naming, record(11, KILLED.format(pid=7)))
    assert isinstance(victim, VictimNamed)
    assert victim.limit_cgroup == "/c"


def test_the_place_is_noted_now_and_again_where_nothing_is_killed() -> None:
    """Else a log that turns over without a kill would look like a loss after a restart."""
    naming = Naming("kernel_log")
    assert follow(naming, *(record(n) for n in range(NOTE_LINES - 1))) == []
    (read,) = follow(naming, record(NOTE_LINES))
    assert isinstance(read, LogRead)
    assert read.keep
    assert naming.note() == []


def test_a_loss_is_told_with_how_many() -> None:
    (gap,) = Naming("kernel_log").take([Lost("overwritten", 9, 3)])
    assert isinstance(gap, EvidenceLost)
    assert (gap.count, gap.since) == (9, 3)


def test_a_place_holds_on_to_lines_that_are_in_no_event() -> None:
    progress = LogProgress()
    progress.read(LogRead(LOG, 40, 50, 1, 2))
    waiting = [LogSpan(LOG, 20, 30), None, LogSpan("another", 1, 2), LogSpan(LOG, 33, 35)]
    assert progress.take(waiting, committing=False) is None
    assert progress.take(waiting, committing=True) == LogPlace(LOG, 20, 50, (30, 35), 1, 2)
    assert progress.take(waiting, committing=True) is None
    assert progress.take([], committing=True) == LogPlace(LOG, 40, 50, (), 1, 2)


def test_a_place_is_bounded() -> None:
    progress = LogProgress()
    progress.read(LogRead(LOG, 10**6, 10**6, keep=True))
    taken = progress.take([LogSpan(LOG, n, n) for n in range(MAX_UNTOLD + 9)], committing=False)
    assert taken is not None
    assert taken.untold == tuple(range(9, MAX_UNTOLD + 9))


@given(st.lists(st.binary(max_size=20)), st.data())
@settings(deadline=None)
def test_lines_come_out_whole_however_they_were_read(
    texts: list[bytes], data: st.DataObject
) -> None:
    written = b"\n".join(texts)
    cutter, at, cut = LineCutter(100), 0, []
    while at < len(written):
        size = data.draw(st.integers(1, 8))
        cut += cutter.cut(written[at : at + size])
        at += size
    whole = [text + b"\n" for text in written.split(b"\n")[:-1]]
    assert [line for _, line in cut] == whole
    assert [begin for begin, _ in cut] == [100 + sum(map(len, whole[:n])) for n in range(len(cut))]


def test_a_line_without_an_end_is_dropped_and_the_next_is_not() -> None:
    cutter = LineCutter()
    for _ in range(40):
        assert cutter.cut(b"x" * 16384) == []
    assert cutter.cut(b"x\nnext\n") == [(40 * 16384 + 2, b"next\n")]
    assert cutter.malformed == 1
