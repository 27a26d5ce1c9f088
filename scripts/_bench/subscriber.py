"""One subscriber: when was each kill an event in its hands?

`python -m scripts._bench.subscriber SOCKET`. Each line of input is a number of kills to wait for;
the answer is one line of JSON: (CLOCK_MONOTONIC nanoseconds, cgroup, kills) of each event.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from oomwatch.client import AsyncClient, Bookmark
from oomwatch.events import OomKill


async def main(socket: str) -> None:
    """Follow the daemon until the input ends."""
    records: list[tuple[int, str, int]] = []
    arrived = asyncio.Event()

    def ready(mark: Bookmark) -> None:
        if mark.caught_up and not arrived.is_set():
            arrived.set()
            print("ready", flush=True)

    async def follow() -> None:
        async with AsyncClient(socket) as client:
            async for entry in client.subscribe(on_bookmark=ready):
                stamp = time.monotonic_ns()
                if isinstance(entry.event, OomKill):
                    cgroup, kills = entry.event.victim_cgroup, entry.event.kill_count
                    records.append((stamp, cgroup or "", kills or 0))
                    arrived.set()

    following = asyncio.create_task(follow())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        # Not woken by each: the counting would be in the way of the next.
        while _told(records) < int(line) and not following.done():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        print(json.dumps(records), flush=True)
        records.clear()
    following.cancel()


def _told(records: list[tuple[int, str, int]]) -> int:
    return sum(kills for _, _, kills in records)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
