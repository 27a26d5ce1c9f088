"""A daemon that died and starts again, and a container that ended meanwhile: told once."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from oomwatch.config import Config
from oomwatch.containers.places import Place, Places
from oomwatch.correlator import lost_ends
from oomwatch.daemon import Watcher
from oomwatch.events import ContainerExit, Entry
from oomwatch.sources.runtimes import RuntimeSocket
from oomwatch.subscriptions import Earliest, EventFilter
from oomwatch.testing import FakeCgroupTree
from tests.component.fake_docker import DB, WEB, FakeDocker, container, listening, now_shown

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
                while {life.cgroup_id for life in first.correlator.containers.end_untold()} != set(
                    made.values()
                ):
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
