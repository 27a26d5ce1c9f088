"""A container's end as a worker tells it, over gRPC, on a tree of plain files."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from pathlib import Path

import pytest

from oomwatch import finalizing
from oomwatch.cgroup import files
from oomwatch.client import Client
from oomwatch.errors import DaemonUnavailable, RequestRefused
from oomwatch.events import Confidence, Container, ContainerExit, Entry, OomKill, Verdict
from oomwatch.observations import ContainerEnded, ContainerSeen
from oomwatch.status import CgroupReport
from oomwatch.verdict.words import STILL_DUE
from tests.component.served import BOUND, Place, served

pytestmark = pytest.mark.usefixtures("on_tmpfs")

JOB = Container(id="job-17", name="job", handler="runc")
ID = "ee12" * 16
WAIT = 20.0
"""An upper bound that no test waits out: it ends as soon as the exit can be judged."""


def exit_of(entry: Entry) -> ContainerExit:
    assert isinstance(entry.event, ContainerExit)
    return entry.event


def unplaced(place: Place) -> None:
    """Docker speaks of a container, and cannot say where it is."""
    docker = ContainerSeen(source="docker", time=time.time_ns() // 1000, container=Container(id=ID))
    place.watcher.pipeline.emit([docker])


async def made(place: Place, path: str) -> CgroupReport:
    """Make a cgroup, and return its report once the daemon follows it."""
    place.tree.make(path)
    async with asyncio.timeout(BOUND):
        while (report := await place.client.get_container(path)) is None:
            await asyncio.sleep(0.01)
    return report


async def test_counters_that_did_not_rise_say_that_the_kernel_did_not_do_it(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        entry = await place.client.finalize(
            "job-17", exit_code=137, stop_requested=True, stop_signal=15, maximum_wait=WAIT
        )
        exit_ = exit_of(entry)
        assert (exit_.verdict, exit_.confidence) == (Verdict.NOT_OOM, Confidence.CONFIRMED)
        assert (exit_.container, exit_.cgroup, exit_.exit_code) == (JOB, "/a", 137)
        assert exit_.stop_requested
        assert "a stop had been asked for, by SIGTERM" in exit_.reasons
        assert await place.journaled() == [entry]


async def test_a_kill_that_nobody_was_told_of_yet_is_read_and_told_first(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a", limit_bytes=32 << 20)
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.kill("/a")
        entry = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        kill, last = await place.journaled()
        assert last == entry
        assert isinstance(kill.event, OomKill)
        exit_ = exit_of(entry)
        assert (exit_.verdict, exit_.kills, exit_.oom_kills) == (Verdict.OOM, (kill.revision,), 1)
        assert any("at its own limit of 32 MiB" in reason for reason in exit_.reasons)


@pytest.mark.parametrize(
    ("victim", "limit", "said"),
    [
        ("/pod/a", "/pod/a", "at its own limit of 32 MiB;"),
        ("/pod/a", "/pod", "at the limit of /pod;"),
        ("/pod/a/nested", "/pod/a/nested", "at the limit of /pod/a/nested in it;"),
        ("/pod/a/nested", "/pod/a", "at its own limit;"),
        ("/pod/a/nested", "/pod", "at the limit of /pod;"),
    ],
)
async def test_whose_limit_it_was_is_said_as_it_is_from_the_container(
    tmp_path: Path, victim: str, limit: str, said: str
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/pod", limit_bytes=64 << 20)
        place.tree.make("/pod/a", limit_bytes=32 << 20)
        place.tree.make("/pod/a/nested", limit_bytes=16 << 20)
        await place.client.watch_container(JOB, cgroup="/pod/a")
        place.tree.kill(victim, limit=limit)
        exit_ = exit_of(await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT))
        assert said in exit_.reasons[1]


@pytest.mark.parametrize("unreadable", ["/a", "/a/nested"])
async def test_a_last_look_that_fails_says_nothing_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        place.tree.make("/a/nested")
        await place.client.watch_container(JOB, cgroup="/a")
        read = files.EventsReader.read

        def broken(self: files.EventsReader, path: str) -> files.EventsFile:
            if path.endswith(f"{unreadable}/memory.events.local"):
                raise OSError(errno.EIO, "Input/output error", path)
            return read(self, path)

        monkeypatch.setattr(files.EventsReader, "read", broken)
        place.tree.kill(unreadable)
        exit_ = exit_of(await place.client.finalize("job-17", exit_code=137, maximum_wait=0.05))
        assert (exit_.verdict, exit_.confidence) == (Verdict.UNKNOWN, Confidence.LOW)
        assert "no counters could be read after the exit" in exit_.reasons


async def test_a_counter_without_a_count_of_kills_says_nothing_of_the_end(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.write("/a", "memory.events.local", "low 0\n")
        exit_ = exit_of(await place.client.finalize("job-17", exit_code=137, maximum_wait=0.05))
        assert (exit_.verdict, exit_.confidence) == (Verdict.UNKNOWN, Confidence.LOW)


async def test_a_cgroup_made_and_finalized_at_once_is_read_all_the_same(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        # No await between: the making is not notified yet.
        place.tree.make(f"/docker-{ID}.scope")
        place.tree.kill(f"/docker-{ID}.scope")
        place.watcher.memory_events.tree.attach(  # type: ignore[union-attr]
            place.watcher.memory_events.tree.root,  # type: ignore[union-attr]
            f"docker-{ID}.scope",
        )
        entry = await place.client.finalize(ID, exit_code=137, maximum_wait=WAIT)
        assert exit_of(entry).verdict is Verdict.OOM


async def test_asked_again_the_same_exit_comes_back_also_after_a_restart(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        tree = place.tree
        tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        tree.kill("/a")
        first = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        assert await place.client.finalize("job-17", exit_code=137) == first
    async with served(tmp_path, tree) as place:
        assert await place.client.finalize("job-17", exit_code=137) == first
        assert len(await place.journaled()) == 2


async def test_several_who_ask_at_once_get_one_exit(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        asked = [place.client.finalize("job-17", exit_code=1, maximum_wait=WAIT) for _ in range(8)]
        answers = await asyncio.gather(*asked)
        assert len({entry.revision for entry in answers}) == 1
        assert len(await place.journaled()) == 1


async def test_who_goes_away_while_it_waits_has_told_of_the_end_all_the_same(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        path = f"/docker-{ID}.scope"
        await made(place, path)
        # The removal of its cgroup tells where it is, and is awaited.
        unplaced(place)
        asked = asyncio.create_task(place.client.finalize(ID, exit_code=137, maximum_wait=WAIT))
        async with asyncio.timeout(BOUND):
            while place.watcher.correlator.exits.deadline is None:
                await asyncio.sleep(0.01)
        asked.cancel()
        place.tree.kill_and_remove(path)
        entry = await place.client.finalize(ID, maximum_wait=WAIT)
        assert (exit_of(entry).exit_code, exit_of(entry).verdict) == (137, Verdict.OOM)
        kill, told = await place.journaled()
        assert (exit_of(entry).kills, told) == ((kill.revision,), entry)


async def test_what_a_later_call_knows_amends(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        first = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        second = await place.client.finalize("job-17", stop_requested=True)
        assert exit_of(second).amends == first.revision
        assert (exit_of(second).exit_code, exit_of(second).stop_requested) == (137, True)


async def test_who_names_no_life_means_one_that_has_ended_though_the_next_one_runs(
    tmp_path: Path,
) -> None:
    """With a restart policy Docker has started the next life before its worker asks."""
    async with served(tmp_path) as place:
        first = place.tree.make("/first").stat().st_ino
        await place.client.watch_container(JOB, cgroup="/first")
        place.tree.kill_and_remove("/first")
        second = place.tree.make("/second").stat().st_ino
        place.tree.write("/second", "cgroup.events", "populated 1\nfrozen 0\n")
        docker = ContainerSeen(
            source="docker",
            time=time.time_ns() // 1000,
            container=JOB,
            cgroup="/second",
            cgroup_id=second,
        )
        place.watcher.pipeline.emit([docker])
        entry = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        assert exit_of(entry).cgroup_id == first
        assert exit_of(entry).verdict is Verdict.OOM
        assert await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT) == entry
        place.tree.write("/second", "cgroup.events", "populated 0\nfrozen 0\n")
        entry = await place.client.finalize("job-17", exit_code=0, maximum_wait=WAIT)
        assert exit_of(entry).cgroup_id == second
        assert exit_of(entry).verdict is Verdict.NOT_OOM


async def test_a_life_whose_end_a_runtime_told_has_ended_though_processes_are_left_in_it(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/first")
        await place.client.watch_container(JOB, cgroup="/first")
        await place.client.finalize("job-17", exit_code=1, maximum_wait=WAIT)
        place.tree.remove("/first")
        inode = place.tree.make("/second").stat().st_ino
        await place.client.watch_container(JOB, cgroup="/second")
        place.tree.write("/second", "cgroup.events", "populated 1\nfrozen 0\n")
        died = ContainerEnded(
            source="docker",
            time=time.time_ns() // 1000,
            container_id="job-17",
            cgroup_id=inode,
            exit_code=1,
        )
        place.watcher.pipeline.emit([died])
        entry = await place.client.finalize("job-17", exit_code=1, maximum_wait=WAIT)
        assert exit_of(entry).cgroup_id == inode


async def test_what_runs_on_after_its_worker_told_its_end_is_judged_by_its_runtimes_word_on_that(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        inode = place.tree.make("/a").stat().st_ino
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.write("/a", "cgroup.events", "populated 1\nfrozen 0\n")
        first = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        assert "processes still ran in its cgroup as that was read" in exit_of(first).reasons
        assert exit_of(first).verdict is Verdict.NOT_OOM
        place.tree.write("/a", "cgroup.events", "populated 0\nfrozen 0\n")
        later = time.time_ns() // 1000 + 60_000_000
        died = ContainerEnded(
            source="docker", time=later, container_id="job-17", cgroup_id=inode, exit_code=137
        )
        place.watcher.pipeline.emit([died])
        last = await place.client.finalize("job-17", stop_requested=True, maximum_wait=WAIT)
        assert exit_of(last).amends == first.revision
        assert exit_of(last).exit_time == later
        assert "processes still ran" not in " ".join(exit_of(last).reasons)


async def test_a_container_that_nobody_registered_is_found_by_its_cgroups_name(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        path = f"/docker-{ID}.scope"
        await made(place, path)
        entry = await place.client.finalize(ID, exit_code=0, maximum_wait=WAIT)
        assert (exit_of(entry).cgroup, exit_of(entry).verdict) == (path, Verdict.NOT_OOM)


async def test_a_container_whose_cgroup_is_gone_is_judged_by_the_sums(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        path = f"/docker-{ID}.scope"
        for attempt in ("clean", "killed"):
            report = await made(place, path)
            if attempt == "clean":
                place.tree.remove(path)
            else:
                place.tree.kill_and_remove(path)
            async with asyncio.timeout(BOUND):
                while await place.client.get_container(path) is not None:
                    await asyncio.sleep(0.01)
            entry = await place.client.finalize(
                ID, cgroup_id=report.id, exit_code=137, maximum_wait=WAIT
            )
            exit_ = exit_of(entry)
            if attempt == "clean":
                assert (exit_.verdict, exit_.confidence) == (Verdict.NOT_OOM, Confidence.CONFIRMED)
            else:
                assert (exit_.verdict, exit_.confidence) == (Verdict.OOM, Confidence.HIGH)
                assert exit_.kills


async def test_a_container_that_its_runtime_could_not_place_is_judged_once_its_removal_has(
    tmp_path: Path,
) -> None:
    """Its caller waits a moment, and is told that this is due; asked again, it has the answer."""
    async with served(tmp_path) as place:
        path = f"/docker-{ID}.scope"
        await made(place, path)
        unplaced(place)
        first = await place.client.finalize(ID, exit_code=143, maximum_wait=0.05)
        assert (exit_of(first).verdict, exit_of(first).confidence) == (
            Verdict.UNKNOWN,
            Confidence.LOW,
        )
        assert any(reason.startswith(STILL_DUE) for reason in exit_of(first).reasons)
        place.tree.kill_and_remove(path)
        async with asyncio.timeout(BOUND):
            while (again := await place.client.finalize(ID, exit_code=143)) == first:
                await asyncio.sleep(0.01)
        assert (exit_of(again).amends, exit_of(again).cgroup) == (first.revision, path)
        async with asyncio.timeout(BOUND):
            while not (settled := exit_of(await place.client.finalize(ID, exit_code=143))).kills:
                await asyncio.sleep(0.01)
        assert not any(reason.startswith(STILL_DUE) for reason in settled.reasons)


async def test_a_neighbours_kill_below_the_cgroup_that_counts_is_not_the_containers(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/jobs")
        place.tree.make("/jobs/y")
        for name in ("x", "z"):
            place.tree.path(f"/jobs/{name}").mkdir()
            await place.client.watch_container(Container(id=name), cgroup=f"/jobs/{name}")
        place.tree.kill("/jobs/y")
        exit_ = exit_of(await place.client.finalize("x", exit_code=137, maximum_wait=WAIT))
        assert (exit_.verdict, exit_.oom_kills) == (Verdict.NOT_OOM, 0)
        place.tree.kill("/jobs")
        exit_ = exit_of(await place.client.finalize("z", exit_code=137, maximum_wait=WAIT))
        assert (exit_.verdict, exit_.confidence) == (Verdict.UNKNOWN, Confidence.MEDIUM)


async def test_that_it_was_at_its_limit_is_a_hint_where_its_counters_are_lost(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        place.tree.write(
            "/a", "memory.pressure", "some avg10=42.50 avg60=9.00 avg300=1.0 total=1\n"
        )
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.thrash("/a", 3)
        tree = place.watcher.memory_events.tree  # type: ignore[union-attr]
        async with asyncio.timeout(BOUND):
            while not tree.limit_hits:
                await asyncio.sleep(0.01)
        place.tree.write("/", "memory.events", "low 0\n")
        place.tree.remove("/a")
        exit_ = exit_of(await place.client.finalize("job-17", exit_code=137, maximum_wait=0.2))
        assert (exit_.verdict, exit_.confidence) == (Verdict.UNKNOWN, Confidence.MEDIUM)
        said = " ".join(exit_.reasons)
        assert "at its limit 3 times" in said
        assert "waiting for memory 42 % of the time" in said


async def test_a_container_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        with pytest.raises(RequestRefused, match="register it with WatchContainer") as raised:
            await place.client.finalize("none", exit_code=137)
        assert raised.value.status == "NOT_FOUND"
        assert await place.journaled() == []


async def test_whoever_says_by_what_signal_a_stop_was_asked_for_says_that_it_was(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        for name, asked in (("job-1", None), ("job-2", False)):
            place.tree.make(f"/{name}")
            await place.client.watch_container(Container(id=name), cgroup=f"/{name}")
            place.tree.kill(f"/{name}")
            exit_ = exit_of(
                await place.client.finalize(
                    name, exit_code=137, stop_requested=asked, stop_signal=15, maximum_wait=WAIT
                )
            )
            assert exit_.stop_requested is (asked is None)
            assert exit_.verdict is (Verdict.UNKNOWN if asked is None else Verdict.OOM)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"exit_code": 256}, "exit_code 256: must be from 0 to 255"),
        ({"exit_code": -1}, "exit_code -1"),
        ({"signal": 65}, "signal 65"),
        ({"stop_signal": 0}, "stop_signal 0"),
        ({"maximum_wait": -1.0}, "maximum_wait"),
        ({"maximum_wait": 61.0}, "from 0 to 60"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, given: dict[str, int], sentence: str
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        with pytest.raises(ValueError, match=sentence):
            await place.client.finalize("job-17", **given)  # type: ignore[arg-type]
        assert await place.journaled() == []


async def test_an_exit_time_in_the_future_makes_no_kill_old(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.kill("/a")
        ahead = time.time_ns() // 1000 + 3600 * 1_000_000
        entry = await place.client.finalize(
            "job-17", exit_code=137, exit_time=ahead, maximum_wait=WAIT
        )
        assert exit_of(entry).verdict is Verdict.OOM


async def test_an_exit_time_before_this_machine_started_makes_no_kill_old(tmp_path: Path) -> None:
    """A worker that has no time may send what stands for none: 1970, or the year 1."""
    async with served(tmp_path) as place:
        for number, never in enumerate((1, -62_135_596_800_000_000)):
            name = f"job-{number}"
            place.tree.make(f"/{name}")
            await place.client.watch_container(Container(id=name), cgroup=f"/{name}")
            place.tree.kill(f"/{name}")
            asked = time.time_ns() // 1000
            entry = await place.client.finalize(
                name, exit_code=137, exit_time=never, maximum_wait=WAIT
            )
            exit_ = exit_of(entry)
            assert exit_.verdict is Verdict.OOM
            assert exit_.exit_time is not None
            assert exit_.exit_time >= asked


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_a_wall_clock_that_is_set_between_parts_no_kill_from_its_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        place.tree.kill("/a")
        await place.kills(1)
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + seconds * 1_000_000_000)
        entry = await place.client.finalize("job-17", exit_code=137, maximum_wait=WAIT)
        assert exit_of(entry).verdict is Verdict.OOM


async def test_a_disk_that_stands_still_ends_the_call_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        monkeypatch.setattr(finalizing, "WRITE_SECONDS", 0.05)
        monkeypatch.setattr(place.watcher.finalization, "written", lambda: None)
        monkeypatch.setattr(place.watcher.correlator.exits, "answer", lambda _: None)
        with pytest.raises((RequestRefused, DaemonUnavailable), match="ask again"):
            await place.client.finalize("job-17", exit_code=1, maximum_wait=0.01)


async def test_the_plain_client_asks_the_same(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        answers: list[Entry] = []

        def ask() -> None:
            with Client(tmp_path / "o.sock") as client:
                answers.append(client.finalize("job-17", exit_code=3, maximum_wait=WAIT))

        thread = threading.Thread(target=ask)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert answers == await place.journaled()


@pytest.mark.parametrize(
    "claim",
    [
        f"/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope",
        f"/docker/{'ff34' * 16}/{ID}",
    ],
    ids=["a user", "a container"],
)
async def test_a_cgroup_that_somebody_names_after_a_container_is_no_life_of_it(
    tmp_path: Path, claim: str
) -> None:
    """Whoever has cgroups of his own can name one after any container whose id he knows."""
    async with served(tmp_path) as place:
        for path in sorted({*_paths_to(f"/docker/{ID}"), *_paths_to(claim)}):
            place.tree.make(path)
        web = Container(id=ID, name="web", runtime="docker")
        await place.client.watch_container(web, cgroup=f"/docker/{ID}")
        place.tree.kill(f"/docker/{ID}")
        place.tree.kill(claim)
        kills = {kill.victim_cgroup: kill for kill in await place.kills(2)}
        assert kills[f"/docker/{ID}"].container == web
        claimed = kills[claim].container
        assert claimed is None or claimed.id != ID
        place.tree.remove(claim)
        async with asyncio.timeout(BOUND):
            while await place.client.get_container(cgroup=claim) is not None:
                await asyncio.sleep(0.01)
        found = await place.client.get_container(container_id=ID)
        assert found is not None
        assert found.path == f"/docker/{ID}"
        assert place.watcher.is_registered(ID)
        exit_ = exit_of(await place.client.finalize(ID, exit_code=137, maximum_wait=WAIT))
        assert (exit_.cgroup, exit_.verdict) == (f"/docker/{ID}", Verdict.OOM)


def _paths_to(path: str) -> list[str]:
    names = path.strip("/").split("/")
    return ["/" + "/".join(names[: end + 1]) for end in range(len(names))]
