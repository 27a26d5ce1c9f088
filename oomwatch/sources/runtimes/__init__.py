"""Container runtimes as witnesses: who a cgroup is, who was OOM-killed there, and how it ended.

Each is optional. One that is not there, restarts, hangs or lies costs nothing but names; its client
library is imported once its socket is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oomwatch.containers.places import Places
from oomwatch.errors import AddressError
from oomwatch.sources.runtimes.docker import Docker
from oomwatch.sources.runtimes.grpc_runtimes import Containerd, Cri
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.source import RuntimeSource


@dataclass(frozen=True, slots=True)
class RuntimeSocket:
    """Where a runtime is to be asked: its kind and its Unix socket."""

    kind: str
    socket: Path

    @classmethod
    def parse(cls, text: str) -> RuntimeSocket:
        """Read KIND=PATH; `AddressError` says what is wrong with it."""
        kind, _, path = text.partition("=")
        if kind not in _KINDS:
            raise AddressError(f"runtime {text!r}: the kinds are {', '.join(_KINDS)}, as KIND=PATH")
        if not path.startswith("/"):
            raise AddressError(f"runtime {text!r} has no absolute path to a socket: {kind}=/PATH")
        return cls(kind, Path(path))


_KINDS: dict[str, Callable[[str, Path, SocketDirectories, Places], RuntimeSource]] = {
    "docker": Docker,
    "podman": Docker,
    "containerd": Containerd,
    "cri": Cri,
}

USUAL_SOCKETS = (
    RuntimeSocket("docker", Path("/run/docker.sock")),
    RuntimeSocket("podman", Path("/run/podman/podman.sock")),
    RuntimeSocket("containerd", Path("/run/containerd/containerd.sock")),
    RuntimeSocket("cri", Path("/run/crio/crio.sock")),
    RuntimeSocket("containerd", Path("/run/k3s/containerd/containerd.sock")),
)
"""Where packages put the sockets; the last is k3s's own containerd's."""


def runtime_sources(sockets: Sequence[RuntimeSocket], places: Places) -> tuple[RuntimeSource, ...]:
    """Make a witness for each runtime; nothing is looked for before they are started."""
    directories = SocketDirectories()
    return tuple(_KINDS[one.kind](one.kind, one.socket, directories, places) for one in sockets)
