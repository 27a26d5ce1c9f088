"""Which daemon a command asks, decided without importing gRPC."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oomwatch.address import DEFAULT_SOCKET, parse_address
from oomwatch.cli.checks import answers
from oomwatch.cli.logs import log_to_stderr
from oomwatch.errors import AddressError

if TYPE_CHECKING:
    from oomwatch.daemon import Watcher


def daemon_address(
    socket: Path | None, address: str | None, cgroup_root: Path | None = None
) -> str | None:
    """The address to ask, or None where this process is to look for itself.

    An address that was named is asked, come what may; the usual socket only if something accepts
    connections there; and nobody if a cgroup tree was named.
    """
    if cgroup_root is not None:
        if _on_command_line("socket", "address"):
            raise click.UsageError("--cgroup-root watches in this process: it asks no daemon")
        return None
    if socket is not None and address is not None:
        raise click.UsageError("--socket and --address both name a daemon: give one of them")
    named = str(socket.absolute()) if socket is not None else address
    if named is None:
        return DEFAULT_SOCKET if answers(Path(DEFAULT_SOCKET)) else None
    try:
        parse_address(named)
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    return named


def _on_command_line(*names: str) -> bool:
    context = click.get_current_context()
    line = click.core.ParameterSource.COMMANDLINE
    return any(context.get_parameter_source(name) is line for name in names)


def own_watcher(cgroup_root: Path | None) -> Watcher:
    """A watcher in this process, which keeps nothing; warnings of its parts go to stderr."""
    from oomwatch.cli.options import CGROUP_ROOT
    from oomwatch.daemon import Config, Watcher

    log_to_stderr(logging.WARNING)
    return Watcher(Config(cgroup_root=cgroup_root or CGROUP_ROOT))
