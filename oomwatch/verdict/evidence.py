"""What is known about one exit: the facts that a verdict is drawn from, and nothing concluded.

The facts about the counters, and why an exit code proves so little, are in docs/semantics.md.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from oomwatch.events import Confidence

NEAR_MICROSECONDS = 2_000_000
"""A kill this close to the exit, before or after, may be why. `docker run --init` and `sh -c` pass
a child's death on at once; a counter's rise may be read a little after the exit it belongs to."""

DYING_MICROSECONDS = 30_000_000
"""The longest that a killed main process is taken to need until it is gone and its exit told. One
that is named as killed and lives on is not the main process: somebody told a wrong pid."""

AT_LIMIT = 0.95
"""Of the limit: usage from here on is worth a word, and never proof."""

_SIGKILL = int(signal.SIGKILL)

_SANDBOX_STATUSES = (0, 128, 143)
"""Exit codes, beside 137, that gVisor sandboxes were seen to end with when the host's OOM killer
had ended them."""


def stop_asked_for(requested: bool | None, stop_signal: int | None) -> bool | None:
    """Whether a stop was asked for: whoever tells its signal alone says that one was."""
    return True if requested is None and stop_signal is not None else requested


class LastRead(Enum):
    """What the kernel's counters could still say once the container had ended.

    `READ`: the cgroup was there, and its counters were read after the exit. `SUMS`: it was gone,
    and the counts of its parent and of the node hold nothing that was not told elsewhere, by a
    second look. `NONE`: neither; a kill may have gone unseen.
    """

    READ = "read"
    SUMS = "sums"
    NONE = "none"


class Sandbox(Enum):
    """How a gVisor sandbox lies in the host's cgroups.

    `OWN`: in one of its own. `SHARED`: in one with others (a pod's several containers,
    `--ignore-cgroups`, rootless). `UNSEEN`: nothing of the host is visible, or it ended before its
    processes were found.
    """

    OWN = "own"
    SHARED = "shared"
    UNSEEN = "unseen"


class VictimRole(Enum):
    """Which of a gVisor sandbox's host processes was killed.

    The sentry is the sandbox. A stub runs the application's code for it, and the sentry ends
    itself when one dies. A gofer serves files.
    """

    SENTRY = "sentry"
    STUB = "stub"
    GOFER = "gofer"


class Due(Enum):
    """A witness that was not heard within the moment that was waited, and is still to come.

    `COUNTERS`: a read of its counters, or, where its cgroup is gone, the second look at the counts
    above it. `PLACE`: the removal of a cgroup that nobody could tell, which may say that it was
    this one's. `SANDBOX`: where a gVisor sandbox's processes live. `NAMES`: who it was that a kill
    near the exit took. What it says amends the exit.
    """

    COUNTERS = "counters"
    PLACE = "place"
    SANDBOX = "sandbox"
    NAMES = "names"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillOfLife:
    """The kernel killed in this container's cgroup, or below it, while it lived.

    `time` is when the kernel did it, or else when it was seen. `named`: every victim is. Then
    `main_process` says whether one was the container's main process (the sentry, of a sandbox),
    `None` where that is not known. `whole_group`: memory.oom.group made the kernel kill all of the
    container. `candidates` is how many cgroups or sandboxes the kill may belong to: 1 is this one
    for certain. `revision` is `None` while the journal has not written it. `words` describe it, as
    in "python3[395] at its own limit of 32 MiB".
    """

    time: int
    kill_count: int
    words: str = ""
    revision: int | None = None
    named: bool = False
    main_process: bool | None = None
    whole_group: bool = False
    candidates: int = 1
    role: VictimRole | None = None
    confidence: Confidence = Confidence.CONFIRMED


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSample:
    """What the container was last seen to use: by its cgroup, or summed over processes as PSS."""

    time: int
    usage_bytes: int
    limit_bytes: int | None = None

    @property
    def at_limit(self) -> bool:
        """Was there hardly any room left?"""
        limit = self.limit_bytes
        return limit is not None and limit > 0 and self.usage_bytes >= AT_LIMIT * limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHit:
    """The cgroup was at its limit: the kernel found no room below that and had to make some.

    `count` is how often, `time` when that was last seen to have risen, `pressure` the share of ten
    seconds in which some process waited for memory then, from 0 to 1.
    """

    time: int
    count: int
    pressure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KillerMark:
    """A userspace OOM killer said that it killed here: `killer` by name, `mark` what it left."""

    killer: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitEvidence:
    """All that is known about one exit. `None` is what nobody said; times are microseconds.

    `exit_code` is the status as the runtime told it, 128 + signal in most; `signal` where it was
    told apart. `ran_on`: processes of its own still ran at its `last_read`. `kills` are all of this
    life, in the order of time. `sandbox_lines` are a gVisor sandbox's own words on its end, and
    `sandbox_out_of_memory` says that it panicked for want of memory. `unwatched_before` is the
    first look, where the container is older than that. `due` are the witnesses that were not heard
    yet.
    """

    exit_time: int
    exit_code: int | None = None
    signal: int | None = None
    stop_requested: bool | None = None
    stop_signal: int | None = None
    runtime_oom_killed: bool | None = None
    last_read: LastRead = LastRead.NONE
    ran_on: bool = False
    kills: tuple[KillOfLife, ...] = ()
    usage: UsageSample | None = None
    limit_hit: LimitHit | None = None
    killer_marks: tuple[KillerMark, ...] = ()
    sandbox: Sandbox | None = None
    sandbox_lines: tuple[str, ...] = ()
    sandbox_out_of_memory: bool = False
    unwatched_before: int | None = None
    due: frozenset[Due] = frozenset()

    # What ended it

    @property
    def ended_by(self) -> int | None:
        """The signal that ended the main process, as far as its status tells; `None` if none did.

        A program may exit with 137 by itself: the status cannot tell the two apart.
        """
        if self.signal:
            return self.signal
        if self.exit_code is not None and 128 < self.exit_code <= 128 + 64:
            return self.exit_code - 128
        return None

    @property
    def sigkill(self) -> bool:
        """Does the status read as SIGKILL, the signal that the kernel's OOM killer sends?"""
        return self.ended_by == _SIGKILL

    @property
    def ended_well(self) -> bool:
        """Did it exit with 0?"""
        return self.exit_code == 0 and not self.signal

    @property
    def stop_obeyed(self) -> bool:
        """Did it end by the signal that it was asked to stop with, or well after it was asked?"""
        if not self.stop_requested:
            return False
        asked = self.stop_signal or int(signal.SIGTERM)
        return self.ended_well or (asked != _SIGKILL and self.ended_by == asked)

    @property
    def suspect(self) -> bool:
        """Did it end as those do that ran out of memory? A gVisor sandbox does so in many ways."""
        if self.sigkill or self.sandbox_out_of_memory:
            return True
        odd = self.exit_code in _SANDBOX_STATUSES and not self.signal
        return self.sandbox is not None and odd

    # Kills, by how near they are and how surely this container's

    @property
    def main_killed(self) -> tuple[KillOfLife, ...]:
        """Kills of the main process that the exit follows from."""
        patience = DYING_MICROSECONDS if self.suspect else NEAR_MICROSECONDS
        return tuple(
            kill
            for kill in self.kills
            if kill.main_process
            and kill.candidates <= 1
            and abs(self.exit_time - kill.time) <= patience
        )

    @property
    def near(self) -> tuple[KillOfLife, ...]:
        """Kills close to the exit that are this container's for certain."""
        return tuple(k for k in self.kills if self._is_near(k) and k.candidates <= 1)

    @property
    def shared_near(self) -> tuple[KillOfLife, ...]:
        """Kills close to the exit that may be another's."""
        return tuple(k for k in self.kills if self._is_near(k) and k.candidates > 1)

    @property
    def any_near(self) -> tuple[KillOfLife, ...]:
        """Both: this container's for certain, and those that may be another's."""
        return (*self.near, *self.shared_near)

    @property
    def unnamed(self) -> tuple[KillOfLife, ...]:
        """Kills close to the exit of which a name may yet tell whose and of whom they were."""
        return tuple(k for k in self.any_near if not k.named and k.main_process is None)

    @property
    def unwritten(self) -> bool:
        """Is there a kill that the verdict may rest on, and that is not written down yet?"""
        return any(k.revision is None for k in self.any_near)

    @property
    def earlier(self) -> tuple[KillOfLife, ...]:
        """Kills in this container that are too old to be why it ended."""
        return tuple(k for k in self.kills if not self._is_near(k) and k.candidates <= 1)

    @property
    def unsettled(self) -> tuple[KillOfLife, ...]:
        """Kills before the exit that the main process may have died of, for all that is known.

        An exit can be told late: a killed process may take long to be gone, a runtime to notice.
        """
        return tuple(
            k
            for k in self.kills
            if k.main_process is None
            and NEAR_MICROSECONDS < self.exit_time - k.time <= DYING_MICROSECONDS
        )

    @property
    def may_be_sandboxs_end(self) -> bool:
        """Did a kill near the exit take one of a gVisor sandbox's processes, nobody knows which?"""
        return self.sandbox is not None and any(
            kill.role is None and kill.main_process is None for kill in self.near
        )

    @property
    def oom_kills(self) -> int:
        """Kills of this life that are this container's for certain, whatever the verdict."""
        return sum(kill.kill_count for kill in self.kills if kill.candidates <= 1)

    @property
    def counters_clean(self) -> bool:
        """Did the kernel's counters say, after the exit, that nothing was killed near it?

        Where a sandbox's processes were never seen, nothing says that they lived where was read.
        """
        if self.sandbox is Sandbox.UNSEEN or self.last_read is LastRead.NONE or self.any_near:
            return False
        first_look = self.unwatched_before
        return first_look is None or self.exit_time - first_look > NEAR_MICROSECONDS

    @property
    def may_be_cleared_or_convicted(self) -> bool:
        """Is a witness due that can show a kill, or that there was none, and would that matter?

        No kill that comes to light makes an OOM of a plain container that exited with 0.
        """
        unheard = bool(self.due & {Due.COUNTERS, Due.PLACE, Due.SANDBOX})
        return unheard and (self.sandbox is not None or not self.ended_well)

    def _is_near(self, kill: KillOfLife) -> bool:
        return abs(self.exit_time - kill.time) <= NEAR_MICROSECONDS

    @property
    def hinted(self) -> bool:
        """Is there a sign, short of a kill, that memory had run out?"""
        hit = self.limit_hit
        return (
            self.sandbox_out_of_memory
            or (self.usage is not None and self.usage.at_limit)
            or (hit is not None and abs(self.exit_time - hit.time) <= NEAR_MICROSECONDS)
        )
