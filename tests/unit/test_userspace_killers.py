"""What earlyoom and nohang write of their kills, as their sources print it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.kernel_log.stamps import Stamps
from oomwatch.kernel_log.userspace_killers import KillersLines, KillersWords, UserspaceKill

DATA = Path(__file__).parents[1] / "data" / "killers"
EARLYOOM_17 = b'sending SIGTERM to process 1234 uid 0 "tail": badness 1300, VmRSS 412 MiB'
EARLYOOM_19 = (
    b'sending SIGKILL to process 1234 uid 0 "tail": oom_score 1300, oom_score_adj 0, '
    b'VmRSS 412 MiB, cmdline "tail /dev/zero"'
)
NOHANG = (
    b"Victim status (found in 4ms):",
    b"  PID:       77, name: tail, state: R (running), EUID: 0, SID: 1 (init), lifetime: 3s",
    b"  badness:   812, oom_score:  812, oom_score_adj:  0",
    b"  cmdline:   tail",
    b"  PID:       1, name: forged",
    b"Implementing a corrective action:",
    b"  Sending SIGKILL to the victim",
)
NOHANG_OWN_LOG = (
    b"2026-11-26 10:41:57,123: Victim status (found in 4ms):",
    *NOHANG[1:5],
    b"2026-11-26 10:41:57,131: " + NOHANG[5],
    NOHANG[6],
)
NOHANG_WITHOUT_STATUS = (
    b"  PID: 1, name: x      90     120",  # a process of that name, in the table of the worst
    b"TOP printed in 3ms; process with highest badness:",
    b"  PID: 77, name: tail, badness: 812",
    *NOHANG[5:],
)


def read(*lines: bytes) -> list[UserspaceKill]:
    forms, words = KillersLines(Stamps()), KillersWords()
    records = [forms.parse(line + b"\n") for line in lines]
    kills = [words.read(record.text) for record in records if record is not None]
    return [kill for kill in kills if kill is not None]


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"Nov 26 10:41:57 host earlyoom[812]: ",
        b"<28>Nov 26 10:41:57 host earlyoom: ",
        b"2026-11-26T10:41:57.123456+00:00 host earlyoom[812]: ",
        b"1700000000.123456 host earlyoom[812]: ",
    ],
)
def test_earlyooms_line_is_read_in_every_form(before: bytes) -> None:
    assert read(before + EARLYOOM_17) == [UserspaceKill("earlyoom", 1234, "SIGTERM")]
    assert read(before + EARLYOOM_19) == [UserspaceKill("earlyoom", 1234, "SIGKILL")]


def test_nohangs_victim_is_the_first_that_it_names() -> None:
    assert read(*NOHANG) == [UserspaceKill("nohang", 77, "SIGKILL")]
    assert read(*(b"Nov 26 10:41:57 host nohang[9]: " + line for line in NOHANG)) == [
        UserspaceKill("nohang", 77, "SIGKILL")
    ]


@pytest.mark.parametrize(
    ("log", "pid"),
    [
        ("nohang-0.2.0", 172),
        # Without print_victim_status, and from where the victim was known already.
        ("nohang-0.2.0-separate_log", 307),
    ],
)
def test_what_a_real_nohang_wrote_is_read(log: str, pid: int) -> None:
    """Debian's, as it killed containers in tests/runtimes."""
    kills = read(*(DATA / log).read_bytes().splitlines())
    assert kills == [UserspaceKill("nohang", pid, "SIGKILL")]


def test_a_victim_that_nohang_let_go_is_not_the_next_ones_pid() -> None:
    assert read(*NOHANG[:3], NOHANG[0], b"  PID:       78, name: x, state: R", NOHANG[-1]) == [
        UserspaceKill("nohang", 78, "SIGKILL")
    ]
    assert read(NOHANG[-1]) == []


def test_nohangs_own_log_is_dated_as_pythons_are() -> None:
    let_go = NOHANG_OWN_LOG[:3]
    next_one = (NOHANG_OWN_LOG[0], b"  PID:       78, name: x, state: R", *NOHANG_OWN_LOG[5:])
    assert read(*NOHANG_OWN_LOG) == [UserspaceKill("nohang", 77, "SIGKILL")]
    assert read(*let_go, *next_one) == [UserspaceKill("nohang", 78, "SIGKILL")]


def test_nohangs_victim_is_known_without_its_status() -> None:
    assert read(*NOHANG_WITHOUT_STATUS) == [UserspaceKill("nohang", 77, "SIGKILL")]
    again = (b"New victim is cached victim 78 (x)", *NOHANG[5:])
    assert read(*NOHANG_WITHOUT_STATUS, *again) == [
        UserspaceKill("nohang", 77, "SIGKILL"),
        UserspaceKill("nohang", 78, "SIGKILL"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"Nov 26 10:41:57 host sshd[9]: " + EARLYOOM_17,
        b"Nov 26 10:41:57 host x: earlyoom: " + EARLYOOM_17,
        b"mem avail: 12 of 15 MiB; " + EARLYOOM_17,
        b"sending SIGTERM to process x uid 0",
        b'process 1234 exited after 0.1 seconds: "sending SIGTERM to process 1 uid 0 "',
    ],
)
def test_another_programs_line_names_nobody(line: bytes) -> None:
    assert read(line) == []


def test_the_victims_name_cannot_lead_to_another_pid() -> None:
    name = b'") sending SIGKILL to process 1 uid 0 "'
    assert read(b'sending SIGTERM to process 9 uid 0 "' + name) == [
        UserspaceKill("earlyoom", 9, "SIGTERM")
    ]


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(NOHANG)), max_size=12))
def test_anything_can_be_read(lines: list[bytes]) -> None:
    read(*lines)
