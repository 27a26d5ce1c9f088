"""What a start leaves behind, for the start after a crash; and what an end does not."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.journal import Journal
from oomwatch.observations import FindExit
from oomwatch.testing import FakeCgroupTree


@pytest.fixture
def tree() -> Iterator[FakeCgroupTree]:
    root = Path(tempfile.mkdtemp(prefix="oomwatch-test-", dir="/dev/shm"))
    yield FakeCgroupTree(root / "tree")
    shutil.rmtree(root)


async def test_whoever_was_ready_tells_after_a_crash_what_happened_since(
    tree: FakeCgroupTree, tmp_path: Path
) -> None:
    """Also where nothing was ever counted, so that there was nothing to write down."""
    tree.make("/c")
    watcher = Watcher(Config(cgroup_root=tree.root, state_dir=tmp_path / "state"))
    await watcher.start()
    # What a crash now would leave: the files as they are.
    shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    await watcher.stop()
    journal = Journal.open(tmp_path / "crashed")
    rows = journal.load_ledger(watcher.boot_id)
    await journal.close()
    assert rows == ()


async def test_nothing_is_looked_for_in_a_journal_that_is_closed(
    tree: FakeCgroupTree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Though a source tells of an end whose exit is in the journal alone, as it stops."""
    watcher = Watcher(Config(cgroup_root=tree.root, state_dir=tmp_path / "state"))
    await watcher.start()
    source = watcher.witnesses.all[-1]
    stop = source.stop

    async def stop_late() -> None:
        await stop()
        watcher.recollection.answer(FindExit("a", 7, ("boot-exit-1",)))

    source.stop = stop_late  # type: ignore[method-assign]
    await watcher.stop()
    await asyncio.sleep(0)
    assert caplog.messages == []
