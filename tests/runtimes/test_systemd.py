"""systemd's services, and Docker with its systemd driver."""

from __future__ import annotations

import asyncio

from tests.kernel.watching import watching
from tests.runtimes.systemd import Systemd
from tests.runtimes.workloads import HOG, LIMIT


async def test_a_service_at_its_memory_max(systemd: Systemd) -> None:
    async with watching() as told:
        cgroup = await asyncio.to_thread(systemd.service, "hog", LIMIT, *HOG)
        await told.until(lambda: told.count(cgroup) >= 1)
        await told.conserved()
        (kill,) = told.below(cgroup)
        assert (kill.victim_cgroup, kill.limit_cgroup) == (cgroup, cgroup)
        assert await asyncio.to_thread(systemd.result, "hog") == "oom-kill"
