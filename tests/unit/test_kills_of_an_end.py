"""Whose a kill is, seen from the end of one life, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers.lives import Life
from oomwatch.correlator.exits.ends import End, Place
from oomwatch.events import Confidence, Container, OomKill, Scope, Victim

START = 1_700_000_000_000_000
SECOND = 1_000_000
CONTAINER = Container(id="job-17")
LIFE = Life("job-17", 7, START, cgroup="/pod/a", pid=395, said={"docker": CONTAINER})
EXIT = START + 60 * SECOND
KILL = OomKill(
    episode_id="e",
    detect_time=EXIT,
    scope=Scope.CONTAINER_LIMIT,
    confidence=Confidence.CONFIRMED,
    kill_count=1,
    victim_cgroup="/pod/a",
    victim_cgroup_id=7,
    limit_cgroup="/pod/a",
)


@pytest.mark.parametrize(("cgroup", "whole"), [("/pod/a", True), ("/pod/a/nested", False)])
def test_a_group_that_is_nested_in_a_container_is_not_all_of_it(cgroup: str, whole: bool) -> None:
    group = replace(KILL, victim_cgroup=cgroup, victim_cgroup_id=None, group_kill=True)
    kill = End(life=LIFE, exit_time=EXIT).kill(group, 1)
    assert kill is not None
    assert kill.whole_group is whole


@pytest.mark.parametrize(("seconds", "mine"), [(50, True), (-5, False), (90, False)])
def test_a_pid_is_a_containers_while_that_lives(seconds: int, mine: bool) -> None:
    """Before it and after it the same pid may have been anybody's."""
    time = START + seconds * SECOND
    elsewhere = replace(
        KILL,
        detect_time=time,
        victim_cgroup="/pod/b",
        victim_cgroup_id=8,
        victims=(Victim(pid=395),),
    )
    life = replace(LIFE, ended_time=EXIT)
    assert (End(life=life, exit_time=EXIT).kill(elsewhere, 1) is not None) is mine


def test_a_kill_in_the_root_that_nobody_can_place_is_not_surely_of_what_is_registered_there() -> (
    None
):
    life = replace(LIFE, cgroup="/", cgroup_id=1)
    unplaced = replace(KILL, victim_cgroup=None, victim_cgroup_id=None, survivor_cgroup="/")
    kill = End(life=life, exit_time=EXIT).kill(unplaced, 1)
    assert kill is not None
    assert kill.candidates > 1


@pytest.mark.parametrize(
    ("counted_above", "said"), [(False, "at its own limit"), (True, "at the limit of /pod/a")]
)
def test_the_limit_of_the_cgroup_that_counts_for_a_container_is_not_its_own(
    counted_above: bool, said: str
) -> None:
    life = replace(LIFE, counted_above=counted_above)
    kill = End(life=life, exit_time=EXIT).kill(KILL, 1)
    assert kill is not None
    assert kill.words == said


@pytest.mark.parametrize(("inode", "mine"), [(7, True), (None, False)])
def test_older_kills_of_which_the_path_alone_is_known_are_not_of_long_before(
    inode: int | None, mine: bool
) -> None:
    """Of the life itself its inode is proof, whenever they were."""
    end = End(life=replace(LIFE, ended_time=EXIT), exit_time=EXIT)
    older = end.older_kills(Place("/pod/a", inode), 3, EXIT + 60 * SECOND)
    assert (older is not None) is mine
