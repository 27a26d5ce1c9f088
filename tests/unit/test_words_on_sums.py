"""A sum of kills in cgroups that are gone, and the runtime that saw whose each of them was."""

from __future__ import annotations

from oomwatch.correlator.amendments import Amendments
from oomwatch.correlator.runtime_words import RUNTIME_SECONDS
from oomwatch.events import Confidence, Container, Entry, OomKill, Scope
from oomwatch.observations import CgroupRemoved, ContainerSeen, Recorded, RuntimeOom
from tests.unit.test_correlator import Kernel, ModelNode, Run, named

SECOND = 1_000_000


class Host:
    """A model kernel with containers of Docker's in one slice, whose journal numbers the kills."""

    def __init__(self, *names: str) -> None:
        self.kernel = Kernel()
        self.slice = self.kernel.make(self.kernel.root, "slice")
        self.nodes = {name: self.kernel.make(self.slice, name) for name in names}
        self.run = Run(self.kernel)
        self.run.correlator.expect(frozenset({"kernel_log"}))
        for name in names:
            self.begun(name)
        self.written = 0

    def begun(self, name: str, pid: int | None = None, called: str | None = None) -> None:
        cgroup = self.nodes[name].cgroup
        container = Container(id=name, name=called or f"my-{name}", runtime="docker")
        self.run.feed(
            ContainerSeen(
                source="docker",
                time=self.kernel.time,
                container=container,
                cgroup=cgroup.path,
                cgroup_id=cgroup.id,
                pid=pid,
            )
        )

    def killed(self, *names: str) -> None:
        for name in names:
            self.kernel.kill(self.nodes[name], limit=self.nodes[name])

    def gone(self, *names: str) -> None:
        nodes: list[ModelNode] = [self.nodes[name] for name in names]
        for node in nodes:
            self.kernel.remove(node)
        self.run.feed(*(CgroupRemoved(node.cgroup, self.kernel.time) for node in nodes))
        self.settle()

    def says_oom(self, name: str, source: str = "docker", time: int | None = None) -> None:
        now = self.kernel.time
        time = now if time is None else time
        word = RuntimeOom(
            source=source, time=time, seen_time=now, container_id=name, detail=f"{source}: oom"
        )
        self.run.feed(word)
        self.settle()

    def begun_anew(self, name: str) -> None:
        """It runs anew, under its old path."""
        self.nodes[name] = self.kernel.make(self.slice, name, absent_at=self.run.now)
        self.run.feed(self.kernel.reading(self.nodes[name]))
        self.begun(name)

    def read(self, name: str) -> None:
        self.run.feed(self.kernel.reading(self.nodes[name]))
        self.settle()

    def settle(self, seconds: float = 1.0) -> None:
        self.run.pass_time(seconds)
        for kill in self.run.kills[self.written :]:
            self.written += 1
            if kill.kill_count is not None:
                self.run.feed(Recorded(kill.episode_id, kill.victim_cgroup, self.written))
        self.run.pass_time(1)

    @property
    def entries(self) -> list[Entry]:
        """What a journal would hold."""
        return [Entry(number, "j", event) for number, event in enumerate(self.run.events, 1)]

    def placed(self, amends: int) -> list[str | None]:
        """In which cgroups the kills of a sum were, as far as that was told."""
        return [kill.victim_cgroup for kill in self.run.kills if kill.amends == amends]

    @property
    def parts(self) -> list[tuple[str, list[str]]]:
        """Whose the kills of the sum are, as far as that was told, and by which witnesses."""
        return [
            (kill.container.id or "", [said.source for said in kill.evidence])
            for kill in self.run.kills
            if kill.amends == 1 and kill.container is not None
        ]


def sum_of_two() -> Host:
    host = Host("aa", "bb", "cc")
    host.killed("aa", "bb")
    host.gone("aa", "bb", "cc")
    (kill,) = host.run.kills
    assert (kill.kill_count, len(kill.candidates), kill.victim_cgroup) == (2, 3, None)
    return host


