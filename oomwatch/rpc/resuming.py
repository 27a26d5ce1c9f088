"""A subscription from afar that outlives its connection, and resumes after what it last saw."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from oomwatch.errors import DaemonUnavailable
from oomwatch.events import Entry
from oomwatch.rpc.channel import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Connection, Stream
from oomwatch.rpc.requests import filter_to_message, start_to_message
from oomwatch.rpc.translator import entry_from_message
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.subscriptions import AfterRevision, Batch, EventFilter, Start, SubscriptionClosed

_log = logging.getLogger(__name__)

SILENCE_SECONDS = 100.0
"""A stream that brings nothing for this long is dead: bookmarks come about every 30 s."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A place in the journal: everything up to `revision` (inclusive) that passes was received.

    `caught_up` is True once the stream has sent what was in the journal, and follows it live.
    """

    revision: int
    journal_id: str
    caught_up: bool


class RemoteSubscription:
    """Events of a daemon, in order of revision: an asynchronous iterator of entries.

    `cursor` is the revision after which it would resume, `None` before the daemon first answered;
    `journal_id` is the journal it is of. As a context manager it closes itself. It begins with the
    first `next`, and is read by one task at a time.
    """

    def __init__(
        self,
        connection: Connection,
        start: Start,
        event_filter: EventFilter | None,
        reconnect_seconds: float | None,
        on_bookmark: Callable[[Bookmark], object] | None,
        on_outage: Callable[[str | None], object] | None = None,
    ) -> None:
        self.cursor: int | None = None
        self.journal_id = ""
        self._connection = connection
        self._start = start
        self._filter = None if event_filter is None else filter_to_message(event_filter)
        self._on_bookmark = on_bookmark
        self._on_outage = on_outage
        self._outage = False
        self._pause = _Pause(reconnect_seconds)
        self._stream: Stream | None = None
        self._caught_up = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `next` will give nothing more."""
        return self._closed

    async def next(self) -> Batch:
        """Give the next events; a batch without any is a bookmark, which moves the cursor.

        Cancelling it loses nothing: the next call reads on after the cursor. Raises
        HistoryCompacted and JournalReset when what follows is gone, DaemonUnavailable when nobody
        answers the first time, or not again within the time that was set, ValueError for a filter
        that the daemon finds malformed, RequestRefused, and SubscriptionClosed once closed.
        """
        while True:
            if self._closed:
                raise SubscriptionClosed("the subscription was closed")
            if self._stream is None:
                self._stream = self._connection.subscribe(self._request())
                self._caught_up = False
            try:
                response = await _read(self._stream)
            except grpc.aio.AioRpcError as failure:
                self._drop()
                error = self._connection.error(failure)
                if self.cursor is None or not isinstance(error, DaemonUnavailable):
                    raise error from failure
                await self._rest(str(error))
            except TimeoutError:
                self._drop()
                await self._rest(f"{self._connection.address} was silent for too long")
            except asyncio.CancelledError:
                self._drop()  # gRPC ends a call whose read is cancelled
                if not _cancelled():
                    continue  # it was `close` that cancelled the stream, not somebody this task
                raise
            else:
                if response is None:
                    self._drop()
                    await self._rest("the daemon ended the stream")
                    continue
                self._pause.over()
                self._tell_outage(None)
                return self._batch(response)

    def close(self) -> None:
        """End the stream; a `next` that waits raises SubscriptionClosed."""
        self._closed = True
        self._drop()

    async def aclose(self) -> None:
        """Do what `close` does, for `contextlib.aclosing`."""
        self.close()

    async def __aiter__(self) -> AsyncIterator[Entry]:
        """Yield the entries one by one, until `close`."""
        try:
            while True:
                for entry in (await self.next()).entries:
                    yield entry
        except SubscriptionClosed:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self) -> pb.SubscribeRequest:
        start = self._start
        if self.cursor is not None:
            start = AfterRevision(self.cursor, self.journal_id)
        return pb.SubscribeRequest(start=start_to_message(start), filter=self._filter)

    def _batch(self, response: pb.SubscribeResponse) -> Batch:
        entries = tuple([entry_from_message(event) for event in response.events])
        if entries:
            self.cursor, self.journal_id = entries[-1].revision, entries[-1].journal_id
        if response.HasField("bookmark"):
            mark = response.bookmark
            self.cursor, self.journal_id = mark.revision, mark.journal_id
            self._caught_up = mark.caught_up
            if self._on_bookmark is not None:
                self._on_bookmark(Bookmark(mark.revision, mark.journal_id, mark.caught_up))
        return Batch(entries, self.cursor or 0, self._caught_up)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _tell_outage(self, why: str | None) -> None:
        """Say once that the connection was lost, and once that it is back."""
        if self._outage is not (why is not None):
            self._outage = not self._outage
            if self._on_outage is not None:
                self._on_outage(why)

    async def _rest(self, why: str) -> None:
        self._tell_outage(why)
        if not await self._pause.rest():
            raise DaemonUnavailable(f"the daemon went away and did not come back: {why}")
        _log.debug("subscribing again after revision %s: %s", self.cursor, why)


class _Pause:
    """How long to wait before the next attempt: doubling, capped, with jitter, and when to stop."""

    def __init__(self, give_up_seconds: float | None) -> None:
        self._give_up_seconds = give_up_seconds
        self._seconds = FIRST_PAUSE_SECONDS
        self._since: float | None = None

    def over(self) -> None:
        """The daemon answered: begin anew next time."""
        self._seconds = FIRST_PAUSE_SECONDS
        self._since = None

    async def rest(self) -> bool:
        """Wait; False when it has lasted too long."""
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
        seconds = self._seconds * random.uniform(0.5, 1.0)
        if self._give_up_seconds is not None:
            left = self._since + self._give_up_seconds - now
            if left <= 0:
                return False
            seconds = min(seconds, left)
        await asyncio.sleep(seconds)
        self._seconds = min(self._seconds * 2, LONGEST_PAUSE_SECONDS)
        return True


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _read(stream: Stream) -> pb.SubscribeResponse | None:
    async with asyncio.timeout(SILENCE_SECONDS):
        response = await stream.read()
    return response if isinstance(response, pb.SubscribeResponse) else None
