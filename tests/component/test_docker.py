"""The Docker witness against a server that speaks its API: well, badly, late, or not at all."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oomwatch.config import Config
from oomwatch.containers.lives import Life
from oomwatch.containers.places import Place, Places
from oomwatch.daemon import Watcher
from oomwatch.events import Container, OomKill, Pod, Scope
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation, RuntimeOom
from oomwatch.sources.runtimes import RuntimeSocket, docker_api
from oomwatch.sources.runtimes import source as runtime_source
from oomwatch.sources.runtimes.docker import Docker
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.subscriptions import Earliest, EventFilter
from oomwatch.testing import FakeCgroupTree
from tests.component.fake_docker import DB, WEB, FakeDocker, container, listening, now_shown

# The SDK leaves a socket that it could not connect to the garbage collector, which warns of it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"
)

Kind = TypeVar("Kind", bound=Observation)


class Following:
    def __init__(self, docker: FakeDocker, source: Docker, socket: Path) -> None:
        self.docker, self.source, self.socket = docker, source, socket
        self.observations: list[Observation] = []

    def emit(self, observations: Sequence[Observation]) -> None:
        self.observations += observations

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [seen for seen in self.observations if isinstance(seen, kind)]

    async def until(self, seen: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not seen():
                await asyncio.sleep(0.005)

    async def event(self, action: str, container_id: str, **attributes: str) -> None:
        """Report an event, once somebody follows."""
        await self.until(lambda: self.docker.following)
        self.docker.event(action, container_id, **attributes)

    async def named(self, count: int) -> list[ContainerSeen]:
        """Wait until so many containers were inspected."""
        await self.until(lambda: len(self.inspected()) >= count)
        return self.inspected()

    def inspected(self) -> list[ContainerSeen]:
        return [s for s in self.all(ContainerSeen) if s.memory_limit_bytes is not None]

    async def ended(self, count: int = 1) -> list[ContainerEnded]:
        await self.until(lambda: len(self.all(ContainerEnded)) >= count)
        return self.all(ContainerEnded)


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "docker.sock"


class EachInItsOwn(Places):
    """Every pid lives in a cgroup of its own, whose inode is the pid."""

    def __init__(self) -> None:
        super().__init__(None)

    def locate(self, container_id: str, pid: int | None) -> Place:
        return Place() if pid is None else Place(pid, f"/docker/{container_id}", pid)


@asynccontextmanager
async def following(
    docker: FakeDocker, socket: Path, places: Places | None = None
) -> AsyncIterator[Following]:
    socket.parent.mkdir(exist_ok=True)
    async with listening(docker, socket), started(docker, socket, places) as watch:
        yield watch


@asynccontextmanager
async def started(
    docker: FakeDocker, socket: Path, places: Places | None = None
) -> AsyncIterator[Following]:
    source = Docker("docker", socket, SocketDirectories(), places or Places(None))
    watch = Following(docker, source, socket)
    await source.start(watch.emit)
    try:
        yield watch
    finally:
        await source.stop()


async def test_what_runs_is_named_and_then_described(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db", Running=False)}
    async with following(docker, socket) as watch:
        (inspected,) = await watch.named(1)
    first = watch.all(ContainerSeen)[0]
    expected = Container(
        id=WEB, name="web", runtime="docker", image="shop:1", labels={"app": "web"}
    )
    assert first.container == expected
    assert inspected.container.handler == "runc"
    assert inspected.memory_limit_bytes == 32 << 20
    assert (inspected.pid, inspected.cgroup) == (None, None)
    assert watch.source.state().figures["connections"] == 1


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_pid_is_looked_up_unless_it_is_of_another_pid_namespace(
    socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    monkeypatch.setattr(runtime_source, "speaks_of_foreign_pids", lambda _: foreign)
    proc = tmp_path / "proc"
    for pid in ("self/ns", "395"):
        (proc / pid).mkdir(parents=True)
    (proc / "self/ns/pid").symlink_to("pid:[4026531836]")
    (proc / "395/cgroup").write_text("0::/batch\n")
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web", Pid=395)}
    async with following(docker, socket, Places(None, str(proc))) as watch:
        (inspected,) = await watch.named(1)
    assert (inspected.pid, inspected.cgroup) == ((None, None) if foreign else (395, "/batch"))


async def test_a_start_an_oom_and_an_end_are_told(socket: Path) -> None:
    docker = FakeDocker()
    async with following(docker, socket) as watch:
        docker.containers[WEB] = container(WEB, "web")
        await watch.event("start", WEB)
        await watch.named(1)
        await watch.event("oom", WEB)
        docker.containers[WEB] = container(WEB, "web", Running=False, OOMKilled=True)
        await watch.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
    (oom,) = watch.all(RuntimeOom)
    assert oom.container_id == WEB
    assert abs(oom.time - time.time_ns() // 1000) < 60_000_000
    assert (ended.exit_code, ended.oom_killed, ended.stop_requested) == (137, True, False)
    assert ended.signal is None


async def test_what_has_ended_when_it_is_looked_at_began_when_docker_says(socket: Path) -> None:
    docker = FakeDocker()
    async with following(docker, socket) as watch:
        began = {"StartedAt": "2026-11-26T19:10:47.983989Z"}
        docker.containers[WEB] = container(WEB, "web", Running=False, **began)
        await watch.event("start", WEB)
        await watch.until(lambda: bool(watch.all(ContainerSeen)))
    (seen,) = watch.all(ContainerSeen)
    assert seen.start_time == 1_795_720_247_983_989


async def test_a_start_that_is_read_after_all_is_that_of_the_life_that_was_listed(
    socket: Path,
) -> None:
    """Docker says "start" a moment after it began, and on a busy host that is a long one."""
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web", StartedAt="2026-11-26T19:10:47.983989Z")
    async with following(docker, socket) as watch:
        await watch.named(1)
        del docker.containers[WEB]
        await watch.event("start", WEB, name="web", image="shop:1")
        await watch.until(lambda: len(watch.all(ContainerSeen)) == 3)
    listed, shown, gone = watch.all(ContainerSeen)
    assert [one.listed for one in (listed, shown, gone)] == [True, False, False]
    assert gone.start_time == shown.start_time == 1_795_720_247_983_989


async def test_a_container_that_is_removed_at_once_ends_without_a_flag(socket: Path) -> None:
    async with following(FakeDocker(), socket) as watch:
        await watch.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
    assert (ended.exit_code, ended.oom_killed, ended.stop_requested) == (137, None, None)


@pytest.mark.parametrize("podman", [False, True])
async def test_a_container_that_is_gone_when_its_start_is_read_has_its_name(
    socket: Path, podman: bool
) -> None:
    docker = FakeDocker()
    docker.podman = podman
    own = {"name": "web", "image": "shop:1"} | (
        {"containerExitCode": "0", "podId": ""} if podman else {}
    )
    async with following(docker, socket) as watch:
        await watch.event("start", WEB, app="web", **own)
        await watch.until(lambda: bool(watch.all(ContainerSeen)))
    (seen,) = watch.all(ContainerSeen)
    runtime = "podman" if podman else "docker"
    assert seen.container == Container(
        id=WEB, name="web", runtime=runtime, image="shop:1", labels={"app": "web"}
    )
    assert (seen.pid, seen.cgroup) == (None, None)
    # By which it is told from a life of the same container that began later.
    assert seen.start_time is not None


@pytest.mark.parametrize(
    ("signals", "requested", "signal"),
    [
        (["15", "9"], True, 9),
        (["1"], False, None),
        (["28"], True, 28),
        (["SIGTERM"], True, 15),
        ([""], None, None),
        ([], False, None),
    ],
    ids=["stop", "hangup", "image's own", "by name", "podman tells none", "nobody"],
)
async def test_it_is_told_who_asked_for_the_end(
    socket: Path, signals: list[str], requested: bool | None, signal: int | None
) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.event("start", WEB)
        await watch.named(1)
        for asked in signals:
            await watch.event("kill", WEB, **({"signal": asked} if asked else {}))
        await watch.event("die", WEB, exitCode="143")
        (ended,) = await watch.ended()
    assert (ended.stop_requested, ended.stop_signal) == (requested, signal)


async def test_a_container_that_was_there_before_us_may_have_been_asked_before_us(
    socket: Path,
) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.named(1)
        await watch.event("die", WEB, exitCode="143")
        (ended,) = await watch.ended()
    assert ended.stop_requested is None


async def test_lives_of_one_id_are_told_apart(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.event("start", WEB)
        await watch.event("kill", WEB, signal="15")
        await watch.event("die", WEB, exitCode="0")
        await watch.event("start", WEB)
        await watch.event("die", WEB, exitCode="1")
        first, second = await watch.ended(2)
    assert (first.stop_requested, second.stop_requested) == (True, False)
    # It runs again by the time it is asked: the flag would be the new life's.
    assert first.oom_killed is None


def runs(docker: FakeDocker, pid: int) -> None:
    """Let it run in a life that begins now."""
    docker.containers[WEB] = container(WEB, "web", Pid=pid, StartedAt=now_shown())


async def test_an_end_between_two_connections_is_the_earlier_lifes(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    runs(docker, 1)
    async with following(docker, socket, EachInItsOwn()) as watch:
        await watch.named(1)
        docker.drop()
        await watch.until(lambda: not docker.following)
        docker.event("die", WEB, exitCode="137")
        runs(docker, 2)
        docker.event("start", WEB)
        (ended,) = await watch.ended()
        assert (ended.cgroup_id, ended.exit_code, ended.oom_killed) == (1, 137, None)
        await watch.event("die", WEB, exitCode="0")
        _, second = await watch.ended(2)
    assert (second.cgroup_id, second.exit_code) == (2, 0)


async def test_an_end_before_the_first_connection_is_not_of_the_life_that_runs(
    socket: Path,
) -> None:
    docker = FakeDocker()
    docker.event("die", WEB, exitCode="137")
    runs(docker, 2)
    docker.event("start", WEB)
    async with following(docker, socket, EachInItsOwn()) as watch:
        (ended,) = await watch.ended()
        await watch.until(lambda: len(watch.inspected()) == 2)
    assert (ended.cgroup_id, ended.exit_code, ended.oom_killed) == (None, 137, None)
    seen = watch.inspected()[0]
    assert seen.start_time is not None
    assert ended.exit_time is not None
    assert ended.exit_time < seen.start_time, "so the correlator knows as well"


@pytest.mark.parametrize("ended_again", [False, True])
async def test_a_start_that_is_read_once_the_next_life_runs_is_not_of_that(
    socket: Path, ended_again: bool
) -> None:
    docker = FakeDocker()
    docker.event("start", WEB)
    docker.event("die", WEB, exitCode="137")
    runs(docker, 2)
    docker.event("start", WEB)
    docker.containers[WEB]["State"]["Running"] = not ended_again
    async with following(docker, socket, EachInItsOwn()) as watch:
        (ended,) = await watch.ended()
        await watch.event("die", WEB, exitCode="3")
        _, second = await watch.ended(2)
    assert (ended.cgroup_id, ended.exit_code) == (None, 137)
    assert (second.cgroup_id, second.exit_code) == (None if ended_again else 2, 3)


def before_a_restart(pid: int, began: str | None = None) -> Life:
    """A life as the journal has it, in a cgroup whose inode is its pid."""
    life = Life(WEB, pid, time.time_ns() // 1000, f"/docker/{WEB}", pid)
    start_time = datetime.fromisoformat(began or now_shown()).timestamp()
    return replace(life, start_time=round(start_time * 1e6))


@asynccontextmanager
async def started_again(docker: FakeDocker, socket: Path, *lives: Life) -> AsyncIterator[Following]:
    """A witness that was told of lives from before; nothing was written down for an hour."""
    socket.parent.mkdir()
    source = Docker("docker", socket, SocketDirectories(), EachInItsOwn())
    source.recall(lives, time.time_ns() // 1000 - 3600 * 10**6)
    watch = Following(docker, source, socket)
    async with listening(docker, socket):
        await source.start(watch.emit)
        try:
            yield watch
        finally:
            await source.stop()


def ends(docker: FakeDocker, pid: int = 1, **state: Any) -> str:
    """Let it have ended in the life that began now; returns when that was."""
    runs(docker, pid)
    state = {"Running": False, "ExitCode": 137, "FinishedAt": now_shown(), **state}
    docker.containers[WEB]["State"].update(state)
    began: str = docker.containers[WEB]["State"]["StartedAt"]
    return began


async def test_what_ended_while_we_were_down_is_asked_for(socket: Path) -> None:
    docker = FakeDocker()
    began = ends(docker, OOMKilled=True)
    async with started_again(docker, socket, before_a_restart(1, began)) as watch:
        (ended,) = await watch.ended()
        assert (ended.cgroup_id, ended.exit_code, ended.oom_killed) == (1, 137, True)
        docker.event("die", DB, exitCode="0")
        await watch.ended(2)


@pytest.mark.parametrize("podman", [False, True])
async def test_what_was_removed_while_we_were_down_is_known_by_its_events(
    socket: Path, podman: bool
) -> None:
    docker = FakeDocker()
    docker.podman = podman
    life = before_a_restart(1)
    docker.event("kill", WEB, signal="9")
    docker.event("die", WEB, exitCode="137")
    docker.event("destroy", WEB)
    async with started_again(docker, socket, life) as watch:
        (ended,) = await watch.ended()
        await watch.until(lambda: docker.following)
        docker.event("die", DB, exitCode="0")
        assert [e.container_id for e in await watch.ended(2)] == [WEB, DB], "once"
    assert (ended.cgroup_id, ended.exit_code) == (1, 137)
    assert (ended.stop_requested, ended.stop_signal) == (True, 9)


async def test_what_runs_anew_since_we_were_down_has_ended_before(socket: Path) -> None:
    docker = FakeDocker()
    docker.event("die", WEB, exitCode="1")  # was told before, of a life before
    life = before_a_restart(1)
    docker.event("die", WEB, exitCode="137")
    for pid in (2, 3):
        runs(docker, pid)
        docker.event("start", WEB)
        docker.event("die", WEB, exitCode="2")
    runs(docker, 4)
    docker.event("start", WEB)
    async with started_again(docker, socket, life) as watch:
        ended = (await watch.ended())[0]
        await watch.event("die", WEB, exitCode="3")
        async with asyncio.timeout(20):
            while watch.all(ContainerEnded)[-1].exit_code != 3:
                await asyncio.sleep(0.005)
    assert (ended.cgroup_id, ended.exit_code) == (1, 137)
    assert [(e.cgroup_id, e.exit_code) for e in watch.all(ContainerEnded)][-1] == (4, 3)
    assert {e.cgroup_id for e in watch.all(ContainerEnded)[1:-1]} <= {None}


@pytest.mark.parametrize("removed", [True, False])
async def test_an_end_that_the_runtime_has_forgotten_is_not_made_up(
    socket: Path, removed: bool
) -> None:
    """Where it was removed, or ended in a life that came after the one that is asked for."""
    docker = FakeDocker()
    life = before_a_restart(1)
    if not removed:
        ends(docker, 2)
    async with started_again(docker, socket, life) as watch:
        await watch.event("die", DB, exitCode="0")
        assert [e.container_id for e in await watch.ended()] == [DB]


async def test_a_runtime_that_does_not_end_its_past_is_followed_all_the_same(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "ANSWER_SECONDS", 0.5)
    docker = FakeDocker()
    docker.ends_the_past = False
    began = ends(docker)
    async with started_again(docker, socket, before_a_restart(1, began)) as watch:
        await watch.ended()
        await watch.event("oom", DB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        assert watch.source.state().figures["connections"] == 1


async def test_a_new_name_is_told(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.named(1)
        docker.containers[WEB]["Name"] = "/shop"
        await watch.event("rename", WEB)
        seen = await watch.named(2)
    assert seen[-1].container.name == "shop"


async def test_podman_is_known_by_its_answer(socket: Path) -> None:
    docker = FakeDocker()
    docker.podman = True
    docker.containers[WEB] = container(WEB, "web")
    docker.containers[WEB]["HostConfig"]["Runtime"] = "oci"
    async with following(docker, socket) as watch:
        (seen,) = await watch.named(1)
    assert (seen.container.runtime, seen.container.handler) == ("podman", None)


async def test_what_podman_does_not_say_is_not_known(socket: Path) -> None:
    docker = FakeDocker()
    docker.podman = True
    async with following(docker, socket) as watch:
        await watch.event("start", WEB)
        docker.containers[WEB] = container(WEB, "web", Running=False, ExitCode=137)
        await watch.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
    assert (ended.exit_code, ended.stop_requested, ended.oom_killed) == (137, None, None)


async def test_a_pods_container_has_its_pod(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "k8s_web")
    docker.containers[WEB]["Config"]["Labels"] = {
        "io.kubernetes.pod.name": "api-0",
        "io.kubernetes.pod.namespace": "prod",
        "io.kubernetes.pod.uid": "u1",
    }
    async with following(docker, socket) as watch:
        (seen,) = await watch.named(1)
    assert seen.container.pod == Pod(uid="u1", name="api-0", namespace="prod")


async def test_what_happens_between_two_connections_is_told_once(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.event("oom", WEB)
        await watch.until(lambda: len(watch.all(RuntimeOom)) == 1)
        docker.drop()
        await watch.until(lambda: not docker.following)
        docker.event("oom", WEB)  # nobody is there
        await watch.until(lambda: len(watch.all(RuntimeOom)) == 2)
        await watch.event("oom", WEB)
        await watch.until(lambda: len(watch.all(RuntimeOom)) == 3)
        state = watch.source.state()
    assert state.figures["connections"] == 2
    assert docker.sinces[1] >= docker.sinces[0]


async def test_what_ended_while_the_runtime_was_away_is_found(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db")}
    async with started(docker, socket) as watch:
        socket.parent.mkdir()
        async with listening(docker, socket):
            await watch.named(2)
        docker.past.clear()  # a restart forgets
        docker.containers[WEB] = container(
            WEB,
            "web",
            Running=False,
            OOMKilled=True,
            ExitCode=137,
            FinishedAt="2026-11-22T22:08:29.805177056Z",
        )
        async with listening(docker, socket):
            await watch.ended()
            assert watch.source.active
            # It finds out by itself, and says so.
            docker.event("die", WEB, exitCode="137")
            docker.event("oom", DB)
            await watch.until(lambda: bool(watch.all(RuntimeOom)))
            (ended,) = watch.all(ContainerEnded)
        await watch.until(lambda: not watch.source.active)
    assert (ended.container_id, ended.exit_code, ended.oom_killed) == (WEB, 137, True)
    assert ended.exit_time == 1795385309805177
    assert ended.stop_requested is None


async def test_what_a_runtime_ends_as_it_ends_itself_is_told(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.named(1)
        docker.raw = {f"/containers/{WEB}/json": b"\r\n"}  # it answers no more
        await watch.event("kill", WEB, signal="15")
        await watch.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
    assert (ended.exit_code, ended.stop_requested, ended.oom_killed) == (137, True, None)


async def test_a_runtime_that_comes_later_is_noticed_without_a_look(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with started(docker, socket) as watch:
        # Neither the socket nor its directory is there.
        await watch.until(lambda: "there is no" in watch.source.state().detail)
        assert not watch.source.state().degraded
        assert docker.requests == []
        socket.parent.mkdir()
        async with listening(docker, socket):
            await watch.named(1)
            assert watch.source.active


async def test_a_runtime_that_never_answers_costs_only_names(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    docker.hangs = {"/_ping"}
    async with following(docker, socket) as watch:
        await watch.until(lambda: "does not answer" in watch.source.state().detail)
        assert watch.source.state().degraded
        assert not watch.source.active
        docker.hangs = set()
        await watch.named(1)


async def test_a_runtime_that_hangs_in_the_middle_is_left(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    docker.hangs = {f"/containers/{WEB}/json"}
    async with following(docker, socket) as watch:
        await watch.until(lambda: f"/containers/{WEB}/json" in docker.requests)
        # The name was told all the same; and stopping does not wait for the answer.
        assert watch.all(ContainerSeen)[0].container.name == "web"
    assert not watch.source.active


def answer(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("path", "lie"),
    [
        ("/_ping", answer(b"OK")),
        ("/_ping", answer(b"OK", b"Api-Version: 1.41/../../secret")),
        ("/_ping", answer(b"OK", b"Api-Version: 1.41", b"Content-Encoding: gzip")),
        ("/_ping", b"HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\n\r\n"),
        ("/_ping", b"SSH-2.0-OpenSSH\r\n\r\n"),
        ("/_ping", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
        ("/containers/json", answer(b"x" * (docker_api.LIST_BYTES + 1))),
        ("/containers/json", b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["no version", "version", "packed", "elsewhere", "ssh", "headers", "large", "broken"],
)
async def test_a_runtime_that_lies_is_left_and_tried_again(
    socket: Path, path: str, lie: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(docker_api, "ANSWER_SECONDS", 1.0)
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    docker.raw = {path: lie}
    async with following(docker, socket) as watch:
        await watch.until(lambda: "does not answer" in watch.source.state().detail)
        docker.raw = {}
        await watch.named(1)


HALF = b'[{"Id": "ee12'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + HALF,
        b"HTTP/1.1 200 OK\r\n\r\n" + HALF,
        CHUNKED + b"f00\r\n" + HALF,
        CHUNKED + b"%x\r\n" % len(HALF) + HALF + b"\r\n",
        CHUNKED + b"%x\r\n" % len(HALF) + HALF + b"\r\nnonsense\r\n",
    ],
    ids=["nothing", "header", "length", "until it closes", "chunk", "chunks", "garbage"],
)
@pytest.mark.parametrize("path", ["/containers/json", f"/containers/{WEB}/json"])
async def test_an_answer_that_is_cut_costs_a_connection(
    socket: Path, path: str, cut: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db")}
    docker.cut = {path: cut}
    async with following(docker, socket) as watch:
        await watch.until(lambda: {s.container.id for s in watch.inspected()} == {WEB, DB})
        assert watch.source.state().figures["connections"] == 2
        assert not docker.cut


async def test_a_past_that_is_cut_is_asked_for_again(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a container ended that was removed meanwhile is known from nowhere else."""
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    life = before_a_restart(1, "2026-11-22T22:08:29Z")
    for action, told in (("kill", {"signal": "9"}), ("die", {"exitCode": "137"})):
        docker.event(action, WEB, **told)
    long_ago = b'"timeNano": %d' % (time.time_ns() - 600 * 10**9)
    docker.past = [re.sub(rb'"timeNano": \d+', long_ago, line) for line in docker.past]
    kill = docker.past[0]
    docker.cut = {"/events": CHUNKED + b"%x\r\n%s\r\nf00\r\n{" % (len(kill), kill)}
    async with started_again(docker, socket, life) as watch:
        (ended,) = await watch.ended()
        await watch.event("die", DB, exitCode="0")
        assert [e.container_id for e in await watch.ended(2)] == [WEB, DB], "once"
    assert (ended.cgroup_id, ended.exit_code, ended.stop_signal) == (1, 137, 9)


