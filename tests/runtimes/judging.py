"""A worker as the daemon wants it: it registers what it starts, and asks about what has ended.

It waits as a worker does by default. What it is answered then, and what has come of that once no
witness is due any more, are both judged.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from oomwatch.correlator.correlator import STRAY_SECONDS
from oomwatch.events import Container, ContainerExit, Entry
from oomwatch.rpc.container_calls import DEFAULT_WAIT_SECONDS
from oomwatch.verdict import ROWS
from oomwatch.verdict.words import STILL_DUE
from tests.kernel.watching import Told
from tests.runtimes.confusion import Outcome, Truth, Word
from tests.runtimes.containers import Ended, Host, Running, Spec
from tests.runtimes.processes import wait_for
from tests.runtimes.workloads import script

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
        self,
        what: str,
        truth: Truth,
        ended: Ended | None = None,
        *,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
        **said: Any,
    ) -> tuple[ContainerExit, Outcome]:
        """Ask for the verdict on its end, and write it into the table; returns what it settled to.

        Asked again when nothing is due any more, the answer is what the exit was amended to last.
        `meanwhile` is done as soon as the first answer is here.
        """
        ended = ended or await self.ended()
        told = self._worker.told

        async def ask() -> tuple[Entry, ContainerExit]:
            entry = await told.watcher.finalize_container(
                self.container.id,
                exit_code=ended.exit_code,
                runtime_oom_killed=ended.oom_killed,
                maximum_wait=DEFAULT_WAIT_SECONDS,
                **said,
            )
            assert isinstance(entry.event, ContainerExit)
            return entry, entry.event

        _, first = await ask()
        if meanwhile is not None:
            await meanwhile()
        await told.quiet(seconds=2 * STRAY_SECONDS)
        entry, settled = await ask()
        await told.until(lambda: entry.revision in {one.revision for one in told.entries})
        _assert_one_exit(told, entry)
        return settled, self._worker.wrote(what, truth, settled, ended.oom_killed, first=first)


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
        self,
        what: str,
        truth: Truth,
        exit_: ContainerExit,
        oom_killed: bool | None = None,
        *,
        first: ContainerExit,
    ) -> Outcome:
        """Write an exit into the table: what it settled to, and what was told of it `first`."""
        outcome = Outcome(
            what,
            f"{self.host.runtime}-{self.handler}",
            truth,
            exit_.exit_code,
            _word(exit_),
            _word(first),
            oom_killed,
        )
        OUTCOMES.append(outcome)
        return outcome

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            await asyncio.to_thread(job.container.remove)


def _assert_one_exit(told: Told, entry: Entry) -> None:
    """All that was told of an exit is one exit and what amends it."""
    told_of = [one for one in told.entries if one.event.episode_id == entry.event.episode_id]
    first, *amendments = told_of
    assert [one.event.amends for one in told_of] == [None, *[first.revision] * len(amendments)]
    assert told_of[-1] == entry


def _word(exit_: ContainerExit) -> Word:
    """What was said, with the row of docs/semantics.md that the first reason begins with."""
    row = next(row.name for row in ROWS if exit_.reasons[0].startswith(f"{row.because}; "))
    due = any(reason.startswith(STILL_DUE) for reason in exit_.reasons)
    return Word(exit_.verdict, exit_.confidence, row, due)
