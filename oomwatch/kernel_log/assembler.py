"""From records to kills: joins the lines of each OOM report (oom_kill_process in mm/oom_kill.c).

A report is printed in this order: `invoked oom-killer`, the limit, usage and statistics of the
cgroup, the table of tasks, the summary; then, whatever was printed before, `Killed process`. The
first part is limited to ten in five seconds and may be missing, cut off, or in pieces; other lines
fall between. All that is known of a kill is known when its `Killed process` line is read, so `feed`
gives it then, and no follower waits for an end that may never come.

There is at most one open report for each host and caller. It ends with its kill, with the next
report's beginning, when the kernel says that it kills nobody, at a boot, or when nothing more of it
came for a minute or for many records: what follows is never swallowed. After its kill it is kept
for the other victims of a group (`Tasks in X are going to be killed due to memory.oom.group set`):
those must stand in its table, where it has one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from oomwatch.kernel_log.grammar import (
    GROUP_BEGIN,
    GROUP_END,
    parse_invoked,
    parse_message,
    pasted_kill,
    stats_readings,
)
from oomwatch.kernel_log.kill_record import KillRecord, Word
from oomwatch.kernel_log.messages import (
    Booted,
    Chosen,
    GroupKill,
    Invoked,
    Killed,
    LimitHit,
    NoVictim,
    Reaped,
    Skipped,
    StatsOf,
    Suppressed,
    UsageLine,
)
from oomwatch.kernel_log.record import MAX_RECORD_BYTES, Record, to_text
from oomwatch.kernel_log.report import Report, victim
from oomwatch.kernel_log.summary import BEGIN, continues
from oomwatch.kernel_log.tasks import TaskTable, looks_like_row

_MAX_REPORTS = 64
_MAX_RECORDS_BETWEEN = 50_000
_MAX_SECONDS_BETWEEN = 60.0
_CLOCK_WENT_BACK = 5.0
_RECENT_KILLS = 4096

_PASTED_INTO = (BEGIN, b"Memory cgroup out of memory: Killed", b"Out of memory: Killed")

_Key = tuple[str | None, str | None]


class Assembler:
    """Takes the records of a log in their order; gives each kill as soon as its line is read.

    `suppressed` adds up the reports that the kernel said it did not print; `used` counts the
    records that were part of a report. `waiting` says that a report was begun whose kill has not
    been read, `wants_piece` that a line was begun which the next record may go on with, whatever it
    looks like.
    """

    def __init__(self) -> None:
        self.suppressed = 0
        self.used = 0
        self.waiting = False
        self.wants_piece = False
        self._reports: OrderedDict[_Key, Report] = OrderedDict()
        self._killed_lately: OrderedDict[tuple[str | None, int], None] = OrderedDict()
        self._records = 0
        self._episodes = 0

    def feed(self, record: Record) -> list[KillRecord]:
        """Take the next record; give the kills that it tells of, and those that it leaves without
        a `Killed process` line (`Word.SUMMARY`), which come first.

        Records that the kernel did not write are passed over. Never raises for what is in them.
        """
        if not record.from_kernel:
            return []
        if not record.exact and record.text.startswith(_PASTED_INTO):
            pasted = pasted_kill(record.text)
            if pasted is not None:
                end, begin = pasted
                kills = self.feed(replace(record, text=record.text[:end]))
                return kills + self.feed(replace(record, text=record.text[begin:]))
        self._records += 1
        key = (record.host, record.caller)
        report = self._reports.get(key)
        kills = []
        if report is not None and self._is_stale(report, record):
            kills, report = self._close(key), None
        kills += self._take(key, report, record)
        reports = self._reports.values()
        self.waiting = any(not report.kills for report in reports)
        self.wants_piece = any(report.is_in_pieces() for report in reports)
        return kills

    def oldest_line(self, record: Record) -> int:
        """Return the line where the oldest report begins that may still go on after `record`."""
        begun = [r.first.line for r in self._reports.values() if not self._is_stale(r, record)]
        return min(begun, default=record.line + 1)

    def flush(self) -> list[KillRecord]:
        """End every open report; give the kills that only a summary told of."""
        kills = []
        for key in list(self._reports):
            kills += self._close(key)
        self.waiting = self.wants_piece = False
        return kills

    def _take(self, key: _Key, report: Report | None, record: Record) -> list[KillRecord]:
        text = record.text
        if report is not None and self._is_piece(report, record):
            return self._touch(report, record)
        if text.startswith(b"["):
            return self._task(key, report, record)
        if text.lstrip(b" ").startswith(BEGIN):
            return self._summary(key, report, record)
        if (text == GROUP_BEGIN or text.startswith(GROUP_BEGIN + b"/")) and not (
            text.rstrip().endswith(GROUP_END) or parse_invoked(text, record.comm_bytes)
        ):
            begun = report or Report(record, record, self._records)
            begun.group_piece = text
            self._keep(key, begun)
            return []
        return self._message(key, report, record)

    def _is_piece(self, report: Report, record: Record) -> bool:
        """Whether the record goes on with a line that was printed in pieces; then it is joined."""
        text = record.text
        if report.group_piece is not None:
            joined = report.group_piece + text
            if len(joined) <= MAX_RECORD_BYTES and (
                text.startswith(GROUP_END)
                or (report.group_piece == GROUP_BEGIN and text.startswith(b"/"))
            ):
                report.group_piece = joined
                if joined.endswith(GROUP_END):
                    report.group_piece = None
                    report.group = joined[len(GROUP_BEGIN) : -len(GROUP_END)]
                return True
        if report.kills:
            return False
        if report.stats == () and text.startswith(b"/"):
            report.stats = stats_readings(text)
            return True
        if report.summary is None:
            return False
        # Where the log has sequence numbers it has the flag too.
        if record.sequence is not None and not record.continued:
            return False
        if not continues(report.summary, text, flagged=record.continued):
            return False
        report.summary += text
        return True

    def _task(self, key: _Key, report: Report | None, record: Record) -> list[KillRecord]:
        if report is not None and report.table is not None and looks_like_row(record.text):
            report.table.add(record.text)
            return self._touch(report, record)
        table = TaskTable.begin(record.text) if b"total_vm" in record.text else None
        if table is None:
            return self._message(key, report, record)
        begun = report is None or bool(report.kills) or report.table is not None
        ended, report = self._begin(key, record) if begun else ([], report)
        assert report is not None
        report.table = table
        return ended + self._touch(report, record)

    def _summary(self, key: _Key, report: Report | None, record: Record) -> list[KillRecord]:
        begun = report is None or bool(report.kills) or report.summary is not None
        ended, report = self._begin(key, record) if begun else ([], report)
        assert report is not None
        report.summary, report.summary_record = record.text.lstrip(b" "), record
        return ended + self._touch(report, record)

    def _message(self, key: _Key, report: Report | None, record: Record) -> list[KillRecord]:
        message = parse_message(record.text, record.comm_bytes)
        if message is None:
            return []
        over = report is None or bool(report.kills)
        ended: list[KillRecord] = []
        match message:
            case Killed():
                return self._killed(key, report, message, record)
            case GroupKill(path):
                return self._group(key, report, path, record)
            case Reaped():
                return self._reaped(message, record)
            case Suppressed(count):
                self.suppressed += count
                return []
            case Booted():
                for other in [each for each in self._reports if each[0] == key[0]]:
                    ended += self._close(other)
                return ended
            case Skipped() | NoVictim():
                if not over:
                    del self._reports[key]
                return []
            case Invoked():
                ended, report = self._begin(key, record)
                report.invoker = message.invoker
            case LimitHit():
                if over or report is None or report.limit is not None or report.summary is not None:
                    ended, report = self._begin(key, record)
                report.limit = message
            case UsageLine(usage) if usage.current_bytes is not None:
                if over or report is None or report.usage is not None:
                    ended, report = self._begin(key, record)
                report.usage = usage
            case UsageLine(usage):
                if over or report is None:
                    return []
                report.swap_bytes = usage.swap_bytes
            case StatsOf(readings):
                if over or report is None:
                    ended, report = self._begin(key, record)
                if report.stats is None:
                    report.stats = readings
            case Chosen():
                if over or report is None or report.chosen is not None:
                    ended, report = self._begin(key, record)
                report.chosen = message
        return ended + self._touch(report, record)

    def _killed(
        self, key: _Key, report: Report | None, message: Killed, record: Record
    ) -> list[KillRecord]:
        pid = message.victim.pid
        ended: list[KillRecord] = []
        if report is None or not report.owns(message):
            ended, report = self._begin(key, record)
        repeated = pid in report.kills
        if not report.kills:
            kill = report.first_kill(message, record, self._next_episode())
        else:
            kill = report.further_kill(message, record, repeated)
        if not repeated:
            report.kills.append(pid)
        report.last_kill = kill
        report.group_piece = None
        self._remember(record.host, pid)
        self._touch(report, record)
        return [*ended, kill]

    def _group(
        self, key: _Key, report: Report | None, path: bytes, record: Record
    ) -> list[KillRecord]:
        last = None if report is None else report.last_kill
        if report is not None and last is not None and len(report.kills) > 1:
            # Another group: the kill before this line, which had no report, was its first.
            pid = last.victim.pid
            report.kills = [each for each in report.kills if each != pid]
            begun = Report(last.record, record, self._records, kills=[pid], group=path)
            begun.episode = self._next_episode()
            begun.last_kill = replace(
                last,
                first_line=last.record.line,
                episode=begun.episode,
                headed=False,
                oom_memcg=None,
                task_memcg=None,
                memory=None,
                group=to_text(path),
                repeated=True,
            )
            self._keep(key, begun)
            return [begun.last_kill]
        if report is None:
            _, report = self._begin(key, record)
        report.group = path
        self._touch(report, record)
        if last is None:
            return []
        # The first of the group, of which no more may be printed.
        report.last_kill = replace(last, group=to_text(path), repeated=True)
        return [report.last_kill]

    def _reaped(self, message: Reaped, record: Record) -> list[KillRecord]:
        """Tell a kill whose report was printed and whose line was not, by its reaping.

        Reaping alone proves nothing: a task that was exiting anyway is reaped too.
        """
        if (record.host, message.pid) in self._killed_lately:
            return []
        for key, report in self._reports.items():
            if (
                key[0] == record.host
                and not report.kills
                and report.limit is not None
                and report.summary is None
                and report.table is not None
                and message.pid in report.table.pids
            ):
                told = Killed(True, victim(message.pid, message.comm))
                kill = report.first_kill(told, record, self._next_episode())
                report.kills.append(message.pid)
                report.last_kill = kill = replace(kill, word=Word.REAPED)
                self._remember(record.host, message.pid)
                return [kill]
        return []

    def _close(self, key: _Key) -> list[KillRecord]:
        """End a report; a summary whose kill line never came is told now."""
        report = self._reports.pop(key, None)
        if report is None or report.kills or report.summary_record is None:
            return []
        record = report.summary_record
        summary = report.read_summary(record, None, None)
        if summary is None or summary.pid is None:
            return []
        dead = replace(victim(summary.pid, summary.comm), uid=summary.uid)
        told = Killed(None if summary.global_oom is None else not summary.global_oom, dead)
        self._remember(record.host, summary.pid)
        return [replace(report.first_kill(told, record, self._next_episode()), word=Word.SUMMARY)]

    def _begin(self, key: _Key, record: Record) -> tuple[list[KillRecord], Report]:
        ended = self._close(key)
        report = Report(record, record, self._records)
        self._keep(key, report)
        while len(self._reports) > _MAX_REPORTS:
            ended += self._close(next(iter(self._reports)))
        return ended, report

    def _keep(self, key: _Key, report: Report) -> None:
        self._reports[key] = report
        self._reports.move_to_end(key)

    def _touch(self, report: Report, record: Record) -> list[KillRecord]:
        report.last, report.seen = record, self._records
        self.used += 1
        return []

    def _is_stale(self, report: Report, record: Record) -> bool:
        if self._records - report.seen > _MAX_RECORDS_BETWEEN:
            return True
        now, then = record.kernel_time_seconds, report.last.kernel_time_seconds
        if now is None or then is None:
            if record.wall_time is None or report.last.wall_time is None:
                return False
            now, then = record.wall_time / 1e6, report.last.wall_time / 1e6
        return not -_CLOCK_WENT_BACK <= now - then <= _MAX_SECONDS_BETWEEN

    def _next_episode(self) -> int:
        self._episodes += 1
        return self._episodes

    def _remember(self, host: str | None, pid: int) -> None:
        self._killed_lately[host, pid] = None
        if len(self._killed_lately) > _RECENT_KILLS:
            self._killed_lately.popitem(last=False)
