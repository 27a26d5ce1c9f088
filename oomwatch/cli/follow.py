"""Follows a feed of events, a daemon's or this host's own, and prints each event as it comes."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oomwatch.cli.output import put, say, stdout_paint
from oomwatch.cli.reach import Daemon, own_watcher
from oomwatch.cli.table import EventTable
from oomwatch.event_json import dumps
from oomwatch.events import Entry
from oomwatch.subscriptions import EventFilter, Start, Subscription

if TYPE_CHECKING:
    from oomwatch.client import RemoteSubscription


@asynccontextmanager
async def open_feed(
    asked: Daemon | None,
    cgroup_root: Path | None,
    start: Start,
    event_filter: EventFilter,
    began: Callable[[], object] = lambda: None,
) -> AsyncIterator[AsyncIterator[Entry]]:
    """Open a feed of events from the daemon `asked`, or, if that is None, from this host itself.

    `began` is called when no later event can be missed; a daemon's feed begins as it is read.
    """
    if asked is not None:
        address = asked.address
        async with asked.client() as client:
            subscription = client.subscribe(
                start,
                event_filter,
                on_bookmark=lambda _: began(),
                on_outage=lambda why: _say_outage(address, why),
            )
            yield _entries(subscription)
    else:
        async with own_watcher(cgroup_root) as watcher:
            with await watcher.subscriptions.open(start, event_filter) as own:
                began()
                yield _entries(own)


def _say_outage(address: str, why: str | None) -> None:
    if why is None:
        say(f"the daemon at {address} is back, and nothing was missed")
    else:
        say(f"the connection to the daemon was lost, and is tried again: {why}")


async def _entries(subscription: Subscription | RemoteSubscription) -> AsyncIterator[Entry]:
    while True:
        for entry in (await subscription.next()).entries:
            yield entry


async def print_history(
    asked: Daemon, start: Start, event_filter: EventFilter, *, output: str
) -> None:
    """Print what the daemon was told so far, and no more."""
    printer = _Printer(output)
    async with asked.client() as client:
        async for entry in client.list_events(start, event_filter):
            printer.show(entry)
    printer.begin()


async def follow(
    asked: Daemon | None,
    cgroup_root: Path | None,
    start: Start,
    event_filter: EventFilter,
    *,
    output: str,
    notice: str | None = None,
) -> None:
    """Print every event until cancelled; say the notice once no later event can be missed.

    Raises BrokenPipeError as soon as nobody reads stdout any more, also while nothing happens.
    """
    printer = _Printer(output)

    def begin() -> None:
        if notice is not None:
            say(notice)
        printer.begin()

    async with open_feed(asked, cgroup_root, start, event_filter, begin) as feed:
        with _ends_with_its_reader() as closed:
            while True:
                coming = asyncio.ensure_future(anext(feed))
                either: set[asyncio.Future[Any]] = {coming, closed}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not coming.done():
                        coming.cancel()
                if closed.done():
                    raise BrokenPipeError
                printer.show(coming.result())


class _Printer:
    """Prints entries; the header of a table says that watching has begun."""

    def __init__(self, output: str) -> None:
        self._table = EventTable(stdout_paint()) if output == "table" else None
        self._begun = False

    def begin(self) -> None:
        """Print the header, once: from here on nothing is missed."""
        if self._table is not None and not self._begun:
            put(self._table.header())
        self._begun = True

    def show(self, entry: Entry) -> None:
        """Print one event."""
        self.begin()
        put(dumps(entry) if self._table is None else self._table.row(entry))


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
