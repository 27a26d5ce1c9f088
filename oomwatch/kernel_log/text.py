"""Lines of text logs: dmesg, journalctl, syslog files, container logs, and pastes of them.

A line is a kernel's message behind prefixes that loggers put there, each at its place: a quote or a
container runtime's stamp, a syslog's priority, a date, a host and `kernel:`, the kernel's uptime,
the caller. They are taken off from the front, each once and in that order, so that text from a
process's name further on is never taken for one of them. A line whose tag is not `kernel`, or whose
facility is not 0, is another program's and gives no record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.record import MAX_RECORD_BYTES, Record
from oomwatch.kernel_log.stamps import Stamps, month_number

_QUOTE = re.compile(rb"(?:[>|*][ \t]*)+")
_KUBECTL_PREFIX = re.compile(rb"\[pod/[^\]\s]{1,600}\] ")
_COMPOSE_PREFIX = re.compile(rb"[\w.-]{1,100} +\| ")
_CRI = re.compile(rb" (?:stdout|stderr) [FP] ")
_PRIORITY = re.compile(rb"<(\d{1,3})>(1 (?=\d{4}-))?")
_DECODED = re.compile(rb"([a-z][a-z0-9]{2,9}) *:([a-z]{3,7}) *: ")

_CLOCK = rb"(\d\d:\d\d:\d\d)"
_ISO = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[T ]" + _CLOCK + rb"(?:([.,])(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?"
)
_FULL = re.compile(
    rb"[^\W\d]{2,6}\.? (\d{4})-(\d\d)-(\d\d) "
    + _CLOCK
    + rb"(?:\.(\d{1,9}))? ([A-Z]{2,5}|[+-]\d\d(?::?\d\d)?)(?= )"
)
_SYSLOG = re.compile(
    rb"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (?:(\d{4}) )?" + _CLOCK + rb"(?:\.(\d{1,9}))?(?= )"
)
_LOGREAD = re.compile(
    rb"[A-Z][a-z]{2} ([A-Z][a-z]{2}) {1,2}(\d{1,2}) " + _CLOCK + rb" (\d{4})(?= )"
)
_UNIX = re.compile(rb"(\d{9,10})\.(\d{6})(?= )")
_DATE = re.compile(
    rb"\[[^\]\d]{1,20} ([^\]\s]{1,12}) {1,2}(\d{1,2}) " + _CLOCK + rb" (\d{4})(?: *<[^>\]]*>)?\] ?"
)
_UPTIME = re.compile(rb"\[ *(\d{1,12}\.\d{1,9})(?: *<[^>\]]*>)?\](?: ?\[ *([TC]\d{1,10})\])? ?")
_ELAPSED = re.compile(rb"\[(?:[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d| *\+\d+\.\d+)\] ?")

_TAG = re.compile(
    rb" ?(?:([^\s:]{1,255}) )?(?:[a-z0-9]{3,9}\.[a-z]{3,7} )?kernel(?:\[\d{1,10}\])?: ?"
)
_OTHER_TAG = re.compile(
    rb" (?:\S{1,255} )?(?:[a-z0-9]{3,9}\.[a-z]{3,7} )?[^\s:\[\]()]{1,128}(?:\[\d{1,10}\])?: "
)
_RFC5424 = re.compile(
    rb" (\S{1,255}) kernel \S{1,128} \S{1,32} (?:-|(?:\[[^\]]{0,1024}\])+) ?(?:\xef\xbb\xbf)?"
)
_BARE_TAG = re.compile(rb"(?:([^\s:\[\]]{1,255}) )?kernel(?:\[\d{1,10}\])?: ?")


class _Stamp(NamedTuple):
    end: int
    wall_time: int | None
    # Written by dmesg itself: the message follows at once, without a host or a tag.
    bare: bool = False


class LineParser:
    """Reads lines, one at a time; `stamps` says what to do about what their dates leave out."""

    pending = False
    """No record takes more than a line."""

    def __init__(self, stamps: Stamps | None = None) -> None:
        self.stamps = stamps or Stamps()

    def parse(self, line: bytes, number: int = 0) -> Record | None:
        """Give the kernel's record in a line, or `None` if the line is another's, or empty.

        `line` may end in a line break of any system. What is not UTF-8 is kept as it is.
        """
        line = line[:MAX_RECORD_BYTES].rstrip(b"\r\n\0")
        if line[:1].isdigit():
            record = parse_kmsg(line, line=number)
            if record is not None:
                return record
        line = line.lstrip(b" \t")
        for wrapping in (_QUOTE, _KUBECTL_PREFIX, _COMPOSE_PREFIX):
            found = wrapping.match(line)
            if found is not None:
                line = line[found.end() :]
        if not line:
            return None
        return self._syslog(line, number)

    def _syslog(self, line: bytes, number: int) -> Record | None:
        at = 0
        priority: int | None = None
        wall_time: int | None = None
        host: bytes | None = None
        found = _PRIORITY.match(line)
        rfc5424 = False
        if found is not None:
            at, priority, rfc5424 = found.end(), int(found[1]), found[2] is not None
            if priority >= 8:
                return None
        decoded = _DECODED.match(line, at)
        if decoded is not None:
            if decoded[1] != b"kern":
                return None
            at = decoded.end()
        stamp = self._stamp(line, at)
        if stamp is not None and _CRI.match(line, stamp.end) is not None:
            # A container runtime's own stamp: what the container wrote comes after it.
            wall_time = stamp.wall_time
            at = stamp.end + len(b" stdout F ")
            stamp = self._stamp(line, at)
        if stamp is not None:
            at = stamp.end
            wall_time = wall_time if stamp.wall_time is None else stamp.wall_time
            tag = (_RFC5424 if rfc5424 else _TAG).match(line, at)
            if stamp.bare:
                at += line[at : at + 1] == b" "
            elif tag is not None:
                at, host = tag.end(), tag[1]
            elif rfc5424 or _OTHER_TAG.match(line, at) is not None:
                return None
            else:
                at += line[at : at + 1] == b" "
        uptime = _UPTIME.match(line, at)
        elapsed = None if uptime is not None else _DATE.match(line, at) or _ELAPSED.match(line, at)
        caller = None
        if uptime is not None:
            at = uptime.end()
            caller = None if uptime[2] is None else uptime[2].decode()
        elif elapsed is not None:
            at = elapsed.end()
            if elapsed.re is _DATE:
                wall_time = self._date(elapsed)
        if host is None and (stamp is None or stamp.bare):
            tag = _BARE_TAG.match(line, at)
            if tag is not None:
                at, host = tag.end(), tag[1]
        text = line[at:]
        if uptime is None and elapsed is None and stamp is None:
            text = text.lstrip(b" \t")
        return Record(
            text=text,
            kernel_time_seconds=None if uptime is None else float(uptime[1]),
            wall_time=wall_time,
            host=None if host is None else host.decode("utf-8", "replace"),
            caller=caller,
            priority=priority,
            line=number,
        )

    def _stamp(self, line: bytes, at: int) -> _Stamp | None:
        first = line[at : at + 1]
        if first.isdigit():
            readers: tuple[Callable[[bytes, int], _Stamp | None], ...] = (self._iso, self._unix)
        elif first.isalpha() or first >= b"\x80":
            readers = (self._short, self._full, self._logread)
        else:
            return None
        for read in readers:
            stamp = read(line, at)
            if stamp is not None:
                return stamp
        return None

    def _iso(self, line: bytes, at: int) -> _Stamp | None:
        found = _ISO.match(line, at)
        if found is None:
            return None
        year, month, day, clock, point, fraction, zone = found.groups(b"")
        time = self.stamps.wall_time(int(year), int(month), int(day), clock, fraction, zone)
        return _Stamp(found.end(), time, bare=point == b",")

    def _unix(self, line: bytes, at: int) -> _Stamp | None:
        found = _UNIX.match(line, at)
        return found and _Stamp(found.end(), int(found[1]) * 1_000_000 + int(found[2]))

    def _short(self, line: bytes, at: int) -> _Stamp | None:
        found = _SYSLOG.match(line, at)
        month = month_number(found[1]) if found is not None else None
        if found is None or month is None:
            return None
        year = None if found[3] is None else int(found[3])
        time = self.stamps.wall_time(year, month, int(found[2]), found[4], found[5] or b"", b"")
        return _Stamp(found.end(), time)

    def _full(self, line: bytes, at: int) -> _Stamp | None:
        found = _FULL.match(line, at)
        if found is None:
            return None
        year, month, day, clock, fraction, zone = found.groups(b"")
        time = self.stamps.wall_time(int(year), int(month), int(day), clock, fraction, zone)
        return _Stamp(found.end(), time)

    def _logread(self, line: bytes, at: int) -> _Stamp | None:
        found = _LOGREAD.match(line, at)
        month = month_number(found[1]) if found is not None else None
        if found is None or month is None:
            return None
        time = self.stamps.wall_time(int(found[4]), month, int(found[2]), found[3], b"", b"")
        return _Stamp(found.end(), time)

    def _date(self, found: re.Match[bytes]) -> int | None:
        month = month_number(found[1])
        if month is None:
            return None
        return self.stamps.wall_time(int(found[4]), month, int(found[2]), found[3], b"", b"")
