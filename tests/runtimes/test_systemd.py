"""systemd's services, and Docker with its systemd driver."""

from __future__ import annotations

import asyncio

from oomwatch.sources.runtimes import RuntimeSocket
from tests.kernel.watching import watching
from tests.runtimes.containers import Spec
from tests.runtimes.hosts import SystemdDockerHost
from tests.runtimes.systemd import Systemd
from tests.runtimes.workloads import HOG, LIMIT


async def test_a_service_at_its_memory_max(systemd: Systemd) -> None:
    async with watching() as told:
        cgroup = await asyncio.to_thread(
            lambda: systemd.service("hog", *HOG, properties=(f"MemoryMax={LIMIT}",))
        )
        await told.until(lambda: told.count(cgroup) >= 1)
        await told.conserved()
        (kill,) = told.below(cgroup)
        assert (kill.victim_cgroup, kill.limit_cgroup) == (cgroup, cgroup)
        assert await asyncio.to_thread(systemd.result, "hog") == "oom-kill"


async def test_dockers_systemd_driver(systemd_docker_host: SystemdDockerHost) -> None:
    host = systemd_docker_host
    async with watching(runtimes=(RuntimeSocket("docker", host.socket),)) as told:
        container = await asyncio.to_thread(host.run, Spec(command=HOG, name="in-a-scope"))
        try:
            assert (await asyncio.to_thread(container.wait)).exit_code == 137
            await told.until(lambda: told.count(container.cgroup) >= 1)
            await told.conserved()
            (kill,) = told.below(container.cgroup)
            assert kill.victim_cgroup == container.cgroup
            assert kill.container is not None
            assert kill.container.id == container.id
        finally:
            await asyncio.to_thread(container.remove)
