"""Where output goes: data to stdout, words to stderr, and nothing at all to a pipe that closed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from oomwatch.cli.terminal import Paint, escape, wants_colour
from oomwatch.errors import OomwatchError


def say(sentence: str) -> None:
    """Say a sentence on stderr, in one line whatever it quotes."""
    print(f"oomwatch: {escape(sentence)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line


def put(line: str) -> None:
    """Print a line of data, at once: a reader at the end of a pipe is waiting for it.

    Raises BrokenPipeError where nobody reads any more, OomwatchError where it cannot be written.
    """
    try:
        print(line, flush=True)  # noqa: T201 - this is the command line
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OomwatchError(f"the output cannot be written: {error.strerror}") from error


def open_what_is_closed() -> None:
    """Give the standard streams that were closed before the start to /dev/null.

    Python has None for them; and what is opened next would get their numbers.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for good
            setattr(sys, name, stream)


def stdout_paint() -> Paint:
    """The colours for what is printed to stdout: none unless it is a terminal that wants them."""
    return Paint(wants_colour(sys.stdout))


def forget_stdout() -> None:
    """After its reader went away: let the interpreter's last flush go nowhere, without a word."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
