"""systemd's journal as a kernel log, by journalctl(1): it knows every format of its files.

journald reads /dev/kmsg and keeps each record's stamp (_SOURCE_MONOTONIC_TIMESTAMP: the kernel's
own microseconds). `_TRANSPORT=kernel` with facility 0 is the kernel's; user space can not claim it.

The journal is followed by a child, which ends with us. Where it dies it is started again after a
growing pause, from the cursor of the last record. And where the kernel's buffer was overwritten
before it was read, a second use: what was in between is looked up once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, replace

from oomwatch.kernel_log.journal_forms import AnyLineParser
from oomwatch.kernel_log.record import Record
from oomwatch.kernel_log.text import LineParser
from oomwatch.ledger import LogPlace
from oomwatch.observations import LogRead
from oomwatch.sources.kernel_log.clock import Anchor
from oomwatch.sources.kernel_log.feed import Line, Take, is_untold
from oomwatch.sources.kernel_log.lines import LineCutter

log = logging.getLogger(__name__)

LOG = "systemd journal"

# What a value holds is escaped, so that this is no part of a message.
_CURSOR = re.compile(rb'"__CURSOR"\s*:\s*"([^"\\]{1,512})"')
_COMMAND = ("journalctl", "--quiet", "--no-pager")
_KERNEL = ("--dmesg", "--output=json")
_READ_BYTES = 65536
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_END_SECONDS = 5.0
_NEWEST_SECONDS = 10.0
_MOST_BYTES = 256 << 20
_LEEWAY_SECONDS = 60
# journald reads the same buffer, and may be a moment behind us.
_JOURNALD_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Missing:
    """What the kernel's buffer has lost: the records `first` to `end` (not included).

    They were printed after the record of `after` (`None`: since the boot) and before the stamp
    `before`, in microseconds.
    """

    after: Anchor | None
    before: int
    first: int
    end: int


class SystemdJournal:
    """Follows the kernel's records in systemd's journal; a place is the kernel's stamp in µs."""

    def __init__(self, select: tuple[str, ...] = _KERNEL, parser: LineParser | None = None) -> None:
        """`select` are journalctl's options for other records, `parser` reads what it prints."""
        self._select = select
        self._child: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._take: Take = lambda _: None
        self._place: LogPlace | None = None
        self._started = 0
        self._cursor: bytes | None = None
        self._restarts = self._malformed = 0
        self._parser = parser or AnyLineParser()
        self.problem: str | None = None

    @property
    def detail(self) -> str:
        """What is followed."""
        return "systemd's journal, followed by journalctl"

    @property
    def figures(self) -> Mapping[str, int]:
        """How often journalctl had to be started again, and what it wrote that was no line."""
        return {"restarts": self._restarts, "malformed": self._malformed}

    async def start(self, place: LogPlace | None, take: Take) -> None:
        """Read what was written since `place`, then follow."""
        self._take = take
        self._place = place if place is not None and place.log == LOG else None
        self._started = time.time_ns() // 1000
        if self._place is None and self._select == _KERNEL:
            # Old, and told never; but where it is says where the log is. A daemon that is killed
            # before the first line that it reads would else begin anew behind what it missed.
            take([self._line(record) for record in await _newest()])
        await self._spawn()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def beginning(self) -> list[LogRead]:
        """Nothing: only a record says where the log is."""
        return []

    async def stop(self) -> None:
        """End the child."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._child is not None:
            await _end(self._child)
            self._child = None

    async def _spawn(self) -> None:
        place = self._place
        # Not "from now on": journalctl takes a moment to begin, and what comes meanwhile is new.
        since = f"--since=@{self._started // 1_000_000}"
        if self._cursor is not None:
            since = f"--after-cursor={os.fsdecode(self._cursor)}"
        elif place is not None and place.wall_time is not None:
            since = f"--since=@{place.wall_time // 1_000_000 - _LEEWAY_SECONDS}"
        try:
            self._child = await _run(*self._select, "--follow", "--no-tail", since)
            self.problem = None
        except OSError as error:
            self.problem = (
                f"journalctl cannot be run ({error.strerror}): install it, or name a file with "
                "--kernel-log"
            )

    async def _follow(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if self._child is not None:
                if await self._read(self._child):
                    pause = _FIRST_PAUSE_SECONDS
                status = await self._child.wait()
                self._child = None
                self.problem = f"journalctl ended with status {status}: it is started again"
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self._restarts += 1
            await self._spawn()

    async def _read(self, child: Process) -> bool:
        """Read until it ends; did it tell anything?"""
        assert child.stdout is not None
        cutter = LineCutter()
        any_read = False
        while read := await child.stdout.read(_READ_BYTES):
            lines = []
            for _, text in cutter.cut(read):
                found = _CURSOR.search(text)
                self._cursor = found[1] if found is not None else self._cursor
                record = self._parser.parse(text)
                if record is not None:
                    lines.append(self._line(record))
            any_read = any_read or bool(lines)
            if lines:
                self._take(lines)
        self._malformed += cutter.malformed
        return any_read

    def _line(self, record: Record) -> Line:
        now = time.time_ns() // 1000
        at = round((record.kernel_time_seconds or 0) * 1_000_000)
        wall = record.wall_time if record.wall_time is not None else now
        place = self._place
        return Line(
            replace(record, line=at),
            LOG,
            at + 1,
            min(wall, now),
            told=is_untold(place, at) if place is not None else wall >= self._started,
            recovered=place is not None and wall < self._started,
        )


async def _newest() -> list[Record]:
    """The newest of the kernel's records of this boot, where the journal has any."""
    try:
        child = await _run(*_KERNEL, "--lines=1", "SYSLOG_FACILITY=0")
    except OSError:
        return []
    text = b""
    try:
        async with asyncio.timeout(_NEWEST_SECONDS):
            text, _ = await child.communicate()
    except TimeoutError:
        log.warning(
            "journalctl does not answer: if oomwatch is killed before the kernel's next record, "
            "its next start names nobody who was killed until then"
        )
    finally:
        await _end(child)
    record = AnyLineParser().parse(text.strip())
    return [] if record is None or record.kernel_time_seconds is None else [record]


async def read_missing(missing: Missing) -> list[Line]:
    """Return the records that systemd's journal has of a stretch; none where there is no journal.

    Their places are counted on from the first: right where the journal has them all.
    """
    await asyncio.sleep(_JOURNALD_SECONDS)
    after = missing.after
    since = "--boot"
    if after is not None:
        since = f"--since=@{after.wall // 1_000_000 - _LEEWAY_SECONDS}"
    try:
        child = await _run(*_KERNEL, since)
    except OSError:
        return []
    assert child.stdout is not None
    parser, cutter = AnyLineParser(), LineCutter()
    lines: list[Line] = []
    total = 0
    try:
        while (read := await child.stdout.read(_READ_BYTES)) and total < _MOST_BYTES:
            total += len(read)
            for _, text in cutter.cut(read):
                record = parser.parse(text)
                if record is None or record.kernel_time_seconds is None:
                    continue
                stamp = round(record.kernel_time_seconds * 1_000_000)
                at = missing.first + len(lines)
                if (after is not None and stamp <= after.stamp) or record.wall_time is None:
                    continue
                if stamp >= missing.before or at >= missing.end:
                    return lines
                record = replace(record, line=at)
                lines.append(Line(record, "kmsg", at + 1, record.wall_time or 0, recovered=True))
    finally:
        await _end(child)
    return lines


async def _run(*options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *_COMMAND,
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _end(child: Process) -> None:
    """End a child, whether it wants to or not."""
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await child.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
