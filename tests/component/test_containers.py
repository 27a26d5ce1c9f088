"""Containers as a worker registers them, over gRPC, on a tree of plain files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oomwatch import registration
from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.locating import nearest_counted
from oomwatch.cgroup.process import sees_the_hosts_pids
from oomwatch.cgroup.resolving import Resolved
from oomwatch.config import Config
from oomwatch.containers.layouts import Layout
from oomwatch.daemon import Watcher
from oomwatch.errors import LimitReached, RequestRefused
from oomwatch.events import Container, Pod, Scope
from oomwatch.sources.runtimes import RuntimeSocket
from oomwatch.subscriptions import Earliest, EventFilter
from oomwatch.testing import FakeCgroupTree
from tests.component.served import BOUND, in_memory, served

pytestmark = pytest.mark.usefixtures("on_tmpfs")

JOB = Container(id="job-17", name="job", handler="runc", labels={"team": "a"})


async def run(*words: str | Path) -> str:
    """What `oomwatch` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oomwatch.cli.main", *words), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(BOUND):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def test_a_registered_container_is_told_by_its_name(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a", limit_bytes=32 << 20)
        report = await place.client.watch_container(JOB, cgroup="/a", memory_limit_bytes=64 << 20)
        assert report.container == JOB
        assert (report.path, report.kills) == ("/a", 0)
        assert report.id == place.tree.path("/a").stat().st_ino
        assert report.witnesses[0].name == "memory_events by inotify"
        assert report.witnesses[0].active
        assert report.notes == (
            "it was given a limit of 67108864 bytes, and its memory.max is 33554432 bytes",
        )
        place.tree.kill("/a")
        (kill,) = await place.kills(1, EventFilter(container_ids=("job",), labels=("team=a",)))
        assert (kill.container, kill.scope) == (JOB, Scope.CONTAINER_LIMIT)
        got = await place.client.get_container(container_id="job")
        assert got is not None
        assert (got.container, got.kills) == (JOB, 1)
        (listed,) = [r async for r in place.client.list_containers("/a")]
        assert listed.container == JOB


async def test_a_workers_own_layout_names_what_nobody_speaks_of(tmp_path: Path) -> None:
    layout = Layout.parse("/own/{pod_namespace}_{pod_name}/{name}-{id}")
    async with served(tmp_path, layouts=(layout,)) as place:
        for path in ("/own", "/own/prod_api", "/own/prod_api/web-9", "/own/prod_api/web-9/nested"):
            place.tree.make(path)
        place.tree.kill("/own/prod_api/web-9/nested", limit="/own/prod_api/web-9")
        event_filter = EventFilter(container_ids=("9",), namespaces=("prod",), pods=("api",))
        (kill,) = await place.kills(1, event_filter)
        expected = Container(id="9", name="web", pod=Pod(name="api", namespace="prod"))
        assert (kill.container, kill.scope) == (expected, Scope.CONTAINER_LIMIT)
        exit_ = await place.client.finalize("9", exit_code=137, maximum_wait=BOUND)
        assert exit_.event.container == expected


async def test_a_worker_is_told_which_witnesses_it_has_not_and_why(tmp_path: Path) -> None:
    tree = FakeCgroupTree(in_memory(tmp_path))
    tree.make("/a")
    missing = tmp_path / "docker.sock"
    config = Config(
        cgroup_root=tree.root,
        kernel_log=None,
        runtimes=(RuntimeSocket("docker", missing), RuntimeSocket("cri", tmp_path)),
    )
    async with Watcher(config) as watcher:
        async with asyncio.timeout(BOUND):
            while True:
                report = await watcher.watch_container(JOB, cgroup="/a")
                counters, docker, cri = report.witnesses
                if "there is no" in (docker.detail or "") and "not answer" in (cri.detail or ""):
                    break
                await asyncio.sleep(0.01)
        assert (counters.name, counters.active) == ("memory_events by inotify", True)
        assert (docker.name, docker.active) == ("docker", False)
        assert docker.detail == f"there is no {missing}: nothing is known from docker"
        assert (cri.name, cri.active) == ("cri", False)


