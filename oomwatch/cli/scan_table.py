"""What a log tells, for people: a line for each kill, or counts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from oomwatch.cli.cgroup_names import CgroupNames
from oomwatch.cli.table import UNKNOWN, Cell, Column, line, whole_table
from oomwatch.cli.terminal import Paint, escape
from oomwatch.cli.times import human_bytes, local_time
from oomwatch.cli.whose import SCOPE_WORDS, scope_word
from oomwatch.events import OomKill, Victim
from oomwatch.kernel_log.episodes import Told

COLUMNS = (
    Column("TIME", 23),
    Column("KILLS", 5, right=True),
    Column("SCOPE", 8),
    Column("LIMIT", 10, right=True),
    Column("RSS", 10, right=True),
    Column("VICTIM", 22),
    Column("LINE", 16),
    Column("CGROUP"),
)

_MOST_NAMES = 100_000
_SHOWN = 20
_HOUR = 3_600
_DAYS_BY_HOUR = 4


class KillTable:
    """Turns what was told into lines of one table."""

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self._names = CgroupNames()

    def header(self) -> str:
        """The line above the first kill."""
        return line([(column.header, self._paint.bold) for column in COLUMNS], COLUMNS)

    def row(self, name: str, told: Told) -> str:
        """One event as one line, whatever its texts hold; `name` is the log's."""
        event = told.event
        limit = None if event.memory is None else event.memory.limit_bytes
        return line(
            [
                (_time(event), None),
                (str(event.kill_count), self._paint.red),
                (scope_word(event), None),
                (human_bytes(limit), None),
                (human_bytes(_rss(event.victims[0])), None),
                (_victims(event.victims), None),
                (escape(f"{name}:{told.kills[0].record.line}"), self._paint.dim),
                (self._place(event), None),
            ],
            COLUMNS,
        )

    def _place(self, event: OomKill) -> str:
        victim, limit = event.victim_cgroup, event.limit_cgroup
        where = UNKNOWN if victim is None else escape(self._names.short(victim))
        if limit is None or limit == victim:
            return where
        return f"{where} (limit of {escape(self._names.short(limit))})"


class Counts:
    """Adds up kills by cgroup, process, scope and hour; memory is bounded by the names kept."""

    def __init__(self) -> None:
        self.events = 0
        self.by_cgroup: Counter[str | None] = Counter()
        self.by_process: Counter[str | None] = Counter()
        self.by_scope: Counter[str] = Counter()
        self.by_hour: Counter[int] = Counter()
        self.by_uptime_hour: Counter[int] = Counter()
        self.without_time = 0
        self.left_out = 0

    def add(self, event: OomKill) -> None:
        """Count an event."""
        kills = event.kill_count or 0
        self.events += 1
        self.by_scope[event.scope.value] += kills
        self._count(self.by_cgroup, event.victim_cgroup, kills)
        for victim in event.victims:
            self._count(self.by_process, victim.comm, 1)
        if event.occur_time is not None:
            self.by_hour[event.occur_time // 1_000_000 // _HOUR] += kills
        elif event.kernel_time_seconds is not None:
            self.by_uptime_hour[int(event.kernel_time_seconds) // _HOUR] += kills
        else:
            self.without_time += kills

    @property
    def kills(self) -> int:
        """All kills."""
        return self.by_scope.total()

    def _count(self, counter: Counter[str | None], name: str | None, kills: int) -> None:
        if name in counter or len(counter) < _MOST_NAMES:
            counter[name] += kills
        else:
            self.left_out += kills

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON values, the most kills first; unknown names are absent."""
        from oomwatch.event_json import time_to_iso

        time = [
            {"from_time": time_to_iso(hour * _HOUR * 1_000_000), "kills": kills}
            for hour, kills in sorted(self.by_hour.items())
        ]
        uptime = [
            {"from_uptime_seconds": hour * _HOUR, "kills": kills}
            for hour, kills in sorted(self.by_uptime_hour.items())
        ]
        return {
            "kind": "summary",
            "events": self.events,
            "kills": self.kills,
            "by_cgroup": _rows(self.by_cgroup, "cgroup"),
            "by_process": _rows(self.by_process, "comm"),
            "by_scope": _rows(self.by_scope, "scope"),
            "by_hour": time + uptime,
        }

    def lines(self, paint: Paint) -> list[str]:
        """The counts as tables, the most kills first."""
        names = CgroupNames()
        count = f"{self.kills} kill{'' if self.kills == 1 else 's'} in {self.events} event"
        lines = [paint.bold(f"{count}{'' if self.events == 1 else 's'}")]
        if not self.events:
            return lines
        lines += _ranking("SCOPE", self.by_scope, lambda name: SCOPE_WORDS.get(name, name), paint)
        lines += _ranking(
            "CGROUP",
            self.by_cgroup,
            lambda name: "not known" if name is None else escape(names.short(name)),
            paint,
        )
        lines += _ranking(
            "PROCESS",
            self.by_process,
            lambda name: "not known" if name is None else escape(name) or '""',
            paint,
        )
        return lines + self._over_time(paint)

    def _over_time(self, paint: Paint) -> list[str]:
        rows: list[tuple[str, int]] = []
        if self.by_hour:
            days = (max(self.by_hour) - min(self.by_hour)) / 24
            cut = 13 if days <= _DAYS_BY_HOUR else 10
            sums: Counter[str] = Counter()
            for hour in sorted(self.by_hour):
                begin = local_time(hour * _HOUR * 1_000_000)[:cut]
                sums[f"{begin}:00" if cut == 13 else begin] += self.by_hour[hour]
            rows += sums.items()
        for hour, kills in sorted(self.by_uptime_hour.items()):
            rows.append((f"boot + {hour} h", kills))
        if self.without_time:
            rows.append(("not known", self.without_time))
        most = max(kills for _, kills in rows)
        return _table(
            "FROM",
            [(f"{name:<16}  {'#' * -(-kills * 40 // most)}", kills) for name, kills in rows],
            paint,
        )


def _rows(counter: Counter[Any], key: str) -> list[dict[str, Any]]:
    return [
        {"kills": kills} if name is None else {key: name, "kills": kills}
        for name, kills in counter.most_common()
    ]


def _ranking(
    title: str, counter: Counter[Any], show: Callable[[Any], str], paint: Paint
) -> list[str]:
    rows = [(show(name), kills) for name, kills in counter.most_common(_SHOWN)]
    rest = len(counter) - len(rows)
    if rest:
        rows.append((f"and {rest} more", counter.total() - sum(kills for _, kills in rows)))
    return _table(title, rows, paint)


def _table(title: str, rows: Sequence[tuple[str, int]], paint: Paint) -> list[str]:
    cells: list[list[Cell]] = [[(str(kills), paint.red), (text, None)] for text, kills in rows]
    return ["", *whole_table(cells, (Column("KILLS", right=True), Column(title)), paint)]


def _time(event: OomKill) -> str:
    if event.occur_time is not None:
        return local_time(event.occur_time)
    if event.kernel_time_seconds is not None:
        return f"[{event.kernel_time_seconds:.6f}]"
    return UNKNOWN


def _rss(victim: Victim) -> int | None:
    parts = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
    said = [part for part in parts if part is not None]
    return sum(said) if said else None


def _victims(victims: Sequence[Victim]) -> str:
    first = victims[0]
    text = f"{escape(first.comm or '')}[{first.pid}]"
    return text if len(victims) == 1 else f"{text} +{len(victims) - 1}"
