"""Told kills are amended when due, once their revision is known, in the order of telling."""

from __future__ import annotations

from typing import Any

import pytest

from oomwatch.correlator.told_kills import ToldKill, ToldKills
from oomwatch.events import Confidence, OomKill, Scope
from oomwatch.observations import Recorded


def kill(number: int) -> ToldKill:
    event = OomKill(
        episode_id=f"e{number}",
        detect_time=number,
        scope=Scope.UNKNOWN,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        victim_cgroup="/a",
    )
    return ToldKill(event=event, at=float(number))


@pytest.fixture
def kills() -> ToldKills[ToldKill]:
    kills: ToldKills[ToldKill] = ToldKills(0.025)
    for number in range(3):
        kills.add(kill(number))
    return kills


def test_what_was_learned_is_due_a_moment_later_and_once(kills: ToldKills[ToldKill]) -> None:
    first, second, _ = kills
    kills.recorded(Recorded("e1", "/a", 8))
    kills.recorded(Recorded("e0", "/a", 7))
    kills.amend(second, 10.0)
    kills.amend(first, 10.01)
    kills.amend(second, 10.02)
    assert kills.deadline == pytest.approx(10.025)
    assert kills.take_due(10.02) == []
    assert kills.take_due(11.0) == [(first, 7), (second, 8)], "in the order of telling"
    assert kills.deadline is None
    assert kills.take_due(12.0) == []


def test_nothing_is_due_without_a_revision(kills: ToldKills[ToldKill]) -> None:
    first, *_ = kills
    kills.amend(first, 10.0)
    kills.recorded(Recorded("e0", "/elsewhere", 7))
    assert kills.deadline is None
    assert kills.take_due(99.0) == []
    kills.recorded(Recorded("e0", "/a", 7))
    kills.recorded(Recorded("e0", "/a", 9))
    assert kills.take_due(99.0) == [(first, 7)], "its own revision, not an amendment's"


def test_what_is_forgotten_is_not_due(kills: ToldKills[ToldKill]) -> None:
    kills.recorded(Recorded("e0", "/a", 7))
    kills.amend(kills.oldest, 10.0)
    kills.forget_oldest()
    assert len(kills) == 2
    assert kills.deadline is None
    assert kills.take_due(99.0) == []


def test_an_exit_that_is_written_down_has_no_kills_looked_through() -> None:
    looks: list[ToldKill] = []

    class Watched(ToldKill):
        def __getattribute__(self, name: str) -> Any:
            if name == "event":
                looks.append(self)
            return super().__getattribute__(name)

    kills: ToldKills[ToldKill] = ToldKills(0.025)
    for number in range(100):
        kills.add(Watched(event=kill(number).event, at=float(number)))
        kills.recorded(Recorded(f"e{number}", "/a", number + 1))
    assert [told.revision for told in kills] == [*range(1, 101)]
    looks.clear()
    kills.recorded(Recorded("exit", None, 101))
    assert not looks


def test_one_that_is_forgotten_before_it_is_written_down_is_written_down_all_the_same(
    kills: ToldKills[ToldKill],
) -> None:
    kills.forget_oldest()
    kills.recorded(Recorded("e0", "/a", 7))
    assert [told.revision for told in kills] == [None, None]
