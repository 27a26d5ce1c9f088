"""A daemon on a tree of plain files, and a client of it, in one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from oomwatch.client import AsyncClient
from oomwatch.config import Config
from oomwatch.containers.layouts import Layout
from oomwatch.daemon import Watcher
from oomwatch.events import Entry, OomKill
from oomwatch.rpc.server import RpcServer
from oomwatch.subscriptions import Earliest, EventFilter
from oomwatch.testing import FakeCgroupTree

BOUND = 30.0


@dataclass
class Place:
    """A tree, a daemon on it, and a client of that."""

    tree: FakeCgroupTree
    watcher: Watcher
    client: AsyncClient

    async def journaled(self) -> list[Entry]:
        """What was told so far."""
        return [entry async for entry in self.client.list_events(Earliest())]

    async def kills(self, count: int, event_filter: EventFilter | None = None) -> list[OomKill]:
        """Return the first events of the journal that pass."""
        found: list[OomKill] = []
        async with asyncio.timeout(BOUND):
            async for entry in self.client.subscribe(Earliest(), event_filter):
                assert isinstance(entry.event, OomKill)
                found.append(entry.event)
                if len(found) == count:
                    break
        return found


def in_memory(directory: Path) -> Path:
    """Where a test's tree lies: the inodes of tmpfs rise, as those of cgroupfs do; those of a
    disk's file system come again. The fixture `on_tmpfs` removes it.
    """
    return Path(f"/dev/shm/oomwatch-{os.getpid()}-{directory.parent.name}-{directory.name}")


@asynccontextmanager
async def served(
    directory: Path,
    tree: FakeCgroupTree | None = None,
    *,
    killer_log: Path | None = None,
    retention_events: int = 1000,
    layouts: tuple[Layout, ...] = (),
) -> AsyncIterator[Place]:
    """Serve a tree, a new one unless given, with the journal that is in the directory."""
    tree = tree or FakeCgroupTree(in_memory(directory))
    config = Config(
        cgroup_root=tree.root,
        state_dir=directory / "state",
        killer_log=killer_log,
        retention_events=retention_events,
        layouts=layouts,
    )
    socket = directory / "o.sock"
    async with (
        Watcher(config) as watcher,
        RpcServer(watcher, socket=socket),
        AsyncClient(socket) as client,
    ):
        yield Place(tree, watcher, client)
