"""Many subscribers of one kind in one process, each with a connection of its own.

`python -m scripts._bench.crowd SOCKET KIND COUNT`. Says "ready" once all have their first bookmark.

- `live` ones read what they are sent. Each line of input is a number of events to wait for; the
  answer is when each subscriber had each of them, and how many had all of them in order.
- `silent` ones ask for everything and read no more of it.
- `slow` ones ask for everything, and take a second over each event.
- `restless` ones connect, subscribe, and hang up, in a loop.
- `replaying` ones read everything from the beginning, in a loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache

import grpc.aio

from oomwatch.rpc.v1 import oomwatch_pb2 as pb

_METHOD = f"/{pb.DESCRIPTOR.services_by_name['OomWatchService'].full_name}/Subscribe"
# Else gRPC gives all channels of one process to the same address one connection.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
# Else gRPC takes in some megabytes for a caller that does not read: to the daemon, a reader.
_LITTLE_ROOM = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
_EVERYTHING = pb.StartPosition(earliest=pb.EarliestPosition())

Call = grpc.aio.UnaryStreamCall[bytes, bytes]


@lru_cache(256)
def parsed(message: bytes) -> pb.SubscribeResponse:
    """A response; one that many get is parsed once."""
    return pb.SubscribeResponse.FromString(message)


@asynccontextmanager
async def stream(
    socket: str, start: pb.StartPosition | None = None, *, little_room: bool = False
) -> AsyncIterator[Call]:
    """Subscribe, and read the first bookmark."""
    options = _OWN_CONNECTION + (_LITTLE_ROOM if little_room else [])
    async with grpc.aio.insecure_channel(f"unix:{socket}", options) as channel:
        subscribe: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        subscribe = channel.unary_stream(_METHOD)
        call = subscribe(pb.SubscribeRequest(start=start).SerializeToString())
        await call.read()
        yield call


class Crowd:
    """All subscribers of this process."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._ready = asyncio.Semaphore(0)
        self._seen: list[list[tuple[int, int]]] = []

    async def live(self) -> None:
        """Read, and remember what and when."""
        seen: list[tuple[int, int]] = []
        self._seen.append(seen)
        async with stream(self._socket) as call:
            self._ready.release()
            while True:
                message = await call.read()
                stamp = time.monotonic_ns()
                seen += [(event.revision, stamp) for event in parsed(message).events]

    async def silent(self) -> None:
        """Read nothing."""
        async with stream(self._socket, _EVERYTHING, little_room=True):
            self._ready.release()
            await asyncio.Event().wait()

    async def slow(self) -> None:
        """Read an event a second; come back after it where the stream was ended."""
        start = _EVERYTHING
        while True:
            async with stream(self._socket, start, little_room=True) as call:
                self._ready.release()
                while message := await call.read():
                    for event in parsed(message).events:
                        after = pb.AfterRevisionPosition(revision=event.revision)
                        start = pb.StartPosition(after_revision=after)
                        await asyncio.sleep(1)

    async def restless(self) -> None:
        """Come and go."""
        while True:
            async with stream(self._socket):
                self._ready.release()

    async def replaying(self) -> None:
        """Read everything, again and again."""
        while True:
            async with stream(self._socket, _EVERYTHING) as call:
                self._ready.release()
                while not parsed(await call.read()).bookmark.caught_up:
                    pass

    def _answer(self) -> dict[str, object]:
        first = self._seen[0][0][0]
        in_order = sum(
            all(revision == first + place for place, (revision, _) in enumerate(seen))
            for seen in self._seen
        )
        return {
            "stamps": [[stamp for _, stamp in seen] for seen in self._seen],
            "in_order": in_order,
        }

    async def run(self, kind: str, count: int) -> None:
        """Let them all in, then answer."""
        one: Callable[[], Awaitable[None]] = getattr(self, kind)
        tasks = [asyncio.ensure_future(one()) for _ in range(count)]
        for _ in tasks:
            await self._ready.acquire()
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            # Not woken by each: the counting would be in the way of the next.
            while any(len(seen) < int(line) for seen in self._seen):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            print(json.dumps(self._answer()), flush=True)
            for seen in self._seen:
                seen.clear()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(Crowd(sys.argv[1]).run(sys.argv[2], int(sys.argv[3])))
