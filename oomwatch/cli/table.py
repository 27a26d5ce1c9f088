"""Events and cgroups as lines of aligned columns.

The columns before the last are narrow and of a fixed least width, because `tail` prints a line
before it knows the next one; the last column, the cgroup, is as long as it has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from oomwatch.cli.cgroup_names import CgroupNames
from oomwatch.cli.terminal import Paint, escape, pad, width
from oomwatch.cli.times import human_bytes, human_duration, local_time
from oomwatch.cli.whose import label, scope_word
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    EvidenceGap,
    MemoryPressure,
    OomKill,
    Victim,
)
from oomwatch.status import CgroupReport

UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's header and its least width; numbers are aligned right."""

    header: str
    width: int = 0
    right: bool = False


EVENT_COLUMNS = (
    Column("TIME", 23),
    Column("REVISION", 8, right=True),
    Column("KILLS", 5, right=True),
    Column("SCOPE", 8),
    Column("LIMIT", 10, right=True),
    Column("PEAK", 10, right=True),
    Column("CONFIDENCE", 10),
    Column("VICTIM", 20),
    Column("CGROUP"),
)

CGROUP_COLUMNS = (
    Column("KILLS", right=True),
    Column("BELOW", right=True),
    Column("LIMIT", right=True),
    Column("PEAK", right=True),
    Column("CURRENT", right=True),
    Column("WITNESSES"),
    Column("CGROUP"),
)

Cell = tuple[str, Callable[[str], str] | None]
"""A cell's escaped text, and the colour to put it in."""


class EventTable:
    """Turns entries of a journal into lines of one table."""

    def __init__(self, paint: Paint, names: CgroupNames | None = None) -> None:
        self._paint = paint
        self._names = names or CgroupNames()

    def header(self) -> str:
        """The line above the first event."""
        return self._line([(column.header, self._paint.bold) for column in EVENT_COLUMNS])

    def row(self, entry: Entry) -> str:
        """One event as one line, whatever its texts hold."""
        event = entry.event
        kills, scope, limit, peak, victim = UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
        match event:
            case OomKill():
                kills = UNKNOWN if event.kill_count is None else str(event.kill_count)
                scope = scope_word(event)
                if event.memory is not None:
                    limit = human_bytes(event.memory.limit_bytes)
                    peak = human_bytes(event.memory.peak_bytes)
                victim = _victims(event.victims)
                where = self._kill_place(event)
            case ContainerExit():
                where = self._exit(event)
            case MemoryPressure():
                if event.memory is not None:
                    limit = human_bytes(event.memory.limit_bytes)
                    peak = human_bytes(event.memory.peak_bytes)
                where = self._pressure(event)
            case EvidenceGap():
                where = self._gap(event)
            case _:
                assert_never(event)
        if event.amends is not None:
            where += f" (adds to revision {event.amends})"
        if event.recovered:
            where += " (while nobody watched)"
        paint = self._paint
        return self._line(
            [
                (local_time(event.detect_time), None),
                (str(entry.revision), paint.dim),
                (kills, paint.red),
                (scope, None),
                (limit, None),
                (peak, None),
                (event.confidence.value, self._confidence_colour(event.confidence)),
                (victim, None),
                (where, paint.yellow if isinstance(event, EvidenceGap) else None),
            ]
        )

    def _line(self, cells: Sequence[Cell]) -> str:
        return line(cells, EVENT_COLUMNS)

    def _confidence_colour(self, confidence: Confidence) -> Callable[[str], str] | None:
        return None if confidence is Confidence.CONFIRMED else self._paint.yellow

    def _path(self, path: str) -> str:
        return escape(self._names.short(path))

    def _kill_place(self, event: OomKill) -> str:
        if event.victim_cgroup is None:
            path = event.survivor_cgroup or "/"
            where = f"below {self._path(path)} ({candidates(event)})"
        else:
            path = event.victim_cgroup
            where = self._path(path)
            limit = event.limit_cgroup
            if limit is not None and limit != event.victim_cgroup:
                where += f" (limit of {self._path(limit)})"
        return self._with_container(where, path, event.container)

    def _with_container(self, where: str, path: str, container: Container | None) -> str:
        return where + _whose(container, path, self._names)

    def _exit(self, event: ContainerExit) -> str:
        if event.exit_code is not None:
            how = f"exited with {event.exit_code}"
        elif event.signal is not None:
            how = f"ended by signal {event.signal}"
        else:
            how = "ended"
        path = event.cgroup
        where = self._path(path) if path is not None else "a container"
        verdict = event.verdict.value.replace("_", " ")
        return f"{self._with_container(where, path or '', event.container)} {how}: {verdict}"

    def _pressure(self, event: MemoryPressure) -> str:
        stall = human_duration(event.stall_microseconds)
        window = human_duration(event.window_microseconds)
        where = self._with_container(self._path(event.cgroup), event.cgroup, event.container)
        return f"{where} stalled on memory for {stall} of {window} ({event.level.value})"

    def _gap(self, event: EvidenceGap) -> str:
        where = "" if event.cgroup is None else f" below {self._path(event.cgroup)}"
        lost = "" if event.lost_count is None else f" ({event.lost_count} lost)"
        return f"gap{where}: {escape(event.source)}: {self._path(event.reason)}{lost}"


