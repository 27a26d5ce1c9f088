"""What goes wrong around the daemon: it lives or ends with a sentence, and no kill is lost."""

from __future__ import annotations

import asyncio
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
from oomwatch.errors import DaemonUnavailable, OwnFault
from oomwatch.events import Entry, EvidenceGap, OomKill
from oomwatch.observations import CounterReading, Observation, Question
from oomwatch.rpc.health import SOURCES
from oomwatch.rpc.server import RpcServer
from oomwatch.sources import recent
from oomwatch.sources.memory_events import MemoryEvents
from oomwatch.sources.memory_events.node import Node
from oomwatch.subscriptions import Latest
from oomwatch.testing import FakeCgroupTree
from tests.component.faults import (
    doctor,
    healthy_again,
    kills,
    seen_degraded,
    shown,
    wait_until_told,
    well,
)
from tests.component.test_cli_serve import OOMWATCH, Served

BOUND = 30.0
STOPPED_SECONDS = float(os.environ.get("OOMWATCH_STOPPED_SECONDS", "1"))


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


def wait_until_true(true: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def newest(served: Served) -> int:
    with Client(served.socket) as client:
        return client.get_status().journal.newest_revision


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def well_shown(here: Here) -> bool:
    return well(shown(here))


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


@dataclass(frozen=True, slots=True)
class Here:
    """A daemon in this process, where its insides can be broken, and what it is asked by."""

    watcher: Watcher
    socket: Path
    tree: FakeCgroupTree


@asynccontextmanager
async def serving(
    tree: FakeCgroupTree, directory: Path, state_dir: Path | None = None
) -> AsyncIterator[Here]:
    async with watching(tree, state_dir) as watcher:
        server = RpcServer(watcher, socket=directory / "o.sock")
        watcher.on_health = server.set_serving
        async with server:
            yield Here(watcher, directory / "o.sock", tree)


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
    tree: FakeCgroupTree, tiny: Path, tmp_path: Path
) -> None:
    async with serving(tree, tmp_path, tiny / "state") as here:
        watcher = here.watcher
        follower = await watcher.subscriptions.open(Latest())
        tree.kill("/a")
        await conserved(watcher, tree)
        await asyncio.to_thread(healthy_again, here)
        with (tiny / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        # Each in a cgroup with a long name: what the journal has left is used up soon.
        number = 0
        async with asyncio.timeout(BOUND):
            while not watcher.problems():
                number += 1
                name = f"/{number:0200}"
                tree.make(name)
                tree.kill(name)
                await asyncio.sleep(0.001)
        now = await asyncio.to_thread(seen_degraded, here, "the disk is full")
        assert now.status.journal.pending_events > 0
        assert "free space" in now.doctor["its journal"]["found"]
        (tiny / "ballast").unlink()
        await asyncio.to_thread(healthy_again, here)
        # Old history may have made room; whoever follows is told all of it.
        kills = 0
        async with asyncio.timeout(BOUND):
            while kills < tree.kills("/"):
                events = [entry.event for entry in (await follower.next()).entries]
                kills += sum(e.kill_count or 0 for e in events if isinstance(e, OomKill))
        assert kills == tree.kills("/")


async def test_a_clock_that_is_set_back_and_forward_moves_no_revision(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is degraded by it; each kill is dated by the clock of its time."""
    real = time.time_ns
    async with serving(tree, tmp_path, tmp_path / "state") as here:
        told = 0
        for hours in (0, -1, 24, 0):
            monkeypatch.setattr(time, "time_ns", lambda hours=hours: real() + hours * 3600 * 10**9)
            tree.kill("/a")
            name = f"/hour{hours}-{tree.kills('/')}"
            tree.make(name)
            tree.kill_and_remove(name)
            await conserved(here.watcher, tree)
            assert await asyncio.to_thread(well_shown, here)
            new = (await entries(here.watcher))[told:]
            told += len(new)
            now = time.time_ns() // 1000
            assert all(abs(now - entry.event.detect_time) < 60 * 10**6 for entry in new)
        revisions = [entry.revision for entry in await entries(here.watcher)]
        assert revisions == list(range(1, len(revisions) + 1))


async def test_counters_that_cannot_be_read_are_degraded_and_told_when_they_can(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that gives EIO; `test_a_counter_that_is_none` has those that give something."""
    async with serving(tree, tmp_path) as here:
        read = files.EventsReader.read

        def broken(self: files.EventsReader, path: str) -> files.EventsFile:
            raise OSError(5, "Input/output error", path)

        monkeypatch.setattr(files.EventsReader, "read", broken)
        tree.kill("/a", 2)
        words = "could not be read when last tried, as /a (Input/output error)"
        await asyncio.to_thread(seen_degraded, here, words, "memory_events")
        monkeypatch.setattr(files.EventsReader, "read", read)
        await conserved(here.watcher, tree)
        await asyncio.to_thread(healthy_again, here)


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
    tree: FakeCgroupTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = MemoryEvents.answer

    def fails(self: MemoryEvents, question: Question) -> bool:
        raise ValueError("seeded")

    async with serving(tree, tmp_path) as here:
        monkeypatch.setattr(MemoryEvents, "answer", fails)
        tree.kill("/a")
        words = "it failed to answer (ValueError: seeded), a fault of oomwatch's own"
        await asyncio.to_thread(seen_degraded, here, words, "memory_events")
        await conserved(here.watcher, tree)
        monkeypatch.setattr(MemoryEvents, "answer", answer)
        tree.kill("/a")
        tree.make("/b")
        tree.kill("/b")
        await conserved(here.watcher, tree)
        await asyncio.to_thread(healthy_again, here)
    assert "memory_events failed to answer" in caplog.text


async def test_events_that_could_not_be_taken_in_are_made_up_for(
    tree: FakeCgroupTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What came with the one that failed is read again, and not at the next audit."""
    restructure = MemoryEvents._restructure

    def fails(self: MemoryEvents, parent: Node, event: Event) -> None:
        monkeypatch.setattr(MemoryEvents, "_restructure", restructure)
        raise ValueError("seeded")

    async with serving(tree, tmp_path) as here:
        monkeypatch.setattr(MemoryEvents, "_restructure", fails)
        monkeypatch.setattr(here.watcher, "_audit", lambda followed: None)
        tree.make("/b")
        tree.make("/c")
        tree.kill("/c", 2)
        await conserved(here.watcher, tree)
        words = "it failed (ValueError: seeded), a fault of oomwatch's own"
        await asyncio.to_thread(seen_degraded, here, words, "memory_events")
        tree.kill("/b")
        await conserved(here.watcher, tree)
        events = [entry.event for entry in await entries(here.watcher)]
        named = {event.victim_cgroup for event in events if isinstance(event, OomKill)}
        assert named == {"/b", "/c"}
        # It is over, and stays in the figures.
        monkeypatch.setattr(recent, "SHOWN_SECONDS", 0.0)
        now = await asyncio.to_thread(healthy_again, here)
        assert [s.figures["faults"] for s in now.status.sources if s.figures] == [1]
    assert "a fault of oomwatch's own" in caplog.text


def most_queued() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_a_queue_that_overflows_loses_no_kill(
    tree: FakeCgroupTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is the kernel's own, filled while the loop is held up."""
    most = most_queued()
    if most > 50_000:
        pytest.skip(f"{most} events fit into a queue here")
    for number in range(10):
        tree.make(f"/c{number}")
    async with serving(tree, tmp_path) as here:
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
        await conserved(here.watcher, tree)
        now = await asyncio.to_thread(
            seen_degraded, here, "inotify's queue overflowed", "memory_events"
        )
        assert "max_queued_events" in now.degraded["memory_events"]
        tree.make("/new/newer")
        tree.kill("/new/newer")
        await conserved(here.watcher, tree)
        monkeypatch.setattr(recent, "SHOWN_SECONDS", 0.0)
        now = await asyncio.to_thread(healthy_again, here)
        assert now.status.sources[0].figures is not None
        assert now.status.sources[0].figures["overflows"] > 0


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


def test_a_journal_that_cannot_be_written_is_shown_and_then_tells_all(served: Served) -> None:
    healthy_again(served)
    away = served.state.with_name("away")
    served.state.rename(away)
    served.tree.kill("/a", 3)
    now = seen_degraded(served, "removed or replaced; put it back")
    assert now.status.journal.pending_events == 1
    assert "removed or replaced" in now.doctor["its journal"]["found"]
    away.rename(served.state)
    healthy_again(served)
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
        now = seen_degraded(served, "its disk answers with an I/O error")
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
        healthy_again(served)
    finally:
        process.kill()
        process.communicate()


def test_a_counter_that_is_none_is_shown_and_then_tells_all(served: Served) -> None:
    """A field is missing, a negative number, a megabyte of garbage, nothing."""
    served.tree.make("/b")
    for text in ("low 0\noom 1\n", "oom_kill -1\n", "x" * (1 << 20), ""):
        served.tree.kill("/a", 2)
        wait_until_told(served)
        served.tree.write("/a", "memory.events.local", text)
        seen_degraded(served, "as /a (it has no count of oom_kill)", "memory_events")
        # Kills are told all the same, of all other cgroups: it keeps its promises.
        served.tree.kill("/b")
        wait_until_told(served)
        served.tree.kill("/a", 4)
        wait_until_told(served)
        healthy_again(served)


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
        # Nobody is there to be asked; who looks is told that, and that nothing is kept.
        assert "nothing is kept" in doctor(served)["daemon"]["found"]
    database.write_bytes(good)
    served.tree.kill("/a", 2)
    served.start()
    wait_until_told(served, 3)
    healthy_again(served)


def test_a_database_that_is_damaged_while_it_is_open_is_shown(served: Served) -> None:
    """As soon as anybody asks for what was told: whoever does is told so too, in a sentence."""
    assert served.process is not None
    served.tree.kill("/a")
    wait_until_told(served, 1)
    database = served.state / "journal.db"
    for path in (database, database.with_name("journal.db-wal")):
        with path.open("r+b") as file:
            file.write(b"no database " * 1000)
    served.tree.kill("/a", 2)  # else what was read before need not be read again
    wait_until_true(lambda: newest(served) == 2)
    with Client(served.socket) as client, pytest.raises(DaemonUnavailable, match="is no SQLite"):
        list(client.list_events())
    now = seen_degraded(served, "it is no SQLite database")
    assert "move it away and start again" in now.status.problems[0]
    served.process.terminate()
    _, words = served.process.communicate(timeout=BOUND)
    assert "what was told cannot be read" in words
    assert "Traceback" not in words
    served.state.rename(served.state.with_name("damaged"))
    served.start()
    healthy_again(served)
    served.tree.kill("/a", 3)
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
        wait_until_told(served)
        healthy_again(served)
    finally:
        process.kill()
        process.communicate()


def test_stopped_and_continued_it_tells_what_happened_meanwhile(served: Served) -> None:
    """Nothing is degraded by it: it is all told, late, and each kill says between when it was."""
    assert served.process is not None
    before = time.time_ns() // 1000
    served.process.send_signal(signal.SIGSTOP)
    for number in range(20):
        served.tree.make(f"/c{number}")
        served.tree.kill(f"/c{number}", 2)
        if number % 2:
            served.tree.kill_and_remove(f"/c{number}")
    time.sleep(STOPPED_SECONDS)
    after = time.time_ns() // 1000
    served.process.send_signal(signal.SIGCONT)
    wait_until_told(served)
    healthy_again(served)
    told = kills(served)
    assert all(kill.detect_time >= after for kill in told)
    assert all(kill.occur_after is None or kill.occur_after <= before for kill in told)
    assert not any(kill.recovered for kill in told)


def test_with_64_descriptors_clients_wait_and_no_kill_does(served: Served) -> None:
    """The watches need one descriptor, whatever there is to watch; a look at a file needs another.

    Who is connected sees what is wrong; who is not, waits.
    """
    assert served.process is not None
    pid = served.process.pid
    with Client(served.socket) as connected:
        assert connected.health(SOURCES)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
        clients = []
        for _ in range(100):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            client.connect_ex(str(served.socket))
            clients.append(client)
        wait_until_true(lambda: descriptors(pid) == 64)
        for number in range(50):
            served.tree.make(f"/c{number}")
            served.tree.kill(f"/c{number}")
        served.tree.kill_and_remove("/c7")
        wait_until_true(lambda: not connected.health(SOURCES))
        (source,) = connected.get_status().sources
        assert source.degraded
        assert "(Too many open files)" in source.detail
        assert connected.health(), "it keeps its promises: nothing is lost"
        assert {"daemon", "its status"} & doctor(served).keys(), "who looks anew is not answered"
        for client in clients:
            client.close()
    wait_until_told(served)
    assert served.process.poll() is None
    healthy_again(served)


def test_a_socket_whose_directory_went_keeps_its_streams_and_is_there_again(
    tmp_path: Path,
) -> None:
    """`test_socket_gone.py` has the other ways in which it goes."""
    served = Served(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    served.socket = run / "o.sock"
    process = served.start()
    command = [*OOMWATCH, "tail", "-n", "0", "--socket", str(served.socket)]
    try:
        with (
            Client(served.socket) as connected,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail,
        ):
            assert tail.stdout is not None
            assert tail.stdout.readline().startswith("TIME")
            served.tree.kill("/a")
            assert tail.stdout.readline()
            assert connected.health()
            # Stopped, for as long as it takes to put something in its way.
            process.send_signal(signal.SIGSTOP)
            shutil.rmtree(run)
            run.write_text("in the way")
            process.send_signal(signal.SIGCONT)
            served.tree.kill("/a", 2)
            assert tail.stdout.readline()
            wait_until_true(lambda: "put it back" in "".join(connected.get_status().problems))
            (problem,) = connected.get_status().problems
            assert f"nobody can connect at unix:{served.socket}" in problem
            assert not connected.health()
            assert not connected.get_status().healthy
            assert "not a directory" in doctor(served)["daemon"]["found"]
            run.unlink()
            wait_until_true(served.socket.exists)
            healthy_again(served)
            wait_until_told(served, 3)
            served.tree.kill("/a", 4)
            assert tail.stdout.readline(), "of the same stream"
            wait_until_told(served, 7)
            assert connected.health()
            tail.kill()
        process.terminate()
        _, errors = process.communicate(timeout=BOUND)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "nobody can connect" in errors
    assert "Traceback" not in errors
