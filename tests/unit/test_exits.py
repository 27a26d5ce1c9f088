"""One exit for each life: after its kills, as soon as it can be judged, amended by what is late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oomwatch.containers import known_lives
from oomwatch.containers.known_lives import KnownLives
from oomwatch.containers.lives import Life
from oomwatch.containers.registry import Containers
from oomwatch.correlator import Correlator
from oomwatch.correlator.exits import (
    AMEND_SECONDS,
    PLACE_SECONDS,
    RUNTIME_SECONDS,
    WORKER_SECONDS,
    book,
    kills,
)
from oomwatch.correlator.exits.book import _long_before
from oomwatch.correlator.exits.ends import End
from oomwatch.correlator.exits.witnesses import ExitWitnesses
from oomwatch.correlator.exits.words import Exit
from oomwatch.correlator.kills import SETTLE_SECONDS, Outcome
from oomwatch.events import (
    Cgroup,
    Confidence,
    Container,
    ContainerExit,
    Event,
    Evidence,
    OomKill,
    Scope,
    Task,
    Verdict,
    Victim,
)
from oomwatch.ledger import Ledger
from oomwatch.observations import (
    Audit,
    AuditReading,
    CgroupRemoved,
    ClockStepped,
    ContainerEnded,
    ContainerSeen,
    CounterReading,
    Counters,
    Describe,
    ExitFound,
    FindExit,
    FindSandbox,
    FollowUsage,
    LastLook,
    LastLookReading,
    LineageMember,
    LineageReading,
    Look,
    Observation,
    ProcessesSeen,
    Question,
    ReadSandboxLog,
    Recorded,
    Resident,
    SandboxLogRead,
    SandboxSeen,
    SignalledByKiller,
    SubtreeCount,
    Surveyed,
    UsageSampled,
    VictimNamed,
)
from oomwatch.verdict import ExitEvidence
from oomwatch.verdict.words import STILL_DUE

BOOT = "0b9e5a8c-0000-4000-8000-000000000000"
ID = "ee12" * 16
START = 1_700_000_000_000_000
WAIT_SECONDS = 0.05
CONFIRMED, HIGH = Confidence.CONFIRMED, Confidence.HIGH


class Host:
    """A correlator, the counters that it asks for, and a journal that writes when it is told to."""

    def __init__(
        self, *, writes: bool = True, counted: bool = True, containers: Containers | None = None
    ) -> None:
        self.now = 100.0
        self.leapt = 0.0
        self.writes = writes
        self.root = Cgroup(1, "", None)
        self.kills: dict[Cgroup, int] = {}
        self.sums: dict[Cgroup, int] = {}
        self.node_kills = 0
        self.marks: tuple[tuple[str, str], ...] = ()
        self.runs = False
        self.sandbox_wrote: dict[str, Any] = {}
        self.journal: list[Event] = []
        self.written = self.deleted = 0
        self.ids = 1
        self.asked: list[FindSandbox] = []
        self.followed: list[FollowUsage] = []
        self.lagging: type[Question] | None = None
        self.unanswered: list[Question] = []
        self.correlator = Correlator(BOOT, Ledger(), counted=counted, containers=containers)
        self.correlator.expect(frozenset({"kernel_log"}))
        self.say(CounterReading(self.root, 0, START, Counters(), 0))
        self.say(Surveyed(frozenset({1}), self.root, START))
        self.pass_time(10)

    @property
    def wall(self) -> int:
        return START + round((self.now - 100 + self.leapt) * 1e6)

    def make(self, name: str, parent: Cgroup | None = None) -> Cgroup:
        self.ids += 1
        cgroup = Cgroup(self.ids, name, parent or self.root)
        self.kills[cgroup] = 0
        return cgroup

    def run(
        self, name: str = ID, *, source: str = "docker", pid: int | None = 395, **more: Any
    ) -> Cgroup:
        cgroup = self.make(name)
        self.seen(cgroup, name, source=source, pid=pid, **more)
        return cgroup

    def seen(self, cgroup: Cgroup, name: str, *, source: str = "worker", **more: Any) -> None:
        container = Container(id=name, handler=more.pop("handler", None))
        self.say(
            ContainerSeen(
                source=source,
                time=self.wall,
                container=container,
                cgroup=cgroup.path,
                cgroup_id=cgroup.id,
                **more,
            )
        )

    def heard_of(self, source: str, **more: Any) -> None:
        """A source speaks of the container, and cannot say in which cgroup's life it is."""
        container = Container(id=ID)
        self.say(ContainerSeen(source=source, time=self.wall, container=container, **more))

    def kill(self, cgroup: Cgroup, pid: int | None = None, *, told: bool = True) -> None:
        self.kills[cgroup] += 1
        for ancestor in cgroup.lineage():
            self.sums[ancestor] = self.sums.get(ancestor, 0) + 1
        self.node_kills += 1
        if told:
            self.say(self.reading(cgroup))
        if pid is not None:
            self.name(cgroup, pid)

    def name(
        self,
        cgroup: Cgroup,
        pid: int,
        time: int | None = None,
        *,
        source: str = "kernel_log",
        limit: str | None = None,
    ) -> None:
        """A witness names who was killed, now unless it was earlier: it may be read long after.

        Whose limit it was the log alone prints: the victim's own cgroup's, unless another's.
        """
        self.say(
            VictimNamed(
                source=source,
                sequence=pid,
                time=self.wall if time is None else time,
                seen_time=self.wall,
                victim=Victim(pid=pid, comm="hog"),
                detail="Killed process",
                cgroup=cgroup.path,
                printed=source == "kernel_log",
                limit_cgroup=(limit or cgroup.path) if source == "kernel_log" else None,
            )
        )

    def remove(self, cgroup: Cgroup) -> None:
        del self.kills[cgroup]
        self.say(CgroupRemoved(cgroup, self.wall))

    def ended(self, code: int | None = None, *, source: str = "docker", **more: Any) -> None:
        more.setdefault("container_id", ID)
        if source == "worker":
            more.setdefault("wait_seconds", WAIT_SECONDS)
        self.say(ContainerEnded(source=source, time=self.wall, exit_code=code, **more))

    def reading(self, cgroup: Cgroup) -> CounterReading:
        counters = Counters(0, self.kills[cgroup], 0)
        return CounterReading(cgroup, cgroup.id + 1000, self.wall, counters)

    def say(self, *observations: Observation) -> None:
        queue = list(observations)
        while queue:
            self._take(self.correlator.feed(queue.pop(0), self.now), queue)
            if not queue and self.writes:
                queue += self._commit()

    def set_clock(self, seconds: float) -> None:
        self.leapt += seconds
        self.say(ClockStepped(round(seconds * 1e6)))

    def write(self) -> None:
        self.say(*self._commit())

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.correlator.deadline) is not None and due <= end:
            self.now = max(self.now, due)
            queue: list[Observation] = []
            self._take(self.correlator.expire(self.now), queue)
            self.say(*queue, *(self._commit() if self.writes else ()))
        self.now = end

    def _commit(self) -> list[Observation]:
        fresh = list(enumerate(self.journal))[self.written :]
        self.written = len(self.journal)
        return [
            Recorded(event.episode_id, getattr(event, "victim_cgroup", None), number + 1)
            for number, event in fresh
            if isinstance(event, ContainerExit) or (isinstance(event, OomKill) and event.kill_count)
        ]

    def _take(self, outcome: Outcome, queue: list[Observation]) -> None:
        self.journal += outcome.events
        for question in outcome.questions:
            queue += self._answer(question)

    def answer_late(self) -> None:
        self.lagging = None
        for question in self.unanswered:
            self.say(*self._answer(question))

    def _answer(self, question: Question) -> list[Observation]:
        if self.lagging is not None and isinstance(question, self.lagging):
            self.unanswered.append(question)
            return []
        if isinstance(question, LastLook):
            asked = (question.path, question.cgroup_id)
            for cgroup in self.kills:
                if cgroup.path == question.path and question.cgroup_id in (None, cgroup.id):
                    below = [c for c in self.kills if cgroup in c.lineage()]
                    kills = self.kills[cgroup]
                    look = LastLookReading(
                        *asked, self.wall, True, kills, self.marks, populated=self.runs
                    )
                    return [*(self.reading(c) for c in below), look]
            return [LastLookReading(*asked, self.wall, False)]
        if isinstance(question, Describe):
            here = question.cgroup in self.kills
            members = (LineageMember(self.reading(question.cgroup), None),) if here else ()
            return [LineageReading(question.cgroup, members, here, None)]
        if isinstance(question, FindSandbox):
            self.asked.append(question)
            container_id, cgroup_id = question.container_id, question.cgroup_id
            return [
                SandboxSeen(
                    container_id=container_id, cgroup_id=cgroup_id, time=self.wall, sought=True
                )
            ]
        if isinstance(question, ReadSandboxLog):
            container_id, cgroup_id = question.container_id, question.cgroup_id
            return [
                SandboxLogRead(container_id=container_id, cgroup_id=cgroup_id, **self.sandbox_wrote)
            ]
        if isinstance(question, FollowUsage):
            self.followed.append(question)
            return []
        if isinstance(question, FindExit):
            return [self._found(question)]
        if isinstance(question, Look):
            return [self.reading(c) for c in self.kills if c.path == question.path]
        assert isinstance(question, Audit)
        top = question.cgroup
        if top is self.root:
            first = SubtreeCount(top, self.node_kills, self.wall, counts_itself=False)
        elif top in self.kills:
            first = SubtreeCount(top, self.sums.get(top, 0), self.wall)
        else:
            return [AuditReading(top, ())]
        further = [
            SubtreeCount(each, self.sums[each], self.wall)
            for each in self.kills
            if each is not top
            and top in each.lineage()
            and self.sums.get(each, 0) != question.expected.get(each.id, 0)
        ]
        return [*map(self.reading, self.kills), AuditReading(top, (first, *further))]

    def _found(self, question: FindExit) -> ExitFound:
        for number, event in reversed(list(enumerate(self.journal))):
            if isinstance(event, ContainerExit) and number >= self.deleted:
                by_cgroup = question.cgroup_id is not None and (
                    event.container is not None
                    and event.container.id == question.container_id
                    and event.cgroup_id == question.cgroup_id
                )
                if by_cgroup or event.episode_id in question.episode_ids:
                    return ExitFound(question, number + 1, event)
        return ExitFound(question)

    @property
    def exits(self) -> list[ContainerExit]:
        return [event for event in self.journal if isinstance(event, ContainerExit)]

    @property
    def exit(self) -> ContainerExit:
        (only,) = self.exits
        return only


