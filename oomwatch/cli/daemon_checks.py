"""What `oomwatch doctor` finds where a daemon runs: what that one cannot see or write, and why."""

from __future__ import annotations

from oomwatch.cli.checks import Check, Host, State, why_silent
from oomwatch.errors import OomwatchError

_ANSWER_SECONDS = 5.0
_MEND = "Do as it says; until then its health is NOT_SERVING."


def ask_daemon(host: Host) -> list[Check]:
    """How the daemon says it is doing; nothing where none answers, which is a check of its own."""
    if host.socket is None or why_silent(host.socket) is not None:
        return []
    from oomwatch.client import Client

    try:
        with Client(host.socket, timeout=_ANSWER_SECONDS) as client:
            status = client.get_status()
    except OomwatchError as error:
        found = f"something listens there, and does not say how it is: {error}"
        mend = "Look into its log; if it hangs, start it again: no kill is lost by that."
        return [Check("its status", State.DEGRADED, found, mend)]
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
