"""Many subscribers in one process, each with a connection of its own, all wanting every event.

`python -m scripts._bench.fanout SOCKET SUBSCRIBERS EVENTS`: says "ready" once all have caught up,
and when each has seen so many events, when the last one had and whether each had them in order.
A message that many get is parsed once: 500 real subscribers would not share two cores for that.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import lru_cache

import grpc.aio

from oomwatch.rpc.v1 import oomwatch_pb2 as pb

_METHOD = f"/{pb.DESCRIPTOR.services_by_name['OomWatchService'].full_name}/Subscribe"
# Else gRPC gives all channels of one process to the same address one connection.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@lru_cache(256)
def revisions(message: bytes) -> tuple[int, ...]:
    """The revisions of the events in a response, in its order."""
    return tuple(event.revision for event in pb.SubscribeResponse.FromString(message).events)


async def subscriber(socket: str, events: int, ready: asyncio.Semaphore) -> list[int]:
    """Follow until there were so many events; return their revisions in order of arrival."""
    got: list[int] = []
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=_OWN_CONNECTION) as channel:
        subscribe: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        subscribe = channel.unary_stream(_METHOD)
        call = subscribe(pb.SubscribeRequest().SerializeToString())
        await call.read()  # the first bookmark
        ready.release()
        while len(got) < events:
            got += revisions(await call.read())
        call.cancel()
    return got


async def main(socket: str, subscribers: int, events: int) -> None:
    """Run them all."""
    ready = asyncio.Semaphore(0)
    ended: list[int] = []

    async def one() -> list[int]:
        got = await subscriber(socket, events, ready)
        ended.append(time.monotonic_ns())
        return got

    tasks = [asyncio.create_task(one()) for _ in range(subscribers)]
    for _ in tasks:
        await ready.acquire()
    print("ready", flush=True)
    everything = await asyncio.gather(*tasks)
    first = everything[0][0]
    wanted = list(range(first, first + events))
    right = sum(got == wanted for got in everything)
    print(json.dumps({"ended": max(ended), "in_order": right}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
