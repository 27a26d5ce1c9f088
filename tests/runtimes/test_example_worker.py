"""The worker in examples/, as a person runs it: with Docker, and with runc by hand."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.rpc.server import RpcServer
from tests.runtimes.api import IMAGE
from tests.runtimes.by_hand import HandHost, config
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import DOCKER_SOCKET, DockerHost
from tests.runtimes.processes import SECONDS
from tests.runtimes.scenarios import wait_until_gone
from tests.runtimes.workloads import script, tried

EXAMPLE = Path(__file__).parents[2] / "examples" / "worker.py"

OUT_OF_MEMORY = "Your job ran out of memory. Give it more, or make it need less."
ENDS = [
    # Longer than registering takes: the example's Docker starts a container at once.
    ("sleep 3; exec HOG", OUT_OF_MEMORY, ("oom", "confirmed")),
    (
        "sleep 3; HOG; exit 0",
        "Your job ended well, but 1 of its processes ran out of memory.",
        ("not_oom", "high"),
    ),
    (
        "sleep 3; exit 137",
        "Your job ended with 137. It was not out of memory.",
        ("not_oom", "confirmed"),
    ),
]


@asynccontextmanager
async def daemon(socket: Path) -> AsyncIterator[None]:
    """Watch this machine, and serve a worker."""
    async with Watcher(Config()) as watcher, RpcServer(watcher, socket=socket):
        yield


async def work(socket: Path, *words: str) -> tuple[str, tuple[str, str]]:
    """Run the example; what it tells its user first, and the verdict."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(EXAMPLE), "--socket", str(socket), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=os.environ | {"DOCKER_HOST": f"unix://{DOCKER_SOCKET}"},
    )
    assert done.stdout, done.stderr
    ruled = json.loads(done.stderr.splitlines()[-1])
    return done.stdout.splitlines()[0], (ruled["verdict"], ruled["confidence"])


@pytest.mark.parametrize(("text", "told", "ruled"), tried(ENDS[1], also=(ENDS[0], ENDS[2])))
async def test_with_docker_the_user_is_told_the_truth(
    docker_host: DockerHost, tmp_path: Path, text: str, told: str, ruled: tuple[str, str]
) -> None:
    socket = tmp_path / "o.sock"
    words: Sequence[str] = ("docker", "--memory", "64m", IMAGE, *script(text))
    async with daemon(socket):
        assert await work(socket, *words) == (told, ruled)
    assert docker_host.client.containers.list(all=True) == []


async def test_one_that_ends_before_it_can_be_registered_is_judged_all_the_same(
    docker_host: DockerHost, tmp_path: Path
) -> None:
    socket = tmp_path / "o.sock"
    async with daemon(socket):
        told, (verdict, _) = await work(
            socket, "docker", "--memory", "64m", IMAGE, *script("exec HOG")
        )
    assert (told, verdict) == (OUT_OF_MEMORY, "oom")


@pytest.mark.parametrize(("text", "told", "ruled"), tried(ENDS[0], also=ENDS[1:]))
async def test_with_runc_by_hand_the_user_is_told_the_truth(
    hand_host: HandHost, tmp_path: Path, text: str, told: str, ruled: tuple[str, str]
) -> None:
    socket, bundle = tmp_path / "o.sock", tmp_path / "bundle"
    bundle.mkdir()
    specification = config(Spec(command=script(text)), hand_host.root, "/by-hand/the-worker")
    (bundle / "config.json").write_text(json.dumps(specification))
    async with daemon(socket):
        assert await work(socket, "runc", str(bundle)) == (told, ruled)
    await asyncio.to_thread(wait_until_gone, "/by-hand/the-worker")