def test_a_runtimes_word_says_whose_one_kill_of_a_sum_was() -> None:
    host = sum_of_two()
    host.says_oom("bb")
    part = host.run.kills[-1]
    assert (part.amends, part.kill_count, part.victim_cgroup) == (1, None, "/slice/bb")
    assert (part.confidence, part.scope) == (Confidence.HIGH, Scope.UNKNOWN)
    assert part.container == Container(id="bb", name="my-bb", runtime="docker")
    assert (part.candidates, part.victims) == ((), ())
    host.says_oom("aa")
    assert host.parts == [("bb", ["docker"]), ("aa", ["docker"])]
    assert host.run.told == 2


def test_no_more_words_are_taken_than_the_sum_has_kills() -> None:
    host = sum_of_two()
    for name in ("aa", "bb", "cc"):
        host.says_oom(name)
    assert [whose for whose, _ in host.parts] == ["aa", "bb"]


def test_a_word_that_came_before_the_sum_is_not_lost() -> None:
    host = Host("aa", "bb")
    host.killed("aa", "bb")
    host.says_oom("bb")
    host.gone("aa", "bb")
    host.settle()
    assert host.parts == [("bb", ["docker"])]


def test_a_second_runtimes_word_is_of_the_same_kill() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    host.says_oom("aa", "containerd")
    assert host.parts == [("aa", ["docker"]), ("aa", ["containerd"])]
    host.says_oom("bb")
    assert host.parts[2:] == [("bb", ["docker"])], "it had a kill left"


def test_the_same_runtimes_second_word_places_no_other_kill() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    host.says_oom("aa")
    assert host.parts == [("aa", ["docker"])]


def test_a_name_that_comes_after_the_word_is_of_the_same_kill() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    for pid, cgroup in ((7, "/slice/aa"), (8, "/slice/bb"), (9, "/slice/cc")):
        host.run.feed(named(pid, cgroup, printed=True))
        host.settle()
    told = [(kill.victim_cgroup, [v.pid for v in kill.victims]) for kill in host.run.kills[1:]]
    assert told == [("/slice/aa", []), ("/slice/aa", [7]), ("/slice/bb", [8])]


def test_a_word_that_comes_after_the_name_is_evidence_in_it() -> None:
    host = sum_of_two()
    host.run.feed(named(7, "/slice/aa", printed=True))
    host.settle()
    host.says_oom("aa")
    assert host.parts == [("aa", ["kernel_log"]), ("aa", ["docker"])]
    assert host.run.kills[-1].victim_cgroup == "/slice/aa"


def test_names_of_nowhere_are_still_the_sums_where_words_placed_its_kills() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    host.says_oom("bb")
    for pid in (7, 8):
        host.run.feed(named(pid, None, time=host.kernel.time))
    host.settle(5)
    last = host.run.kills[-1]
    assert (last.victim_cgroup, [v.pid for v in last.victims]) == (None, [7, 8])


def test_a_word_on_a_container_that_runs_is_of_a_kill_still_to_come() -> None:
    host = sum_of_two()
    host.begun_anew("cc")
    host.says_oom("cc")
    assert host.parts == []
    host.killed("cc")
    host.read("cc")
    assert host.run.kills[-1].victim_cgroup_id == host.nodes["cc"].cgroup.id
    assert [said.source for said in host.run.kills[-1].evidence][-1:] == ["docker"]


def test_a_word_that_placed_a_kill_is_of_no_other() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    host.begun_anew("aa")
    host.killed("aa")
    host.read("aa")
    kill = host.run.kills[-1]
    assert kill.victim_cgroup_id == host.nodes["aa"].cgroup.id
    assert "docker" not in [said.source for said in kill.evidence]


def test_a_word_that_comes_very_late_is_of_the_kill_that_its_own_counter_showed() -> None:
    host = Host("aa", "bb", "cc")
    host.killed("aa")
    host.read("aa")
    host.killed("bb")
    host.gone("aa", "bb", "cc")
    host.settle(RUNTIME_SECONDS + 1)
    host.says_oom("aa")
    assert [kill.amends for kill in host.run.kills] == [None, None]


def test_a_container_of_which_several_cgroups_went_is_not_guessed_at() -> None:
    host = Host("aa", "bb")
    inner = [host.kernel.make(host.nodes["aa"], name) for name in ("one", "two")]
    host.run.feed(*(host.kernel.reading(node) for node in inner))
    host.kernel.kill(inner[0])
    host.killed("bb")
    for node in inner:
        host.kernel.remove(node)
    host.run.feed(*(CgroupRemoved(node.cgroup, host.kernel.time) for node in inner))
    host.gone("aa", "bb")
    host.says_oom("aa")
    assert host.parts == []
    host.says_oom("bb")
    assert host.parts == [("bb", ["docker"])]


