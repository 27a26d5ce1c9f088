"""One address, and the gRPC servers that answer there: one, and those before it that are ending."""

from __future__ import annotations

import asyncio
from typing import Protocol

import grpc.aio

from oomwatch.address import TcpAddress, UnixAddress
from oomwatch.rpc.limits import Caller

_AS_LONG_AS_IT_TAKES = 365 * 86400.0


class Listener(Protocol):
    """An address to listen at."""

    @property
    def address(self) -> UnixAddress | TcpAddress:
        """The address, for the log and for errors."""

    @property
    def present(self) -> bool:
        """Would clients find the one that listens, for all that can be seen from here?"""

    def bind(self, server: grpc.aio.Server) -> None:
        """Take the address. Raises AddressError."""

    async def publish(self) -> None:
        """Let clients in, now that the server answers. Raises AddressError."""

    def withdraw(self) -> None:
        """Give back what `bind` took and `publish` did not let clients into."""

    def remove(self) -> None:
        """Give back what was taken."""

    def caller(self, peer: str) -> Caller:
        """Whose call it is, by gRPC's name for the peer."""


class Door:
    """One address, and whether those who come in there may change anything."""

    def __init__(self, listener: Listener, *, may_change: bool) -> None:
        self.listener = listener
        self.may_change = may_change
        self._server: grpc.aio.Server | None = None
        self._ending: dict[grpc.aio.Server, asyncio.Task[None]] = {}

    def bind(self, server: grpc.aio.Server) -> None:
        """Take the address for a server. Raises AddressError."""
        self._server = server
        self.listener.bind(server)

    async def open(self) -> None:
        """Let clients in. Raises AddressError."""
        assert self._server is not None
        await self._server.start()
        await self.listener.publish()

    async def open_again(self, server: grpc.aio.Server) -> None:
        """Listen with another server; the one before goes on with the calls that it has.

        Its clients are told to make new calls elsewhere (GOAWAY), which is at the same path. Raises
        AddressError, and then nothing has changed.
        """
        try:
            self.listener.bind(server)
            await server.start()
            await self.listener.publish()
        except BaseException:
            self.listener.withdraw()
            await server.stop(None)
            raise
        before, self._server = self._server, server
        if before is not None:
            self._ending[before] = task = asyncio.ensure_future(before.stop(_AS_LONG_AS_IT_TAKES))
            task.add_done_callback(lambda _: self._ending.pop(before, None))

    async def close(self, grace: float) -> None:
        """End every call, after so many seconds at most, and stop."""
        servers = [*self._ending, *([self._server] if self._server is not None else [])]
        ending = [*self._ending.values()]
        self._server = None
        await asyncio.gather(*(server.stop(grace) for server in servers), *ending)
