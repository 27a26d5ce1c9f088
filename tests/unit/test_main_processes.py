"""A victim that a runtime knows as a container's main process, and nobody else can place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oomwatch.containers.registry import Containers
from oomwatch.correlator.main_processes import word_on
from oomwatch.correlator.names import Name
from oomwatch.events import Container, Victim
from oomwatch.observations import ContainerSeen, VictimNamed

PID = 395
SECOND = 1_000_000
STARTED, ENDED = 100 * SECOND, 200 * SECOND
PATH = "/docker/ee12"


def registry(**other: Any) -> Containers:
    containers = Containers()
    seen = ContainerSeen(
        source="docker",
        time=STARTED,
        container=Container(id="ee12"),
        cgroup=PATH,
        cgroup_id=7,
        pid=PID,
    )
    containers.seen(replace(seen, **other))
    return containers


def name(time: int = 150 * SECOND, cgroup: str | None = None) -> Name:
    record = VictimNamed(
        source="kernel_log",
        sequence=1,
        time=time,
        seen_time=time,
        victim=Victim(pid=PID, comm="hog"),
        detail="Killed process 395 (hog)",
        cgroup=cgroup,
    )
    return Name([record], 0.0)


def test_it_lived_in_its_containers_cgroup() -> None:
    victim = name()
    word = word_on(victim, registry().lives)
    assert word is not None
    assert (word.source, word.cgroup) == ("docker", PATH)
    victim.records.append(word)
    assert victim.cgroup == PATH
    assert victim.victim == Victim(pid=PID, comm="hog", main_process=True)


@pytest.mark.parametrize(
    "time", [STARTED - SECOND, ENDED + 1], ids=["before it was heard of", "after it ended"]
)
def test_a_pid_is_somebody_elses_before_and_after(time: int) -> None:
    containers = registry()
    containers.removed(7, ENDED)
    assert word_on(name(time), containers.lives) is None
    assert word_on(name(ENDED), containers.lives) is not None


def test_what_is_known_of_its_cgroup_stands() -> None:
    assert word_on(name(cgroup="/other"), registry().lives) is None


def test_nothing_is_said_of_a_container_that_nobody_placed() -> None:
    assert word_on(name(), registry(cgroup=None, cgroup_id=None).lives) is None


def test_a_pid_that_a_newer_life_has_is_the_newer_lifes() -> None:
    containers = registry()
    containers.removed(7, ENDED)
    containers.seen(
        ContainerSeen(
            source="worker",
            time=ENDED + SECOND,
            container=Container(id="job"),
            cgroup="/job",
            cgroup_id=8,
            pid=PID,
        )
    )
    word = word_on(name(ENDED + 2 * SECOND), containers.lives)
    assert word is not None
    assert (word.source, word.cgroup) == ("worker", "/job")
    containers.unwatched("job", ENDED + 3 * SECOND)
    assert word_on(name(ENDED + 4 * SECOND), containers.lives) is None


def test_a_container_that_moved_to_another_pid_no_longer_answers_for_the_first() -> None:
    containers = registry()
    containers.seen(
        ContainerSeen(
            source="docker",
            time=ENDED,
            container=Container(id="ee12"),
            cgroup=PATH,
            cgroup_id=7,
            pid=400,
        )
    )
    assert containers.lives.of_main_process(PID) is None
    assert containers.lives.of_main_process(400) is not None
