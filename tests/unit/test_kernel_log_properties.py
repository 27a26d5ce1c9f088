"""Any names, any interleaving, any bytes: what was put in comes out, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from hypothesis import example, given, settings
from hypothesis import strategies as st

from oomwatch.events import Constraint
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.episodes import Episodes
from oomwatch.kernel_log.journal_forms import AnyLineParser, ExportParser
from oomwatch.kernel_log.kill_record import KillRecord, Word
from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.record import MAX_RECORD_BYTES, to_text
from oomwatch.kernel_log.search import KillSearch
from oomwatch.kernel_log.summary import read_summary

WORDS = (
    b") total-vm:",
    b",task=",
    b",pid=1,uid=0",
    b",oom_memcg=",
    b",task_memcg=",
    b",global_oom",
    b",mems_allowed=0",
    b"Killed process ",
    b" invoked oom-ki",
    b"oom-kill:",
    b"Tasks in /",
    b"Task in /",
    b"Linux version 5",
    b"), UID 0, ",
    b" score 1 or ",
    b"total-vm:",
    b"\\x29",
    b"\n",
    b"a",
    b" ",
    b"1",
)
pieces = st.one_of(
    st.sampled_from(WORDS), st.binary(max_size=4).map(lambda b: b.replace(b"\0", b""))
)
comms = st.lists(pieces, max_size=5).map(lambda parts: b"".join(parts)[:15])
names = (
    st.lists(pieces, min_size=1, max_size=6)
    .map(lambda parts: b"".join(parts).translate(None, b"/\n\0")[:60])
    .filter(lambda name: name not in (b"", b".", b".."))
)
paths = st.lists(names, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
pids = st.integers(2, 4_000_000)
sizes = st.integers(0, 2**40)


@dataclass(frozen=True)
class Death:
    """A kill of a modern kernel, and what surrounds it in its report."""

    comm: bytes
    pid: int
    uid: int
    limit: bytes
    below: tuple[bytes, ...]
    memcg: bool
    cpuset: bytes
    invoker: bytes
    anon: int

    @property
    def cgroup(self) -> bytes:
        return b"/".join((b"" if self.limit == b"/" else self.limit, *self.below)) or b"/"

    def messages(self) -> list[list[bytes]]:
        """The report's messages, each as the pieces that it is printed in."""
        if self.memcg:
            where = [b",oom_memcg=", self.limit, b",task_memcg=", self.cgroup]
            why = b"Memory cgroup out of memory"
            stats = [
                [b"memory: usage 20480kB, limit 20480kB, failcnt 1"],
                [b"Memory cgroup stats for ", self.limit, b":"],
            ]
        else:
            where = [b",global_oom", b",task_memcg=", self.cgroup]
            why = b"Out of memory"
            stats = []
        return [
            [
                self.invoker
                + b" invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
            ],
            [b"CPU: 1 PID: 1 Comm: " + self.invoker + b" Not tainted"],
            *stats,
            [b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"],
            [
                b"[%7d]     0 %5d     5396     5259    77824        0             0 %s"
                % (self.pid, self.pid, self.comm)
            ],
            [
                b"oom-kill:constraint=CONSTRAINT_%s,nodemask=(null)"
                % (b"MEMCG" if self.memcg else b"NONE"),
                b",cpuset=",
                self.cpuset,
                b",mems_allowed=0-1",
                *where,
                b",task=%s,pid=%d,uid=%d" % (self.comm, self.pid, self.uid),
            ],
            [
                b"%s: Killed process %d (%s) total-vm:21584kB, anon-rss:%dkB, file-rss:4kB, "
                b"shmem-rss:772kB, UID:%d pgtables:80kB oom_score_adj:0"
                % (why, self.pid, self.comm, self.anon, self.uid)
            ],
        ]


deaths = st.builds(
    Death,
    comm=comms,
    pid=pids,
    uid=st.integers(0, 2**32 - 1),
    limit=st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts)),
    below=st.lists(names, max_size=2).map(tuple),
    memcg=st.booleans(),
    cpuset=st.one_of(st.just(b"/"), names),
    invoker=comms,
    anon=sizes,
)


def escape(text: bytes) -> bytes:
    """As the kernel does (kernel/printk/printk.c, append_char)."""
    return b"".join(bytes((c,)) if 32 <= c < 127 and c != 92 else b"\\x%02x" % c for c in text)


