"""Containers that end while nobody watches: the next start tells what became of each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomwatch.correlator import lost_ends
from oomwatch.events import ContainerExit, Verdict
from oomwatch.subscriptions import Earliest, EventFilter
from tests.kernel.watching import Told, watching
from tests.runtimes.containers import Host, Spec
from tests.runtimes.processes import SECONDS
from tests.runtimes.telling import WAITING_ITSELF, following, let_go, run
from tests.runtimes.workloads import SLEEPER, script, tried

WAITING_TO_END = script("trap 'exit 0' USR1; /bin/sleep 10000 & while :; do wait $!; done")


@pytest.mark.parametrize(
    "runtime", tried("podman-crun", also=["docker-runc", "containerd-runc"]), indirect=True
)
async def test_the_next_start_tells_how_each_ended(
    runtime: tuple[Host, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, handler = runtime
    # ctr has a task deleted as it ends: then nothing is left of it.
    shown = host.runtime != "containerd"
    if not shown:
        monkeypatch.setattr(lost_ends, "LOST_SECONDS", 5.0)
    state = tmp_path / "state"
    async with watching(state) as told:
        await following(told, host)
        commands = (WAITING_ITSELF, SLEEPER, WAITING_TO_END)
        specs = [Spec(command=command, handler=handler) for command in commands]
        out_of_memory, killed, done = containers = [await run(host, spec) for spec in specs]
        ids = {container.id for container in containers}
        known = told.watcher.correlator.containers.lives
        await told.until(
            lambda: ids <= {life.container_id for life in known.end_untold() if life.pid}
        )
        await told.quiet()
    try:
        await let_go(out_of_memory.cgroup)
        await let_go(done.cgroup)
        await asyncio.to_thread(killed.kill)
        for container in containers:
            await asyncio.to_thread(container.wait)
        async with watching(state) as told:
            exits = await _exits(told, ids)
        for container, verdict, code in (
            (out_of_memory, Verdict.OOM, 137),
            (killed, Verdict.NOT_OOM, 137),
            (done, Verdict.NOT_OOM, 0),
        ):
            exit_ = exits[container.id]
            assert (exit_.verdict, exit_.exit_code) == (verdict, code if shown else None), exit_
            assert exit_.recovered, exit_
            assert exit_.oom_kills == (container is out_of_memory), exit_
    finally:
        for container in containers:
            await asyncio.to_thread(container.remove)


async def _exits(told: Told, ids: set[str]) -> dict[str, ContainerExit]:
    """Wait until the containers' exits were told; each as it was told last."""
    found: dict[str, ContainerExit] = {}
    with await told.watcher.subscriptions.open(Earliest(), EventFilter()) as subscription:
        async with asyncio.timeout(SECONDS):
            while found.keys() < ids:
                for entry in (await subscription.next()).entries:
                    exit_ = entry.event
                    if isinstance(exit_, ContainerExit) and exit_.container is not None:
                        found[exit_.container.id] = exit_
        await told.quiet()
    return found