def test_a_word_of_a_stranger_says_nothing() -> None:
    host = sum_of_two()
    host.says_oom("dd")
    assert host.parts == []


def test_a_part_of_a_sum_gets_a_name_that_is_learned_late() -> None:
    host = sum_of_two()
    host.says_oom("aa")
    host.begun("aa", called="renamed")
    host.settle()
    last = host.run.kills[-1]
    assert last.container is not None
    assert (last.amends, last.victim_cgroup, last.container.name) == (1, "/slice/aa", "renamed")


def test_further_words_on_a_kill_of_several_processes_place_no_other() -> None:
    host = Host("aa", "bb")
    host.killed("aa", "aa")
    host.read("aa")
    host.killed("bb")
    host.says_oom("aa")
    host.gone("aa", "bb")
    host.says_oom("aa")
    assert [kill.kill_count for kill in host.run.kills if kill.amends is None] == [2, 1]
    assert host.placed(3) == []
    host.says_oom("bb")
    assert host.placed(3) == ["/slice/bb"]


def test_who_is_a_containers_init_is_no_word_on_a_kill() -> None:
    host = Host("aa", "bb")
    host.begun("aa", pid=7)
    host.killed("aa", "bb")
    host.run.feed(named(7, None, time=host.kernel.time))
    host.gone("aa", "bb")
    assert [kill.victim_cgroup for kill in host.run.kills] == ["/slice/aa", None]
    assert "docker" in [said.source for said in host.run.kills[0].evidence]
    host.says_oom("aa")
    assert host.placed(2) == []
    host.says_oom("bb")
    assert host.placed(2) == ["/slice/bb"]


def test_a_word_is_of_the_life_in_which_it_was_said() -> None:
    host = Host("aa", "bb")
    host.killed("bb")
    host.gone("aa", "bb")
    host.begun_anew("aa")
    host.begun_anew("bb")
    host.killed("aa")
    said = host.kernel.time
    host.gone("aa", "bb")
    assert [kill.candidates for kill in host.run.kills] == [("/slice/aa", "/slice/bb")] * 2
    host.says_oom("aa", time=said)
    assert host.placed(1) == []
    assert host.placed(2) == ["/slice/aa"]
    assert host.run.kills[-1].victim_cgroup_id == host.nodes["aa"].cgroup.id


def test_a_word_of_an_earlier_life_is_not_on_the_kill_of_a_later_one() -> None:
    host = Host("aa", "bb")
    host.killed("aa")
    said = host.kernel.time
    host.gone("aa", "bb")
    host.begun_anew("aa")
    host.killed("aa")
    host.read("aa")
    host.says_oom("aa", time=said)
    assert host.run.kills[-1].amends is None, "it runs, and the word waits"
    host.gone("aa")
    host.says_oom("aa")
    assert host.placed(2) == ["/slice/aa"]
    assert host.placed(1) == ["/slice/aa"]


def test_a_word_left_over_of_an_earlier_life_makes_none_of_a_later_one_surplus() -> None:
    host = Host("aa", "bb")
    host.killed("aa", "aa", "bb")
    host.gone("aa", "bb")
    host.says_oom("aa")
    host.says_oom("aa")
    host.begun_anew("aa")
    host.begun_anew("bb")
    host.killed("aa", "aa")
    host.read("aa")
    host.killed("bb")
    host.gone("aa", "bb")
    sums = [n for n, kill in enumerate(host.run.kills, 1) if kill.candidates and not kill.amends]
    assert len(sums) == 2
    host.says_oom("aa")
    host.says_oom("aa")
    assert host.placed(sums[1]) == []


def test_the_only_kill_of_a_sum_takes_a_runtimes_word_once() -> None:
    host = Host("aa", "bb")
    host.killed("aa")
    host.gone("aa", "bb")
    host.says_oom("aa")
    host.says_oom("aa")
    assert host.parts == [("aa", ["docker"])]