async def test_each_key_of_a_filter_finds_a_containers_kills_however_they_are_asked_for(
    tmp_path: Path,
) -> None:
    """Of two containers that differ in everything, one; late names among them."""
    web = Container(
        id="ee12", name="web", runtime="docker", handler="runsc", image="shop:1",
        labels={"app": "shop"}, pod=Pod(uid="uid-1", name="shop-0", namespace="prod"),
    )  # fmt: skip
    db = Container(
        id="0ba8", name="db", runtime="podman", handler="crun", image="db:1",
        labels={"app": "db"}, pod=Pod(uid="uid-2", name="db-0", namespace="test"),
    )  # fmt: skip
    terms = (
        "container=ee", "name=web", "label=app=shop", "label=app!=db", "label=app in (shop)",
        "pod=shop-0", "pod=uid-1", "namespace=prod", "runtime=docker", "runtime=runsc",
        "cgroup=/web",
    )  # fmt: skip
    async with served(tmp_path) as place:
        for path in ("/web", "/db"):
            place.tree.make(path)
            place.tree.kill(path)
        await place.kills(2)
        # Of these two kills the names come late, of the next two they are known.
        await place.client.watch_container(db, cgroup="/db")
        await place.client.watch_container(web, cgroup="/web")
        for path in ("/web", "/db"):
            place.tree.kill(path)
        for term in terms:
            counts = [None, 1] if term != "cgroup=/web" else [1, None, 1]
            event_filter = EventFilter.parse([term, "kind=oom_kill"])
            found = await place.kills(len(counts), event_filter)
            async with asyncio.timeout(BOUND):
                listed = [e.event async for e in place.client.list_events(Earliest(), event_filter)]
            assert listed == found, term
            assert [(kill.victim_cgroup, kill.kill_count) for kill in found] == [
                ("/web", count) for count in counts
            ], term
        for term in {term.partition("=")[0]: term for term in reversed(terms)}.values():
            options = ("-o", "json", "--earliest", "--no-follow", "--socket", tmp_path / "o.sock")
            printed = await run("tail", *options, "--kind", "oom_kill", "--filter", term)
            assert {json.loads(line)["victim_cgroup"] for line in printed.splitlines()} == {"/web"}


