"""The daemon in a cgroup with a limit of its own, while kills by the thousand are told.

It must live, tell every kill once, and serve its subscribers, one of whom reads nothing. What it
holds is the kernel's word: its cgroup's, which has no swap. A journal on a tmpfs counts with it; on
a disk it is page cache, and can go.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from scripts._soak.churn import Tree
from scripts._soak.confined import Confined
from scripts._soak.followers import Followers
from scripts._soak.lives import ANSWER_SECONDS
from scripts._soak.truth import DifferenceError, JournalReader, Tally


def run(
    tree: Tree,
    daemon: Confined,
    *,
    kills: int,
    cgroups: int,
    subscribers: int,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Kill so often in so many cgroups, and hold what was told against it.

    Ends sooner after so many `seconds` of killing. Raises DifferenceError.
    """
    rng = random.Random(kills)
    tally = Tally(daemon.state)
    tally.read()
    before = tally.kills
    say(f"at the start: {daemon.held()}")
    followers = Followers(daemon.socket, kills, subscribers)
    try:
        followers.wait_until_there()
        for number in range(cgroups):
            tree.make(f"/c{number}")
        begun = time.monotonic()
        next_word = 60.0
        for number in range(1, kills + 1):
            tree.kill(f"/c{rng.randrange(cgroups)}")
            took = time.monotonic() - begun
            if took > next_word and daemon.alive:
                next_word += 60
                say(f"{took:.0f} s, {number} kills: {daemon.held()}")
            if not daemon.alive or took > seconds:
                break
        took = time.monotonic() - begun
        say(f"{number} kills in {took:.0f} s" + (f": {daemon.held()}" if daemon.alive else ""))
        _until_told(tally, before + tree.kills("/"), daemon)
        say(f"told: {tally}")
        journal = JournalReader(daemon.state)
        journal.read()
        say(followers.compare(journal.written))
        say(f"at the end: {daemon.held()}")
    finally:
        followers.close()


def _until_told(tally: Tally, kills: int, daemon: Confined) -> None:
    """Wait for the last of it, also for the names that come after."""
    end = time.monotonic() + ANSWER_SECONDS
    newest = -1
    while daemon.alive and time.monotonic() < end:
        tally.read()
        if tally.kills >= kills and tally.newest == newest:
            break
        newest = tally.newest
        time.sleep(3.0)
    if not daemon.alive or daemon.killed:
        raise DifferenceError(f"the daemon ended: {daemon.process.poll()}, see {daemon.log}")
    if tally.kills != kills:
        raise DifferenceError(f"{kills} kills, told {tally}")
