"""The crash oracle: kills go on, the daemon dies again and again, and every sum must hold.

The daemon is killed at random moments, while it starts as well, and in the middle of commits.
Subscribers come and go meanwhile. Now and then everything comes to rest: then what the journal
tells must be what the counters count, for each cgroup and at each ancestor, and at the end each
subscriber must have seen every revision once, in order.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts._soak.followers import Followers
from scripts._soak.fork_server import PLACES
from scripts._soak.lives import ANSWER_SECONDS, Lives
from scripts._soak.truth import DifferenceError, JournalReader, Told
from scripts._soak.worlds import Life, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast things go. A daemon lives `longest_life` seconds at most, once it is ready."""

    longest_life: float
    settle_seconds: float
    deaths_between_checks: int
    pause: float


NATIVE = Pace(longest_life=1.0, settle_seconds=10.0, deaths_between_checks=25, pause=0.004)
EMULATED = Pace(longest_life=10.0, settle_seconds=60.0, deaths_between_checks=5, pause=0.1)


class Crash:
    """One run, of one seed."""

    def __init__(
        self,
        world: World,
        directory: Path,
        rng: random.Random,
        pace: Pace,
        *,
        arguments: tuple[str, ...],
        subscribers: int = 5,
        say: Callable[[str], None] = print,
    ) -> None:
        self.deaths = self.steps = 0
        self._world = world
        self._rng = rng
        self._pace = pace
        self._say = say
        self._told = Told(world)
        self._lives = Lives(directory, *arguments)
        self._journal = JournalReader(self._lives.state)
        self._marked = 0
        self._followers = Followers(self._lives.socket, rng.randrange(2**32), subscribers)

    def run(self, deaths: int | None, end: float) -> None:
        """Go on for so many deaths or until `end` (monotonic). Raises DifferenceError."""
        self._followers.wait_until_there()
        self._live_until_ready()
        while (deaths is None or self.deaths < deaths) and time.monotonic() < end:
            self._one_life()
            if self.deaths % self._pace.deaths_between_checks == 0:
                self.check()
        if self.deaths % self._pace.deaths_between_checks:
            self.check()
        self._check_subscribers()

    def close(self) -> None:
        """End every process."""
        self._followers.close()
        self._lives.close()

    def figures(self) -> str:
        """What came to pass, in a line."""
        told = self._told
        return (
            f"{self.deaths} deaths, {self.steps} steps, {len(self._world.lives)} cgroups, "
            f"{told.kills} kills in {len(self._journal.written)} events: {told.recovered} "
            f"recovered, {told.unattributed} without their cgroup, {told.gaps} gaps"
        )

    def _one_life(self) -> None:
        rng = self._rng
        die = (rng.choice(PLACES), rng.randrange(1, 6)) if rng.random() < 0.4 else None
        if self._lives.pid is None:
            self._world.note(f"the daemon is started{f', to die {die}' if die else ''}")
            self._lives.start(die)
        seconds = rng.choice((0.0, 0.1, 0.3, 1.0)) * rng.random() * self._pace.longest_life
        end = time.monotonic() + seconds
        if rng.random() < 0.7:
            self._steps_until(lambda: self._lives.ready or self._lives.dead, ANSWER_SECONDS)
            end = time.monotonic() + seconds
        self._steps_until(lambda: time.monotonic() > end or self._lives.dead, ANSWER_SECONDS)
        status = self._lives.end()
        if status != -signal.SIGKILL:
            raise DifferenceError(f"the daemon ended by itself: {status}; see {self._lives.log}")
        self.deaths += 1
        self._world.note(f"the daemon dies, for the {self.deaths}. time")
        for _ in range(rng.choice((0, 1, 5, 20))):
            self._step()

    def _steps_until(self, over: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not over():
            if time.monotonic() > end:
                raise DifferenceError(f"the daemon was not ready after {seconds:g} s")
            self._lives.watch(0)
            self._step()
            time.sleep(self._rng.expovariate(1 / self._pace.pause))

    def _step(self) -> None:
        self.steps += 1
        self._world.step()

    def _live_until_ready(self) -> None:
        if self._lives.pid is None:
            self._lives.start()
        while not self._lives.watch(1.0):
            if self._lives.dead:
                raise DifferenceError(f"the daemon ended by itself: see {self._lives.log}")

    def check(self) -> None:
        """Let everything come to rest, and compare."""
        self._world.quiet()
        self._live_until_ready()
        end = time.monotonic() + self._pace.settle_seconds
        while differences := self._differences():
            if self._lives.dead:
                raise DifferenceError(f"the daemon ended by itself:\n{self._last_words()}")
            if time.monotonic() > end:
                words = self._last_words()
                raise DifferenceError(f"{self._tell(differences)}\n\nits log:\n{words}")
            time.sleep(0.05)
        # Another life has nothing to add to what is right.
        self._lives.end()
        self._live_until_ready()
        time.sleep(self._pace.settle_seconds / 20)
        self._journal.check()
        if differences := self._differences():
            raise DifferenceError(self._tell(differences))
        self._lives.end()
        del self._world.story[:]
        self._say(self.figures())

    def _last_words(self) -> str:
        return "\n".join(self._lives.log.read_text(errors="replace").splitlines()[-60:])

    def _differences(self) -> list[tuple[Life | None, str]]:
        for revision, text in self._journal.read():
            self._told.add(revision, text)
        journal: list[tuple[Life | None, str]] = [(None, d) for d in self._journal.differences]
        return journal + self._told.differences()

    def _check_subscribers(self) -> None:
        self._live_until_ready()
        self._say(self._followers.compare(self._journal.written))

    def _tell(self, differences: list[tuple[Life | None, str]]) -> str:
        """The story, as far as it is of the cgroups that differ and of those beside them."""
        tops = {life.parent or life for life, _ in differences if life is not None}
        ids = {life.id for life in self._world.lives.values() if tops & set(life.lineage())}
        lives = [f"({number})" for number in ids]
        story = [
            line
            for line in self._world.story
            if " the daemon " in line or any(life in line for life in lives)
        ]
        events = [
            f"{revision} {text}"
            for revision, text in self._journal.written.items()
            if any(f'"victim_cgroup_id":{number},' in text for number in ids)
            or any(f"episode {_episode(text)} " in words for _, words in differences)
        ]
        words = [words for _, words in differences]
        return "\n".join([*words, "", "since they last agreed:", *story, "", "told:", *events])


def _episode(text: str) -> str:
    return str(json.loads(text)["episode_id"])


def run(
    world: World,
    directory: Path,
    seed: int,
    pace: Pace,
    *,
    deaths: int | None,
    seconds: float,
    arguments: tuple[str, ...],
    say: Callable[[str], None] = print,
) -> str:
    """Run the oracle; returns the figures. Raises DifferenceError."""
    crash = Crash(world, directory, random.Random(seed), pace, arguments=arguments, say=say)
    try:
        crash.run(deaths, time.monotonic() + seconds)
        return crash.figures()
    except DifferenceError as difference:
        raise DifferenceError(f"seed {seed}, {crash.figures()}\n{difference}") from None
    finally:
        crash.close()


def memory_directory() -> Path:
    """Where a fake tree may be: a tmpfs, whose inode numbers only rise."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())
