"""`oomwatch verdict`: by a status alone, and of a daemon."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oomwatch.cli.main import run
from oomwatch.client import AsyncClient
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.events import Container
from oomwatch.rpc.server import RpcServer
from oomwatch.testing import FakeCgroupTree
from tests.component.served import served

BOUND = 60.0


async def oomwatch(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "oomwatch.cli.main",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BOUND):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("words", "verdict", "confidence"),
    [
        (["--exit-code", "137"], "unknown", "low"),
        (["--signal", "KILL"], "unknown", "low"),
        (["--signal", "9"], "unknown", "low"),
        (["--signal", "sigkill"], "unknown", "low"),
        # What systemd in a container is stopped with; the C library keeps 32 and 33 for itself.
        (["--signal", "SIGRTMIN+3", "--stopped", "--stop-signal", "37"], "not_oom", "medium"),
        (["--exit-code", "143"], "not_oom", "low"),
        (["--exit-code", "0"], "not_oom", "low"),
        (["--exit-code", "137", "--stopped"], "not_oom", "medium"),
        (["--exit-code", "137", "--stop-signal", "TERM"], "not_oom", "medium"),
        (["--exit-code", "137", "--oom-flag"], "oom", "medium"),
    ],
)
def test_a_status_alone_is_judged_without_a_daemon(
    words: list[str], verdict: str, confidence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verdict", *words, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["confidence"]) == (verdict, confidence)
    assert answer["reasons"]
    assert run(["verdict", *words]) == 0
    told = capsys.readouterr().out
    reasons = "".join(f"    {reason}\n" for reason in answer["reasons"])
    assert told.endswith(f"\n  Confidence: {confidence}.\n  Reasons:\n{reasons}")


def test_what_is_judged_without_a_daemon_is_said_to_be_told_and_not_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["verdict", "--exit-code", "137"]) == 0
    assert capsys.readouterr().out.startswith("By the status alone: it cannot be told.\n")
    assert run(["verdict", "--exit-code", "137", "--oom-flag"]) == 0
    assert capsys.readouterr().out.startswith("By what was told alone: out of memory.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say what ended"),
        (["--signal", "FOO"], "is no signal"),
        (["--signal", "0"], "is no signal"),
        (["--signal", "65"], "is no signal"),
        (["--signal", "9" * 5000], "is no signal"),
        (["--signal", "TERM+1"], "is no signal"),
        (["--signal", "RTMIN+31"], "is no signal"),
        (["--signal", "RTMIN+"], "is no signal"),
        (["--exit-code", "256"], "'256' is not a whole number from 0 to 255"),
        (["--exit-code", "abc"], "'abc' is not a whole number from 0 to 255"),
        (["--exit-code", "9" * 5000], "is not a whole number from 0 to 255"),
        (["--exit-code", "1", "--wait", "2m"], "60s at the most"),
        (["--exit-code", "1", "--cgroup-id", "7"], "--cgroup-id is about a --container"),
        (["--exit-code", "1", "--exit-time", "1s"], "--exit-time is about a --container"),
        (["--exit-code", "1", "--wait", "1s"], "--wait is about a --container"),
        (["--exit-code", "1", "--socket", "/s"], "--socket is about a --container"),
        (["--exit-code", "1", "--address", "a:1"], "--address is about a --container"),
        (["--exit-code", "1", "--tls-server-name", "a"], "--tls-server-name is about a --cont"),
        (["--exit-code", "1", "--insecure"], "--insecure is about a --container"),
        (["--container", "a", "--wait", "1s"], "--wait is for an end that is told"),
        (["--container", "a", "--exit-time", "soon"], "is not a time"),
        (["--container", "a", "--cgroup-id", "0"], "'0' is not a whole number of 1 or more"),
        (["--container", ""], "is no container's id"),
        (["--container", "a" * 257], "is no container's id"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verdict", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_the_daemon_of_the_environment_is_not_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OOMWATCH_SOCKET", "/nowhere/o.sock")
    assert run(["verdict", "--exit-code", "137"]) == 0
    assert "By the status alone" in capsys.readouterr().out


async def test_an_end_is_told_to_the_daemon_and_its_verdict_shown_again(tmp_path: Path) -> None:
    tree = FakeCgroupTree(tmp_path / "cgroup")
    socket = tmp_path / "o.sock"
    async with (
        Watcher(Config(cgroup_root=tree.root)) as watcher,
        RpcServer(watcher, socket=socket),
        AsyncClient(socket) as client,
    ):
        tree.make("/a", limit_bytes=32 << 20)
        await client.watch_container(Container(id="job-17"), cgroup="/a")
        asking = ("verdict", "--container", "job", "--socket", str(socket))
        code, _, err = await oomwatch(*asking)
        assert code == 1
        assert "was told of no end" in err
        tree.kill("/a")
        # Python may take longer to start than an end can be away from its kill.
        ended = ("--exit-code", "137", "--exit-time", datetime.now(UTC).isoformat())
        code, out, err = await oomwatch(*asking, *ended, "--wait", "20s")
        assert (code, err) == (0, "")
        assert "a container ended, and it was out of memory" in out
        assert "at its own limit of 32 MiB" in out
        code, out, _ = await oomwatch(*asking, "-o", "json")
        assert code == 0
        shown = json.loads(out)
        assert (shown["kind"], shown["verdict"], shown["kills"]) == ("container_exit", "oom", [1])
        code, _, err = await oomwatch(
            "verdict", "--container", "none", "--exit-code", "1", "--socket", str(socket)
        )
        assert code == 1
        assert "no container whose id begins with 'none'" in err


async def test_a_beginning_of_an_id_is_enough_where_it_fits_one_container(tmp_path: Path) -> None:
    """Of containers that nobody spoke of too: what `list` and `tail` show is cut to 12 digits."""
    tree = FakeCgroupTree(tmp_path / "cgroup")
    socket = tmp_path / "o.sock"
    alike, other = "a" * 12 + "1" * 52, "a" * 12 + "2" * 52
    tree.make("/docker")
    for container_id in (alike, other, "c" * 64):
        tree.make(f"/docker/{container_id}")
    async with (
        Watcher(Config(cgroup_root=tree.root)) as watcher,
        RpcServer(watcher, socket=socket),
        AsyncClient(socket) as client,
    ):
        for name in ("job", "job-2", "job-3"):
            tree.make(f"/{name}")
            await client.watch_container(Container(id=name), cgroup=f"/{name}")

        async def verdict(container: str, *ended: str) -> tuple[int, str, str]:
            asking = ("verdict", "--container", container, "--socket", str(socket), "-o", "json")
            code, out, err = await oomwatch(*asking, *ended)
            return code, json.loads(out)["container"]["id"] if out else "", err

        assert await verdict("cccc", "--exit-code", "0") == (0, "c" * 64, "")
        code, _, err = await verdict("a" * 12, "--exit-code", "0")
        assert code == 1
        assert f"fits several, {alike} and {other} among them: give more" in err
        assert await verdict("a" * 12 + "2", "--exit-code", "0") == (0, other, "")
        assert await verdict("job-2", "--exit-code", "0") == (0, "job-2", "")
        code, _, err = await verdict("job")
        assert code == 1, "the end of job-2 is none of its own"
        assert "was told of no end of container 'job'" in err
        assert await verdict("job", "--exit-code", "0") == (0, "job", ""), "a whole id is that one"
        assert await verdict("job-3", "--exit-code", "1") == (0, "job-3", "")
        # What was told is found by a beginning too, and is never another container's.
        assert await verdict("ccc") == (0, "c" * 64, "")
        assert await verdict("job") == (0, "job", "")
        code, _, err = await verdict("job-")
        assert code == 1
        assert "several containers' ids: job-2, job-3; give more" in err


@pytest.mark.usefixtures("on_tmpfs")
async def test_a_whole_id_whose_exit_is_kept_no_longer_is_no_beginning_of_anothers(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as place:
        for name in ("job", "last"):
            place.tree.make(f"/{name}")
            await place.client.watch_container(Container(id=name), cgroup=f"/{name}")
            await place.client.finalize(name, exit_code=0)
            place.tree.remove(f"/{name}")
        tree: FakeCgroupTree = place.tree
    async with served(tmp_path, tree, retention_events=1) as place:
        tree.make("/job-2")
        await place.client.watch_container(Container(id="job-2"), cgroup="/job-2")
        socket = str(tmp_path / "o.sock")
        code, out, err = await oomwatch(
            "verdict", "--container", "job", "--exit-code", "137", "--socket", socket
        )
        assert (code, out) == (1, "")
        assert "was told, and is kept no longer" in err
        assert await place.client.get_container(container_id="job-2")
        assert len(await place.journaled()) == 1, "job-2 goes on"
