"""Subscriptions over a real journal: order, sharing, slowness, starts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from oomwatch.errors import HistoryCompacted, JournalReset
from oomwatch.events import Confidence, Container, Entry, OomKill, Scope
from oomwatch.journal import Journal, Retention
from oomwatch.ledger import LedgerChange
from oomwatch.subscriptions import (
    AfterRevision,
    Batch,
    CursorAhead,
    Earliest,
    EventFilter,
    LastN,
    Latest,
    Since,
    Subscription,
    SubscriptionClosed,
    Subscriptions,
)

BOUND = 20.0


def kill(number: int, name: str = "web") -> OomKill:
    return OomKill(
        episode_id=f"e{number}",
        detect_time=number * 1000,
        scope=Scope.CONTAINER_LIMIT,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        container=Container(id=f"id-{name}", name=name),
        victim_cgroup=f"/docker/{name}",
    )


class Told:
    """A journal with its subscriptions, as the daemon composes them."""

    def __init__(self, journal: Journal, ring_entries: int = 4096) -> None:
        self.journal = journal
        self.hub = Subscriptions(journal, ring_entries=ring_entries)
        journal.start("boot", self.hub.published, on_sync=self.hub.coming)

    async def tell(self, count: int, *, first: int = 1, name: str = "web", each: int = 0) -> None:
        events = [kill(number, name) for number in range(first, first + count)]
        for begin in range(0, count, each or count):
            self.journal.append(events[begin : begin + (each or count)], LedgerChange())
            if each:
                assert await self.journal.flush()
        assert await self.journal.flush()


# Times in these tests count from the epoch: nothing may be deleted for its age.
KEPT = 1e10


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    journal = Journal.open(tmp_path / "state", retention=Retention(max_age_seconds=KEPT))
    told = Told(journal)
    yield told
    told.hub.close()
    await journal.close()


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Told]:
    """One that keeps ten events, and four of them at hand."""
    retention = Retention(max_events=10, max_age_seconds=KEPT)
    told = Told(Journal.open(tmp_path / "small", retention=retention), ring_entries=4)
    yield told
    told.hub.close()
    await told.journal.close()


async def collect(subscription: Subscription, count: int, at_once: int = 64) -> list[int]:
    revisions: list[int] = []
    while len(revisions) < count:
        batch = await asyncio.wait_for(subscription.next(at_once), BOUND)
        assert len(batch.entries) <= at_once
        revisions += [entry.revision for entry in batch.entries]
    return revisions


def numbers(entries: Sequence[Entry]) -> list[str]:
    return [entry.event.episode_id for entry in entries]


async def test_a_subscriber_gets_what_is_told_after_it_came_in_order(told: Told) -> None:
    """Latest starts at the next event, and then nothing is left out."""
    await told.tell(3)
    subscription = await told.hub.open(Latest())
    await told.tell(5, first=4, each=1)
    batch = await subscription.next()
    assert numbers(batch.entries) == ["e4", "e5", "e6", "e7", "e8"]
    assert batch.caught_up
    assert batch.cursor == subscription.cursor == 8


async def test_a_waiting_subscriber_is_woken(told: Told) -> None:
    """What comes while next() waits ends the wait."""
    subscription = await told.hub.open(Latest())
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    await told.tell(1)
    assert numbers((await asyncio.wait_for(waiting, BOUND)).entries) == ["e1"]


async def test_only_what_a_waiting_subscriber_will_be_given_is_prepared(told: Told) -> None:
    """Each entry once, before it is published; nothing for those who wait for others."""
    prepared: list[Sequence[Entry]] = []
    told.hub.prepare = prepared.append
    await told.tell(1)
    filters = EventFilter(), EventFilter(names=("web",)), EventFilter(names=("db",))
    subscriptions = [await told.hub.open(Latest(), one) for one in filters]
    await told.tell(1, first=2)
    assert prepared == []
    waiting = [asyncio.create_task(one.next()) for one in subscriptions]
    await asyncio.sleep(0)
    batches = [waiting[0], waiting[1]]
    assert [numbers((await asyncio.wait_for(one, BOUND)).entries) for one in batches] == [
        ["e2"]
    ] * 2
    again = [asyncio.create_task(one.next()) for one in subscriptions[:2]]
    await asyncio.sleep(0)
    await told.tell(1, first=3)
    (entry,) = (await asyncio.wait_for(again[0], BOUND)).entries
    assert len(prepared) == 1
    assert [one is entry for one in prepared[0]] == [True]
    waiting[2].cancel()
    again[1].cancel()


@pytest.mark.parametrize("ring_entries", [4, 4096])
@pytest.mark.parametrize(
    ("start", "first"),
    [
        (Earliest(), 1),
        (LastN(3), 18),
        (LastN(100), 1),
        (LastN(0), 21),
        (Since(15_000), 15),
        (Since(99_000), 21),
        (AfterRevision(0), 1),
        (AfterRevision(7), 8),
        (AfterRevision(20), 21),
    ],
)
async def test_each_start_begins_where_it_says(
    tmp_path: Path, start: Earliest, first: int, ring_entries: int
) -> None:
    """History comes from the journal or the ring, and goes over into what is told later."""
    retention = Retention(max_age_seconds=KEPT)
    told = Told(Journal.open(tmp_path / "state", retention=retention), ring_entries)
    await told.tell(20, each=5)
    subscription = await told.hub.open(start)
    await told.tell(2, first=21)
    assert await collect(subscription, 23 - first, at_once=4) == list(range(first, 23))
    await told.journal.close()


async def test_a_restart_is_bridged_from_the_journal(tmp_path: Path) -> None:
    """A cursor of before the restart goes on after it: nothing twice, nothing missed."""
    retention = Retention(max_age_seconds=KEPT)
    before = Told(Journal.open(tmp_path, retention=retention))
    await before.tell(5)
    cursor = AfterRevision(3, before.journal.id)
    await before.journal.close()
    after = Told(Journal.open(tmp_path, retention=retention))
    await after.tell(2, first=6)
    assert await collect(await after.hub.open(cursor), 4) == [4, 5, 6, 7]
    await after.journal.close()


async def test_five_hundred_subscribers_each_get_a_thousand_events_in_order(told: Told) -> None:
    """A burst with a commit for every 20 kills reaches everyone, complete."""
    subscriptions = [await told.hub.open(Latest()) for _ in range(500)]
    assert told.hub.count == 500
    reading = [asyncio.create_task(collect(each, 1000)) for each in subscriptions]
    await asyncio.sleep(0)
    async with asyncio.timeout(BOUND):
        await told.tell(1000, each=20)
        for revisions in await asyncio.gather(*reading):
            assert revisions == list(range(1, 1001))


@pytest.mark.parametrize("ring_entries", [4, 4096])
async def test_equal_cursors_and_filters_share_one_batch(tmp_path: Path, ring_entries: int) -> None:
    """What is encoded for one subscriber is encoded for all, live and from history."""
    told = Told(Journal.open(tmp_path, retention=Retention(max_age_seconds=KEPT)), ring_entries)
    await told.tell(100)
    shared: set[Batch] = set()
    for event_filter in (None, EventFilter(), EventFilter(names=("web",))):
        subscriptions = [await told.hub.open(Earliest(), event_filter) for _ in range(50)]
        batches = await asyncio.gather(*(each.next(10) for each in subscriptions))
        assert len(set(batches)) == 1
        shared.add(batches[0])
    assert len(shared) == 2
    waiting = [asyncio.create_task((await told.hub.open(Latest())).next()) for _ in range(50)]
    await asyncio.sleep(0)
    await told.tell(1, first=101)
    assert len(set(await asyncio.gather(*waiting))) == 1
    await told.journal.close()


async def test_the_cursor_moves_over_what_does_not_match(told: Told) -> None:
    """A selective subscriber is not woken for others' events, and need not read them again."""
    subscription = await told.hub.open(Latest(), EventFilter(names=("db",)))
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    await told.tell(20, each=5)
    assert not waiting.done()
    assert subscription.cursor == 20
    await told.tell(1, first=21, name="db")
    batch = await asyncio.wait_for(waiting, BOUND)
    assert numbers(batch.entries) == ["e21"]
    assert subscription.cursor == 21


