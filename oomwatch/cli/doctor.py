"""`oomwatch doctor`: what can be seen on this host, what cannot, why, and the mend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from oomwatch.cli import options
from oomwatch.cli.cgroup_checks import (
    check_local_events,
    check_memory_controller,
    check_sandboxes,
    count_cgroups,
    default_cgroup_root,
)
from oomwatch.cli.checks import HOST_CHECKS, Check, Host, State, check_inotify, check_kernel
from oomwatch.cli.daemon_checks import ask_daemon, judge_daemon
from oomwatch.cli.output import put, stdout_paint
from oomwatch.cli.reach import Daemon, named_daemon
from oomwatch.cli.runtime_checks import check_runtimes
from oomwatch.cli.terminal import Paint, escape, pad

ON_HOST = "on this host"

_NAMING = ("kernel log", "tracepoint")


@click.command(
    short_help="Say what can be seen on this host, what not, and the mend.",
    epilog="""\b
Examples:
  oomwatch doctor
  oomwatch doctor -o json | jq -r 'select(.state != "ok") | .mend'
  oomwatch doctor --cgroup-root /sys/fs/cgroup/unified
  oomwatch doctor --socket /run/oomwatch-b/oomwatch.sock    is that daemon well?
  oomwatch doctor --address node-7:7433 --tls-ca ca.pem

Exits with 0 if kills can be seen, however poorly, with 1 if not, and with 3 if the daemon that
was named does not answer.""",
)
@options.output
@click.option(
    "--cgroup-root",
    type=options.Named(path_type=Path),
    metavar="DIR",
    help="Judge this cgroup tree; by default the one that is mounted.",
)
@options.connection
def command(output: str, cgroup_root: Path | None, connection: options.Connection) -> int:
    """Say what can be seen on this host, what cannot, why, and the mend.

    Where a daemon runs, it is asked how its sources and its journal are doing. Where one is named
    by --socket or --address, it alone is judged, by what it says of itself: what this process would
    see need not be what that one sees. With --cgroup-root beside it, both are. Nothing is changed.
    Each line is ok, degraded (events are poorer, later or less sure), failed (no kill can be seen)
    or skipped (not judged).
    """
    from oomwatch.address import DEFAULT_SOCKET
    from oomwatch.cli.main import NO_DAEMON

    named = named_daemon(connection)
    if named is not None and cgroup_root is None:
        checks, where = judge_daemon(Host(), named), f"by the daemon at {named.address}"
        silent = checks[0].state is State.FAILED
    else:
        asked = named or Daemon(DEFAULT_SOCKET, connection)
        checks, where = examine(Host(), asked, cgroup_root), ON_HOST
        silent = False
    if output == "json":
        for check in checks:
            put(
                json.dumps(
                    {
                        "name": check.name,
                        "state": check.state.value,
                        "found": check.found,
                        **({"mend": check.mend} if check.mend else {}),
                    }
                )
            )
    else:
        for line in report(checks, stdout_paint(), where, silent=silent):
            put(line)
    if silent:
        return NO_DAEMON
    return 0 if can_see_kills(checks) else 1


def examine(host: Host, asked: Daemon, cgroup_root: Path | None = None) -> list[Check]:
    """Run every check, the one that decides first."""
    root = cgroup_root or default_cgroup_root(host)
    counters = check_memory_controller(host, root)
    about_counters = [check_local_events(host), check_inotify(host, count_cgroups(root))]
    if counters.state is State.FAILED:
        found, mend = "there are no counters here that it would be about", "See cgroup v2, above."
        about_counters = [
            replace(check, state=State.SKIPPED, found=found, mend=mend) for check in about_counters
        ]
    checks = [
        counters,
        *about_counters,
        check_kernel(host, root),
        *(check(host) for check in HOST_CHECKS),
        *ask_daemon(asked),
        check_sandboxes(root),
        check_runtimes(host),
    ]
    return checks if cgroup_root is not None else _names_alone(checks)


def _names_alone(checks: list[Check]) -> list[Check]:
    """Without counters kills can still be told, where a witness that names victims is there."""
    first, *others = checks
    names = [c.name for c in others if c.name in _NAMING and c.state is State.OK]
    if first.state is not State.FAILED or not names:
        return checks
    found = f"{first.found}; kills are told by the {' and the '.join(names)} alone"
    return [replace(first, state=State.DEGRADED, found=found), *others]


def can_see_kills(checks: list[Check]) -> bool:
    """True unless a check failed."""
    return all(check.state is not State.FAILED for check in checks)


def report(
    checks: list[Check], paint: Paint, where: str = ON_HOST, *, silent: bool = False
) -> list[str]:
    """The lines for people: state, name, what was found, and the mend below it.

    Of a daemon that is `silent` nothing is concluded: it may well see kills.
    """
    colours = {
        State.OK: paint.green,
        State.DEGRADED: paint.yellow,
        State.FAILED: paint.red,
        State.SKIPPED: paint.dim,
    }
    names = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        state = colours[check.state](pad(check.state.value, 8))
        lines.append(f"{state}  {pad(check.name, names)}  {escape(check.found)}")
        if check.state is not State.OK:
            lines.append(f"{'':8}  {'':{names}}  -> {escape(check.mend)}")
    lines.append("")
    where = escape(where)
    if silent:
        lines.append(paint.red(f"Whether kills can be seen {where} is not known."))
    elif can_see_kills(checks):
        lines.append(paint.bold(f"Kills can be seen {where}."))
    else:
        lines.append(paint.red(f"Kills cannot be seen {where}."))
    return lines
