"""Times as people type them and read them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from oomwatch.cli.times import (
    human_duration,
    local_time,
    local_zone,
    parse_duration,
    parse_since,
)

NOW = 1_795_000_000_000_000


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604800), ("500ms", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 m", "-5s", "1x", "1h-3m", "١m", "nan"])
def test_what_is_no_duration_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write"):
        parse_duration(text)


def test_since_takes_how_long_ago() -> None:
    assert parse_since("10m", NOW) == NOW - 600_000_000


def test_since_takes_iso_times_with_a_zone() -> None:
    assert parse_since("2026-11-22T06:40:46.769814Z", NOW) == 1_795_329_646_769_814
    assert parse_since("2026-11-22T07:40:46+01:00", NOW) == 1_795_329_646_000_000


@pytest.mark.usefixtures("zone")
def test_a_time_without_a_zone_is_local() -> None:
    assert parse_since("2026-11-22T12:10:46", NOW) == 1_795_329_646_000_000
    assert local_time(1_795_329_646_769_814) == "2026-11-22 12:10:46.769"
    assert local_time(1_795_329_646_000_007, digits=6) == "2026-11-22 12:10:46.000007"
    assert local_zone(1_795_329_646_000_007) == "+0530"


@pytest.mark.parametrize("text", ["", "yesterday", "20261122", "2026-13-01", "10"])
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time: write"):
        parse_since(text, NOW)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (800, "0.8 ms"),
        (25_400, "25 ms"),
        (3_200_000, "3.2 s"),
        (245_000_000, "4 min 5 s"),
        (10_920_000_000, "3 h 2 min"),
    ],
)
def test_spans(microseconds: int, text: str) -> None:
    assert human_duration(microseconds) == text
