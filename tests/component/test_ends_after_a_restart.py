"""A daemon that died and starts again, and a container that ended meanwhile: told once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomwatch.client import Client
from oomwatch.config import Config
from oomwatch.containers.places import Place, Places
from oomwatch.correlator import lost_ends
from oomwatch.daemon import Watcher
from oomwatch.errors import OomwatchError
from oomwatch.events import Container, ContainerExit, Entry
from oomwatch.journal import Journal
from oomwatch.sources.runtimes import RuntimeSocket
from oomwatch.subscriptions import Earliest, EventFilter
from oomwatch.testing import FakeCgroupTree
from oomwatch.verdict.words import STILL_DUE
from scripts._soak.lives import Lives
from tests.component.fake_docker import DB, WEB, FakeDocker, container, listening, now_shown
from tests.component.served import BOUND, in_memory

# The SDK leaves a socket that it could not connect to the garbage collector, which warns of it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"
)


async def exits(watcher: Watcher, count: int) -> list[Entry]:
    """Wait for so many exits, the first of the journal."""
    found: list[Entry] = []
    with await watcher.subscriptions.open(Earliest(), EventFilter()) as subscription:
        async with asyncio.timeout(20):
            while len(found) < count:
                batch = await subscription.next()
                found += [each for each in batch.entries if isinstance(each.event, ContainerExit)]
    return found


@pytest.mark.parametrize("left", ["inspection", "events", "nothing"])
async def test_an_end_of_the_time_between_is_told_once(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if left == "nothing":
        monkeypatch.setattr(lost_ends, "LOST_SECONDS", 0.5)
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/docker")
    made = {name: tree.make(f"/docker/{name}").stat().st_ino for name in (WEB, DB)}

    def locate(_: Places, name: str, pid: int | None) -> Place:
        return Place() if pid is None else Place(pid, f"/docker/{name}", made[name])

    monkeypatch.setattr(Places, "locate", locate)  # no process lives in a tree of plain files
    docker, socket = FakeDocker(), tmp_path / "run" / "docker.sock"
    for name, pid in ((WEB, 4242), (DB, 4243)):
        docker.containers[name] = container(name, "it", Pid=pid, StartedAt=now_shown())
    socket.parent.mkdir()

    def watcher(state: str) -> Watcher:
        runtimes = (RuntimeSocket("docker", socket),)
        return Watcher(Config(cgroup_root=tree.root, state_dir=tmp_path / state, runtimes=runtimes))

    async with listening(docker, socket):
        async with watcher("first") as first:
            async with asyncio.timeout(20):
                while {
                    life.cgroup_id for life in first.correlator.containers.lives.end_untold()
                } != set(made.values()):
                    await asyncio.sleep(0.005)
            await first.journal.flush()
            # What a crash now would leave: the files as they are.
            shutil.copytree(tmp_path / "first", tmp_path / "second")
        tree.kill_and_remove(f"/docker/{WEB}")
        docker.event("die", WEB, exitCode="137")
        if left == "inspection":
            state = {"Running": False, "ExitCode": 137, "OOMKilled": True}
            docker.containers[WEB]["State"].update(state, FinishedAt=now_shown())
        else:
            del docker.containers[WEB]
        if left != "events":
            docker.past.clear()
        async with watcher("second") as second:
            (entry,) = await exits(second, 1)
            shutil.copytree(tmp_path / "second", tmp_path / "third")
        async with watcher("third") as third:
            docker.event("die", DB, exitCode="0")
            again, last = await exits(third, 2)
            assert (await third.status()).journal.newest_revision == last.revision
    told = entry.event
    assert isinstance(told, ContainerExit)
    assert again == entry
    assert (told.recovered, told.cgroup_id) == (True, made[WEB])
    assert told.container is not None
    assert told.container.name == "it"
    # Which process it was nobody can say: one was killed, below /docker.
    assert (told.verdict.value, told.confidence.value) == ("unknown", "medium")
    assert told.exit_code == (None if left == "nothing" else 137)
    assert (told.exit_time is None) == (left == "nothing")
    assert isinstance(last.event, ContainerExit)
    assert (last.event.cgroup_id, last.event.recovered) == (made[DB], False)


class Dying:
    """A daemon on a tree of plain files that is killed at one of its commits."""

    def __init__(self, directory: Path, daemon: Lives) -> None:
        self.tree = FakeCgroupTree(in_memory(directory))
        self.daemon = daemon

    def start(self, die: tuple[str, int] | None = None) -> bool:
        """Start it; False if it died before it was ready."""
        self.daemon.start(die)
        until = time.monotonic() + BOUND
        while not self.daemon.watch(0.05):
            if self.daemon.dead:
                self.daemon.end()
                return False
            assert time.monotonic() < until
        return True

    def end_of(self, name: str) -> None:
        """A container is killed in and gone, and its worker, who waits for nothing, is answered."""
        self.tree.make(f"/{name}")
        with Client(self.daemon.socket) as client:
            client.watch_container(Container(id=name), cgroup=f"/{name}")
            self.tree.kill_and_remove(f"/{name}")
            client.finalize(name, exit_code=137, maximum_wait=0.0)

    def exits(self, name: str) -> list[Entry]:
        with Client(self.daemon.socket) as client:
            return [
                entry
                for entry in client.list_events(Earliest())
                if isinstance(entry.event, ContainerExit)
                and entry.event.container is not None
                and entry.event.container.id == name
            ]

    def amended(self, name: str) -> Entry:
        """Wait until nothing is due to its exit any more, and the kill near it has its revision."""
        until = time.monotonic() + BOUND
        while time.monotonic() < until:
            *_, last = self.exits(name)
            assert isinstance(last.event, ContainerExit)
            if last.event.kills and STILL_DUE not in " ".join(last.event.reasons):
                return last
        raise AssertionError(f"not amended in time: {self.exits(name)}")


@contextmanager
def dying(directory: Path) -> Iterator[Dying]:
    with Lives(directory, "--cgroup-root", str(in_memory(directory))) as daemon:
        yield Dying(directory, daemon)


def left_due(state: Path, copy: Path, name: str) -> bool:
    """Is the last that was written down of a container's exit that something is due?"""

    async def read() -> list[ContainerExit]:
        shutil.copytree(state, copy)
        journal = Journal.open(copy)
        entries = await journal.read(0, 10_000)
        await journal.close()
        shutil.rmtree(copy)
        events = [entry.event for entry in entries]
        return [
            event
            for event in events
            if isinstance(event, ContainerExit)
            and event.container is not None
            and event.container.id == name
        ]

    exits = asyncio.run(read())
    return bool(exits) and STILL_DUE in " ".join(exits[-1].reasons)


@pytest.mark.usefixtures("on_tmpfs")
def test_an_exit_whose_counters_were_due_as_the_daemon_was_killed_is_amended(
    tmp_path: Path,
) -> None:
    """No name comes to a tree of plain files: the kill may be of whatever was gone by then."""
    with dying(tmp_path) as host:
        # Which commit is the exit's depends on what the disk writes together.
        for commit in (*range(2, 12), *range(2, 12)):
            name = f"job-{time.monotonic_ns()}"
            if not host.start(("after", commit)):
                continue
            with contextlib.suppress(OomwatchError):
                host.end_of(name)
            assert host.daemon.end() == -signal.SIGKILL
            if left_due(host.daemon.state, tmp_path / "copy", name):
                break
        else:
            pytest.fail("the daemon never died between an exit and what amends it")
        assert host.start()
        amended = host.amended(name)
        (first, *_) = host.exits(name)
        assert amended.event.amends == first.revision
        assert isinstance(amended.event, ContainerExit)
        assert (amended.event.verdict.value, amended.event.confidence.value) == (
            "unknown",
            "medium",
        )
        told = len(host.exits(name))
        host.daemon.end()
        assert host.start()
        assert len(host.exits(name)) == told