async def test_a_kill_before_the_registration_is_amended_with_the_name(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        place.tree.kill("/a")
        await place.kills(1)
        await place.client.watch_container(JOB, cgroup="/a")
        first, second = await place.kills(2)
        assert (first.container, first.kill_count) == (None, 1)
        assert (second.container, second.kill_count, second.amends) == (JOB, None, 1)
        (only,) = await place.kills(1, EventFilter(names=("job",)))
        assert only.amends == 1
        shown = await run("show", "1", "--socket", str(tmp_path / "o.sock"))
        assert shown.startswith("Revision 1: job (container job-17) lost a process ")
        assert "It is container job-17, name job, handler runc." in shown
        lines = (await run("show", "1", "-o", "json", "--socket", tmp_path / "o.sock")).splitlines()
        assert [json.loads(line)["revision"] for line in lines] == [1, 2]
    shown = await run("show", "1", "--state-dir", tmp_path / "state")
    assert shown.startswith("Revision 1: job (container job-17) lost a process ")


async def test_registered_twice_is_registered_once_and_a_new_place_is_a_new_life(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        place.tree.make("/b")
        once = await place.client.watch_container(JOB, cgroup="/a")
        assert await place.client.watch_container(JOB, cgroup="/a") == once
        moved = await place.client.watch_container(JOB, cgroup="/b")
        assert moved.path == "/b"
        assert place.watcher.correlator.containers.lives.registered == 1
        got = await place.client.get_container(container_id="job-17")
        assert got is not None
        assert got.path == "/b"


async def test_a_process_is_found_by_its_pid(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        place.tree.make("/a/b")
        place.tree.write("/a/b", "cgroup.procs", f"1\n{os.getpid()}\n")
        report = await place.client.watch_container(JOB, pid=os.getpid())
        assert report.path == "/a/b"
        life = place.watcher.correlator.containers.lives.newest("job-17")
        assert life is not None
        # In another PID namespace it is not the pid that the kernel prints.
        assert life.pid == (os.getpid() if sees_the_hosts_pids() else None)


async def test_a_leaf_without_memory_files_is_counted_above_and_said_so(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        (place.tree.path("/a") / "leaf").mkdir()
        report = await place.client.watch_container(JOB, cgroup="/a/leaf")
        assert report.path == "/a"
        assert report.notes[0].startswith("its cgroup /a/leaf has no memory controller: kills are ")


async def test_what_is_gone_is_not_found(tmp_path: Path) -> None:
    gone = 2**22 + 1
    async with served(tmp_path) as place:
        for where, sentence in (
            ({"pid": gone}, f"there is no process {gone}"),
            ({"cgroup": "/none"}, "there is no cgroup '/none'"),
        ):
            with pytest.raises(RequestRefused, match=sentence) as raised:
                await place.client.watch_container(JOB, **where)
            assert raised.value.status == "NOT_FOUND"
        assert place.watcher.correlator.containers.lives.registered == 0


@pytest.mark.parametrize(
    ("container", "where", "sentence"),
    [
        (JOB, {}, "set pid or cgroup"),
        (JOB, {"pid": -4}, "pid -4"),
        (JOB, {"cgroup": "/a/../b"}, r"\.\."),
        (JOB, {"cgroup": "a"}, "not absolute"),
        (JOB, {"cgroup": "/a", "memory_limit_bytes": -1}, "0 or more"),
        (Container(id=""), {"cgroup": "/a"}, "container.id is empty"),
        (Container(id="x" * 257), {"cgroup": "/a"}, "at most 256"),
        (Container(id="x", labels=dict.fromkeys(map(str, range(257)), "")), {}, "257 labels"),
        (Container(id="x", labels={"k": "v" * 4097}), {}, "4097 characters"),
        (
            Container(id="x", labels={str(n): "v" * 4000 for n in range(5)}),
            {},
            "labels of 20005 characters",
        ),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_a_sentence(
    tmp_path: Path, container: Container, where: dict[str, Any], sentence: str
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        with pytest.raises(ValueError, match=sentence):
            await place.client.watch_container(container, **where)
        assert place.watcher.correlator.containers.lives.registered == 0


async def test_no_more_are_registered_than_the_bound_however_many_ask_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "MAX_REGISTERED", 2)
    async with served(tmp_path) as place:
        place.tree.make("/a")
        tries = [
            place.watcher.watch_container(Container(id=f"job-{number}"), cgroup="/a")
            for number in range(5)
        ]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert [isinstance(outcome, LimitReached) for outcome in outcomes].count(True) == 3
        containers = place.watcher.correlator.containers
        assert containers.lives.registered == 2
        with pytest.raises(RequestRefused, match="2 containers are registered already") as raised:
            await place.client.watch_container(Container(id="job-f"), cgroup="/a")
        assert raised.value.status == "RESOURCE_EXHAUSTED"
        known = next(f"job-{n}" for n, one in enumerate(outcomes) if not isinstance(one, Exception))
        await place.client.watch_container(Container(id=known), cgroup="/a")
        assert await place.client.unwatch_container(known)
        await place.client.watch_container(Container(id="job-f"), cgroup="/a")


async def test_what_is_unwatched_is_awaited_no_more_and_its_name_is_remembered(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        place.tree.make("/a")
        await place.client.watch_container(JOB, cgroup="/a")
        assert await place.client.unwatch_container("job-17")
        assert place.watcher.correlator.containers.lives.registered == 0
        assert not await place.client.unwatch_container("job-17")
        place.tree.kill("/a")
        (kill,) = await place.kills(1)
        assert kill.container == JOB
        await place.client.watch_container(replace(JOB, name="again"), cgroup="/a")
        assert place.watcher.correlator.containers.lives.registered == 1
        place.tree.kill("/a")
        *_, kill = await place.kills(2, EventFilter(names=("job", "again")))
        assert kill.container == replace(JOB, name="again")


async def test_what_is_removed_as_it_is_registered_is_gone_and_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as place:
        watched = place.watcher.memory_events
        assert watched is not None

        def removed(hierarchy: Hierarchy, cgroup: Resolved) -> Resolved | None:
            """It is gone, and that is known, before it is put down who it was."""
            counted = nearest_counted(hierarchy, cgroup)
            place.tree.remove("/a/b")
            while watched.follows("/a/b"):
                time.sleep(0.005)
            return counted

        monkeypatch.setattr(registration, "nearest_counted", removed)
        for number in range(3):
            if number == 0:
                place.tree.make("/a")
            place.tree.make("/a/b")
            with pytest.raises(RequestRefused, match="cgroup '/a/b'") as raised:
                await place.client.watch_container(Container(id=f"job-{number}"), cgroup="/a/b")
            assert raised.value.status == "NOT_FOUND"
        assert place.watcher.correlator.containers.lives.registered == 0


@pytest.mark.parametrize("remade", [True, False])
async def test_what_is_removed_as_it_is_looked_up_is_not_taken_for_what_is_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remade: bool
) -> None:
    async with served(tmp_path) as place:

        def removed(hierarchy: Hierarchy, cgroup: Resolved) -> Resolved | None:
            place.tree.remove("/a/b")
            if remade:
                place.tree.make("/a/b")
            return nearest_counted(hierarchy, cgroup)

        monkeypatch.setattr(registration, "nearest_counted", removed)
        place.tree.make("/a")
        place.tree.make("/a/b")
        with pytest.raises(RequestRefused, match="cgroup '/a/b'") as raised:
            await place.client.watch_container(JOB, cgroup="/a/b")
        assert raised.value.status == "NOT_FOUND"
        assert place.watcher.correlator.containers.lives.registered == 0


async def test_a_beginning_that_fits_several_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        for name in ("a", "b"):
            place.tree.make(f"/{name}")
            await place.client.watch_container(Container(id=f"job-{name}"), cgroup=f"/{name}")
        with pytest.raises(ValueError, match="give more of it"):
            await place.client.get_container(container_id="job")


async def test_a_name_outlives_its_cgroup_and_the_daemon(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        tree = place.tree
        tree.make("/a")
        tree.make("/b")
        for name in ("a", "b"):
            await place.client.watch_container(
                Container(id=f"job-{name}", name=name), cgroup=f"/{name}"
            )
    tree.kill("/a")
    async with served(tmp_path, tree) as place:
        (kill,) = await place.kills(1)
        assert kill.container == Container(id="job-a", name="a")
        assert kill.recovered
        tree.remove("/b")
        async with asyncio.timeout(BOUND):
            while (life := place.watcher.correlator.containers.lives.newest("job-b")) is None or (
                life.ended_time is None
            ):
                await asyncio.sleep(0.01)
    async with served(tmp_path, tree) as place:
        life = place.watcher.correlator.containers.lives.newest("job-b")
        assert life is not None
        assert life.ended_time is not None


async def test_a_container_that_nobody_spoke_of_is_got_by_its_id_as_it_is_listed(
    tmp_path: Path,
) -> None:
    alike, other, alone = "a" * 12 + "1" * 52, "a" * 12 + "2" * 52, "c" * 64
    async with served(tmp_path) as place:
        place.tree.make("/docker")
        for container_id in (alike, other, alone):
            place.tree.make(f"/docker/{container_id}")
        async with asyncio.timeout(BOUND):
            while len([r async for r in place.client.list_containers("/docker")]) < 4:
                await asyncio.sleep(0.01)
        for named in (alone, "ccc"):
            got = await place.client.get_container(container_id=named)
            assert got is not None
            assert got == await place.client.get_container(f"/docker/{alone}")
            assert got.container == Container(id=alone, runtime="docker")
        with pytest.raises(ValueError, match=f"fits several, {alike} and {other} among them"):
            await place.client.get_container(container_id="aaa")
        # One that a worker spoke of and one that nobody did are several as well.
        place.tree.make("/a")
        await place.client.watch_container(Container(id="cc"), cgroup="/a")
        with pytest.raises(ValueError, match=f"fits several, cc and {alone} among them"):
            await place.client.get_container(container_id="c")
        whole = await place.client.get_container(container_id="cc")
        assert whole is not None
        assert whole.path == "/a"
