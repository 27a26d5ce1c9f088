"""What the tests ask of a container, whichever runtime made it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.runtimes.workloads import LIMIT


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended, by its runtime's word.

    `oom_killed` is the runtime's own flag, absent where it has none or the container is gone.
    The times are of CLOCK_MONOTONIC: when it was told to start, when the start returned, and
    when its end was known here.
    """

    exit_code: int
    oom_killed: bool | None
    asked: float
    started: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run. `handler` is the OCI runtime: runc, crun or runsc."""

    command: Sequence[str]
    name: str | None = None
    handler: str = "runc"
    memory: int | None = LIMIT
    #: Reap and pass signals on with an init of the runtime's own (`docker run --init`).
    init: bool = False
    #: Start it again so many times when it fails (`--restart=on-failure:N`).
    restarts: int = 0
    #: Let the runtime remove it as soon as it ends (`--rm`).
    remove: bool = False
    labels: Mapping[str, str] | None = None
    #: The cgroup to make its cgroup in; the runtime's own choice where absent.
    parent: str | None = None
    #: A folder of the host's that it sees as /gate, and may write to.
    gate: Path | None = None
    #: What the runtime is told beside its state, as Kubernetes' shims tell it.
    annotations: Mapping[str, str] | None = None
    #: What goes before the runtime's verb, by hand (`--ignore-cgroups`).
    options: Sequence[str] = ()
    #: The cgroup that the runtime's own command is started in, by hand.
    within: str | None = None


class Running(Protocol):
    """A container that was started."""

    @property
    def id(self) -> str:
        """The runtime's id of it."""

    @property
    def cgroup(self) -> str:
        """Its cgroup's path, as the kernel writes it."""

    def pid(self) -> int:
        """The pid that the runtime reports for it; 0 when it does not run."""

    def kill(self, signal: str = "KILL") -> None:
        """Send its main process a signal, through the runtime."""

    def stop(self, seconds: int = 10) -> None:
        """Ask it to end, and kill it when it has not within the time."""

    def wait(self) -> Ended:
        """Return once it has ended."""

    def remove(self) -> None:
        """Remove it, running or not; nothing happens when it is gone already."""


class Host(Protocol):
    """A runtime that containers can be started with. Its calls block."""

    @property
    def runtime(self) -> str:
        """Its name: docker, podman, containerd; or the OCI runtime's, by hand."""

    def run(self, spec: Spec) -> Running:
        """Start a container; returns once the runtime says that it was started."""


def now() -> float:
    """CLOCK_MONOTONIC, in seconds."""
    return time.monotonic()
