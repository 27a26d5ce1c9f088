"""What a daemon says of itself when something goes wrong, by each of the ways that there are.

Health is what a probe sees, `GetStatus` a program, `oomwatch doctor` a person: they must agree.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oomwatch.client import Client
from oomwatch.events import OomKill
from oomwatch.rpc.health import SOURCES
from oomwatch.status import NodeStatus
from tests.component.test_cli_serve import OOMWATCH

BOUND = 240.0 if os.environ.get("OOMWATCH_IN_VM") == "1" else 30.0


class Tree(Protocol):
    """The cgroups that it watches."""

    @property
    def root(self) -> Path: ...

    def kills(self, path: str) -> int: ...


class Asked(Protocol):
    """A daemon that can be asked."""

    @property
    def socket(self) -> Path: ...

    @property
    def tree(self) -> Tree: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What a daemon says of itself."""

    serving: bool
    """Its health: are promises kept?"""
    sources_well: bool
    """The health of its sources."""
    status: NodeStatus
    doctor: dict[str, dict[str, str]]
    """Its findings that are not ok, by name."""

    @property
    def degraded(self) -> dict[str, str]:
        """The sources that are, and their sentences."""
        return {source.name: source.detail for source in self.status.sources if source.degraded}


def doctor(asked: Asked) -> dict[str, dict[str, str]]:
    """What `oomwatch doctor` finds that is not ok, by name."""
    words = ("doctor", "-o", "json", "--socket", asked.socket, "--cgroup-root", asked.tree.root)
    done = subprocess.run(
        [*OOMWATCH, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
        env={**os.environ, "OOMWATCH_SOCKET": str(asked.socket)},
    )
    assert "Traceback" not in done.stderr, done.stderr
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    return {check["name"]: check for check in checks if check["state"] != "ok"}


def shown(asked: Asked) -> Shown:
    with Client(asked.socket) as client:
        well = client.health(), client.health(SOURCES)
        return Shown(*well, client.get_status(), doctor(asked))


def wait_until_shown(asked: Asked, true: Callable[[Shown], bool]) -> Shown:
    end = time.monotonic() + BOUND
    while not true(now := shown(asked)):
        assert time.monotonic() < end, now
    return now


def seen_degraded(asked: Asked, words: str, source: str | None = None) -> Shown:
    """Wait until health, GetStatus and doctor all tell of a fault, in one sentence with `words`.

    Of a source's fault the health of the sources tells, since every promise is kept; without
    `source` one is not, and the daemon's own health says so.
    """
    if source is None:
        now = wait_until_shown(asked, lambda now: not now.serving and "its health" in now.doctor)
        sentence = next((one for one in now.status.problems if words in one), None)
        assert sentence is not None, now.status.problems
        assert not now.status.healthy
        assert now.doctor["its health"]["found"] == sentence
        assert "NOT_SERVING" in now.doctor["its health"]["mend"]
        return now

    def told(now: Shown) -> bool:
        found = now.doctor.get(f"its {source}", {}).get("found")
        # It was asked a moment after: in between the sentence may have come to count one more.
        said = words in now.degraded.get(source, "") and found == now.degraded[source]
        # And the health of the sources a moment before, when it may not have been seen yet.
        return said and not now.sources_well

    now = wait_until_shown(asked, told)
    with Client(asked.socket) as client:
        assert not client.health(f"{SOURCES}/{source}")
    assert now.serving
    assert now.status.healthy
    return now


def well(now: Shown) -> bool:
    ours = [name for name in now.doctor if name.startswith("its ") or name == "daemon"]
    return now.serving and now.sources_well and now.status.healthy and not now.degraded and not ours


def healthy_again(asked: Asked) -> Shown:
    """Wait until nobody says any more that anything is wrong, and return what they say."""
    return wait_until_shown(asked, well)


def kills(asked: Asked) -> list[OomKill]:
    """The kills that were told, in order."""
    with Client(asked.socket) as client:
        events = [entry.event for entry in client.list_events()]
    return [event for event in events if isinstance(event, OomKill)]


def kills_told(asked: Asked) -> int:
    return sum(kill.kill_count or 0 for kill in kills(asked))


def wait_until_told(asked: Asked, kills: int | None = None) -> None:
    """Wait until as many kills are told as there were: those that the tree counts, if not said."""
    wanted = asked.tree.kills("/") if kills is None else kills
    end = time.monotonic() + BOUND
    while kills_told(asked) != wanted:
        assert time.monotonic() < end, f"{kills_told(asked)} of {wanted} told"
