"""The table: which evidence gives which verdict. The first row that fits is the verdict.

Each row says in words what its predicate says in code, and why. docs/semantics.md prints the words.

Confidence is `confirmed` only where the kernel's own word decides: a kill that it counted or
logged, or counters that were read after the exit and show none. A kill that was itself told with
less (by elimination) takes its verdict down with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from oomwatch.events import Confidence, Verdict
from oomwatch.verdict import words
from oomwatch.verdict.evidence import ExitEvidence, KillOfLife, Sandbox, VictimRole

_USERSPACE_SIGNALS = (9, 15)
"""earlyoom sends SIGTERM first; systemd-oomd, oomd and nohang's last resort send SIGKILL."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict with its reasons, the kills that it rests on, and the row that gave it."""

    verdict: Verdict
    confidence: Confidence
    reasons: tuple[str, ...]
    kills: tuple[KillOfLife, ...]
    row: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: `when` and `because` are for people, `fits` is what decides."""

    name: str
    when: str
    verdict: Verdict
    confidence: Confidence
    because: str
    fits: Callable[[ExitEvidence], bool]
    rests_on: Callable[[ExitEvidence], Iterable[KillOfLife]] = lambda _: ()


def judge(evidence: ExitEvidence) -> Ruling:
    """Give the verdict that the evidence bears out, by the first row that fits."""
    row = next(row for row in ROWS if row.fits(evidence))
    kills = tuple(row.rests_on(evidence))
    sure = min((row.confidence, *(k.confidence for k in kills)), key=lambda c: c.rank)
    shown = kills or evidence.any_near
    reasons = [
        f"{row.because}; {words.status(evidence)}",
        *words.kills(evidence, shown or evidence.earlier[-1:]),
        words.counters(evidence),
        *words.ran_on(evidence),
        *words.stop(evidence),
        *words.marks(evidence),
        *words.hints(evidence),
        *words.runtime_flag(evidence),
        *words.unwatched(evidence),
        *words.due(evidence),
    ]
    return Ruling(row.verdict, sure, tuple(reasons), kills, row.name)


def _main_killed(evidence: ExitEvidence) -> tuple[KillOfLife, ...]:
    return evidence.main_killed


def _group_killed(evidence: ExitEvidence) -> tuple[KillOfLife, ...]:
    return tuple(kill for kill in evidence.near if kill.whole_group)


def _sandbox_killed(evidence: ExitEvidence) -> tuple[KillOfLife, ...]:
    parts = (VictimRole.SENTRY, VictimRole.STUB)
    return tuple(kill for kill in evidence.near if kill.role in parts)


def _near(evidence: ExitEvidence) -> tuple[KillOfLife, ...]:
    return evidence.near


def _shared_near(evidence: ExitEvidence) -> tuple[KillOfLife, ...]:
    return evidence.shared_near


def _unnamed_in_own_sandbox(evidence: ExitEvidence) -> bool:
    return evidence.sandbox is Sandbox.OWN and evidence.may_be_sandboxs_end


def _may_be_shared_kill(evidence: ExitEvidence) -> bool:
    if not evidence.shared_near:
        return False
    return evidence.sandbox is not None or not (evidence.ended_well or evidence.stop_obeyed)


def _userspace_kill(evidence: ExitEvidence) -> bool:
    return bool(evidence.killer_marks) and evidence.ended_by in _USERSPACE_SIGNALS


def _stopped(evidence: ExitEvidence) -> bool:
    return bool(evidence.stop_requested) and (evidence.sigkill or evidence.stop_obeyed)


ROWS: tuple[Row, ...] = (
    Row(
        "main_process_killed",
        "a kill names the main process (a sandbox's sentry) among its victims, and the exit is "
        "within 2 s of it; within 30 s if it is SIGKILL (or gVisor's 0, 128, 143)",
        Verdict.OOM,
        Confidence.CONFIRMED,
        "the kernel's OOM killer killed the main process",
        lambda e: bool(_main_killed(e)),
        _main_killed,
    ),
    Row(
        "whole_group_killed",
        "`memory.oom.group` made the kernel kill all of the container, near the exit",
        Verdict.OOM,
        Confidence.CONFIRMED,
        "the kernel's OOM killer killed the whole container",
        lambda e: bool(_group_killed(e)),
        _group_killed,
    ),
    Row(
        "sandbox_killed",
        "gVisor: a kill near the exit names the sentry or a stub, whatever the exit code",
        Verdict.OOM,
        Confidence.CONFIRMED,
        "the kernel's OOM killer ended the sandbox",
        lambda e: bool(_sandbox_killed(e)),
        _sandbox_killed,
    ),
    Row(
        "sandbox_killed_unnamed",
        "gVisor with a cgroup of its own: a kill in it near the exit, whose victim has no name, or "
        "one of which nobody knows what part of the sandbox it was, whatever the exit code",
        Verdict.OOM,
        Confidence.HIGH,
        "the kernel's OOM killer killed in the sandbox's own cgroup as it ended",
        _unnamed_in_own_sandbox,
        _near,
    ),
    Row(
        "stop_obeyed_beside_kill",
        "another process was killed near the exit, but a stop was asked for and the main process "
        "ended by its signal, or with 0 (of a gVisor sandbox, a gofer was)",
        Verdict.NOT_OOM,
        Confidence.HIGH,
        "it ended as it was asked to, though the kernel's OOM killer had killed in it",
        lambda e: bool(e.near) and e.stop_obeyed and not e.may_be_sandboxs_end,
        _near,
    ),
    Row(
        "stop_forced_beside_kill",
        "a kill near the exit, none of them known to be of the main process; a stop was asked "
        "for, and SIGKILL ended it",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "either the stop or the OOM kill beside it ended the main process",
        lambda e: bool(e.near) and bool(e.stop_requested) and e.sigkill,
        _near,
    ),
    Row(
        "passed_on",
        "a kill near the exit, none of them known to be of the main process, which ended as by "
        "SIGKILL (`docker run --init`, `sh -c 'cmd; exit $?'`)",
        Verdict.OOM,
        Confidence.HIGH,
        "the main process ended as a process does that the OOM killer killed, or passed its "
        "child's end on",
        lambda e: bool(e.near) and e.sigkill,
        _near,
    ),
    Row(
        "child_killed_ended_well",
        "a kill near the exit, none of them known to be of the main process, which exited with 0 "
        "(of a gVisor sandbox, the victim is known to be a gofer)",
        Verdict.NOT_OOM,
        Confidence.HIGH,
        "the main process ended well by itself; what was killed was another process",
        lambda e: bool(e.near) and e.ended_well and not e.may_be_sandboxs_end,
        _near,
    ),
    Row(
        "child_killed_ended_badly",
        "a kill near the exit, none of them known to be of the main process, and any other status "
        "(a build tool's 2; any, of a gVisor sandbox that nobody had found), or none told",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "the OOM kill beside it is the likely cause, but the main process was not seen to be "
        "killed",
        lambda e: bool(e.near),
        _near,
    ),
    Row(
        "shared_kill",
        "a kill near the exit that may be this container's or another's (a shared cgroup, several "
        "removed cgroups); a plain container did not exit with 0 nor as it was asked to",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "the kernel's OOM killer killed near the exit, and it cannot be told in which container",
        _may_be_shared_kill,
        _shared_near,
    ),
    Row(
        "userspace_killer",
        "SIGKILL or SIGTERM, a userspace OOM killer's mark, and counters that show no kill",
        Verdict.NOT_OOM,
        Confidence.CONFIRMED,
        "a userspace OOM killer ended it, and not the kernel's",
        lambda e: _userspace_kill(e) and e.counters_clean,
    ),
    Row(
        "userspace_killer_alone",
        "the same without counters",
        Verdict.NOT_OOM,
        Confidence.HIGH,
        "a userspace OOM killer says that it ended it",
        _userspace_kill,
    ),
    Row(
        "killed_unnamed_before",
        "SIGKILL (or gVisor's 0, 128, 143), and a kill 2 to 30 s before, of which no name tells "
        "whether it was of the main process",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "the kernel's OOM killer had killed before the exit, and whether the main process was the "
        "victim and was slow to end is not known",
        lambda e: e.suspect and bool(e.unsettled),
        lambda e: e.unsettled,
    ),
    Row(
        "stopped",
        "SIGKILL, counters that show no kill near the exit, and a stop was asked for",
        Verdict.NOT_OOM,
        Confidence.CONFIRMED,
        "SIGKILL, by the stop that was asked for and not by the kernel's OOM killer",
        lambda e: e.counters_clean and e.sigkill and bool(e.stop_requested),
    ),
    Row(
        "someone_elses_sigkill",
        "SIGKILL, and counters that show no kill near the exit",
        Verdict.NOT_OOM,
        Confidence.CONFIRMED,
        "SIGKILL, and not by the kernel's OOM killer",
        lambda e: e.counters_clean and e.sigkill,
    ),
    Row(
        "killed_earlier_ended_well",
        "counters that show no kill near the exit, kills long before it, exit 0 or as asked",
        Verdict.NOT_OOM,
        Confidence.HIGH,
        "it ended well, long after what the kernel's OOM killer had killed in it",
        lambda e: e.counters_clean and bool(e.earlier) and (e.ended_well or e.stop_obeyed),
    ),
    Row(
        "killed_earlier_ended_badly",
        "counters that show no kill near the exit, kills long before it, any other status",
        Verdict.NOT_OOM,
        Confidence.MEDIUM,
        "it ended long after what the kernel's OOM killer had killed in it; a late consequence "
        "cannot be ruled out",
        lambda e: e.counters_clean and bool(e.earlier),
    ),
    Row(
        "nothing_killed",
        "counters that show no kill in this life, any status but SIGKILL",
        Verdict.NOT_OOM,
        Confidence.CONFIRMED,
        "the kernel's OOM killer killed nothing in it",
        lambda e: e.counters_clean,
    ),
    Row(
        "witness_due",
        "counters, in which cgroup it was, or the place of a gVisor sandbox, that are due and did "
        "not come within the moment that was waited, any status but a plain container's 0; an "
        "amendment follows",
        Verdict.UNKNOWN,
        Confidence.LOW,
        "what would tell did not come within the moment that was waited",
        lambda e: e.may_be_cleared_or_convicted,
    ),
    Row(
        "stopped_unseen",
        "no counters; a stop was asked for, and it ended by SIGKILL or as asked",
        Verdict.NOT_OOM,
        Confidence.MEDIUM,
        "it ended as a stop ends it, and a stop had been asked for",
        _stopped,
    ),
    Row(
        "runtime_says",
        "no counters; SIGKILL, and the runtime's own OOM flag is set",
        Verdict.OOM,
        Confidence.MEDIUM,
        "the runtime was told of an OOM kill, and the main process ended as by SIGKILL",
        lambda e: bool(e.runtime_oom_killed) and e.sigkill,
    ),
    Row(
        "runtime_says_of_another",
        "no counters; the runtime's own OOM flag is set, and the status is neither SIGKILL nor a "
        "plain container's 0",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "the runtime was told of an OOM kill, in which process and when is not known",
        lambda e: bool(e.runtime_oom_killed) and (e.sandbox is not None or not e.ended_well),
    ),
    Row(
        "hinted",
        "no counters; SIGKILL (or gVisor's 0, 128, 143) and a sign that memory was short: usage at "
        "95 % of the limit when it was sampled last, or `max` of memory.events.local rising within "
        "2 s of the exit; or a gVisor sandbox whose own log says that it panicked for want of "
        "memory, whatever the status",
        Verdict.UNKNOWN,
        Confidence.MEDIUM,
        "memory was short as it ended, which is a hint and no proof",
        lambda e: e.suspect and e.hinted,
    ),
    Row(
        "sigkill_alone",
        "no counters; SIGKILL (or gVisor's 0, 128, 143) and nothing else",
        Verdict.UNKNOWN,
        Confidence.LOW,
        "the exit status alone cannot tell: anyone can send SIGKILL, and a sandbox's status says "
        "less",
        lambda e: e.suspect,
    ),
    Row(
        "another_signal",
        "no counters; a signal other than SIGKILL (143, 139, 134)",
        Verdict.NOT_OOM,
        Confidence.LOW,
        "the kernel's OOM killer sends SIGKILL, and this was another signal",
        lambda e: e.ended_by is not None,
    ),
    Row(
        "ended_well",
        "no counters; exit 0",
        Verdict.NOT_OOM,
        Confidence.LOW,
        "it ended well by itself",
        lambda e: e.ended_well,
    ),
    Row(
        "nothing_known",
        "no counters; any other status, or none told",
        Verdict.UNKNOWN,
        Confidence.LOW,
        "nothing that was seen tells why it ended",
        lambda _: True,
    ),
)
