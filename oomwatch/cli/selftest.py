"""`oomwatch selftest`: make one kill happen, see it, and say how long that took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oomwatch.cli import options

if TYPE_CHECKING:
    from oomwatch.cli.reach import Daemon
    from oomwatch.cli.trial import Trial


@click.command(
    short_help="Kill one small process, and show that it was seen.",
    epilog="""\b
Examples:
  oomwatch selftest
  oomwatch selftest -o json
  oomwatch selftest --cgroup-root /sys/fs/cgroup    in this process, whatever daemon runs

Needs root, or a cgroup of one's own; exits with 1 where no kill could be made or seen.""",
)
@options.output
@click.option(
    "--timeout",
    "seconds",
    type=options.Duration(),
    default="10s",
    show_default=True,
    help="How long to wait for the event.",
)
@options.connection
@options.cgroup_root
def command(
    output: str,
    seconds: float,
    connection: options.Connection,
    cgroup_root: Path | None,
) -> int:
    """Kill one small process in a scratch cgroup and show that the kill was seen.

    The process is oomwatch's own, allocates 16 MiB in a cgroup limited to that, and is the only one
    that can be killed by it. The cgroup is removed afterwards, also when interrupted.
    """
    from oomwatch.cli.interrupts import run_until_signal
    from oomwatch.cli.reach import find_daemon

    asked = find_daemon(connection, cgroup_root)
    return run_until_signal(_selftest(asked, cgroup_root, seconds, output))


async def _selftest(
    asked: Daemon | None, cgroup_root: Path | None, seconds: float, output: str
) -> int:
    from oomwatch.cli.output import put, say, stdout_paint
    from oomwatch.cli.table import EventTable
    from oomwatch.cli.trial import try_one_kill
    from oomwatch.event_json import dumps

    trial = await try_one_kill(asked, cgroup_root or options.CGROUP_ROOT, seconds)
    if trial.entry is None:
        say(trial.failure)
        return 1
    if output == "json":
        put(dumps(trial.entry))
    else:
        table = EventTable(stdout_paint())
        put(table.header())
        put(table.row(trial.entry))
    say(_how_long(trial, "the daemon" if asked is not None else "this process"))
    return 0


def _how_long(trial: Trial, who: str) -> str:
    from oomwatch.cli.times import human_duration

    early = (trial.death_ns - trial.arrival_ns) // 1000
    against = (
        f"{human_duration(early)} before the victim's death was visible"
        if early >= 0
        else f"{human_duration(-early)} after the victim's death"
    )
    whole = human_duration((trial.arrival_ns - trial.start_ns) // 1000)
    return (
        f"well: the kernel killed pid {trial.pid}, and {who} told it {against} "
        f"({whole} after the process began to allocate)"
    )
