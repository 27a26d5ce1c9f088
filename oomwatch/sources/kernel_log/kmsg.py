"""/dev/kmsg (Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c), and what follows from it:

- One record a read; a buffer that is too small consumes it with EINVAL. So: 8 KiB.
- User space can write to it, as any facility but the kernel's. So: priority below 8 only.
- What is overwritten before it is read is gone: EPIPE once, then the oldest record is next. The
  jump in the sequence is the loss, and is told. systemd's journal may still have what was lost.
- Its buffer outlives us, and each record keeps its number. So a restart reads it from the beginning
  and tells what was not told: neither a gap nor a replay. A first start reads it as well, and tells
  nothing of it: a report that is underway is read whole.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.record import Record
from oomwatch.ledger import LogPlace
from oomwatch.observations import LogRead
from oomwatch.sources.kernel_log.clock import (
    Anchor,
    Clocks,
    StampClock,
    begins_suspend,
    date_backlog,
)
from oomwatch.sources.kernel_log.feed import Line, Lost, Take, is_untold
from oomwatch.sources.kernel_log.systemd import Missing

log = logging.getLogger(__name__)

LOG = "kmsg"
"""The log that places are of: the kernel's buffer, whatever device file it is read by."""

_READ_BYTES = 8192
_RECORDS_A_WAKE = 512
_OVERWRITTEN = "the kernel log was overwritten before it could be read"
_OVERWRITTEN_MEANWHILE = "the kernel log was overwritten while nobody read it"


class Kmsg:
    """Follows the kernel's buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._take: Take = lambda _: None
        self._records = KmsgRecords()
        self.problem: str | None = None

    @property
    def detail(self) -> str:
        """What is followed."""
        return f"{self._path}, followed"

    @property
    def figures(self) -> Mapping[str, int]:
        """What was counted on the way."""
        records = self._records
        return {
            "lost": records.lost,
            "malformed": records.malformed,
            "not_the_kernels": records.foreign,
        }

    async def start(self, place: LogPlace | None, take: Take) -> None:
        """Read the buffer, then follow it."""
        self._take = take
        place = place if place is not None and place.log == LOG else None
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_SET)
        backlog: list[Record] = []
        more = True
        while more:
            read, more = self._read(self._fd)
            backlog += read
            await asyncio.sleep(0)
        take(self._records.begin(backlog, place, clocks()))
        asyncio.get_running_loop().add_reader(self._fd, self._wake)

    def beginning(self) -> list[LogRead]:
        """Nothing: only a record says where the log is."""
        return []

    async def stop(self) -> None:
        """Give the descriptor back."""
        self._close()

    def take_missing(self) -> list[Missing]:
        """Return the stretches that were overwritten since the last call."""
        return self._records.take_missing()

    def _close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _wake(self) -> None:
        assert self._fd is not None
        try:
            read, _ = self._read(self._fd)
        except OSError as error:
            self.problem = f"{self._path} failed: {error.strerror}; restart oomwatch to follow it"
            log.error("%s", self.problem)
            self._close()
            return
        self._take(self._records.take(read, clocks()))

    def _read(self, fd: int) -> tuple[list[Record], bool]:
        """Return what is there, up to so many records, and whether there may be more."""
        read: list[Record] = []
        for _ in range(_RECORDS_A_WAKE):
            try:
                raw = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return read, False
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overrun: the next record's sequence says by how much
                if error.errno != errno.EINVAL:
                    raise
                self._records.malformed += 1
                continue
            record = parse_kmsg(raw)
            if record is None or record.sequence is None:
                self._records.malformed += 1
            else:
                read.append(replace(record, line=record.sequence))
        return read, True


class KmsgRecords:
    """Pure: what is lost between records, whose they are, and when they were printed."""

    def __init__(self) -> None:
        self.lost = self.malformed = self.foreign = 0
        self._next: int | None = None
        self._clock = StampClock()
        self._missing: list[Missing] = []

    def begin(
        self, backlog: Sequence[Record], place: LogPlace | None, now: Clocks
    ) -> list[Line | Lost]:
        """Take in what was in the buffer at the start: what is not told yet, and what was lost."""
        anchor = None
        if place is not None:
            self._next = place.next
            if place.stamp is not None and place.wall_time is not None:
                self._clock.anchor = anchor = Anchor(place.stamp, place.wall_time)
        stamps = [(_stamp(record), begins_suspend(record.text)) for record in backlog]
        taken: list[Line | Lost] = []
        for at, time_ in enumerate(date_backlog(stamps, anchor, now)):
            record = backlog[at]
            if at == 0 and place is not None:
                taken += self._lost_meanwhile(record, place)
            elif at > 0 and (place is None or record.line > place.next):
                taken += self._lost_before(record, _OVERWRITTEN, self._clock.anchor)
            self._next = max(self._next or 0, record.line + 1)
            self._clock.anchor = Anchor(stamps[at][0], time_)
            taken += self._line(record, time_, told=is_untold(place, record.line), recovered=True)
        return taken

    def take(self, records: Sequence[Record], now: Clocks) -> list[Line | Lost]:
        """Take in the next records, as soon as they were read."""
        taken: list[Line | Lost] = []
        before = self._clock.anchor
        times = self._clock.read([_stamp(record) for record in records], now)
        for record, time_ in zip(records, times, strict=True):
            taken += self._lost_before(record, _OVERWRITTEN, before)
            before = Anchor(_stamp(record), time_)
            self._next = record.line + 1
            taken += self._line(record, time_)
        return taken

    def take_missing(self) -> list[Missing]:
        """Return the stretches that were overwritten since the last call."""
        missing, self._missing = self._missing, []
        return missing

    def _line(
        self, record: Record, time_: int, *, told: bool = True, recovered: bool = False
    ) -> list[Line]:
        if not record.from_kernel:
            self.foreign += 1
            told = False
        return [Line(record, LOG, record.line + 1, time_, told=told, recovered=recovered)]

    def _lost_meanwhile(self, oldest: Record, place: LogPlace) -> list[Lost]:
        untold = sum(at < oldest.line for at in place.untold)
        count = max(0, oldest.line - place.next) + untold
        return self._lose(count, oldest, _OVERWRITTEN_MEANWHILE, self._clock.anchor)

    def _lost_before(self, record: Record, reason: str, anchor: Anchor | None) -> list[Lost]:
        return self._lose(record.line - self._next if self._next else 0, record, reason, anchor)

    def _lose(self, count: int, until: Record, reason: str, anchor: Anchor | None) -> list[Lost]:
        if count <= 0:
            return []
        self.lost += count
        first = self._next if self._next is not None else until.line - count
        self._missing.append(Missing(anchor, _stamp(until), first, until.line))
        return [Lost(reason, count, anchor.wall if anchor is not None else None)]


def clocks() -> Clocks:
    """Look at the clocks."""
    return Clocks(
        time.time_ns() // 1000,
        time.monotonic_ns() // 1000,
        time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000,
    )


def _stamp(record: Record) -> int:
    return round((record.kernel_time_seconds or 0) * 1_000_000)
