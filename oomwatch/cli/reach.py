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

if TYPE_CHECKING:
    from oomwatch.client import AsyncClient
    from oomwatch.daemon import Watcher


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon to ask: its address, and how the connection is secured."""

    address: str
    connection: Connection

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """Open a client; what the daemon finds malformed becomes an error with its sentence."""
        # Before gRPC is loaded: else a line of its own goes before our sentence on a handshake.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from oomwatch.client import AsyncClient, ClientTls

        given = self.connection
        tls = None
        if given.tls_ca or given.tls_cert or given.tls_key:
            tls = ClientTls(ca=given.tls_ca, certificate=given.tls_cert, key=given.tls_key)
        async with AsyncClient(self.address, tls=tls, insecure=given.insecure) as client:
            try:
                yield client
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
    if connection.socket is not None and connection.address is not None:
        typed = [name for name in ("socket", "address") if _on_command_line(name)]
        if len(typed) != 1:
            raise click.UsageError(
                "--socket and --address (or OOMWATCH_SOCKET and OOMWATCH_ADDRESS) both name a "
                "daemon: give one of them"
            )
        # What is typed outweighs what the environment says.
        if typed == ["socket"]:
            connection = replace(connection, address=None)
        else:
            connection = replace(connection, socket=None)
    files = (connection.tls_ca, connection.tls_cert, connection.tls_key)
    if connection.address is None and (connection.insecure or any(files)):
        raise click.UsageError("TLS and --insecure are about --address HOST:PORT: give that too")
    if (connection.tls_cert is None) != (connection.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key need each other")
    named = str(connection.socket.absolute()) if connection.socket else connection.address
    if named is None:
        silent = why_silent(Path(DEFAULT_SOCKET)) is not None
        return None if silent else Daemon(DEFAULT_SOCKET, connection)
    try:
        parsed = parse_address(named)
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    secured = connection.insecure or any(files)
    if isinstance(parsed, TcpAddress) and not secured:
        raise click.UsageError(f"{parsed} is reached over TCP: give --tls-ca, or say --insecure")
    if isinstance(parsed, UnixAddress) and (why := why_silent(Path(parsed.path))) is not None:
        if why == FORBIDDEN:
            may = who_may(Path(parsed.path))
            raise DaemonUnavailable(f"{parsed.path} may not be connected to ({why}): be {may}")
        raise DaemonUnavailable(
            f"no daemon answers at {parsed.path} ({why}): start one with 'oomwatch serve', "
            "or leave the address out to look from here"
        )
    return Daemon(named, connection)


def refuse_beside_daemon(option: str) -> None:
    """Take it for wrong usage that a daemon was named too, beside what the sentence is about."""
    if _on_command_line("socket", "address"):
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


def _on_command_line(*names: str) -> bool:
    context = click.get_current_context()
    line = click.core.ParameterSource.COMMANDLINE
    return any(context.get_parameter_source(name) is line for name in names)


def own_watcher(cgroup_root: Path | None) -> Watcher:
    """A watcher in this process, which keeps nothing; warnings of its parts go to stderr."""
    from oomwatch.cli.logs import log_to_stderr
    from oomwatch.config import Config
    from oomwatch.daemon import Watcher

    log_to_stderr(logging.WARNING)
    return Watcher(Config(cgroup_root=cgroup_root or CGROUP_ROOT))
