"""A client's connection to a daemon: its address, its credentials, and what its failures mean."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from oomwatch.address import TcpAddress, UnixAddress, parse_address
from oomwatch.errors import AddressError, DaemonUnavailable, RequestRefused
from oomwatch.rpc.refusals import cursor_error
from oomwatch.rpc.v1 import oomwatch_pb2 as pb

Answer = TypeVar("Answer", bound=Message)

SERVICE = pb.DESCRIPTOR.services_by_name["OomWatchService"].full_name

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
_CONNECT_MILLISECONDS = 10_000
_NOBODY = ("failed to connect", "errors resolving", "DNS resolution failed")
"""Words of gRPC's own, as nobody was reached who could have answered."""

_LARGEST_MESSAGE = 64 * 1024 * 1024

Stream = grpc.aio.UnaryStreamCall[Message, pb.SubscribeResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """PEM files for a TCP address. `ca` signed the server's certificate (absent: the system's CAs).

    `certificate` and `key` are the client's own, where the server asks for them. `server_name` is
    the name in the server's certificate where it is not the address's host. The files are read
    once: a client that outlives its certificate has to be made anew.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises AddressError, naming the one that cannot be used.

        gRPC itself would say of a file that is none only that no connection could be made.
        """
        if (self.certificate is None) != (self.key is None):
            raise AddressError("a client's TLS certificate and its key need each other: give both")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise AddressError(f"the CA {self.ca} cannot be used: {_reason(error)}") from error
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise AddressError(
                f"the TLS certificate {self.certificate} with the key {self.key} cannot be used: "
                f"{_reason(error)}"
            ) from error
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.ca),
            private_key=_pem(self.key),
            certificate_chain=_pem(self.certificate),
        )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _pem(path: str | os.PathLike[str] | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise AddressError(f"{path} cannot be read: {error.strerror}") from error


class Connection:
    """A channel that is opened by its first call, and again by the first call after `close`."""

    def __init__(
        self,
        address: str | os.PathLike[str],
        tls: ClientTls | None,
        insecure: bool,
        timeout: float,
    ) -> None:
        self.address = parse_address(address)
        if isinstance(self.address, TcpAddress) and tls is None and not insecure:
            raise AddressError(
                f"{self.address} is reached over TCP: give TLS files, or ask for insecure"
            )
        if isinstance(self.address, UnixAddress) and tls is not None:
            raise AddressError(
                f"{self.address} is a Unix socket: TLS is for HOST:PORT, leave it out"
            )
        self._credentials = None if tls is None else tls.credentials()
        self._server_name = None if tls is None else tls.server_name
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None

    async def close(self) -> None:
        """Close the channel; calls that are under way end."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def subscribe(self, request: pb.SubscribeRequest) -> Stream:
        """Begin a stream."""
        method = f"/{SERVICE}/Subscribe"
        parse = pb.SubscribeResponse.FromString
        return self._opened().unary_stream(method, _bytes, parse)(request)

    async def call(
        self,
        name: str,
        request: Message,
        answer: type[Answer],
        service: str = SERVICE,
        *,
        patience: float = 0.0,
    ) -> Answer:
        """Make one call; its answer may take `patience` seconds longer than any other's.

        Raises what `error` gives.
        """
        call = self._opened().unary_unary(f"/{service}/{name}", _bytes, answer.FromString)
        seconds = self._timeout + patience
        try:
            result: Answer = await call(request, timeout=seconds)
        except grpc.aio.AioRpcError as failure:
            raise self.error(failure, seconds) from failure
        return result

    def error(self, failure: grpc.aio.AioRpcError, seconds: float | None = None) -> Exception:
        """What a call's status means, as one of ours (or ValueError, for a malformed request).

        `seconds` is what its answer might take.
        """
        code, words = failure.code(), failure.details() or ""
        if code is grpc.StatusCode.OUT_OF_RANGE:
            cursor = cursor_error(failure)
            if cursor is not None:
                return cursor
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return ValueError(words)
        if code is grpc.StatusCode.UNAVAILABLE:
            if not any(begin in words for begin in _NOBODY):
                # It is the daemon that has no answer, or it went away while it had to give one.
                return DaemonUnavailable(
                    f"no answer now from the daemon at {self.address}: {words}"
                )
            why = words.rpartition("last error: ")[2]
            return DaemonUnavailable(
                f"no daemon answers at {self.address}: {why}{self._mend(words)}"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            within = "" if seconds is None else f" within {seconds:g} s"
            return DaemonUnavailable(f"the daemon at {self.address} did not answer{within}")
        return RequestRefused(code.name, f"the daemon at {self.address} refuses: {words}")

    def _mend(self, words: str) -> str:
        """What to look at, where gRPC's words alone leave a person at a loss."""
        if isinstance(self.address, UnixAddress):
            if "Permission denied" in words:
                return "; who may connect say the socket's mode and group"
            return "; does it run, and is this its socket?"
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return "; its certificate was not signed by the CA that was given"
        if "Hostname Verification" in words:
            name = self._server_name or self.address
            return (
                f"; its certificate is for another name than {name}: give a TLS server name in it"
            )
        if "WRONG_VERSION_NUMBER" in words:
            return "; does it speak without TLS?"
        if "Socket closed" not in words:
            unknown = "resolving" in words or "DNS" in words
            return "; is the host's name right?" if unknown else "; does it run, and listen there?"
        # All that a server says to one who should have come with TLS, or with a certificate.
        if self._credentials is None:
            return "; does it want TLS? Give the file of its CA"
        return "; does it want a client's certificate, or one of another CA?"

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is None:
            target, options = self.address.target, self._options()
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(target, options)
            else:
                self._channel = grpc.aio.secure_channel(target, self._credentials, options)
        return self._channel

    def _options(self) -> list[tuple[str, Any]]:
        first, longest = int(FIRST_PAUSE_SECONDS * 1000), int(LONGEST_PAUSE_SECONDS * 1000)
        options: list[tuple[str, Any]] = [
            # Else the clients of one process share a connection, and its limits.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            # gRPC keeps a pause of its own between attempts to connect: never longer than ours.
            ("grpc.initial_reconnect_backoff_ms", first),
            # Despite its name, how long one attempt may take: a busy machine takes its time.
            ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),
            ("grpc.max_reconnect_backoff_ms", longest),
            ("grpc.enable_retries", 0),
        ]
        if self._server_name is not None:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return options


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
