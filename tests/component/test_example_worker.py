"""The worker in examples/, with a runtime of plain files; with real ones in tests/runtimes."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from oomwatch.client import Client
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.events import Confidence, Container, ContainerExit, Verdict
from oomwatch.rpc.server import RpcServer
from oomwatch.testing import FakeCgroupTree

EXAMPLE = Path(__file__).parents[2] / "examples" / "worker.py"


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_worker", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_worker"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree() -> Iterator[FakeCgroupTree]:
    root = Path(f"/dev/shm/oomwatch-worker-{os.getpid()}")
    yield FakeCgroupTree(root)
    shutil.rmtree(root)


class PlainFiles:
    """A runtime whose containers are a cgroup of plain files, with this process in it."""

    def __init__(self, worker: ModuleType, tree: FakeCgroupTree, code: int, kills: int) -> None:
        self.worker, self.tree, self.code, self.kills = worker, tree, code, kills

    def start(self) -> tuple[Container, int]:
        self.tree.make("/job", limit_bytes=32 << 20)
        self.tree.write("/job", "cgroup.procs", f"{os.getpid()}\n")
        return Container(id="job-1", handler="runc"), os.getpid()

    def wait(self) -> object:
        if self.kills:
            self.tree.kill("/job", self.kills)
        return self.worker.Ended(self.code)

    def stop(self) -> int:
        raise AssertionError("nobody asks")

    def remove(self) -> None:
        self.tree.remove("/job")


@pytest.mark.parametrize(
    ("code", "kills", "told"),
    [
        (137, 1, "Your job ran out of memory. Give it more, or make it need less."),
        (137, 0, "Your job ended with 137. It was not out of memory."),
        (0, 0, "Your job ended well."),
        (0, 2, "Your job ended well, but 2 of its processes ran out of memory."),
        (2, 1, "Your job ended with 2, and running out of memory is the likely cause."),
    ],
)
async def test_the_user_is_told_the_truth(
    worker: ModuleType, tree: FakeCgroupTree, tmp_path: Path, code: int, kills: int, told: str
) -> None:
    socket = tmp_path / "o.sock"
    async with (
        Watcher(Config(cgroup_root=tree.root)) as watcher,
        RpcServer(watcher, socket=socket),
    ):

        def run() -> ContainerExit:
            with Client(socket) as client:
                ended, exit_ = worker.work(client, PlainFiles(worker, tree, code, kills))
                assert ended.exit_code == code
                assert isinstance(exit_, ContainerExit)
                return exit_

        assert worker.advice(await asyncio.to_thread(run)) == told
        assert not tree.path("/job").exists()


def test_without_a_daemon_the_container_runs_to_its_end_all_the_same(
    worker: ModuleType, tree: FakeCgroupTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(tmp_path / "none.sock") as client:
        ended, exit_ = worker.work(client, PlainFiles(worker, tree, 137, 1))
    assert (ended.exit_code, exit_) == (137, None)
    assert not tree.path("/job").exists()
    said = capsys.readouterr().err
    assert "not registered: no daemon answers" in said
    assert "not judged: no daemon answers" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("runc {0}", "worker: runc cannot be run (No such file or directory): install runc, "),
        (
            "docker image",
            "worker: no Docker answers at unix://{0}/docker.sock (No such file or directory): ",
        ),
    ],
)
def test_where_nothing_runs_containers_that_is_said_in_a_line(
    tmp_path: Path, words: str, said: str
) -> None:
    """With the mend, which is to install or start it, or to use the other."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *words.format(tmp_path).split()],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"},
    )
    assert done.returncode == 125
    assert done.stderr.startswith(said.format(tmp_path))
    assert ", or run " in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_runc_refuses_is_left_to_runc_to_say(tmp_path: Path) -> None:
    runc = tmp_path / "runc"
    runc.write_text("#!/bin/sh\necho 'runc: no such bundle' >&2; exit 3\n")
    runc.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "runc", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 125
    said = "runc: no such bundle\nworker: 'runc create' failed with 3, and says why above\n"
    assert done.stderr == said


def test_an_image_that_docker_does_not_run_is_said_in_a_line(
    worker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker

    class Refuses:
        def run(self, *_: object, **__: object) -> None:
            raise docker.errors.ImageNotFound("404", explanation="no such image:\nnone")

    class Answers:
        containers = Refuses()

    monkeypatch.setattr(docker, "from_env", Answers)
    with pytest.raises(worker.Unusable, match=r"^Docker does not run none: no such image: none$"):
        worker.Docker("none", [], None, "runc").start()


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("confidence", Confidence)
@pytest.mark.parametrize("stopped", [True, False])
def test_there_is_a_word_for_every_verdict(
    worker: ModuleType, verdict: Verdict, confidence: Confidence, stopped: bool
) -> None:
    said = worker.advice(
        ContainerExit(
            episode_id="e",
            detect_time=1,
            verdict=verdict,
            confidence=confidence,
            exit_code=137,
            stop_requested=stopped,
        )
    )
    assert said.startswith("Your job ")
