"""A worker as the daemon wants it: it registers what it starts, and asks about what has ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from oomwatch.events import Container, ContainerExit
from oomwatch.verdict import ROWS
from tests.kernel.watching import Told
from tests.runtimes.confusion import Outcome, Truth
from tests.runtimes.containers import Ended, Host, Running, Spec
from tests.runtimes.processes import wait_for
from tests.runtimes.workloads import script

WAIT = 30.0
"""Longer than any witness needs under emulation; the answer does not wait for it."""

OUTCOMES: list[Outcome] = []
"""All that was judged in this run; printed at its end."""

_gates = itertools.count(1)


class Job:
    """One container that a worker runs; it waits at its gate until it is registered."""

    def __init__(self, worker: Worker, container: Running, spec: Spec) -> None:
        assert spec.gate is not None
        self.container, self.spec, self.gate = container, spec, spec.gate
        self._worker = worker

    async def register(self) -> tuple[str, ...]:
        """Tell the daemon of it, and let it begin; returns the daemon's notes."""
        pid = await asyncio.to_thread(self.container.pid)
        host, handler = self._worker.host, self.spec.handler
        report = await self._worker.told.watcher.watch_container(
            Container(id=self.container.id, runtime=host.runtime, handler=handler), pid=pid
        )
        (self.gate / "go").touch()
        return report.notes

    async def make_it_first_to_go(self, oom_score_adj: int) -> None:
        """Have it killed before all others when the node has run out of memory.

        By hand, since runsc does not come up where it is told so from the beginning.
        """
        pid = await asyncio.to_thread(self.container.pid)
        adjusted = Path(f"/proc/{pid}/oom_score_adj")
        await asyncio.to_thread(adjusted.write_text, str(oom_score_adj))

    async def ready(self) -> None:
        """Wait until it has come to READY."""
        ready = self.gate / "ready"
        await asyncio.to_thread(wait_for, ready.exists, "the container did not come so far")

    async def act(self, act: Callable[[Running], object]) -> None:
        """Do something to it."""
        await asyncio.to_thread(act, self.container)

    async def ended(self) -> Ended:
        """Wait for its end."""
        return await asyncio.to_thread(self.container.wait)

    async def judged(
        self, what: str, truth: Truth, ended: Ended | None = None, **said: Any
    ) -> tuple[ContainerExit, Outcome]:
        """Ask for the verdict on its end, and write it into the table."""
        ended = ended or await self.ended()
        entry = await self._worker.told.watcher.finalize_container(
            self.container.id,
            exit_code=ended.exit_code,
            runtime_oom_killed=ended.oom_killed,
            maximum_wait=WAIT,
            **said,
        )
        exit_ = entry.event
        assert isinstance(exit_, ContainerExit)
        return exit_, self._worker.wrote(what, truth, exit_, ended.oom_killed)


class Worker:
    """Starts containers of one runtime, and removes them all at the end."""

    def __init__(self, told: Told, host: Host, handler: str, folder: Path) -> None:
        self.told, self.host, self.handler = told, host, handler
        self._folder = folder
        self._jobs: list[Job] = []

    async def start(self, text: str, **options: Any) -> Job:
        """Start a container that does what a shell is told, and register it."""
        job = await self.run(text, **options)
        await job.register()
        return job

    async def run(self, text: str, **options: Any) -> Job:
        """Start a container; it does nothing until it is registered."""
        gate = self._folder / f"gate-{next(_gates)}"
        gate.mkdir()
        waiting = "until [ -e /gate/go ]; do sleep 0.5; done; "
        command = script(waiting + text.replace("READY", ": > /gate/ready"))
        spec = replace(Spec(command=command, handler=self.handler, gate=gate), **options)
        container = await asyncio.to_thread(self.host.run, spec)
        self._jobs.append(job := Job(self, container, spec))
        return job

    def wrote(
        self, what: str, truth: Truth, exit_: ContainerExit, oom_killed: bool | None = None
    ) -> Outcome:
        """Write an exit into the table."""
        outcome = Outcome(
            what,
            f"{self.host.runtime}-{self.handler}",
            truth,
            exit_.exit_code,
            exit_.verdict,
            exit_.confidence,
            _row(exit_),
            oom_killed,
        )
        OUTCOMES.append(outcome)
        return outcome

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            await asyncio.to_thread(job.container.remove)


def _row(exit_: ContainerExit) -> str:
    """The row of docs/semantics.md, which the first reason begins with."""
    return next(row.name for row in ROWS if exit_.reasons[0].startswith(f"{row.because}; "))
