"""The verdict table as docs/semantics.md prints it: `python -m oomwatch.verdict.table`."""

from __future__ import annotations

from oomwatch.verdict.rows import ROWS


def markdown() -> str:
    """Return the rows as a table, in the order in which they are tried."""
    lines = ["| | evidence | verdict | confidence | row |", "|---|---|---|---|---|"]
    lines += [
        f"| {number} | {row.when} | `{row.verdict}` | `{row.confidence}` | {row.name} |"
        for number, row in enumerate(ROWS, 1)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