def ruled(event: ContainerExit) -> tuple[str, str]:
    return event.verdict.value, event.confidence.value


def test_an_exit_is_judged_by_a_last_look_at_its_counters() -> None:
    host = Host()
    host.run()
    host.ended(137)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert host.exit.container is not None
    assert (host.exit.container.id, host.exit.exit_code, host.exit.oom_kills) == (ID, 137, 0)


def test_a_kill_that_only_the_last_look_finds_is_told_before_the_exit() -> None:
    host = Host()
    host.kill(host.run(), told=False)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    kill, exit_ = host.journal
    assert isinstance(kill, OomKill)
    assert isinstance(exit_, ContainerExit)
    assert ruled(exit_) == ("oom", "high")
    assert (exit_.kills, exit_.oom_kills) == ((1,), 1)


def test_the_main_process_is_known_by_its_pid() -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=395)
    host.ended(0)
    assert ruled(host.exit) == ("oom", "confirmed")


def test_a_child_is_known_not_to_be_the_main_process() -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=396)
    host.pass_time(0.2)
    host.ended(2)
    assert ruled(host.exit) == ("unknown", "medium")
    assert "the main process was no victim" in " ".join(host.exit.reasons)


def test_a_name_that_comes_after_the_exit_amends_it() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup)
    host.ended(137)
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "high")
    host.name(cgroup, 395)
    host.pass_time(1)
    first, amended = host.exits
    assert ruled(amended) == ("oom", "confirmed")
    assert amended.amends == host.journal.index(first) + 1
    assert (amended.episode_id, amended.oom_kills) == (first.episode_id, 1)


def test_a_name_that_is_due_is_awaited_for_a_moment() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup)
    host.pass_time(SETTLE_SECONDS)
    host.ended(137, source="worker")
    assert not host.exits
    host.name(cgroup, 395)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("oom", "confirmed")


def assert_the_name_is_due_until_it_comes(host: Host, cgroup: Cgroup) -> None:
    assert ruled(host.exit) == ("oom", "high")
    assert host.exit.reasons[-1].startswith(f"{STILL_DUE}the name")
    host.name(cgroup, 395)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")
    assert not host.exits[-1].reasons[-1].startswith(STILL_DUE)


def test_a_name_that_is_due_as_the_caller_must_be_answered_is_said_to_be() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert_the_name_is_due_until_it_comes(host, cgroup)


def test_a_limit_that_the_log_names_after_the_exit_was_told_amends_it() -> None:
    """The tracepoint was read at once, and says who it was; the log, read later, at whose limit."""
    host = Host()
    pod = host.make("pod")
    cgroup = host.make(ID, pod)
    host.seen(cgroup, ID, source="docker", pid=395)
    host.kill(cgroup)
    host.name(cgroup, 395, source="tracepoint")
    host.pass_time(SETTLE_SECONDS)
    host.ended(137, source="worker")
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "confirmed")
    host.name(cgroup, 395, limit=pod.path)
    host.pass_time(1)
    first, amended = host.exits
    assert (amended.amends, ruled(amended)) == (host.journal.index(first) + 1, ruled(first))
    assert "hog[395] at the limit of /pod; the main process was a victim" in amended.reasons[1]
    host.ended(137, source="worker")
    host.pass_time(AMEND_SECONDS + 1)
    assert len(host.exits) == 2, "nothing new is told by whoever asks again"


def test_a_name_is_due_also_where_nobody_told_the_main_process() -> None:
    """Who had begun before all others in the cgroup is it, and the name says which that was."""
    host = Host()
    cgroup = host.run(pid=None)
    first = Resident(pid=395, comm="hog", started=5, oldest=True)
    host.say(ProcessesSeen(cgroup, host.wall, (first,), complete=True))
    host.kill(cgroup)
    host.pass_time(SETTLE_SECONDS)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert_the_name_is_due_until_it_comes(host, cgroup)


def test_a_name_that_never_comes_is_not_said_for_ever_to_be_due() -> None:
    host = Host()
    host.kill(host.run(pid=395))
    host.ended(2, source="worker")
    host.pass_time(AMEND_SECONDS)
    assert host.exit.reasons[-1].startswith(f"{STILL_DUE}the name")
    host.pass_time(1)
    settled = host.exits[-1]
    assert (len(host.exits), settled.amends) == (2, host.journal.index(host.exits[0]) + 1)
    assert (ruled(settled), settled.reasons) == (ruled(host.exits[0]), host.exits[0].reasons[:-1])
    assert host.correlator.deadline is None


def test_each_life_of_a_container_has_its_own_exit() -> None:
    host = Host()
    for life in range(3):
        cgroup = host.run(pid=395 + life)
        if life == 1:
            host.kill(cgroup, pid=396)
        host.ended(137 if life == 1 else 1, cgroup_id=cgroup.id)
        host.pass_time(0.1)
        host.remove(cgroup)
        host.pass_time(5)
    assert [ruled(exit_) for exit_ in host.exits] == [
        ("not_oom", "confirmed"),
        ("oom", "confirmed"),
        ("not_oom", "confirmed"),
    ]
    assert len({exit_.cgroup_id for exit_ in host.exits}) == 3


@pytest.mark.parametrize("told", ["by its init", "by its time"])
def test_an_end_of_an_earlier_life_is_not_of_the_one_that_runs(told: str) -> None:
    """Its runtime could not say where it had been: that it ran anew was seen before its end."""
    host = Host()
    gone = host.make(ID)
    before = host.wall
    host.pass_time(1)
    running = host.run(pid=396, start_time=host.wall)
    word: dict[str, Any] = {"pid": 395} if told == "by its init" else {"exit_time": before}
    host.ended(137, **word)
    host.pass_time(PLACE_SECONDS)
    assert not host.exits, "nobody knows of another life so far"
    host.remove(gone)
    host.ended(137, **word)
    host.pass_time(PLACE_SECONDS)
    assert host.exit.cgroup_id == gone.id
    host.ended(0, cgroup_id=running.id)
    host.pass_time(1)
    assert [exit_.cgroup_id for exit_ in host.exits] == [gone.id, running.id]


def test_an_end_that_is_dated_before_its_own_start_is_no_others() -> None:
    """Docker dates the start of what lives shortly when that has returned."""
    host = Host()
    cgroup = host.run(start_time=host.wall + 20_000)
    host.ended(0, exit_time=host.wall)
    host.pass_time(PLACE_SECONDS)
    assert host.exit.cgroup_id == cgroup.id


def test_an_end_is_not_anothers_because_a_worker_told_another_pid() -> None:
    host = Host()
    cgroup = host.run(source="worker", pid=400)
    host.ended(137, source="containerd", pid=395)
    host.pass_time(WORKER_SECONDS + 1)
    assert host.exit.cgroup_id == cgroup.id


def test_without_cgroups_an_end_that_is_read_after_the_next_start_is_told() -> None:
    host = Host(counted=False)
    for seconds in (0, 10):
        host.say(
            ContainerSeen(
                source="docker",
                time=host.wall,
                container=Container(id=ID),
                start_time=host.wall + seconds * 1_000_000,
            )
        )
    host.ended(137, exit_time=host.wall + 5_000_000)
    host.pass_time(1)
    assert host.exit.exit_code == 137


def test_a_life_that_was_gone_before_its_runtime_looked_has_the_exit_that_is_told_of_it() -> None:
    """Of three lives the first ended at once: only who watched its cgroup knows which it was."""
    host = Host()
    gone = host.make(ID)
    host.remove(gone)
    host.heard_of("docker")
    second = host.run()
    host.ended(1)
    host.pass_time(2)
    host.kill(second, 395)
    host.remove(second)
    host.ended(137, cgroup_id=second.id)
    third = host.run()
    host.pass_time(3)
    host.remove(third)
    host.ended(1)
    host.pass_time(3)
    exits = [e for e in host.journal if isinstance(e, ContainerExit) and e.amends is None]
    assert [(e.cgroup_id, e.exit_code) for e in exits] == [
        (gone.id, 1),
        (second.id, 137),
        (third.id, 1),
    ]
    assert [e.verdict for e in exits] == [Verdict.NOT_OOM, Verdict.OOM, Verdict.NOT_OOM]


@pytest.mark.parametrize("first", ["containerd", "docker"])
def test_two_runtimes_words_on_one_end_are_one_exit_though_one_knows_no_cgroup(first: str) -> None:
    """A life that ended at once was gone before containerd's word on it could be placed."""
    host = Host()
    host.heard_of("containerd")
    cgroup = host.make(ID)
    words: dict[str, dict[str, Any]] = {
        "containerd": {},
        "docker": {"cgroup_id": cgroup.id},
    }
    second = "docker" if first == "containerd" else "containerd"
    if first == "containerd":
        host.ended(1, source=first, **words[first])
        host.pass_time(1)
        host.seen(cgroup, ID, source="docker")
    else:
        host.seen(cgroup, ID, source="docker")
        host.ended(1, source=first, **words[first])
        host.pass_time(1)
    host.ended(1, source=second, **words[second])
    host.pass_time(1)
    exits = [event for event in host.journal if isinstance(event, ContainerExit)]
    assert len([exit_ for exit_ in exits if exit_.amends is None]) == 1
    host.ended(1, source="containerd", cgroup_id=host.run(source="docker").id)
    host.pass_time(1)
    exits = [event for event in host.journal if isinstance(event, ContainerExit)]
    assert len([exit_ for exit_ in exits if exit_.amends is None]) == 2, (
        "another life, another exit"
    )


