"""A subscription is a cursor, a filter and a wake-up over the journal.

There is no queue per subscriber: each reads at its own pace, and one that is slow has an old
cursor and nothing else. What is recent is read from a ring that all share, so that following
live costs neither SQLite nor a thread; what is older comes from the journal.

History is read for one after another, and for a quarter of the time: who asks for everything from
the beginning would else keep the loop, and the processor, from those who wait for what happens now
(one such beside a lone subscriber: its p50 rose from 2.3 to 12 ms).

Subscribers with the same cursor and filter are given the *same* `Batch`: whoever encodes it for
one has encoded it for all.

What holds: a subscriber that waits has its cursor at the newest revision. So when events are
published, those whose filter takes none need not be woken; their cursor is moved for them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import TracebackType
from typing import Self

from oomwatch.errors import HistoryCompacted, JournalReset, OomwatchError
from oomwatch.events import Entry
from oomwatch.journal import Journal
from oomwatch.subscriptions.filter import EventFilter
from oomwatch.subscriptions.start import (
    AfterRevision,
    CursorAhead,
    Earliest,
    LastN,
    Latest,
    Since,
    Start,
)

_RING_ENTRIES = 4096
_SHARED_BATCHES = 64
# How many entries are looked through before others have their turn.
_SCAN_ENTRIES = 256
# How long no history is read after a read, in times that it took, and in seconds at the most: a
# slow disk keeps nobody from the processor.
_HISTORY_REST = 3.0
_HISTORY_REST_SECONDS = 0.1

_revision = attrgetter("revision")


class SubscriptionClosed(OomwatchError):
    """The subscription, or all of them, were closed: oomwatch is shutting down."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Batch:
    """Events in order, and the revision up to which everything has been looked at.

    `cursor` is at or beyond the last entry; resuming after it misses nothing. `caught_up` says that
    nothing newer was there when the batch was made. Equal only to itself, so that it can be the key
    of what was encoded from it.
    """

    entries: tuple[Entry, ...]
    cursor: int
    caught_up: bool


