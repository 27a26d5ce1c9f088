"""docs/cli.md, from the commands themselves: `python -m oomwatch.cli.reference > docs/cli.md`.

A test holds the file against what this makes, so that it cannot drift.
"""

from __future__ import annotations

import inspect

import click

from oomwatch.cli.main import cli

_PREFACE = """\
<!-- Made by `python -m oomwatch.cli.reference > docs/cli.md`; edit the commands, not this file. -->

# The command line

Data goes to stdout, words to stderr. `NO_COLOR`, a pipe and `TERM=dumb` mean plain text. Text
from outside (names, paths, process names, labels) is escaped before it is printed: a control
character, a bidirectional override or a byte that is not UTF-8 is shown as `\\xNN` or `\\uNNNN`.
With `-o json` each line is one object, in ASCII, with the fields of the gRPC messages; a field that
is not known is absent.

| exit code | means |
|---|---|
| 0 | well |
| 1 | failed; the sentence on stderr says what, and what to do |
| 2 | wrong usage |
| 3 | no daemon answers |
| 4 | the history that was asked for was deleted, or belongs to another journal |
| 130 | interrupted by Ctrl-C (143 by SIGTERM; `serve` then exits with 0), as a shell says it |
| 141 | nobody reads the output any more |

"""

_COLUMNS = """\
The columns of the table: SCOPE says whose limit was hit, seen from the victim's cgroup (`own`, an
`ancestor`'s, one `nested` in the container, the `node`'s, or `unknown`); KILLS is the rise of the
kernel's counter; VICTIM is the process, where a witness named one; CGROUP is where it lived, or
`below /x (2 candidates)` where that cannot be known, and in brackets the container, by its name or
by an id that the path lacks. Container ids are cut to twelve digits, or to as many as tell them
apart: `--filter container=` takes those, `--filter cgroup=` and `list` only whole paths, which
`-o json` has. TIME is local, and is when the kill was seen.

"""


def reference() -> str:
    """Return the whole of docs/cli.md."""
    top = click.Context(cli, info_name="oomwatch", **cli.context_settings)
    parts = [_PREFACE, _section(cli, top, level=2)]
    for name in cli.list_commands(top):
        command = cli.get_command(top, name)
        assert command is not None
        parts.append(_section(command, click.Context(command, parent=top, info_name=name), level=2))
        if name == "tail":
            parts.append(_COLUMNS)
    return "".join(parts).rstrip() + "\n"


def _section(command: click.Command, context: click.Context, *, level: int) -> str:
    lines = [f"{'#' * level} {context.command_path}", ""]
    lines += [_prose(command.help or ""), ""]
    pieces = " ".join(command.collect_usage_pieces(context))
    lines += [f"    {context.command_path} {pieces}", ""]
    records = [
        record for param in command.get_params(context) if (record := _record(param, context))
    ]
    if records:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
        lines += [""]
    lines += [_prose(command.epilog or ""), "", ""]
    return "\n".join(lines)


def _record(param: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    return param.get_help_record(context) if isinstance(param, click.Option) else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    r"""Turn click's paragraphs to Markdown: what \b keeps as it is becomes a block of code."""
    paragraphs: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            paragraphs.append(paragraph)
            continue
        title, *rest = paragraph.removeprefix("\b").lstrip("\n").split("\n")
        if rest and rest[0].startswith("  "):
            paragraphs += [title, "\n".join(f"    {line.removeprefix('  ')}" for line in rest)]
        else:
            paragraphs.append("\n".join([title, *rest]))
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
