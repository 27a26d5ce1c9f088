"""What must be told of a kill in a container: once, whose it was, and at whose limit."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from oomwatch.events import OomKill
from oomwatch.sources.runtimes import RuntimeSocket
from tests.kernel.watching import SECONDS, Told, watching
from tests.kernel.workload import ROOT
from tests.runtimes.api import IMAGE, ApiHost
from tests.runtimes.containers import Host, Running, Spec
from tests.runtimes.hosts import SystemdDockerHost
from tests.runtimes.processes import wait_for
from tests.runtimes.workloads import script

LABELS = {"app": "shop"}

_UNTIL_SIGNALLED = "/bin/sleep 10000 & while :; do wait $!; done"
WAITING = script(f"trap 'HOG' USR1; {_UNTIL_SIGNALLED}")
"""A child goes over the limit whenever `let_go` says so, and the container lives on."""

WAITING_ITSELF = script(f"trap 'exec HOG' USR1; {_UNTIL_SIGNALLED}")
"""The same, by the main process."""


def watching_with(host: Host) -> AbstractAsyncContextManager[Told]:
    """Watch this machine and, beside the runtimes at their usual places, this one."""
    if isinstance(host, SystemdDockerHost):
        return watching(runtimes=(RuntimeSocket("docker", host.socket),))
    return watching()


async def following(told: Told, host: Host) -> None:
    """Wait until the watcher follows a runtime's events."""

    def active() -> bool:
        states = told.watcher.witnesses.states()
        return any(state.name == host.runtime and state.active for state in states)

    if host.runtime != "hand":
        await told.until(active)


async def run(host: Host, spec: Spec) -> Running:
    """Start a container without holding up the watcher."""
    return await asyncio.to_thread(host.run, spec)


async def let_go(cgroup: str) -> int:
    """Have a container that waits go over its limit; its runtime is not needed for it.

    Returns its shell's pid.
    """
    procs = ROOT / cgroup[1:] / "cgroup.procs"

    def shell() -> int | None:
        """The pid of the shell, once it minds the signal."""
        for pid in procs.read_text().split():
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            if status["Name"] == "sh" and int(status["SigCgt"], 16) >> signal.SIGUSR1 - 1 & 1:
                return int(pid)
        return None

    await asyncio.to_thread(wait_for, lambda: shell() is not None, "its shell does not run")
    pid = shell()
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    return pid


def let_go_and_see_off(cgroups: Sequence[str]) -> list[int]:
    """`let_go` of them all, and wait until the cgroups are gone; it blocks the loop that calls it.

    Returns their shells' pids.
    """

    async def let_all_go() -> list[int]:
        pids = [await let_go(cgroup) for cgroup in cgroups]
        for cgroup in cgroups:
            await asyncio.to_thread(wait_for, partial(is_gone, cgroup), f"{cgroup} does not go")
        return pids

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, let_all_go()).result()


def is_gone(cgroup: str) -> bool:
    """Has a cgroup been removed?"""
    return not (ROOT / cgroup[1:]).exists()


def words(told: Told, container: Running) -> list[OomKill]:
    """A container's kills and what amends them."""
    return told.below(container.cgroup, amendments=True)


def is_named(kill: OomKill, host: Host, spec: Spec, container: Running) -> bool:
    """Does it say whose the cgroup was, with all that this runtime knows of it?"""
    known = kill.container
    if known is None:
        return host.runtime == "hand"
    by_name = known.name == spec.name and (known.image or "").endswith(IMAGE)
    return (
        (known.id, known.runtime) == (container.id, host.runtime)
        and (by_name or not isinstance(host, ApiHost))
        and (spec.labels or {}).items() <= (known.labels or {}).items()
    )


async def told_once(
    told: Told, host: Host, spec: Spec, container: Running, *, kills: int = 1
) -> OomKill:
    """Wait until a container's kills are told by its name, the last one here returned.

    Each is told once, and they are all that the node counts.
    """
    await told.until(
        lambda: (
            told.count(container.cgroup) >= kills
            and is_named(words(told, container)[-1], host, spec, container)
        )
    )
    await told.conserved()
    first = told.below(container.cgroup)
    assert [kill.kill_count for kill in first] == [1] * kills
    assert {kill.victim_cgroup for kill in first} == {container.cgroup}
    return words(told, container)[-1]


async def told_in_a_storm(
    told: Told, host: Host, spec: Spec, container: Running, victim: int
) -> None:
    """Wait until a container's one kill is told by its name, among many that come at once.

    A cgroup that is gone before its counter was read is told in a sum; whose kill it was, an
    amendment says. That each is counted once, all of them together show. Of ten victims at the most
    the kernel prints where they lived; whose the others were their pids tell. Those of the Docker
    beside systemd are of a PID namespace of its own: it names the container alone, and of a scope
    that is gone too soon for itself not even that.
    """
    alone = isinstance(host, SystemdDockerHost)

    def is_told() -> bool:
        said = words(told, container)
        named = any(is_named(word, host, spec, container) for word in said)
        return named and (alone or any(word.victims for word in said))

    try:
        await told.until(is_told, SECONDS / 4 if alone else SECONDS)
    except AssertionError:
        if not alone or (await asyncio.to_thread(container.wait)).oom_killed:
            raise
        assert any(container.cgroup in kill.candidates for kill in told.kills)
    assert told.count(container.cgroup) <= 1
    named = {one.pid for word in words(told, container) for one in word.victims}
    assert named == {victim} or (alone and not named)


async def at_its_own_limit(told: Told, container: Running) -> None:
    """Wait until the limit is told: of a cgroup that is gone at once the log alone may say it."""
    await told.until(lambda: any(kill.limit_cgroup for kill in words(told, container)))
    limits = {kill.limit_cgroup for kill in words(told, container)}
    assert limits - {None} == {container.cgroup}
