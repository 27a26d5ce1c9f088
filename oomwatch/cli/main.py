"""`oomwatch`: finds the command, runs it, and turns what went wrong into a sentence and a code.

A command's module is imported only when that command is run, and imports what is heavy (gRPC,
SQLite, asyncio) only inside it: `oomwatch tail --help` answers before a human notices.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import StringIO

import click

from oomwatch.cli.output import forget_stdout, open_what_is_closed, say
from oomwatch.cli.terminal import escape
from oomwatch.errors import DaemonUnavailable, HistoryCompacted, JournalReset, OomwatchError

FAILED, NO_DAEMON, COMPACTED, INTERRUPTED, CLOSED_PIPE = 1, 3, 4, 130, 141

_COMMANDS = ("serve", "tail", "list", "show", "verdict", "scan", "doctor", "selftest", "completion")


@contextmanager
def _exits_with_its_reader() -> Iterator[None]:
    # click takes a closed pipe for a failure and ends the process with 1, before `run` hears of it.
    try:
        yield
    except BrokenPipeError:
        forget_stdout()
        raise click.exceptions.Exit(CLOSED_PIPE) from None


class LazyGroup(click.Group):
    """A group whose commands are modules of this package: `tail` is oomwatch.cli.tail:command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options; --help and --version print here."""
        with _exits_with_its_reader():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, its --help included."""
        with _exits_with_its_reader():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the manual."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, if there is one of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"oomwatch.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"oomwatch {version('oomwatch')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  oomwatch doctor      can kills be seen on this host?
  oomwatch tail        watch them happen
  oomwatch selftest    make one happen, and see it

\b
Exit codes: 0 well, 1 failed, 2 wrong usage, 3 no daemon answers,
4 the history asked for was deleted, 130 interrupted.""",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """Watches every cgroup v2 on this host and tells each OOM kill once, with its evidence.

    Data goes to stdout, words to stderr. NO_COLOR, a pipe and TERM=dumb mean plain text.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; what is expected to fail says so."""
    try:
        outcome = cli.main(args=list(arguments), prog_name="oomwatch", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        if isinstance(error, click.BadParameter):
            _name_its_variable(error)
        _show_usage(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return CLOSED_PIPE
    except OomwatchError as error:
        say(str(error))
        return exit_code(error)
    except OSError as error:
        say(_os_sentence(error))
        return FAILED
    return outcome if isinstance(outcome, int) else 0


def _name_its_variable(error: click.BadParameter) -> None:
    """Say which variable a wrong value is from: who sees only the option looks where none is."""
    context = error.ctx
    if context is None:
        return
    for param in context.command.params:
        name = param.name or ""
        found = param is error.param or error.param_hint in param.opts
        source = context.get_parameter_source(name)
        if found and source is click.core.ParameterSource.ENVIRONMENT:
            variable = param.envvar or f"{context.auto_envvar_prefix}_{name.upper()}"
            error.param_hint = f"'{variable}', which is '{param.opts[0]}'"


def _show_usage(error: click.ClickException) -> None:
    """Print what click says, which may quote what a script was given: it escapes some of that."""
    text = StringIO()
    error.show(text)
    for line in text.getvalue().rstrip("\n").split("\n"):
        click.echo(escape(line.replace("\t", "  ")), err=True)


def exit_code(error: OomwatchError) -> int:
    """The exit code that scripts can rely on for this error."""
    match error:
        case DaemonUnavailable():
            return NO_DAEMON
        case HistoryCompacted() | JournalReset():
            return COMPACTED
        case _:
            return FAILED


def _os_sentence(error: OSError) -> str:
    where = error.filename or error.filename2
    if isinstance(where, bytes):
        where = os.fsdecode(where)
    reason = error.strerror or str(error)
    mend = (
        "; run as root, or give this user the right" if isinstance(error, PermissionError) else ""
    )
    return f"{where}: {reason}{mend}" if where is not None else f"{reason}{mend}"


def main() -> None:
    """The entry point of the `oomwatch` script."""
    open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter shows its code, rather than end in a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        code = CLOSED_PIPE
    sys.exit(code)


if __name__ == "__main__":
    main()
