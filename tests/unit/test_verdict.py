"""Evidence in, verdict out: the table row by row, and what must hold for any evidence at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.events import Confidence, Verdict
from oomwatch.verdict import (
    ROWS,
    Due,
    ExitEvidence,
    KillerMark,
    KillOfLife,
    LastRead,
    LimitHit,
    Sandbox,
    UsageSample,
    VictimRole,
    judge,
)
from oomwatch.verdict.table import markdown
from oomwatch.verdict.words import STILL_DUE

SEMANTICS = Path(__file__).parents[2] / "docs" / "semantics.md"
EXIT = 1_700_000_000_000_000
SECOND = 1_000_000

OOM, NOT_OOM, UNKNOWN = Verdict.OOM, Verdict.NOT_OOM, Verdict.UNKNOWN
LOW, MEDIUM, HIGH, CONFIRMED = Confidence


def killed(seconds_before: float = 0.1, **details: object) -> KillOfLife:
    details.setdefault("kill_count", 1)
    details.setdefault("revision", 7)
    return KillOfLife(time=EXIT - int(seconds_before * SECOND), **details)  # type: ignore[arg-type]


def exited(code: int | None = None, *kills: KillOfLife, **details: object) -> ExitEvidence:
    return ExitEvidence(exit_time=EXIT, exit_code=code, kills=kills, **details)  # type: ignore[arg-type]


MAIN = killed(main_process=True)
CHILD = killed(main_process=False)
SOMEBODY = killed()
MAYBE = killed(candidates=3)
LONG_AGO = killed(90, main_process=False)
READ, SUMS = LastRead.READ, LastRead.SUMS
AT_LIMIT = LimitHit(time=EXIT - SECOND, count=12, pressure=0.4)
FULL = UsageSample(time=EXIT - SECOND, usage_bytes=99, limit_bytes=100)
DUE, SOUGHT, UNPLACED = (frozenset({due}) for due in (Due.COUNTERS, Due.SANDBOX, Due.PLACE))
EARLYOOM = KillerMark(killer="earlyoom", mark="its log says so")

ROW_BY_ROW = {
    "main_process_killed": [
        (exited(137, MAIN, last_read=READ), OOM, CONFIRMED),
        (exited(0, MAIN, last_read=READ), OOM, CONFIRMED),
        (exited(None, MAIN), OOM, CONFIRMED),
        (exited(137, MAIN, stop_requested=True, stop_signal=9), OOM, CONFIRMED),
        (exited(137, killed(20, main_process=True), last_read=READ), OOM, CONFIRMED),
        (exited(143, MAIN, sandbox=Sandbox.SHARED), OOM, CONFIRMED),
        (exited(137, killed(main_process=True, confidence=HIGH)), OOM, HIGH),
    ],
    "whole_group_killed": [(exited(137, killed(whole_group=True, kill_count=4)), OOM, CONFIRMED)],
    "sandbox_killed": [
        (
            exited(code, killed(role=role, main_process=False), sandbox=Sandbox.OWN),
            OOM,
            CONFIRMED,
        )
        for code in (0, 128, 137, 143)
        for role in (VictimRole.SENTRY, VictimRole.STUB)
    ],
    "sandbox_killed_unnamed": [
        (exited(code, kill, sandbox=Sandbox.OWN), OOM, HIGH)
        for code in (0, 128, 137, 143)
        for kill in (SOMEBODY, killed(named=True))
    ],
    "stop_obeyed_beside_kill": [
        (exited(143, CHILD, stop_requested=True), NOT_OOM, HIGH),
        (exited(130, CHILD, stop_requested=True, stop_signal=2), NOT_OOM, HIGH),
        (exited(0, CHILD, stop_requested=True), NOT_OOM, HIGH),
    ],
    "stop_forced_beside_kill": [
        (exited(137, CHILD, stop_requested=True), UNKNOWN, MEDIUM),
        (exited(137, SOMEBODY, stop_requested=True, stop_signal=9), UNKNOWN, MEDIUM),
    ],
    "passed_on": [
        (exited(137, CHILD, last_read=READ), OOM, HIGH),
        (exited(137, SOMEBODY, due=DUE | {Due.NAMES}), OOM, HIGH),
        (exited(137, SOMEBODY, last_read=READ), OOM, HIGH),
        (exited(None, CHILD, signal=9), OOM, HIGH),
        (exited(137, CHILD, signal=0), OOM, HIGH),
        (exited(137, killed(-0.5)), OOM, HIGH),
    ],
    "child_killed_ended_well": [
        (exited(0, CHILD, last_read=READ), NOT_OOM, HIGH),
        (
            exited(0, killed(role=VictimRole.GOFER, main_process=False), sandbox=Sandbox.OWN),
            NOT_OOM,
            HIGH,
        ),
    ],
    "child_killed_ended_badly": [
        (exited(2, CHILD, last_read=READ), UNKNOWN, MEDIUM),
        (exited(1, SOMEBODY, last_read=READ), UNKNOWN, MEDIUM),
        (exited(None, SOMEBODY, last_read=READ), UNKNOWN, MEDIUM),
        (exited(0, SOMEBODY, last_read=READ, sandbox=Sandbox.UNSEEN), UNKNOWN, MEDIUM),
        (exited(143, SOMEBODY, stop_requested=True, sandbox=Sandbox.UNSEEN), UNKNOWN, MEDIUM),
        (
            exited(128, killed(role=VictimRole.GOFER, main_process=False), sandbox=Sandbox.OWN),
            UNKNOWN,
            MEDIUM,
        ),
    ],
    "shared_kill": [
        (exited(137, MAYBE, last_read=SUMS), UNKNOWN, MEDIUM),
        (exited(137, killed(main_process=True, candidates=2), last_read=READ), UNKNOWN, MEDIUM),
        (exited(0, MAYBE, last_read=READ, sandbox=Sandbox.SHARED), UNKNOWN, MEDIUM),
    ],
    "userspace_killer": [
        (exited(137, last_read=READ, killer_marks=(EARLYOOM,)), NOT_OOM, CONFIRMED),
        (exited(143, last_read=READ, killer_marks=(EARLYOOM,)), NOT_OOM, CONFIRMED),
    ],
    "userspace_killer_alone": [(exited(137, killer_marks=(EARLYOOM,)), NOT_OOM, HIGH)],
    "killed_unnamed_before": [
        (exited(137, killed(12), last_read=READ), UNKNOWN, MEDIUM),
        (exited(137, killed(12)), UNKNOWN, MEDIUM),
        (exited(137, killed(12), last_read=READ, stop_requested=True), UNKNOWN, MEDIUM),
        (exited(137, killed(12, candidates=2), last_read=READ), UNKNOWN, MEDIUM),
        (exited(0, killed(12), last_read=READ, sandbox=Sandbox.OWN), UNKNOWN, MEDIUM),
    ],
    "stopped": [
        (exited(137, last_read=READ, stop_requested=True), NOT_OOM, CONFIRMED),
        (exited(137, LONG_AGO, last_read=READ, stop_requested=True), NOT_OOM, CONFIRMED),
    ],
    "someone_elses_sigkill": [
        (exited(137, last_read=READ), NOT_OOM, CONFIRMED),
        (exited(137, last_read=SUMS), NOT_OOM, CONFIRMED),
        (exited(137, LONG_AGO, last_read=READ), NOT_OOM, CONFIRMED),
        (exited(137, killed(12, main_process=False), last_read=READ), NOT_OOM, CONFIRMED),
        (exited(137, killed(31), last_read=READ), NOT_OOM, CONFIRMED),
        (exited(137, last_read=READ, usage=FULL), NOT_OOM, CONFIRMED),
        (exited(137, last_read=SUMS, limit_hit=AT_LIMIT), NOT_OOM, CONFIRMED),
    ],
    "killed_earlier_ended_well": [
        (exited(0, LONG_AGO, last_read=READ), NOT_OOM, HIGH),
        (exited(143, LONG_AGO, last_read=READ, stop_requested=True), NOT_OOM, HIGH),
        (exited(0, killed(90, main_process=True), last_read=READ), NOT_OOM, HIGH),
    ],
    "killed_earlier_ended_badly": [(exited(1, LONG_AGO, last_read=READ), NOT_OOM, MEDIUM)],
    "nothing_killed": [
        (exited(code, last_read=READ), NOT_OOM, CONFIRMED) for code in (0, 1, 2, 128, 139, 143)
    ],
    "witness_due": [
        *((exited(code, due=DUE), UNKNOWN, LOW) for code in (None, 1, 137, 139, 143)),
        *((exited(code, due=UNPLACED), UNKNOWN, LOW) for code in (None, 1, 137, 139, 143)),
        (exited(137, due=UNPLACED, runtime_oom_killed=True), UNKNOWN, LOW),
        (exited(137, due=DUE, stop_requested=True), UNKNOWN, LOW),
        (exited(137, due=DUE, runtime_oom_killed=True), UNKNOWN, LOW),
        (exited(0, due=DUE, sandbox=Sandbox.OWN, stop_requested=True), UNKNOWN, LOW),
        (exited(1, last_read=READ, due=SOUGHT, sandbox=Sandbox.UNSEEN), UNKNOWN, LOW),
    ],
    "stopped_unseen": [
        (exited(137, stop_requested=True), NOT_OOM, MEDIUM),
        (exited(143, stop_requested=True), NOT_OOM, MEDIUM),
        (exited(143, MAYBE, last_read=READ, stop_requested=True), NOT_OOM, MEDIUM),
        (exited(0, stop_requested=True), NOT_OOM, MEDIUM),
    ],
    "runtime_says": [(exited(137, runtime_oom_killed=True), OOM, MEDIUM)],
    "runtime_says_of_another": [
        (exited(1, runtime_oom_killed=True), UNKNOWN, MEDIUM),
        (exited(0, runtime_oom_killed=True, sandbox=Sandbox.UNSEEN), UNKNOWN, MEDIUM),
    ],
    "hinted": [
        (exited(2, sandbox=Sandbox.UNSEEN, sandbox_out_of_memory=True), UNKNOWN, MEDIUM),
        (exited(137, usage=FULL), UNKNOWN, MEDIUM),
        (exited(137, usage=replace(FULL, usage_bytes=95)), UNKNOWN, MEDIUM),
        (exited(128, sandbox=Sandbox.UNSEEN, usage=FULL), UNKNOWN, MEDIUM),
        (exited(137, limit_hit=AT_LIMIT), UNKNOWN, MEDIUM),
    ],
    "sigkill_alone": [
        (exited(137), UNKNOWN, LOW),
        (exited(137, last_read=READ, unwatched_before=EXIT - SECOND), UNKNOWN, LOW),
        (exited(None, signal=9), UNKNOWN, LOW),
        (exited(137, usage=replace(FULL, usage_bytes=94)), UNKNOWN, LOW),
        (exited(137, limit_hit=replace(AT_LIMIT, time=EXIT - 3 * SECOND)), UNKNOWN, LOW),
        *((exited(code, sandbox=Sandbox.UNSEEN), UNKNOWN, LOW) for code in (0, 128, 137, 143)),
    ],
    "another_signal": [(exited(143), NOT_OOM, LOW), (exited(139), NOT_OOM, LOW)],
    "ended_well": [
        (exited(0, due=DUE), NOT_OOM, LOW),
        (exited(0, due=UNPLACED), NOT_OOM, LOW),
        (exited(0), NOT_OOM, LOW),
        (exited(0, MAYBE, last_read=READ), NOT_OOM, LOW),
        (exited(0, runtime_oom_killed=True), NOT_OOM, LOW),
    ],
    "nothing_known": [(exited(1), UNKNOWN, LOW), (exited(), UNKNOWN, LOW)],
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_row_says_what_the_documentation_says(row: object) -> None:
    name = row.name  # type: ignore[attr-defined]
    assert ROW_BY_ROW[name], "a row without an example"
    for evidence, verdict, confidence in ROW_BY_ROW[name]:
        ruling = judge(evidence)
        assert (ruling.row, ruling.verdict, ruling.confidence) == (name, verdict, confidence)


def test_the_documentation_prints_the_table_that_decides() -> None:
    assert markdown() in SEMANTICS.read_text(), (
        "the verdict table of docs/semantics.md is an old one: put in what "
        "`python -m oomwatch.verdict.table` prints"
    )


def test_reasons_name_the_figures() -> None:
    ruling = judge(
        exited(
            2,
            killed(1.5, main_process=False, words="cc1plus[4242] at its own limit of 512 MiB"),
            last_read=READ,
            runtime_oom_killed=True,
        )
    )
    said = "\n".join(ruling.reasons)
    assert "it exited with 2" in said
    assert "killed once, 1.5 s before the exit: cc1plus[4242] at its own limit of 512 MiB" in said
    assert "the main process was no victim" in said
    assert "hold no further kill" in said
    assert "the runtime says" in said
    assert [kill.revision for kill in ruling.kills] == [7]


def test_a_kill_after_the_exit_is_not_said_to_be_of_earlier() -> None:
    """What was left in its cgroup may be killed later."""
    said = judge(exited(137, killed(-20, main_process=False), last_read=READ)).reasons
    assert "killed once, 20.0 s after it" in said[1]
    assert said[2].endswith("hold no kill but the 1 of other times")
    said = judge(exited(137, LONG_AGO, last_read=READ)).reasons
    assert said[2].endswith("hold no kill but the 1 of earlier")


def test_what_may_be_anothers_is_not_counted_among_the_kills_of_a_life() -> None:
    assert exited(0, CHILD, MAYBE, LONG_AGO).oom_kills == 2


def test_that_it_was_at_its_limit_is_not_said_beside_counters_that_clear_it() -> None:
    for read, said in ((LastRead.NONE, True), (READ, False), (SUMS, False)):
        reasons = judge(exited(137, limit_hit=AT_LIMIT, last_read=read)).reasons
        assert any("at its limit 12 times" in reason for reason in reasons) is said


def test_a_container_younger_than_the_watching_by_less_than_a_kill_is_not_clean() -> None:
    blind = exited(137, last_read=READ, unwatched_before=EXIT - SECOND)
    assert judge(blind).verdict is UNKNOWN
    assert judge(replace(blind, unwatched_before=EXIT - 60 * SECOND)).row == "someone_elses_sigkill"


# What must hold whatever is known

kills = st.builds(
    KillOfLife,
    time=st.integers(EXIT - 200 * SECOND, EXIT + 5 * SECOND),
    kill_count=st.integers(1, 9),
    revision=st.none() | st.integers(1, 99),
    named=st.booleans(),
    main_process=st.none() | st.booleans(),
    whole_group=st.booleans(),
    candidates=st.integers(1, 3),
    role=st.none() | st.sampled_from(VictimRole),
    confidence=st.sampled_from(Confidence),
)
codes = st.none() | st.integers(0, 255)
signals = st.none() | st.integers(0, 64)
evidences = st.builds(
    ExitEvidence,
    exit_time=st.just(EXIT),
    exit_code=codes,
    signal=signals,
    stop_requested=st.none() | st.booleans(),
    stop_signal=st.none() | st.integers(1, 64),
    runtime_oom_killed=st.none() | st.booleans(),
    last_read=st.sampled_from(LastRead),
    kills=st.lists(kills, max_size=4).map(tuple),
    usage=st.none()
    | st.builds(
        UsageSample,
        time=st.just(EXIT - SECOND),
        usage_bytes=st.integers(0, 2**62),
        limit_bytes=st.none() | st.integers(0, 2**62),
    ),
    killer_marks=st.lists(st.just(EARLYOOM), max_size=1).map(tuple),
    sandbox=st.none() | st.sampled_from(Sandbox),
    unwatched_before=st.none() | st.integers(EXIT - 90 * SECOND, EXIT),
    due=st.frozensets(st.sampled_from(Due)),
)


@given(evidences)
def test_any_evidence_has_a_verdict_with_reasons(evidence: ExitEvidence) -> None:
    ruling = judge(evidence)
    assert all(reason and "\n" not in reason for reason in ruling.reasons)
    assert set(ruling.kills) <= set(evidence.kills)


@given(evidences)
def test_a_witness_that_is_due_is_named(evidence: ExitEvidence) -> None:
    said = [reason for reason in judge(evidence).reasons if reason.startswith(STILL_DUE)]
    assert len(said) == len(evidence.due)


@given(evidences)
def test_where_a_kill_may_yet_be_shown_none_is_denied(evidence: ExitEvidence) -> None:
    unread = replace(evidence, last_read=LastRead.NONE, kills=(), killer_marks=(), due=DUE)
    ruling = judge(unread)
    plain_and_well = evidence.sandbox is None and evidence.ended_well
    assert ruling.verdict is (NOT_OOM if plain_and_well else UNKNOWN)
    assert ruling.confidence.rank <= MEDIUM.rank


@given(codes, signals, st.none() | st.sampled_from(Sandbox))
def test_an_exit_status_alone_never_exceeds_low(
    code: int | None, signal: int | None, sandbox: Sandbox | None
) -> None:
    ruling = judge(exited(code, signal=signal, sandbox=sandbox))
    assert ruling.confidence is LOW
    assert ruling.verdict is not OOM


@given(evidences, st.sampled_from([0, 143]))
def test_0_and_143_never_point_to_oom_without_a_kill(evidence: ExitEvidence, code: int) -> None:
    ruling = judge(replace(evidence, exit_code=code, signal=None, kills=()))
    assert ruling.verdict is not OOM


@given(evidences)
def test_confirmed_needs_the_kernels_word(evidence: ExitEvidence) -> None:
    ruling = judge(evidence)
    if ruling.confidence is CONFIRMED:
        by_kill = any(kill.confidence is CONFIRMED for kill in ruling.kills)
        assert by_kill or evidence.last_read is not LastRead.NONE
    if ruling.verdict is OOM and ruling.confidence.rank > MEDIUM.rank:
        assert ruling.kills


@given(evidences, st.lists(kills, min_size=1, max_size=4))
def test_an_earlier_kill_never_makes_a_later_clean_exit_an_oom(
    evidence: ExitEvidence, earlier: list[KillOfLife]
) -> None:
    old = tuple(replace(kill, time=EXIT - 40 * SECOND - n) for n, kill in enumerate(earlier))
    counted = replace(evidence, kills=old, last_read=READ, unwatched_before=None)
    assert judge(counted).verdict is not OOM
    unseen = replace(evidence, kills=old, exit_code=0, signal=None)
    assert judge(unseen).verdict is not OOM


@given(evidences)
def test_what_may_be_anothers_kill_alone_never_makes_an_oom(evidence: ExitEvidence) -> None:
    unsure = tuple(replace(kill, candidates=2) for kill in evidence.kills)
    ruling = judge(replace(evidence, kills=unsure, runtime_oom_killed=None))
    assert ruling.verdict is not OOM


@given(evidences)
def test_a_sandbox_of_which_nothing_is_visible_is_never_sure(evidence: ExitEvidence) -> None:
    ruling = judge(
        replace(
            evidence,
            kills=(),
            killer_marks=(),
            sandbox=Sandbox.UNSEEN,
        )
    )
    assert ruling.confidence.rank <= MEDIUM.rank
