"""Calls to a runtime that speaks gRPC on a Unix socket, each with a deadline and a largest answer.

Calls are named by their path, with messages of ours that have the same field numbers: so no
service's generated code is needed, and no other program's is in the way. It imports grpc, and is
imported itself once the socket is there.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from oomwatch.errors import RuntimeUnreachable

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""How long a call may take; a stream of a list, four times as long."""

LARGEST_BYTES = 16 << 20
"""What containerd itself sends at most (its `max_send_message_size`)."""

_ITS_OWN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Failures of the runtime itself, whatever it was asked for."""

Answer = TypeVar("Answer", bound=Message)


class GrpcApi:
    """A connection. `RuntimeUnreachable` wherever the runtime does not answer as it should."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"unix:{socket}",
            options=(
                ("grpc.max_receive_message_length", LARGEST_BYTES),
                # One connection each: two of our sources may be at one socket.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ),
        )
        self._silent: str | None = None

    async def __aenter__(self) -> GrpcApi:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    async def call(
        self, method: str, request: Message, answer: type[Answer], namespace: str = ""
    ) -> Answer | None:
        """Ask, and return the answer; `None` where there is no such thing."""
        call = self._channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            told = await call(request, timeout=ANSWER_SECONDS, metadata=_metadata(namespace))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise RuntimeUnreachable(_shown(error)) from error
        if not isinstance(told, answer):  # grpc gives None for what it could not deserialize
            raise RuntimeUnreachable(f"it answers {method} with what is no message of that call")
        return told

    async def describe(
        self,
        container_id: str,
        method: str,
        request: Message,
        answer: type[Answer],
        namespace: str = "",
    ) -> Answer | None:
        """Ask for one container; `None` where there is none, or it cannot be described.

        What is wrong with one container (an error, an answer that is too large, a lock that is
        held for ever) must not cost all others their names. Where a second one in turn has no
        answer it is the runtime that hangs.
        """
        try:
            told = await self.call(method, request, answer, namespace)
        except RuntimeUnreachable as error:
            cause = error.__cause__
            code = cause.code() if isinstance(cause, grpc.aio.AioRpcError) else None
            if code in _ITS_OWN:
                raise
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                if self._silent not in (None, container_id):
                    raise
                self._silent = container_id
            log.info("container %s is not described: %s", container_id, error)
            return None
        self._silent = None
        return told

    def list(
        self, method: str, request: Message, answer: type[Answer], namespace: str = ""
    ) -> AsyncIterator[Answer]:
        """Ask for a list that comes one by one."""
        return self._stream(method, request, answer, _metadata(namespace), 4 * ANSWER_SECONDS)

    def follow(self, method: str, request: Message, answer: type[Answer]) -> AsyncIterator[Answer]:
        """Subscribe, now; the stream ends where the runtime ends it."""
        return self._stream(method, request, answer, None, None)

    def _stream(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        metadata: tuple[tuple[str, str], ...] | None,
        seconds: float | None,
    ) -> AsyncIterator[Answer]:
        call = self._channel.unary_stream(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request, timeout=seconds, metadata=metadata)  # it is sent now, not with the first read

        async def read() -> AsyncIterator[Answer]:
            try:
                async for message in call:
                    # None where it is no message of this kind: a label that is no UTF-8 makes one
                    # of a container that some containerds send all the same.
                    if isinstance(message, answer):
                        yield message
                    else:
                        log.info("a message of %s cannot be read", method)
            except grpc.aio.AioRpcError as error:
                raise RuntimeUnreachable(_shown(error)) from error
            finally:
                call.cancel()

        return read()


def _metadata(namespace: str) -> tuple[tuple[str, str], ...] | None:
    return (("containerd-namespace", namespace),) if namespace else None


def _shown(error: grpc.aio.AioRpcError) -> str:
    details = (error.details() or "").splitlines()
    return f"{error.code().name}: {details[0][:200]}" if details else error.code().name
