"""The reasons of a verdict, in words with their figures: one sentence each, without a full stop."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from oomwatch.sizes import size
from oomwatch.verdict.evidence import Due, ExitEvidence, KillOfLife, LastRead, Sandbox, VictimRole

_ROLES = {
    VictimRole.SENTRY: "the gVisor sandbox's sentry, which is the sandbox",
    VictimRole.STUB: "a stub of the gVisor sandbox, without which the sentry ends itself",
    VictimRole.GOFER: "a gofer, the gVisor sandbox's file server",
}

STILL_DUE = "still due: "
"""How a reason begins that names a witness which may amend the exit."""

_KILLED = "the kernel's OOM killer killed "
_WHEN = re.compile(r", \d+\.\d s (?:before the exit|after it)")

_DUE = {
    Due.COUNTERS: "the counters of its cgroup, or of those above it; what they show amends this",
    Due.PLACE: "in which cgroup it was; if the removal of that tells, it amends this",
    Due.SANDBOX: "where the gVisor sandbox's processes live; what is found amends this",
    Due.NAMES: "the name of who was killed; if it comes it amends this",
}


def status(evidence: ExitEvidence) -> str:
    """Say how the main process ended, as its status tells it."""
    code, told = evidence.exit_code, evidence.signal
    if told:
        return f"it was ended by {_signal(told)}"
    if code is None:
        return "nobody told its exit code"
    by = evidence.ended_by
    if by is None:
        return f"it exited with {code}"
    return f"it exited with {code}, which stands for {_signal(by)} unless the program chose it"


def kills(evidence: ExitEvidence, near: Iterable[KillOfLife]) -> list[str]:
    """Say what was killed, and how long before the exit."""
    return [_kill(evidence, kill) for kill in near]


def _kill(evidence: ExitEvidence, kill: KillOfLife) -> str:
    times = "once" if kill.kill_count == 1 else f"{kill.kill_count} times"
    seconds = (evidence.exit_time - kill.time) / 1e6
    when = f"{seconds:.1f} s before the exit" if seconds >= 0 else f"{-seconds:.1f} s after it"
    what = f": {kill.words}" if kill.words else ""
    sentence = f"{_KILLED}{times}, {when}{what}"
    if kill.role is not None:
        sentence += f"; the victim was {_ROLES[kill.role]}"
    elif kill.main_process:
        sentence += "; the main process was a victim"
    elif kill.whole_group:
        sentence += "; the whole group was killed (memory.oom.group)"
    elif kill.main_process is False:
        sentence += "; the main process was no victim"
    else:
        sentence += "; whether the main process was a victim is not known"
    if kill.candidates > 1:
        sentence += f"; it may be this container's or another's, one of {kill.candidates}"
    return sentence


def kills_of(reasons: Iterable[str]) -> tuple[str, ...]:
    """What reasons that were given say of kills, but for how long before the exit each was."""
    return tuple(_WHEN.sub("", said, count=1) for said in reasons if said.startswith(_KILLED))


def counters(evidence: ExitEvidence) -> str:
    """Say what the kernel's counters showed after the exit."""
    if evidence.last_read is LastRead.NONE:
        if evidence.sandbox is Sandbox.UNSEEN:
            return "nothing of the sandbox's host processes was seen: no counters to read"
        return "no counters could be read after the exit"
    known = "its cgroup was gone, and the counts above it, read since,"
    if evidence.last_read is LastRead.READ:
        known = "its counters, read after the exit,"
    if evidence.sandbox is Sandbox.UNSEEN:
        known += " which may not be where the sandbox lived, as none of its processes was seen,"
    if evidence.any_near:
        return f"{known} hold no further kill"
    if evidence.earlier:
        # What was left in the cgroup may have been killed after it.
        before = all(kill.time <= evidence.exit_time for kill in evidence.earlier)
        when = "earlier" if before else "other times"
        return f"{known} hold no kill but the {evidence.oom_kills} of {when}"
    return f"{known} show no OOM kill"


def ran_on(evidence: ExitEvidence) -> list[str]:
    """Say that it may have been told too soon that it ended."""
    return ["processes still ran in its cgroup as that was read"] if evidence.ran_on else []


def stop(evidence: ExitEvidence) -> list[str]:
    """Say whether a stop was asked for, if anybody said."""
    if evidence.stop_requested is None:
        return []
    if not evidence.stop_requested:
        return ["nobody had asked for a stop"]
    by = f", by {_signal(evidence.stop_signal)}" if evidence.stop_signal else ""
    return [f"a stop had been asked for{by}"]


def marks(evidence: ExitEvidence) -> list[str]:
    """Name the userspace killers that left their mark."""
    return [f"{mark.killer} killed here: {mark.mark}" for mark in evidence.killer_marks]


def hints(evidence: ExitEvidence) -> list[str]:
    """Name the signs that memory was short; none of them is proof."""
    said = [f"the sandbox's own log says: {line}" for line in evidence.sandbox_lines]
    sample = evidence.usage
    if sample is not None:
        ago = max(0, evidence.exit_time - sample.time) / 1e6
        used = f"it used {size(sample.usage_bytes)}"
        if sample.limit_bytes:
            share = 100 * sample.usage_bytes / sample.limit_bytes
            used += f" of its limit of {size(sample.limit_bytes)} ({share:.0f} %)"
        said.append(f"{used} when last sampled, {ago:.1f} s before the exit")
    hit = evidence.limit_hit
    if hit is not None and not evidence.counters_clean:
        ago = max(0, evidence.exit_time - hit.time) / 1e6
        times = "once" if hit.count == 1 else f"{hit.count} times"
        waited = ""
        if hit.pressure is not None:
            waited = f", with processes waiting for memory {100 * hit.pressure:.0f} % of the time"
        said.append(f"it was at its limit {times}, last seen {ago:.1f} s before the exit{waited}")
    return said


def runtime_flag(evidence: ExitEvidence) -> list[str]:
    """Say what the runtime's own OOM flag was, if it was told."""
    if evidence.runtime_oom_killed is None:
        return []
    flag = "says" if evidence.runtime_oom_killed else "does not say"
    return [f"the runtime {flag} that there was an OOM kill in the container's life"]


def unwatched(evidence: ExitEvidence) -> list[str]:
    """Say that the container is older than the watching, if it is."""
    if evidence.unwatched_before is None:
        return []
    return ["what was killed in it before it was first looked at is not known"]


def due(evidence: ExitEvidence) -> list[str]:
    """Name the witnesses that were not heard yet."""
    return [STILL_DUE + said for witness, said in _DUE.items() if witness in evidence.due]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
