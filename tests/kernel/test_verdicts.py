"""What really happened, and the verdict on it: a kernel's kills, and ends that only look like one.

The test is the worker: it starts a container's main process in a cgroup of its own, registers it,
reaps it and finalizes it, waiting as workers do by default. `tests/runtimes` does the same through
real runtimes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.correlator.correlator import STRAY_SECONDS
from oomwatch.daemon import Watcher
from oomwatch.events import Container, ContainerExit, Verdict
from oomwatch.rpc.container_calls import DEFAULT_WAIT_SECONDS
from oomwatch.verdict.words import STILL_DUE
from tests.kernel.watching import SECONDS, Told, watching
from tests.kernel.workload import LIMIT, Scratch, remove, wait_for

OOM_CONFIRMED, OOM_HIGH = ("oom", "confirmed"), ("oom", "high")
NOT_CONFIRMED, NOT_HIGH = ("not_oom", "confirmed"), ("not_oom", "high")
UNKNOWN_MEDIUM = ("unknown", "medium")

KILL = "busybox tail /dev/zero"


@pytest.fixture
def scratch(request: pytest.FixtureRequest) -> Iterator[Scratch]:
    with Scratch(f"verdict{abs(hash(request.node.name)) % 10_000}") as made:
        made.hand_down()
        yield made


class Worker:
    """Runs one container after the other, as a runtime's caller would."""

    def __init__(self, told: Told, scratch: Scratch) -> None:
        self.told, self.scratch = told, scratch

    @property
    def watcher(self) -> Watcher:
        return self.told.watcher

    async def start(
        self, name: str, command: str, *, limit: int | None = LIMIT, group: bool = False
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a container that waits until it is registered."""
        cgroup = self.scratch.make(name, limit=limit, group=group)
        gate = Path(f"/tmp/{self.scratch.path.name}-{name}")
        process = self.scratch.start(
            cgroup, f"until [ -e {gate} ]; do busybox sleep 0.05; done; {command}"
        )
        wait_for(lambda: str(process.pid) in (cgroup / "cgroup.procs").read_text().split())
        report = await self.watcher.watch_container(Container(id=name), pid=process.pid)
        assert report.path == f"{self.scratch.cgroup}/{name}"
        gate.touch()
        return process, cgroup

    async def finish(
        self, name: str, process: subprocess.Popen[bytes], **said: object
    ) -> ContainerExit:
        """Reap a container, and ask what became of it."""
        code = await asyncio.to_thread(process.wait, SECONDS)
        said.setdefault("exit_code", code if code >= 0 else 128 - code)
        ended = time.time_ns() // 1000
        return await self.ask(name, exit_time=ended, **said)

    async def ask(self, name: str, **said: object) -> ContainerExit:
        """Return what the verdict settles to; the first answer must not deny that."""
        first = await self.ask_once(name, **said)
        await self.told.quiet(seconds=2 * STRAY_SECONDS)
        settled = await self.ask_once(name, **said)
        assert first.episode_id == settled.episode_id
        assert first.verdict is settled.verdict or says_what_is_due(first), (first, settled)
        return settled

    async def ask_once(self, name: str, **said: object) -> ContainerExit:
        entry = await self.watcher.finalize_container(
            name, maximum_wait=DEFAULT_WAIT_SECONDS, **said
        )
        assert isinstance(entry.event, ContainerExit)
        return entry.event


def says_what_is_due(exit_: ContainerExit) -> bool:
    """Is it not known yet, and said which witness will tell?"""
    due = any(reason.startswith(STILL_DUE) for reason in exit_.reasons)
    return due and exit_.verdict is Verdict.UNKNOWN


def ruled(exit_: ContainerExit) -> tuple[str, str]:
    return exit_.verdict.value, exit_.confidence.value


ENDS = {
    "over its limit": (f"exec {KILL}", None, {}, OOM_CONFIRMED),
    "a child, then exit 0": (f"{KILL}; exit 0", None, {}, NOT_HIGH),
    "a child, then exit 1": (f"{KILL}; exit 1", None, {}, UNKNOWN_MEDIUM),
    "a child, passed on": (f"{KILL}; exit $?", None, {}, OOM_HIGH),
    "a build tool's exit 2": (f"{KILL} || exit 2", None, {}, UNKNOWN_MEDIUM),
    "a child, and much later exit 0": (
        f"{KILL}; busybox sleep 6; exit 0",
        None,
        {},
        NOT_HIGH,
    ),
    "SIGKILL by hand": ("exec busybox sleep 1000", signal.SIGKILL, {}, NOT_CONFIRMED),
    "a stop that is obeyed": (
        "exec busybox sleep 1000",
        signal.SIGTERM,
        {"stop_requested": True, "stop_signal": 15},
        NOT_CONFIRMED,
    ),
    "a stop that is not obeyed": (
        "trap '' TERM; while :; do busybox sleep 0.1; done",
        signal.SIGKILL,
        {"stop_requested": True, "stop_signal": 15},
        NOT_CONFIRMED,
    ),
    "exit 137 by itself": ("exit 137", None, {}, NOT_CONFIRMED),
    "exit 143 by itself": ("exit 143", None, {}, NOT_CONFIRMED),
    "exit 0": ("exit 0", None, {}, NOT_CONFIRMED),
    "SIGSEGV": ("kill -SEGV $$", None, {}, NOT_CONFIRMED),
}


@pytest.mark.parametrize("what", ENDS)
async def test_an_end_is_told_for_what_it_was(what: str, scratch: Scratch) -> None:
    command, sent, said, expected = ENDS[what]
    async with watching() as told:
        worker = Worker(told, scratch)
        process, _ = await worker.start("c", command)
        if sent is not None:
            await asyncio.sleep(0.5)
            process.send_signal(sent)
        exit_ = await worker.finish("c", process, **said)
        assert ruled(exit_) == expected, exit_
        kills = [entry.revision for entry in told.entries if entry.event in told.kills]
        assert set(exit_.kills) <= set(kills)
        assert (exit_.oom_kills or 0) == told.count(f"{scratch.cgroup}/c")


async def test_three_lives_of_one_container_and_only_one_was_out_of_memory(
    scratch: Scratch,
) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        exits = []
        for command in ("exit 1", f"exec {KILL}", "exit 1"):
            process, cgroup = await worker.start("c", command)
            exits.append(await worker.finish("c", process))
            remove(cgroup)
            Path(f"/tmp/{scratch.path.name}-c").unlink()
        assert [ruled(e) for e in exits] == [NOT_CONFIRMED, OOM_CONFIRMED, NOT_CONFIRMED]
        assert len({e.cgroup_id for e in exits}) == 3


async def test_the_parents_limit_and_a_sibling_that_is_not_to_blame(scratch: Scratch) -> None:
    scratch.limit(LIMIT)
    async with watching() as told:
        worker = Worker(told, scratch)
        sibling, _ = await worker.start("b", "exec busybox sleep 1000", limit=None)
        process, _ = await worker.start("a", f"exec {KILL}", limit=None)
        first = await worker.finish("a", process)
        sibling.kill()
        second = await worker.finish("b", sibling)
        assert ruled(first) == OOM_CONFIRMED, first
        assert any(f"at the limit of {scratch.cgroup}" in reason for reason in first.reasons)
        assert ruled(second) == NOT_CONFIRMED, second


async def test_a_group_that_is_killed_as_one(scratch: Scratch) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        process, _ = await worker.start("c", f"{KILL}; exit 0", group=True)
        assert ruled(await worker.finish("c", process)) == OOM_CONFIRMED


async def test_a_node_out_of_memory(scratch: Scratch) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        command = f"echo 1000 > /proc/self/oom_score_adj; exec {KILL}"
        process, _ = await worker.start("c", command, limit=None)
        exit_ = await worker.finish("c", process)
        assert ruled(exit_) == OOM_CONFIRMED, exit_
        assert any("as the node ran out of memory" in reason for reason in exit_.reasons)


@pytest.mark.parametrize("killed", [True, False])
async def test_a_cgroup_removed_before_the_verdict_is_asked_for(
    scratch: Scratch, killed: bool
) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        process, cgroup = await worker.start("c", f"exec {KILL}" if killed else "exit 137")
        await asyncio.to_thread(process.wait, SECONDS)
        remove(cgroup)
        exit_ = await worker.ask("c", exit_code=137)
        if killed:
            assert exit_.verdict.value == "oom", exit_
        else:
            assert ruled(exit_) == NOT_CONFIRMED, exit_


async def test_of_many_ends_at_once_none_is_told_wrongly_though_each_cgroup_is_gone(
    scratch: Scratch,
) -> None:
    """Every other one is killed for want of memory, the rest by themselves."""
    gate = Path(f"/tmp/{scratch.path.name}-all")
    async with watching() as told:
        worker = Worker(told, scratch)
        ways = {f"c{number}": (f"exec {KILL}", "kill -9 $$")[number % 2] for number in range(24)}
        started = {}
        for name, way in ways.items():
            waiting = f"until [ -e {gate} ]; do busybox sleep 0.2; done; {way}"
            started[name] = await worker.start(name, waiting)

        async def end(name: str) -> tuple[ContainerExit, ContainerExit]:
            process, cgroup = started[name]
            await asyncio.to_thread(process.wait, SECONDS)
            await asyncio.to_thread(remove, cgroup)
            first = await worker.ask_once(name, exit_code=137)
            await told.quiet(seconds=2 * STRAY_SECONDS)
            return first, await worker.ask_once(name, exit_code=137)

        gate.touch()
        ends = await asyncio.gather(*map(end, ways))
        for way, (first, settled) in zip(ways.values(), ends, strict=True):
            truth = Verdict.OOM if KILL in way else Verdict.NOT_OOM
            assert settled.verdict is truth, settled
            assert first.verdict is truth or says_what_is_due(first), (first, settled)


async def test_a_userspace_killers_mark_is_named(scratch: Scratch) -> None:
    async with watching() as told:
        worker = Worker(told, scratch)
        process, cgroup = await worker.start("c", "exec busybox sleep 1000")
        os.setxattr(cgroup, "user.oomd_kill", b"1")
        process.kill()
        exit_ = await worker.finish("c", process)
        assert ruled(exit_) == NOT_CONFIRMED
        assert any("oomd" in reason for reason in exit_.reasons)