async def test_a_filter_finds_the_few_among_many_in_history(small: Told, tmp_path: Path) -> None:
    """Looking through a long history goes on until something matches."""
    journal = Journal.open(tmp_path / "long", retention=Retention(max_age_seconds=KEPT))
    told = Told(journal, ring_entries=4)
    await told.tell(1500)
    await told.tell(1, first=1501, name="db")
    await told.tell(600, first=1502)
    subscription = await told.hub.open(Earliest(), EventFilter(names=("db",)))
    batch = await asyncio.wait_for(subscription.next(), BOUND)
    assert numbers(batch.entries) == ["e1501"]
    rest = await asyncio.wait_for(subscription.next(wait=0), BOUND)
    assert (rest.entries, rest.cursor, rest.caught_up) == ((), 2101, True)
    await journal.close()


async def test_waiting_ends_with_a_bookmark(told: Told) -> None:
    """When nothing comes within the bound, an empty batch says up to where all was seen."""
    await told.tell(3)
    subscription = await told.hub.open(Latest())
    for wait in (0, 0.01):
        batch = await asyncio.wait_for(subscription.next(wait=wait), BOUND)
        assert (batch.entries, batch.cursor, batch.caught_up) == ((), 3, True)


async def test_a_cancelled_next_loses_nothing(told: Told) -> None:
    """A client that gives up waiting and asks again gets what came between."""
    subscription = await told.hub.open(Latest())
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await told.tell(2)
    assert await collect(subscription, 2) == [1, 2]


