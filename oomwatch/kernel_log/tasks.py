"""The table of tasks in an OOM report (dump_tasks in mm/oom_kill.c): who held how much, then.

    [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
    [    272]     0   272     5396     5259    77824        0             0 victim

Columns come and go with the kernel, so the header says which they are; the name is the rest of the
line after the last number's column. A table can have a row for each process of the node: the
largest are kept, and how many there were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappush, heapreplace

from oomwatch.kernel_log.record import to_text

LARGEST = 10
_MAX_PIDS = 1 << 16
_HEADER = re.compile(rb"\[ *pid *\]((?: +[\w()]+)+) +name\s*\Z")
_ROW_START = re.compile(rb"\[ *\d{1,10}\] +\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row. Sizes are in pages, as the kernel printed them; `None` where there is no column."""

    pid: int
    tgid: int | None = None
    uid: int | None = None
    comm: str
    total_vm_pages: int | None = None
    rss_pages: int | None = None
    swap_entries: int | None = None
    pgtables_bytes: int | None = None
    oom_score_adj: int | None = None


class TaskTable:
    """The table that is being read: its largest tasks by rss, and every pid in it."""

    def __init__(self, columns: tuple[bytes, ...]) -> None:
        self._columns = columns
        self._row = _row(len(columns))
        self._largest: list[tuple[int, int, Task]] = []
        self.pids: set[int] = set()
        self.count = 0

    @classmethod
    def begin(cls, text: bytes) -> TaskTable | None:
        """A table with these columns, if the text is a header."""
        found = _HEADER.match(text.strip())
        return None if found is None else cls(tuple(found[1].split()))

    def add(self, text: bytes) -> bool:
        """Take a row; False for a line that is none."""
        found = self._row.match(text)
        if found is None:
            return False
        pid, *numbers, name = found.groups()
        said = dict(zip(self._columns, (int(number) for number in numbers), strict=True))
        task = Task(
            pid=int(pid),
            tgid=said.get(b"tgid"),
            uid=said.get(b"uid"),
            comm=to_text(name),
            total_vm_pages=said.get(b"total_vm"),
            rss_pages=said.get(b"rss"),
            swap_entries=said.get(b"swapents"),
            pgtables_bytes=said.get(b"pgtables_bytes"),
            oom_score_adj=said.get(b"oom_score_adj"),
        )
        self.count += 1
        if len(self.pids) < _MAX_PIDS:
            self.pids.add(task.pid)
        # Of equals the one that stands first is kept.
        entry = (task.rss_pages or 0, -self.count, task)
        if len(self._largest) < LARGEST:
            heappush(self._largest, entry)
        elif entry > self._largest[0]:
            heapreplace(self._largest, entry)
        return True

    def largest(self) -> tuple[Task, ...]:
        """The largest tasks, the largest first."""
        return tuple(task for _, _, task in sorted(self._largest, reverse=True))


def looks_like_row(text: bytes) -> bool:
    """Whether a line begins as a row does."""
    return _ROW_START.match(text) is not None


@lru_cache(maxsize=32)
def _row(columns: int) -> re.Pattern[bytes]:
    return re.compile(
        rb"\[ *(\d{1,10})\]" + rb" +(-?\d{1,20})" * columns + rb" (.{0,64})", re.DOTALL
    )
