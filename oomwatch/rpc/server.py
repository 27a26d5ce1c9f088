"""The gRPC server: one service, its health and its reflection, on a Unix socket and perhaps TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from oomwatch.address import DEFAULT_SOCKET, TcpAddress, UnixAddress, parse_address
from oomwatch.errors import AddressError, CursorError
from oomwatch.rpc import health
from oomwatch.rpc.listening import TlsFiles, UnixListener, bind_tcp
from oomwatch.rpc.refusals import (
    GOING_AWAY,
    Context,
    RefusalError,
    abort_cursor,
    invalid,
)
from oomwatch.rpc.service import SERVICE, Backend, Service
from oomwatch.rpc.streams import BOOKMARK_SECONDS, Limits, Streams
from oomwatch.subscriptions import SubscriptionClosed

__all__ = ["Backend", "Limits", "RpcServer", "TlsFiles"]

Unary = Callable[[bytes], Awaitable[bytes]]
Streaming = Callable[[bytes, Context], Awaitable[None]]

_log = logging.getLogger(__name__)

STOP_SECONDS = 0.25
"""How long calls that are under way may take to end once the server stops."""

_KEEPALIVE_MILLISECONDS = 60_000


class RpcServer:
    """Serves a backend over gRPC, from `start` to `stop`, on the running loop.

    `socket` is the Unix socket's path, `None` for none; `listen` is HOST:PORT for TCP as well (port
    0 takes a free one, see `port`), and then needs `tls`, or `insecure` to do without. Every
    `bookmark_seconds` each stream is sent its bookmark.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        socket: str | os.PathLike[str] | None = DEFAULT_SOCKET,
        listen: str | None = None,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        limits: Limits | None = None,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        limits = limits or Limits()
        self.port: int | None = None
        self._limits = limits
        self._tls, self._insecure = tls, insecure
        self._unix = None if socket is None else UnixListener(_socket_address(socket))
        self._tcp = None if listen is None else _tcp_address(listen)
        if self._unix is None and self._tcp is None:
            raise AddressError("nowhere to listen: give a Unix socket's path, or HOST:PORT")
        self._streams = Streams(lambda: backend.journal.id, limits, bookmark_seconds)
        self._service = Service(backend, self._streams)
        backend.subscriptions.prepare = self._streams.prepare
        self._health = health.Health(("", SERVICE))
        self._server: grpc.aio.Server | None = None

    def set_serving(self, serving: bool) -> None:
        """Say whether the daemon keeps its promises; grpc.health.v1 answers so from now on."""
        self._health.set_serving(serving)

    @property
    def streams(self) -> int:
        """How many streams are open, those that watch the health included."""
        return self._streams.count

    async def start(self) -> None:
        """Listen; once this returns, calls are answered.

        Raises AddressError, which names the address and says what to do, and then leaves nothing
        behind.
        """
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers(self._handlers())
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE, reflection.SERVICE_NAME), server
        )
        self._server = server
        try:
            if self._unix is not None:
                self._unix.bind(server)
            if self._tcp is not None:
                self.port = bind_tcp(server, self._tcp, self._tls, self._insecure)
            await server.start()
            if self._unix is not None:
                await self._unix.publish()
        except BaseException:
            await self.stop()
            raise
        for address in (self._unix and self._unix.path, self._tcp):
            if address is not None:
                _log.info("listening on %s", address)

    async def stop(self) -> None:
        """End every stream with UNAVAILABLE, remove the socket and stop; all within a second."""
        server, self._server = self._server, None
        if self._unix is not None:
            self._unix.remove()
        self._health.set_serving(False)
        self._streams.end()
        if server is not None:
            await server.stop(STOP_SECONDS)

    async def __aenter__(self) -> RpcServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _options(self) -> list[tuple[str, int]]:
        options = [
            ("grpc.max_receive_message_length", self._limits.request_bytes),
            ("grpc.max_concurrent_streams", self._limits.concurrent_calls),
            # Else a second daemon could bind the same TCP port, and share out the clients.
            ("grpc.so_reuseport", 0),
        ]
        if self._tcp is not None:
            # Over TCP, unlike a Unix socket, a machine that vanished says no goodbye.
            options.append(("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS))
        return options

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        service = self._service
        ours = {
            "Subscribe": self._streaming("Subscribe", service.subscribe),
            "ListEvents": self._unary("ListEvents", service.list_events),
            "GetEvent": self._unary("GetEvent", service.get_event),
            "WatchContainer": self._unary("WatchContainer", service.watch_container),
            "FinalizeContainer": self._unary("FinalizeContainer", service.finalize_container),
            "UnwatchContainer": self._unary("UnwatchContainer", service.unwatch_container),
            "ListContainers": self._unary("ListContainers", service.list_containers),
            "GetContainer": self._unary("GetContainer", service.get_container),
            "GetStatus": self._unary("GetStatus", service.get_status),
        }
        checks = {
            "Check": self._unary("Check", self._check),
            "Watch": self._streaming("Watch", self._watch),
        }
        return (
            grpc.method_handlers_generic_handler(SERVICE, ours),
            grpc.method_handlers_generic_handler(health.SERVICE, checks),
        )

    async def _check(self, request: bytes) -> bytes:
        answer = await self._health.check(request)
        if answer is None:
            raise RefusalError(
                grpc.StatusCode.NOT_FOUND, f"services here are {SERVICE} and the empty name"
            )
        return answer

    async def _watch(self, request: bytes, context: Context) -> None:
        with self._streams.admitted(context):
            await self._health.watch(request, context)

    def _unary(self, name: str, call: Unary) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(request: bytes, context: Context) -> bytes:
            async with self._guarded(name, context):
                return await call(request)
            raise AssertionError("unreachable")

        return grpc.unary_unary_rpc_method_handler(cast(Callable[..., bytes], handle))

    def _streaming(self, name: str, call: Streaming) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(request: bytes, context: Context) -> None:
            async with self._guarded(name, context):
                await call(request, context)

        return grpc.unary_stream_rpc_method_handler(cast(Callable[..., bytes], handle))

    @contextlib.asynccontextmanager
    async def _guarded(self, name: str, context: Context) -> AsyncIterator[None]:
        """Turn what a call raises into its status; nothing that one call does ends the server."""
        unavailable = grpc.StatusCode.UNAVAILABLE
        try:
            if self._streams.closing:
                raise RefusalError(unavailable, GOING_AWAY)
            yield
        except RefusalError as refusal:
            await context.abort(refusal.code, refusal.sentence)
        except CursorError as error:
            await abort_cursor(context, error)
        except DecodeError:
            malformed = invalid(f"the request is no {name}Request that can be read")
            await context.abort(malformed.code, malformed.sentence)
        except SubscriptionClosed:
            await context.abort(unavailable, GOING_AWAY)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._streams.closing or task is None:
                raise  # the client has had enough
            task.uncancel()
            await context.abort(unavailable, GOING_AWAY)
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - it is logged, and told to the client
            _log.exception("%s failed", name)
            await context.abort(
                grpc.StatusCode.INTERNAL, f"{name} failed in the daemon: see its log"
            )


def _socket_address(path: str | os.PathLike[str]) -> UnixAddress:
    text = os.fspath(path)
    address = parse_address(text if text.startswith("unix:") else str(Path(text).absolute()))
    assert isinstance(address, UnixAddress)
    return address


def _tcp_address(text: str) -> TcpAddress:
    address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise AddressError(f"{text!r} is no HOST:PORT to listen on")
    return address
