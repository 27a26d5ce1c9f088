"""What can be watched, and what only has the place where it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomwatch.cgroup.hierarchy import locate
from oomwatch.errors import NoMemoryController
from oomwatch.testing import FakeCgroupTree


def test_where_nothing_is_mounted_nothing_is_watched(tmp_path: Path) -> None:
    """/sys/fs/cgroup is there in every sysfs: an empty tree of cgroups would never tell a kill."""
    with pytest.raises(NoMemoryController, match=r"holds no cgroups: .* is to be mounted there"):
        locate(tmp_path)


def test_a_directory_with_a_cgroups_files_is_taken_for_one(tmp_path: Path) -> None:
    FakeCgroupTree(tmp_path)
    hierarchy = locate(tmp_path)
    assert (hierarchy.directory, hierarchy.kernel) == (str(tmp_path), False)
