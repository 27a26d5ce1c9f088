"""`oomwatch tail`: follow events as they happen, from a daemon or from this host itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oomwatch.cli import options
from oomwatch.escaping import quoted

if TYPE_CHECKING:
    from oomwatch.errors import CursorError
    from oomwatch.subscriptions import EventFilter, Start

KINDS = ("oom_kill", "container_exit", "memory_pressure", "evidence_gap")
DEFAULT_LINES = 10


@click.command(
    epilog="""\b
Examples:
  oomwatch tail                              the last ten, then what comes
  oomwatch tail -n 100 --no-follow           what was told, and no more
  oomwatch tail --since 2h --kind oom_kill
  oomwatch tail --filter cgroup=/kubepods.slice -o json | jq .victim_cgroup
  oomwatch tail --filter label=app=shop --filter 'label=tier!=db' --filter namespace=prod
  oomwatch tail --after 1234                 resume after a revision
  oomwatch tail --cgroup-root /sys/fs/cgroup   watch here, whatever daemon runs"""
)
@options.output
@click.option(
    "-n",
    "--lines",
    type=options.Number(min=0, max=2**31 - 1),
    metavar="N",
    help=f"Begin with the last N events.  [default: {DEFAULT_LINES}]",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Begin with the events seen since then: 10m, 2h, 7d, or an ISO 8601 time.",
)
@click.option(
    "--after",
    metavar="REVISION",
    help="Begin after this revision; JOURNAL:REVISION makes sure that the journal is the same.",
)
@click.option("--earliest", is_flag=True, help="Begin with the oldest event that is kept.")
@click.option("--no-follow", is_flag=True, help="End when all that was told so far is printed.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only events that match; may be given several times: of one key one must match (of labels "
    "all), and every key. Keys: cgroup, container (a beginning of its id), name, label (k=v, k!=v, "
    "'k in (v,w)', 'k notin (v,w)', k, !k), pod, namespace, runtime, kind, confidence.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only events of this kind; may be given several times.",
)
@options.connection
@options.cgroup_root
def command(
    output: str,
    lines: int | None,
    since: str | None,
    after: str | None,
    earliest: bool,
    no_follow: bool,
    filters: tuple[str, ...],
    kinds: tuple[str, ...],
    connection: options.Connection,
    cgroup_root: Path | None,
) -> int:
    """Follow events as they happen.

    Asks the daemon where its socket answers. Otherwise this process watches the host itself, at
    once, and says so; what happened before is then not known.
    """
    from oomwatch.cli.follow import follow, print_history
    from oomwatch.cli.interrupts import run_until_signal
    from oomwatch.cli.reach import find_daemon, nobody_to_ask, why_nobody_is_asked
    from oomwatch.errors import CursorError, DaemonUnavailable

    start = _start(lines, since, after, earliest)
    event_filter = _filter((*filters, *(f"kind={kind}" for kind in kinds)))
    asked = find_daemon(connection, cgroup_root)
    notice = None
    if asked is None:
        if no_follow or after is not None:
            option = "--no-follow" if no_follow else "--after"
            mend = f"leave {option} out, which asks for what was told before"
            if cgroup_root is None:
                raise nobody_to_ask(mend)
            raise DaemonUnavailable(f"--cgroup-root asks no daemon: leave that out, or {mend}")
        nobody = "no daemon is asked" if cgroup_root is not None else why_nobody_is_asked()
        past = (
            "; what happened before is not known" if since is not None or lines or earliest else ""
        )
        watched = cgroup_root or "this host"
        notice = f"{nobody}: watching {watched} itself, from now on{past}"
    if asked is not None and no_follow:
        printing = print_history(asked, start, event_filter, output=output)
    else:
        printing = follow(asked, cgroup_root, start, event_filter, output=output, notice=notice)
    try:
        return run_until_signal(printing)
    except CursorError as error:
        raise as_typed(error) from None


def as_typed(error: CursorError) -> CursorError:
    """Give the error the mend that a person types here, in place of what gRPC's users call."""
    from oomwatch.errors import START_AGAIN, HistoryCompacted

    said = str(error).partition(START_AGAIN)[0].rstrip(" :;")
    or_after = ""
    if isinstance(error, HistoryCompacted):
        or_after = f", or --after {error.oldest_revision - 1}"
    error.args = (f"{said}; begin with --earliest{or_after}",)
    return error


def _start(lines: int | None, since: str | None, after: str | None, earliest: bool) -> Start:
    from oomwatch.subscriptions import AfterRevision, Earliest, LastN, Latest, Since

    if sum(option is not None for option in (lines, since, after)) + earliest > 1:
        raise click.UsageError(
            "-n, --since, --after and --earliest each say where to begin: give one of them"
        )
    if earliest:
        return Earliest()
    if since is not None:
        import time

        from oomwatch.cli.times import parse_since

        try:
            return Since(parse_since(since, time.time_ns() // 1000))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--since") from None
    if after is not None:
        journal, _, revision = after.rpartition(":")
        number = options.revision_number(revision)
        if number is None:
            raise click.BadParameter(
                f"{quoted(after)} holds no revision: write 17, as in the column REVISION, "
                "or JOURNAL:17",
                param_hint="--after",
            )
        return AfterRevision(number, journal or None)
    count = DEFAULT_LINES if lines is None else lines
    return LastN(count) if count else Latest()


def _filter(words: tuple[str, ...]) -> EventFilter:
    from oomwatch.subscriptions import EventFilter

    try:
        return EventFilter.parse(words)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--filter") from None