def _whose(container: Container | None, path: str, names: CgroupNames) -> str:
    """Who a cgroup is, to follow its path: by its id where it has no name and the path lacks it."""
    if container is None:
        return ""
    whose = label(container)
    if not whose and container.id not in path:
        whose = escape(names.short(container.id))
    return f" [{whose}]" if whose else ""


def candidates(event: OomKill) -> str:
    """How many cgroups an unattributed kill may have happened in, in words."""
    count = len(event.candidates) + (event.candidates_omitted or 0)
    if count == 0:
        return "no candidate: it came and went unseen"
    return f"{count} candidate{'' if count == 1 else 's'}"


def _victims(victims: Sequence[Victim]) -> str:
    if not victims:
        return UNKNOWN
    first = victims[0]
    text = f"{escape(first.comm)}[{first.pid}]" if first.comm is not None else f"[{first.pid}]"
    return text if len(victims) == 1 else f"{text} +{len(victims) - 1}"


def line(cells: Sequence[Cell], columns: Sequence[Column]) -> str:
    """Join cells to a line, each padded to its column; colours take no room."""
    parts: list[str] = []
    for number, ((text, colour), column) in enumerate(zip(cells, columns, strict=True)):
        last = number == len(columns) - 1
        padded = pad(text, 0 if last else column.width, right=column.right)
        parts.append(padded.replace(text, colour(text), 1) if colour is not None else padded)
    return "  ".join(parts)


def cgroup_table(reports: Sequence[CgroupReport], paint: Paint) -> list[str]:
    """The lines of `oomwatch list`: a header, and one line for each cgroup."""
    names = CgroupNames()
    rows: list[list[Cell]] = []
    for report in reports:
        memory = report.memory
        where = escape(names.short(report.path)) + _whose(report.container, report.path, names)
        kills = UNKNOWN if report.kills is None else str(report.kills)
        rows.append(
            [
                (kills, paint.red if report.kills else None),
                (UNKNOWN if report.kills_below is None else str(report.kills_below), None),
                (human_bytes(memory.limit_bytes if memory else None), None),
                (human_bytes(memory.peak_bytes if memory else None), None),
                (human_bytes(memory.current_bytes if memory else None), None),
                (escape(", ".join(w.name for w in report.witnesses if w.active)) or UNKNOWN, None),
                (where, None),
            ]
        )
    return whole_table(rows, CGROUP_COLUMNS, paint)


def whole_table(
    rows: Sequence[Sequence[Cell]], columns: Sequence[Column], paint: Paint
) -> list[str]:
    """Lines of a table that is known as a whole: each column as wide as its widest cell."""
    fitted = [
        Column(
            column.header,
            max([width(column.header), *(width(row[n][0]) for row in rows)]),
            column.right,
        )
        for n, column in enumerate(columns)
    ]
    header = line([(column.header, paint.bold) for column in columns], fitted)
    return [header, *(line(row, fitted) for row in rows)]
