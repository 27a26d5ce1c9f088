"""What was told, held against what the kernel counted.

A kill told for a cgroup counts there and at each ancestor; one told only below a survivor counts at
the survivor and at each of its ancestors. Then for every cgroup that is left, and for the node,
both sums must be the kernel's own, and for one that is gone no more may have been told than it had.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from oomwatch.event_json import event_loads
from oomwatch.events import OomKill
from scripts._soak.worlds import Life, World

_BELOW = "-below-"
"""In the episode's id, between the survivor's inode and the kill's number: `ResidualKills`."""


class DifferenceError(Exception):
    """What was told is not what happened."""


class JournalReader:
    """Reads a journal beside the daemon, and sees to it that what was written stays as it is."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "journal.db"
        self.written: dict[int, str] = {}
        self.differences: list[str] = []

    def read(self) -> list[tuple[int, str]]:
        """Return what was written since the last read, as revision and event."""
        if not self._path.exists():
            return []
        rows = _events_after(self._path, max(self.written, default=0))
        self.written.update(rows)
        return rows

    def check(self) -> None:
        """Read all of it again: a revision that is told stays what it is."""
        before, self.written = self.written, {}
        self.read()
        for revision, text in before.items():
            if self.written.get(revision) != text:
                self.differences.append(f"revision {revision} was {text}, and is no longer")
        if list(self.written) != list(range(1, len(self.written) + 1)):
            self.differences.append("revisions are not 1, 2, 3, …")


class Tally:
    """How many kills a journal told, whose old events may be deleted meanwhile: read it often."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "journal.db"
        self.newest = self.kills = self.unattributed = self.skipped = 0

    def read(self) -> None:
        """Take in what was written since."""
        for revision, text in _events_after(self._path, self.newest):
            self.skipped += revision - self.newest - 1
            self.newest = revision
            event = event_loads(text)
            if isinstance(event, OomKill) and event.kill_count is not None:
                self.kills += event.kill_count
                self.unattributed += 0 if event.victim_cgroup else event.kill_count

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.newest} events, {self.unattributed} without their "
            f"cgroup, {self.skipped} revisions skipped"
        )


class Told:
    """The sums of what was told, by life."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._own: Counter[int] = Counter()
        self._below: Counter[int] = Counter()
        self._episodes: Counter[tuple[str, str | int | None]] = Counter()
        self._strangers: Counter[int] = Counter()
        self._baseline = {life.id: world.kills(life) for life in world.root.below()}
        self.kills = self.recovered = self.gaps = self.unattributed = 0

    def add(self, revision: int, text: str) -> None:
        """Take in one event."""
        event = event_loads(text)
        if not isinstance(event, OomKill):
            self.gaps += 1
            return
        if event.kill_count is None:
            return
        kills = event.kill_count
        self.kills += kills
        self.recovered += kills if event.recovered else 0
        self._episodes[event.episode_id, event.victim_cgroup_id or event.victim_cgroup] += 1
        where = int(event.episode_id.split("-")[1], 16) if _BELOW in event.episode_id else None
        victim = event.victim_cgroup_id
        if victim is not None:
            self._own[victim] += kills
        elif event.victim_cgroup is None:
            self.unattributed += kills
        life = self._world.lives.get(where if where is not None else victim or 0)
        if life is None:
            self._strangers[where or victim or 0] += kills
            return
        for above in life.lineage():
            self._below[above.id] += kills

    def differences(self) -> list[tuple[Life | None, str]]:
        """Say where what was told is not what was counted, and of which life."""
        found: list[tuple[Life | None, str]] = []
        for life in self._world.root.below():
            local, below = self._world.kills(life)
            local_before, below_before = self._baseline.get(life.id, (0, 0))
            told = self._below[life.id]
            if told != below - below_before:
                counted = f"counted {below - below_before}, told {told}"
                found.append((life, f"{life.path} ({life.id}) and below it: {counted}"))
            if local is not None and self._own[life.id] != local - (local_before or 0):
                counted = f"counted {local - (local_before or 0)}, told {self._own[life.id]}"
                found.append((life, f"{life.path} ({life.id}) itself: {counted}"))
        for life in self._world.lives.values():
            if life.gone and life.counted is not None and self._own[life.id] > life.counted:
                counted = f"counted {life.counted}, told {self._own[life.id]}"
                found.append((life, f"{life.path} ({life.id}), which is gone: {counted}"))
        for inode, kills in self._strangers.items():
            found.append((None, f"{kills} told for inode {inode}, which never was"))
        for (episode, victim), times in self._episodes.items():
            if times > 1:
                found.append((None, f"episode {episode} in {victim} was told {times} times"))
        return found


def _events_after(journal: Path, revision: int) -> list[tuple[int, str]]:
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)
    with closing(connection):
        return connection.execute(
            "SELECT revision, event FROM events WHERE revision > ? ORDER BY revision", (revision,)
        ).fetchall()
