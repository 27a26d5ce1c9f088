"""The options that several commands share, each written once."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oomwatch.cli.times import parse_duration
from oomwatch.escaping import quoted

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

CGROUP_ROOT = Path("/sys/fs/cgroup")

_LAST_REVISION = 2**63 - 1
_REVISION_DIGITS = len(str(_LAST_REVISION))

if TYPE_CHECKING:
    from oomwatch.containers.layouts import Layout
    from oomwatch.sources.runtimes import RuntimeSocket

    _Seconds = click.ParamType[float]
    _Number = click.ParamType[int]
    _Runtime = click.ParamType[RuntimeSocket | None]
    _Layout = click.ParamType[Layout]
else:
    # Before click 8.2 it took no parameter.
    _Seconds = _Number = _Runtime = _Layout = click.ParamType


class Duration(_Seconds):
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


class Revision(_Number):
    """The revision of one event: what its place in the journal is called."""

    name = "revision"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; anything else is a usage error that says where revisions are found."""
        number = revision_number(str(value))
        if not number:
            self.fail(
                f"{quoted(str(value))} is no revision: an event is called by its number in the "
                "journal, such as 17; 'oomwatch tail --no-follow' shows those that are kept, in "
                "its column REVISION",
                param,
                ctx,
            )
        return number


def revision_number(text: str) -> int | None:
    """Read a revision, or 0 for the one before them all; `None` where it is no such number."""
    digits = text.lstrip("0") or text[-1:]
    # int refuses what is longer than some thousand digits, in words of its own.
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _REVISION_DIGITS:
        return None
    number = int(digits)
    return number if number <= _LAST_REVISION else None


class Number(click.IntRange):
    """A whole number within bounds."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; anything else is a usage error that says what is taken."""
        low, high = self.min or 0, self.max
        number = None
        with contextlib.suppress(ValueError):
            number = int(str(value))
        if number is None or number < low or (high is not None and number > high):
            most = f"from {low} to {high}" if high is not None else f"of {low} or more"
            self.fail(f"{quoted(str(value))} is not a whole number {most}", param, ctx)
        return number


class Times(_Number):
    """How often a flag is given; the environment has a number for that."""

    name = "times"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; another word than 0, 1 and 2 is a usage error that says so."""
        if isinstance(value, int):
            return value
        if value not in ("0", "1", "2"):
            said = quoted(str(value))
            self.fail(f"{said} is none of 0, 1 and 2: how often the option is given", param, ctx)
        return int(str(value))


class Named(click.Path):
    """A path that may not be empty: else an empty variable would mean the working directory."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path; none is a usage error."""
        if not os.fspath(value):
            self.fail("it is empty: give a path, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


class Permissions(_Number):
    """Permissions of a socket in octal, as chmod takes them; writing is what connecting needs."""

    name = "mode"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the mode; a wrong word is a usage error."""
        if isinstance(value, int):
            return value
        text = str(value).removeprefix("0o")
        if not text or len(text) > 4 or text.strip("01234567") or int(text, 8) > 0o777:
            self.fail(
                f"{quoted(str(value))} is no mode: give it in octal, 0600 to 0777", param, ctx
            )
        mode = int(text, 8)
        if not mode & stat.S_IWUSR:
            self.fail(
                f"with {value!r} not even its owner could connect, which needs the right to write: "
                "give 0660 (the owner and the group), 0600 or 0666 (everybody)",
                param,
                ctx,
            )
        return mode


class Runtime(_Runtime):
    """A runtime's kind and socket; `None` for the word off."""

    name = "KIND=PATH|off"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> RuntimeSocket | None:
        """Return the socket; another kind or a relative path is a usage error."""
        from oomwatch.cli import spared_modules
        from oomwatch.errors import AddressError

        spared_modules.spare()  # before it is imported with the sources
        from oomwatch.sources.runtimes import RuntimeSocket

        try:
            return None if value == "off" else RuntimeSocket.parse(str(value))
        except AddressError as error:
            self.fail(str(error), param, ctx)


class ContainerPattern(_Layout):
    """A pattern for the paths of an operator's own containers."""

    name = "PATTERN"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Layout:
        """Return the layout; a pattern that makes no sense is a usage error."""
        from oomwatch.containers.layouts import Layout
        from oomwatch.errors import LayoutError

        try:
            return Layout.parse(str(value))
        except LayoutError as error:
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
        type=Named(path_type=Path),
        metavar="DIR",
        help="Watch this cgroup tree in this process, without asking a daemon.",
    )(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach a daemon, as it was typed."""

    socket: Path | None = None
    address: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None
    insecure: bool = False

    @property
    def wants_tls(self) -> bool:
        """Whether anything was said of TLS."""
        said = (self.tls_ca, self.tls_cert, self.tls_key, self.tls_server_name)
        return any(word is not None for word in said)


def connection(command: Callable[..., int]) -> Callable[..., int]:
    """--socket, --address and what is said of TLS, given to the command as one `connection`."""

    @click.option(
        "--socket",
        # Who may not connect is told so when it is tried: in a sentence, not as a wrong option.
        type=Named(path_type=Path, readable=False),
        metavar="PATH",
        envvar="OOMWATCH_SOCKET",
        show_envvar=True,
        help="The Unix socket of the daemon to ask; by default the usual one, if it answers.",
    )
    @click.option(
        "--address",
        metavar="HOST:PORT",
        envvar="OOMWATCH_ADDRESS",
        show_envvar=True,
        help="Ask the daemon at this TCP address instead.",
    )
    @click.option(
        "--tls-ca",
        type=Named(path_type=Path),
        metavar="FILE",
        help="With --address: the CA that signed the daemon's certificate, PEM.",
    )
    @click.option(
        "--tls-cert",
        type=Named(path_type=Path),
        metavar="FILE",
        help="With --address: this client's certificate, PEM.",
    )
    @click.option(
        "--tls-key",
        type=Named(path_type=Path),
        metavar="FILE",
        help="With --address: the certificate's key, PEM.",
    )
    @click.option(
        "--tls-server-name",
        metavar="NAME",
        help="With --address: the name in the daemon's certificate, where that is another.",
    )
    @click.option("--insecure", is_flag=True, help="With --address: without TLS.")
    @wraps(command)
    def with_connection(
        *,
        socket: Path | None,
        address: str | None,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_server_name: str | None,
        insecure: bool,
        **others: Any,
    ) -> int:
        given = Connection(
            socket=socket,
            address=address,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_server_name=tls_server_name,
            insecure=insecure,
        )
        return command(connection=given, **others)

    return with_connection
