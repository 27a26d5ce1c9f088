"""Where output goes: data to stdout, words to stderr, and nothing at all to a pipe that closed."""

from __future__ import annotations

import os
import sys

from oomwatch.cli.terminal import Paint, escape, wants_colour


def say(sentence: str) -> None:
    """Say a sentence on stderr, in one line whatever it quotes."""
    print(f"oomwatch: {escape(sentence)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line


def put(line: str) -> None:
    """Print a line of data, at once: a reader at the end of a pipe is waiting for it."""
    print(line, flush=True)  # noqa: T201 - this is the command line


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
