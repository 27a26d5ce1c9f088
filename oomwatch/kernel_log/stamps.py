"""When a line of a text log was written: stamps with and without a year, a zone, a date.

What a stamp leaves out is not guessed. A stamp without a year ("Nov 24 01:48:27") gives a time only
where the reader was told the year; one with a date and no zone ("Fri Apr 26 10:22:44 2024") is
taken in the zone that the reader was told. Either is counted, so that it can be said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_ENGLISH = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

# What `dmesg -T` writes in the locales met most; another month's name leaves the time unknown.
_ELSEWHERE = {
    1: ("ene", "janv", "gen", "jän"),
    2: ("fév", "févr", "fev"),
    3: ("mär", "mrz", "mars", "mrt"),
    4: ("abr", "avr", "avril"),
    5: ("mai", "mag", "mei"),
    6: ("juin", "giu"),
    7: ("juil", "lug"),
    8: ("ago", "août"),
    9: ("sept", "set"),
    10: ("okt", "ott", "out"),
    12: ("dez", "dic", "déc"),
}

_MONTHS = {name: number for number, name in enumerate(_ENGLISH, 1)} | {
    name: number for number, names in _ELSEWHERE.items() for name in names
}


class LocalZone(tzinfo):
    """This machine's zone, with the offset that it had at the time in question."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """The offset at a local time."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Not told apart."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """Nor named."""
        return None


@dataclass(slots=True)
class Stamps:
    """Turns the parts of a stamp into microseconds since the Unix epoch.

    `zone` is for stamps without one, `None` leaves such times unknown; `year` is for stamps without
    one, likewise. `zoneless` and `yearless` count the stamps met that lacked theirs.
    """

    zone: tzinfo | None = None
    year: int | None = None
    zoneless: int = 0
    yearless: int = 0

    def wall_time(
        self, year: int | None, month: int, day: int, clock: bytes, fraction: bytes, zone: bytes
    ) -> int | None:
        """The time of a stamp, `None` where it cannot be known or is no date of any calendar.

        `clock` is "HH:MM:SS", `fraction` its digits after the point, `zone` "Z", "+0300", "UTC" or
        empty. An abbreviation that is not UTC's means several zones, and so none.
        """
        if year is None:
            self.yearless += 1
            year = self.year
            if year is None:
                return None
        offset = _offset(zone)
        if offset is None and not zone:
            self.zoneless += 1
            offset = self.zone
        if offset is None:
            return None
        microsecond = int((fraction + b"000000")[:6])
        try:
            time = datetime(
                year,
                month,
                day,
                int(clock[:2]),
                int(clock[3:5]),
                min(int(clock[6:8]), 59),
                microsecond,
                offset,
            )
            return (time - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError, OSError):
            return None


def month_number(name: bytes) -> int | None:
    """The month of an abbreviated name, in the locales known here."""
    return _MONTHS.get(name.decode("utf-8", "replace").rstrip(".").lower())


def _offset(zone: bytes) -> tzinfo | None:
    if zone in (b"Z", b"UTC", b"GMT"):
        return UTC
    if zone[:1] in (b"+", b"-"):
        digits = zone[1:].replace(b":", b"").ljust(4, b"0")
        minutes = int(digits[:2]) * 60 + int(digits[2:4])
        if minutes < 24 * 60:
            return timezone(timedelta(minutes=minutes if zone[:1] == b"+" else -minutes))
    return None
