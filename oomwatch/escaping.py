"""Text from outside, made harmless for a terminal, a log line or the sentence of an error.

A cgroup's name is anything but a newline and a slash, a comm is fifteen arbitrary bytes, a label is
whatever its author liked. Printed raw they can move the cursor, set the window's title, turn the
line around (U+202E), or begin a line of a log that nobody wrote.
"""

from __future__ import annotations

LONGEST_SENTENCE = 2000


def escape(text: str) -> str:
    r"""Return `text` with every character that does not simply print as \xNN, \uNNNN or \UNNNNNNNN.

    What does not print is what `str.isprintable` refuses: control characters, the bidirectional
    and other invisible format characters, line and paragraph separators, every space but U+0020,
    surrogates, and what Unicode has not assigned. A byte that was not UTF-8 (a lone surrogate by
    PEP 383) is shown as that byte. A backslash stays as it is, because systemd's unit names are
    full of them; where it matters which is which, ask for JSON.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def quoted(text: str, most: int = 120) -> str:
    """Quote what somebody sent, for a sentence: escaped, and no more than its beginning."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}… ({len(text)} characters)"


def sentence(text: str) -> str:
    """Return a sentence that may quote anything as one that prints, and is not endless."""
    cut = text if len(text) <= LONGEST_SENTENCE else f"{text[:LONGEST_SENTENCE]}…"
    return escape(cut)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: the byte 0x80..0xff of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
