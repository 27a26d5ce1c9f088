"""How far a long reading has come: one line on stderr, if that is a terminal and it takes long."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from oomwatch.cli.terminal import escape, pad
from oomwatch.cli.times import human_bytes

_FIRST_AFTER = 0.5
_EVERY = 0.1
_BAR = 24
_NAME = 30


class ProgressBar:
    """Shows itself half a second after the first `show`, and is gone after `clear`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._enabled = self._stream.isatty()
        self._next = time.monotonic() + _FIRST_AFTER
        self._shown = 0

    def show(self, name: str, read: int, size: int | None, found: int) -> None:
        """Tell that `read` of `size` bytes were read, and how many kills were found in them."""
        if not self._enabled or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        if size:
            share = min(1.0, read / size)
            full = round(share * _BAR)
            amount = f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%} of {human_bytes(size)}"
        else:
            amount = human_bytes(read)
        short = name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
        text = f"{escape(short)} {amount}, {found} kill{'' if found == 1 else 's'}"
        self._write(pad(text, self._shown))
        self._shown = len(text)

    def clear(self) -> None:
        """Take the line away, before something else is printed on the same terminal."""
        if self._shown:
            self._write(" " * self._shown)
            self._shown = 0

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text}\r")
        self._stream.flush()
