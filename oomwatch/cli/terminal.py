"""What may reach a terminal: text through `escape`, and colours where they are wanted."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from typing import TextIO

from oomwatch.escaping import escape as escape


def width(text: str) -> int:
    """How many columns `text` takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    # Not unicodedata.combining: vowel signs and variation selectors take no room, and have class 0.
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return `text` filled with spaces to `columns`, aligned left, or right if asked."""
    filling = " " * max(0, columns - width(text))
    return filling + text if right else text + filling


def wants_colour(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Colours only on a terminal that is not dumb, and not where NO_COLOR (no-color.org) is set."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class Paint:
    """Puts SGR colours (ECMA-48) around text, or nothing at all when switched off."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def bold(self, text: str) -> str:
        """Bold: headers."""
        return self._sgr("1", text)

    def dim(self, text: str) -> str:
        """Faint: what is not known."""
        return self._sgr("2", text)

    def red(self, text: str) -> str:
        """Red: kills and failures."""
        return self._sgr("31", text)

    def yellow(self, text: str) -> str:
        """Yellow: what is degraded or unsure."""
        return self._sgr("33", text)

    def green(self, text: str) -> str:
        """Green: what is well."""
        return self._sgr("32", text)

    def _sgr(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._enabled else text
