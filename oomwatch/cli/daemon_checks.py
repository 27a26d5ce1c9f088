"""What `oomwatch doctor` finds where a daemon runs: what that one cannot see or write, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from oomwatch.cli.checks import FORBIDDEN, Check, Host, State, who_may, why_silent
from oomwatch.cli.reach import Daemon
from oomwatch.errors import AddressError, OomwatchError

if TYPE_CHECKING:
    from oomwatch.status import NodeStatus

_ANSWER_SECONDS = 5.0
_MEND = "Do as it says; until then its health is NOT_SERVING."
_SEE_KILLS = ("memory_events", "kernel_log", "tracepoint")


def ask_daemon(asked: Daemon) -> list[Check]:
    """Does a daemon answer, and how does it say it is doing?

    Without one there is no history, but every command works. Raises AddressError where what was
    given for TLS cannot be used.
    """
    if (silence := _silence(asked)) is not None:
        if silence == FORBIDDEN:
            return [_forbidden(asked)]
        found = f"none answers at {asked.address} ({silence}): tail and list look for themselves, "
        mend = "oomwatch serve --state-dir /var/lib/oomwatch"
        return [Check("daemon", State.DEGRADED, f"{found}and nothing is kept", mend)]
    status = _status(asked)
    if not isinstance(status, Check):
        return [_answers(asked), *_health(status)]
    return (
        [status] if asked.socket is None else [_answers(asked), replace(status, name="its status")]
    )


def judge_daemon(host: Host, asked: Daemon) -> list[Check]:
    """Whether a daemon that was named sees kills, by its own word alone; the first: does it answer?

    What it sees need not be what this process would: it may have another tree, other rights, its
    own mounts, or be on another machine. Raises AddressError as `ask_daemon` does.
    """
    silence = _silence(asked)
    if silence == FORBIDDEN:
        return [replace(_forbidden(asked), state=State.FAILED), _NOT_JUDGED]
    if silence is not None:
        found = f"none answers at {asked.address} ({silence})"
        mend = f"Name another socket, or start one there: oomwatch serve --socket {asked.address}"
        return [Check("daemon", State.FAILED, found, mend), _NOT_JUDGED]
    status = _status(asked)
    if isinstance(status, Check):
        return [replace(status, state=State.FAILED), _NOT_JUDGED]
    place, health = _place(host, status), _health(status)
    return [_answers(asked), place, *_sight(status), *health, _NOT_JUDGED]


_NOT_JUDGED = Check(
    "this host",
    State.SKIPPED,
    "a daemon was asked about, so not judged is what this process would find here: the cgroup "
    "tree, inotify, the kernel's log, the tracepoint, rights, namespaces, runtimes",
    "Leave --socket, --address and their variables out, or name a tree beside it with "
    "--cgroup-root.",
)


def _silence(asked: Daemon) -> str | None:
    """Why nobody can be asked at its Unix socket; over TCP that is seen as it is asked."""
    return None if asked.socket is None else why_silent(asked.socket)


def _forbidden(asked: Daemon) -> Check:
    assert asked.socket is not None
    found = f"{asked.address} may not be connected to by this user ({FORBIDDEN})"
    return Check("daemon", State.DEGRADED, found, f"Be {who_may(asked.socket)}.")


def _answers(asked: Daemon) -> Check:
    return Check("daemon", State.OK, f"answers at {asked.address}")


def _status(asked: Daemon) -> NodeStatus | Check:
    import asyncio

    async def status() -> NodeStatus:
        async with asked.client(_ANSWER_SECONDS) as client:
            return await client.get_status()

    try:
        return asyncio.run(status())
    except AddressError:
        raise
    except OomwatchError as error:
        if asked.socket is None:
            mend = "See that it runs, and listens there: oomwatch serve --listen HOST:PORT"
            return Check("daemon", State.DEGRADED, str(error), mend)
        found = f"something listens there, and does not say how it is: {error}"
        mend = "Look into its log; if it hangs, start it again: no kill is lost by that."
        return Check("daemon", State.DEGRADED, found, mend)


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
    elif journal.disk_full:
        mend = "Free space on its filesystem, or keep fewer events (--retention-events)."
        checks[-1] = Check("its journal", State.DEGRADED, journal.detail, mend)
    poor = [source for source in status.sources if source.degraded]
    checks += [
        Check(f"its {source.name}", State.DEGRADED, source.detail, "Its log may say more.")
        for source in poor
    ]
    active = [source.name for source in status.sources if source.active]
    # A runtime's name is there for each socket where that is looked for.
    away = dict.fromkeys(s.name for s in status.sources if not (s.active or s.degraded))
    gone = [name for name in away if name not in active]
    found = f"active: {', '.join(active) or 'none'}"
    found += f"; not there: {', '.join(gone)}" if gone else ""
    checks.append(Check("its sources", State.OK, found))
    return checks
