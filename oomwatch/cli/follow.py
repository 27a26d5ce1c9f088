"""Follows a feed of events, a daemon's or this host's own, and prints each event as it comes."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from oomwatch.cli.output import put, stdout_paint
from oomwatch.cli.reach import own_watcher
from oomwatch.cli.table import EventTable
from oomwatch.event_json import dumps
from oomwatch.events import Entry
from oomwatch.subscriptions import Batch, EventFilter, Start


class Feed(Protocol):
    """Where events come from: a daemon's stream, or a subscription in this process."""

    async def next(self) -> Batch:
        """Return the next batch; one without entries only moves the cursor."""


@asynccontextmanager
async def open_feed(
    asked: str | None, cgroup_root: Path | None, start: Start, event_filter: EventFilter
) -> AsyncIterator[Feed]:
    """Open a feed from the daemon `asked`, or, if that is None, from this host itself."""
    if asked is not None:
        from oomwatch.client import AsyncClient

        async with AsyncClient(asked) as client:
            yield client.subscribe(start, event_filter)
    else:
        async with own_watcher(cgroup_root) as watcher:
            yield watcher.subscriptions.subscribe(start, event_filter)


async def follow(
    asked: str | None,
    cgroup_root: Path | None,
    start: Start,
    event_filter: EventFilter,
    *,
    output: str,
    forever: bool,
) -> None:
    """Print every event until cancelled, or, unless `forever`, until the past is printed.

    Raises BrokenPipeError as soon as nobody reads stdout any more, also while nothing happens.
    """
    show = _printer(output)
    async with open_feed(asked, cgroup_root, start, event_filter) as feed:
        with _ends_with_its_reader() as closed:
            while True:
                coming = asyncio.ensure_future(feed.next())
                try:
                    await asyncio.wait({coming, closed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not coming.done():
                        coming.cancel()
                if closed.done():
                    raise BrokenPipeError
                batch = coming.result()
                for entry in batch.entries:
                    show(entry)
                if batch.caught_up and not forever:
                    return


def _printer(output: str) -> Callable[[Entry], None]:
    if output == "json":
        return lambda entry: put(dumps(entry))
    table = EventTable(stdout_paint())
    put(table.header())
    return lambda entry: put(table.row(entry))


@contextmanager
def _ends_with_its_reader() -> Iterator[asyncio.Future[None]]:
    """Give a future that is done once stdout is a pipe whose reader went away.

    `tail | head -1` would otherwise stay until the next kill, which may be next year. epoll reports
    EPOLLERR on a pipe without a reader whatever it was asked for; asyncio then calls the callback.
    """
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()
    descriptor = sys.stdout.fileno() if _is_pipe() else None
    if descriptor is not None:

        def reader_left() -> None:
            loop.remove_reader(descriptor)
            if not closed.done():
                closed.set_result(None)

        loop.add_reader(descriptor, reader_left)
    try:
        yield closed
    finally:
        if descriptor is not None:
            loop.remove_reader(descriptor)
        closed.cancel()


def _is_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
