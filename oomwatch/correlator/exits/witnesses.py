"""Everything that bears on one exit, gathered for its verdict."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import Life, LifeKey
from oomwatch.correlator.exits.ends import End
from oomwatch.correlator.exits.kills import KillsTold
from oomwatch.correlator.exits.words import Exit
from oomwatch.events import ContainerExit
from oomwatch.observations import (
    ContainerSeen,
    FindSandbox,
    FollowUsage,
    LimitHits,
    Question,
    SandboxLogRead,
    SandboxSeen,
    SignalledByKiller,
    UsageSampled,
)
from oomwatch.verdict import (
    DYING_MICROSECONDS,
    NEAR_MICROSECONDS,
    Due,
    ExitEvidence,
    KillerMark,
    LastRead,
    LimitHit,
    Sandbox,
    UsageSample,
    VictimRole,
    judge,
)

MAX_SANDBOXES = 4096
MAX_SIGNALLED = 256
"""Processes that userspace OOM killers signalled lately; they kill one at a time."""


_Answer = TypeVar("_Answer")

_NO_SANDBOX = frozenset({"runc", "crun", "youki"})


class ExitWitnesses:
    """Joins what was told of an exit with what is known of its container and of its kills."""

    def __init__(
        self,
        lives: KnownLives,
        kills: KillsTold,
        *,
        exit_revision: Callable[[Life], int | None],
        counted: bool,
    ) -> None:
        self._exit_revision = exit_revision
        self._counted = counted
        self._samples: dict[LifeKey, UsageSample] = {}
        self._limits: dict[int, LimitHit] = {}
        self._lives = lives
        self._kills = kills
        self._blind: tuple[int, int] | None = None
        self._unwatched_until: int | None = None
        self._leapt_then = 0
        self._sandboxes: dict[LifeKey, SandboxSeen] = {}
        self._sandbox_logs: dict[LifeKey, SandboxLogRead] = {}
        self._signalled: deque[SignalledByKiller] = deque(maxlen=MAX_SIGNALLED)

    def began(self, time: int, newest_cgroup_id: int) -> None:
        """Say that the watching began then: what older cgroups had counted is not known."""
        self._blind = (time, newest_cgroup_id)

    def unwatched_until(self, time: int) -> None:
        """Say that nobody watched before this since an earlier oomwatch, whose books go on."""
        self._unwatched_until, self._leapt_then = time, self._kills.leapt

    def seen(self, seen: ContainerSeen) -> list[Question]:
        """Ask what is to be known of a container before it ends."""
        life = self._lives.life(seen.container.id, seen.cgroup_id)
        return self.watched(life) if life is not None else []

    def watched(self, life: Life) -> list[Question]:
        """Ask for a sandbox where the handler may run one; have sampled what has no counter."""
        seen = self.sandbox(life)
        questions: list[Question] = []
        if seen is None or seen.sought:  # by now its pid may be known
            questions += self._find_sandbox(life, life.pid)
        if not self._counted:
            questions += self._sampled(life)
        return questions

    def sought(self, exit_: Exit) -> list[Question]:
        """Ask for the sandbox of what has ended, unless that is known: its pid may be another's."""
        life = exit_.life = self._lives.of_key(exit_.life.key) or exit_.life
        return self._find_sandbox(life, None) if self.sandbox(life) is None else []

    def found(self, seen: SandboxSeen) -> list[Question]:
        """Take in where a sandbox is; what is not visible is sampled, as far as that goes."""
        key = self._key(seen.container_id, seen.cgroup_id)
        for other_key, other in self._sandboxes.items():
            # It was alone when it was found, and is no longer.
            if seen.sentry not in (None, other.sentry) and (
                other.sandbox_cgroup_id == seen.sandbox_cgroup_id is not None
            ):
                self._sandboxes[other_key] = replace(other, alone=False)
        known = self._sandboxes.get(key)
        if known is not None and known.sentry is not None and seen.sentry is None:
            # It was looked for twice, and has ended since the first that found it.
            return []
        self._sandboxes[key] = seen
        if len(self._sandboxes) > MAX_SANDBOXES:
            del self._sandboxes[next(iter(self._sandboxes))]
        unseen = seen.cgroup is None and not seen.sought
        life = self._lives.life(seen.container_id, seen.cgroup_id)
        return self._sampled(life) if unseen else []

    def sandbox_wrote(self, read: SandboxLogRead) -> None:
        """Take in what a sandbox wrote of its end."""
        self._sandbox_logs[self._key(read.container_id, read.cgroup_id)] = read
        if len(self._sandbox_logs) > MAX_SANDBOXES:
            del self._sandbox_logs[next(iter(self._sandbox_logs))]

    def has_sandbox_log(self, life: Life) -> bool:
        """Was it read what a life's sandbox wrote of its end?"""
        return _of(self._sandbox_logs, life) is not None

    def sampled(self, sample: UsageSampled) -> None:
        """Take in what a container used."""
        key = self._key(sample.container_id, sample.cgroup_id)
        self._samples.pop(key, None)
        self._samples[key] = UsageSample(
            time=sample.time, usage_bytes=sample.usage_bytes, limit_bytes=sample.limit_bytes
        )
        if len(self._samples) > MAX_SANDBOXES:
            del self._samples[next(iter(self._samples))]

    def hit_limit(self, cgroup_id: int | None, hits: LimitHits | None) -> None:
        """Take in when a cgroup, that is gone or about to go, was last at its limit."""
        if cgroup_id is None or hits is None or hits.time is None:
            return
        self._limits.pop(cgroup_id, None)
        self._limits[cgroup_id] = LimitHit(time=hits.time, count=hits.count, pressure=hits.pressure)
        if len(self._limits) > MAX_SANDBOXES:
            del self._limits[next(iter(self._limits))]

    def signalled(self, told: SignalledByKiller) -> None:
        """Take in that a userspace OOM killer signalled a process."""
        self._signalled.append(told)

    @staticmethod
    def _find_sandbox(life: Life, pid: int | None) -> list[Question]:
        handler = life.container.handler if life.said else None
        if handler is None or handler in _NO_SANDBOX:
            return []
        return [FindSandbox(life.container_id, life.cgroup_id, handler, pid)]

    @staticmethod
    def _sampled(life: Life | None) -> list[Question]:
        if life is None or life.pid is None:
            return []
        limit = life.memory_limit_bytes
        return [FollowUsage(life.container_id, life.cgroup_id, life.pid, limit)]

    def _key(self, container_id: str, cgroup_id: int | None) -> LifeKey:
        """The life that an answer is about: without a cgroup, the newest was asked about."""
        life = self._lives.life(container_id, cgroup_id)
        return life.key if life is not None else (container_id, cgroup_id or 0)

    def sandbox(self, life: Life) -> SandboxSeen | None:
        """What was found of a life's sandbox; `None` where it has none, or none was looked for."""
        return _of(self._sandboxes, life)

    def seeks_sandbox(self, life: Life) -> bool:
        """Is it still looked for where a life's sandbox is?"""
        seen = self.sandbox(life)
        return seen is not None and seen.sought

    def place(self, life: Life) -> Life:
        """Return a life as the host's kernel sees it: of a sandbox, where its sentry lives."""
        seen = self.sandbox(life)
        if seen is None or seen.cgroup is None:
            return life
        return replace(life, cgroup=seen.cgroup, cgroup_id=seen.sandbox_cgroup_id, pid=seen.sentry)

    def event(self, exit_: Exit, time: int, evidence: ExitEvidence | None = None) -> ContainerExit:
        """Judge an exit by what is known now, which was gathered before if it is given."""
        evidence = evidence or self.evidence(exit_)
        ruling = judge(replace(evidence, due=frozenset(self._due(exit_, evidence))))
        life = exit_.life
        recovered = self.was_unwatched(exit_, evidence.exit_time)
        if exit_.recalled and exit_.told is not None:
            recovered = exit_.told.recovered  # whoever told it watched, or knew that nobody did
        return ContainerExit(
            episode_id=exit_.episode_id,
            detect_time=time,
            verdict=ruling.verdict,
            confidence=ruling.confidence,
            container=exit_.container,
            cgroup=life.cgroup,
            cgroup_id=life.cgroup_id,
            exit_code=evidence.exit_code,
            signal=evidence.signal,
            exit_time=None if recovered and exit_.is_lost else evidence.exit_time,
            stop_requested=evidence.stop_requested,
            recovered=recovered,
            # Thousands of exits are kept, and most are for the same reasons.
            reasons=tuple(map(sys.intern, ruling.reasons)),
            kills=tuple(kill.revision for kill in ruling.kills if kill.revision is not None),
            oom_kills=evidence.oom_kills,
            evidence=exit_.evidence,
        )

    def evidence(self, exit_: Exit) -> ExitEvidence:
        """Gather what is known of an exit now, but for what is due."""
        life = exit_.life = self._lives.of_key(exit_.life.key) or exit_.life
        place = exit_.place = self.place(life)
        seen = self.sandbox(life)
        said, wrote = exit_.said, _of(self._sandbox_logs, life)
        roles = _roles(seen, wrote)
        times = [exit_.said_time]
        if exit_.gone and life.ended_time is not None:
            # A runtime's event comes seconds after the cgroup is gone, and may tell its own time.
            times.append(life.ended_time)
        exit_time = min(times)
        if exit_.is_lost and self.was_unwatched(exit_, exit_time):
            # Nobody knows when it was: where the kernel killed in it meanwhile it may be of that.
            exit_time = self._kills.recovered_in(place) or exit_time
        before, succeeded = self._lives.turns(place)
        ends = [self._exit_revision(other) for other in before]
        sharing = 2 if None in ends else self._sharing(place, seen)
        end = End(
            life=place,
            exit_time=exit_time,
            sharing=sharing,
            others=self._others(place),
            after=max((end for end in ends if end is not None), default=None),
            until=exit_.first_revision if succeeded else None,
            sandboxed=seen is not None,
            roles=roles,
            leapt=exit_.leapt,
            turned_back=self._kills.turned_back,
        )
        return ExitEvidence(
            exit_time=exit_time,
            exit_code=said.exit_code,
            signal=said.signal,
            stop_requested=said.stop_requested,
            stop_signal=said.stop_signal,
            runtime_oom_killed=said.oom_killed,
            last_read=exit_.last_read or LastRead.NONE,
            ran_on=exit_.runs,
            kills=tuple(self._kills.of(end)),
            usage=_of(self._samples, life),
            limit_hit=self._limits.get(place.cgroup_id or 0),
            killer_marks=(*exit_.marks, *self._marks(place, roles, exit_time)),
            sandbox=_sandbox(seen),
            sandbox_lines=wrote.lines if wrote is not None else (),
            sandbox_out_of_memory=wrote is not None and wrote.out_of_memory,
            unwatched_before=self._blindness(life),
        )

    def _due(self, exit_: Exit, evidence: ExitEvidence) -> Iterator[Due]:
        """The witnesses that were not heard yet, and will be: what they say amends the exit."""
        if exit_.settled:
            return
        if self._counted and exit_.last_read is None:
            yield Due.PLACE if exit_.place.cgroup is None else Due.COUNTERS
        if self.seeks_sandbox(exit_.life):
            yield Due.SANDBOX
        if exit_.names_due and evidence.unnamed:
            yield Due.NAMES

    def _marks(
        self, place: Life, roles: dict[int, VictimRole], exit_time: int
    ) -> Iterator[KillerMark]:
        """What userspace OOM killers wrote of the processes whose death is the container's end."""
        for told in self._signalled:
            before = exit_time - told.time
            if -NEAR_MICROSECONDS <= before <= DYING_MICROSECONDS and (
                told.pid == place.pid or told.pid in roles
            ):
                yield KillerMark(killer=told.killer, mark=told.mark)

    def shares_cgroup(self, exit_: Exit) -> bool:
        """Do others live in the cgroup where its counters are read?"""
        return self._sharing(exit_.place, self.sandbox(exit_.life)) > 1

    def _sharing(self, place: Life, seen: SandboxSeen | None) -> int:
        """How many containers live in the cgroup; 2 stands for several."""
        if seen is not None and seen.sentry is not None and not seen.alone:
            return 2
        if place.cgroup_id is None or (seen is not None and seen.sentry is not None):
            return 1
        shared = place.lives_with_others or self._lives.in_cgroup(place.cgroup_id) is None
        return 2 if shared else 1

    def _others(self, place: Life) -> frozenset[int]:
        """The main processes of the others in the cgroup, as far as they were told."""
        if place.cgroup_id is None:
            return frozenset()
        pids = {life.pid for life in self._lives.lives_in(place.cgroup_id)}
        return frozenset(pid for pid in pids if pid not in (None, place.pid))

    def was_unwatched(self, exit_: Exit, time: int) -> bool:
        """Was an exit of this time while nobody watched, or before?

        A clock that was set back since dates what is told then to before its own start; of what
        nobody told how it ended the time is that at which its cgroup was seen to be gone.
        """
        if self._unwatched_until is None:
            return False
        set_back = 0 if exit_.is_lost else max(0, self._leapt_then - exit_.leapt)
        return time + set_back <= self._unwatched_until

    def _blindness(self, life: Life) -> int | None:
        """When a life was first looked at, if it is older than the watching."""
        if self._blind is None:
            return None
        time, newest_cgroup_id = self._blind
        older = life.cgroup_id is None or life.cgroup_id <= newest_cgroup_id
        return time if older else None


def _of(answers: Mapping[LifeKey, _Answer], life: Life) -> _Answer | None:
    """What was learned of a life, also while its cgroup was not known."""
    return answers.get(life.key) or answers.get(life.former_key)


def _sandbox(seen: SandboxSeen | None) -> Sandbox | None:
    if seen is None:
        return None
    if seen.cgroup is None:
        return Sandbox.UNSEEN
    return Sandbox.OWN if seen.alone else Sandbox.SHARED


def _roles(seen: SandboxSeen | None, wrote: SandboxLogRead | None) -> dict[int, VictimRole]:
    """A sandbox's processes: as they were when it was found, and the stubs that it lost since."""
    if seen is None or seen.sentry is None:
        return {}
    return {
        **dict.fromkeys(wrote.stubs if wrote is not None else (), VictimRole.STUB),
        **dict.fromkeys(seen.stubs, VictimRole.STUB),
        **dict.fromkeys(seen.gofers, VictimRole.GOFER),
        seen.sentry: VictimRole.SENTRY,
    }