class Subscriptions:
    """All subscriptions of one journal. For one event loop."""

    def __init__(self, journal: Journal, *, ring_entries: int = _RING_ENTRIES) -> None:
        self._journal = journal
        self._ring: list[Entry] = []
        self._ring_entries = ring_entries
        self._ring_after = journal.newest_revision
        self._newest = journal.newest_revision
        self._open: set[Subscription] = set()
        self._waiting: dict[EventFilter, set[Subscription]] = {}
        self._batches: OrderedDict[tuple[int, EventFilter, int], Batch] = OrderedDict()
        self._reads: dict[tuple[int, int], asyncio.Task[list[Entry]]] = {}
        self._reading = asyncio.Lock()
        self._rested = 0.0
        self._closed = False
        self.prepare: Callable[[Sequence[Entry]], None] = lambda entries: None
        """Called with entries that may soon be in a batch, so that they can be encoded ahead."""

    @property
    def count(self) -> int:
        """How many subscriptions are open."""
        return len(self._open)

    def coming(self, entries: Sequence[Entry]) -> None:
        """Have what will be wanted prepared while the disk still syncs it: the `on_sync`."""
        wanted = [entry for entry in entries if any(f.matches(entry.event) for f in self._waiting)]
        if wanted:
            self.prepare(wanted)

    def published(self, entries: Sequence[Entry]) -> None:
        """Take what was committed, in order, and wake whoever wants some of it: the `on_commit`."""
        if not entries:
            return
        self._ring.extend(entries)
        self._newest = entries[-1].revision
        # Cut in larger pieces: each cut moves the whole list.
        if len(self._ring) > self._ring_entries + self._ring_entries // 4:
            excess = len(self._ring) - self._ring_entries
            self._ring_after = self._ring[excess - 1].revision
            del self._ring[:excess]
        for event_filter, waiting in list(self._waiting.items()):
            if any(event_filter.matches(entry.event) for entry in entries):
                del self._waiting[event_filter]
                for subscription in waiting:
                    subscription._wake()
            else:
                for subscription in waiting:
                    subscription.cursor = self._newest

    async def open(self, start: Start, event_filter: EventFilter | None = None) -> Subscription:
        """Begin a subscription.

        Raises JournalReset where the cursor is another journal's (CursorAhead where it is of a
        revision that never was), HistoryCompacted where events after it were deleted, ValueError
        for a negative revision or count, JournalUnusable where the disk refuses, and
        SubscriptionClosed after `close`.
        """
        cursor = await self._cursor_of(start)
        if self._closed:
            raise SubscriptionClosed("oomwatch is shutting down")
        floats = isinstance(start, Earliest | Since | LastN)
        subscription = Subscription(self, cursor, event_filter or EventFilter(), floats=floats)
        self._open.add(subscription)
        return subscription

    def close(self) -> None:
        """End every subscription at once: each `next` raises SubscriptionClosed."""
        self._closed = True
        for subscription in list(self._open):
            subscription.close()

    async def _cursor_of(self, start: Start) -> int:
        match start:
            case Latest():
                return self._newest
            case Earliest():
                return self._earliest
            case Since(time):
                return await self._journal.revision_since(time)
            case LastN(count):
                if count < 0:
                    raise ValueError(f"the last {count} events: give 0 or more")
                return await self._journal.cursor_for_last(count)
            case AfterRevision(revision, journal_id):
                return self._checked(revision, journal_id)

    def _checked(self, revision: int, journal_id: str | None) -> int:
        journal = self._journal
        if journal_id is not None and journal_id != journal.id:
            raise JournalReset(journal_id, journal.id, journal.oldest_revision)
        if revision < 0:
            raise ValueError(f"after revision {revision}: revisions begin at 1; give 0 or more")
        if revision > self._newest:
            raise CursorAhead(
                revision, self._newest, journal_id, journal.id, journal.oldest_revision
            )
        if revision < min(self._earliest, self._ring_after):
            raise HistoryCompacted(revision, journal.oldest_revision)
        return revision

    @property
    def _earliest(self) -> int:
        return self._journal.oldest_revision - 1

    async def _batch_after(self, cursor: int, event_filter: EventFilter, limit: int) -> Batch:
        """The next batch, perhaps an empty one that only moves the cursor."""
        key = (cursor, event_filter, limit)
        batch = self._batches.get(key)
        if batch is None:
            if cursor >= self._ring_after:
                found: Sequence[Entry] = self._recent(cursor)
            else:
                many = limit if event_filter.takes_all else _SCAN_ENTRIES
                found = await self.history(cursor, min(many, _SCAN_ENTRIES))
                # Another may have made it while this one waited.
                batch = self._batches.get(key)
            if batch is None:
                batch = self._batch_of(found, cursor, event_filter, limit)
                if batch.cursor > cursor:
                    self._batches[key] = batch
                    if len(self._batches) > _SHARED_BATCHES:
                        self._batches.popitem(last=False)
        return batch

    def _batch_of(
        self, found: Sequence[Entry], cursor: int, event_filter: EventFilter, limit: int
    ) -> Batch:
        taken: list[Entry] = []
        for entry in found:
            cursor = entry.revision
            if event_filter.matches(entry.event):
                taken.append(entry)
                if len(taken) == limit:
                    break
        return Batch(tuple(taken), cursor, cursor >= self._newest)

    def _recent(self, cursor: int) -> list[Entry]:
        begin = bisect_right(self._ring, cursor, key=_revision)
        return self._ring[begin : begin + _SCAN_ENTRIES]

    async def history(self, cursor: int, limit: int) -> list[Entry]:
        """Read the journal in one's turn, once for all who want the same part of it.

        Raises HistoryCompacted and JournalUnusable as `Journal.read` does.
        """
        key = (cursor, limit)
        reading = self._reads.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read(cursor, limit))
            self._reads[key] = reading
            reading.add_done_callback(lambda done: self._read_done(key, done))
        # Shielded: one who gives up must not take it from the others.
        return await asyncio.shield(reading)

    async def _read(self, cursor: int, limit: int) -> list[Entry]:
        loop = asyncio.get_running_loop()
        async with self._reading:
            await asyncio.sleep(self._rested - loop.time())
            began = loop.time()
            try:
                return await self._journal.read(cursor, limit)
            finally:
                now = loop.time()
                self._rested = now + min(_HISTORY_REST * (now - began), _HISTORY_REST_SECONDS)

    def _read_done(self, key: tuple[int, int], done: asyncio.Task[list[Entry]]) -> None:
        del self._reads[key]
        if not done.cancelled():
            done.exception()  # Told to whoever still waits; if nobody does, it is nobody's.

    def _wait(self, subscription: Subscription) -> None:
        self._waiting.setdefault(subscription.filter, set()).add(subscription)

    def _stop_waiting(self, subscription: Subscription) -> None:
        waiting = self._waiting.get(subscription.filter)
        if waiting is not None:
            waiting.discard(subscription)
            if not waiting:
                del self._waiting[subscription.filter]