def test_a_second_runtimes_word_in_the_same_moment_places_no_kill_of_another_sum() -> None:
    amendments = Amendments(0.025)
    for number in (1, 2):
        kill = OomKill(
            episode_id=f"e{number}",
            detect_time=number,
            scope=Scope.UNKNOWN,
            confidence=Confidence.CONFIRMED,
            kill_count=1,
            survivor_cgroup="/slice",
            candidates=("/slice/aa", "/slice/bb"),
        )
        amendments.told(kill, [], 0.0)
        amendments.recorded(Recorded(kill.episode_id, None, number))
    for source in ("docker", "containerd"):
        word = RuntimeOom(source=source, time=3, seen_time=3, container_id="aa", detail="oom")
        amendments.reported(word, lambda path, _: 0 if path == "/slice/aa" else None, 0.0)
    assert [kill.amends for kill in amendments.expire(1.0)] == [1]


def test_words_place_kills_of_which_it_is_known_already_who_was_killed() -> None:
    host = sum_of_two()
    for pid in (7, 8):
        host.run.feed(named(pid, None, time=host.kernel.time))
    host.settle(5)
    assert [victim.pid for victim in host.run.kills[-1].victims] == [7, 8]
    for name in ("aa", "bb", "cc"):
        host.says_oom(name)
    assert [whose for whose, _ in host.parts] == ["aa", "bb"]
    host.run.feed(named(9, "/slice/aa", printed=True))
    host.settle()
    assert 9 not in [victim.pid for kill in host.run.kills for victim in kill.victims]


def test_a_name_is_of_no_sum_that_was_told_before_the_kill() -> None:
    host = Host("aa", "bb")
    host.killed("bb")
    host.gone("aa", "bb")
    host.begun_anew("aa")
    host.killed("aa")
    host.run.feed(named(7, "/slice/aa", time=host.kernel.time, printed=True))
    host.settle()
    assert host.placed(1) == []
    assert host.run.kills[-1].victim_cgroup_id == host.nodes["aa"].cgroup.id
    assert [victim.pid for victim in host.run.kills[-1].victims] == [7]


def test_a_word_after_a_restart_is_on_the_kill_that_was_told_before() -> None:
    host = Host("aa", "bb")
    host.killed("aa")
    host.read("aa")
    host.killed("bb")
    host.gone("aa", "bb")
    host.run.start(resumed=True)
    for name in ("aa", "bb"):
        host.begun(name)
    host.run.correlator.recall(host.entries, host.run.now)
    host.run.feed(*(CgroupRemoved(node.cgroup, host.kernel.time) for node in host.nodes.values()))
    host.says_oom("aa")
    host.says_oom("bb")
    assert host.placed(1) == ["/slice/aa"]
    assert host.placed(2) == ["/slice/bb"]


def lives_of_one_path() -> Host:
    """`aa` ended without a kill, and was killed in its next life, which is gone unread too."""
    host = Host("aa", "bb")
    host.kernel.remove(host.nodes["aa"])
    host.run.feed(CgroupRemoved(host.nodes["aa"].cgroup, host.kernel.time))
    host.kernel.time += SECOND
    host.begun_anew("aa")
    host.killed("aa", "bb")
    host.kernel.time += SECOND
    return host


def test_a_name_in_a_sum_is_of_the_life_that_was_there_then() -> None:
    host = lives_of_one_path()
    killed_at = host.kernel.time
    host.gone("aa", "bb")
    (kill,) = host.run.kills
    assert kill.candidates == ("/slice/aa", "/slice/aa", "/slice/bb")
    host.run.feed(named(7, "/slice/aa", time=killed_at, seen_time=host.kernel.time, printed=True))
    host.settle()
    part = host.run.kills[-1]
    assert (part.victim_cgroup, part.victim_cgroup_id) == (
        "/slice/aa",
        host.nodes["aa"].cgroup.id,
    )


def test_a_kill_that_is_told_by_its_name_is_of_the_life_that_was_there_then() -> None:
    host = lives_of_one_path()
    nodes = [host.nodes[name] for name in ("aa", "bb")]
    for node in nodes:
        host.kernel.remove(node)
    host.run.feed(named(7, "/slice/aa", time=host.kernel.time, printed=True))
    host.run.feed(*(CgroupRemoved(node.cgroup, host.kernel.time) for node in nodes))
    host.settle()
    kill = host.run.kills[0]
    assert kill.survivor_cgroup is not None
    assert [victim.pid for victim in kill.victims] == [7]
    assert kill.victim_cgroup_id == host.nodes["aa"].cgroup.id
