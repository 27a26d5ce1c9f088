"""The daemon with the rights that docs/deploy.md lists: as nobody, and as root without any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import OomKill
from oomwatch.subscriptions import Earliest
from tests.kernel.workload import LIMIT, Scratch
from tests.unprivileged import NOBODY, SECONDS, answering, ended, rights, serving

CAP_SYSLOG = 1 << 34
DMESG_RESTRICT = Path("/proc/sys/kernel/dmesg_restrict")


@pytest.fixture(autouse=True)
def restricted() -> Iterator[None]:
    """The kernel's log is for those with CAP_SYSLOG, as hardened hosts have it."""
    before = DMESG_RESTRICT.read_text()
    DMESG_RESTRICT.write_text("1")
    yield
    DMESG_RESTRICT.write_text(before)


async def first_kill(socket: Path, *, named: bool) -> tuple[OomKill, list[str]]:
    """The first kill told, and its victims' names, which are waited for where they can be."""
    async with AsyncClient(socket) as client:
        kill: OomKill | None = None
        async for entry in client.subscribe(Earliest()):
            if isinstance(entry.event, OomKill):
                kill = kill or entry.event
                names = [victim.comm or "" for victim in entry.event.victims]
                if names or not named:
                    return kill, names
    raise AssertionError("the subscription ended")


@pytest.mark.parametrize(
    ("user", "capabilities", "held"),
    [(NOBODY, "-all,+syslog", CAP_SYSLOG), (NOBODY, "-all", 0), (0, "-all", 0)],
    ids=["syslog", "none", "root"],
)
async def test_who_may_only_read_tells_kills(user: int, capabilities: str, held: int) -> None:
    logged, traced = held == CAP_SYSLOG, user == 0
    with Scratch("rights") as scratch:
        scratch.hand_down()
        cgroup = scratch.make("c", limit=LIMIT)
        async with serving(user, capabilities) as (process, socket):
            status = await answering(process, socket)
            had = rights(process.pid)
            assert had["Uid"].split() == [str(user)] * 4
            assert int(had["CapEff"], 16) == int(had["CapPrm"], 16) == held
            assert int(had["CapBnd"], 16) == held
            assert had["NoNewPrivs"] == "1"
            sources = {source.name: source for source in status.sources}
            assert sources["memory_events"].active
            assert sources["kernel_log"].active is logged
            # tracefs is root's alone: that is said, and nothing ends for it.
            assert sources["tracepoint"].active is traced
            assert traced or "root" in sources["tracepoint"].detail
            scratch.hog(cgroup).wait()
            async with asyncio.timeout(SECONDS):
                kill, names = await first_kill(socket, named=logged or traced)
            assert kill.victim_cgroup == f"{scratch.cgroup}/c"
            assert kill.kill_count == 1
            assert kill.confidence == "confirmed"
            assert bool(names) is (logged or traced)
            words = await ended(process)
        assert "Traceback" not in words
