"""What `show` finds in the journal after an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from oomwatch.cli import later as later_module
from oomwatch.cli.explain import explain
from oomwatch.cli.later import READ_ON_MICROSECONDS, Later, look_on, whole
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    Event,
    Evidence,
    OomKill,
    Scope,
    Verdict,
    Victim,
)

WEB = Container(id="ee12", name="web", runtime="docker", image="nginx")
KILL = OomKill(
    episode_id="e",
    detect_time=1,
    scope=Scope.UNKNOWN,
    confidence=Confidence.CONFIRMED,
    kill_count=1,
    victim_cgroup="/docker/ee12",
    victim_cgroup_id=7,
    evidence=(Evidence(source="memory_events", time=1, detail="oom_kill 0 -> 1"),),
)
MORE = replace(KILL, amends=17, kill_count=None, detect_time=300_001, evidence=())
NAME = replace(MORE, container=WEB)
LIMIT = replace(MORE, scope=Scope.CONTAINER_LIMIT, limit_cgroup="/docker/ee12")
VICTIM = replace(
    MORE,
    victims=(Victim(pid=395, comm="tail", main_process=False),),
    evidence=(Evidence(source="kernel_log", time=2, detail="Killed process 395"),),
)
EXIT = ContainerExit(
    episode_id="x",
    detect_time=500_001,
    verdict=Verdict.OOM,
    confidence=Confidence.HIGH,
    container=WEB,
    cgroup="/docker/ee12",
    cgroup_id=7,
)
ENTRY = Entry(17, "j", KILL)


async def found(*events: Event) -> Later:
    async def following() -> AsyncIterator[Entry]:
        for revision, event in enumerate(events, 18):
            yield Entry(revision, "j", event)

    return await look_on(ENTRY, following())


async def test_a_kill_is_explained_with_all_that_was_learned_later() -> None:
    lines = explain(ENTRY, await found(NAME, LIMIT, replace(NAME, amends=16), VICTIM, MORE))
    assert lines[0] == (
        "Revision 17: web (docker ee12) lost process 395 `tail` at its own limit; "
        "the container lived on."
    )
    assert "  What came later, in revisions 18, 19, 21, 22, is told with it." in lines
    assert lines[-2].endswith("Killed process 395")
    assert explain(ENTRY)[0] == "Revision 17: the kernel's OOM killer killed once."


async def test_what_made_a_kill_surer_is_told_with_it() -> None:
    unsure = replace(ENTRY, event=replace(KILL, confidence=Confidence.HIGH))
    event = whole(unsure, await found(VICTIM, replace(MORE, confidence=Confidence.HIGH))).event
    assert isinstance(event, OomKill)
    assert event.confidence is Confidence.CONFIRMED


async def test_what_is_told_again_is_one_victim() -> None:
    event = whole(ENTRY, await found(VICTIM, VICTIM)).event
    assert isinstance(event, OomKill)
    assert len(event.victims) == 1


async def test_a_sum_of_several_kills_is_none_of_its_parts() -> None:
    sums = Entry(17, "j", replace(KILL, victim_cgroup=None, victim_cgroup_id=None, kill_count=2))
    later = await found(replace(NAME, victim_cgroup="/docker/ee12"))
    assert whole(sums, later) == sums
    assert "  More is told of it in revision 18." in explain(sums, later)


@pytest.mark.parametrize(
    ("event", "ends"),
    [
        (EXIT, True),
        (replace(EXIT, cgroup_id=None), True),
        (replace(EXIT, cgroup_id=8), False),
        (replace(EXIT, container=Container(id="other")), False),
        (replace(EXIT, cgroup="/docker", cgroup_id=6), True),
        (replace(EXIT, cgroup="/docker/ee12/nested", cgroup_id=9), False),
        (replace(EXIT, container=None, kills=(18,)), True),
        (replace(EXIT, container=None, kills=(4,)), False),
        # It was told before the kill, which a second look at the sums found.
        (replace(EXIT, amends=16), True),
        (replace(EXIT, amends=16, container=None, kills=(17,)), True),
        (replace(EXIT, amends=4, cgroup_id=8), False),
        (replace(EXIT, amends=4, cgroup_id=None), False),
    ],
)
async def test_a_containers_end_is_that_of_the_life_in_which_the_kill_was(
    event: ContainerExit, ends: bool
) -> None:
    later = await found(NAME, event, event)
    assert later.end == (Entry(19, "j", event) if ends else None)


async def test_it_is_not_looked_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    late = replace(MORE, detect_time=READ_ON_MICROSECONDS + 2)
    assert await found(late) == Later()
    monkeypatch.setattr(later_module, "MOST_READ", 2)
    assert (await found(EXIT, EXIT, MORE)).amendments == ()


async def test_the_end_of_a_life_is_found_where_the_kills_cgroup_is_known_by_its_path_alone() -> (
    None
):
    """It was gone, and the kernel's log named it: the counts above showed the kill."""
    kill = Entry(17, "j", replace(KILL, container=WEB, victim_cgroup_id=None))

    async def following() -> AsyncIterator[Entry]:
        yield Entry(18, "j", replace(EXIT, verdict=Verdict.UNKNOWN))

    assert (await look_on(kill, following())).end is not None
