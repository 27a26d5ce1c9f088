"""The names of the last moments: one for each kill, by the pid that its witnesses tell."""

from __future__ import annotations

import pytest

from oomwatch.correlator import names
from oomwatch.correlator.names import KEEP_SECONDS, Names
from oomwatch.events import Victim
from oomwatch.observations import VictimNamed

START = 1_700_000_000_000_000


def record(pid: int, seconds: float, source: str = "kernel_log") -> VictimNamed:
    time = START + round(seconds * 1e6)
    return VictimNamed(
        source=source,
        sequence=time,
        time=time,
        seen_time=time,
        victim=Victim(pid=pid),
        detail="",
    )


def test_another_witness_of_a_kill_is_no_other_name_and_another_kill_is() -> None:
    known = Names()
    first = known.add(record(7, 0), 0)
    assert known.add(record(7, 0, "tracepoint"), 0) is first
    assert known.add(record(7, 0, "tracepoint"), 0) is None, "it tells nothing more"
    assert known.add(record(8, 0), 0) is not first
    # The pid was given to another process since.
    later = known.add(record(7, 30), 30)
    assert later is not None
    assert later is not first
    # Of the latest of them a witness speaks that comes after it.
    assert known.add(record(7, 30, "tracepoint"), 30) is later
    assert len(later.records) == 2


def test_what_is_forgotten_is_not_found_by_its_pid_either(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Names()
    former = known.add(record(7, 0), 0)
    known.add(record(8, 0), 0)
    anew = known.add(record(7, 2 * KEEP_SECONDS), 2 * KEEP_SECONDS)
    assert anew not in (None, former)
    assert [*known._last] == [7]
    monkeypatch.setattr(names, "MAX_NAMES", 3)
    for pid in range(100, 110):
        known.add(record(pid, 2 * KEEP_SECONDS), 2 * KEEP_SECONDS)
    assert len(known._last) == len(known._names) <= 4
