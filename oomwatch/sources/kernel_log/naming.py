"""From lines of the kernel's log to observations: who was killed, what was lost, how far we are."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from oomwatch.cgroup.process import read_process, sees_the_hosts_pids
from oomwatch.events import Victim
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.kill_record import KillRecord, Word
from oomwatch.kernel_log.record import Record, to_text
from oomwatch.observations import EvidenceLost, LogRead, LogSpan, Observation, VictimNamed
from oomwatch.sources.kernel_log.feed import Line, Lost

NOTE_LINES = 256
NOTE_SECONDS = 60
"""How often the place in a log is noted that tells of no kills: each is a commit."""

# A later line tells more of a kill of a moment before.
_NUMBERS_KEPT = 256


class Naming:
    """Joins the lines of reports, and says whom they name."""

    def __init__(self, source: str) -> None:
        self.kills = 0
        self._source = source
        self._assembler = Assembler()
        self._own_pids = sees_the_hosts_pids()
        self._unnoted = self._last_number = 0
        self._numbers: OrderedDict[int, int] = OrderedDict()
        self._noted_at = time.monotonic()
        self._last: Line | None = None

    def take(self, read: Sequence[Line | Lost]) -> list[Observation]:
        """Take in what was read at one wake."""
        observations: list[Observation] = []
        now = time.time_ns() // 1000
        for each in read:
            if isinstance(each, Lost):
                lost = EvidenceLost(self._source, each.reason, now, each.since, each.count)
                observations.append(lost)
                continue
            observations += self._named(each, self._assembler.feed(each.record), now)
            self._last = each
            self._unnoted += 1
        waited = time.monotonic() - self._noted_at >= NOTE_SECONDS
        due = self._unnoted >= NOTE_LINES or (waited and self._unnoted > 0)
        if observations or due:
            observations += self.note(keep=due)
        return observations

    def take_apart(self, lines: Sequence[Line]) -> list[Observation]:
        """Take in a stretch of the log that another log had kept: it is no part of what is open."""
        assembler, now = Assembler(), time.time_ns() // 1000
        return [
            named for line in lines for named in self._named(line, assembler.feed(line.record), now)
        ]

    def note(self, *, keep: bool = True) -> list[LogRead]:
        """Say how far the log was read, if that was not said yet."""
        last = self._last
        if last is None or not self._unnoted:
            return []
        self._unnoted, self._noted_at = 0, time.monotonic()
        begin = min(self._assembler.oldest_line(last.record), last.next)
        stamp = last.record.kernel_time_seconds
        return [
            LogRead(
                last.log,
                begin,
                last.next,
                round(stamp * 1_000_000) if stamp is not None else None,
                last.time,
                keep,
            )
        ]

    def _named(self, line: Line, kills: Sequence[KillRecord], now: int) -> list[VictimNamed]:
        if not line.told:
            return []
        return [self._victim(kill, line, now) for kill in kills if kill.word is Word.KILLED]

    def _victim(self, kill: KillRecord, line: Line, now: int) -> VictimNamed:
        # A kill that is given again, since this line tells more of it, is of an earlier record.
        again = kill.record.line != line.record.line
        self.kills += not again
        # A pid that was killed while nobody watched may be anyone's by now.
        live = self._own_pids and not again and not line.recovered
        process = read_process(kill.victim.pid) if live else None
        return VictimNamed(
            source=self._source,
            sequence=self._number(kill.record, now),
            time=line.time - _microseconds(kill.record, line.record),
            seen_time=now,
            victim=_with_cmdline(kill.victim, process.cmdline if process else ()),
            detail=to_text(line.record.text),
            cgroup=kill.task_memcg or (process.cgroup if process is not None else None),
            printed=kill.task_memcg is not None,
            limit_cgroup=kill.oom_memcg,
            node_wide=kill.memcg is False and kill.headed,
            constraint=kill.constraint,
            invoker=kill.invoker,
            group_kill=True if kill.group is not None else None,
            group_cgroup=kill.group,
            repeated=kill.repeated and not again,
            tasks=kill.tasks,
            task_count=kill.task_count,
            span=LogSpan(line.log, min(kill.first_line, line.record.line), line.record.line),
            recovered=line.recovered,
        )

    def _number(self, record: Record, now: int) -> int:
        """The kernel's own number; where the log has none, the time, which does not come again."""
        if record.sequence is not None:
            return record.sequence
        if record.line not in self._numbers:
            self._last_number = max(self._last_number + 1, now)
            self._numbers[record.line] = self._last_number
            if len(self._numbers) > _NUMBERS_KEPT:
                self._numbers.popitem(last=False)
        return self._numbers[record.line]


def _microseconds(begin: Record, end: Record) -> int:
    """How long after a record another was printed, where both have the kernel's stamp."""
    if begin.kernel_time_seconds is None or end.kernel_time_seconds is None:
        return 0
    return round((end.kernel_time_seconds - begin.kernel_time_seconds) * 1_000_000)


def _with_cmdline(victim: Victim, cmdline: tuple[str, ...]) -> Victim:
    return replace(victim, cmdline=cmdline) if cmdline and not victim.cmdline else victim
