"""The ground the other kernel tests stand on: this kernel kills at a limit, and counts it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CGROUP_ROOT = Path("/sys/fs/cgroup")

_EXCEED = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
hog = bytearray(64 << 20)
for page in range(0, len(hog), 4096):
    hog[page] = 1
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = CGROUP_ROOT / f"oomwatch-smoke-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


def oom_kills(cgroup: Path) -> int:
    words = (cgroup / "memory.events.local").read_text().split()
    return int(words[words.index("oom_kill") + 1])


def test_a_kill_at_the_limit_is_counted_once_in_the_cgroup(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(32 << 20))
    if (cgroup / "memory.swap.max").exists():
        (cgroup / "memory.swap.max").write_text("0")
    assert oom_kills(cgroup) == 0

    done = subprocess.run([sys.executable, "-c", _EXCEED, str(cgroup)], check=False)

    assert done.returncode == -9
    assert oom_kills(cgroup) == 1
