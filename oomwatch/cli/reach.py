"""Which daemon a command asks, decided without importing gRPC."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oomwatch.address import DEFAULT_SOCKET, TcpAddress, UnixAddress, parse_address
from oomwatch.cli.checks import FORBIDDEN, who_may, why_silent
from oomwatch.cli.options import CGROUP_ROOT, Connection
from oomwatch.errors import AddressError, DaemonUnavailable, OomwatchError
from oomwatch.escaping import escape

if TYPE_CHECKING:
    from oomwatch.client import AsyncClient
    from oomwatch.daemon import Watcher


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon to ask: its address, and how the connection is secured."""

    address: str
    connection: Connection

    @property
    def socket(self) -> Path | None:
        """Its Unix socket; None where it is reached over TCP."""
        parsed = parse_address(self.address)
        return Path(parsed.path) if isinstance(parsed, UnixAddress) else None

    @asynccontextmanager
    async def client(self, seconds: float = 10.0) -> AsyncIterator[AsyncClient]:
        """Open a client that waits so many seconds for an answer.

        What the daemon finds malformed becomes an error with its sentence.
        """
        # Before gRPC is loaded: else a line of its own goes before our sentence on a handshake.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from oomwatch.client import AsyncClient, ClientTls

        given = self.connection
        tls = None
        if given.wants_tls:
            tls = ClientTls(
                ca=given.tls_ca,
                certificate=given.tls_cert,
                key=given.tls_key,
                server_name=given.tls_server_name,
            )
        async with AsyncClient(
            self.address, tls=tls, insecure=given.insecure, timeout=seconds
        ) as client:
            try:
                yield client
            except UnicodeEncodeError as error:
                raise OomwatchError(
                    f"'{escape(error.object)}' is not UTF-8, and gRPC carries no other text: ask "
                    "for what is above it, or leave that out"
                ) from error
            except ValueError as error:
                raise OomwatchError(f"the daemon at {self.address} refuses: {error}") from error


def find_daemon(connection: Connection, cgroup_root: Path | None = None) -> Daemon | None:
    """The daemon to ask, or None where this process is to look for itself.

    An address that was named is asked, come what may; the usual socket only if something accepts
    connections there; and nobody if a cgroup tree was named.
    """
    if cgroup_root is not None:
        refuse_beside_daemon("--cgroup-root watches in this process")
        return None
    asked = named_daemon(connection)
    if asked is None:
        silent = why_silent(Path(DEFAULT_SOCKET)) is not None
        return None if silent else Daemon(DEFAULT_SOCKET, connection)
    path = asked.socket
    if path is not None and (why := why_silent(path)) is not None:
        if why == FORBIDDEN:
            raise DaemonUnavailable(f"{path} may not be connected to ({why}): be {who_may(path)}")
        raise DaemonUnavailable(
            f"no daemon answers at {path} ({why}): start one with 'oomwatch serve', "
            "or leave the address out to look from here"
        )
    return asked


def named_daemon(connection: Connection) -> Daemon | None:
    """The daemon that was named, whether or not it answers; None where none was.

    Raises click.UsageError where what was said of it makes no sense.
    """
    if connection.socket is not None and connection.address is not None:
        named_by = typed("socket", "address")
        if len(named_by) != 1:
            raise click.UsageError(
                "--socket and --address (or OOMWATCH_SOCKET and OOMWATCH_ADDRESS) both name a "
                "daemon: give one of them"
            )
        # What is typed outweighs what the environment says.
        if named_by == ["--socket"]:
            connection = replace(connection, address=None)
        else:
            connection = replace(connection, socket=None)
    if connection.address is None and (connection.insecure or connection.wants_tls):
        raise click.UsageError("TLS and --insecure are about --address HOST:PORT: give that too")
    if connection.insecure and connection.wants_tls:
        raise click.UsageError("--insecure is without TLS: leave it out, or what is said of TLS")
    if (connection.tls_cert is None) != (connection.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key need each other")
    named = str(connection.socket.absolute()) if connection.socket else connection.address
    if named is None:
        return None
    try:
        parsed = parse_address(named)
    except AddressError as error:
        option = "--address" if connection.socket is None else "--socket"
        raise click.BadParameter(str(error), param_hint=option) from None
    secured = connection.insecure or connection.wants_tls
    if isinstance(parsed, TcpAddress) and not secured:
        raise click.UsageError(f"{parsed} is reached over TCP: give --tls-ca, or say --insecure")
    return Daemon(named, connection)


def refuse_beside_daemon(option: str) -> None:
    """Take it for wrong usage that a daemon was named too, beside what the sentence is about."""
    if typed("socket", "address"):
        raise click.UsageError(f"{option}: it asks no daemon")


def why_nobody_is_asked() -> str:
    """Why `find_daemon` gave none where none was named, as the beginning of a sentence."""
    path = Path(DEFAULT_SOCKET)
    if why_silent(path) == FORBIDDEN:
        return f"{path} may not be connected to ({FORBIDDEN}; be {who_may(path)})"
    return f"no daemon answers at {path}"


def nobody_to_ask(otherwise: str) -> DaemonUnavailable:
    """The error of a command that cannot do without a daemon, with what else can be done."""
    nobody = why_nobody_is_asked()
    start = "" if FORBIDDEN in nobody else "start one with 'oomwatch serve', or "
    return DaemonUnavailable(f"{nobody}: {start}{otherwise}")


def typed(*names: str) -> list[str]:
    """Those of the options that stand on the command line, as they are written there."""
    context = click.get_current_context()
    line = click.core.ParameterSource.COMMANDLINE
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if context.get_parameter_source(name) is line
    ]


def own_watcher(cgroup_root: Path | None) -> Watcher:
    """A watcher in this process, which keeps nothing; warnings of its parts go to stderr."""
    from oomwatch.cli.logs import log_to_stderr
    from oomwatch.config import Config
    from oomwatch.daemon import Watcher

    log_to_stderr(logging.WARNING)
    return Watcher(Config(cgroup_root=cgroup_root or CGROUP_ROOT))
