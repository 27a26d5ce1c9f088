"""`oomwatch verdict`: was it OOM?"""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

import click

from oomwatch.cli import options
from oomwatch.cli.times import parse_duration, parse_since
from oomwatch.escaping import quoted

if TYPE_CHECKING:
    from oomwatch.cli.reach import Daemon
    from oomwatch.client import AsyncClient
    from oomwatch.events import Entry

_NAMED = 5

_OF_A_CONTAINER = (
    *("cgroup_id", "exit_time", "wait", "socket", "address"),
    *("tls_ca", "tls_cert", "tls_key", "tls_server_name", "insecure"),
)


def _signal(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Read a signal as people and runtimes write it: 9, KILL, SIGKILL, RTMIN+3."""
    if text is None:
        return None
    name, plus, more = text.upper().removeprefix("SIG").partition("+")
    try:
        number = int(name) if name.isdecimal() else signals.Signals[f"SIG{name}"]
        if plus:
            if name != "RTMIN" or not more.isdecimal():
                raise ValueError(text)
            number += int(more)
        if 1 <= number <= signals.SIGRTMAX:
            return int(number)
    except (ValueError, KeyError):
        pass
    raise click.BadParameter(
        f"{quoted(text)} is no signal: give 1 to {int(signals.SIGRTMAX)}, KILL, SIGKILL or RTMIN+3"
    )


def _time(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Read when it ended: how long ago, or when."""
    if text is None:
        return None
    try:
        return parse_since(text, time.time_ns() // 1000)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _beginning(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Read a container's id, or a beginning of one."""
    from oomwatch.events import LONGEST_ID

    if text is not None and not 0 < len(text) <= LONGEST_ID:
        raise click.BadParameter(
            f"{quoted(text)} is no container's id: give 1 to {LONGEST_ID} characters of one"
        )
    return text


@click.command(
    short_help="Say whether a container's end was out of memory, and why.",
    epilog="""\b
Examples:
  oomwatch verdict --exit-code 137                          what a status alone can tell
  oomwatch verdict --container ee129607aff3                 the verdict that was told
  oomwatch verdict --container ee129607aff3 --exit-code 137 --stopped
                                                            tell of an end, and have it judged

Without --container no daemon is asked, and what is told is judged alone: a status never more than
low, and with --stopped or --oom-flag never more than medium. With --container, and any word on its
end, the daemon is told that it ended, as by FinalizeContainer: do that before its cgroup is
removed, and only once it has ended.""",
)
@click.option(
    "--container",
    callback=_beginning,
    metavar="ID",
    help="The container: its id, or a beginning of it that fits no other.",
)
@click.option(
    "--cgroup-id",
    type=options.Number(min=1),
    metavar="INODE",
    help="Which life of the container: its cgroup's inode, as a registration or an event tells it.",
)
@click.option(
    "--exit-code", type=options.Number(0, 255), metavar="N", help="The status that it exited with."
)
@click.option("--signal", callback=_signal, metavar="SIGNAL", help="The signal that ended it.")
@click.option(
    "--exit-time",
    callback=_time,
    metavar="TIME",
    help="When it ended: how long ago (2s) or when (2026-11-22T06:40:46Z).  [default: now]",
)
@click.option("--stopped/--not-stopped", default=None, help="Whether somebody asked for the stop.")
@click.option(
    "--stop-signal", callback=_signal, metavar="SIGNAL", help="The signal the stop was asked with."
)
@click.option(
    "--oom-flag/--no-oom-flag", default=None, help="The runtime's own word: Docker's OOMKilled."
)
@click.option(
    "--wait",
    type=options.Duration(),
    default="50ms",
    show_default=True,
    metavar="DURATION",
    help="How long to wait, at the most, for witnesses that are due.",
)
@options.output
@options.connection
def command(
    container: str | None,
    cgroup_id: int | None,
    exit_code: int | None,
    signal: int | None,
    exit_time: int | None,
    stopped: bool | None,
    stop_signal: int | None,
    oom_flag: bool | None,
    wait: float,
    output: str,
    connection: options.Connection,
) -> int:
    """Say whether a container's end was out of memory, how sure that is, and why."""
    from oomwatch.cli.output import put
    from oomwatch.cli.reach import find_daemon, nobody_to_ask, typed
    from oomwatch.errors import RequestRefused

    facts = (exit_code, signal, exit_time, stopped, stop_signal, oom_flag)
    told = any(fact is not None for fact in facts)
    if wait > parse_duration("60s"):
        raise click.UsageError("--wait is 60s at the most")
    if container is None:
        if of_a_container := typed(*_OF_A_CONTAINER):
            raise click.UsageError(
                f"{of_a_container[0]} is about a --container: give that too, or leave it out; no "
                "daemon is asked of a status alone"
            )
        if not told:
            raise click.UsageError("say what ended: --container, or --exit-code or --signal")
        lines = _status_alone(exit_code, signal, stopped, stop_signal, oom_flag, output)
        for line in lines:
            put(line)
        return 0

    if not told and typed("wait"):
        raise click.UsageError(
            "--wait is for an end that is told: give --exit-code or --signal too, or leave it out"
        )

    from oomwatch.cli.show import show

    asked = find_daemon(connection)
    if asked is None:
        raise nobody_to_ask("leave --container out to judge the status alone")

    async def finalized() -> Entry:
        async with asked.client() as client:
            try:
                return await finalize(client, container)
            except RequestRefused as refused:
                if refused.status != "NOT_FOUND":
                    raise
                whole = await _whole_id(client, asked, container)
                if whole == container:
                    raise
                return await finalize(client, whole)

    def finalize(client: AsyncClient, container_id: str) -> Awaitable[Entry]:
        return client.finalize(
            container_id,
            cgroup_id=cgroup_id,
            exit_code=exit_code,
            signal=signal,
            exit_time=exit_time,
            stop_requested=stopped,
            stop_signal=stop_signal,
            runtime_oom_killed=oom_flag,
            maximum_wait=wait,
        )

    return show(finalized() if told else _told_exit(asked, container, cgroup_id), output)


async def _whole_id(client: AsyncClient, asked: Daemon, beginning: str) -> str:
    """Find the container whose id begins so, of those that are here or remembered."""
    from oomwatch.errors import OomwatchError

    report = await client.get_container(container_id=beginning)
    if report is None or report.container is None:
        raise OomwatchError(
            f"the daemon at {asked.address} knows no container whose id begins with "
            f"{beginning!r}: 'oomwatch list -o json' tells those that are here, as .container.id"
        )
    return report.container.id


def _only(ids: Iterable[str], beginning: str) -> str:
    """Return the id that is meant. Raises OomwatchError, naming them, where several can be."""
    from oomwatch.errors import OomwatchError

    found = sorted(ids)
    if beginning in found:
        return beginning
    if len(found) > 1:
        named = ", ".join(found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise OomwatchError(
            f"{beginning!r} is the beginning of several containers' ids: {named}{more}; "
            "give more of the one that is meant"
        )
    return found[0]


async def _told_exit(asked: Daemon, beginning: str, cgroup_id: int | None) -> Entry:
    """Find the newest exit of a container, or of one life of it, in the daemon's journal."""
    from oomwatch.errors import OomwatchError
    from oomwatch.events import ContainerExit, Kind
    from oomwatch.subscriptions import Earliest, EventFilter

    wanted = EventFilter(container_ids=(beginning,), kinds=(Kind.CONTAINER_EXIT,))
    newest: dict[str, Entry] = {}
    async with asked.client() as client:
        async for entry in client.list_events(Earliest(), wanted):
            event = entry.event
            assert isinstance(event, ContainerExit)
            if event.container is not None and cgroup_id in (None, event.cgroup_id):
                newest[event.container.id] = entry
        known = set(newest)
        if len(newest) == 1 and beginning not in newest:
            # One that goes on may be meant as well: another's end is not to be taken for its own.
            report = await client.get_container(container_id=beginning)
            if report is not None and report.container is not None:
                known.add(report.container.id)
    whole = _only(known, beginning) if known else beginning
    if whole not in newest:
        which = "" if cgroup_id is None else f" in a cgroup of inode {cgroup_id}"
        raise OomwatchError(
            f"the daemon at {asked.address} was told of no end of container {whole!r}{which}: "
            "tell it with --exit-code or --signal, before the container's cgroup is removed"
        )
    return newest[whole]


def _status_alone(
    exit_code: int | None,
    signal: int | None,
    stopped: bool | None,
    stop_signal: int | None,
    oom_flag: bool | None,
    output: str,
) -> list[str]:
    """Judge what was typed, without any witness."""
    import json

    from oomwatch.cli.explain import judged
    from oomwatch.verdict import ExitEvidence, judge, stop_asked_for

    stopped = stop_asked_for(stopped, stop_signal)
    ruling = judge(
        ExitEvidence(
            exit_time=0,
            exit_code=exit_code,
            signal=signal,
            stop_requested=stopped,
            stop_signal=stop_signal,
            runtime_oom_killed=oom_flag,
        )
    )
    if output == "json":
        answer = {
            "verdict": ruling.verdict.value,
            "confidence": ruling.confidence.value,
            "reasons": list(ruling.reasons),
        }
        return [json.dumps(answer)]
    words = {"oom": "out of memory", "not_oom": "not out of memory", "unknown": "it cannot be told"}
    alone = stopped is None and oom_flag is None
    return [
        f"By {'the status' if alone else 'what was told'} alone: {words[ruling.verdict.value]}.",
        *judged(ruling.confidence, ruling.reasons),
    ]