def test_an_end_that_came_before_its_life_was_placed_waits_for_the_removal_that_places_it() -> None:
    """containerd tells of the end before it has the cgroup removed, and nobody could look it up."""
    host = Host()
    host.heard_of("containerd")
    cgroup = host.make(ID)
    host.kill(cgroup, 395)
    host.ended(137, source="containerd")
    host.pass_time(2)
    assert not host.exits
    host.remove(cgroup)
    host.pass_time(RUNTIME_SECONDS)
    assert (host.exit.cgroup_id, host.exit.oom_kills) == (cgroup.id, 1)
    assert "its cgroup was gone" in " ".join(host.exit.reasons)
    host.ended(137, source="docker")
    host.pass_time(1)
    assert len(host.exits) == 1, "Docker's word is of the same end"


def test_an_end_that_was_told_of_no_cgroup_is_amended_when_that_is_found() -> None:
    host = Host()
    host.heard_of("containerd")
    cgroup = host.make(ID)
    host.ended(137, source="containerd")
    host.pass_time(PLACE_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    assert host.exit.cgroup_id is None
    assert STILL_DUE not in " ".join(host.exit.reasons), "it was waited for as long as it may take"
    host.remove(cgroup)
    host.pass_time(RUNTIME_SECONDS)
    first, amended = host.exits
    assert amended.amends == host.journal.index(first) + 1
    assert amended.cgroup_id == cgroup.id
    assert ruled(amended) == ("not_oom", "confirmed")
    assert STILL_DUE not in " ".join(amended.reasons)
    second = host.run()
    host.ended(1, cgroup_id=second.id)
    host.pass_time(1)
    assert [exit_.amends for exit_ in host.exits][2:] == [None], "another life, another exit"


@pytest.mark.parametrize("cgroup", [None, f"/docker/{ID}"])
def test_lives_that_no_inode_tells_apart_have_an_exit_each(cgroup: str | None) -> None:
    host = Host(counted=False)
    for code in (1, 137, 3):
        host.heard_of("docker", cgroup=cgroup, pid=300 + code)
        host.pass_time(1)
        host.ended(code)
        host.pass_time(120)
    assert [(exit_.exit_code, exit_.amends) for exit_ in host.exits] == [
        (1, None),
        (137, None),
        (3, None),
    ]
    assert len({exit_.episode_id for exit_ in host.exits}) == 3


def test_an_end_that_its_runtime_repeats_is_not_the_next_lifes() -> None:
    host = Host(counted=False)
    host.heard_of("docker")
    host.ended(137)
    word = ContainerEnded(source="docker", time=host.wall, container_id=ID, exit_code=137)
    host.pass_time(2)
    host.heard_of("docker")
    host.pass_time(1)
    host.say(word)
    host.pass_time(1)
    assert len(host.exits) == 1


@pytest.mark.parametrize("killed", [False, True], ids=["clean", "killed in"])
@pytest.mark.parametrize(
    ("code", "said"),
    [(137, {}), (137, {"oom_killed": True}), (137, {"stop_requested": True}), (143, {}), (1, {})],
)
def test_nothing_is_held_against_a_cgroup_whose_removal_may_yet_tell_which_it_was(
    code: int, said: dict[str, Any], killed: bool
) -> None:
    host = Host()
    host.heard_of("docker")
    cgroup = host.make(ID)
    if killed:
        host.kill(cgroup, told=False)
    host.ended(code, source="worker", **said)
    assert not host.exits, "its caller waits for the removal"
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    assert host.exit.reasons[-1].startswith(f"{STILL_DUE}in which cgroup it was")
    host.remove(cgroup)
    host.pass_time(1)
    amended = host.exits[-1]
    assert (amended.cgroup_id, amended.oom_kills) == (cgroup.id, int(killed))
    assert killed or ruled(amended) == ("not_oom", "confirmed")
    assert STILL_DUE not in " ".join(amended.reasons[:-1])
    assert {e.episode_id for e in host.exits} == {host.exits[0].episode_id}


@pytest.mark.parametrize(
    ("code", "verdict"), [(143, "not_oom"), (1, "unknown"), (0, "not_oom"), (137, "unknown")]
)
@pytest.mark.parametrize("wait", [0.0, WAIT_SECONDS, 4 * PLACE_SECONDS])
def test_a_removal_that_did_not_come_in_time_is_due_no_more(
    code: int, verdict: str, wait: float
) -> None:
    host = Host()
    host.heard_of("docker")
    host.ended(code, source="worker", wait_seconds=wait)
    host.pass_time(PLACE_SECONDS - 0.1)
    assert [STILL_DUE in " ".join(e.reasons) for e in host.exits] == [True][: wait < PLACE_SECONDS]
    host.pass_time(0.2)
    assert ruled(host.exits[-1]) == (verdict, "low")
    assert STILL_DUE not in " ".join(host.exits[-1].reasons)
    told = len(host.exits)
    host.pass_time(AMEND_SECONDS)
    assert len(host.exits) == told


def test_a_removal_within_the_callers_wait_is_the_first_answer() -> None:
    host = Host()
    host.heard_of("docker")
    cgroup = host.make(ID)
    host.kill(cgroup)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS / 5)
    host.remove(cgroup)
    host.pass_time(WAIT_SECONDS)
    assert {e.verdict for e in host.exits} == {Verdict.OOM}


def test_two_lives_that_were_placed_after_their_exits_are_amended_each_for_itself() -> None:
    host = Host()
    placed = []
    for code in (137, 1):
        host.heard_of("containerd")
        cgroup = host.make(ID)
        placed.append(cgroup.id)
        host.ended(code, source="containerd")
        host.pass_time(PLACE_SECONDS)
        host.remove(cgroup)
        host.pass_time(RUNTIME_SECONDS)
    first, amended, second, its_amended = host.exits
    assert [e.cgroup_id for e in host.exits] == [None, placed[0], None, placed[1]]
    assert first.episode_id == amended.episode_id != second.episode_id
    assert second.episode_id == its_amended.episode_id
    assert its_amended.amends == host.journal.index(second) + 1


def test_an_exit_of_no_known_cgroup_before_a_restart_is_not_the_next_lifes() -> None:
    host = Host(counted=False)
    host.heard_of("docker")
    host.ended(1)
    host.pass_time(10)
    lives = host.correlator.containers.lives.take_changes().kept
    again = Host(counted=False, containers=Containers(lives))
    again.correlator.exits.recall(1, host.exit)
    again.now = host.now
    life = again.correlator.containers.lives.newest(ID)
    assert life is not None
    assert again.correlator.exits.answer(life.key) == (1, host.exit)
    again.heard_of("docker")
    again.ended(137)
    again.pass_time(10)
    assert (again.exit.exit_code, again.exit.amends) == (137, None)
    assert again.exit.episode_id != host.exit.episode_id


def test_an_exit_that_was_placed_before_a_restart_is_one_exit_after_it() -> None:
    host = Host()
    host.heard_of("containerd")
    cgroup = host.make(ID)
    host.ended(137, source="containerd")
    host.pass_time(PLACE_SECONDS)
    host.remove(cgroup)
    host.pass_time(RUNTIME_SECONDS)
    again = Host()
    for number, event in enumerate(host.journal):
        again.correlator.exits.recall(number + 1, event)
    assert again.correlator.exits.answer((ID, cgroup.id)) == (2, host.exits[-1])


def test_the_end_of_what_was_created_anew_and_was_gone_before_its_start_was_read_is_told() -> None:
    """Of what containerd starts with --rm only the creation may be read in time."""
    host = Host()
    first = host.run(source="containerd", pid=395)
    host.ended(0, source="containerd", cgroup_id=first.id, pid=395)
    host.pass_time(1)
    host.remove(first)
    host.heard_of("containerd", created=True)
    host.ended(1, source="containerd", pid=396)
    host.pass_time(PLACE_SECONDS)
    assert [(one.cgroup_id, one.exit_code) for one in host.exits] == [(first.id, 0), (None, 1)]


def test_an_end_that_is_looked_at_again_is_amended_once_and_after_its_kill() -> None:
    host = Host()
    host.heard_of("containerd")
    cgroup = host.make(ID)
    host.kill(cgroup, told=False)
    host.ended(137, source="containerd")
    host.pass_time(PLACE_SECONDS)
    host.remove(cgroup)
    host.ended(137, source="docker", stop_requested=False)
    assert len(host.exits) == 1
    host.pass_time(RUNTIME_SECONDS)
    _, kill, amended = host.journal
    assert isinstance(kill, OomKill)
    assert isinstance(amended, ContainerExit)
    assert (amended.verdict, amended.oom_kills) == (Verdict.OOM, 1)


def test_the_next_life_is_not_taken_for_the_one_that_was_never_placed() -> None:
    host = Host()
    host.heard_of("containerd")
    host.ended(1, source="containerd")
    host.pass_time(PLACE_SECONDS)
    cgroup = host.run(source="docker")
    host.pass_time(1)
    assert host.exit.cgroup_id is None
    host.say(SignalledByKiller(time=host.wall, killer="earlyoom", pid=1, mark="a line"))
    assert len(host.exits) == 1, "it is judged again, and as the life that it is of"
    host.ended(0, cgroup_id=cgroup.id)
    host.pass_time(1)
    assert [exit_.cgroup_id for exit_ in host.exits] == [None, cgroup.id]


def test_a_worker_waits_no_longer_for_an_end_that_is_held_for_its_place() -> None:
    host = Host()
    host.heard_of("containerd")
    life = host.correlator.containers.lives.newest(ID)
    assert life is not None
    key = life.key
    cgroup = host.make(ID)
    host.ended(137, source="containerd")
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    first = host.correlator.exits.answer(key)
    assert first is not None
    host.remove(cgroup)
    host.pass_time(1)
    found = host.correlator.exits.answer(key)
    assert found is not None
    assert found[1].cgroup_id == cgroup.id, "who asked before it was placed is answered as well"


def test_a_kill_that_a_stalled_daemon_counted_long_after_may_have_been_the_exit() -> None:
    host = Host()
    cgroup = host.run()
    exit_time = host.wall
    host.pass_time(6)
    host.kill(cgroup)
    host.ended(137, exit_time=exit_time)
    host.pass_time(RUNTIME_SECONDS)
    assert host.exit.verdict is Verdict.OOM
    assert "after it" not in " ".join(host.exit.reasons)


