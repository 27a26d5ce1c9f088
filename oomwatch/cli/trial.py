"""One kill made and awaited: the work of `oomwatch selftest`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oomwatch.cli.follow import open_feed
from oomwatch.cli.reach import Daemon
from oomwatch.errors import DaemonUnavailable
from oomwatch.events import Entry, OomKill
from oomwatch.selftest import Death, Hog, ScratchCgroup
from oomwatch.subscriptions import EventFilter, Latest


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. `entry` is None if no event came; then `failure` says why in a sentence.

    The times are CLOCK_MONOTONIC: when the process was told to allocate, when its death was
    visible to its parent, and when the event was in our hands.
    """

    pid: int
    start_ns: int
    death_ns: int
    arrival_ns: int
    entry: Entry | None
    failure: str = ""


async def try_one_kill(asked: Daemon | None, root: Path, seconds: float) -> Trial:
    """Make a kill below `root` and wait for its event, from the daemon `asked` or from ourselves.

    Raises the errors of `ScratchCgroup`, of the watcher and of the client.
    """
    with ScratchCgroup(root) as scratch:
        # Forked before gRPC and its threads are even imported.
        hog = scratch.hog()
        inode = scratch.directory.stat().st_ino
        own_root = root if asked is None else None
        began = asyncio.Event()
        async with open_feed(asked, own_root, Latest(), EventFilter(), began.set) as feed:
            event = asyncio.ensure_future(_kill_in(feed, inode, scratch.directory.name))
            try:
                beginning = asyncio.ensure_future(began.wait())
                either: set[asyncio.Future[Any]] = {event, beginning}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                beginning.cancel()
                if event.done():  # only an error can come before the beginning
                    event.result()
                start = time.monotonic_ns()
                hog.go()
                death = await _dead(hog, seconds)
                if death is None:
                    why = f"the process lived on for {seconds:g} s: the kernel did not kill it"
                    return Trial(hog.pid, start, 0, 0, None, why)
                if death.signal != signal.SIGKILL:
                    why = "the process ended by itself: the kernel did not hold it to its limit"
                    return Trial(hog.pid, start, death.monotonic_ns, 0, None, why)
                await asyncio.wait([event], timeout=seconds)
                if not event.done():
                    why = (
                        f"the kernel counts {scratch.kills()} kills in {scratch.directory}, "
                        f"but no event came within {seconds:g} s; see 'oomwatch doctor'"
                    )
                    return Trial(hog.pid, start, death.monotonic_ns, 0, None, why)
                entry, arrival = event.result()
                return Trial(hog.pid, start, death.monotonic_ns, arrival, entry)
            finally:
                event.cancel()


async def _kill_in(feed: AsyncIterator[Entry], inode: int, name: str) -> tuple[Entry, int]:
    async for entry in feed:
        event = entry.event
        if not isinstance(event, OomKill) or event.victim_cgroup is None:
            continue
        # A daemon may call the cgroup by a longer path; the inode is the same for everybody.
        same_name = event.victim_cgroup.rpartition("/")[2] == name
        if event.victim_cgroup_id == inode or (event.victim_cgroup_id is None and same_name):
            return entry, time.monotonic_ns()
    raise DaemonUnavailable("the stream of events ended before the kill was told")


async def _dead(hog: Hog, seconds: float) -> Death | None:
    """Wait until the process is dead; the loop goes on meanwhile."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    loop.add_reader(hog.pidfd, dead.set)
    try:
        async with asyncio.timeout(seconds):
            await dead.wait()
    except TimeoutError:
        return None
    finally:
        loop.remove_reader(hog.pidfd)
    return hog.wait()
