"""grpc.health.v1: SERVING while the daemon keeps its promises (health-checking protocol of gRPC).

The package's own servicer is asynchronous to set, and holds a lock while it writes to a watcher;
this one is set at once, from anywhere on the loop, and no watcher can hold up another.

A status is one bit, and a probe that sees NOT_SERVING restarts what it probes. So the daemon's own
name says whether its promises are kept, and names beside it whether its sources are as they could
be: kills are told all the same where one is degraded, and no restart would mend it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]

SERVICE = "grpc.health.v1.Health"

SOURCES = "oomwatch.v1.Sources"
"""NOT_SERVING while any source is degraded; a source's own name may follow, after a slash."""

_SERVING: int = pb.HealthCheckResponse.SERVING
_NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN


_LOOK_SECONDS = 1.0
"""How often a watcher of sources is looked for: they do not say when they change."""


class HealthBackend(Protocol):
    """Whose health it is; `oomwatch.daemon.Watcher` is one."""

    def problems(self) -> tuple[str, ...]:
        """What was promised and is not kept now."""

    def degraded(self) -> Mapping[str, bool]:
        """Whether each source is degraded, by name."""


class Health:
    """The health of services by name; "" is the daemon's own."""

    def __init__(self, backend: HealthBackend, names: tuple[str, ...]) -> None:
        self._backend = backend
        self._names = frozenset(names)
        self._serving = True
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Say whether the daemon keeps its promises; watchers are told at once."""
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    def status(self, service: str) -> int:
        """The status of one service, SERVICE_UNKNOWN for one that is not ours."""
        if service.startswith(SOURCES):
            return self._of_sources(service.removeprefix(SOURCES))
        if service not in self._names:
            return _UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING

    def _of_sources(self, which: str) -> int:
        degraded = {"": False, **{f"/{k}": v for k, v in self._backend.degraded().items()}}
        degraded[""] = any(degraded.values())
        if which not in degraded:
            return _UNKNOWN
        return _NOT_SERVING if degraded[which] else _SERVING

    async def check(self, request: bytes) -> bytes | None:
        """Answer Check; None where the service is not known."""
        self.set_serving(not self._backend.problems())
        status = self.status(pb.HealthCheckRequest.FromString(request).service)
        if status == _UNKNOWN:
            return None
        return _response(status)

    async def watch(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Answer Watch: the status now, and each time that it changes."""
        service = pb.HealthCheckRequest.FromString(request).service
        told: int | None = None
        while True:
            changed = self._changed
            status = self.status(service)
            if status != told:
                await context.write(_response(status))
                told = status
                continue  # it may have changed while that was written
            seconds = _LOOK_SECONDS if service.startswith(SOURCES) else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), seconds)


def _response(status: int) -> bytes:
    answer: bytes = pb.HealthCheckResponse(status=status).SerializeToString()
    return answer