@pytest.mark.parametrize("pid", [395, None])
@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_wall_clock_that_is_set_parts_no_kill_from_its_exit(
    seconds: float, pid: int | None
) -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=pid)
    host.pass_time(0.1)
    host.set_clock(seconds)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert host.exit.verdict is Verdict.OOM
    assert any("0.1 s before" in r or "0.0 s before" in r for r in host.exit.reasons)
    host.set_clock(-seconds)
    host.ended(137)
    host.pass_time(1)
    assert len(host.exits) == 1, "a word by another clock makes it no other exit"


def test_a_wall_clock_that_is_set_back_makes_no_nested_kill_older_than_its_container() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.set_clock(-3600)
    host.kill(host.make("system.slice", cgroup), pid=400)
    host.ended(137)
    assert ruled(host.exit) == ("oom", "high")


def test_a_kill_long_before_a_wall_clock_is_set_stays_long_before() -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=396)
    host.pass_time(300)
    host.set_clock(3600)
    host.ended(137)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_an_old_kill_is_counted_and_not_blamed() -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=400)
    host.pass_time(90)
    host.ended(0)
    assert ruled(host.exit) == ("not_oom", "high")
    assert (host.exit.kills, host.exit.oom_kills) == ((), 1)


def test_more_kills_than_are_kept_in_full_are_counted_all_the_same() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    for pid in range(1000, 1100):
        host.kill(cgroup, pid=pid)
        host.pass_time(3)
    host.ended(0)
    assert host.exit.oom_kills == 100


def test_a_cgroup_that_is_gone_is_judged_by_the_sums_above_it() -> None:
    host = Host()
    host.remove(host.run())
    host.pass_time(3)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert "its cgroup was gone" in " ".join(host.exit.reasons)


@pytest.mark.parametrize("late", [LastLook, Audit])
def test_what_is_read_after_the_callers_wait_amends(late: type[Question]) -> None:
    host = Host()
    cgroup = host.run()
    if late is Audit:
        host.remove(cgroup)
        host.pass_time(3)
    host.lagging = late
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    host.answer_late()
    host.pass_time(1)
    first, amended = host.exits
    assert ruled(amended) == ("not_oom", "confirmed")
    assert amended.amends == host.journal.index(first) + 1


@pytest.mark.parametrize("late", [LastLook, Audit])
@pytest.mark.parametrize(
    ("code", "said"),
    [(137, {"oom_killed": True}), (137, {"stop_requested": True}), (143, {}), (139, {})],
)
def test_nothing_is_held_against_counters_that_are_due(
    code: int, said: dict[str, Any], late: type[Question]
) -> None:
    """Docker's flag is of any process at any time, and a stop proves no kill wrong."""
    host = Host()
    cgroup = host.run()
    if late is Audit:
        host.remove(cgroup)
        host.pass_time(3)
    host.lagging = late
    host.ended(code, source="worker", **said)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    assert any(reason.startswith(STILL_DUE) for reason in host.exit.reasons)
    host.answer_late()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "confirmed")
    assert not any(reason.startswith(STILL_DUE) for reason in host.exits[-1].reasons)


def test_of_counters_that_never_come_it_is_not_said_for_ever_that_they_are_due() -> None:
    host = Host()
    host.run()
    host.lagging = LastLook
    host.ended(143, source="worker")
    host.pass_time(AMEND_SECONDS + 1)
    host.say()
    host.heard_of("docker")
    assert ruled(host.exits[-1]) == ("not_oom", "low")
    assert not any(reason.startswith(STILL_DUE) for reason in host.exits[-1].reasons)


def test_a_caller_that_does_not_wait_is_told_what_can_be_read_at_once() -> None:
    host = Host()
    host.kill(host.run(), told=False)
    host.ended(137, source="worker", wait_seconds=0.0)
    host.pass_time(0)
    assert ruled(host.exits[0]) == ("oom", "high")
    host = Host()
    host.run()
    host.ended(137, source="worker", wait_seconds=0.0)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_a_daemon_that_is_late_for_everything_looks_before_it_answers() -> None:
    host = Host()
    cgroup = host.run(pid=None)
    host.kill(cgroup, told=False)
    host.remove(cgroup)
    host.ended(137, source="worker")
    host.now += 2 * WAIT_SECONDS
    host.pass_time(0)
    assert host.exits[0].verdict is Verdict.OOM


def test_a_kill_that_the_sums_show_after_the_callers_wait_amends() -> None:
    host = Host()
    cgroup = host.run()
    host.kill(cgroup, told=False)
    host.remove(cgroup)
    host.lagging = Audit
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    host.answer_late()
    host.pass_time(1)
    assert host.exits[-1].verdict is Verdict.OOM


def test_a_kill_that_only_the_sum_holds_makes_the_exit_wait_for_its_second_look() -> None:
    host = Host()
    cgroup = host.run()
    host.kill(cgroup, told=False)
    host.remove(cgroup)
    host.ended(137)
    assert not host.exits
    host.pass_time(RUNTIME_SECONDS)
    kill, exit_ = host.journal
    assert isinstance(kill, OomKill)
    assert kill.victim_cgroup == cgroup.path
    assert isinstance(exit_, ContainerExit)
    assert exit_.verdict is Verdict.OOM
    assert exit_.confidence is kill.confidence


@pytest.mark.parametrize("seconds", [0.0, SETTLE_SECONDS / 2, SETTLE_SECONDS])
def test_a_doubt_outlives_the_cgroup_that_it_was_about(seconds: float) -> None:
    """A pod's cgroup goes just after its container's."""
    host = Host()
    pod = host.make("pod")
    cgroup = host.make(ID, pod)
    host.seen(cgroup, ID, pid=395)
    host.kill(cgroup, told=False)
    host.remove(cgroup)
    host.ended(137, source="worker")
    assert not host.exits
    host.pass_time(seconds)
    host.remove(pod)
    host.pass_time(1)
    # Which of the two it was in is not known, unless that was told before the pod's went.
    expected = Verdict.OOM if seconds == SETTLE_SECONDS else Verdict.UNKNOWN
    assert {exit_.verdict for exit_ in host.exits} == {expected}
    assert not any(reason.startswith(STILL_DUE) for reason in host.exits[-1].reasons[:-1])
    assert "read since, hold no further kill" in " ".join(host.exits[-1].reasons)


def test_a_sum_that_was_read_before_the_end_clears_nothing() -> None:
    """A long audit goes on in slices: it may have begun before the kill."""
    host = Host()
    cgroup = host.run()
    earlier = AuditReading(
        host.root, (SubtreeCount(host.root, host.node_kills, host.wall, counts_itself=False),)
    )
    host.pass_time(0.001)
    host.kill(cgroup, told=False)
    host.lagging = Audit
    host.remove(cgroup)
    host.ended(137, source="worker")
    host.say(earlier)
    assert not host.exits
    host.answer_late()
    host.pass_time(1)
    assert {exit_.verdict for exit_ in host.exits} == {Verdict.OOM}


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_parts_no_sum_from_the_end_that_it_was_read_after(
    seconds: float,
) -> None:
    host = Host()
    host.remove(host.run())
    host.lagging = Audit
    host.ended(137)
    host.set_clock(seconds)
    host.answer_late()
    host.pass_time(0.1)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_a_kill_that_may_be_anothers_is_not_taken_for_certain() -> None:
    host = Host()
    mine, other = host.run(pid=None), host.run("b" * 64, pid=None)
    host.kill(mine, told=False)
    host.remove(mine)
    host.remove(other)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")


def test_a_kill_in_a_nested_cgroup_is_the_containers() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    nested = host.make("system.slice", cgroup)
    host.kill(nested, pid=400)
    host.ended(137)
    assert ruled(host.exit) == ("oom", "high")


def test_the_limit_of_a_nested_cgroup_is_not_called_the_containers_own() -> None:
    host = Host()
    nested = host.make("app.service", host.run(pid=395))
    host.kill(nested, pid=400)
    host.ended(137)
    assert f"at the limit of /{ID}/app.service in it" in " ".join(host.exit.reasons)


def test_a_kill_that_is_told_for_its_exits_sake_has_its_container() -> None:
    host = Host()
    host.lagging = Describe
    host.kill(host.run())
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    kill, *exits = host.journal
    assert isinstance(kill, OomKill)
    assert [event.container for event in (kill, *exits)] == [Container(id=ID)] * 3


@pytest.mark.parametrize("pid", [395, None])
def test_the_first_process_of_a_nested_cgroup_is_not_the_containers_main_process(
    pid: int | None,
) -> None:
    host = Host()
    cgroup = host.run(pid=pid)
    nested = host.make("app.service", cgroup)
    first = Resident(pid=500, comm="hog", started=5, oldest=True)
    host.say(ProcessesSeen(nested, host.wall, (first,), complete=True))
    host.kill(nested, pid=500)
    host.ended(0, cgroup_id=cgroup.id)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("not_oom", "high")


def test_the_main_process_of_a_container_in_a_container_is_not_the_outer_ones() -> None:
    host = Host()
    outer = host.run(pid=395)
    inner = host.make("b" * 64, outer)
    host.seen(inner, "b" * 64, pid=500)
    host.kill(inner, pid=500)
    host.ended(0, cgroup_id=outer.id)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("not_oom", "high")


def test_a_siblings_kill_is_nobody_elses() -> None:
    host = Host()
    host.run(pid=395)
    host.kill(host.run("b" * 64, pid=500), pid=500)
    host.ended(137)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_of_a_shared_cgroup_a_pid_decides_whose_the_kill_is() -> None:
    host = Host()
    cgroup = host.make("pod")
    host.seen(cgroup, ID, pid=395)
    host.seen(cgroup, "b" * 64, pid=500)
    host.kill(cgroup, pid=500)
    host.ended(137, source="worker")
    host.ended(137, source="worker", container_id="b" * 64)
    mine, other = host.exits
    assert ruled(mine) == ("not_oom", "confirmed")
    assert ruled(other) == ("oom", "confirmed")


