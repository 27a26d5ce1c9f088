"""systemd's services, each killed in as a container is: named by its unit."""

from __future__ import annotations

import asyncio
import subprocess

from oomwatch.events import OomKill
from tests.kernel.watching import Told, watching
from tests.runtimes.processes import SECONDS
from tests.runtimes.systemd import Systemd
from tests.runtimes.telling import WAITING, let_go
from tests.runtimes.workloads import CHILD_KILLED, HOG, LIMIT

LIMITED = f"MemoryMax={LIMIT}"


async def start(systemd: Systemd, name: str, *command: str, properties: tuple[str, ...]) -> str:
    """Start a service without holding up the watcher; returns its cgroup."""
    return await asyncio.to_thread(lambda: systemd.service(name, *command, properties=properties))


async def told_once(told: Told, name: str, cgroup: str, kills: int = 1) -> OomKill:
    """Wait until a service's kills are told, each once, by its unit's name."""
    await told.until(lambda: told.count(cgroup) >= kills)
    await told.conserved()
    found = told.below(cgroup)
    assert [kill.kill_count for kill in found] == [1] * kills
    for kill in found:
        assert_is_service(kill, name, cgroup)
    return found[-1]


def assert_is_service(kill: OomKill, name: str, cgroup: str) -> None:
    """See that a kill is told by its unit's name."""
    assert kill.victim_cgroup == cgroup
    assert kill.container is not None
    assert (kill.container.name, kill.container.runtime) == (f"{name}.service", "systemd")


async def test_a_service_at_its_memory_max(systemd: Systemd) -> None:
    async with watching() as told:
        cgroup = await start(systemd, "hog", *HOG, properties=(LIMITED,))
        await told_once(told, "hog", cgroup)
        await told.until(
            lambda: any(kill.limit_cgroup for kill in told.below(cgroup, amendments=True))
        )
        limits = {kill.limit_cgroup for kill in told.below(cgroup, amendments=True)}
        assert limits - {None} == {cgroup}
        assert await asyncio.to_thread(systemd.result, "hog") == "oom-kill"


async def test_a_child_at_memory_max_while_the_service_lives(systemd: Systemd) -> None:
    properties = (LIMITED, "OOMPolicy=continue")
    async with watching() as told:
        cgroup = await start(systemd, "child", *CHILD_KILLED, properties=properties)
        await told_once(told, "child", cgroup)
        assert await asyncio.to_thread(systemd.state, "child") == "active"
        await asyncio.to_thread(systemd.stop, "child")


async def test_twenty_services_at_once(systemd: Systemd) -> None:
    """One whose cgroup is gone before its counter was read is a candidate of what a sum shows."""
    names = [f"one-of-twenty-{number}" for number in range(20)]
    async with watching() as told:
        starting = (start(systemd, name, *HOG, properties=(LIMITED,)) for name in names)
        cgroups = await asyncio.gather(*starting)

        def is_told(cgroup: str) -> bool:
            summed = any(cgroup in kill.candidates for kill in told.kills)
            return summed or told.count(cgroup) == 1

        # While they are still being killed, what was told is not what the kernel counts.
        await told.until(lambda: all(map(is_told, cgroups)))
        await told.conserved()
        assert told.count() == 20
        for name, cgroup in zip(names, cgroups, strict=True):
            assert told.count(cgroup) <= 1
            for kill in told.below(cgroup, amendments=True):
                assert_is_service(kill, name, cgroup)


async def test_systemd_itself_is_replaced_while_services_run(systemd: Systemd) -> None:
    """And the watcher came after the service."""
    properties = (LIMITED, "OOMPolicy=continue")
    cgroup = await start(systemd, "survivor", *WAITING, properties=properties)
    async with watching() as told:
        await let_go(cgroup)
        await told_once(told, "survivor", cgroup)
        again = systemd.inside("systemctl", "daemon-reexec")
        await asyncio.to_thread(subprocess.run, again, check=True, timeout=SECONDS)
        await let_go(cgroup)
        await told_once(told, "survivor", cgroup, kills=2)
        await asyncio.to_thread(systemd.stop, "survivor")
