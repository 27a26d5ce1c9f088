"""`oomwatch show`: one event, explained, with its evidence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oomwatch.cli import options

if TYPE_CHECKING:
    from oomwatch.cli.later import Later
    from oomwatch.cli.reach import Daemon
    from oomwatch.events import Entry
    from oomwatch.journal import Journal


@click.command(
    short_help="Explain one event, with the evidence that it rests on.",
    epilog="""\b
Examples:
  oomwatch show 17
  oomwatch show 17 -o json
  oomwatch show 17 --state-dir /var/lib/oomwatch    where no daemon runs any more""",
)
@click.argument("revision", type=options.Revision(), metavar="REVISION")
@options.output
@click.option(
    "--state-dir",
    type=options.Named(path_type=Path),
    metavar="DIR",
    help="Read this journal, which no daemon holds, instead of asking one.",
)
@options.connection
def command(
    revision: int, output: str, state_dir: Path | None, connection: options.Connection
) -> int:
    """Explain one event in sentences, with the evidence that it rests on.

    REVISION is its number in the journal: tail shows it, and -o json tells it as `revision`.

    What was learned of it later, a name that came late for one, is told with it; as JSON each event
    that adds to it follows in a line of its own.
    """
    from oomwatch.cli.reach import find_daemon, nobody_to_ask, refuse_beside_daemon
    from oomwatch.errors import OomwatchError
    from oomwatch.journal.files import DATABASE

    if state_dir is not None:
        refuse_beside_daemon("--state-dir reads a journal by itself")
        # Opening would make a journal where none is.
        if not (state_dir / DATABASE).is_file():
            raise OomwatchError(
                f"{state_dir} holds no journal ({DATABASE}): name the --state-dir of the daemon"
            )
        work = _from_journal(state_dir, revision)
    else:
        asked = find_daemon(connection)
        if asked is None:
            raise nobody_to_ask("name its journal with --state-dir")
        work = _from_daemon(asked, revision)
    return _show(work, output)


def show(work: Coroutine[Any, Any, Entry], output: str) -> int:
    """Print an event once it is there, explained or as JSON; the exit code."""

    async def alone() -> tuple[Entry, Later]:
        from oomwatch.cli.later import Later

        return await work, Later()

    return _show(alone(), output)


def _show(work: Coroutine[Any, Any, tuple[Entry, Later]], output: str) -> int:
    from oomwatch.cli.explain import explain
    from oomwatch.cli.interrupts import run_until_signal
    from oomwatch.cli.output import put
    from oomwatch.event_json import dumps

    found: list[tuple[Entry, Later]] = []

    async def fetch() -> None:
        found.append(await work)

    code = run_until_signal(fetch())
    for entry, later in found:
        if output == "json":
            lines = [dumps(each) for each in (entry, *later.amendments)]
        else:
            lines = explain(entry, later)
        for line in lines:
            put(line)
    return code


async def _from_journal(state_dir: Path, revision: int) -> tuple[Entry, Later]:
    from oomwatch.cli.later import look_on
    from oomwatch.errors import JournalLocked, OomwatchError
    from oomwatch.journal import Journal, Retention

    try:
        # Looking must not delete what the daemon was told to keep for longer than is usual.
        journal = Journal.open(state_dir, retention=Retention(2**62, max_age_seconds=1e11))
    except JournalLocked as error:
        raise OomwatchError(
            f"journal {state_dir} is held by a daemon: leave --state-dir out to ask that one"
        ) from error
    try:
        entry = await journal.get(revision)
        if entry is None:
            oldest, newest = journal.oldest_revision, journal.newest_revision
            keeps = f"it keeps {oldest} to {newest}" if oldest <= newest else "it keeps none now"
            raise OomwatchError(f"journal {state_dir} holds no revision {revision}: {keeps}")
        return entry, await look_on(entry, _following(journal, revision))
    finally:
        await journal.close()


async def _following(journal: Journal, revision: int) -> AsyncIterator[Entry]:
    while entries := await journal.read(revision, 500):
        for entry in entries:
            yield entry
        revision = entries[-1].revision


async def _from_daemon(asked: Daemon, revision: int) -> tuple[Entry, Later]:
    from oomwatch.cli.later import Later, look_on
    from oomwatch.errors import CursorError, OomwatchError
    from oomwatch.events import Kind
    from oomwatch.subscriptions import AfterRevision, EventFilter

    async with asked.client() as client:
        entry = await client.get_event(revision)
        if entry is None:
            raise OomwatchError(
                f"the daemon at {asked.address} has no revision {revision} (any more): "
                "'oomwatch tail --no-follow' shows what it keeps"
            )
        kinds = (entry.event.kind, Kind.CONTAINER_EXIT)
        after = AfterRevision(revision, entry.journal_id)
        try:
            later = await look_on(entry, client.list_events(after, EventFilter(kinds=kinds)))
        except CursorError:
            later = Later()  # what followed was deleted meanwhile, and the event with it
    return entry, later
