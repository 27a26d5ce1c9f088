"""The parts' log records on stderr: one line each, and nothing in it that a terminal would obey."""

from __future__ import annotations

import logging
import sys

from oomwatch.cli.terminal import escape


class OneLine(logging.Formatter):
    """Writes a record as one escaped line; a traceback's lines are joined to it by bars."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return escape(super().format(record).replace("\n", " | "))


def log_to_stderr(level: int) -> None:
    """Send the records of every part from `level` on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level, handlers=[handler], force=True)
