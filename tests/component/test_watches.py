"""An inotify instance is had without looking for a C library."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes.util
def search(name):
    raise FileNotFoundError("no usable temporary directory")
ctypes.util.find_library = search
from oomwatch.watches import open_inotify
first, second = open_inotify(), open_inotify()
assert first.fileno() != second.fileno()
first.add_watch("/", 0x100)
"""


def test_where_no_file_can_be_written_and_nothing_run() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=30)
