"""The memory.events witness and the correlator on a fake tree, with real inotify."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomwatch.cgroup import files
from oomwatch.correlator import Correlator
from oomwatch.events import Confidence, Scope
from oomwatch.ledger import Ledger, LedgerRow
from oomwatch.observations import Audit, AuditReading, CgroupRemoved, Observation
from oomwatch.pipeline import Pipeline
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.memory_events import source as memory_events_source
from oomwatch.sources.memory_events.node import Node
from oomwatch.sources.memory_events.tree import Tree
from oomwatch.testing import FakeCgroupTree, MemorySink

BOOT = "0b9e5a8c-0000-4000-8000-000000000000"


@pytest.fixture
def tree(request: pytest.FixtureRequest) -> Iterator[FakeCgroupTree]:
    root = Path(f"/dev/shm/oomwatch-test-{os.getpid()}-{id(request)}")
    yield FakeCgroupTree(root)
    shutil.rmtree(root)


class Watching:
    def __init__(self, sink: MemorySink, source: MemoryEvents, pipeline: Pipeline) -> None:
        self.sink, self.source, self.pipeline = sink, source, pipeline

    def rows(self) -> list[LedgerRow]:
        """What a journal would hold: the last row of each cgroup."""
        rows: dict[int, LedgerRow] = {}
        for change in self.sink.changes:
            rows.update({row.cgroup_id: row for row in change.rows})
            for removed in change.removed:
                rows.pop(removed, None)
        return list(rows.values())

    async def until(self, seen: Callable[[MemorySink], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not seen(self.sink):
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """Everything that inotify has to say was taken in, and no look is due any more."""
        async with asyncio.timeout(10):
            await asyncio.sleep(0.01)
            while (deadline := self.pipeline.correlator.deadline) is not None:
                if deadline - asyncio.get_running_loop().time() > 1:
                    return  # only an attempt without a kill, waiting to be forgotten
                await asyncio.sleep(0.005)


@asynccontextmanager
async def watching(
    tree: FakeCgroupTree, rows: list[LedgerRow] | None = None, **options: float | bool
) -> AsyncIterator[Watching]:
    sink = MemorySink()
    source = MemoryEvents(tree.root, **options)  # type: ignore[arg-type]
    correlator = Correlator(BOOT, Ledger(rows or ()), resumed=rows is not None)
    pipeline = Pipeline(correlator, sink, [source])
    await source.start(pipeline.emit)
    try:
        yield Watching(sink, source, pipeline)
        assert source.state().figures["faults"] == 0
    finally:
        await source.stop()
        pipeline.stop()


async def test_a_kill_is_told_with_its_own_limit(tree: FakeCgroupTree) -> None:
    tree.make("/a", limit_bytes=33554432)
    async with watching(tree) as watch:
        tree.kill("/a")
        await watch.until(lambda sink: len(sink.kills) == 1)
        (kill,) = watch.sink.kills
        assert kill.victim_cgroup == kill.limit_cgroup == "/a"
        assert kill.scope is Scope.CONTAINER_LIMIT
        assert kill.kill_count == 1
        assert kill.group_kill is False
        assert kill.confidence is Confidence.CONFIRMED
        assert kill.memory is not None
        assert kill.memory.limit_bytes == 33554432
        assert kill.evidence[0].detail == "oom_kill 0 -> 1 in /a"


async def test_the_parents_limit_is_the_ancestors(tree: FakeCgroupTree) -> None:
    tree.make("/par", limit_bytes=50331648)
    tree.make("/par/c1")
    async with watching(tree) as watch:
        tree.kill("/par/c1", limit="/par")
        await watch.until(lambda sink: len(sink.kills) == 1)
        (kill,) = watch.sink.kills
        assert (kill.victim_cgroup, kill.limit_cgroup) == ("/par/c1", "/par")
        assert kill.scope is Scope.ANCESTOR_LIMIT
        assert kill.memory is not None
        assert kill.memory.limit_bytes == 50331648


async def test_what_was_counted_before_us_is_not_told(tree: FakeCgroupTree) -> None:
    tree.make("/a")
    tree.kill("/a", 3)
    async with watching(tree) as watch:
        tree.kill("/a")
        await watch.until(lambda sink: sink.told() > 0)
        await watch.settled()
        assert watch.sink.told() == 1
        assert watch.sink.kills[0].evidence[0].detail == "oom_kill 3 -> 4 in /a"


async def test_a_cgroup_that_appears_is_followed_from_zero(tree: FakeCgroupTree) -> None:
    async with watching(tree) as watch:
        tree.make("/new")
        tree.make("/new/below")
        tree.kill("/new/below", 2)
        await watch.until(lambda sink: sink.told("/new/below") == 2)
        await watch.settled()
        assert watch.sink.told() == tree.kills("/") == 2


async def test_a_kill_in_a_removed_cgroup_is_found_at_its_parent(tree: FakeCgroupTree) -> None:
    tree.make("/par")
    tree.make("/par/gone")
    tree.make("/par/stays")
    async with watching(tree) as watch:
        tree.kill_and_remove("/par/gone", 2)
        await watch.until(lambda sink: sink.told() == 2)
        (kill,) = watch.sink.kills
        assert kill.victim_cgroup == "/par/gone"
        assert kill.survivor_cgroup == "/par"
        assert kill.confidence is Confidence.HIGH
        await watch.settled()
        assert watch.sink.told() == tree.kills("/")


async def test_what_a_sum_may_be_of_is_known_before_the_sum_is_told(tree: FakeCgroupTree) -> None:
    """However late we are: its making and its removal were notified before the sum was read."""
    seen: list[Observation] = []
    source = MemoryEvents(tree.root)
    await source.start(seen.extend)
    try:
        tree.make("/a")
        tree.kill_and_remove("/a")
        source.answer(Audit(source.tree.root.cgroup, {}))
        kinds = [type(observation) for observation in seen]
        assert kinds.index(CgroupRemoved) < kinds.index(AuditReading)
    finally:
        await source.stop()


async def test_two_removed_at_once_are_candidates(tree: FakeCgroupTree) -> None:
    tree.make("/par")
    for name in ("one", "two"):
        tree.make(f"/par/{name}")
    async with watching(tree) as watch:
        for name in ("one", "two"):
            tree.kill_and_remove(f"/par/{name}")
        await watch.until(lambda sink: sink.told() == 2)
        await watch.settled()
        for kill in watch.sink.kills:
            assert kill.survivor_cgroup == "/par"
            assert kill.victim_cgroup in (None, "/par/one", "/par/two")
            assert set(kill.candidates) <= {"/par/one", "/par/two"}
        assert watch.sink.told() == tree.kills("/") == 2


async def test_a_removed_subtree_is_found_at_the_nearest_survivor(tree: FakeCgroupTree) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        tree.make(path)
    async with watching(tree) as watch:
        tree.kill_and_remove("/a/b/c", 1)
        tree.remove("/a/b")
        await watch.until(lambda sink: sink.told() == 1)
        await watch.settled()
        (kill,) = watch.sink.kills
        assert kill.survivor_cgroup in ("/a", "/a/b")
        assert watch.sink.told() == tree.kills("/") == 1


async def test_the_same_path_made_again_is_another_cgroup(tree: FakeCgroupTree) -> None:
    tree.make("/a")
    async with watching(tree) as watch:
        ids = set()
        for count in range(1, 6):
            tree.kill("/a", count)
            total = sum(range(1, count + 1))
            await watch.until(lambda sink, total=total: sink.told() == total)  # type: ignore[misc]
            ids.add(watch.sink.kills[-1].victim_cgroup_id)
            tree.remove("/a")
            tree.make("/a")
        await watch.settled()
        assert watch.sink.told() == tree.kills("/") == 15
        assert len(ids) == 5


async def test_a_path_that_came_and_went_twice_at_once_is_told_once(tree: FakeCgroupTree) -> None:
    """The removal of an earlier life is told after the later one has been taken in."""
    async with watching(tree) as watch:
        tree.make("/a")
        tree.remove("/a")
        tree.make("/a")
        tree.kill("/a", 2)
        await watch.until(lambda sink: sink.told() == 2)
        await watch.settled()
        tree.kill("/a")
        await watch.until(lambda sink: sink.told() == 3)
        await watch.settled()
        assert watch.sink.told() == tree.kills("/") == 3
        assert {kill.victim_cgroup for kill in watch.sink.kills} == {"/a"}


async def test_a_counter_in_a_new_file_is_told_from_where_its_parent_is(
    tree: FakeCgroupTree,
) -> None:
    """As when the memory controller is switched off and on: the directory stays."""
    tree.make("/par")
    tree.make("/par/c")
    async with watching(tree) as watch:
        tree.kill("/par/c", 2)
        await watch.until(lambda sink: sink.told() == 2)
        for count in (2, 1):  # one that lived on hidden, one that began anew
            new = tree.path("/par/c") / "new"
            new.write_text(f"oom 0\noom_kill {count}\noom_group_kill 0\n")
            new.rename(tree.path("/par/c") / "memory.events.local")
            tree.write("/par", "cgroup.subtree_control", "memory\n")
            await watch.settled()
        assert watch.sink.told() == 2
        assert watch.sink.gaps == []


async def test_a_group_kill_is_one_event_a_cgroup_in_one_episode(tree: FakeCgroupTree) -> None:
    tree.make("/g", limit_bytes=1 << 20, oom_group=True)
    tree.make("/g/c1")
    tree.make("/g/c2")
    async with watching(tree) as watch:
        tree.kill("/g/c1", 1, limit="/g", group="/g")
        tree.kill("/g/c1", 1, limit="")
        tree.kill("/g/c2", 2, limit="")
        await watch.until(lambda sink: sink.told() == 4)
        await watch.settled()
        by_cgroup = {kill.victim_cgroup: kill for kill in watch.sink.kills}
        assert {path: kill.kill_count for path, kill in by_cgroup.items()} == {
            "/g/c1": 2,
            "/g/c2": 2,
        }
        assert len({kill.episode_id for kill in watch.sink.kills}) == 1
        assert all(kill.limit_cgroup == "/g" and kill.group_kill for kill in watch.sink.kills)


async def test_a_restart_tells_what_happened_meanwhile_and_nothing_twice(
    tree: FakeCgroupTree,
) -> None:
    for path in ("/a", "/par", "/par/gone", "/idle"):
        tree.make(path)
    tree.kill("/a", 5)
    async with watching(tree) as first:
        tree.kill("/a", 2)
        await first.until(lambda sink: sink.told() == 2)
        rows = first.rows()
    tree.kill("/a", 1)
    tree.kill("/idle", 1)
    tree.kill_and_remove("/par/gone", 3)
    async with watching(tree, rows) as second:
        await second.until(lambda sink: sink.told() == 5)
        await second.settled()
        assert all(kill.recovered for kill in second.sink.kills)
        assert second.sink.told("/a") == 1
        assert second.sink.told("/idle") == 1
        assert second.sink.told("/par") == 3
        rows = [*{r.cgroup_id: r for r in [*rows, *second.rows()]}.values()]
    async with watching(tree, rows) as third:
        await third.settled()
        assert third.sink.told() == 0


class NotListed:
    """A directory that cannot be listed for want of descriptors, until it `heals`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(memory_events_source, "RETRY_SECONDS", 0.01)
        listed, self.tries, self.heals = Tree._children, 0, False

        def children(node: Node, directory: str) -> dict[str, int]:
            if directory.endswith(name) and not self.heals:
                self.tries += 1
                raise OSError(24, "Too many open files", directory)
            return listed(node, directory)

        monkeypatch.setattr(Tree, "_children", staticmethod(children))

    async def heal(self, watch: Watching) -> None:
        """Let all be seen, and wait until it was."""
        self.heals = True
        await watch.until(lambda _: not watch.source.state().degraded)


