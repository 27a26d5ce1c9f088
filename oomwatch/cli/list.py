"""`oomwatch list`: the cgroups that are watched, their kills, their limits, their witnesses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oomwatch.cli import options

if TYPE_CHECKING:
    from oomwatch.cli.reach import Daemon
    from oomwatch.status import CgroupReport

_PAGE = 500


@click.command(
    epilog="""\b
Examples:
  oomwatch list
  oomwatch list /kubepods.slice
  oomwatch list --killed
  oomwatch list -o json | jq -r 'select(.kills > 0) | .cgroup'"""
)
@click.argument("prefix", default="/")
@click.option("--killed", is_flag=True, help="Only cgroups in which, or below which, was killed.")
@options.output
@options.connection
@options.cgroup_root
def command(
    prefix: str,
    killed: bool,
    output: str,
    connection: options.Connection,
    cgroup_root: Path | None,
) -> int:
    """List the cgroups that are watched, at and below PREFIX.

    KILLS is the kernel's own count for the cgroup since it was made, BELOW that of it and
    everything below it, removed cgroups included. A figure that is not known is "-". Without a
    daemon, this process reads the tree once.
    """
    from oomwatch.cli.interrupts import run_until_signal
    from oomwatch.cli.reach import find_daemon

    asked = find_daemon(connection, cgroup_root)
    if not prefix.startswith("/"):
        raise click.BadParameter("a cgroup's path begins with /", param_hint="PREFIX")
    return run_until_signal(_list(asked, cgroup_root, prefix, killed, output))


async def _list(
    asked: Daemon | None, cgroup_root: Path | None, prefix: str, killed: bool, output: str
) -> None:
    from oomwatch.cli.output import put, say, stdout_paint
    from oomwatch.cli.table import cgroup_table

    reports: list[CgroupReport] = []
    watched = shown = False
    async for report in _reports(asked, cgroup_root, prefix):
        watched = True
        if killed and not report.kills and not report.kills_below:
            continue
        shown = True
        if output == "json":
            put(as_json(report))
        else:
            reports.append(report)
    if output == "table":
        for line in cgroup_table(reports, stdout_paint()):
            put(line)
    if not watched:
        cut = "; in a table ids are shortened, and -o json has them whole" * _is_cut(prefix)
        say(f"no cgroup is watched at or below {prefix}{cut}")
    elif not shown:
        say(f"nothing was killed at or below {prefix}")


def _is_cut(path: str) -> bool:
    """Whether an id in it may have been copied from a table, which shows its beginning."""
    return re.search(r"(?<![0-9a-f])[0-9a-f]{12,63}(?![0-9a-f])", path) is not None


async def _reports(
    asked: Daemon | None, cgroup_root: Path | None, prefix: str
) -> AsyncIterator[CgroupReport]:
    if asked is not None:
        async with asked.client() as client:
            async for report in client.list_containers(prefix):
                yield report
        return
    from oomwatch.cli.reach import own_watcher

    async with own_watcher(cgroup_root) as watcher:
        after = ""
        while page := await watcher.list_cgroups(prefix, after, _PAGE):
            for report in page:
                yield report
            after = page[-1].path


def as_json(report: CgroupReport) -> str:
    """One line of JSON with the fields of a ContainerReport; what is not known is absent."""
    import json

    known = _writer()(report)
    fields = {"cgroup": known.pop("path"), "cgroup_id": known.pop("id"), **known}
    return json.dumps(fields, separators=(",", ":"))


@cache
def _writer() -> Callable[[CgroupReport], dict[str, Any]]:
    from oomwatch.event_json import object_writer
    from oomwatch.status import CgroupReport

    return object_writer(CgroupReport)
