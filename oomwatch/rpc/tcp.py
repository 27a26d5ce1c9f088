"""TCP: with TLS, or in plain text for those who asked for it, and then on the loopback alone."""

from __future__ import annotations

from enum import IntEnum

import grpc.aio

from oomwatch.address import TcpAddress, is_loopback
from oomwatch.errors import AddressError
from oomwatch.rpc.limits import Caller
from oomwatch.rpc.tls import Certificates


class Plaintext(IntEnum):
    """How far TCP without TLS was asked for: as often as `--insecure` was said."""

    REFUSED = 0
    LOOPBACK = 1
    ANYWHERE = 2


class TcpListener:
    """A TCP port: `bind` before the server starts; there is nothing to do after it, nor at the end.

    Raises AddressError where the address may not be listened on: process names and command lines
    are not for everyone on the network.
    """

    def __init__(
        self, address: TcpAddress, certificates: Certificates | None, plaintext: Plaintext
    ) -> None:
        self.address = address
        self.port = address.port
        self._certificates = certificates
        if certificates is None:
            _need_leave(address, plaintext)

    def bind(self, server: grpc.aio.Server) -> None:
        """Bind the port, and know its number. Raises AddressError where it cannot be had."""
        target = self.address.target
        try:
            if self._certificates is None:
                self.port = server.add_insecure_port(target)
            else:
                self.port = server.add_secure_port(target, self._certificates.credentials())
        except RuntimeError as error:
            raise AddressError(
                f"{target} cannot be listened on: is the port taken, or the host not of this "
                "machine?"
            ) from error
        if not self.port:
            raise AddressError(f"{target} cannot be listened on: is the port taken?")

    async def publish(self) -> None:
        """Follow the certificate from now on."""
        if self._certificates is not None:
            self._certificates.follow()

    @property
    def present(self) -> bool:
        """Nobody takes away a port that is bound."""
        return True

    def withdraw(self) -> None:
        """The server gives the port back."""

    def remove(self) -> None:
        """Follow the certificate no more."""
        if self._certificates is not None:
            self._certificates.close()

    def caller(self, peer: str) -> Caller:
        """Whose call it is: gRPC writes ipv4:10.0.0.7:52106 or ipv6:%5Bfd00::7%5D:52106."""
        return Caller(peer.rpartition(":")[0], peer)


def _need_leave(address: TcpAddress, plaintext: Plaintext) -> None:
    if plaintext is Plaintext.REFUSED:
        raise AddressError(
            f"{address} would be open to the network: give a TLS certificate and key, or say "
            "--insecure"
        )
    if plaintext is Plaintext.LOOPBACK and not is_loopback(address.host):
        raise AddressError(
            f"{address} is not the loopback: without TLS everyone on the way can read what is sent "
            "there; give a TLS certificate and key, or say --insecure twice"
        )
