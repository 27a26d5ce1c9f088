"""Exits beside kills that only a sum showed: they may be one of several containers'."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers.lives import Life
from oomwatch.correlator.exits.ends import End
from oomwatch.correlator.exits.kills import KillsTold
from oomwatch.events import Cgroup, Confidence, OomKill, Scope, Victim
from oomwatch.observations import CgroupRemoved, RuntimeOom, VictimNamed
from tests.unit.test_exits import START, Host, ruled

UNKNOWN, CLEARED, KILLED = (
    ("unknown", "medium"),
    ("not_oom", "confirmed"),
    ("oom", "confirmed"),
)


SUM = OomKill(
    episode_id="e",
    detect_time=START,
    scope=Scope.UNKNOWN,
    confidence=Confidence.CONFIRMED,
    kill_count=1,
    survivor_cgroup="/p",
    candidates=("/p/a", "/p/b"),
)


class Pods(Host):
    """A host whose containers are gone, with their counters, before anybody reads those."""

    def container(self, name: str, pod: Cgroup, pid: int | None) -> Cgroup:
        cgroup = self.make(name, pod)
        self.seen(cgroup, name, source="docker", pid=pid)
        return cgroup

    def all_gone(self, *cgroups: Cgroup) -> None:
        for cgroup in cgroups:
            del self.kills[cgroup]
        self.say(*(CgroupRemoved(cgroup, self.wall) for cgroup in cgroups))
        for cgroup in cgroups:
            self.ended(137, container_id=cgroup.name, cgroup_id=cgroup.id)

    def named_late(self, cgroup: Cgroup, pid: int, time: int) -> None:
        self.name(cgroup, pid, time)
        self.pass_time(1)

    def named_nowhere(self, *pids: int, time: int) -> None:
        """Who was killed is printed, and not in which cgroup."""
        for pid in pids:
            self.say(
                VictimNamed(
                    source="kernel_log",
                    sequence=pid,
                    time=time,
                    seen_time=self.wall,
                    victim=Victim(pid=pid, comm="hog"),
                    detail="Killed process",
                )
            )
        self.pass_time(5)

    def says_oom(self, name: str) -> None:
        word = RuntimeOom(
            source="docker", time=self.wall, seen_time=self.wall, container_id=name, detail="oom"
        )
        self.say(word)
        self.pass_time(1)

    def verdicts(self) -> dict[str, tuple[str, str]]:
        """What was told last of each container."""
        return {exit_.container.id: ruled(exit_) for exit_ in self.exits if exit_.container}

    def kills_of(self, name: str) -> int | None:
        last = [exit_ for exit_ in self.exits if exit_.container and exit_.container.id == name]
        return last[-1].oom_kills


@pytest.mark.parametrize("pids", [(501, 502), (None, None)])
def test_each_name_in_a_sum_of_several_kills_is_one_containers(
    pids: tuple[int | None, int | None],
) -> None:
    host = Pods()
    pod = host.make("pod")
    first, second = host.container("aa", pod, pids[0]), host.container("bb", pod, pids[1])
    host.kill(first, told=False)
    host.kill(second, told=False)
    then = host.wall
    host.all_gone(first, second)
    host.pass_time(3)
    (kill,) = (event for event in host.journal if isinstance(event, OomKill))
    assert (kill.kill_count, kill.victim_cgroup) == (2, None)
    assert host.verdicts() == {"aa": UNKNOWN, "bb": UNKNOWN}
    told = KILLED if pids[0] else ("oom", "high")
    host.named_late(first, 501, then)
    assert host.verdicts() == {"aa": told, "bb": UNKNOWN}
    host.named_late(second, 502, then)
    assert host.verdicts() == {"aa": told, "bb": told}
    assert (host.kills_of("aa"), host.kills_of("bb")) == (1, 1)


def test_a_sum_whose_names_are_all_of_one_container_clears_the_other() -> None:
    host = Pods()
    pod = host.make("pod")
    first, second = host.container("aa", pod, 501), host.container("bb", pod, 601)
    host.kill(first, told=False)
    host.kill(first, told=False)
    then = host.wall
    host.all_gone(first, second)
    host.pass_time(3)
    host.named_late(first, 501, then)
    assert host.verdicts() == {"aa": KILLED, "bb": UNKNOWN}
    host.named_late(first, 502, then)
    assert host.verdicts() == {"aa": KILLED, "bb": CLEARED}
    assert (host.kills_of("aa"), host.kills_of("bb")) == (2, 0)


def test_a_kill_that_is_named_anothers_clears_who_else_it_may_have_been_of() -> None:
    host = Pods()
    pod = host.make("pod")
    first, second = host.container("aa", pod, 501), host.container("bb", pod, 502)
    host.kill(first, told=False)
    then = host.wall
    host.all_gone(first, second)
    host.pass_time(3)
    assert host.verdicts() == {"aa": UNKNOWN, "bb": UNKNOWN}
    host.named_late(first, 501, then)
    assert host.verdicts() == {"aa": KILLED, "bb": CLEARED}


def test_a_kill_may_be_of_any_of_several_however_many_such_kills_there_are() -> None:
    host = Pods()
    for number in range(40):
        pod = host.make(f"pod{number}")
        first = host.container(f"aa{number}", pod, 1000 + number)
        second = host.container(f"bb{number}", pod, 2000 + number)
        host.kill(first, told=False)
        host.all_gone(first, second)
    host.pass_time(3)
    assert len(host.exits) == 80
    assert set(host.verdicts().values()) == {UNKNOWN}


def test_a_kill_may_be_of_a_container_that_was_one_too_many_to_be_named_a_candidate() -> None:
    host = Pods()
    pod = host.make("pod")
    containers = [host.container(f"aa{number}", pod, 1000 + number) for number in range(70)]
    host.kill(containers[0], told=False)
    host.all_gone(*containers)
    host.pass_time(3)
    (kill,) = (event for event in host.journal if isinstance(event, OomKill))
    assert kill.candidates_omitted == 6
    assert set(host.verdicts().values()) == {UNKNOWN}


def test_each_runtimes_word_on_a_sum_is_of_one_containers_kill() -> None:
    host = Pods()
    pod = host.make("pod")
    containers = [host.container(name, pod, None) for name in ("aa", "bb", "cc")]
    first, second, _ = containers
    host.kill(first, told=False)
    host.kill(second, told=False)
    then = host.wall
    host.all_gone(*containers)
    host.pass_time(3)
    assert set(host.verdicts().values()) == {UNKNOWN}
    host.says_oom("aa")
    assert host.verdicts() == {"aa": ("oom", "high"), "bb": UNKNOWN, "cc": UNKNOWN}
    # Its name, late, is of the same kill.
    host.named_late(first, 501, then)
    host.says_oom("bb")
    assert host.verdicts() == {"aa": ("oom", "high"), "bb": ("oom", "high"), "cc": CLEARED}
    assert (host.kills_of("aa"), host.kills_of("bb"), host.kills_of("cc")) == (1, 1, 0)


def test_names_of_nowhere_are_nobodys_where_words_parted_a_sum() -> None:
    host = Pods()
    pod = host.make("pod")
    containers = [host.container(name, pod, None) for name in ("aa", "bb")]
    for cgroup in containers:
        host.kill(cgroup, told=False)
    then = host.wall
    host.all_gone(*containers)
    host.pass_time(3)
    host.says_oom("aa")
    host.says_oom("bb")
    host.named_nowhere(501, 502, time=then)
    last = [event for event in host.journal if isinstance(event, OomKill)][-1]
    assert [victim.pid for victim in last.victims] == [501, 502]
    assert not [exit_ for exit_ in host.exits if "501" in " ".join(exit_.reasons)]


def test_a_kill_that_a_word_placed_is_no_surer_than_the_word() -> None:
    told = KillsTold()
    told.told(SUM)
    told.recorded("e", None, 1)
    word = replace(SUM, kill_count=None, amends=1, victim_cgroup="/p/a", candidates=())
    told.told(replace(word, confidence=Confidence.HIGH))
    life = Life("aa", None, START - 1, cgroup="/p/a")
    (its,) = told.of(End(life=life, exit_time=START))
    assert (its.kill_count, its.candidates, its.confidence) == (1, 1, Confidence.HIGH)


def test_a_word_on_a_container_that_ran_anew_is_not_on_its_end_before() -> None:
    host = Pods()
    pod = host.make("pod")
    ended, other = (host.container(name, pod, None) for name in ("aa", "bb"))
    host.pass_time(3)
    host.all_gone(ended)
    host.pass_time(3)
    anew = host.container("aa", pod, None)
    host.kill(anew, told=False)
    host.all_gone(anew, other)
    host.pass_time(1)
    host.says_oom("aa")
    last = {exit_.cgroup_id: ruled(exit_) for exit_ in host.exits}
    assert last[ended.id] == CLEARED
    assert last[anew.id] == ("oom", "high")


def test_words_part_a_sum_of_which_it_is_known_already_who_was_killed() -> None:
    host = Pods()
    pod = host.make("pod")
    containers = [host.container(name, pod, None) for name in ("aa", "bb", "cc")]
    for cgroup in containers[:2]:
        host.kill(cgroup, told=False)
    then = host.wall
    host.all_gone(*containers)
    host.pass_time(3)
    host.named_nowhere(501, 502, time=then)
    host.says_oom("aa")
    assert host.verdicts()["aa"] == ("oom", "high")
    of_aa = [e for e in host.exits if e.container is not None and e.container.id == "aa"]
    assert "501" not in " ".join(of_aa[-1].reasons)
    host.says_oom("bb")
    assert host.verdicts() == {"aa": ("oom", "high"), "bb": ("oom", "high"), "cc": CLEARED}
    assert (host.kills_of("aa"), host.kills_of("bb"), host.kills_of("cc")) == (1, 1, 0)
    assert not [e for e in host.exits[-2:] if "501" in " ".join(e.reasons)], "it may be either's"


def test_the_name_of_who_was_killed_in_a_container_run_anew_is_not_of_its_end_before() -> None:
    """An earlier kill of the same path lacks its name: the kernel printed it without a cgroup."""
    host = Pods()
    pod = host.make("pod")
    before = host.container("cc", pod, None)
    host.kill(before)
    host.pass_time(1)
    host.remove(before)
    host.ended(137, container_id="cc", cgroup_id=before.id)
    host.pass_time(5)
    assert host.verdicts() == {"cc": ("oom", "high")}
    after = host.container("cc", pod, None)
    host.kill(after, told=False)
    host.named_late(after, 505, host.wall)
    host.pass_time(3)
    kills = [kill for kill in host.journal if isinstance(kill, OomKill) and kill.victims]
    assert {kill.victim_cgroup_id for kill in kills} <= {after.id, None}
    assert host.verdicts() == {"cc": ("oom", "high")}


@pytest.mark.parametrize(("seconds", "mine"), [(-1, True), (60, False)])
def test_a_kill_of_which_the_path_alone_is_known_is_not_one_of_long_after(
    seconds: float, mine: bool
) -> None:
    life = Life("aa", 7, START, cgroup="/p/a", ended_time=START + 10_000_000)
    time = START + 10_000_000 + round(seconds * 1e6)
    kill = replace(SUM, detect_time=time, victim_cgroup="/p/a", candidates=())
    assert (End(life=life, exit_time=START + 10_000_000).kill(kill, 1) is not None) is mine


def test_parts_of_a_sum_in_two_lives_of_one_path_are_two() -> None:
    told = KillsTold()
    kill = replace(SUM, kill_count=3, candidates=("/p/a", "/p/a", "/p/b"))
    told.told(kill)
    told.recorded("e", None, 1)
    for inode, pid in ((7, 501), (8, 502)):
        part = replace(kill, kill_count=None, amends=1, victim_cgroup="/p/a", candidates=())
        told.told(replace(part, victim_cgroup_id=inode, victims=(Victim(pid=pid),)))
    for inode, pid in ((7, 501), (8, 502)):
        life = Life("aa", inode, START - 1, cgroup="/p/a")
        own = [k for k in told.of(End(life=life, exit_time=START)) if k.candidates == 1]
        assert [(k.kill_count, str(pid) in k.words) for k in own] == [(1, True)]
