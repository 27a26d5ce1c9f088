"""What the containers run: commands of a busybox that is their whole image.

`dd` takes the memory in one read, so that a sandbox which intercepts every system call comes to
its limit in seconds also under emulation.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_EVERYTHING = os.environ.get("OOMWATCH_RUNTIMES") == "all"
"""Each test in every runtime that can do it, as `scripts/test --runtimes all` and scripts/soak
--matrix ask; else, as in CI, where it is most telling."""

only_where_all = pytest.mark.skipif(
    not _EVERYTHING, reason="left out for its minutes, but for scripts/test --runtimes all"
)

MEBIBYTE = 1 << 20
LIMIT = 64 * MEBIBYTE
"""A container's limit; a sandbox takes some 20 MiB of it for itself."""

_HOG = "/bin/dd if=/dev/zero of=/dev/null bs=256M count=1"
_APPLETS = ("sh", "dd", "sleep", "true", "cat", "kill", "tail", "ls")

HOG = tuple(_HOG.split())
"""The main process goes over the limit."""

SLEEPER = ("/bin/sleep", "10000")


def tried(*always: T, also: Iterable[T] = ()) -> list[T]:
    """What a test is tried in or with: `also` where everything is asked for."""
    return list(dict.fromkeys((*always, *also))) if _EVERYTHING else list(always)


def tried_as(*always: str, hosts: Iterable[str], handlers: Iterable[str]) -> list[str]:
    """The runtimes, as `host-handler`, to try a test in: each pair where all are asked for."""
    return tried(*always, also=map("-".join, product(hosts, handlers)))


def hold(size: str) -> str:
    """A command that takes so much memory, quickly in a sandbox too, and keeps it."""
    return f"/bin/dd if=/dev/zero of=/dev/null bs={size} count=1000"


def script(text: str) -> tuple[str, ...]:
    """A shell's command; HOG in it stands for a child that goes over the limit."""
    return ("/bin/sh", "-c", text.replace("HOG", _HOG))


CHILD_KILLED = script("HOG; exec /bin/sleep 10000")
"""A child goes over the limit, and the container lives on."""


def make_root(path: Path) -> Path:
    """Make the root file system that every container here has: busybox and links to it."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    for name in ("bin", "proc", "sys", "dev", "tmp", "etc", "gate"):
        (path / name).mkdir(parents=True)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in _APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    return path
