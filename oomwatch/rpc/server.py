"""The gRPC server: one service, its health and its reflection, at every address that was asked for.

Each address has a gRPC server of its own, for gRPC does not say at which one a call came in, and
what a caller may do hangs on that: only those who use the socket that is for workers, or who show
a certificate over TCP, may say who a container is and how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
    reflection,
    reflection_pb2,
)

from oomwatch.address import DEFAULT_SOCKET, TcpAddress, parse_address
from oomwatch.errors import AddressError, CursorError, JournalError
from oomwatch.rpc import health
from oomwatch.rpc.container_calls import ContainerBackend, ContainerCalls
from oomwatch.rpc.doors import Door
from oomwatch.rpc.limits import Admission, Caller, Limits
from oomwatch.rpc.listening import UnixListener, UnixSocket, refuse_one_for_both
from oomwatch.rpc.refusals import (
    GOING_AWAY,
    Context,
    RefusalError,
    abort,
    abort_cursor,
    invalid,
)
from oomwatch.rpc.restoring import Restoring
from oomwatch.rpc.service import CHANGING, LONG, SERVICE, HistoryBackend, Service
from oomwatch.rpc.streams import BOOKMARK_SECONDS, Streams
from oomwatch.rpc.tcp import Plaintext, TcpListener
from oomwatch.rpc.tls import Certificates, TlsFiles
from oomwatch.subscriptions import SubscriptionClosed


class Backend(HistoryBackend, ContainerBackend, health.HealthBackend, Protocol):
    """What a server tells of; `oomwatch.daemon.Watcher` is one."""


__all__ = ["Backend", "Limits", "Plaintext", "RpcServer", "TlsFiles", "UnixSocket"]

Unary = Callable[[bytes], Awaitable[bytes]]
Asked = Callable[[bytes, Context, Caller], Awaitable[bytes]]
"""A call to which it matters how long its caller waits, or who that is."""

Streaming = Callable[[bytes, Context], Awaitable[None]]

_log = logging.getLogger(__name__)

STOP_SECONDS = 0.25
"""How long calls that are under way may take to end once the server stops."""

_KEEPALIVE_MILLISECONDS = 60_000
_KEEPALIVE_ANSWER_MILLISECONDS = 20_000
_HANDSHAKE_MILLISECONDS = 30_000
_NOT_HERE = (
    "is for the worker that runs the containers: call it at the daemon's own socket (--socket), or "
    "over TCP with a client certificate (--tls-client-ca); here one may read"
)


class RpcServer:
    """Serves a backend over gRPC, from `start` to `stop`, on the running loop.

    `socket` is the Unix socket's path (or a UnixSocket, with its mode and group), `None` for none;
    `read_only_socket` another one, whose users may not register or finalize containers. `listen` is
    HOST:PORT for TCP as well (port 0 takes a free one, see `port`), and then needs `tls`, or
    `insecure` to do without. Every `bookmark_seconds` each stream is sent its bookmark.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        socket: str | os.PathLike[str] | UnixSocket | None = DEFAULT_SOCKET,
        read_only_socket: str | os.PathLike[str] | UnixSocket | None = None,
        listen: str | None = None,
        tls: TlsFiles | None = None,
        insecure: bool | Plaintext = False,
        limits: Limits | None = None,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self._limits = limits or Limits()
        self._certificates: Certificates | None = None
        self._tcp: TcpListener | None = None
        self._doors: list[Door] = []
        listeners: list[UnixListener] = []
        for path, may_change in ((socket, True), (read_only_socket, False)):
            if path is not None:
                wanted = path if isinstance(path, UnixSocket) else UnixSocket(path)
                listeners.append(UnixListener(wanted))
                self._doors.append(Door(listeners[-1], may_change=may_change))
        if len(listeners) == 2:
            refuse_one_for_both(*listeners)
        if listen is not None:
            address = _tcp_address(listen)
            self._certificates = None if tls is None else Certificates(tls)
            self._tcp = TcpListener(address, self._certificates, Plaintext(int(insecure)))
            known = tls is not None and tls.client_ca is not None
            self._doors.append(Door(self._tcp, may_change=known))
        if not self._doors:
            raise AddressError("nowhere to listen: give a Unix socket's path, or HOST:PORT")
        self._restoring: Restoring | None = None
        self.unreachable: Callable[[str, str | None], None] = lambda address, sentence: None
        """Told an address and a sentence where nobody can connect any more, and `None` once they
        can: the socket was removed, say. Who is connected stays so, and it is listened there anew.
        """
        self._admission = Admission(self._limits)
        self._streams = Streams(lambda: backend.journal.id, bookmark_seconds)
        self._service = Service(backend, self._streams, self._admission)
        self._containers = ContainerCalls(backend, self._limits)
        backend.subscriptions.prepare = self._streams.prepare
        self._health = health.Health(backend, ("", SERVICE))
        self._described = reflection.aio.ReflectionServicer(
            (SERVICE, health.SERVICE, reflection.SERVICE_NAME)
        )

    @property
    def port(self) -> int | None:
        """The TCP port that is listened on, once started; `None` without TCP."""
        return None if self._tcp is None else self._tcp.port

    def reload(self) -> None:
        """Read the TLS files again, for new connections; those that are open go on as they are."""
        if self._certificates is None:
            _log.info("there are no TLS files to read again")
        else:
            self._certificates.reload()

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
        try:
            for door in self._doors:
                door.bind(self._made(door))
            for door in self._doors:
                await door.open()
        except BaseException:
            await self.stop()
            raise
        for door in self._doors:
            reading = "" if door.may_change else ", for reading alone"
            _log.info("listening on %s%s", door.listener.address, reading)
        self._restoring = Restoring(self._doors, self._made, self.unreachable)

    async def stop(self) -> None:
        """End every stream with UNAVAILABLE, remove the sockets and stop; all within a second."""
        if self._restoring is not None:
            await self._restoring.close()
        for door in self._doors:
            door.listener.remove()
        self._health.set_serving(False)
        self._streams.end()
        await asyncio.gather(*(door.close(STOP_SECONDS) for door in self._doors))

    async def __aenter__(self) -> RpcServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _look(self) -> None:
        """Before anybody is told how the daemon is."""
        if self._restoring is not None:
            self._restoring.look()

    def _made(self, door: Door) -> grpc.aio.Server:
        server = grpc.aio.server(options=self._options(door))
        server.add_generic_rpc_handlers(self._handlers(door))
        return server

    def _options(self, door: Door) -> list[tuple[str, int]]:
        options = [
            *self._limits.server_options(),
            # A machine that vanished says no goodbye, and a process that was stopped reads nothing.
            ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
            ("grpc.http2.ping_timeout_ms", _KEEPALIVE_ANSWER_MILLISECONDS),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        if door.listener is self._tcp:
            options += [
                # Else a second daemon could bind the same TCP port, and share out the clients.
                ("grpc.so_reuseport", 0),
                # Who connects and then says nothing holds a place no longer than this.
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
            ]
        return options

    def _handlers(self, door: Door) -> tuple[grpc.GenericRpcHandler, ...]:
        service, containers = self._service, self._containers
        calls: dict[str, Unary] = {
            "ListEvents": service.list_events,
            "GetEvent": service.get_event,
            "UnwatchContainer": containers.unwatch,
            "ListContainers": containers.list,
            "GetContainer": containers.get,
            "GetStatus": self._status,
        }
        asked: dict[str, Asked] = {name: _of_anybody(call) for name, call in calls.items()}
        asked["WatchContainer"] = lambda request, _, caller: containers.watch(request, caller)
        asked["FinalizeContainer"] = lambda request, context, _: containers.finalize(
            request, context.time_remaining()
        )
        ours = {name: self._unary(name, call, door) for name, call in asked.items()}
        ours["Subscribe"] = self._streaming("Subscribe", service.subscribe, door)
        checks = {
            "Check": self._unary("Check", _of_anybody(self._check), door),
            "Watch": self._streaming("Watch", self._health.watch, door),
        }
        return (
            grpc.method_handlers_generic_handler(SERVICE, ours),
            grpc.method_handlers_generic_handler(health.SERVICE, checks),
            grpc.method_handlers_generic_handler(
                reflection.SERVICE_NAME, {"ServerReflectionInfo": self._reflecting(door)}
            ),
        )

    async def _status(self, request: bytes) -> bytes:
        self._look()
        return await self._service.get_status(request)

    async def _check(self, request: bytes) -> bytes:
        self._look()
        answer = await self._health.check(request)
        if answer is None:
            raise RefusalError(
                grpc.StatusCode.NOT_FOUND,
                f"names here are {SERVICE}, the empty one, {health.SOURCES}, and {health.SOURCES}/ "
                "with a source's name",
            )
        return answer

    def _unary(self, name: str, call: Asked, door: Door) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(request: bytes, context: Context) -> bytes:
            async with self._guarded(name, context):
                if name in CHANGING and not door.may_change:
                    raise RefusalError(grpc.StatusCode.PERMISSION_DENIED, f"{name} {_NOT_HERE}")
                # A probe that is refused would have a daemon restarted for what others do.
                caller = door.listener.caller(context.peer())
                if name != "Check":
                    self._admission.call(caller)
                if name not in LONG:
                    return await call(request, context, caller)
                async with self._admission.long_call():
                    return await call(request, context, caller)
            raise AssertionError("unreachable")

        return grpc.unary_unary_rpc_method_handler(cast(Callable[..., bytes], handle))

    def _streaming(
        self, name: str, call: Streaming, door: Door
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(request: bytes, context: Context) -> None:
            async with self._stream(name, context, door):
                await call(request, context)

        return grpc.unary_stream_rpc_method_handler(cast(Callable[..., bytes], handle))

    def _reflecting(self, door: Door) -> grpc.RpcMethodHandler[Any, Any]:
        """Reflection by the package's own servicer, but counted as the stream that it is."""
        name = "ServerReflectionInfo"

        async def handle(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._stream(name, context, door):
                async for answer in self._described.ServerReflectionInfo(requests, context):
                    await context.write(answer)

        return grpc.stream_stream_rpc_method_handler(
            cast(Callable[..., Iterator[Any]], handle),
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )

    @contextlib.asynccontextmanager
    async def _stream(self, name: str, context: Context, door: Door) -> AsyncIterator[None]:
        """Let a stream in, and count it until its client has its status too.

        A status waits behind what the client has not read. Were its place given away meanwhile,
        clients that never read could have the daemon hold any number of messages for them.
        """
        caller = door.listener.caller(context.peer())
        async with self._guarded(name, context):
            with self._admission.stream(caller):
                async with self._guarded(name, context):
                    with self._streams.running():
                        await self._admission.opening(caller)
                        yield

    @contextlib.asynccontextmanager
    async def _guarded(self, name: str, context: Context) -> AsyncIterator[None]:
        """Turn what a call raises into its status; nothing that one call does ends the server."""
        try:
            async with self._answered(name, context):
                yield
        except grpc.aio.InternalError as error:
            # What was sent could not be: the client has hung up, and nobody is left to be told.
            _log.debug("%s was hung up on: %s", name, error)
            raise asyncio.CancelledError from error

    @contextlib.asynccontextmanager
    async def _answered(self, name: str, context: Context) -> AsyncIterator[None]:
        unavailable = grpc.StatusCode.UNAVAILABLE
        try:
            if self._streams.closing:
                raise RefusalError(unavailable, GOING_AWAY)
            yield
        except RefusalError as refusal:
            await abort(context, refusal.code, str(refusal))
        except CursorError as error:
            await abort_cursor(context, error)
        except JournalError as error:
            await abort(context, unavailable, str(error))
        except DecodeError:
            malformed = invalid(f"the request is no {name}Request that can be read")
            await abort(context, malformed.code, str(malformed))
        except SubscriptionClosed:
            await abort(context, unavailable, GOING_AWAY)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._streams.closing or task is None:
                raise  # the client has had enough
            task.uncancel()
            await abort(context, unavailable, GOING_AWAY)
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except Exception:  # noqa: BLE001 - it is logged, and told to the client
            _log.exception("%s failed", name)
            await abort(
                context, grpc.StatusCode.INTERNAL, f"{name} failed in the daemon: see its log"
            )


def _of_anybody(call: Unary) -> Asked:
    async def answer(request: bytes, context: Context, caller: Caller) -> bytes:
        return await call(request)

    return answer


def _tcp_address(text: str) -> TcpAddress:
    address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise AddressError(f"{text!r} is no HOST:PORT to listen on")
    return address
