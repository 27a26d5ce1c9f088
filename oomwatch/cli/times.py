"""Times and durations as people type them, and as they like to read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from oomwatch.sizes import size

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds in "10m", "2h", "1h30m", "500ms", "7d", or a bare number of seconds.

    Raises ValueError with a sentence.
    """
    word = text.strip()
    if _SECONDS.fullmatch(word):
        return float(word)
    if not _DURATION.fullmatch(word):
        raise ValueError(f"{text!r} is not a duration: write 90s, 10m, 2h, 1h30m or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(word))


def parse_since(text: str, now_us: int) -> int:
    """Return the microseconds since the Unix epoch that `text` means.

    `text` is a duration before now ("10m"), or an ISO 8601 time; one without a zone is local time.
    Raises ValueError with a sentence.
    """
    word = text.strip()
    if _DURATION.fullmatch(word):
        return max(0, now_us - round(parse_duration(word) * 1_000_000))
    # A bare number would be taken by fromisoformat for a date: 20261122.
    if not _SECONDS.fullmatch(word):
        try:
            moment = datetime.fromisoformat(word)
            return microseconds(moment if moment.tzinfo else moment.astimezone())
        except (ValueError, OverflowError, OSError):
            pass
    raise ValueError(
        f"{text!r} is not a time: write how long ago (10m, 2h, 7d) "
        "or when (2026-11-22T06:40, 2026-11-22T06:40:46Z)"
    )


def microseconds(moment: datetime) -> int:
    """Whole microseconds from the Unix epoch to `moment`, which has a zone."""
    gap = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (gap.days * 86400 + gap.seconds) * 1_000_000 + gap.microseconds


def local_time(time_us: int, *, digits: int = 3) -> str:
    """Return the time in the local zone, as 2026-11-22 06:40:46.769, `digits` after the point."""
    seconds, fraction = divmod(time_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{f'{fraction:06d}'[:digits]}"


def local_zone(time_us: int) -> str:
    """Return the local zone's offset at that time, as +0100."""
    return f"{datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone():%z}"


def human_duration(microseconds: int) -> str:
    """Return "0.8 ms", "25 ms", "3.2 s", "4 min 5 s" or "3 h 2 min"."""
    if microseconds < 10_000:
        return f"{microseconds / 1000:.1f} ms"
    if microseconds < 1_000_000:
        return f"{microseconds // 1000} ms"
    if microseconds < 60_000_000:
        return f"{microseconds / 1_000_000:.1f} s"
    minutes, seconds = divmod(microseconds // 1_000_000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def human_bytes(count: int | None) -> str:
    """Return a size as `size` does; "-" for None."""
    return "-" if count is None else size(count)
