"""A runtime's own events tell an end, and nobody has to ask for the verdict on it."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from oomwatch.events import ContainerExit, Verdict
from tests.runtimes.containers import Host, Spec
from tests.runtimes.telling import LABELS, following, run, watching_with
from tests.runtimes.workloads import HOG, script, tried


@pytest.mark.parametrize(
    "runtime", tried("containerd-runc", "podman-crun", also=["docker-runc"]), indirect=True
)
async def test_an_end_is_told_by_the_runtimes_events_with_no_call(
    runtime: tuple[Host, str],
) -> None:
    host, handler = runtime
    async with watching_with(host) as told:
        await following(told, host)

        def exits(container_id: str) -> list[ContainerExit]:
            events = [entry.event for entry in told.entries]
            return [
                event
                for event in events
                if isinstance(event, ContainerExit)
                and event.container is not None
                and event.container.id == container_id
            ]

        for command, code, verdict in (
            (HOG, 137, Verdict.OOM),
            (script("sleep 1; exit 137"), 137, Verdict.NOT_OOM),
            (script("HOG; exit 0"), 0, Verdict.NOT_OOM),
        ):
            spec = Spec(command=command, handler=handler, labels=LABELS)
            container = await run(host, spec)
            try:
                await told.until(partial(exits, container.id))
                await told.quiet()
                first, *amendments = exits(container.id)
                last = amendments[-1] if amendments else first
                assert (last.verdict, last.exit_code) == (verdict, code), last
                assert last.oom_kills == (1 if "/bin/dd" in " ".join(command) else 0)
                assert all(exit_.amends is not None for exit_ in amendments)
                assert first.verdict in (verdict, Verdict.UNKNOWN), first
            finally:
                await asyncio.to_thread(container.remove)
