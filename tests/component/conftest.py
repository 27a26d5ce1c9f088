"""A backend for servers under test: a watcher on a tree of plain files."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.testing import FakeCgroupTree
from tests.component.served import in_memory


@pytest.fixture
def on_tmpfs(tmp_path: Path) -> Iterator[None]:
    """Take away what `tests.component.served` made in memory."""
    yield
    shutil.rmtree(in_memory(tmp_path), ignore_errors=True)


@pytest.fixture
async def watcher(tmp_path: Path) -> AsyncIterator[Watcher]:
    """Watches the cgroup /a of a tree of its own."""
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/a")
    async with Watcher(Config(cgroup_root=tree.root, kernel_log=None)) as watching:
        yield watching