def test_of_a_shared_cgroup_a_kill_without_a_name_is_one_of_several() -> None:
    host = Host()
    cgroup = host.make("pod")
    host.seen(cgroup, ID, pid=395)
    host.seen(cgroup, "b" * 64, pid=500)
    host.kill(cgroup)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")
    assert "one of 2" in " ".join(host.exit.reasons)


def test_of_a_shared_cgroup_a_process_that_nobody_told_of_may_be_anyones() -> None:
    host = Host()
    cgroup = host.make("pod")
    host.seen(cgroup, ID, pid=395)
    host.seen(cgroup, "b" * 64, pid=500)
    host.kill(cgroup, pid=777)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")


def turns(host: Host, *, code: int, killed: bool) -> Cgroup:
    """A worker's first container has run and ended in a cgroup that it keeps."""
    cgroup = host.make("slot")
    host.seen(cgroup, ID, pid=395)
    if killed:
        host.kill(cgroup)
    host.ended(code, source="worker")
    host.pass_time(WAIT_SECONDS)
    return cgroup


def last_told(host: Host) -> list[ContainerExit]:
    """Each container's exit as it was amended to."""
    return list({exit_.episode_id: exit_ for exit_ in host.exits}.values())


def test_what_was_killed_in_a_cgroup_before_is_not_the_next_ones_there() -> None:
    host = Host()
    cgroup = turns(host, code=137, killed=True)
    host.seen(cgroup, "b" * 64, pid=500)
    host.ended(137, source="worker", container_id="b" * 64)
    host.pass_time(60)
    first, second = last_told(host)
    assert ruled(first) == ("oom", "high")
    assert (ruled(second), second.oom_kills) == (("not_oom", "confirmed"), 0)


def test_what_is_killed_at_ones_turn_in_a_cgroup_is_its_own() -> None:
    host = Host()
    cgroup = turns(host, code=137, killed=False)
    host.seen(cgroup, "b" * 64, pid=500)
    host.kill(cgroup)
    host.ended(137, source="worker", container_id="b" * 64)
    host.pass_time(1)
    # A third one changes neither.
    host.seen(cgroup, "c" * 64, pid=600)
    host.kill(cgroup)
    host.ended(137, source="worker", container_id="c" * 64)
    host.pass_time(60)
    assert [ruled(exit_) for exit_ in last_told(host)] == [
        ("not_oom", "confirmed"),
        ("oom", "high"),
        ("oom", "high"),
    ]
    kills = [event for event in host.journal if isinstance(event, OomKill)]
    assert [kill.container and kill.container.id[0] for kill in kills] == ["b", "c"]
    assert [exit_.oom_kills for exit_ in last_told(host)] == [0, 1, 1]


def test_a_kill_between_two_turns_in_a_cgroup_may_be_of_the_next_one() -> None:
    """It may have begun before it was registered; or something was left of the one before."""
    host = Host()
    cgroup = turns(host, code=137, killed=False)
    host.kill(cgroup)
    host.pass_time(0.01)
    host.seen(cgroup, "b" * 64, pid=500)
    host.ended(137, source="worker", container_id="b" * 64)
    host.pass_time(60)
    first, second = last_told(host)
    assert ruled(first) == ("not_oom", "confirmed")
    assert ruled(second) == ("unknown", "medium")
    assert "one of 2" in " ".join(second.reasons)


def test_a_name_that_comes_late_leaves_a_kill_with_whom_it_was_at_the_time() -> None:
    host = Host()
    cgroup = host.make("slot")
    host.seen(cgroup, ID, pid=395)
    host.kill(cgroup)
    then = host.wall
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    host.seen(cgroup, "b" * 64, pid=500)
    host.name(cgroup, 395, then)
    host.pass_time(1)
    kills = [event for event in host.journal if isinstance(event, OomKill)]
    assert [kill.container and kill.container.id for kill in kills] == [ID, ID]
    assert ruled(host.exits[-1]) == ("oom", "confirmed")


def test_of_what_is_registered_in_the_root_no_others_kill_is_its_own() -> None:
    host = Host()
    host.seen(host.root, ID, pid=395)
    host.kill(host.make("other"), pid=777)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert host.exit.verdict is not Verdict.OOM
    assert not host.exit.oom_kills


@pytest.mark.parametrize(
    ("pid", "expected"),
    [(395, ("oom", "confirmed")), (777, ("unknown", "medium")), (None, ("unknown", "medium"))],
)
def test_a_kill_that_the_cgroup_above_counted_is_the_containers_by_its_pid_alone(
    pid: int | None, expected: tuple[str, str]
) -> None:
    host = Host()
    above = host.make("jobs")
    host.seen(above, ID, pid=395, counted_above=True)
    host.kill(above, pid=pid)
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == expected


# Who speaks, and when


def test_a_workers_word_is_awaited_for_the_container_that_it_registered() -> None:
    host = Host()
    host.run(source="worker")
    host.ended(137)
    host.pass_time(WORKER_SECONDS - 0.5)
    assert not host.exits
    host.ended(137, source="worker", stop_requested=True)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert "a stop had been asked for" in " ".join(host.exit.reasons)
    assert len(host.exit.evidence) == 3


def test_a_worker_has_five_seconds_for_its_word_whoever_else_speaks_meanwhile() -> None:
    host = Host()
    host.run(source="worker")
    host.ended(137)
    host.pass_time(3)
    host.ended(137, source="containerd")
    host.pass_time(1.9)
    assert not host.exits
    host.pass_time(0.2)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_a_worker_that_says_nothing_is_not_awaited_for_ever() -> None:
    host = Host()
    host.run(source="worker")
    host.ended(137)
    host.pass_time(WORKER_SECONDS + 0.1)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    host.ended(137, source="worker", stop_requested=True)
    first, amended = host.exits
    assert amended.amends == host.journal.index(first) + 1
    assert amended.stop_requested
    assert not first.stop_requested


def test_a_runtime_and_a_worker_that_use_two_ids_speak_of_one_life() -> None:
    host = Host()
    cgroup = host.run(source="docker")
    host.seen(cgroup, "job-1", source="worker")
    host.ended(137)
    host.ended(137, source="worker", container_id="job-1")
    host.pass_time(WORKER_SECONDS + 1)
    assert host.exit.container is not None
    assert host.exit.container.id == "job-1"


def test_what_changes_nothing_is_told_once() -> None:
    host = Host()
    host.kill(host.run(pid=395), pid=395)
    for _ in range(3):
        host.ended(137)
        host.ended(137, source="worker")
        host.pass_time(1)
    assert ruled(host.exit) == ("oom", "confirmed")


def test_asked_again_the_answer_is_the_same_one() -> None:
    host = Host()
    cgroup = host.run(source="worker")
    host.ended(1, source="worker")
    answer = host.correlator.exits.answer((ID, cgroup.id))
    host.ended(1, source="worker")
    host.pass_time(1)
    assert answer == (1, host.exit)
    assert host.correlator.exits.answer((ID, cgroup.id)) == answer


def test_the_exit_waits_for_its_kills_revision_and_names_it() -> None:
    host = Host(writes=False)
    host.kill(host.run(pid=395), pid=395)
    host.ended(137)
    assert not host.exits
    host.write()
    assert host.exit.kills == (1,)


def test_a_disk_that_stands_still_holds_no_exit_back_and_its_kills_are_named_later() -> None:
    host = Host(writes=False)
    host.kill(host.run(pid=395), pid=395)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert host.exit.kills == ()
    assert host.correlator.exits.answer((ID, 2)) is None
    host.write()
    host.write()
    first, amended = host.exits
    assert (first.verdict, amended.kills, amended.amends) == (Verdict.OOM, (1,), 2)


def test_what_is_learned_while_an_exit_is_written_down_amends_it() -> None:
    host = Host(writes=False)
    host.run()
    host.ended(143, source="worker")
    host.ended(stop_requested=True)
    assert not host.exit.stop_requested
    host.write()
    host.write()
    _, amended = host.exits
    assert (amended.amends, amended.stop_requested) == (1, True)


def test_an_exit_has_what_is_known_of_it_gathered_twice_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is asked what is awaited, and when it is told; not again as it is written down."""
    host = Host()
    host.kill(host.run(source="worker", pid=395), pid=395)
    host.pass_time(0.2)
    gathered: list[Exit] = []
    gather = ExitWitnesses.evidence

    def gather_counted(witnesses: ExitWitnesses, exit_: Exit) -> ExitEvidence:
        gathered.append(exit_)
        return gather(witnesses, exit_)

    monkeypatch.setattr(ExitWitnesses, "evidence", gather_counted)
    host.ended(137, source="worker")
    assert ruled(host.exit) == ("oom", "confirmed")
    assert len(gathered) == 2


def test_a_group_that_is_still_being_killed_is_told_before_the_exit_all_the_same() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kills[cgroup] += 3
    members = (LineageMember(host.reading(cgroup), True),)
    host._answer = lambda q: [LineageReading(cgroup, members, True, None)]  # type: ignore[method-assign,assignment]
    host.node_kills += 3
    host.say(host.reading(cgroup))
    del host._answer
    assert not host.journal
    host.ended(137, source="worker", wait_seconds=0.001)
    host.pass_time(0.002)
    assert [event.kind.value for event in host.journal[:2]] == ["oom_kill", "container_exit"]


def test_a_container_that_nobody_knows_has_no_exit() -> None:
    host = Host()
    host.ended(137)
    host.pass_time(10)
    assert not host.journal
    assert host.correlator.exits.life(ID, None) is None


def test_without_counters_137_is_unknown() -> None:
    host = Host(counted=False)
    host.run()
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")


def test_a_container_that_was_there_before_the_watching_is_not_known_from_its_beginning() -> None:
    host = Host()
    cgroup = host.run()
    host.correlator.exits.began(host.wall, cgroup.id)
    host.ended(137)
    assert ruled(host.exit) == ("unknown", "low")


def test_the_mark_of_a_userspace_killer_is_named() -> None:
    host = Host()
    host.run()
    host.marks = (("oomd or systemd-oomd", "user.oomd_kill is 3 on its cgroup"),)
    host.ended(137)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert any("systemd-oomd killed here" in reason for reason in host.exit.reasons)


def test_a_runtime_that_speaks_late_does_not_make_a_kill_look_old() -> None:
    """Docker's `die` was seen 5 s after the cgroup was gone."""
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup)
    host.pass_time(0.2)
    host.remove(cgroup)
    host.pass_time(5)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("oom", "high")


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("seconds", [10, 2 * AMEND_SECONDS])
def test_an_end_that_its_worker_tells_too_soon_is_amended_by_its_runtimes(
    seconds: float, removed: bool
) -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.seen(cgroup, ID)
    host.runs = True
    host.ended(137, source="worker")
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert "processes still ran in its cgroup as that was read" in host.exit.reasons
    host.pass_time(seconds)
    host.kill(cgroup, told=False)
    then = host.wall
    host.runs = False
    if removed:
        host.remove(cgroup)
    host.pass_time(5)
    host.ended(137, exit_time=host.wall - (2_000_000 if removed else 5_000_000))
    host.pass_time(RUNTIME_SECONDS)
    # Of one that is gone it is told by elimination, below a root that has processes of its own.
    assert ruled(host.exits[-1]) == ("oom", "medium" if removed else "high")
    assert {exit_.episode_id for exit_ in host.exits} == {host.exits[0].episode_id}
    host.name(cgroup, 395, then)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")
    told = len(host.exits)
    host.ended(137, source="worker")
    host.ended(137, exit_time=host.wall)
    host.pass_time(AMEND_SECONDS)
    assert len(host.exits) == told


