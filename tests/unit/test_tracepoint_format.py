"""The text of oom:mark_victim, read by its own format file, whatever the victim is called."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.cgroup.process import read_process, sees_the_hosts_pids
from oomwatch.observations import Observation, VictimNamed
from oomwatch.sources.tracepoint import Format, Tracepoint

OLD = 'name: mark_victim\n\nprint fmt: "pid=%d", REC->pid\n'
NEW = (
    'name: mark_victim\n\nprint fmt: "pid=%d comm=%s total-vm=%lukB anon-rss=%lukB file-rss:%lukB '
    'shmem-rss:%lukB uid=%u pgtables=%lukB oom_score_adj=%hd", REC->pid, __get_str(comm), '
    "REC->total_vm, REC->anon_rss, REC->file_rss, REC->shmem_rss, REC->uid, REC->pgtables, "
    "REC->oom_score_adj\n"
)
HEAD = b"           <...>-150     [001] ...1.    24.111097: mark_victim: "


def hit(pid: int, comm: bytes) -> bytes:
    sizes = b"total-vm=78344kB anon-rss=10800kB file-rss:3636kB shmem-rss:0kB"
    rest = b"uid=0 pgtables=84kB oom_score_adj=-998"
    return HEAD + b"pid=%d comm=%s %s %s\n" % (pid, comm, sizes, rest)


def test_the_old_form_has_the_pid_alone() -> None:
    hits, left = Format(OLD).parse(HEAD + b"pid=7\n" + HEAD + b"pid=8\n" + HEAD[:20])
    assert [found["pid"] for found in hits] == [b"7", b"8"]
    assert hits[0]["seconds"] + b"." + hits[0]["micros"] == b"24.111097"
    assert left == HEAD[:20]


def test_the_new_form_has_the_sizes() -> None:
    (found,), left = Format(NEW).parse(hit(150, b"tail"))
    assert (found["comm"], found["total_vm"], found["oom_score_adj"]) == (
        b"tail",
        b"78344",
        b"-998",
    )
    assert left == b""


@given(st.lists(st.binary(min_size=1, max_size=15).filter(lambda c: b"\0" not in c), max_size=5))
def test_any_names_come_out_as_they_went_in(comms: list[bytes]) -> None:
    text = b"".join(hit(pid, comm) for pid, comm in enumerate(comms))
    hits, left = Format(NEW).parse(text)
    assert [(int(found["pid"]), found.get("comm")) for found in hits] == list(enumerate(comms))
    assert left == b""


def test_a_process_is_read_as_far_as_it_is_there() -> None:
    here = read_process(os.getpid())
    assert here.cgroup is None or here.cgroup.startswith("/")
    assert here.cmdline
    assert read_process(2**22 + 1).cgroup is None
    assert sees_the_hosts_pids("/nowhere") is False


def test_hits_that_could_not_be_taken_in_cost_no_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Format, buffer: bytes) -> None:
        monkeypatch.undo()
        raise ValueError("seeded")

    trace = Tracepoint()
    told: list[Observation] = []
    read, write = os.pipe()
    try:
        trace._pipe, trace._format, trace._emit = read, Format(NEW), told.extend
        monkeypatch.setattr(Format, "parse", fails)
        for pid in (1, 2):
            os.write(write, hit(pid, b"tail"))
            trace._wake()
        assert [each.victim.pid for each in told if isinstance(each, VictimNamed)] == [2]
        state = trace.state()
        assert state.active
        assert state.degraded
        assert "it failed (ValueError: seeded)" in state.detail
        assert state.figures is not None
        assert state.figures["faults"] == 1
    finally:
        os.close(read)
        os.close(write)
    assert "these hits name nobody" in caplog.text