async def test_one_who_gives_up_does_not_take_the_read_from_others(tmp_path: Path) -> None:
    """A shared read of history survives the cancelling of whoever began it."""
    told = Told(Journal.open(tmp_path, retention=Retention(max_age_seconds=KEPT)), 4)
    await told.tell(100)
    first, second = [await told.hub.open(Earliest()) for _ in range(2)]
    reading = [asyncio.create_task(each.next(50)) for each in (first, second)]
    while not told.hub._reads:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading[0].cancel()
    assert len((await asyncio.wait_for(reading[1], BOUND)).entries) == 50
    assert await collect(first, 100) == list(range(1, 101))
    await told.journal.close()


async def test_history_is_read_for_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask for different parts of it, each gets its own, in order."""
    under_way = most = 0
    told = Told(Journal.open(tmp_path / "state", retention=Retention(max_age_seconds=KEPT)), 4)
    await told.tell(200)
    read = Journal.read

    async def counted(self: Journal, after: int, limit: int) -> list[Entry]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await read(self, after, limit)
        finally:
            under_way -= 1

    monkeypatch.setattr(Journal, "read", counted)
    all_of_them = [await told.hub.open(AfterRevision(number)) for number in range(10)]
    got = await asyncio.gather(
        *(collect(one, 200 - number) for number, one in enumerate(all_of_them))
    )
    assert got == [list(range(number + 1, 201)) for number in range(10)]
    assert most == 1
    told.hub.close()
    await told.journal.close()


async def test_retention_overtaking_a_slow_subscriber_is_told(small: Told) -> None:
    """It learns the oldest revision that is left; nobody else notices."""
    await small.tell(5)
    slow = await small.hub.open(AfterRevision(2))
    quick = await small.hub.open(Earliest())
    assert await collect(quick, 5) == [1, 2, 3, 4, 5]
    for first in range(6, 41):
        await small.tell(1, first=first)
        assert await collect(quick, 1) == [first]
    # Retention follows the commit: done before the reading, it cannot overtake the resumed one.
    async with asyncio.timeout(BOUND):
        while small.journal.oldest_revision < 31:
            await asyncio.sleep(0.01)
    with pytest.raises(HistoryCompacted) as caught:
        await slow.next()
    assert caught.value.requested_revision == 2
    resumed = await small.hub.open(AfterRevision(caught.value.oldest_revision - 1))
    assert (await resumed.next()).entries[0].revision == caught.value.oldest_revision


async def test_earliest_is_what_is_left_when_it_is_read(small: Told) -> None:
    """One that asked for whatever there is has lost nothing when there is less by then."""
    await small.tell(5)
    subscription = await small.hub.open(Earliest())
    for first in range(6, 41):
        await small.tell(1, first=first)
    batch = await subscription.next()
    assert batch.entries[0].revision > 5


async def test_latest_that_was_overtaken_is_told(small: Told) -> None:
    """Events it was promised are gone: that is no matter of a late beginning."""
    subscription = await small.hub.open(Latest())
    for first in range(1, 41):
        await small.tell(1, first=first)
    with pytest.raises(HistoryCompacted):
        await subscription.next()


async def test_a_cursor_that_cannot_be_resumed_is_refused(small: Told) -> None:
    """Another journal's, one from the future, one compacted away, one that is no revision."""
    for first in range(1, 41):
        await small.tell(1, first=first)
    with pytest.raises(JournalReset) as reset:
        await small.hub.open(AfterRevision(3, "f" * 32))
    assert reset.value.journal_id == small.journal.id
    for journal_id in (None, small.journal.id):
        with pytest.raises(CursorAhead, match="41 is in the future") as ahead:
            await small.hub.open(AfterRevision(41, journal_id))
        assert isinstance(ahead.value, JournalReset)
    with pytest.raises(HistoryCompacted) as compacted:
        await small.hub.open(AfterRevision(3, small.journal.id))
    assert compacted.value.oldest_revision == small.journal.oldest_revision
    with pytest.raises(ValueError, match="-1"):
        await small.hub.open(AfterRevision(-1))
    with pytest.raises(ValueError, match="-1"):
        await small.hub.open(LastN(-1))
    assert small.hub.count == 0


