"""The options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oomwatch.cli.times import parse_duration

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

CGROUP_ROOT = Path("/sys/fs/cgroup")

if TYPE_CHECKING:
    _Type = click.ParamType[float]
else:
    _Type = click.ParamType  # before click 8.2 it took no parameter


class Duration(_Type):
    """A duration as people type it, converted to seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; a wrong word is a usage error."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def output(command: Decorated) -> Decorated:
    """-o table|json."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or one JSON object a line.",
    )(command)


def cgroup_root(command: Decorated) -> Decorated:
    """--cgroup-root D."""
    return click.option(
        "--cgroup-root",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Watch this cgroup tree in this process, without asking a daemon.",
    )(command)


def socket(command: Decorated) -> Decorated:
    """--socket P."""
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        envvar="OOMWATCH_SOCKET",
        show_envvar=True,
        help="The Unix socket of the daemon to ask; by default the usual one, if it answers.",
    )(command)


def address(command: Decorated) -> Decorated:
    """--address HOST:PORT."""
    return click.option(
        "--address",
        metavar="ADDRESS",
        envvar="OOMWATCH_ADDRESS",
        show_envvar=True,
        help="Ask the daemon at this address instead: unix:PATH, or HOST:PORT without TLS.",
    )(command)
