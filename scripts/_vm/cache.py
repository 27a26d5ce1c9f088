"""Where the VM's downloads are kept, and how the tools that fetch and unpack them are run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotHave(Exception):
    """A part of the VM could not be had. The message says why and what to do."""


def cache_dir() -> Path:
    """Where downloads are kept: OOMWATCH_CACHE, else oomwatch in the user's cache folder."""
    if own := os.environ.get("OOMWATCH_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "oomwatch"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder; while in it, no other VM of this user's downloads to it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lacking(*tools: str) -> list[str]:
    """Those of the tools that are not installed."""
    return [tool for tool in tools if shutil.which(tool, path=with_sbin()["PATH"]) is None]


def with_sbin() -> dict[str, str]:
    """The environment, with depmod and its like on PATH, which a plain user's leaves out."""
    return os.environ | {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "LC_ALL": "C",
    }


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a tool and return what it printed. Raises CannotHave with its own words."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=with_sbin()
    )
    if done.returncode:
        raise CannotHave(
            f"{command[0]} failed ({done.returncode}):\n{(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def say(text: str) -> None:
    """Tell the person who waits."""
    print(f"vm: {text}", file=sys.stderr, flush=True)
