"""The table of tasks in an OOM report (dump_tasks in mm/oom_kill.c): who held how much, then.

    [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
    [    272]     0   272     5396     5259    77824        0             0 victim

Columns come and go with the kernel, so the header says which they are; the name is the rest of the
line after the last number's column. A table can have a row for each process of the node: the
largest are kept, and how many there were.

Sizes are printed in pages, and the log does not say how large a page is. But the kill's line prints
the victim's address space in kilobytes, and its row prints the same in pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import heappush, heapreplace

from oomwatch.events import Task, Victim
from oomwatch.kernel_log.record import to_text

LARGEST = 10
_MAX_PIDS = 1 << 16
_PAGES = (4096, 8192, 16384, 32768, 65536)
"""What a page can be: no architecture has another (arch/*/Kconfig, PAGE_SIZE)."""
_HEADER = re.compile(rb"\[ *pid *\]((?: +[\w()]+)+) +name\s*\Z")
_ROW_START = re.compile(rb"\[ *\d{1,10}\] +\d")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it was printed: a task without its sizes, and its sizes in pages."""

    task: Task
    total_vm: int | None
    rss: int | None
    swap: int | None

    def in_bytes(self, page: int | None) -> Task:
        return replace(
            self.task,
            total_vm_bytes=_times(self.total_vm, page),
            rss_bytes=_times(self.rss, page),
            swap_bytes=_times(self.swap, page),
        )


class TaskTable:
    """The table that is being read: its largest tasks by rss, and every pid in it.

    `pids` gives each one's address space in pages.
    """

    def __init__(self, columns: tuple[bytes, ...]) -> None:
        self._columns = columns
        self._row = _row(len(columns))
        self._largest: list[tuple[int, int, _Row]] = []
        self.pids: dict[int, int | None] = {}
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
            pgtables_bytes=said.get(b"pgtables_bytes"),
            oom_score_adj=said.get(b"oom_score_adj"),
        )
        row = _Row(task, said.get(b"total_vm"), said.get(b"rss"), said.get(b"swapents"))
        self.count += 1
        if len(self.pids) < _MAX_PIDS:
            self.pids[task.pid] = row.total_vm
        # Of equals the one that stands first is kept.
        entry = (row.rss or 0, -self.count, row)
        if len(self._largest) < LARGEST:
            heappush(self._largest, entry)
        elif entry > self._largest[0]:
            heapreplace(self._largest, entry)
        return True

    def largest(self, victim: Victim) -> tuple[Task, ...]:
        """The largest tasks, the largest first, by a page as large as the victim's line says.

        Where that does not say, their sizes are not known.
        """
        page = self._page(victim)
        return tuple(row.in_bytes(page) for _, _, row in sorted(self._largest, reverse=True))

    def _page(self, victim: Victim) -> int | None:
        pages = self.pids.get(victim.pid)
        for page in _PAGES if pages else ():
            if _times(pages, page) == victim.total_vm_bytes:
                return page
        return None


def looks_like_row(text: bytes) -> bool:
    """Whether a line begins as a row does."""
    return _ROW_START.match(text) is not None


@lru_cache(maxsize=32)
def _row(columns: int) -> re.Pattern[bytes]:
    return re.compile(
        rb"\[ *(\d{1,10})\]" + rb" +(-?\d{1,20})" * columns + rb" (.{0,64})", re.DOTALL
    )


def _times(pages: int | None, page: int | None) -> int | None:
    return None if pages is None or page is None else pages * page
