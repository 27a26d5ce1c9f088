"""grpc.health.v1: SERVING while the daemon keeps its promises (health-checking protocol of gRPC).

The package's own servicer is asynchronous to set, and holds a lock while it writes to a watcher;
this one is set at once, from anywhere on the loop, and no watcher can hold up another.
"""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]

SERVICE = "grpc.health.v1.Health"

_SERVING: int = pb.HealthCheckResponse.SERVING
_NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The health of services by name; "" is the daemon's own."""

    def __init__(self, names: tuple[str, ...]) -> None:
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
        if service not in self._names:
            return _UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING

    async def check(self, request: bytes) -> bytes | None:
        """Answer Check; None where the service is not known."""
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
            await changed.wait()


def _response(status: int) -> bytes:
    answer: bytes = pb.HealthCheckResponse(status=status).SerializeToString()
    return answer