def splits(draw: st.DrawFn, message: list[bytes]) -> list[bytes]:
    """Print a message in one record, or break it where the kernel may: between its pieces."""
    records = [message[0]]
    for piece in message[1:]:
        if draw(st.integers(0, 3)) == 0:
            records.append(piece)
        else:
            records[-1] += piece
    return records


@st.composite
def streams(
    draw: st.DrawFn, callers: int
) -> tuple[list[tuple[int, bytes, bool]], dict[str, list[Death]]]:
    """Reports of several callers, broken and mixed with each other and with other records."""
    queues: list[list[tuple[int, bytes, bool]]] = []
    told: dict[str, list[Death]] = {}
    for caller in range(callers):
        queue: list[tuple[int, bytes, bool]] = []
        for death in draw(st.lists(deaths, min_size=1, max_size=2)):
            told.setdefault(f"T{caller}", []).append(death)
            for message in death.messages():
                for number, text in enumerate(splits(draw, message)):
                    queue.append((caller, text, number > 0))
        queues.append(queue)
    mixed: list[tuple[int, bytes, bool]] = []
    while any(queues):
        chosen = draw(st.sampled_from([queue for queue in queues if queue]))
        mixed.append(chosen.pop(0))
        if draw(st.integers(0, 5)) == 0:
            other = draw(st.sampled_from((b"usb 1-1: new device", b"task=a,pid=1,uid=0", b"x: y")))
            mixed.append((99, other, draw(st.booleans())))
    return mixed, told


def as_kmsg(records: list[tuple[int, bytes, bool]]) -> bytes:
    return b"".join(
        b"6,%d,%d,%s,caller=T%d;%s\n"
        % (number, number, b"c" if more else b"-", caller, escape(text))
        for number, (caller, text, more) in enumerate(records)
    )


def follow(log: bytes) -> list[KillRecord]:
    assembler = Assembler()
    kills = []
    for line in log.splitlines(keepends=True):
        record = parse_kmsg(line)
        assert record is not None
        kills += assembler.feed(record)
    assert assembler.flush() == []
    return kills


def check(kill: KillRecord, death: Death) -> None:
    assert kill.word is Word.KILLED
    assert kill.victim.pid == death.pid
    assert kill.victim.comm == to_text(death.comm)
    assert kill.victim.uid == death.uid
    assert kill.victim.anon_rss_bytes == death.anon * 1024
    assert kill.invoker is not None
    assert kill.invoker.comm == to_text(death.invoker)
    assert kill.memcg is death.memcg
    assert kill.constraint is (Constraint.MEMCG if death.memcg else Constraint.NONE)
    assert kill.oom_memcg == (to_text(death.limit) if death.memcg else None)
    assert kill.task_memcg == to_text(death.cgroup)
    assert kill.task_count == 1
    assert (kill.memory is not None) is death.memcg


@given(streams(callers=2))
@settings(max_examples=300)
def test_what_two_callers_print_at_once_comes_out_whole(
    drawn: tuple[list[tuple[int, bytes, bool]], dict[str, list[Death]]],
) -> None:
    records, told = drawn
    kills = follow(as_kmsg(records))
    assert len(kills) == sum(map(len, told.values()))
    for kill in kills:
        assert kill.record.caller is not None
        check(kill, told[kill.record.caller].pop(0))


@given(streams(callers=1), st.integers(0, 200))
@settings(max_examples=100)
def test_a_search_finds_what_a_follower_is_told(
    drawn: tuple[list[tuple[int, bytes, bool]], dict[str, list[Death]]], padding: int
) -> None:
    log = as_kmsg(drawn[0])
    other = b"6,1,1,-;nothing to see\n" * padding * 100
    found = list(KillSearch().kills(BytesIO(other + log)))
    followed = follow(log)
    assert [(kill.victim, kill.oom_memcg, kill.task_memcg, kill.invoker) for kill in found] == [
        (kill.victim, kill.oom_memcg, kill.task_memcg, kill.invoker) for kill in followed
    ]
    assert [kill.record.line - padding * 100 for kill in found] == [
        1 + kill.record.sequence for kill in followed if kill.record.sequence is not None
    ]


@given(deaths, st.booleans())
@settings(max_examples=300)
def test_a_summary_alone_says_what_is_certain_and_no_more(death: Death, kill_known: bool) -> None:
    text = b"".join(death.messages()[-2])
    summary = read_summary(
        text,
        comm_bytes=15,
        pid=death.pid if kill_known else None,
        comm=death.comm if kill_known else None,
    )
    assert summary is not None
    assert (summary.pid, summary.uid) == (death.pid, death.uid)
    assert summary.global_oom is not death.memcg
    assert summary.oom_memcg in (death.limit if death.memcg else None, None)
    assert summary.task_memcg in (death.cgroup, None)
    assert summary.comm in (death.comm, None)
    if kill_known and not death.memcg:
        assert summary.task_memcg == death.cgroup


