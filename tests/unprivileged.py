"""The daemon as a user with few rights, or none: for tests that are run by root."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.status import NodeStatus

SECONDS = 120.0
NOBODY = 65534
CHECKOUT = Path(__file__).parents[1]

# In a mount namespace of its own: the interpreter, its packages and the checkout are put where
# somebody who may not enter a home directory can reach them; then everything is given up.
AS_NOBODY = """
set -eu
mount -t tmpfs -o mode=0755 tmpfs "$1"
cd "$1"
mkdir python packages checkout
mount --bind "$2" python
mount --bind "$3" packages
mount --bind "$4" checkout
capabilities=$5
user=$7
export PYTHONHOME=$1/python PYTHONPATH=$1/checkout:$1/packages LD_LIBRARY_PATH=$1/python/lib
python=$1/python/bin/python$6
shift 7
cd /
exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs \
    --bounding-set="$capabilities" \
    --inh-caps="$capabilities" --ambient-caps="$capabilities" "$python" -m oomwatch.cli.main "$@"
"""


def let_in(tmp_path: Path) -> None:
    """Let others reach a test's directory: pytest makes it, and the two above it, with 0700; the
    three above it where tests are run side by side. What is above those is everybody's, as /tmp.
    """
    for directory in (tmp_path, *tmp_path.parents[:3]):
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o011)


def _place(user: int) -> Path:
    """A directory that the user can reach, with two in it that are the user's."""
    place = Path(tempfile.mkdtemp(prefix="oomwatch-nobody-", dir="/tmp"))
    place.chmod(0o755)
    for name in ("mounts", "run", "state"):
        (place / name).mkdir()
    for name in ("run", "state"):
        shutil.chown(place / name, user, user)
    return place


@asynccontextmanager
async def serving(
    user: int, capabilities: str, *words: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """`oomwatch serve` as a user with capabilities; yields its process and its socket."""
    place = _place(user)
    try:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", AS_NOBODY, "sh", str(place / "mounts")),
            *(sys.base_prefix, sysconfig.get_path("purelib"), str(CHECKOUT), capabilities, version),
            str(user),
            *("serve", "--socket", str(place / "run" / "s"), "--state-dir", str(place / "state")),
            *words,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process, place / "run" / "s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        shutil.rmtree(place)


async def answering(process: asyncio.subprocess.Process, socket: Path) -> NodeStatus:
    """Its status, once it answers."""
    async with asyncio.timeout(SECONDS):
        while True:
            if process.returncode is not None:
                assert process.stderr is not None
                pytest.fail((await process.stderr.read()).decode())
            with contextlib.suppress(Exception):
                async with AsyncClient(socket) as client:
                    return await client.get_status()
            await asyncio.sleep(0.2)


def rights(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def ended(process: asyncio.subprocess.Process) -> str:
    """End it in good order; what it said."""
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(SECONDS):
        words = (await process.stderr.read()).decode()
        assert await process.wait() == 0, words
    return words
