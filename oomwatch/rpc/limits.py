"""What one daemon bears, and of whom: streams and calls, counted for each peer and for all.

A peer is a host over TCP, and a whole socket over Unix: gRPC does not tell the processes behind a
Unix socket apart (docs/decisions has why). What is past a bound is refused with RESOURCE_EXHAUSTED
and a sentence, at the cost of nobody else.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc

from oomwatch.rpc.refusals import RefusalError
from oomwatch.subscriptions import EventFilter

_PEERS_REMEMBERED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one daemon bears.

    `streams` are open at once, over all clients; `streams_a_peer` of one peer (a TCP host, or all
    who use one Unix socket), `streams_a_connection` of one TCP connection. `filter_terms` is the
    sum of terms over the different filters of open streams: each event is held against all of them.

    `openings_a_second` is how many streams one peer opens in the long run, and `openings_at_once`
    how many in a burst; further ones wait for their turn, one after another, so that a client that
    connects in a loop costs what is allowed to it and no more.

    `calls_a_second` is how many calls that are no streams are answered in the long run, and
    `calls_at_once` how many in a burst; `..._a_peer` are one peer's. `concurrent_calls` is what
    gRPC lets one connection have in flight: further ones wait. Calls that walk the tree or the
    journal are answered one after another, and `long_calls` may be waiting or under way, so that
    what a kill needs comes between any two of them. `registered_a_peer` is
    how many containers one TCP host has registered at a time. `request_bytes` is the largest
    request, `metadata_bytes` the most that goes with one. `connections` is how many each address
    takes, never more than half of the process's descriptors; further ones are closed unanswered.
    """

    streams: int = 2048
    streams_a_peer: int = 1536
    streams_a_connection: int = 1024
    filter_terms: int = 8192
    openings_a_second: float = 50.0
    openings_at_once: float = 2048.0
    calls_a_second: float = 2000.0
    calls_at_once: float = 10_000.0
    calls_a_second_a_peer: float = 1000.0
    calls_at_once_a_peer: float = 5000.0
    concurrent_calls: int = 1100
    long_calls: int = 64
    registered_a_peer: int = 5000
    request_bytes: int = 256 * 1024
    metadata_bytes: int = 8 * 1024
    connections: int = 4096

    def server_options(self) -> list[tuple[str, int]]:
        """Those of the limits that gRPC holds itself."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = min(self.connections, max(1, descriptors // 2))
        return [
            ("grpc.max_receive_message_length", self.request_bytes),
            ("grpc.max_concurrent_streams", self.concurrent_calls),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", 2 * self.metadata_bytes),
            ("grpc.max_allowed_incoming_connections", connections),
        ]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is. `connection` is `None` where connections cannot be told apart."""

    peer: str
    connection: str | None = None


class CallRate:
    """A bucket of calls that fills steadily: so many a second, so many at once."""

    __slots__ = ("_at_once", "_left", "_rate", "_time")

    def __init__(self, rate: float, at_once: float, now: float) -> None:
        self._rate, self._at_once = rate, at_once
        self._left, self._time = at_once, now

    def wait(self, now: float) -> float:
        """Take one call; 0, or the seconds until there would be one to take."""
        self._left = min(self._at_once, self._left + (now - self._time) * self._rate)
        self._time = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class _Peer:
    """How often one peer calls, and opens streams."""

    __slots__ = ("calls", "opening", "openings")

    def __init__(self, limits: Limits, now: float) -> None:
        self.calls = CallRate(limits.calls_a_second_a_peer, limits.calls_at_once_a_peer, now)
        self.openings = CallRate(limits.openings_a_second, limits.openings_at_once, now)
        self.opening = asyncio.Lock()


class Admission:
    """Counts what is open and what is called. Raises RefusalError where it is too much."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams = 0
        self._of: Counter[str] = Counter()
        self._filters: Counter[EventFilter] = Counter()
        self._terms = 0
        self._long_calls = 0
        self._long_call = asyncio.Lock()
        self._rate: CallRate | None = None
        # The one that called last comes last; one that is forgotten begins with full buckets.
        self._peers: OrderedDict[str, _Peer] = OrderedDict()

    def call(self, caller: Caller) -> None:
        """Count a call that is no stream."""
        limits, now = self._limits, asyncio.get_running_loop().time()
        if wait := self._peer(caller, now).calls.wait(now):
            raise _too_often(f"{caller.peer} calls more", limits.calls_a_second_a_peer, wait)
        if self._rate is None:
            self._rate = CallRate(limits.calls_a_second, limits.calls_at_once, now)
        if wait := self._rate.wait(now):
            raise _too_often("all clients together call more", limits.calls_a_second, wait)

    async def opening(self, caller: Caller) -> None:
        """Wait for one's turn to open a stream."""
        loop = asyncio.get_running_loop()
        peer = self._peer(caller, loop.time())
        async with peer.opening:
            while wait := peer.openings.wait(loop.time()):  # noqa: ASYNC110 - for a time
                await asyncio.sleep(wait)

    def _peer(self, caller: Caller, now: float) -> _Peer:
        peer = self._peers.get(caller.peer)
        if peer is None:
            peer = self._peers[caller.peer] = _Peer(self._limits, now)
            if len(self._peers) > _PEERS_REMEMBERED:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(caller.peer)
        return peer

    @asynccontextmanager
    async def long_call(self) -> AsyncIterator[None]:
        """Wait for one's turn to walk the tree or the journal."""
        most = self._limits.long_calls
        if self._long_calls >= most:
            raise _too_many(f"{most} calls that list things are waiting or under way, the most")
        self._long_calls += 1
        try:
            async with self._long_call:
                yield
        finally:
            self._long_calls -= 1

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count a stream for as long as it lasts."""
        limits = self._limits
        if self._streams >= limits.streams:
            raise _too_many(f"the daemon has {limits.streams} streams open, its most")
        bounds = [(caller.peer, limits.streams_a_peer)]
        if caller.connection is not None:
            bounds.append((caller.connection, limits.streams_a_connection))
        for who, most in bounds:
            if self._of[who] >= most:
                raise _too_many(f"{who} has {most} streams open, its most")
        self._streams += 1
        self._of.update(who for who, _ in bounds)
        try:
            yield
        finally:
            self._streams -= 1
            for who, _ in bounds:
                self._of[who] -= 1
                if not self._of[who]:
                    del self._of[who]

    @contextmanager
    def filtering(self, event_filter: EventFilter) -> Iterator[None]:
        """Count the terms of a stream's filter, once for all streams that have the same."""
        terms = 0 if event_filter in self._filters else event_filter.terms
        most = self._limits.filter_terms
        if self._terms + terms > most:
            raise _too_many(
                f"the filters of open streams have {self._terms} terms, and {terms} more are past "
                f"{most}, the most: ask for less, or share a filter"
            )
        self._filters[event_filter] += 1
        self._terms += terms
        try:
            yield
        finally:
            self._filters[event_filter] -= 1
            if not self._filters[event_filter]:
                del self._filters[event_filter]
                self._terms -= event_filter.terms


def _too_many(why: str) -> RefusalError:
    return RefusalError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, f"{why}: close some, or come back later"
    )


def _too_often(why: str, rate: float, wait: float) -> RefusalError:
    return RefusalError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"{why} than {rate:g} times a second: call again in {wait * 1000:.0f} ms, or less often",
    )
