"""A log that a syslog daemon writes (kern.log, syslog, messages), followed across rotation.

inotify(7) on the file tells of each write, on its directory of each new name: nothing is polled.
logrotate(8) knows two ways. *rename and create*: the daemon goes on writing to the old file until
it is told, so the old one is followed beside the new one until the next rotation. *copytruncate*:
the file is shorter than what was read of it, and begins anew; what was written between the copy and
the cut is in neither, and its loss is said.

What is in the file is a syslog daemon's word: who may write there may forge (docs/semantics.md).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from inotify_simple import INotify, flags, parse_events

from oomwatch.kernel_log.journal_forms import AnyLineParser
from oomwatch.kernel_log.stamps import LocalZone, Stamps
from oomwatch.kernel_log.text import LineParser
from oomwatch.ledger import LogPlace
from oomwatch.observations import LogRead
from oomwatch.sources.kernel_log.feed import Line, Lost, Take, is_untold
from oomwatch.sources.kernel_log.lines import LineCutter
from oomwatch.watches import open_inotify

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 17
_LONGEST_LINE_SOUGHT = 1 << 14
_NAMES = int(flags.CREATE) | int(flags.MOVED_TO) | int(flags.ONLYDIR)
_DAY = 86_400_000_000
_CUT = "the log was cut short: what came between its copy and the cut cannot be known"
_ROTATED = "the log was rotated while nobody read it, and the file it was in cannot be found"


class _Open:
    """One open file, and how far it was read. `log` names it, by its inode."""

    def __init__(self, path: Path, name: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.log = name_of(name, os.fstat(self.fd))
        self.watch: int | None = None
        self.offset = 0
        self.cutter = LineCutter()

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def seek(self, offset: int) -> None:
        self.offset = offset
        self.cutter = LineCutter(offset)

    def read(self) -> bytes:
        read = os.pread(self.fd, _READ_BYTES, self.offset)
        self.offset += len(read)
        return read

    def last_line(self) -> int:
        """Where the line begins that is being written: a reader begins at no half a line."""
        begin = max(0, self.size - _LONGEST_LINE_SOUGHT)
        return begin + os.pread(self.fd, _LONGEST_LINE_SOUGHT, begin).rfind(b"\n") + 1

    def close(self) -> None:
        os.close(self.fd)


def name_of(path: Path, status: os.stat_result) -> str:
    """What places in a file are of: the path that is followed, and the file that had it."""
    return f"{path} {status.st_dev}:{status.st_ino}"


class TextFile:
    """Follows a file of log lines."""

    def __init__(self, path: Path, parser: LineParser | None = None) -> None:
        """`parser` takes the lines that are meant out of it: the kernel's, where none is given."""
        self._path = path
        self._inotify: INotify | None = None
        self._current: _Open | None = None
        self._previous: _Open | None = None
        self._failed: str | None = None
        self._malformed = self._cuts = 0
        self._parser = parser or AnyLineParser()
        self._parser.stamps = Stamps(zone=LocalZone())
        self._take: Take = lambda _: None

    @property
    def problem(self) -> str | None:
        """Why it is not followed."""
        if self._failed is not None:
            return f"{self._failed}; it is followed again once it is made anew"
        if self._current is None:
            return f"{self._path} is not there, or may not be read: it is followed once it is"
        return None

    @property
    def detail(self) -> str:
        """What is followed."""
        return f"{self._path}, followed; whoever may write there can forge a victim's name"

    @property
    def figures(self) -> Mapping[str, int]:
        """What was counted on the way; `lost` are stretches, since nobody can count their lines."""
        return {"lost": self._cuts, "malformed": self._malformed}

    async def start(self, place: LogPlace | None, take: Take) -> None:
        """Read what was written since `place`, then follow. OSError without inotify."""
        self._take = take
        self._inotify = open_inotify()
        self._inotify.add_watch(str(self._path.parent), _NAMES)
        self._current = self._open()
        if self._current is not None:
            ours = place is not None and place.log.startswith(f"{self._path} ")
            await self._resume(self._current, place if ours else None)
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._wake)

    def beginning(self) -> list[LogRead]:
        """The file's end."""
        file = self._current
        if file is None:
            return []
        return [LogRead(file.log, file.offset, file.offset, None, time.time_ns() // 1000, True)]

    async def stop(self) -> None:
        """Give back the descriptors."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        self._close()

    def _close(self) -> None:
        for file in (self._current, self._previous):
            if file is not None:
                file.close()
        self._current = self._previous = None

    def _open(self) -> _Open | None:
        """Open and watch what has the name now; `None` where nothing has."""
        assert self._inotify is not None
        try:
            file = _Open(self._path, self._path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES):
                return None
            raise
        file.watch = self._inotify.add_watch(str(self._path), int(flags.MODIFY))
        return file

    async def _resume(self, file: _Open, place: LogPlace | None) -> None:
        """Go on from a place in this file or in the one that had its name, or from its end."""
        if place is None:
            # A line that is half there is new: its end is still to come.
            file.seek(file.last_line())
            return
        if place.log != file.log:
            await self._read_rotated(place)
        elif place.next <= file.size:
            file.seek(place.begin)
            await self._catch_up(file, told=lambda at: is_untold(place, at))
            return
        else:
            self._lose(_CUT, place.wall_time)
        await self._catch_up(file, told=lambda _: True)

    async def _catch_up(self, file: _Open, told: Callable[[int], bool]) -> None:
        more = True
        while more:
            more = self._read(file, told, recovered=True)
            await asyncio.sleep(0)

    async def _read_rotated(self, place: LogPlace) -> None:
        """Read to its end the file that had the name when it was read last."""
        for sibling in self._path.parent.glob(f"{self._path.name}?*"):
            with suppress(OSError):
                if name_of(self._path, sibling.stat()) == place.log:
                    file = _Open(sibling, self._path)
                    try:
                        file.seek(place.begin)
                        await self._catch_up(file, told=lambda at: is_untold(place, at))
                    finally:
                        file.close()
                    return
        self._lose(_ROTATED, place.wall_time)

    def _lose(self, reason: str, since: int | None = None) -> None:
        self._cuts += 1
        self._take([Lost(reason, since=since)])

    def _wake(self) -> None:
        assert self._inotify is not None
        try:
            events = list(parse_events(os.read(self._inotify.fileno(), 65536)))
        except BlockingIOError:
            return
        self.read_on()
        # A queue that ran over may have held the name; to look is cheap.
        if any(e.name == self._path.name or e.mask & flags.Q_OVERFLOW for e in events):
            self._follow_the_name()

    def read_on(self) -> None:
        """Read what was written since, also where it was not told of yet."""
        files = [file for file in (self._previous, self._current) if file is not None]
        try:
            more = [self._read(file) for file in files]
        except OSError as error:
            self._failed = f"{self._path} cannot be read any more: {error.strerror}"
            log.error("%s", self._failed)
            self._close()
            return
        if any(more):
            asyncio.get_running_loop().call_soon(self.read_on)

    def _follow_the_name(self) -> None:
        try:
            status = self._path.stat()
        except OSError:
            return
        current = self._current
        if current is not None and name_of(self._path, status) == current.log:
            return
        opened = self._open()
        if opened is None:
            return
        self._failed = None
        if self._previous is not None:
            self._forget(self._previous)
        self._previous, self._current = current, opened
        self.read_on()

    def _forget(self, file: _Open) -> None:
        if self._inotify is not None and file.watch is not None:
            with suppress(OSError):  # it went with its file
                self._inotify.rm_watch(file.watch)
        file.close()

    def _read(
        self, file: _Open, told: Callable[[int], bool] = lambda _: True, *, recovered: bool = False
    ) -> bool:
        """Read a stretch, tell of the lines that begin where `told` says; False at the end."""
        if file.size < file.offset:
            self._lose(_CUT)
            file.seek(0)
        read = file.read()
        cut = file.cutter.malformed
        self._parser.stamps.year = datetime.now().astimezone().year
        now = time.time_ns() // 1000
        lines: list[Line | Lost] = []
        for at, text in file.cutter.cut(read):
            record = self._parser.parse(text, at)
            if record is None:
                continue
            place, log, after = at, file.log, at + len(text)
            if file is self._previous and self._current is not None:
                # A restart begins in the file that has the name now.
                log, place, after = self._current.log, *[self._current.offset] * 2
            # Its numbers are no kernel's: a piece of a line is known by its looks.
            record = replace(record, line=place, sequence=None)
            when = _time(record.wall_time, now)
            told_here = told(at)
            lines.append(Line(record, log, after, when, told=told_here, recovered=recovered))
        self._malformed += file.cutter.malformed - cut
        if lines:
            self._take(lines)
        return bool(read)


def _time(stamp: int | None, now: int) -> int:
    """The line's own date; without one, or with one that cannot be, when it was read."""
    return stamp if stamp is not None and stamp <= now + _DAY else now