@pytest.mark.parametrize("child", [True, False])
def test_what_lives_on_after_a_kill_is_dying_and_a_late_word_does_not_make_the_kill_old(
    child: bool,
) -> None:
    """A runtime may tell of an end seconds after it, while what the kill left behind still goes."""
    host = Host()
    cgroup = host.run(source="worker", pid=395)
    host.runs = True
    host.kill(cgroup, pid=400 if child else 395)
    host.pass_time(0.2)
    host.ended(137, source="worker")
    first = ruled(host.exit)
    assert first == ("oom", "high" if child else "confirmed")
    host.pass_time(4)
    host.runs = False
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exits[-1]) == first


def test_what_lives_on_beside_a_container_does_not_make_its_end_told_too_soon() -> None:
    """One cgroup for two: that somebody runs in it says nothing of the one that ended."""
    host = Host()
    cgroup = host.run(pid=395)
    host.seen(cgroup, "b2b2", pid=400)
    host.seen(cgroup, ID)
    host.runs = True
    host.kill(cgroup, pid=395)
    host.ended(137, source="worker")
    assert ruled(host.exit) == ("oom", "confirmed")
    host.pass_time(40)
    host.ended(137)
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "confirmed")
    assert "processes still ran" not in " ".join(host.exit.reasons)


def test_what_was_journaled_before_a_restart_answers_as_it_did() -> None:
    host = Host()
    cgroup = host.run(source="worker", pid=395)
    host.kill(cgroup, pid=395)
    host.ended(137, source="worker")
    again = Host()
    again.kills[cgroup] = 1
    for number, event in enumerate(host.journal):
        again.correlator.exits.recall(number + 1, event)
    again.seen(cgroup, ID, pid=395)
    again.ended(137, source="worker")
    again.pass_time(1)
    assert not again.journal
    assert again.correlator.exits.answer((ID, cgroup.id)) == (2, host.exit)


def test_what_a_worker_knows_of_an_exit_before_a_restart_amends_it() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.ended(137, cgroup_id=cgroup.id, oom_killed=False)
    again = Host()
    again.now = host.now + 10
    again.correlator.exits.recall(1, host.exit)
    again.seen(cgroup, ID, pid=395)
    again.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True, stop_signal=15)
    amended = again.exit
    assert (amended.amends, amended.episode_id) == (1, host.exit.episode_id)
    assert ruled(amended) == ("not_oom", "confirmed")
    assert "a stop had been asked for, by SIGTERM" in amended.reasons
    assert amended.reasons[1:] != host.exit.reasons[1:]
    assert amended.exit_time == host.exit.exit_time
    assert [e.detail for e in amended.evidence] == [
        "ended: exit code 137, OOM flag not set",
        "ended: exit code 137, stop signal 15, a stop was asked for",
        f"oom_kill 0 in {cgroup.path}, read after the exit",
    ]
    again.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True)
    again.pass_time(1)
    assert len(again.exits) == 1


def test_a_verdict_whose_evidence_is_lost_with_a_restart_stands_and_its_facts_are_amended() -> None:
    host = Host()
    host.kill(sandboxed(host), pid=500)
    host.ended(0, stop_requested=False)
    again = Host()
    again.now = host.now + 10
    again.correlator.exits.recall(1, host.exit)
    again.heard_of("docker")
    again.ended(0, source="worker", stop_requested=True, cgroup_id=host.exit.cgroup_id)
    assert ruled(again.exit) == ("oom", "confirmed")
    assert (again.exit.kills, again.exit.oom_kills) == (host.exit.kills, 1)
    assert again.exit.stop_requested


def test_a_kill_before_a_restart_counts_for_an_exit_after_it() -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup, pid=395)
    again = Host()
    again.correlator.exits.recall(1, host.journal[0])
    again.now = host.now
    again.seen(cgroup, ID, pid=395)
    again.ended(137, source="worker")
    again.pass_time(1)
    assert again.exit.kills == (1,)
    assert again.exit.verdict is Verdict.OOM


def test_long_after_an_exit_nothing_changes_it() -> None:
    host = Host()
    host.run()
    host.ended(137)
    host.pass_time(AMEND_SECONDS + 1)
    other = host.run("b" * 64, pid=395)
    host.kill(other, pid=395)
    assert len(host.exits) == 1


@pytest.mark.parametrize("code", [0, 128, 137, 143])
def test_confidence_is_that_of_the_kill_it_rests_on(code: int) -> None:
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup, pid=395)
    host.ended(code)
    assert host.exit.confidence is CONFIRMED


def test_the_logs_word_on_a_kill_that_was_found_by_elimination_confirms_its_exit() -> None:
    host = Host()
    cgroup = host.make(ID, host.make("pod"))
    host.seen(cgroup, ID, source="docker", pid=395)
    host.kill(cgroup, told=False)
    then = host.wall
    host.remove(cgroup)
    host.ended(137)
    host.pass_time(1)
    assert ruled(host.exit) == ("oom", "high")
    host.name(cgroup, 395, then)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")


# gVisor


def sandboxed(host: Host, **seen: Any) -> Cgroup:
    """Run a container whose handler is runsc, and find its sandbox so."""
    cgroup = host.run(pid=4000, handler="runsc")
    found(host, cgroup, **seen)
    return cgroup


def found(host: Host, where: Cgroup, **seen: Any) -> None:
    """Find the container's sandbox in a cgroup."""
    known = {"cgroup_id": where.id, "cgroup": where.path, "sandbox_cgroup_id": where.id}
    pids = {"alone": True, "sentry": 500, "stubs": (501,), "gofers": (502,)}
    host.say(SandboxSeen(container_id=ID, time=host.wall, **{**known, **pids, **seen}))


def test_a_sandbox_is_looked_for_where_the_handler_may_run_one() -> None:
    host = Host()
    host.run("a" * 64, handler="runc")
    assert not host.asked
    cgroup = host.run("b" * 64, handler="gvisor", pid=7)
    assert host.asked == [FindSandbox("b" * 64, cgroup.id, "gvisor", 7)]


@pytest.mark.parametrize("code", [0, 128, 137, 143])
@pytest.mark.parametrize("pid", [500, 501])
def test_a_sandbox_whose_sentry_or_stub_was_killed_was_out_of_memory(code: int, pid: int) -> None:
    host = Host()
    host.kill(sandboxed(host), pid=pid)
    host.ended(code)
    assert ruled(host.exit) == ("oom", "confirmed")
    named = "sentry, which is the sandbox" if pid == 500 else "a stub of the gVisor sandbox"
    assert any(named in reason for reason in host.exit.reasons)


@pytest.mark.parametrize("code", [0, 128, 137, 143])
def test_a_kill_without_a_name_in_a_sandboxes_own_cgroup_is_its_end(code: int) -> None:
    host = Host()
    host.kill(sandboxed(host))
    host.pass_time(1)
    host.ended(code)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("oom", "high")


@pytest.mark.parametrize("found", [None, "nothing"])
@pytest.mark.parametrize("pid", [None, 777])
@pytest.mark.parametrize("code", [0, 128, 143])
def test_a_kill_in_a_sandbox_that_ended_before_it_was_found_may_be_its_end(
    code: int, pid: int | None, found: str | None
) -> None:
    host = Host()
    cgroup = host.run(handler="runsc", pid=395)
    if found:
        host.say(SandboxSeen(container_id=ID, cgroup_id=cgroup.id, time=host.wall))
    host.kill(cgroup, pid=pid)
    host.ended(code, cgroup_id=cgroup.id, stop_requested=code == 143)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")


def test_counters_where_no_sandbox_was_seen_clear_none() -> None:
    host = Host()
    cgroup = host.run(handler="runsc", pid=395)
    host.ended(137, cgroup_id=cgroup.id)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    assert "none of its processes was seen" in " ".join(host.exit.reasons)


def test_what_was_asked_of_a_container_before_a_restart_is_asked_again() -> None:
    """A worker that goes on does not register anew."""
    host = Host()
    cgroup = host.run(source="worker", handler="runsc", pid=395)
    gone = host.run("b" * 64, source="worker", handler="runsc", pid=396)
    host.remove(gone)
    kept = host.correlator.containers.lives.take_changes().kept
    again = Host(containers=Containers(kept))
    assert again.asked == [FindSandbox(ID, cgroup.id, "runsc", 395)]
    uncounted = Host(counted=False, containers=Containers(kept))
    assert uncounted.followed == [FollowUsage(ID, cgroup.id, 395, None)]


