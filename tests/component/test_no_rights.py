"""The daemon as nobody, without any right, on a tree of plain files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import OomKill
from oomwatch.sources.runtimes.sockets import is_hidden, is_there
from oomwatch.subscriptions import Earliest
from oomwatch.testing import FakeCgroupTree
from tests.unprivileged import NOBODY, SECONDS, answering, ended, let_in, rights, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")


@pytest.fixture
def tree(tmp_path: Path) -> FakeCgroupTree:
    let_in(tmp_path)
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/a")
    return tree


@pytest.mark.timeout(300)
async def test_who_has_no_right_tells_what_the_counters_say(
    tree: FakeCgroupTree, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    runtime = f"docker={locked}/docker.sock"
    root = ("--cgroup-root", str(tree.root))
    async with serving(NOBODY, "-all", *root, "--runtime", runtime) as (process, socket):
        status = await answering(process, socket)
        had = rights(process.pid)
        assert had["Uid"].split() == [str(NOBODY)] * 4
        assert {int(had[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
        docker = next(source for source in status.sources if source.name == "docker")
        assert not docker.active
        assert "may not look for" in docker.detail
        tree.kill("/a", 3)
        async with asyncio.timeout(SECONDS), AsyncClient(socket) as client:
            entry = await anext(aiter(client.subscribe(Earliest())))
        assert isinstance(entry.event, OomKill)
        assert entry.event.kill_count == 3
        words = await ended(process)
    assert "Traceback" not in words


def test_what_may_not_be_looked_for_is_not_there(tmp_path: Path) -> None:
    assert is_there(tmp_path)
    assert not is_hidden(tmp_path)
    assert not is_there(tmp_path / "gone")
    assert not is_hidden(tmp_path / "gone")