@pytest.mark.parametrize("garbage", [b"nonsense\r\n", b"f00\r\n{", b"-1\r\n", b"\x00" * 100])
async def test_events_that_turn_to_garbage_cost_a_connection(
    socket: Path, garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    async with following(docker, socket) as watch:
        await watch.event("oom", WEB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        docker.break_off(garbage)
        await watch.until(lambda: watch.source.state().figures["connections"] == 2)
        await watch.event("oom", DB)
        await watch.until(lambda: len(watch.all(RuntimeOom)) > 1)
    assert [oom.container_id for oom in watch.all(RuntimeOom)] == [WEB, DB]


async def test_who_started_is_known_though_the_answer_was_cut(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And though it was gone when it could be asked for again."""
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    async with following(docker, socket) as watch:
        await watch.until(lambda: docker.following)
        docker.cut = {f"/containers/{WEB}/json": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"}
        docker.event("start", WEB, name="web", image="shop:1")
        await watch.until(lambda: bool(watch.all(ContainerSeen)))
        docker.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
    (seen,) = watch.all(ContainerSeen)
    assert (seen.container.id, seen.container.name) == (WEB, "web")
    assert ended.exit_code == 137


@pytest.mark.parametrize("anew", [False, True])
async def test_the_flag_of_an_end_is_asked_for_once_more_where_the_answer_was_cut(
    socket: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    async with following(docker, socket) as watch:
        await watch.named(1)
        docker.cut = {f"/containers/{WEB}/json": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"}
        docker.containers[WEB] = container(
            WEB,
            "web",
            Running=False,
            OOMKilled=True,
            ExitCode=137,
            StartedAt="2100-11-22T22:08:29Z" if anew else "2020-11-22T22:08:29Z",
        )
        docker.event("die", WEB, exitCode="137")
        if anew:
            await watch.ended()
            await watch.until(lambda: watch.source.state().figures["connections"] == 2)
            await watch.event("die", DB, exitCode="0")
            first, of_another = await watch.ended(2)
            assert (first.container_id, of_another.container_id) == (WEB, DB)
            return
        first, again = await watch.ended(2)
    assert (first.oom_killed, again.oom_killed) == (None, True)
    assert again == replace(first, oom_killed=True), "the same word, and so on the same life"


@pytest.mark.parametrize("lie", [b"[" * 200_000, b"\xff\xfe", b"{}", b"[7]"])
async def test_a_list_that_is_none_has_nobody(socket: Path, lie: bytes) -> None:
    docker = FakeDocker()
    docker.raw = {"/containers/json": answer(lie)}
    async with following(docker, socket) as watch:
        await watch.event("oom", WEB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        assert watch.source.active
    assert watch.all(ContainerSeen) == []


@pytest.mark.parametrize(
    "bad",
    [
        answer(b"x" * (docker_api.INSPECT_BYTES + 1)),
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["megabytes of labels", "a lost layer"],
)
async def test_a_container_that_cannot_be_described_costs_no_other_its_name(
    socket: Path, bad: bytes
) -> None:
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db")}
    docker.raw = {f"/containers/{WEB}/json": bad}
    async with following(docker, socket) as watch:
        (inspected,) = await watch.named(1)
        await watch.event("die", WEB, exitCode="137")
        (ended,) = await watch.ended()
        assert watch.source.state().figures["connections"] == 1
    assert inspected.container.name == "db"
    assert {seen.container.name for seen in watch.all(ContainerSeen)} == {"web", "db"}
    assert (ended.container_id, ended.exit_code) == (WEB, 137)


async def test_a_container_whose_description_never_comes_costs_no_other_its_name(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "ANSWER_SECONDS", 0.3)
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db")}
    docker.hangs = {f"/containers/{WEB}/json"}
    async with following(docker, socket) as watch:
        (inspected,) = await watch.named(1)
        await watch.event("oom", DB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        assert watch.source.state().figures["connections"] == 1
    assert inspected.container.name == "db"


async def test_where_two_containers_in_turn_have_no_answer_it_is_the_runtime_that_hangs(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    docker = FakeDocker()
    docker.containers = {WEB: container(WEB, "web"), DB: container(DB, "db")}
    docker.hangs = {f"/containers/{each}/json" for each in (WEB, DB)}
    async with following(docker, socket) as watch:
        await watch.until(lambda: watch.source.state().figures["connections"] == 2)


async def test_an_event_that_is_too_long_is_passed_over(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "EVENT_BYTES", 100_000)
    docker = FakeDocker()
    async with following(docker, socket) as watch:
        await watch.until(lambda: docker.following)
        # Its labels are in it; a new connection would only be sent it again.
        docker.event("start", DB, label="x" * 200_000)
        docker.send(b'{"Action": "oom", "pad": "' + b"x" * 100_000 + b'"}\n')
        await watch.event("oom", WEB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        assert watch.source.state().figures["connections"] == 1
    assert [oom.container_id for oom in watch.all(RuntimeOom)] == [WEB]
    assert watch.all(ContainerSeen) == []


async def test_an_event_without_an_end_is_not_waited_for(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "EVENT_BYTES", 100_000)
    monkeypatch.setattr(docker_api, "LIST_BYTES", 150_000)
    monkeypatch.setattr(runtime_source, "FIRST_RETRY_SECONDS", 0.01)
    async with following(FakeDocker(), socket) as watch:
        await watch.until(lambda: watch.docker.following)
        watch.docker.send(b"x" * 200_000)
        await watch.until(lambda: watch.source.state().figures["connections"] == 2)


async def test_events_that_make_no_sense_are_passed_over(socket: Path) -> None:
    async with following(FakeDocker(), socket) as watch:
        await watch.until(lambda: watch.docker.following)
        for nonsense in (
            b"\n",
            b"nonsense\n",
            b"[]\n",
            b'{"Action": 7, "Actor": {"ID": "a"}, "timeNano": 1}\n',
            b'{"Action": "oom", "Actor": {"ID": "../../etc"}, "timeNano": 1}\n',
            b'{"Action": "oom", "Actor": {"ID": "a"}, "timeNano": "soon"}\n',
            b'{"Action":"die","Actor":{"ID":"a","Attributes":{"exitCode":"-9"}},"timeNano":1}\n',
        ):
            watch.docker.send(nonsense)
        await watch.event("oom", WEB)
        await watch.until(lambda: bool(watch.all(RuntimeOom)))
        (ended,) = watch.all(ContainerEnded)
    assert [oom.container_id for oom in watch.all(RuntimeOom)] == [WEB]
    assert ended.exit_code is None


async def test_an_event_cut_anywhere_is_whole_again(socket: Path) -> None:
    async with following(FakeDocker(), socket) as watch:
        await watch.until(lambda: watch.docker.following)
        line = watch.docker.event("start", DB)  # DB cannot be inspected
        line = line.replace(b'"start"', b'"oom"').replace(DB.encode(), WEB.encode())
        for index in range(len(line)):
            watch.docker.send(line[index : index + 1])
        await watch.until(lambda: bool(watch.all(RuntimeOom)))


async def test_absurd_descriptions_are_bounded(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "w" * 5000, Pid=-1, ExitCode="no")
    docker.containers[WEB]["Config"]["Labels"] = {
        **{f"label-{index}": "x" for index in range(1000)},
        "long": "y" * 100_000,
        "number": 7,
    }
    docker.containers[WEB]["Config"]["Image"] = ["not", "a", "text"]
    docker.containers[WEB]["HostConfig"]["Memory"] = 2**63 - 1
    async with following(docker, socket) as watch:
        (seen,) = await watch.named(1)
    assert seen.container.name is not None
    assert len(seen.container.name) == 1024
    assert seen.container.labels is not None
    assert len(seen.container.labels) == 256
    assert seen.container.image is None
    assert seen.pid is None


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_behind(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    before = threading.active_count(), descriptors()
    for _ in range(20):
        async with following(docker, socket) as watch:
            await watch.named(1)
        socket.parent.rmdir()
        async with started(docker, socket) as watch:
            await watch.until(lambda: "there is no" in watch.source.state().detail)
    await asyncio.sleep(0)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("oomwatch-")]
    assert threading.active_count() <= before[0]
    assert descriptors() <= before[1]


async def test_a_kill_is_told_with_its_containers_name(socket: Path, tmp_path: Path) -> None:
    docker = FakeDocker()
    docker.containers[WEB] = container(WEB, "web")
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/docker")
    tree.make(f"/docker/{WEB}")
    config = Config(cgroup_root=tree.root, runtimes=(RuntimeSocket("docker", socket),))
    socket.parent.mkdir()
    async with listening(docker, socket), Watcher(config) as watcher:
        async with asyncio.timeout(20):
            while (await watcher.status()).sources[0].figures["seen"] < 2:
                await asyncio.sleep(0.005)
        with await watcher.subscriptions.open(Earliest(), EventFilter()) as subscription:
            tree.kill(f"/docker/{WEB}")
            async with asyncio.timeout(20):
                (entry,) = (await subscription.next()).entries
    kill = entry.event
    assert isinstance(kill, OomKill)
    assert kill.container is not None
    assert (kill.container.name, kill.container.image) == ("web", "shop:1")
    assert kill.container.labels == {"app": "web"}
    assert kill.scope is Scope.CONTAINER_LIMIT


async def test_a_container_costs_no_descriptor(socket: Path) -> None:
    docker = FakeDocker()
    docker.containers = {f"c{index}": container(f"c{index}", "web") for index in range(40)}
    async with following(docker, socket) as watch:
        await watch.named(1)
        before = descriptors()
        await watch.named(40)
        for index in range(40):
            await watch.event("rename", f"c{index}")
        await watch.named(80)
        # The server's end of each connection is in this process too.
        assert descriptors() <= before + 4


FOLLOW = """
import asyncio, sys
from pathlib import Path
from oomwatch.containers.places import Places
from oomwatch.sources.runtimes import RuntimeSocket, runtime_sources

async def follow(path):
    (source,) = runtime_sources([RuntimeSocket("docker", Path(path))], Places(None))
    await source.start(lambda _: None)
    while "there is no" not in source.state().detail and not source.active:
        await asyncio.sleep(0.005)
    await source.stop()

asyncio.run(follow(sys.argv[1]))
print("docker" in sys.modules)
"""


async def test_the_sdk_is_imported_only_where_there_is_a_socket(socket: Path) -> None:
    async def imported() -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FOLLOW, str(socket), stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.split() == [b"True"]

    assert not await imported()
    socket.parent.mkdir()
    async with listening(FakeDocker(), socket):
        assert await imported()
