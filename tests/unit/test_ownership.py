"""Events get their container, at once or by an amendment, and their scope as seen from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers.registry import Containers
from oomwatch.correlator.owned_kills import LATE_SECONDS, OwnedKills
from oomwatch.correlator.ownership import Ownership, scope_within
from oomwatch.correlator.runtime_words import RuntimeWords
from oomwatch.events import Confidence, Container, EvidenceGap, OomKill, Scope, Victim
from oomwatch.observations import ContainerSeen, Recorded, RuntimeOom

ID = "ee12" + "0" * 60
PATH = f"/docker/{ID}"
WEB = Container(id=ID, name="web", runtime="docker")
SEEN = ContainerSeen(source="docker", time=50, container=WEB, cgroup=PATH, cgroup_id=7)
OOM = RuntimeOom(source="docker", time=60, seen_time=61, container_id=ID, detail="oom event")
KILL = OomKill(
    episode_id="e1",
    detect_time=10,
    scope=Scope.CONTAINER_LIMIT,
    confidence=Confidence.CONFIRMED,
    kill_count=1,
    victim_cgroup=PATH,
    victim_cgroup_id=7,
    limit_cgroup=PATH,
)


class House:
    """An `Ownership` with its containers, and what came out of it."""

    def __init__(self) -> None:
        self.containers = Containers()
        self.kills = OwnedKills(0.025)
        self.words = RuntimeWords(self.containers, self.kills, lambda *_: False)
        self.ownership = Ownership(self.containers, self.kills, self.words)
        self.revision = 0

    def tell(self, event: OomKill = KILL, now: float = 0.0) -> OomKill:
        (told,) = self.ownership.name([event], now)
        assert isinstance(told, OomKill)
        if told.kill_count is not None:
            self.revision += 1
            self.ownership.recorded(Recorded(told.episode_id, told.victim_cgroup, self.revision))
        return told

    def amendments(self, now: float) -> list[OomKill]:
        return [self.tell(event, now) for event in self.ownership.expire(now)]


@pytest.mark.parametrize(
    ("limit", "scope"),
    [
        ("/a/c", Scope.CONTAINER_LIMIT),
        ("/a/c/nested", Scope.DESCENDANT),
        ("/a", Scope.ANCESTOR_LIMIT),
        ("/a/cc", Scope.ANCESTOR_LIMIT),
    ],
)
def test_scope_is_seen_from_the_container(limit: str, scope: Scope) -> None:
    kill = replace(KILL, victim_cgroup="/a/c/nested/x", limit_cgroup=limit)
    assert scope_within(kill, "/a/c") is scope


@pytest.mark.parametrize("scope", [Scope.NODE, Scope.UNKNOWN])
def test_a_container_does_not_make_an_unknown_limit_known(scope: Scope) -> None:
    assert scope_within(replace(KILL, scope=scope, limit_cgroup=None), PATH) is scope


def test_a_kill_in_a_known_container_is_told_with_its_name() -> None:
    house = House()
    house.ownership.seen(SEEN, 0.0)
    told = house.tell(replace(KILL, victim_cgroup=f"{PATH}/x", victim_cgroup_id=9))
    assert told.container == WEB
    assert told.scope is Scope.CONTAINER_LIMIT
    assert house.amendments(1.0) == []


def test_the_init_that_a_runtime_told_is_the_main_process() -> None:
    house = House()
    house.ownership.seen(replace(SEEN, pid=7), 0.0)
    told = house.tell(replace(KILL, victims=(Victim(pid=7), Victim(pid=8))))
    assert [victim.main_process for victim in told.victims] == [True, None]


def test_a_name_that_comes_late_amends_the_kill_once() -> None:
    house = House()
    assert house.tell().container == Container(id=ID, runtime="docker"), "its path tells so much"
    house.ownership.seen(SEEN, 1.0)
    assert house.ownership.deadline == pytest.approx(1.025)
    (late,) = house.amendments(1.1)
    assert (late.amends, late.kill_count, late.container) == (1, None, WEB)
    assert (late.detect_time, late.victims, late.memory) == (50, (), None)
    house.ownership.seen(SEEN, 2.0)
    assert house.ownership.deadline is None


def test_a_name_that_comes_much_later_amends_nothing() -> None:
    house = House()
    house.tell()
    house.ownership.seen(SEEN, LATE_SECONDS + 1)
    assert house.ownership.deadline is None


def test_kills_that_nothing_can_amend_any_more_are_forgotten() -> None:
    house = House()
    house.tell()
    house.ownership.name([replace(KILL, episode_id="e2")], LATE_SECONDS + 1)
    house.ownership.seen(SEEN, LATE_SECONDS + 1)
    assert [told.event.episode_id for told in house.kills] == ["e2"]


def test_nothing_is_amended_before_it_has_a_revision() -> None:
    house = House()
    house.ownership.name([KILL], 0.0)
    house.ownership.seen(SEEN, 1.0)
    assert house.ownership.deadline is None
    house.ownership.recorded(Recorded("e1", PATH, 5))
    (late,) = house.ownership.expire(2.0)
    assert late.amends == 5


def test_what_another_amendment_learned_of_the_limit_stands() -> None:
    house = House()
    house.tell(replace(KILL, scope=Scope.UNKNOWN, limit_cgroup=None))
    learned = replace(KILL, kill_count=None, amends=1, scope=Scope.ANCESTOR_LIMIT)
    house.tell(replace(learned, limit_cgroup="/docker"))
    house.ownership.seen(SEEN, 1.0)
    (late,) = house.amendments(1.1)
    assert (late.scope, late.limit_cgroup) == (Scope.ANCESTOR_LIMIT, "/docker")


def test_a_runtimes_word_is_evidence_and_no_event() -> None:
    house = House()
    house.ownership.seen(SEEN, 0.0)
    house.tell()
    house.words.heard(OOM, 1.0)
    house.words.heard(replace(OOM, seen_time=62), 1.0)
    (late,) = house.amendments(1.1)
    assert [(e.source, e.time, e.detail) for e in late.evidence] == [("docker", 61, "oom event")]
    assert house.amendments(9.0) == []


def test_a_runtimes_word_is_told_once() -> None:
    house = House()
    house.tell()
    house.words.heard(OOM, 1.0)
    (word,) = house.amendments(1.1)
    assert [one.source for one in word.evidence] == ["docker"]
    house.ownership.seen(SEEN, 2.0)
    (name,) = house.amendments(2.1)
    assert (name.container, name.evidence) == (WEB, ())


def test_a_runtimes_word_that_came_first_is_in_the_event() -> None:
    house = House()
    house.words.heard(OOM, 0.0)
    assert [e.source for e in house.tell(now=0.1).evidence] == ["docker"]
    second = replace(KILL, episode_id="e2")
    assert house.tell(second, 0.2).evidence == (), "one word is for one kill"


def test_a_runtime_speaks_of_a_container_that_a_worker_calls_otherwise() -> None:
    house = House()
    house.ownership.seen(SEEN, 0.0)
    house.ownership.seen(replace(SEEN, source="worker", container=Container(id="job")), 0.0)
    assert house.tell().container == Container(id="job", name="web", runtime="docker")
    house.words.heard(OOM, 1.0)
    (late,) = house.amendments(1.1)
    assert late.evidence[0].source == "docker"


def test_a_gap_in_a_container_is_its_own() -> None:
    house = House()
    gap = EvidenceGap(episode_id="g", detect_time=1, source="s", reason="r", cgroup=PATH)
    (named,) = house.ownership.name([gap], 0.0)
    assert named.container is not None
    assert named.container.id == ID