@given(st.binary(max_size=400), st.integers(0, 3))
@example(b"<3>" * 100, 0)
@example(b'{"MESSAGE":[1,2,"x"]}', 0)
@example(b'{"MESSAGE":"\\ud800 Killed process 1 ("}', 0)
@example(b'{"MESSAGE":' + b"[" * 100_000, 0)
@example(b"9" * 5000 + b",1,1,-;x", 0)
@settings(max_examples=300)
def test_no_bytes_are_too_odd(data: bytes, number: int) -> None:
    AnyLineParser().parse(data)
    export = ExportParser()
    for line in data.splitlines(keepends=True):
        export.parse(line)
    export.finish()
    prefix = (b"", b"6,1,1,-;", b"Nov 22 06:40:46 h kernel: ", b"[    1.000000] ")[number]
    episodes = Episodes("x", 0)
    log = b"".join(prefix + line for line in data.splitlines(keepends=True))
    for kill in KillSearch().kills(BytesIO(log)):
        episodes.add(kill)
    episodes.flush()


fragments = st.sampled_from(
    (
        b"Memory cgroup out of memory: Killed process ",
        b"Killed process 5 (",
        b"oom-kill:constraint=CONSTRAINT_MEMCG,",
        b"oom_memcg=/",
        b",task_memcg=/",
        b",task=x,pid=5,uid=0",
        b") total-vm:1kB",
        b", anon-rss:",
        b"Task in / killed as a result of limit of /",
        b"Tasks in / are going to be killed due to memory.oom.group set",
        b"memory: usage 1kB, limit 1kB",
        b"oom_reaper: reaped process 5 (x), now anon-rss:0kB",
        b" invoked oom-killer: gfp_mask=0x1, order=0",
        b"\n",
        b"\n",
        b"[ 1.0] ",
        b"[  pid  ] uid tgid total_vm rss oom_score_adj name",
        b"[    5]     0     5     1     1             0 x",
    )
)


@given(st.lists(fragments, max_size=40).map(b"".join))
@settings(max_examples=300)
def test_shuffled_reports_crash_nothing_and_invent_no_pid(log: bytes) -> None:
    episodes = Episodes("x", 0)
    told = [each for kill in KillSearch().kills(BytesIO(log)) for each in episodes.add(kill)]
    for each in [*told, *episodes.flush()]:
        assert {victim.pid for victim in each.event.victims} <= {5}
        assert each.event.kill_count == len(each.event.victims)


def long_lines(size: int) -> Iterator[bytes]:
    for unit in (
        b"Killed process 1 (",
        b") total-vm:",
        b"oom-kill:constraint=CONSTRAINT_MEMCG,cpuset=",
        b",mems_allowed=0,0,",
        b",task_memcg=/a",
        b",task=a",
        b" killed as a result of limit of /",
        b"[ 1.0] ",
        b" invoked oom-killer: gfp_mask=0x",
        b"<3>",
        b"> ",
        b"\\x41",
        b" ",
        b"9",
        b"[1] 1 1 ",
    ):
        for begin in (
            b"",
            b"Killed process 1 (",
            b"oom-kill:constraint=X,cpuset=",
            b"Task in /",
            b"6,1,1,-;",
            b"Nov 22 06:40:46 ",
        ):
            yield begin + unit * (size // len(unit)) + b"\n"


def test_no_line_takes_longer_than_its_length_allows() -> None:
    def cost(size: int) -> float:
        log = b"".join(long_lines(size))
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            for _ in KillSearch().kills(BytesIO(log)):
                pass
            best = min(best, time.process_time() - began)
        return best

    small, large = cost(MAX_RECORD_BYTES), cost(8 * MAX_RECORD_BYTES)
    # Eight times the bytes; what goes beyond a record's most is not looked at.
    assert large < 20 * small + 0.5


def test_a_line_without_an_end_takes_no_memory() -> None:
    import tracemalloc

    class Endless:
        left = 64

        def readinto(self, buffer: memoryview, /) -> int:
            self.left -= 1
            words = b"Killed process x " * (len(buffer) // 17) if self.left > 0 else b""
            buffer[: len(words)] = words
            return len(words)

    tracemalloc.start()
    try:
        assert list(KillSearch().kills(Endless())) == []
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
