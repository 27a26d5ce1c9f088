"""Ends of every kind through real runtimes: what happened, and what is made of it.

No `oom` where there was none, no `not_oom` where there was one, and `unknown` only in the rows of
docs/semantics.md that say so: neither in what a worker is told within its moment nor in what that
is amended to. The rows and words that are asserted are of the latter. The table of all that was
judged is printed at the end of the run, beside Docker's OOMKilled and the plain rule that 137 is
OOM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from oomwatch.events import ContainerExit
from tests.kernel import workload
from tests.kernel.watching import watching
from tests.runtimes.confusion import Truth
from tests.runtimes.containers import Host
from tests.runtimes.judging import Worker
from tests.runtimes.killers import earlyoom
from tests.runtimes.scenarios import (
    RUNSC,
    SCENARIOS,
    Scenario,
    kill,
    wait_until_gone,
)
from tests.runtimes.workloads import hold, tried_as

TRIED = [(scenario, runtime) for scenario in SCENARIOS for runtime in scenario.runtimes]


@pytest.mark.parametrize(
    ("scenario", "runtime"),
    TRIED,
    indirect=["runtime"],
    ids=[f"{scenario.what}-{runtime}" for scenario, runtime in TRIED],
)
async def test_an_end_is_told_for_what_it_was(
    scenario: Scenario, runtime: tuple[Host, str], tmp_path: Path
) -> None:
    async with watching() as told, Worker(told, *runtime, tmp_path) as worker:
        job = await worker.start(scenario.text, init=scenario.init, memory=scenario.memory)
        if scenario.act is not None:
            await job.ready()
            await job.act(scenario.act)
        ended = await job.ended()
        if scenario.cgroup_gone:
            await asyncio.to_thread(wait_until_gone, job.container.cgroup)
        exit_, outcome = await job.judged(scenario.what, scenario.truth, ended, **scenario.said)
        assert outcome.right, exit_
        assert outcome.row in scenario.rows, exit_
        assert any(scenario.says in reason for reason in exit_.reasons), exit_
        assert bool(exit_.oom_kills) == ("HOG" in scenario.text), exit_


@pytest.mark.parametrize(
    "runtime", tried_as("docker-runc", hosts=("docker",), handlers=RUNSC), indirect=True
)
async def test_of_three_lives_only_one_was_out_of_memory(
    runtime: tuple[Host, str], tmp_path: Path
) -> None:
    lives = (
        "if [ ! -e /gate/1 ]; then : > /gate/1; exit 1; fi; "
        "if [ ! -e /gate/2 ]; then : > /gate/2; exec HOG; fi; exit 1"
    )
    async with watching() as told, Worker(told, *runtime, tmp_path) as worker:
        job = await worker.start(lives, restarts=2)
        exits: dict[int, list[ContainerExit]] = {}

        def all_told() -> bool:
            exits.clear()
            for entry in told.entries:
                exit_ = entry.event
                if isinstance(exit_, ContainerExit) and exit_.container is not None:
                    assert exit_.container.id == job.container.id
                    assert exit_.cgroup_id is not None
                    exits.setdefault(exit_.cgroup_id, []).append(exit_)
            return len(exits) == 3

        await told.until(all_told)
        await told.quiet()
        all_told()
        truths = (Truth.NOT, Truth.OOM, Truth.NOT)
        # Of a boot's cgroups the newer has the higher inode.
        lives_told = [exits[cgroup_id] for cgroup_id in sorted(exits)]
        for number, (truth, told_of) in enumerate(zip(truths, lives_told, strict=True), 1):
            first, last = told_of[0], told_of[-1]
            outcome = worker.wrote(f"restarted, life {number} of 3", truth, last, first=first)
            assert outcome.right, told_of


@pytest.mark.parametrize(
    "runtime", tried_as("hand-crun", hosts=("docker", "hand"), handlers=RUNSC), indirect=True
)
async def test_the_pods_limit_is_the_end_of_one_and_no_siblings(
    runtime: tuple[Host, str], tmp_path: Path, pod: str
) -> None:
    async with watching() as told, Worker(told, *runtime, tmp_path) as worker:
        sibling = await worker.start("READY; exec sleep 1000", memory=None, parent=pod)
        await sibling.ready()
        job = await worker.start("exec HOG", memory=None, parent=pod)
        exit_, outcome = await job.judged(
            "the parent's limit", Truth.OOM, meanwhile=partial(sibling.act, kill)
        )
        assert outcome.right, exit_
        assert any(f"at the limit of {pod}" in reason for reason in exit_.reasons), exit_
        exit_, outcome = await sibling.judged("a sibling in its pod was killed", Truth.NOT)
        assert outcome.right, exit_
        assert exit_.oom_kills == 0


@pytest.mark.parametrize(
    "runtime", tried_as("hand-runc", hosts=("docker", "hand"), handlers=RUNSC), indirect=True
)
async def test_the_node_out_of_memory(runtime: tuple[Host, str], tmp_path: Path) -> None:
    async with watching() as told, Worker(told, *runtime, tmp_path) as worker:
        job = await worker.run(f"exec {hold('2G')}", memory=None)
        await job.make_it_first_to_go(1000)
        # What a sandbox fills the node with cannot be taken away from it, and is slow to come.
        slow = workload.killing_before_thrashing() if runtime[1] == "runsc" else nullcontext()
        with slow, workload.little_memory():
            await job.register()
            exit_, outcome = await job.judged("the node out of memory", Truth.OOM)
        assert outcome.right, exit_
        assert any("as the node ran out of memory" in reason for reason in exit_.reasons), exit_


@pytest.mark.parametrize(
    "runtime", tried_as("hand-runc", hosts=("docker", "hand"), handlers=RUNSC), indirect=True
)
async def test_earlyooms_kill_is_no_oom_and_is_named(
    runtime: tuple[Host, str], tmp_path: Path
) -> None:
    log = tmp_path / "earlyoom.log"
    log.touch()
    async with (
        watching(killer_log=log) as told,
        Worker(told, *runtime, tmp_path) as worker,
    ):
        waiting = "READY; until [ -e /gate/hog ]; do sleep 0.5; done; "
        job = await worker.run(f"{waiting}exec {hold('400M')}", memory=None)
        await job.make_it_first_to_go(900)
        await job.register()
        await job.ready()
        with earlyoom(log):
            (job.gate / "hog").touch()
            exit_, outcome = await job.judged("earlyoom's kill", Truth.NOT)
        assert outcome.right, exit_
        assert outcome.row == "userspace_killer", (exit_, log.read_text())
        assert any(r.startswith("earlyoom killed here") for r in exit_.reasons), exit_


@pytest.fixture
def pod() -> Iterator[str]:
    """A cgroup that is limited as a whole, for containers to be made in."""
    path = workload.ROOT / "oomwatch-pod"
    # As much as two sandboxes that do nothing need, and half as much again.
    workload.make(path, limit=160 * workload.MEBIBYTE)
    (path / "cgroup.subtree_control").write_text("+memory")
    yield f"/{path.name}"
    workload.remove(path)