class NothingRead(NotListed):
    """No counter can be read either; `listed` says whether directories can be listed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, listed: bool) -> None:
        super().__init__(monkeypatch, "nowhere" if listed else "")
        read = files.EventsReader.read

        def reading(reader: files.EventsReader, path: str) -> files.EventsFile:
            if not self.heals:
                self.tries += 1
                raise OSError(24, "Too many open files", path)
            return read(reader, path)

        monkeypatch.setattr(files.EventsReader, "read", reading)


@pytest.mark.parametrize("meanwhile", [0, 1])
async def test_what_cannot_be_listed_at_a_restart_is_not_gone(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, meanwhile: int
) -> None:
    """What was told of it stays told."""
    for path in ("/a", "/a/b", "/a/b/c"):
        tree.make(path)
    async with watching(tree) as first:
        tree.kill("/a/b/c", 2)
        await first.until(lambda sink: sink.told() == 2)
        rows = first.rows()
    if meanwhile:
        tree.kill("/a/b/c", meanwhile)
    blind = NotListed(monkeypatch, "/a")
    async with watching(tree, rows) as second:
        await second.until(lambda _: blind.tries > 2)
        assert second.source.state().degraded
        await second.until(lambda sink: sink.told() == meanwhile)
        await blind.heal(second)
        tree.kill("/a/b/c", 1)
        await second.until(lambda sink: sink.told() > meanwhile)
        await second.settled()
        assert second.sink.told() == meanwhile + 1
        assert [kill.recovered for kill in second.sink.kills] == [True] * meanwhile + [False]


async def test_what_cannot_be_listed_at_the_start_was_counted_before_us(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/a", "/a/b", "/a/b/c"):
        tree.make(path)
    tree.kill("/a/b/c", 5)
    blind = NotListed(monkeypatch, "/a")
    async with watching(tree) as watch:
        await watch.until(lambda _: blind.tries > 2)
        await blind.heal(watch)
        tree.kill("/a/b/c", 1)
        await watch.until(lambda sink: sink.told() > 0)
        await watch.settled()
        assert (watch.sink.told(), watch.sink.told("/a/b/c")) == (1, 1)


@pytest.mark.parametrize("listed", [True, False])
async def test_what_cannot_be_read_at_the_start_was_counted_before_us(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    for path in ("/a", "/a/b"):
        tree.make(path)
    tree.kill("/a/b", 3)
    blind = NothingRead(monkeypatch, listed=listed)
    async with watching(tree) as watch:
        await watch.until(lambda _: blind.tries > 12)
        await blind.heal(watch)
        await watch.settled()
        tree.kill("/a/b", 1)
        await watch.until(lambda sink: sink.told() > 0)
        await watch.settled()
        assert (watch.sink.told(), watch.sink.told("/a/b")) == (1, 1)


@pytest.mark.parametrize("listed", [True, False])
async def test_what_is_read_late_after_a_restart_happened_while_nobody_watched(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    for path in ("/a", "/a/b", "/a/c"):
        tree.make(path)
    async with watching(tree) as first:
        tree.kill("/a/b", 3)
        await first.until(lambda sink: sink.told() == 3)
        rows = first.rows()
    tree.kill("/a/b", 2)
    tree.kill("/a/c", 1, limit="/a")
    blind = NothingRead(monkeypatch, listed=listed)
    async with watching(tree, rows) as watch:
        await watch.until(lambda _: blind.tries > 12)
        await blind.heal(watch)
        await watch.settled()
        tree.kill("/a/b", 1)
        await watch.until(lambda sink: sink.told() > 3)
        await watch.settled()
        assert sorted(
            (kill.recovered, kill.victim_cgroup, kill.kill_count) for kill in watch.sink.kills
        ) == [(False, "/a/b", 1), (True, "/a/b", 2), (True, "/a/c", 1)]


async def test_thrashing_rests_and_a_kill_inside_is_still_told(tree: FakeCgroupTree) -> None:
    tree.make("/busy")
    tree.make("/calm")
    async with watching(tree) as watch:
        async with asyncio.timeout(10):
            while not watch.source.state().figures["resting"]:
                tree.thrash("/busy")
                await asyncio.sleep(0.002)
        tree.kill("/busy")
        tree.kill("/calm")
        await watch.until(lambda sink: sink.told() == 2)
        async with asyncio.timeout(10):
            while watch.source.state().figures["resting"]:
                await asyncio.sleep(0.01)
        tree.kill("/busy")
        await watch.until(lambda sink: sink.told() == 3)


async def test_without_inotify_everything_is_polled(tree: FakeCgroupTree) -> None:
    tree.make("/a")
    tree.make("/par")
    async with watching(tree, poll_seconds=0.02, force_polling=True) as watch:
        assert watch.source.state().degraded
        tree.kill("/a")
        tree.make("/par/new")
        tree.kill("/par/new", 2)
        await watch.until(lambda sink: sink.told() == 3)
        tree.kill_and_remove("/par/new", 4)
        await watch.until(lambda sink: sink.told() == 7)
        await watch.settled()
        assert watch.sink.told() == tree.kills("/")


@pytest.mark.parametrize("appears", [True, False])
async def test_a_look_is_as_old_as_what_it_read_and_not_as_its_end(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, appears: bool
) -> None:
    """A kill that came between, as the daemon stood still, is none of before the look."""
    read = files.EventsReader.read
    reads: list[int] = []

    def stopped_after(self: files.EventsReader, path: str) -> files.EventsFile:
        file = read(self, path)
        if path.startswith(f"{tree.root}/a/"):
            reads.append(time.time_ns() // 1000)
            time.sleep(0.1)
        return file

    monkeypatch.setattr(files.EventsReader, "read", stopped_after)
    if not appears:
        tree.make("/a")
    async with watching(tree) as watch:
        if appears:
            tree.make("/a")
            await watch.settled()
        before = reads[-1]
        tree.kill("/a")
        await watch.until(lambda sink: len(sink.kills) == 1)
        await watch.settled()
        between = reads[-1]
        tree.kill("/a")
        await watch.until(lambda sink: len(sink.kills) == 2)
        first, second = watch.sink.kills
        assert first.occur_after is not None
        assert second.occur_after is not None
        assert first.occur_after <= before < second.occur_after <= between


async def test_garbage_in_a_counter_is_not_a_count(tree: FakeCgroupTree) -> None:
    tree.make("/a")
    async with watching(tree) as watch:
        for text in ("", "oom_kill -1\n", "oom_kill x\n", "oom_kill 1" + "0" * 30 + "\n", "\0" * 9):
            tree.write("/a", "memory.events.local", text)
            await watch.settled()
        tree.write("/a", "memory.events.local", "x" * (1 << 20))
        await watch.settled()
        assert watch.sink.events == []
        tree.kill("/a")
        await watch.until(lambda sink: sink.told() == 1)


async def test_a_counter_that_falls_is_a_gap_and_goes_on(tree: FakeCgroupTree) -> None:
    tree.make("/a")
    async with watching(tree) as watch:
        tree.kill("/a", 3)
        await watch.until(lambda sink: sink.told() == 3)
        tree.write("/a", "memory.events.local", "oom 1\noom_kill 1\noom_group_kill 0\n")
        await watch.until(lambda sink: len(sink.gaps) == 1)
        tree.write("/a", "memory.events.local", "oom 2\noom_kill 2\noom_group_kill 0\n")
        await watch.until(lambda sink: sink.told() == 4)


async def test_a_storm_over_many_cgroups_loses_nothing(tree: FakeCgroupTree) -> None:
    tree.make("/s")
    for number in range(200):
        tree.make(f"/s/c{number}")
    async with watching(tree) as watch:
        for turn in range(5):
            for number in range(200):
                tree.kill(f"/s/c{number}", 1 + turn % 2)
            await asyncio.sleep(0)
        await watch.until(lambda sink: sink.told() == tree.kills("/"), 30)
        await watch.settled()
        assert watch.sink.told() == tree.kills("/")
        assert all(kill.victim_cgroup == kill.limit_cgroup for kill in watch.sink.kills)


async def test_nothing_is_left_when_cgroups_come_and_go(tree: FakeCgroupTree) -> None:
    async with watching(tree) as watch:
        before = watch.source.state().figures["watches"]
        for number in range(300):
            tree.make(f"/c{number}")
            if number % 3 == 0:
                tree.kill(f"/c{number}")
            tree.remove(f"/c{number}")
            await asyncio.sleep(0)
        await watch.settled()
        await watch.until(lambda sink: sink.told() == 100)
        figures = watch.source.state().figures
        assert figures["cgroups"] == 1
        assert figures["watches"] <= before + 1
        assert watch.pipeline.correlator.ledger.take_changes().rows == ()


async def test_a_path_that_is_used_again_is_read_for_nobody_but_its_own(
    tree: FakeCgroupTree,
) -> None:
    """Between a removal and its notification the path may lead to another cgroup's counters."""
    old = tree.make("/c").stat().st_ino
    async with watching(tree) as watched:
        followed = watched.source.tree.root.child("c")
        assert followed is not None
        tree.remove("/c")
        young = tree.make("/c").stat().st_ino
        tree.kill("/c", 3)
        # The loop has not heard of any of it.
        assert not watched.source.tree.look(followed)
        watched.pipeline.audit(watched.source.tree.root.cgroup)
        await watched.until(lambda sink: sink.told() == 3)
        await watched.settled()
        assert {kill.victim_cgroup_id for kill in watched.sink.kills} == {young}
        assert young != old


async def test_children_are_taken_in_below_their_own_parent_alone(tree: FakeCgroupTree) -> None:
    """Those of the next cgroup at the parent's path would be told there, and once more below it."""
    tree.make("/p")
    tree.make("/p/old")
    async with watching(tree) as watched:
        followed = watched.source.tree
        parent = followed.root.child("p")
        assert parent is not None
        tree.remove("/p/old")
        tree.remove("/p")
        tree.make("/p")
        tree.make("/p/young")
        tree.kill("/p/young", 2)
        # The loop has not heard of any of it.
        assert followed.attach(parent, "young") is None
        assert list(followed.relist(parent)) == []
        assert parent.child("young") is None
        watched.pipeline.emit(followed.take())
        await watched.until(lambda sink: sink.told() >= 2)
        await watched.settled()
        assert watched.sink.told() == tree.kills("/") == 2
