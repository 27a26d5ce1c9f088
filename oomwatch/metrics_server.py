"""Serves the figures over HTTP, on the daemon's own loop: a scraper asks once, and is done.

No more of HTTP/1.1 than that (RFC 9112): one request a connection, GET or HEAD of /metrics. Who
connects and says nothing, or reads nothing, is let go after a few seconds; and there are never more
than a few connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from oomwatch.address import TcpAddress, is_loopback, parse_address
from oomwatch.errors import AddressError
from oomwatch.metrics import Metrics
from oomwatch.status import NodeStatus

_log = logging.getLogger(__name__)

PATH = "/metrics"
CONNECTIONS = 16
REQUEST_BYTES = 8192
SECONDS = 5.0

_METHODS = ("GET", "HEAD")
_TEXT = "text/plain; charset=utf-8"


class MetricsServer:
    """Answers at HOST:PORT from `start` to `stop`.

    `anywhere` lets it be another host than the loopback: there is neither TLS nor a password. Port
    0 takes a free one, see `port`.
    """

    def __init__(
        self,
        listen: str,
        metrics: Metrics,
        status: Callable[[], Awaitable[NodeStatus]],
        *,
        anywhere: bool = False,
    ) -> None:
        """Raises AddressError where the address is none, or not the loopback."""
        address = parse_address(listen)
        if not isinstance(address, TcpAddress):
            raise AddressError(f"{listen!r} is no HOST:PORT to serve metrics at")
        if not anywhere and not is_loopback(address.host):
            raise AddressError(
                f"{address} is not the loopback, and metrics are served in plain text to whoever "
                "asks: choose 127.0.0.1, or say --insecure twice"
            )
        self._address = address
        self._metrics = metrics
        self._status = status
        self._server: asyncio.Server | None = None
        self._open = 0

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        if self._server is None:
            return self._address.port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises AddressError where the address cannot be had."""
        try:
            self._server = await asyncio.start_server(
                self._connected, self._address.host, self._address.port, limit=REQUEST_BYTES
            )
        except OSError as error:
            raise AddressError(
                f"metrics cannot be served at {self._address}: {error.strerror or error}"
            ) from error
        at = TcpAddress(self._address.host, self.port)
        _log.info("serving metrics at http://%s%s", at, PATH)

    async def stop(self) -> None:
        """Listen no more; a scrape that is under way ends by itself."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.write_eof()
                # Closed at once, what it still sends would reset the answer before it is read.
                while await reader.read(REQUEST_BYTES):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it had enough, or never asked
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if self._open > CONNECTIONS:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"that is too much\n")
        request, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"that is no HTTP/1 request\n")
        if method not in _METHODS:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET it\n", allow="GET, HEAD")
        if target.partition("?")[0] != PATH:
            return _response(HTTPStatus.NOT_FOUND, b"metrics are at /metrics\n")
        try:
            body, content_type = self._metrics.render(await self._status(), _accepted(fields))
        except Exception:  # noqa: BLE001 - it is logged, and the next scrape may do better
            _log.exception("a scrape failed")
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the daemon's log\n")
        return _response(HTTPStatus.OK, body, content_type, headed=method == "HEAD")


def _accepted(fields: list[str]) -> str:
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() == "accept":
            return value.strip()
    return ""


def _response(
    status: HTTPStatus,
    body: bytes,
    content_type: str = _TEXT,
    *,
    headed: bool = False,
    allow: str | None = None,
) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if allow is not None:
        lines.append(f"Allow: {allow}")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if headed else body)