class Subscription:
    """One subscriber's place in the journal. Opened by `Subscriptions.open`.

    `cursor` is the revision up to which everything was given or did not match; `filter` what
    matches. As a context manager it closes itself.
    """

    __slots__ = ("_closed", "_floats", "_hub", "_waiter", "cursor", "filter")

    def __init__(
        self, hub: Subscriptions, cursor: int, event_filter: EventFilter, *, floats: bool
    ) -> None:
        self._hub = hub
        self._floats = floats
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.cursor = cursor
        self.filter = event_filter

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether `next` will give nothing more."""
        return self._closed

    def close(self) -> None:
        """End the subscription; a waiting `next` raises SubscriptionClosed at once."""
        self._closed = True
        self._hub._open.discard(self)
        self._hub._stop_waiting(self)
        self._wake()

    async def next(self, max_events: int = 64, *, wait: float | None = None) -> Batch:
        """Give the next events that match, at most `max_events`, at least one.

        History is looked through first, however long that takes. Once nothing is left, new events
        are waited for: for `wait` seconds, without end when None. When they are over the batch has
        no entries, `caught_up` is True and `cursor` is good for a bookmark; `wait=0` so asks for
        what is there now.

        Cancelling it loses nothing. Raises HistoryCompacted where retention overtook the cursor,
        SubscriptionClosed once closed, JournalUnusable where the disk refuses, ValueError where
        `max_events` is below 1.
        """
        if max_events < 1:
            raise ValueError(f"batches of {max_events} events: give 1 or more")
        if self._waiter is not None:
            raise RuntimeError("another next() of this subscription is still waiting")
        if self.cursor < self._hub._newest:
            # One who has much to read, and it in memory, would else never let others have a turn.
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while True:
            self._check_open()
            batch = await self._batch(max_events)
            self._check_open()
            self._floats = self._floats and batch.cursor == self.cursor
            self.cursor = batch.cursor
            if batch.entries:
                return batch
            if self.cursor < self._hub._newest:
                await asyncio.sleep(0)
                continue
            if wait is not None:
                now = loop.time()
                deadline = now + wait if deadline is None else deadline
                if now >= deadline:
                    return Batch((), self.cursor, caught_up=True)
            await self._wait(loop, deadline)

    def _check_open(self) -> None:
        if self._closed:
            raise SubscriptionClosed("the subscription is closed")

    async def _batch(self, max_events: int) -> Batch:
        while True:
            try:
                return await self._hub._batch_after(self.cursor, self.filter, max_events)
            except HistoryCompacted as error:
                if not self._floats:
                    raise
                # It asked for what there is, and has seen nothing yet: there is less by now.
                self.cursor = error.oldest_revision - 1

    async def _wait(self, loop: asyncio.AbstractEventLoop, deadline: float | None) -> None:
        """Wait for an event that matches, or for the deadline.

        No `await` may come between the look that found nothing and this, or an event is slept over.
        """
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(deadline, self._wake) if deadline is not None else None
        self._hub._wait(self)
        try:
            await waiter
        finally:
            self._waiter = None
            self._hub._stop_waiting(self)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
