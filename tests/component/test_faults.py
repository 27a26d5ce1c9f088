"""What goes wrong around the daemon: it lives or ends with a sentence, and no kill is lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from inotify_simple import Event

from oomwatch import daemon
from oomwatch.cgroup import files
from oomwatch.client import Client
from oomwatch.config import Config
from oomwatch.correlator import Correlator
from oomwatch.correlator.kills import Outcome
from oomwatch.daemon import Watcher
from oomwatch.errors import OwnFault
from oomwatch.events import Entry, EvidenceGap, OomKill
from oomwatch.observations import CounterReading, Observation, Question
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.memory_events.node import Node
from oomwatch.status import NodeStatus
from oomwatch.subscriptions import Latest
from oomwatch.testing import FakeCgroupTree
from tests.component.test_cli_serve import OOMWATCH, Served

BOUND = 30.0


@pytest.fixture
def tree() -> Iterator[FakeCgroupTree]:
    root = Path(tempfile.mkdtemp(prefix="oomwatch-test-", dir="/dev/shm"))
    tree = FakeCgroupTree(root / "tree")
    tree.make("/a")
    yield tree
    shutil.rmtree(root)


async def until(true: Callable[[], bool], seconds: float = BOUND) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def entries(watcher: Watcher) -> list[Entry]:
    return await watcher.journal.read(watcher.journal.oldest_revision - 1, 10_000)


async def told(watcher: Watcher) -> int:
    events = [entry.event for entry in await entries(watcher)]
    return sum(event.kill_count or 0 for event in events if isinstance(event, OomKill))


async def conserved(watcher: Watcher, tree: FakeCgroupTree) -> None:
    """Wait until all is told that the tree counts, and no more."""
    async with asyncio.timeout(BOUND):
        while await told(watcher) < tree.kills("/"):
            await asyncio.sleep(0.01)
    assert await told(watcher) == tree.kills("/")


@asynccontextmanager
async def watching(tree: FakeCgroupTree, state_dir: Path | None = None) -> AsyncIterator[Watcher]:
    watcher = Watcher(Config(cgroup_root=tree.root, state_dir=state_dir))
    await watcher.start()
    try:
        yield watcher
    finally:
        await watcher.stop()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB, too small for a reserve."""
    path = tmp_path / "tiny"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_holds_the_counts_until_there_is_room(
    tree: FakeCgroupTree, tiny: Path
) -> None:
    async with watching(tree, tiny / "state") as watcher:
        healthy: list[bool] = []
        watcher.on_health = healthy.append
        follower = await watcher.subscriptions.open(Latest())
        tree.kill("/a")
        await conserved(watcher, tree)
        with (tiny / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        # Each in a cgroup with a long name: what the journal has left is used up soon.
        number = 0
        async with asyncio.timeout(BOUND):
            while not healthy:
                number += 1
                name = f"/{number:0200}"
                tree.make(name)
                tree.kill(name)
                await asyncio.sleep(0.001)
        status = await watcher.status()
        assert not status.healthy
        assert status.journal.pending_events > 0
        assert "the disk is full" in status.journal.detail
        (tiny / "ballast").unlink()
        await until(lambda: healthy[-1])
        # Old history may have made room; whoever follows is told all of it.
        kills = 0
        async with asyncio.timeout(BOUND):
            while kills < tree.kills("/"):
                events = [entry.event for entry in (await follower.next()).entries]
                kills += sum(e.kill_count or 0 for e in events if isinstance(e, OomKill))
        assert kills == tree.kills("/")
        assert (await watcher.status()).healthy


async def test_a_state_directory_that_goes_is_told_and_taken_up_again(
    tree: FakeCgroupTree, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with watching(tree, state) as watcher:
        healthy: list[bool] = []
        watcher.on_health = healthy.append
        state.rename(tmp_path / "elsewhere")
        tree.kill("/a", 3)
        await until(lambda: healthy == [False])
        assert "removed or replaced; put it back" in (await watcher.status()).journal.detail
        (tmp_path / "elsewhere").rename(state)
        await until(lambda: healthy[-1])
        await conserved(watcher, tree)


async def test_a_clock_that_is_set_back_and_forward_moves_no_revision(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    async with watching(tree, tmp_path) as watcher:
        for hours in (0, -1, 24, 0):
            monkeypatch.setattr(time, "time_ns", lambda hours=hours: real() + hours * 3600 * 10**9)
            tree.kill("/a")
            name = f"/hour{hours}-{tree.kills('/')}"
            tree.make(name)
            tree.kill_and_remove(name)
            await conserved(watcher, tree)
        revisions = [entry.revision for entry in await entries(watcher)]
        assert revisions == list(range(1, len(revisions) + 1))


async def test_counters_that_cannot_be_read_are_degraded_and_told_when_they_can(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that gives EIO, a field that is missing, a number that is none."""
    async with watching(tree) as watcher:
        assert watcher.memory_events is not None
        read = files.EventsReader.read

        def broken(self: files.EventsReader, path: str) -> files.EventsFile:
            raise OSError(5, "Input/output error", path)

        monkeypatch.setattr(files.EventsReader, "read", broken)
        tree.kill("/a", 2)
        followed = watcher.memory_events
        await until(lambda: followed.state().degraded)
        assert "could not be read" in followed.state().detail
        monkeypatch.setattr(files.EventsReader, "read", read)
        await conserved(watcher, tree)
        tree.write("/a", "memory.events.local", "low 0\noom 1\n")
        await until(lambda: followed.state().degraded)
        tree.kill("/a")
        await conserved(watcher, tree)
        await until(lambda: not followed.state().degraded)


async def test_a_fault_of_our_own_writes_nothing_and_ends_with_a_sentence(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was booked and what was told may differ then: the next start tells it."""
    feed = Correlator.feed

    def fails(self: Correlator, observation: Observation, now: float) -> Outcome:
        outcome = feed(self, observation, now)
        if isinstance(observation, CounterReading) and observation.local.oom_kill == 3:
            raise ZeroDivisionError("seeded")
        return outcome

    monkeypatch.setattr(Correlator, "feed", fails)
    watcher = Watcher(Config(cgroup_root=tree.root, state_dir=tmp_path))
    await watcher.start()
    tree.kill("/a", 2)
    await until(lambda: watcher.journal.newest_revision == 1)
    tree.kill("/a")
    assert watcher.broken is not None
    with pytest.raises(OwnFault, match=r"ZeroDivisionError: seeded.*start it again"):
        await asyncio.wait_for(watcher.broken, BOUND)
    await watcher.stop()
    monkeypatch.undo()
    async with watching(tree, tmp_path) as again:
        await conserved(again, tree)


async def test_a_source_that_raises_is_one_witness_less(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = MemoryEvents.answer
    failures = 0

    def fails(self: MemoryEvents, question: Question) -> bool:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise ValueError("seeded")
        return answer(self, question)

    async with watching(tree) as watcher:
        monkeypatch.setattr(MemoryEvents, "answer", fails)
        tree.kill("/a")
        await until(lambda: failures > 0)
        (source,) = [s for s in (await watcher.status()).sources if s.name == "memory_events"]
        assert source.degraded
        assert "ValueError: seeded" in source.detail
        tree.kill("/a")
        tree.make("/b")
        tree.kill("/b")
        await conserved(watcher, tree)
        assert not any(
            s.degraded for s in (await watcher.status()).sources if s.name == source.name
        )
    assert "memory_events failed to answer" in caplog.text


async def test_events_that_could_not_be_taken_in_are_made_up_for(
    tree: FakeCgroupTree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What came with the one that failed is read again, and not at the next audit."""
    restructure = MemoryEvents._restructure

    def fails(self: MemoryEvents, parent: Node, event: Event) -> None:
        monkeypatch.setattr(MemoryEvents, "_restructure", restructure)
        raise ValueError("seeded")

    async with watching(tree) as watcher:
        followed = watcher.memory_events
        assert followed is not None
        monkeypatch.setattr(MemoryEvents, "_restructure", fails)
        monkeypatch.setattr(watcher, "_audit", lambda followed: None)
        tree.make("/b")
        tree.make("/c")
        tree.kill("/c", 2)
        await conserved(watcher, tree)
        state = followed.state()
        assert state.degraded
        assert "ValueError: seeded" in state.detail
        assert state.figures["faults"] == 1
        tree.kill("/b")
        await conserved(watcher, tree)
        events = [entry.event for entry in await entries(watcher)]
        named = {event.victim_cgroup for event in events if isinstance(event, OomKill)}
        assert named == {"/b", "/c"}
    assert "a fault of oomwatch's own" in caplog.text


def most_queued() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_a_queue_that_overflows_loses_no_kill(tree: FakeCgroupTree) -> None:
    """The queue is the kernel's own, filled while the loop is held up."""
    most = most_queued()
    if most > 50_000:
        pytest.skip(f"{most} events fit into a queue here")
    for number in range(10):
        tree.make(f"/c{number}")
    async with watching(tree) as watcher:
        assert watcher.memory_events is not None
        files = [
            (tree.root / f"c{number}" / "memory.events.local").open("r+b", buffering=0)
            for number in range(10)
        ]
        # Turn by turn: what is the same twice in a row is one event in the queue.
        for number in range(most + 1000):
            os.pwrite(files[number % 10].fileno(), b"l", 0)
        for number in range(10):
            tree.kill(f"/c{number}", number + 1)
        tree.make("/new")
        tree.kill("/new")
        tree.kill_and_remove("/c3", 2)
        for file in files:
            file.close()
        await conserved(watcher, tree)
        assert watcher.memory_events.state().figures["overflows"] > 0
        tree.make("/new/newer")
        tree.kill("/new/newer")
        await conserved(watcher, tree)


async def test_a_reboot_is_a_gap_and_what_this_boot_counted_is_told(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_boot_id", lambda: "aaaaaaaa-0000-4000-8000-000000000000")
    async with watching(tree, tmp_path) as watcher:
        tree.kill("/a", 2)
        await conserved(watcher, tree)
        old = (await entries(watcher))[-1]
    fresh = FakeCgroupTree(tree.root.with_name("fresh"))
    fresh.make("/a")
    fresh.kill("/a", 5)
    monkeypatch.setattr(daemon, "_boot_id", lambda: "bbbbbbbb-0000-4000-8000-000000000000")
    for _ in range(2):
        async with watching(fresh, tmp_path) as watcher:
            await until(lambda watcher=watcher: watcher.journal.newest_revision >= 3)  # type: ignore[misc]
            found = [entry.event for entry in await entries(watcher)][1:]
            gap, kill = found
            assert isinstance(gap, EvidenceGap)
            assert gap.occur_after == old.event.detect_time
            assert "cannot be known" in gap.reason
            assert isinstance(kill, OomKill)
            assert (kill.kill_count, kill.recovered) == (5, True)


async def test_the_last_victim_was_oomwatch_itself(
    tree: FakeCgroupTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(daemon, "own_cgroup", lambda: "/a")
    watcher = Watcher(Config(cgroup_root=tree.root, state_dir=tmp_path / "state"))
    await watcher.start()
    shutil.copytree(tmp_path / "state", tmp_path / "killed")
    await watcher.stop()
    tree.kill("/a")
    async with watching(tree, tmp_path / "killed") as again:
        await conserved(again, tree)
    assert f"(process {os.getpid()}) was probably killed for want of memory" in caplog.text
    caplog.clear()
    tree.kill("/a")
    async with watching(tree, tmp_path / "killed") as again:
        await until(lambda: again.journal.newest_revision == 2)
    assert "killed for want of memory" not in caplog.text


@pytest.fixture
def served(tmp_path: Path, tree: FakeCgroupTree) -> Iterator[Served]:
    served = Served(tmp_path)
    served.tree = tree
    served.start()
    yield served
    assert served.process is not None
    if served.process.poll() is None:
        served.process.kill()
    served.process.communicate()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a daemon says of itself, by each of the ways that there are."""

    serving: bool
    status: NodeStatus
    doctor: dict[str, dict[str, str]]
    """Its findings that are not ok, by name."""

    @property
    def degraded(self) -> set[str]:
        return {source.name for source in self.status.sources if source.degraded}


def shown(served: Served) -> Shown:
    with Client(served.socket) as client:
        serving, status = client.health(), client.get_status()
    done = served.run(
        *("doctor", "-o", "json", "--socket", str(served.socket)),
        *("--cgroup-root", str(served.tree.root)),
    )
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    poor = {check["name"]: check for check in checks if check["state"] != "ok"}
    return Shown(serving, status, poor)


def wait_until_shown(served: Served, true: Callable[[Shown], bool]) -> Shown:
    end = time.monotonic() + BOUND
    while not true(now := shown(served)):
        assert time.monotonic() < end, now
    return now


def kills_told(served: Served) -> int:
    with Client(served.socket) as client:
        events = [entry.event for entry in client.list_events()]
    return sum(event.kill_count or 0 for event in events if isinstance(event, OomKill))


def wait_until_told(served: Served, kills: int) -> None:
    end = time.monotonic() + BOUND
    while kills_told(served) != kills:
        assert time.monotonic() < end, f"{kills_told(served)} of {kills} told"


def test_a_journal_that_cannot_be_written_is_shown_and_then_tells_all(served: Served) -> None:
    assert "its journal" not in wait_until_shown(served, lambda now: now.serving).doctor
    away = served.state.with_name("away")
    served.state.rename(away)
    served.tree.kill("/a", 3)
    now = wait_until_shown(
        served, lambda now: not (now.serving or now.status.healthy) and "its journal" in now.doctor
    )
    assert now.status.journal.pending_events == 1
    assert "removed or replaced" in now.doctor["its journal"]["found"]
    assert "NOT_SERVING" in now.doctor["its journal"]["mend"]
    away.rename(served.state)
    wait_until_shown(
        served, lambda now: now.serving and now.status.healthy and "its journal" not in now.doctor
    )
    wait_until_told(served, 3)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, as a file system that can be made read-only under whoever writes to it."""
    image, path = tmp_path / "disk.img", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    make = [["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(path)]]
    for command in make:
        if shutil.which(command[0]) is None:
            pytest.skip(f"there is no {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a disk here: {done.stderr.strip()}")
    yield path
    while path.is_mount():
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_becomes_read_only_is_shown_and_the_next_start_tells_all(
    tmp_path: Path, ext4: Path
) -> None:
    served = Served(tmp_path)
    served.state = ext4 / "state"
    process = served.start()
    try:
        served.tree.kill("/a")
        wait_until_told(served, 1)
        # As after an I/O error, with errors=remount-ro.
        subprocess.run(["mount", "-o", "remount,abort", str(ext4)], capture_output=True)
        served.tree.kill("/a", 3)
        now = wait_until_shown(served, lambda now: not now.serving and "its journal" in now.doctor)
        assert not now.status.healthy
        assert now.status.journal.pending_events == 1
        process.terminate()
        _, words = process.communicate(timeout=BOUND)
        assert "1 events unwritten" in words
        served.tree.kill("/a", 5)
        # Mended: what was on it, checked, on a disk that can be written.
        mended = shutil.copy(tmp_path / "disk.img", tmp_path / "mended.img")
        subprocess.run(["e2fsck", "-fy", mended], capture_output=True)
        subprocess.run(["mount", "-o", "loop", mended, str(ext4)], check=True)
        process = served.start()
        wait_until_told(served, 9)
    finally:
        process.kill()
        process.communicate()


def test_a_counter_that_is_none_is_shown_and_then_tells_all(served: Served) -> None:
    """A field is missing, a negative number, a megabyte of garbage, nothing."""
    served.tree.make("/b")
    for text in ("low 0\noom 1\n", "oom_kill -1\n", "x" * (1 << 20), ""):
        served.tree.kill("/a", 2)
        wait_until_told(served, served.tree.kills("/"))
        served.tree.write("/a", "memory.events.local", text)
        now = wait_until_shown(
            served,
            lambda now: "memory_events" in now.degraded and "its memory_events" in now.doctor,
        )
        assert "/a" in now.doctor["its memory_events"]["found"]
        # Kills are told all the same, of all other cgroups: it keeps its promises.
        assert now.serving
        served.tree.kill("/b")
        wait_until_told(served, served.tree.kills("/"))
        served.tree.kill("/a", 4)
        wait_until_told(served, served.tree.kills("/"))
        wait_until_shown(served, lambda now: "its memory_events" not in now.doctor)


def test_a_second_daemon_on_the_same_state_is_told_whose_it_is(served: Served) -> None:
    assert served.process is not None
    second = served.run(
        *("serve", "--state-dir", str(served.state)),
        *("--socket", str(served.socket.with_name("second.sock"))),
        *("--cgroup-root", str(served.tree.root)),
    )
    assert second.returncode == 1
    assert f"process {served.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    served.tree.kill("/a")
    wait_until_told(served, 1)


def test_a_database_that_is_damaged_ends_the_start_with_a_sentence(served: Served) -> None:
    served.tree.kill("/a")
    wait_until_told(served, 1)
    assert served.process is not None
    served.process.terminate()
    served.process.communicate(timeout=BOUND)
    database = served.state / "journal.db"
    good = database.read_bytes()
    for bad in (b"no database " * 1000, good[: len(good) // 2]):
        database.write_bytes(bad)
        done = served.run(
            *("serve", "--state-dir", str(served.state), "--socket", str(served.socket)),
            *("--cgroup-root", str(served.tree.root)),
        )
        assert done.returncode == 1
        assert str(database) in done.stderr
        assert "Traceback" not in done.stderr
    database.write_bytes(good)
    served.tree.kill("/a", 2)
    served.start()
    wait_until_told(served, 3)


def test_it_starts_and_tells_with_64_descriptors(tmp_path: Path) -> None:
    served = Served(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        process = served.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    try:
        for number in range(50):
            served.tree.make(f"/c{number}")
            served.tree.kill(f"/c{number}")
        served.tree.kill_and_remove("/c7")
        wait_until_told(served, served.tree.kills("/"))
    finally:
        process.kill()
        process.communicate()


def test_stopped_and_continued_it_tells_what_happened_meanwhile(served: Served) -> None:
    assert served.process is not None
    served.process.send_signal(signal.SIGSTOP)
    for number in range(20):
        served.tree.make(f"/c{number}")
        served.tree.kill(f"/c{number}", 2)
        if number % 2:
            served.tree.kill_and_remove(f"/c{number}")
    served.process.send_signal(signal.SIGCONT)
    wait_until_told(served, served.tree.kills("/"))


def test_with_64_descriptors_clients_wait_and_no_kill_does(served: Served) -> None:
    """The watches need one descriptor, whatever there is to watch."""
    assert served.process is not None
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    clients = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex(str(served.socket))
        clients.append(client)
    for number in range(50):
        served.tree.make(f"/c{number}")
        served.tree.kill(f"/c{number}")
    served.tree.kill_and_remove("/c7")
    for client in clients:
        client.close()
    wait_until_told(served, served.tree.kills("/"))
    assert served.process.poll() is None


def test_a_socket_whose_directory_went_keeps_its_streams(tmp_path: Path) -> None:
    served = Served(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    served.socket = run / "o.sock"
    process = served.start()
    command = [*OOMWATCH, "tail", "-n", "0", "--socket", str(served.socket)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            assert tail.stdout.readline().startswith("TIME")
            served.tree.kill("/a")
            assert tail.stdout.readline()
            shutil.rmtree(run)
            served.tree.kill("/a", 2)
            assert tail.stdout.readline()
            tail.kill()
        process.terminate()
        _, errors = process.communicate(timeout=BOUND)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in errors