def test_a_gofer_is_named_as_what_it_is() -> None:
    host = Host()
    host.kill(sandboxed(host), pid=502)
    host.ended(128)
    assert ruled(host.exit) == ("unknown", "medium")
    assert any("a gofer" in reason for reason in host.exit.reasons)


def test_in_a_cgroup_that_others_share_a_pid_ties_the_kill_to_the_sandbox() -> None:
    for pid, expected in ((500, ("oom", "confirmed")), (900, ("not_oom", "confirmed"))):
        host = Host()
        host.kill(sandboxed(host, alone=False), pid=pid)
        host.ended(137)
        assert ruled(host.exit) == expected


def test_in_a_cgroup_that_others_share_a_kill_without_a_name_is_never_certain() -> None:
    host = Host()
    host.kill(sandboxed(host, alone=False))
    host.pass_time(1)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")


def test_in_a_cgroup_that_others_share_a_name_that_is_due_is_awaited_for_a_moment() -> None:
    host = Host()
    cgroup = sandboxed(host, alone=False)
    host.kill(cgroup)
    host.pass_time(SETTLE_SECONDS)
    host.ended(137, source="worker")
    assert not host.exits
    host.name(cgroup, 500)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("oom", "confirmed")


def test_a_sandbox_that_is_still_looked_for_is_awaited_for_a_moment() -> None:
    host = Host()
    cgroup = host.run(pid=4000, handler="runsc")
    host.kill(cgroup, pid=500)
    host.ended(128, source="worker")
    assert not host.exits
    found(host, cgroup)
    assert ruled(host.exit) == ("oom", "confirmed")


@pytest.mark.parametrize("code", [0, 1, 128, 137, 139, 143])
@pytest.mark.parametrize("alone", [True, False])
def test_a_sandbox_that_is_found_after_its_exit_was_told_amends_it(code: int, alone: bool) -> None:
    """/proc is read in a thread: what it showed may be told after the end."""
    host = Host()
    cgroup = host.run(pid=4000, handler="runsc")
    host.kill(cgroup, pid=500)
    host.pass_time(SETTLE_SECONDS)
    host.ended(code, source="worker")
    host.pass_time(WAIT_SECONDS)
    first = host.exit
    assert first.verdict is (Verdict.OOM if code == 137 else Verdict.UNKNOWN)
    assert any(reason.startswith(f"{STILL_DUE}where the gVisor") for reason in first.reasons)
    found(host, cgroup, alone=alone)
    host.pass_time(1)
    amended = host.exits[-1]
    assert ruled(amended) == ("oom", "confirmed")
    assert (amended.episode_id, amended.amends) == (
        first.episode_id,
        host.journal.index(first) + 1,
    )


@pytest.mark.parametrize("pid", [500, None, "none"])
def test_a_sandbox_that_is_found_elsewhere_after_its_exit_was_told_has_its_counters_read_there(
    pid: int | str | None,
) -> None:
    host = Host()
    elsewhere = host.make("pod")
    cgroup = host.run(pid=4000, handler="runsc")
    host.ended(137, source="worker", stop_requested=True)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    if pid != "none":
        host.kill(elsewhere, told=False)
    found(host, elsewhere, cgroup_id=cgroup.id)
    if isinstance(pid, int):
        host.name(elsewhere, pid)
    host.pass_time(1)
    first, *_, last = host.exits
    expected = {500: ("oom", "confirmed"), None: ("oom", "high"), "none": ("not_oom", "confirmed")}
    assert ruled(last) == expected[pid]
    assert (last.cgroup, last.episode_id) == (cgroup.path, first.episode_id)


def test_of_a_sandbox_that_is_found_elsewhere_no_others_counters_clear_it() -> None:
    """Its exit is open, and was looked at in the cgroup that its runtime told."""
    host = Host()
    elsewhere = host.make("pod")
    cgroup = host.run(pid=4000, handler="runsc")
    host.ended(137, source="worker")
    assert not host.exits
    host.lagging = LastLook
    found(host, elsewhere, cgroup_id=cgroup.id)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    host.answer_late()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "confirmed")


def test_a_sandbox_that_is_never_found_amends_what_waited_for_it() -> None:
    host = Host()
    cgroup = host.run(pid=4000, handler="runsc")
    host.ended(137, source="worker", stop_requested=True)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    host.say(SandboxSeen(container_id=ID, cgroup_id=cgroup.id, time=host.wall))
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "medium")


def test_a_victim_that_has_a_name_and_no_known_part_is_not_awaited() -> None:
    host = Host()
    host.kill(sandboxed(host), pid=777)
    host.pass_time(SETTLE_SECONDS)
    host.ended(128, source="worker")
    assert ruled(host.exit) == ("oom", "high")
    assert not any(reason.startswith(STILL_DUE) for reason in host.exit.reasons)


def test_a_sandbox_that_is_found_late_has_its_own_log_read_and_that_amends_the_exit() -> None:
    host = Host()
    host.sandbox_wrote = {"stubs": (77,), "lines": ("The ptrace stub process 77 …",)}
    cgroup = host.run(pid=4000, handler="runsc")
    host.kill(cgroup, pid=77)
    host.pass_time(SETTLE_SECONDS)
    host.ended(128, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")
    found(host, cgroup, alone=False)
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("oom", "confirmed")


def test_whoever_waits_for_an_exit_waits_no_longer_for_a_sandbox_that_is_found_elsewhere() -> None:
    host = Host()
    elsewhere = host.make("pod")
    cgroup = host.run(pid=4000, handler="runsc")
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS / 2)
    host.lagging = LastLook
    found(host, elsewhere, cgroup_id=cgroup.id)
    host.pass_time(WAIT_SECONDS / 2)
    assert ruled(host.exit) == ("unknown", "low")


def test_what_is_asked_again_of_a_container_that_has_ended_changes_nothing_by_itself() -> None:
    host = Host()
    cgroup = host.run(pid=4000)
    host.ended(137)
    host.seen(cgroup, ID, source="docker", handler="runsc")
    assert host.asked
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_a_sandbox_that_was_found_once_is_not_lost_to_a_look_that_came_too_late() -> None:
    host = Host()
    cgroup = sandboxed(host)
    host.say(SandboxSeen(container_id=ID, cgroup_id=cgroup.id, time=host.wall))
    host.kill(cgroup, pid=500)
    host.ended(128)
    assert ruled(host.exit) == ("oom", "confirmed")


@pytest.mark.parametrize("code", [0, 128, 137, 143])
def test_a_sandbox_that_is_not_visible_is_not_judged_by_its_status(code: int) -> None:
    host = Host(counted=False)
    sandboxed(host, cgroup=None, sandbox_cgroup_id=None, alone=False, sentry=None)
    host.ended(code)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")


def test_a_sandbox_that_was_alone_when_it_was_found_is_not_once_another_came() -> None:
    host = Host()
    cgroup = sandboxed(host)
    host.say(
        SandboxSeen(
            container_id="later",
            cgroup_id=cgroup.id,
            time=host.wall,
            cgroup=cgroup.path,
            sandbox_cgroup_id=cgroup.id,
            sentry=900,
        )
    )
    host.kill(cgroup, pid=900)
    host.ended(137)
    assert ruled(host.exit) == ("not_oom", "confirmed")


def test_a_stub_that_came_later_is_known_by_the_sandboxs_own_log() -> None:
    for stubs, expected in (((77,), ("oom", "confirmed")), ((), ("not_oom", "confirmed"))):
        host = Host()
        host.sandbox_wrote = {"stubs": stubs, "lines": ("The ptrace stub process 77 …",)}
        host.kill(sandboxed(host, alone=False), pid=77)
        host.ended(137)
        assert ruled(host.exit) == expected
        assert any("the sandbox's own log says: The ptrace" in r for r in host.exit.reasons)


def test_a_sandbox_that_panicked_for_want_of_memory_is_a_hint_where_nothing_is_counted() -> None:
    host = Host(counted=False)
    host.sandbox_wrote = {"lines": ("fatal error: out of memory",), "out_of_memory": True}
    sandboxed(host, cgroup=None, sandbox_cgroup_id=None, alone=False, sentry=None)
    host.ended(2)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("unknown", "medium")


def test_where_only_the_log_tells_of_kills_its_line_is_awaited_a_moment() -> None:
    host = Host(counted=False)
    cgroup = host.run(source="worker", pid=395)
    host.ended(137, source="worker")
    assert not host.exits
    host.pass_time(0.01)
    host.name(cgroup, 395)
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("oom", "confirmed")


# Userspace OOM killers


@pytest.mark.parametrize(
    ("pid", "ago", "named"), [(395, 1, True), (395, 25, True), (395, 40, False), (7, 1, False)]
)
def test_a_userspace_killers_word_on_the_main_process_is_the_end(
    pid: int, ago: float, named: bool
) -> None:
    host = Host()
    host.run(pid=395)
    host.say(SignalledByKiller("earlyoom", host.wall, pid, "its log says so"))
    host.pass_time(ago)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("not_oom", "confirmed")
    assert ("earlyoom killed here: its log says so" in host.exit.reasons) is named


def test_a_userspace_killers_word_on_the_sentry_is_the_sandboxs_end() -> None:
    host = Host()
    sandboxed(host)
    host.say(SignalledByKiller("nohang", host.wall, 500, "its log says so"))
    host.ended(137)
    assert any("nohang killed here" in reason for reason in host.exit.reasons)


def test_the_counters_are_read_where_the_sentry_lives() -> None:
    """A runtime may have told the cgroup of a runsc command, or of the spec."""
    host = Host()
    real = host.make("pod")
    sandboxed(host, cgroup=real.path, sandbox_cgroup_id=real.id)
    host.kill(real, told=False)
    host.ended(128)
    host.pass_time(RUNTIME_SECONDS)
    assert ruled(host.exit) == ("oom", "high")


