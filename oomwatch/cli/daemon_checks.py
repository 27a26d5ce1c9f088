"""What `oomwatch doctor` finds where a daemon runs: what that one cannot see or write, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from oomwatch.cli.checks import FORBIDDEN, Check, Host, State, check_daemon, why_silent
from oomwatch.errors import OomwatchError

if TYPE_CHECKING:
    from oomwatch.status import NodeStatus

_ANSWER_SECONDS = 5.0
_MEND = "Do as it says; until then its health is NOT_SERVING."
_SEE_KILLS = ("memory_events", "kernel_log", "tracepoint")


def ask_daemon(host: Host) -> list[Check]:
    """How the daemon says it is doing; nothing where none answers, which is a check of its own."""
    if host.socket is None or why_silent(host.socket) is not None:
        return []
    status = _status(host)
    return [status] if isinstance(status, Check) else _health(status)


def judge_daemon(host: Host) -> list[Check]:
    """Whether a daemon that was named sees kills, by its own word alone; the first: does it answer?

    What it sees need not be what this process would: it may have another tree, other rights, its
    own mounts, or be on another machine behind a socket that is passed on.
    """
    assert host.socket is not None
    answers, silence = check_daemon(host), why_silent(host.socket)
    if silence == FORBIDDEN:
        return [replace(answers, state=State.FAILED), _NOT_JUDGED]
    if silence is not None:
        found = f"none answers at {host.socket} ({silence})"
        mend = f"Name another socket, or start one there: oomwatch serve --socket {host.socket}"
        return [Check("daemon", State.FAILED, found, mend), _NOT_JUDGED]
    status = _status(host)
    if isinstance(status, Check):
        return [replace(status, name=answers.name, state=State.FAILED), _NOT_JUDGED]
    return [answers, _place(host, status), *_sight(status), *_health(status), _NOT_JUDGED]


_NOT_JUDGED = Check(
    "this host",
    State.SKIPPED,
    "a daemon was asked about, so not judged is what this process would find here: the cgroup "
    "tree, inotify, the kernel's log, the tracepoint, rights, namespaces, runtimes",
    "Leave --socket and OOMWATCH_SOCKET out, or name a tree beside it with --cgroup-root.",
)


def _status(host: Host) -> NodeStatus | Check:
    from oomwatch.client import Client

    assert host.socket is not None
    try:
        with Client(host.socket, timeout=_ANSWER_SECONDS) as client:
            return client.get_status()
    except OomwatchError as error:
        found = f"something listens there, and does not say how it is: {error}"
        mend = "Look into its log; if it hangs, start it again: no kill is lost by that."
        return Check("its status", State.DEGRADED, found, mend)


def _place(host: Host, status: NodeStatus) -> Check:
    """Which machine and which tree it speaks of."""
    boot = (host.text("/proc/sys/kernel/random/boot_id") or "").strip()
    where = "this machine" if boot == status.boot_id else "another boot or machine than this"
    found = (
        f"{status.cgroup_root} on {status.hostname} (Linux {status.kernel_release}, {where}): "
        f"{status.cgroups} cgroups"
    )
    return Check("its tree", State.OK, found)


def _sight(status: NodeStatus) -> list[Check]:
    """A failure where none of its sources would see a kill."""
    blind = [source for source in status.sources if source.name in _SEE_KILLS]
    if any(source.active for source in blind):
        return []
    why = "; ".join(f"{source.name}: {source.detail}" for source in blind) or "it has no source"
    mend = "See what it is given (--cgroup-root, --kernel-log), and its log."
    return [Check("its sight", State.FAILED, f"no kill can be seen by it: {why}", mend)]


def _health(status: NodeStatus) -> list[Check]:
    checks = [Check("its health", State.DEGRADED, one, _MEND) for one in status.problems]
    if not checks:
        checks = [Check("its health", State.OK, "SERVING: what is promised is kept")]
    journal = status.journal
    checks += [Check("its journal", State.OK, journal.detail)]
    if not journal.healthy:
        waiting = f"{journal.pending_events} events wait in memory, in order: {journal.detail}"
        checks[-1] = Check("its journal", State.DEGRADED, waiting, _MEND)
    poor = [source for source in status.sources if source.degraded]
    checks += [
        Check(f"its {source.name}", State.DEGRADED, source.detail, "Its log may say more.")
        for source in poor
    ]
    if not poor:
        active = ", ".join(source.name for source in status.sources if source.active)
        checks.append(Check("its sources", State.OK, f"active: {active}"))
    return checks
