"""`oomwatch scan`: the kills in a kernel log that is at hand. No daemon, no root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oomwatch.cli import options

if TYPE_CHECKING:
    from datetime import tzinfo

    from oomwatch.cli.log_files import LogFile
    from oomwatch.cli.progress import ProgressBar
    from oomwatch.cli.scan_table import Counts, KillTable
    from oomwatch.kernel_log.episodes import Told
    from oomwatch.kernel_log.stamps import Stamps


@click.command(
    short_help="Tell the kills in kernel logs, from files or stdin.",
    epilog="""\b
Examples:
  oomwatch scan /var/log/kern.log /var/log/kern.log.2.gz
  dmesg | oomwatch scan -
  oomwatch scan /var/log/kern.log.1 --year 2025 --timezone UTC
  oomwatch scan console.txt -o json | jq '.victims[].comm'
  journalctl -k -o json --since -7d | oomwatch scan - --summary""",
)
@click.argument("logs", nargs=-1, required=True, metavar="FILE...|-")
@options.output
@click.option(
    "--summary",
    is_flag=True,
    help="Count the kills by cgroup, by process, by scope and over time, instead of each.",
)
@click.option(
    "--year",
    type=options.Number(1970, 9999),
    metavar="YYYY",
    help="The year of stamps that have none (Nov 24 01:48:27); without it their time is not known.",
)
@click.option(
    "--timezone",
    metavar="NAME",
    help="The zone of stamps that have none: UTC, Europe/Berlin, …; by default this machine's.",
)
def command(
    logs: tuple[str, ...], output: str, summary: bool, year: int | None, timezone: str | None
) -> int:
    """Tell the kills in kernel logs: dmesg, journalctl, syslog, /dev/kmsg, captured by a container.

    Any prefix, any kernel from 3.10 on, several machines in one file; plain or compressed by gzip,
    xz, bzip2 or Zstandard. "-" is stdin. A log that cannot be read is said, and the others are
    read all the same; the exit code is 1 then.
    """
    import signal

    from oomwatch.cli.log_files import LogUnreadable, open_log
    from oomwatch.cli.output import put, say, stdout_paint
    from oomwatch.cli.progress import ProgressBar
    from oomwatch.cli.scan_table import Counts, KillTable
    from oomwatch.kernel_log.stamps import Stamps

    stamps = Stamps(zone=_zone(timezone), year=year)
    bar = ProgressBar()
    counts = Counts()
    table = None if summary or output == "json" else KillTable(stdout_paint())
    printer = _Printer(bar, counts if summary else None, table)
    failed = False
    # Ctrl-C ends the process at once (`oomwatch.__main__`): from here on after the bar is gone.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for path in logs:
        try:
            with open_log(path) as log:
                _scan(log, stamps, bar, printer)
        except LogUnreadable as error:
            bar.clear()
            say(str(error))
            failed = True
        finally:
            bar.clear()
    if summary:
        if output == "json":
            import json

            put(json.dumps(counts.to_json(), separators=(",", ":")))
        else:
            for text in counts.lines(stdout_paint()):
                put(text)
    _say_what_was_assumed(stamps, timezone, printer.told)
    if not (printer.told or failed or summary):
        say("no kill of the kernel's OOM killer is in what was read")
    return 1 if failed else 0


class _Printer:
    """Prints, or counts, what is told."""

    def __init__(self, bar: ProgressBar, counts: Counts | None, table: KillTable | None) -> None:
        self.told = 0
        self._bar = bar
        self._counts = counts
        self._table = table

    def tell(self, name: str, told: list[Told]) -> None:
        from oomwatch.cli.output import put
        from oomwatch.event_json import event_dumps

        if not told:
            return
        self._bar.clear()
        for each in told:
            if self._counts is not None:
                self._counts.add(each.event)
            elif self._table is None:
                put(event_dumps(each.event))
            else:
                if not self.told:
                    put(self._table.header())
                put(self._table.row(name, each))
            self.told += 1


def _scan(log: LogFile, stamps: Stamps, bar: ProgressBar, printer: _Printer) -> None:
    """Tell one log's kills; those read before it turned out to be damaged too."""
    import time
    from pathlib import Path

    from oomwatch.kernel_log.episodes import Episodes
    from oomwatch.kernel_log.journal_forms import AnyLineParser
    from oomwatch.kernel_log.search import KillSearch

    def progress(read: int) -> None:
        at = log.position() if log.size is not None else read
        bar.show(log.name, at, log.size, printer.told)

    short = Path(log.name).name
    episodes = Episodes(log.name, time.time_ns() // 1000)
    search = KillSearch(AnyLineParser(stamps), progress)
    try:
        for kill in search.kills(log.stream):
            printer.tell(short, episodes.add(kill))
    finally:
        printer.tell(short, episodes.flush())


def _zone(name: str | None) -> tzinfo:
    from datetime import UTC
    from zoneinfo import ZoneInfo

    from oomwatch.kernel_log.stamps import LocalZone

    if name is None:
        return LocalZone()
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise click.BadParameter(
            f"no zone is called {name!r}: write UTC or a name like Europe/Berlin",
            param_hint="'--timezone'",
        ) from error


def _say_what_was_assumed(stamps: Stamps, timezone: str | None, told: int) -> None:
    from oomwatch.cli.output import say

    if told and stamps.yearless and stamps.year is None:
        say("stamps without a year give no time of day: name it with --year")
    elif told and stamps.zoneless and timezone is None:
        say("stamps without a zone were taken as of this machine's: name theirs with --timezone")