def test_what_has_no_counters_is_sampled_and_a_full_one_is_a_hint() -> None:
    for usage, confidence in ((99, "medium"), (10, "low")):
        host = Host(counted=False)
        cgroup = host.run(pid=395, memory_limit_bytes=100)
        assert host.followed == [FollowUsage(ID, cgroup.id, 395, 100)]
        host.say(
            UsageSampled(
                container_id=ID,
                cgroup_id=cgroup.id,
                time=host.wall,
                usage_bytes=usage,
                limit_bytes=100,
            )
        )
        host.ended(137)
        host.pass_time(RUNTIME_SECONDS)
        assert ruled(host.exit) == ("unknown", confidence)


def test_what_has_counters_is_not_sampled() -> None:
    host = Host()
    host.run(pid=395)
    sandboxed(host)
    assert not host.followed


def test_a_sandbox_that_is_not_visible_is_sampled() -> None:
    host = Host()
    sandboxed(host, cgroup=None, sandbox_cgroup_id=None, alone=False, sentry=None)
    assert [asked.pid for asked in host.followed] == [4000]


def test_a_verdict_looks_at_its_own_kills_however_many_were_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    for number in range(200):
        host.kill(host.make(f"other-{number}"), pid=1000 + number)
    cgroup = host.run(pid=395)
    host.kill(cgroup, pid=395)
    looked_at: list[str | None] = []
    kill = End.kill

    def counting(end: End, event: OomKill, revision: int | None, leapt: int) -> Any:
        looked_at.append(event.victim_cgroup)
        return kill(end, event, revision, leapt)

    monkeypatch.setattr(End, "kill", counting)
    host.ended(137)
    host.pass_time(RUNTIME_SECONDS)
    assert host.exit.verdict is Verdict.OOM
    assert set(looked_at) == {cgroup.path}


def test_a_worker_has_its_exit_looked_for_among_those_of_its_container_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    for number in range(100):
        host.run(f"{number:064x}")
        host.ended(0, container_id=f"{number:064x}")
    host.run()
    looks: list[int] = []

    def counting(time: int) -> float:
        looks.append(time)
        return _long_before(time)

    monkeypatch.setattr(book, "_long_before", counting)
    host.ended(0)
    host.ended(0, container_id="nobody-knows-it")
    assert len(host.exits) == 101
    assert len(looks) < 5


def test_what_many_exits_have_in_common_is_kept_once() -> None:
    host = Host()
    for number in range(2):
        host.run(f"{number:064x}")
        host.ended(137, container_id=f"{number:064x}")
    first, second = host.exits
    assert first.reasons
    for one, other in zip(first.reasons, second.reasons, strict=True):
        assert one is other
    assert first.evidence[0].detail is second.evidence[0].detail


def test_an_exit_at_rest_still_says_who_it_was_once_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_lives, "MAX_ENDED", 1)
    host = Host()
    cgroup = host.run(handler="runc")
    host.ended(137)
    host.remove(cgroup)
    for other in ("a1" * 32, "b2" * 32):
        gone = host.run(other)
        host.ended(0, container_id=other)
        host.remove(gone)
    host.pass_time(AMEND_SECONDS + 1)
    host.run("c3" * 32)
    assert host.correlator.containers.lives.newest(ID) is None
    rested = host.correlator.exits.life(ID, cgroup.id)
    assert rested is not None
    assert not rested.said
    host.ended(137, source="worker", cgroup_id=cgroup.id, stop_requested=True)
    first, *_, amended = host.exits
    assert (amended.amends, amended.stop_requested) == (1, True)
    assert amended.container == first.container == Container(id=ID, handler="runc")


def test_of_an_older_kill_no_more_is_kept_than_an_exit_is_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kills, "FRESH", 1)
    told = kills.KillsTold()
    hog = Victim(pid=395, comm="hog", main_process=True)
    event = OomKill(
        episode_id="e-1",
        detect_time=START,
        victim_cgroup="/c",
        victim_cgroup_id=2,
        limit_cgroup="/c",
        kill_count=1,
        scope=Scope.CONTAINER_LIMIT,
        confidence=CONFIRMED,
        victims=(replace(hog, cmdline=("hog", "x" * 4000), anon_rss_bytes=1 << 40),),
        tasks=tuple(Task(pid=pid, comm="hog") for pid in range(10)),
        evidence=(Evidence(source="kernel_log", time=START, detail="Killed process"),),
        container=Container(id=ID),
    )
    told.told(event)
    assert told.recorded("e-1", "/c", 1) == event
    told.told(replace(event, episode_id="e-2"))
    kept = replace(event, container=None, victims=(hog,), tasks=(), evidence=())
    assert told.recorded("e-1", "/c", 1) == kept


def test_an_exit_that_is_kept_no_longer_is_not_found_by_its_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    host.run()
    host.ended(0)
    told = host.exit
    monkeypatch.setattr(book, "MAX_EXITS", 4)
    exits = book.ExitBook(BOOT[:8], KnownLives())
    lives = [Life(f"{number:064x}", number, START, "/c") for number in range(1, 7)]
    for life in lives:
        exit_, _ = exits.add(life, START)
        exit_.told = told
    found = [exits.life(life.container_id, None) for life in lives]
    assert found == [None, None, *lives[2:]]


def test_what_is_told_of_an_exit_is_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lacks a name, one that lacks its counters, one that lacks its kill's revision."""
    host = Host()
    monkeypatch.setattr(book, "MAX_EXITS", 3)
    nameless, unread, unwritten = "a1" * 32, "b2" * 32, "c3" * 32
    cgroup = host.run(nameless, pid=396)
    host.kill(cgroup)
    host.ended(137, source="worker", container_id=nameless)
    host.pass_time(WAIT_SECONDS)
    host.lagging = LastLook
    host.run(unread)
    host.ended(137, source="worker", container_id=unread)
    host.pass_time(WAIT_SECONDS)
    host.lagging, host.writes = None, False
    host.kill(host.run(unwritten))
    host.ended(137, source="worker", container_id=unwritten)
    host.pass_time(WAIT_SECONDS)
    assert len(host.exits) == 3
    for number in range(3):
        host.run(f"{number:064x}")
        host.ended(0, container_id=f"{number:064x}")
    host.writes = True
    host.write()
    host.answer_late()
    host.name(cgroup, 396)
    host.pass_time(2 * AMEND_SECONDS)
    assert len(host.exits) == 6


def test_an_exit_that_is_not_told_yet_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a node is shut down, thousands of containers end, and their workers' words are awaited."""
    monkeypatch.setattr(book, "MAX_EXITS", 2)
    host = Host()
    names = [f"{number:064x}" for number in range(6)]
    for name in names:
        host.run(name, source="worker")
    for name in names:
        host.ended(137, container_id=name)
    for name in names:
        host.ended(137, source="worker", container_id=name, stop_requested=True)
    host.pass_time(WORKER_SECONDS + 1)
    assert [e.container.id for e in host.exits if e.container is not None] == names
    assert all(exit_.stop_requested for exit_ in host.exits)


def test_an_exit_that_was_another_containers_after_all_is_found_by_that() -> None:
    exits = book.ExitBook(BOOT[:8], KnownLives())
    first, second = Life("first", 1, START, "/c"), Life("second", 1, START, "/c")
    exit_, _ = exits.add(first, START)
    exits.move(exit_, second)
    assert exits.life("first", None) is None
    assert exits.life("second", None) is second


def test_what_is_no_concern_of_an_exit_has_no_kills_of_it_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    others = [host.make(f"other-{number}") for number in range(20)]
    for number in range(20):
        cgroup = host.run(f"{number:064x}", pid=1000 + number)
        host.kill(cgroup)
        host.ended(137, container_id=f"{number:064x}", cgroup_id=cgroup.id)
    host.pass_time(0.1)
    assert not host.exits  # each awaits the name of who was killed
    looks: list[OomKill] = []
    kill = End.kill

    def counting(end: End, event: OomKill, revision: int | None, leapt: int) -> Any:
        looks.append(event)
        return kill(end, event, revision, leapt)

    monkeypatch.setattr(End, "kill", counting)
    for other in others:
        host.kill(other)
        host.pass_time(0.01)
    assert not looks
    host.pass_time(RUNTIME_SECONDS)
    assert len(host.exits) == 20
    assert looks


def test_a_verdict_stands_when_the_kill_it_rests_on_is_not_kept_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kills, "MAX_CGROUPS", 4)
    host = Host()
    cgroup = host.run(pid=395)
    host.kill(cgroup, pid=395)
    host.ended(137)
    host.pass_time(AMEND_SECONDS)
    assert ruled(host.exit) == ("oom", "confirmed")
    for number in range(4):
        host.kill(host.make(f"other-{number}"), pid=1000 + number)
    host.pass_time(1)
    host.ended(137, source="worker", stop_requested=True)
    first, amended = host.exits
    assert ruled(amended) == ruled(first)
    assert (amended.kills, amended.oom_kills) == (first.kills, 1)
    assert amended.stop_requested


def test_a_clock_that_is_set_is_minded_once_of_an_end_that_is_looked_at_again() -> None:
    host = Host()
    elsewhere = host.make("pod")
    cgroup = host.run(pid=4000, handler="runsc")
    host.remove(elsewhere)
    host.remove(cgroup)
    host.lagging = Audit
    host.ended(137, source="worker")
    host.pass_time(WAIT_SECONDS)
    assert ruled(host.exit) == ("unknown", "low")
    found(host, elsewhere, cgroup_id=cgroup.id)
    host.set_clock(3600)
    host.answer_late()
    host.pass_time(1)
    assert ruled(host.exits[-1]) == ("not_oom", "confirmed")


def test_open_kills_are_found_by_their_paths_and_never_gone_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that runs out of memory has hundreds open beside as many exits."""
    host = Host()
    cgroups = [host.run(f"{number:064x}", pid=1000 + number) for number in range(30)]
    for cgroup in cgroups:
        host.kill(cgroup)
    spelled: list[Cgroup] = []
    path = vars(Cgroup)["path"].fget

    def counting(cgroup: Cgroup) -> Any:
        spelled.append(cgroup)
        return path(cgroup)

    monkeypatch.setattr(Cgroup, "path", property(counting))
    for cgroup in cgroups:
        host.ended(137, container_id=cgroup.name, cgroup_id=cgroup.id)
    assert len(spelled) < 5_000
    host.pass_time(1)
    assert len(host.exits) == 30
