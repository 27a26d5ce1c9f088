"""Registers and finalizes containers as a worker does: one for each cgroup that it is told of.

`python -m scripts._bench.registrar SOCKET`, a list of cgroups on the first line; then for each
line "go" it registers them all, and answers with the seconds that it took; for a line "finalize
COUNT" it finalizes so many, one after the other, and answers with the milliseconds of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from oomwatch.client import AsyncClient
from oomwatch.events import Container, Pod


async def register(socket: str, cgroups: list[str]) -> float:
    """Register a container with a pod, an image and labels in each cgroup; the seconds it took."""
    began = time.monotonic()
    async with AsyncClient(socket) as client:
        for number, cgroup in enumerate(cgroups):
            container = Container(
                id=f"{number:064x}",
                name=f"web-{number}",
                runtime="containerd",
                handler="runc",
                image="registry.example/team/web:1.25",
                labels={"app": "web", "team": f"team-{number % 50}"},
                pod=Pod(uid=f"{number:032x}", name=f"web-{number}", namespace="shop"),
            )
            await client.watch_container(container, cgroup=cgroup, memory_limit_bytes=64 << 20)
    return time.monotonic() - began


async def finalize(socket: str, count: int) -> list[float]:
    """Finalize the first containers, none of which was killed in; the milliseconds of each."""
    took = []
    async with AsyncClient(socket) as client:
        for number in range(count):
            began = time.monotonic()
            await client.finalize(f"{number:064x}", exit_code=137)
            took.append((time.monotonic() - began) * 1000)
    return took


def main(socket: str) -> None:
    """Do as the module's docstring says."""
    cgroups = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        answer: object
        if word == "finalize":
            answer = asyncio.run(finalize(socket, int(count)))
        else:
            answer = asyncio.run(register(socket, cgroups))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