async def test_closing_all_ends_every_wait_at_once(told: Told) -> None:
    """A daemon that shuts down keeps no stream waiting, and takes no new one."""
    subscriptions = [await told.hub.open(Latest()) for _ in range(100)]
    waiting = [asyncio.create_task(each.next()) for each in subscriptions]
    await asyncio.sleep(0)
    told.hub.close()
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), BOUND)
    assert all(isinstance(each, SubscriptionClosed) for each in ended)
    assert told.hub.count == 0
    with pytest.raises(SubscriptionClosed):
        await subscriptions[0].next()
    with pytest.raises(SubscriptionClosed):
        await told.hub.open(Latest())


async def test_a_closed_subscription_is_forgotten(told: Told) -> None:
    """Leaving the block closes it; others go on."""
    with await told.hub.open(Latest()) as subscription:
        assert told.hub.count == 1
    assert subscription.closed
    assert told.hub.count == 0
    with pytest.raises(SubscriptionClosed):
        await subscription.next()
    await told.tell(1)


async def test_a_replay_from_memory_lets_others_have_their_turn(told: Told) -> None:
    """A subscriber that never has to wait must not stop the loop from serving the rest."""
    await told.tell(4000)
    subscription = await told.hub.open(Earliest())
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await collect(subscription, 4000)
    counting.cancel()
    assert turns >= 4000 // 64


async def test_two_waits_on_one_subscription_are_a_mistake(told: Told) -> None:
    """Its cursor has one reader."""
    subscription = await told.hub.open(Latest())
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="still waiting"):
        await subscription.next()
    with pytest.raises(ValueError, match="batches of 0"):
        await subscription.next(0)
    waiting.cancel()
