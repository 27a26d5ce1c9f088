"""Finds the kills in a log of any size without reading all of it line by line.

Python looks for a word in a block of a megabyte at gigabytes a second, and at lines at a hundredth
of that. So the log is searched for two words, one of which stands in every report and every kill
(`oom-kill`, which the first line and the summary hold, and `Killed process`), and lines are read
from there until the report is over. Line numbers are counted as line breaks in what is passed over.

What two words cannot find is read because of where it stands: the start of a log, where the first
lines of a report may be cut off; some kilobytes before a kill that nothing led to; and some after
one, for its group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO

from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.journal_forms import AnyLineParser, ExportParser
from oomwatch.kernel_log.kill_record import KillRecord
from oomwatch.kernel_log.text import LineParser

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 18
_READ_FROM_START = 1 << 18
_READ_BEFORE = 1 << 16
_READ_AFTER = 1 << 12
_PATIENCE = 1 << 18

_WORDS = (b"oom-kill", b"Killed process ")
# In JSON a message with an odd byte in it is an array of numbers, where no word can be found.
_ARRAYS = (b'"MESSAGE":[', b'"MESSAGE" : [')
_BEFORE = (b"Tasks in ", b"Task in /", b"memory: usage ", b"total_vm ")
_OF_A_REPORT = re.compile(
    rb"oom|[Kk]ill|usage|Task|total_vm|Memory cgroup|memcg=|mems_allowed=|,task=|OOM victim"
    rb'|going to be|Linux version|callbacks|"MESSAGE" ?: ?\[|\] +\d+ +\d+ '
)

Progress = Callable[[int], None]


class KillSearch:
    """Searches one log. `progress` is told how many bytes were read, after each block."""

    def __init__(self, lines: LineParser | None = None, progress: Progress | None = None) -> None:
        self.assembler = Assembler()
        self.bytes_read = 0
        self._lines = lines or AnyLineParser()
        self._parser: LineParser | ExportParser = self._lines
        self._words: tuple[bytes, ...] = _WORDS
        self._progress = progress
        # Where the next line stands that was not read or passed over: its number, its offset.
        self._line = 1
        self._at = 0
        self._read_until = _READ_FROM_START
        self._patient_until = 0

    def kills(self, log: BinaryIO) -> Iterator[KillRecord]:
        """Give every kill of the log, in its order; the log need not be seekable.

        Raises what reading the log raises.
        """
        rest = b""
        while True:
            block = log.read(BLOCK_BYTES)
            if not block:
                break
            if not self.bytes_read:
                self._begin(block)
            self.bytes_read += len(block)
            if rest:
                block = rest + block
            whole = block.rfind(b"\n") + 1
            kept = yield from self._search(block, whole)
            # Of a line without an end, its beginning stands for it.
            rest = block[kept : whole + MAX_LINE_BYTES]
            if self._progress is not None:
                self._progress(self.bytes_read)
        if rest:
            rest += b"\n"
            yield from self._search(rest, len(rest))
        if isinstance(self._parser, ExportParser):
            record = self._parser.finish()
            yield from self.assembler.feed(record) if record is not None else ()
        yield from self.assembler.flush()

    def _begin(self, block: bytes) -> None:
        if block.lstrip().startswith(b"__CURSOR="):
            self._parser = ExportParser()
        elif b'"MESSAGE"' in block:
            self._words = _WORDS + _ARRAYS

    def _search(self, block: bytes, whole: int) -> Generator[KillRecord, None, int]:
        """Read what must be read of the block's whole lines; return where to go on from."""
        at = 0
        next_of = [-1] * len(self._words)
        while at < whole:
            if self._reading():
                end = block.find(b"\n", at) + 1
                yield from self._read(block[at : min(end, at + MAX_LINE_BYTES)], end - at)
                at = end
                continue
            for number, word in enumerate(self._words):
                if next_of[number] < at:
                    found = block.find(word, at, whole)
                    next_of[number] = whole if found < 0 else found
            hit = min(next_of)
            start = self._start(block, at, hit, whole)
            self._line += block.count(b"\n", at, start)
            self._at += start - at
            at = start
            if hit == whole:
                break
            self._read_until = self._at + hit - start + 1
        return at

    def _reading(self) -> bool:
        if self._at < self._read_until or self._parser.pending:
            return True
        return self._at < self._patient_until and self.assembler.waiting

    def _start(self, block: bytes, at: int, hit: int, whole: int) -> int:
        """Where to read from for the word at `hit`; with no hit, what the next block may need."""
        earliest = max(at, hit - _READ_BEFORE)
        if earliest > at:
            earliest = block.find(b"\n", earliest - 1, whole) + 1
        if hit == whole:
            return earliest
        line = max(at, block.rfind(b"\n", at, hit) + 1)
        if isinstance(self._parser, ExportParser):
            return max(at, block.rfind(b"\n\n", at, hit) + 2)
        if block.startswith(b"oom-killer", hit):
            return line
        before = [found for word in _BEFORE if (found := block.find(word, earliest, line)) >= 0]
        return max(at, block.rfind(b"\n", at, min(before)) + 1) if before else line

    def _read(self, line: bytes, length: int) -> list[KillRecord]:
        number = self._line
        self._line += 1
        self._at += length
        assembler = self.assembler
        if (
            _OF_A_REPORT.search(line) is None
            and not assembler.wants_piece
            and self._parser is self._lines
        ):
            return []
        record = self._parser.parse(line, number)
        if record is None:
            return []
        used = assembler.used
        kills = assembler.feed(record)
        if assembler.used != used:
            self._patient_until = self._at + _PATIENCE
        if kills:
            self._read_until = self._at + _READ_AFTER
        return kills
