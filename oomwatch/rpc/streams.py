"""Subscribe's streams: shared chunks out, bookmarks between, and an end to all of them at once.

Subscribers that read the same range get the very same Batch from `oomwatch.subscriptions`; it is
encoded once, and the bytes are shared by all of their streams. (500 subscribers × 1,000 events: one
event a message took 34.6 s, 64 a message encoded for each 3.7 s, shared bytes 0.9 s.)

Bookmarks fall due for all streams at the same moments, so that an idle daemon with many subscribers
wakes once for all of them.

A kill that streams wait for is encoded while the journal's disk syncs it, when the loop has nothing
else to do for it: encoding costs 0.1 ms where the last one was a while ago.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc

from oomwatch.events import Entry
from oomwatch.rpc.refusals import Context, RefusalError
from oomwatch.rpc.translator import bookmark, frame
from oomwatch.subscriptions import Batch, Subscription

EVENTS_A_MESSAGE = 64
BYTES_A_MESSAGE = 64 * 1024
"""Where a message of several events is cut: of a stream that nobody reads, one is held."""

BOOKMARK_SECONDS = 30.0

STALLED_SECONDS = 60.0
"""How long a message may wait for its client to read. gRPC holds some megabytes for each client
that does not; the journal holds all of it, once."""


class Streams:
    """All open streams: counted, marked and ended together."""

    def __init__(self, journal_id: Callable[[], str], bookmark_seconds: float) -> None:
        self._journal_id = journal_id
        self._bookmark_seconds = bookmark_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._chunks: weakref.WeakKeyDictionary[Batch, tuple[bytes, ...]] = (
            weakref.WeakKeyDictionary()
        )
        self._ahead: Sequence[tuple[Entry, bytes]] = ()
        self.closing = False

    @property
    def count(self) -> int:
        """How many streams are open, those that watch the health included."""
        return len(self._tasks)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take the calling task for a stream, which `end` ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def prepare(self, entries: Sequence[Entry]) -> None:
        """Encode a few entries that streams are about to be given; only the latest are kept."""
        self._ahead = [(entry, frame(entry)) for entry in entries]

    async def send(self, subscription: Subscription, context: Context, newest: int) -> None:
        """Send what the subscription reads, until it raises or this task is cancelled.

        `newest` is the journal's newest revision as the stream began: there it has caught up.
        """
        caught_up = subscription.cursor >= newest
        await self._write(context, self._bookmark(subscription.cursor, caught_up))
        while True:
            # While there is history, nothing is waited for: the empty batch at its end says so.
            wait = self._until_bookmark() if caught_up else 0.0
            chunks, cursor, end = self._read(await subscription.next(EVENTS_A_MESSAGE, wait=wait))
            for chunk in chunks:
                await self._write(context, chunk)
            if not chunks or (not caught_up and end):
                caught_up = True
                await self._write(context, self._bookmark(cursor, caught_up))

    async def _write(self, context: Context, message: bytes) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await context.write(message)
        except TimeoutError:
            # UNAVAILABLE is what a client resumes after.
            raise RefusalError(
                grpc.StatusCode.UNAVAILABLE,
                f"nothing was read of this stream for {STALLED_SECONDS:g} s, so it is ended: "
                "reconnect after the last revision seen, nothing is missed",
            ) from None

    def end(self) -> None:
        """End every stream now; each answers UNAVAILABLE, and so does one that comes later."""
        self.closing = True
        for task in self._tasks:
            task.cancel()

    def _read(self, batch: Batch) -> tuple[tuple[bytes, ...], int, bool]:
        """What to send of a batch, without the batch: a stream that is stuck holds no more."""
        return self._encoded(batch), batch.cursor, batch.caught_up

    def _encoded(self, batch: Batch) -> tuple[bytes, ...]:
        if not batch.entries:
            return ()
        chunks = self._chunks.get(batch)
        if chunks is None:
            chunks = self._chunks[batch] = tuple(joined(map(self._frame, batch.entries)))
        return chunks

    def _frame(self, entry: Entry) -> bytes:
        for prepared, encoded in self._ahead:
            if prepared is entry:
                return encoded
        return frame(entry)

    def _bookmark(self, cursor: int, caught_up: bool) -> bytes:
        return bookmark(cursor, self._journal_id(), caught_up=caught_up)

    def _until_bookmark(self) -> float:
        now = asyncio.get_running_loop().time()
        return self._bookmark_seconds - now % self._bookmark_seconds


def joined(frames: Iterator[bytes], bound: int = BYTES_A_MESSAGE) -> Iterator[bytes]:
    """Put frames together into messages of at most `bound` bytes, or of one event each."""
    message: list[bytes] = []
    size = 0
    for one in frames:
        if message and size + len(one) > bound:
            yield b"".join(message)
            message, size = [], 0
        message.append(one)
        size += len(one)
    if message:
        yield b"".join(message)
