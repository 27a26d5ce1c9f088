"""Cuts a stream of bytes into lines, each with its place; a part of one waits for its end."""

from __future__ import annotations

from oomwatch.kernel_log.journal_forms import MAX_JSON_BYTES


class LineCutter:
    """Bounded: a line longer than any record is dropped, and counted as `malformed`."""

    def __init__(self, at: int = 0) -> None:
        self.malformed = 0
        self._held = bytearray()
        self._at = at
        self._dropping = False

    def cut(self, read: bytes) -> list[tuple[int, bytes]]:
        """Take in what was read; return the whole lines, each with where it begins."""
        self._held += read
        end = self._held.rfind(b"\n") + 1
        lines: list[tuple[int, bytes]] = []
        for text in bytes(self._held[:end]).split(b"\n")[:-1]:
            line = text + b"\n"
            if not lines and self._dropping:
                self._dropping = False
            else:
                lines.append((self._at, line))
            self._at += len(line)
        del self._held[:end]
        if len(self._held) > MAX_JSON_BYTES:
            self.malformed += not self._dropping
            self._dropping = True
            self._at += len(self._held)
            self._held.clear()
        return lines
