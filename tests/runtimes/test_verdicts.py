"""Ends of every kind through real runtimes: what happened, and what each rule makes of it.

Prints a confusion table: the verdict beside Docker's OOMKilled and the plain rule that 137 is
OOM. No `oom` where there was none, no `not_oom` where there was one, and `unknown` only in the rows
where docs/semantics.md says so.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from oomwatch.events import Container, ContainerExit
from tests.kernel.watching import watching
from tests.runtimes.containers import Host, Running, Spec
from tests.runtimes.workloads import script

WAIT = 15.0
"""Longer than any witness needs under emulation; the answer does not wait for it."""


@dataclass(frozen=True)
class End:
    """What a container does, what is done to it, and what its verdict may be."""

    what: str
    command: str
    verdicts: frozenset[str]
    act: Callable[[Running], None] = lambda _: None
    said: Mapping[str, object] = field(default_factory=dict)
    init: bool = False
    sandboxed: bool = True


def _kill(container: Running) -> None:
    container.kill("KILL")


def _stop(container: Running) -> None:
    container.stop(2)


OOM, NOT, UNKNOWN = frozenset({"oom"}), frozenset({"not_oom"}), frozenset({"unknown"})
_TERM = {"stop_requested": True, "stop_signal": 15}

ENDS = (
    End("over its limit", "exec HOG", OOM),
    End("a child, then exit 0", "HOG; exit 0", NOT, sandboxed=False),
    End("a child, then exit 1", "HOG; exit 1", UNKNOWN, sandboxed=False),
    End("a child, passed on", "HOG; exit $?", OOM, sandboxed=False),
    End("a child under --init", "HOG; exit $?", OOM, init=True, sandboxed=False),
    End("a build tool's 2", "HOG || exit 2", UNKNOWN, sandboxed=False),
    End("a child, much later 0", "HOG; sleep 8; exit 0", NOT, sandboxed=False),
    End("killed by hand", "exec sleep 1000", NOT, act=_kill),
    End("a stop, obeyed", "trap 'exit 143' TERM; sleep 1000 & wait", NOT, act=_stop, said=_TERM),
    End(
        "a stop, not obeyed",
        "trap '' TERM; while :; do sleep 1; done",
        NOT,
        act=_stop,
        said=_TERM,
    ),
    End("exit 137 by itself", "exit 137", NOT),
    End("exit 143 by itself", "exit 143", NOT),
    End("exit 0", "exit 0", NOT),
    End("SIGSEGV", "kill -SEGV $$", NOT),
)


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> tuple[Host, str]:
    """A runtime that runs, and the OCI runtime to use with it."""
    name, _, handler = str(request.param).partition("-")
    return request.getfixturevalue(f"{name}_host"), handler


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "runtime", ["hand-runc", "docker-runc", "docker-runsc", "hand-runsc"], indirect=True
)
async def test_every_end_is_told_for_what_it_was(runtime: tuple[Host, str]) -> None:
    host, handler = runtime
    rows, wrong = [], []
    async with watching() as told:
        for end in ENDS:
            if (handler == "runsc" and not end.sandboxed) or (
                end.init and host.runtime != "docker"
            ):
                continue
            spec = Spec(command=script(f"sleep 4; {end.command}"), handler=handler, init=end.init)
            container = await asyncio.to_thread(host.run, spec)
            try:
                pid = await asyncio.to_thread(container.pid)
                await told.watcher.watch_container(
                    Container(id=container.id, runtime=host.runtime, handler=handler), pid=pid
                )
                await asyncio.sleep(5 if end.act is not End.act else 0)
                await asyncio.to_thread(end.act, container)
                ended = await asyncio.to_thread(container.wait)
                entry = await told.watcher.finalize_container(
                    container.id,
                    exit_code=ended.exit_code,
                    runtime_oom_killed=ended.oom_killed,
                    maximum_wait=WAIT,
                    **end.said,
                )
            finally:
                await asyncio.to_thread(container.remove)
            exit_ = entry.event
            assert isinstance(exit_, ContainerExit)
            rows.append(
                f"{end.what:24} {ended.exit_code:4} {exit_.verdict:8} {exit_.confidence:10} "
                f"{ended.oom_killed!s:9} {'oom' if ended.exit_code == 137 else 'not_oom'}"
            )
            if exit_.verdict.value not in end.verdicts:
                wrong.append((end.what, exit_))
    head = f"{handler:24} exit {'verdict':8} {'confidence':10} {'OOMKilled':9} 137 rule"
    sys.stderr.write("\n".join(["", head, *rows, ""]))
    assert not wrong
