"""`oomwatch tail` and its sisters as processes, on a tree of plain files with real inotify."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.testing import FakeCgroupTree

BOUND = 30.0
Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def tree(tmp_path: Path) -> FakeCgroupTree:
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/a", limit_bytes=32 << 20)
    return tree


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start `oomwatch` with pipes, and leave none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "oomwatch.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line of stdout, which must come within the bound."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], BOUND)
    assert readable, "no line came"
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr of a process that must end within the bound."""
    assert process.stderr is not None
    code = process.wait(BOUND)
    return code, process.stderr.read()


def watching(tree: FakeCgroupTree, spawn: Spawn, *words: str) -> subprocess.Popen[str]:
    process = spawn("tail", "--cgroup-root", str(tree.root), *words)
    assert line_of(process).startswith("TIME ")
    return process


def test_tail_without_a_daemon_watches_at_once_and_says_so(
    tree: FakeCgroupTree, spawn: Spawn
) -> None:
    process = watching(tree, spawn)
    tree.kill("/a", 2)
    words = line_of(process).split()
    assert words[2:5] == ["1", "2", "own"]
    assert words[-1] == "/a"
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130
    assert said == f"oomwatch: no daemon is asked: watching {tree.root} itself, from now on\n"


def test_a_hostile_name_reaches_a_terminal_escaped(tree: FakeCgroupTree, spawn: Spawn) -> None:
    tree.make("/\x1b]0;owned\x07‮")
    process = watching(tree, spawn)
    tree.kill("/\x1b]0;owned\x07‮")
    assert line_of(process).rstrip("\n").endswith("/\\x1b]0;owned\\x07\\u202e")


def test_json_is_one_object_a_line_as_it_happens(tree: FakeCgroupTree, spawn: Spawn) -> None:
    process = spawn("tail", "-o", "json", "--cgroup-root", str(tree.root))
    assert process.stderr is not None
    # No header says that it watches; what is said once it does, does.
    assert process.stderr.readline().endswith("from now on\n")
    tree.kill("/a")
    told = json.loads(line_of(process))
    assert told["kind"] == "oom_kill"
    assert told["victim_cgroup"] == "/a"


def test_a_filter_keeps_others_out(tree: FakeCgroupTree, spawn: Spawn) -> None:
    tree.make("/b")
    process = watching(tree, spawn, "--filter", "cgroup=/b", "--kind", "oom_kill")
    tree.kill("/a")
    tree.kill("/b")
    assert line_of(process).split()[-1] == "/b"


def test_sigterm_ends_it_without_a_word(tree: FakeCgroupTree, spawn: Spawn) -> None:
    process = watching(tree, spawn)
    process.terminate()
    code, said = ended(process)
    assert code == 143
    assert "Traceback" not in said


def test_it_ends_when_its_reader_leaves_though_nothing_happens(
    tree: FakeCgroupTree, spawn: Spawn
) -> None:
    process = watching(tree, spawn)
    assert process.stdout is not None
    process.stdout.close()
    code, said = ended(process)
    assert code == 141
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_history_needs_a_daemon(tree: FakeCgroupTree, spawn: Spawn) -> None:
    for words in (["--no-follow"], ["--after", "3"]):
        code, said = ended(spawn("tail", "--cgroup-root", str(tree.root), *words))
        assert code == 3
        assert said.startswith(
            "oomwatch: --cgroup-root asks no daemon: leave that out, or leave --"
        )


def test_a_root_that_is_not_there_is_a_sentence(tmp_path: Path, spawn: Spawn) -> None:
    process = spawn("tail", "--cgroup-root", str(tmp_path / "none"))
    code, said = ended(process)
    assert code == 1
    assert "Traceback" not in said
    assert f"{tmp_path}/none does not exist" in said
    assert process.stdout is not None
    assert process.stdout.read() == ""


def test_a_named_daemon_that_is_not_there_is_exit_code_3(tmp_path: Path, spawn: Spawn) -> None:
    for words in (["tail"], ["list"], ["show", "1"]):
        code, said = ended(spawn(*words, "--socket", str(tmp_path / "none.sock")))
        assert code == 3, said
        assert "none.sock" in said
        assert said.count("\n") == 1


def test_list_reads_the_tree_once(tree: FakeCgroupTree, spawn: Spawn) -> None:
    tree.make("/b")
    tree.kill("/a", 3)
    process = spawn("list", "--cgroup-root", str(tree.root), "-o", "json")
    assert process.stdout is not None
    rows = [json.loads(line) for line in process.stdout]
    assert ended(process) == (0, "")
    assert [(row["cgroup"], row["kills"]) for row in rows] == [("/", 0), ("/a", 3), ("/b", 0)]
    fields = {field.name for field in pb.ContainerReport.DESCRIPTOR.fields}
    assert all(row.keys() <= fields for row in rows), "the fields of the gRPC message"
    assert "notes" not in rows[0], "what there is none of is absent, as in an event"
    none = spawn("list", "/b", "--killed", "--cgroup-root", str(tree.root))
    assert ended(none) == (0, "oomwatch: nothing was killed at or below /b\n")
    killed = spawn("list", "/a", "--killed", "--cgroup-root", str(tree.root))
    assert killed.stdout is not None
    assert [line.split()[-1] for line in killed.stdout] == ["CGROUP", "/a"]


def test_selftest_refuses_clearly_where_no_kill_can_be_made(
    tree: FakeCgroupTree, spawn: Spawn
) -> None:
    before = sorted(tree.root.iterdir())
    code, said = ended(spawn("selftest", "--cgroup-root", str(tree.root)))
    assert code == 1
    assert "is not cgroup v2 with the memory controller" in said
    assert sorted(tree.root.iterdir()) == before


def test_the_doctor_exits_with_1_where_no_kill_can_be_seen(tmp_path: Path, spawn: Spawn) -> None:
    process = spawn("doctor", "-o", "json", "--cgroup-root", str(tmp_path / "none"))
    assert process.stdout is not None
    checks = [json.loads(line) for line in process.stdout]
    assert ended(process)[0] == 1
    assert checks[0]["state"] == "failed"
    assert all(check["found"] for check in checks)
