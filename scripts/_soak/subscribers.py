"""Subscribers that come and go, slow and fast, and what each of them was sent.

`python -m scripts._soak.subscribers SOCKET SEED COUNT`. A line with a revision on stdin lets each
of them end once it has come so far; then what they saw goes to stdout, a line of JSON for each:
`{"kind": ..., "whole": true, "seen": [[revision, event], ...]}`. `whole` is who began with the
first event; the others began where they came.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from oomwatch.client import AsyncClient
from oomwatch.errors import DaemonUnavailable
from oomwatch.event_json import event_dumps
from oomwatch.subscriptions import AfterRevision, Earliest, LastN, Start

LONG_AGO = -1


@dataclass
class Follower:
    """One subscriber: its place, and all that it was sent."""

    kind: str
    socket: Path
    rng: random.Random
    cursor: int = 0
    journal_id: str = ""
    seen: list[tuple[int, str]] = field(default_factory=list)
    until: int | None = None

    @property
    def done(self) -> bool:
        """Has it come as far as it was to?"""
        return self.until is not None and self.cursor >= self.until

    async def run(self) -> None:
        """Subscribe, as often as it takes."""
        while not self.done:
            try:
                async with asyncio.timeout(self._session()):
                    await self._follow()
            except (TimeoutError, DaemonUnavailable):
                await asyncio.sleep(self.rng.uniform(0, 0.2))

    def _session(self) -> float:
        if self.kind == "reads nothing":
            return 3600.0
        return self.rng.uniform(0.02, 1.0) if self.kind == "comes and goes" else 5.0

    def _start(self) -> Start:
        if self.journal_id:
            return AfterRevision(self.cursor, self.journal_id)
        return LastN(3) if self.kind == "late" else Earliest()

    async def _follow(self) -> None:
        async with AsyncClient(self.socket) as client:
            subscription = client.subscribe(self._start())
            while not self.done:
                batch = await subscription.next()
                for entry in batch.entries:
                    self.seen.append((entry.revision, event_dumps(entry.event)))
                self.cursor = batch.cursor
                self.journal_id = subscription.journal_id
                if self.kind == "slow":
                    await asyncio.sleep(self.rng.uniform(0, 0.1))
                while self.kind == "reads nothing" and self.until is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    def told(self) -> str:
        """What it saw, for the oracle."""
        return json.dumps({"kind": self.kind, "whole": self.kind != "late", "seen": self.seen})


# The last has its stream ended by the daemon, and resumes at the end.
KINDS = ("steady", "comes and goes", "slow", "comes and goes", "late", "reads nothing")


async def main(socket: Path, seed: int, count: int) -> None:
    """Follow until told how far, then say what was seen."""
    followers = [
        Follower(KINDS[number % len(KINDS)], socket, random.Random(seed + number))
        for number in range(count)
    ]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    print(json.dumps("ready"), flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if line.strip():
        for follower in followers:
            follower.until = int(line)
        for follower, task in zip(followers, running, strict=True):
            try:
                async with asyncio.timeout(60 + int(line) / 50):
                    await task
            except TimeoutError:
                follower.kind += f" (stuck at {follower.cursor})"
            print(follower.told(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
