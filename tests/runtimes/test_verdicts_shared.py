"""gVisor sandboxes that share a cgroup, and containers that share a sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import workload
from tests.kernel.watching import watching
from tests.runtimes.by_hand import HandHost
from tests.runtimes.confusion import Truth
from tests.runtimes.judging import Worker
from tests.runtimes.scenarios import kill

LIMIT = 160 * workload.MEBIBYTE
"""As much as two sandboxes that do nothing need, and half as much again."""


@pytest.fixture
def shared() -> Iterator[str]:
    """A cgroup that is limited as a whole, for processes to be started in."""
    path = workload.ROOT / "oomwatch-shared"
    workload.make(path, limit=LIMIT)
    yield f"/{path.name}"
    workload.remove(path)


@pytest.fixture
def pod() -> Iterator[str]:
    """The same, for containers' cgroups."""
    path = workload.ROOT / "oomwatch-sandbox-pod"
    workload.make(path, limit=LIMIT)
    (path / "cgroup.subtree_control").write_text("+memory")
    yield f"/{path.name}"
    # runsc may leave a container's behind, where it took the sandbox's for the container's own.
    for directory, _, _ in os.walk(path, topdown=False):
        workload.remove(Path(directory))


@pytest.mark.parametrize("named", [True, False])
async def test_in_a_shared_cgroup_the_victims_pid_decides(
    hand_host: HandHost, tmp_path: Path, shared: str, named: bool
) -> None:
    options: dict[str, Any] = {
        "options": ("--ignore-cgroups",),
        "within": shared,
        "memory": None,
    }
    # Without the kernel's log the tracepoint is not read either: nobody names the victim.
    logs: dict[str, Any] = {} if named else {"kernel_log": None}
    async with (
        watching(**logs) as told,
        Worker(told, hand_host, "runsc", tmp_path) as worker,
    ):
        other = await worker.start("READY; exec sleep 1000", **options)
        await other.ready()
        job = await worker.run("exec HOG", **options)
        notes = await job.register()
        assert any("in a cgroup that others share" in note for note in notes), notes
        truth = Truth.OOM if named else Truth.EITHER
        exit_, outcome = await job.judged(
            "a shared cgroup's sandbox", truth, meanwhile=partial(other.act, kill)
        )
        assert outcome.right, exit_
        unnamed = {"shared_kill", "killed_unnamed_before"}
        assert outcome.row in ({"main_process_killed"} if named else unnamed), exit_
        truth = Truth.NOT if named else Truth.EITHER
        exit_, outcome = await other.judged("another beside it, killed by hand", truth)
        assert outcome.right, exit_
        assert exit_.oom_kills == 0


async def test_one_sandbox_is_the_end_of_all_its_containers(
    hand_host: HandHost, tmp_path: Path, pod: str
) -> None:
    def as_kubernetes(kind: str) -> dict[str, Any]:
        kept = "io.kubernetes.cri"
        annotations = {f"{kept}.container-type": kind, f"{kept}.sandbox-id": "the-pod"}
        return {"annotations": annotations, "parent": pod, "memory": None}

    async with (
        watching() as told,
        Worker(told, hand_host, "runsc", tmp_path) as worker,
    ):
        pause = await worker.start(
            "READY; exec sleep 1000", name="the-pod", **as_kubernetes("sandbox")
        )
        await pause.ready()
        job = await worker.start("exec HOG", **as_kubernetes("container"))
        for one, what in ((job, "a pod's container"), (pause, "the sandbox that it was in")):
            exit_, outcome = await one.judged(what, Truth.OOM)
            assert outcome.right, exit_
            assert exit_.oom_kills == 1
