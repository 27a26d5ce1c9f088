"""From kills to events: one for each episode and victim's cgroup, victims told once.

For a log that is read at rest. A group kill prints its first victim twice, once before and once
after `Tasks in X are going to be killed`; where that line was filtered out of the log, the same pid
coming back without a report of its own says as much. So the kills since the last report are held
back until the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from oomwatch.events import Confidence, Evidence, OomKill, Scope
from oomwatch.kernel_log.kill_record import KillRecord, Word

_LONGEST_RUN = 4096
_MAX_HOSTS = 256
_SECONDS_BETWEEN = 10.0
SOURCE = "kernel_log"


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and the kills in the log that it tells, one for each of its victims."""

    event: OomKill
    kills: tuple[KillRecord, ...]


class Episodes:
    """Takes kills in the log's order. `name` is what evidence calls the log; `detect_time` is when
    it was read, in microseconds since the Unix epoch.
    """

    def __init__(self, name: str, detect_time: int) -> None:
        self._name = name
        self._detect_time = detect_time
        self._runs: dict[str | None, list[list[KillRecord]]] = {}

    def add(self, kill: KillRecord) -> list[Told]:
        """Take the next kill; give the events that are complete by now."""
        host = kill.record.host
        run = self._runs.setdefault(host, [])
        told: list[Told] = []
        if run and run[-1][-1].episode == kill.episode:
            run[-1].append(kill)
        elif run and not kill.headed and not _long_after(run[-1][-1], kill):
            self._follow(run, kill)
        else:
            told = self._tell(run)
            run[:] = [[kill]]
        if sum(map(len, run)) > _LONGEST_RUN:
            told += self._tell(run[:-1])
            run[:-1] = []
        while len(self._runs) > _MAX_HOSTS:
            told += self._tell(self._runs.pop(next(iter(self._runs))))
        return told

    def flush(self) -> list[Told]:
        """Give the events that are still held back."""
        told = [each for run in self._runs.values() for each in self._tell(run)]
        self._runs.clear()
        return told

    def _follow(self, run: list[list[KillRecord]], kill: KillRecord) -> None:
        """A kill without a report of its own: is it of an episode that is held back?"""
        pid = kill.victim.pid
        if kill.repeated:
            # It turned out to be the first of another group.
            run[-1][:] = [each for each in run[-1] if each.victim.pid != pid]
            if not run[-1]:
                run.pop()
            run.append([kill])
            return
        for number, episode in enumerate(run):
            if episode[0].victim.pid == pid and episode[0].word is Word.KILLED:
                merged = [each for later in run[number:] for each in later]
                run[number:] = [[*merged, kill]]
                return
        run.append([kill])

    def _tell(self, run: Sequence[Sequence[KillRecord]]) -> list[Told]:
        return [told for episode in run for told in self._events(episode)]

    def _events(self, kills: Sequence[KillRecord]) -> list[Told]:
        first = kills[0]
        group = len(kills) > 1 or any(kill.group is not None for kill in kills)
        by_cgroup: dict[str | None, dict[int, KillRecord]] = {}
        named: set[int] = set()
        for kill in kills:
            if kill.victim.pid not in named:
                named.add(kill.victim.pid)
                by_cgroup.setdefault(kill.task_memcg, {})[kill.victim.pid] = kill
        place = f"{self._name}\0{first.record.host}\0{first.record.line}\0{first.record.sequence}"
        episode_id = sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return [
            Told(self._event(episode_id, cgroup, dead, first, group), dead)
            for cgroup, dead in (
                (cgroup, tuple(dead.values())) for cgroup, dead in by_cgroup.items()
            )
        ]

    def _event(
        self,
        episode_id: str,
        cgroup: str | None,
        dead: tuple[KillRecord, ...],
        first: KillRecord,
        group: bool,
    ) -> OomKill:
        kill = dead[0]
        return OomKill(
            episode_id=episode_id,
            detect_time=self._detect_time,
            scope=_scope(first.memcg, first.oom_memcg, cgroup),
            confidence=(
                Confidence.CONFIRMED
                if any(each.word is Word.KILLED for each in dead)
                else Confidence.HIGH
            ),
            kill_count=len(dead),
            occur_time=kill.record.wall_time,
            kernel_time_seconds=kill.record.kernel_time_seconds,
            victim_cgroup=cgroup,
            limit_cgroup=first.oom_memcg,
            group_kill=True if group else None,
            constraint=first.constraint,
            victims=tuple(each.victim for each in dead),
            invoker=kill.invoker,
            memory=first.memory,
            tasks=kill.tasks,
            task_count=kill.task_count,
            evidence=tuple(self._evidence(each) for each in dead),
        )

    def _evidence(self, kill: KillRecord) -> Evidence:
        record = kill.record
        comm = "" if kill.victim.comm is None else f" ({kill.victim.comm})"
        what = {
            Word.KILLED: f"Killed process {kill.victim.pid}{comm}",
            Word.SUMMARY: f"oom-kill summary of pid {kill.victim.pid}{comm}, no kill line",
            Word.REAPED: f"oom_reaper reaped process {kill.victim.pid}{comm}, no kill line",
        }[kill.word]
        if kill.first_line != record.line:
            what += f", report from line {kill.first_line}"
        return Evidence(
            source=SOURCE,
            time=self._detect_time if record.wall_time is None else record.wall_time,
            detail=f"{self._name}:{record.line}: {what}",
        )


def _scope(memcg: bool | None, limit: str | None, victim: str | None) -> Scope:
    if memcg is False:
        return Scope.NODE
    if limit is None or victim is None:
        return Scope.UNKNOWN
    return Scope.CONTAINER_LIMIT if limit == victim else Scope.ANCESTOR_LIMIT


def _long_after(before: KillRecord, kill: KillRecord) -> bool:
    then, now = before.record.kernel_time_seconds, kill.record.kernel_time_seconds
    if then is None or now is None:
        if before.record.wall_time is None or kill.record.wall_time is None:
            return False
        then, now = before.record.wall_time / 1e6, kill.record.wall_time / 1e6
    return not 0 <= now - then <= _SECONDS_BETWEEN
