"""Ends of one container, of every kind; those of several are tests of their own beside.

Each says what really happened, and in which row of docs/semantics.md its verdict is to be found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oomwatch.containers import gvisor
from tests.runtimes.confusion import Truth
from tests.runtimes.containers import Running
from tests.runtimes.processes import wait_for
from tests.runtimes.workloads import LIMIT, tried_as

RUNC, CRUN, RUNSC = ("runc",), ("runc", "crun"), ("runc", "crun", "runsc")


@dataclass(frozen=True)
class Scenario:
    """What a container does, what is done to it, and what must be said of it.

    `once` is where it is tried when each scenario is tried once. `act` is done when the container
    has come to READY. `says` is in one of the reasons. `hosts` can do it at all, with `handlers`.
    """

    what: str
    text: str
    truth: Truth
    rows: frozenset[str]
    once: tuple[str, ...]
    handlers: tuple[str, ...] = RUNSC
    hosts: tuple[str, ...] = ("docker", "hand")
    act: Callable[[Running], object] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    init: bool = False
    cgroup_gone: bool = False
    says: str = ""
    memory: int | None = LIMIT

    @property
    def runtimes(self) -> list[str]:
        """The runtimes that it is tried in, as `host-handler`."""
        return tried_as(*self.once, hosts=self.hosts, handlers=self.handlers)


def kill(container: Running) -> None:
    """Send its main process SIGKILL, through its runtime."""
    container.kill("KILL")


def _stop(container: Running) -> None:
    container.stop(2)


def _kill_sentry(container: Running) -> None:
    os.kill(_sandbox(container).sentry, 9)


def _kill_stubs(container: Running) -> None:
    # All: which of them runs the application's code cannot be seen from outside.
    for pid in _sandbox(container).stubs:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


def _sandbox(container: Running) -> gvisor.SandboxProcesses:
    found = gvisor.find(gvisor.running(), container.id, container.pid())
    assert found is not None
    return found


def wait_until_gone(cgroup: str) -> None:
    """Wait until a cgroup was removed."""
    path = Path(f"/sys/fs/cgroup{cgroup}")
    wait_for(lambda: not path.exists(), f"{path} is still there")


_MAIN = frozenset({"main_process_killed"})
_SANDBOX = frozenset({"main_process_killed", "sandbox_killed", "sandbox_killed_unnamed"})
_SIGKILL = frozenset({"someone_elses_sigkill"})
_NOTHING = frozenset({"nothing_killed"})
_STOPPED = frozenset({"stopped"})
_TERM = {"stop_requested": True, "stop_signal": 15}

SCENARIOS = (
    Scenario(
        "over its limit",
        "exec HOG",
        Truth.OOM,
        _MAIN,
        once=("docker-runc", "hand-crun"),
        handlers=CRUN,
    ),
    Scenario(
        "a sandbox over its limit",
        "exec HOG",
        Truth.OOM,
        _SANDBOX,
        once=("docker-runsc",),
        handlers=("runsc",),
    ),
    Scenario(
        "a child in a sandbox over its limit",
        "HOG; exit 0",
        Truth.OOM,
        _SANDBOX,
        once=("hand-runsc",),
        handlers=("runsc",),
    ),
    Scenario(
        "a child, then exit 0",
        "HOG; exit 0",
        Truth.NOT,
        frozenset({"child_killed_ended_well"}),
        once=("hand-runc",),
        handlers=CRUN,
    ),
    Scenario(
        "a child, then exit 1",
        "HOG; exit 1",
        Truth.EITHER,
        frozenset({"child_killed_ended_badly"}),
        once=("hand-crun",),
        handlers=CRUN,
    ),
    Scenario(
        "a child, passed on by the shell",
        "HOG; exit $?",
        Truth.OOM,
        frozenset({"passed_on"}),
        once=("hand-crun",),
        handlers=CRUN,
    ),
    Scenario(
        "a child, passed on by --init",
        "exec HOG",
        Truth.OOM,
        frozenset({"passed_on"}),
        once=("docker-runc",),
        handlers=CRUN,
        hosts=("docker",),
        init=True,
    ),
    Scenario(
        "a build tool's exit 2",
        "HOG || exit 2",
        Truth.EITHER,
        frozenset({"child_killed_ended_badly"}),
        once=("hand-runc",),
        handlers=CRUN,
    ),
    Scenario(
        "a child, and much later exit 0",
        "HOG; sleep 5; exit 0",
        Truth.NOT,
        frozenset({"killed_earlier_ended_well"}),
        once=("hand-crun",),
        handlers=CRUN,
    ),
    Scenario(
        "a child, and much later a stop",
        "trap 'exit 143' TERM; HOG; sleep 5; READY; sleep 1000 & wait",
        Truth.NOT,
        frozenset({"killed_earlier_ended_well"}),
        once=("docker-runc",),
        handlers=CRUN,
        act=_stop,
        said=_TERM,
    ),
    Scenario(
        "killed through the runtime",
        "READY; exec sleep 1000",
        Truth.NOT,
        # Docker's own word is that somebody asked for it.
        _SIGKILL | _STOPPED,
        once=("docker-runc", "docker-runsc"),
        act=kill,
    ),
    Scenario(
        "a stop, obeyed",
        "trap 'exit 143' TERM; READY; sleep 1000 & wait",
        Truth.NOT,
        _NOTHING,
        once=("docker-runc",),
        act=_stop,
        said=_TERM,
    ),
    Scenario(
        "a stop, not obeyed",
        "trap '' TERM; READY; while :; do sleep 1; done",
        Truth.NOT,
        _STOPPED,
        once=("docker-crun",),
        act=_stop,
        said=_TERM,
    ),
    Scenario("exit 137 by itself", "exit 137", Truth.NOT, _SIGKILL, once=("hand-runc",)),
    Scenario("exit 143 by itself", "exit 143", Truth.NOT, _NOTHING, once=("hand-crun",)),
    Scenario("exit 0", "exit 0", Truth.NOT, _NOTHING, once=("hand-runsc",)),
    Scenario("SIGSEGV", "sh -c 'kill -SEGV $$'; exit $?", Truth.NOT, _NOTHING, once=("hand-runc",)),
    Scenario(
        "over its limit, its cgroup gone",
        "exec HOG",
        Truth.OOM,
        _MAIN,
        once=("docker-runc",),
        handlers=CRUN,
        cgroup_gone=True,
    ),
    Scenario(
        "a sandbox over its limit, its cgroup gone",
        "exec HOG",
        Truth.OOM,
        _SANDBOX,
        once=("docker-runsc",),
        handlers=("runsc",),
        cgroup_gone=True,
    ),
    Scenario(
        "exit 137, its cgroup gone",
        "exit 137",
        Truth.NOT,
        _SIGKILL,
        once=("docker-crun",),
        cgroup_gone=True,
    ),
    Scenario(
        "the sentry, killed by hand",
        "READY; exec sleep 1000",
        Truth.NOT,
        _SIGKILL | _NOTHING,
        once=("hand-runsc",),
        handlers=("runsc",),
        act=_kill_sentry,
    ),
    Scenario(
        "its stubs, killed by hand",
        "READY; while :; do :; done",
        Truth.NOT,
        _SIGKILL | _NOTHING,
        once=("docker-runsc",),
        handlers=("runsc",),
        act=_kill_stubs,
        says="the sandbox's own log says: The ptrace stub process",
    ),
)
