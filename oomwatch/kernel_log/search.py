"""Finds the kills in a log of any size without reading all of it line by line.

Python looks for a word in a block of a megabyte at gigabytes a second, and at lines at a hundredth
of that. So the log is searched for the words of which one stands in every report and every kill,
and lines are read from there until the report is over. Line numbers are counted as line breaks in
what is passed over.

What these words cannot find is read because of where it stands: the start of a log, where the first
lines of a report may be cut off; some kilobytes before a kill that nothing led to; and some after
one, for its group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.journal_forms import AnyLineParser, ExportParser
from oomwatch.kernel_log.kill_record import KillRecord
from oomwatch.kernel_log.text import LineParser

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 18
_READ_FROM_START = 1 << 18
_READ_BEFORE = 1 << 16
_READ_AFTER = 1 << 11
_PATIENCE = 1 << 18

# The longer a word, the faster it is looked for: these are as long as every kernel prints them.
_INVOKED = b" invoked oom-killer: gfp_mask=0x"
_WORDS = (b"Killed process ", b"oom-kill:constraint=CONSTRAINT_", _INVOKED)
# In JSON a message with an odd byte in it is an array of numbers, where no word can be found.
_ARRAYS = (b'"MESSAGE":[', b'"MESSAGE" : [')
_LONGEST_WORD = max(map(len, _WORDS))
_BEFORE = (b" invoked oom-killer", b"Tasks in ", b"Task in /", b"memory: usage ", b"total_vm ")
# Each begins with a letter and not a class of them: then the engine skips to that letter.
_OF_A_REPORT = re.compile(
    rb"oom-kill|oom_reaper: r|oom_kill_process: |Kill|kill process|killable|killed|Task in /"
    rb"|Tasks in |: usage |total_vm|cgroup stats|mems_allowed=|memcg=|,task=|global_oom|victim"
    rb'|callbacks|Linux version|"MESSAGE":\[|"MESSAGE" : \[|\] +\d+ +\d+ '
)

Progress = Callable[[int], None]


class Readable(Protocol):
    """What a log is read from: any binary file of Python's."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer; return how much of it, 0 at the end."""


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

    def kills(self, log: Readable) -> Iterator[KillRecord]:
        """Give every kill of the log, in its order; the log need not be seekable.

        Raises what reading the log raises.
        """
        # One buffer for all blocks: what is kept of the last one moves to its front.
        buffer = bytearray(BLOCK_BYTES + _READ_BEFORE + 2 * MAX_LINE_BYTES)
        held = known = 0
        while True:
            with memoryview(buffer)[held : held + BLOCK_BYTES] as room:
                got = log.readinto(room) or 0
            if not got:
                break
            if not self.bytes_read:
                self._begin(buffer[:got])
            self.bytes_read += got
            end = held + got
            whole = buffer.rfind(b"\n", 0, end) + 1
            kept = yield from self._search(buffer, whole, known)
            known = whole - kept
            # Of a line without an end, its beginning stands for it.
            end = min(end, whole + MAX_LINE_BYTES)
            held = end - kept
            buffer[:held] = buffer[kept:end]
            if self._progress is not None:
                self._progress(self.bytes_read)
        if held:
            buffer[held : held + 1] = b"\n"
            yield from self._search(buffer, held + 1, 0)
        if isinstance(self._parser, ExportParser):
            record = self._parser.finish()
            yield from self.assembler.feed(record) if record is not None else ()
        yield from self.assembler.flush()

    def _begin(self, block: bytearray) -> None:
        if block.lstrip().startswith(b"__CURSOR="):
            self._parser = ExportParser()
        elif b'"MESSAGE"' in block:
            self._words = _WORDS + _ARRAYS

    def _search(self, block: bytearray, whole: int, known: int) -> Generator[KillRecord, None, int]:
        """Read what must be read of the block's whole lines; return where to go on from.

        In the first `known` bytes no word was found the last time; one may reach beyond them.
        """
        at = 0
        unknown = max(0, known - _LONGEST_WORD)
        next_of = [-1] * len(self._words)
        while at < whole:
            until = self._reading_until()
            if until > self._at:
                start = self._candidate(block, at, min(whole, at + until - self._at))
                self._pass(block, at, start)
                at = start
                if at < whole and self._at < until:
                    end = block.find(b"\n", at) + 1
                    yield from self._read(
                        bytes(block[at : min(end, at + MAX_LINE_BYTES)]), end - at
                    )
                    at = end
                continue
            for number, word in enumerate(self._words):
                if next_of[number] < at:
                    found = block.find(word, max(at, unknown), whole)
                    next_of[number] = whole if found < 0 else found
            hit = min(next_of)
            start = self._start(block, at, hit, whole)
            self._pass(block, at, start)
            at = start
            if hit == whole:
                break
            self._read_until = self._at + hit - start + 1
        return at

    def _reading_until(self) -> int:
        """The offset up to which lines are read, whatever is in them."""
        if self._parser.pending:
            return self._at + BLOCK_BYTES
        if self.assembler.waiting:
            return max(self._read_until, self._patient_until)
        return self._read_until

    def _candidate(self, block: bytearray, at: int, until: int) -> int:
        """Where the next line that can be of a report begins, or the one that holds `until`."""
        if self.assembler.wants_piece or self._parser is not self._lines:
            return at
        found = _OF_A_REPORT.search(block, at, until)
        return max(at, block.rfind(b"\n", at, until if found is None else found.start()) + 1)

    def _pass(self, block: bytearray, at: int, start: int) -> None:
        self._line += block.count(b"\n", at, start)
        self._at += start - at

    def _start(self, block: bytearray, at: int, hit: int, whole: int) -> int:
        """Where to read from for the word at `hit`; with no hit, what the next block may need."""
        earliest = max(at, hit - _READ_BEFORE)
        if earliest > at:
            earliest = block.find(b"\n", earliest - 1, whole) + 1
        if hit == whole:
            return earliest
        line = max(at, block.rfind(b"\n", at, hit) + 1)
        if isinstance(self._parser, ExportParser):
            return max(at, block.rfind(b"\n\n", at, hit) + 2)
        if block.startswith(_INVOKED, hit):
            return line
        before = [found for word in _BEFORE if (found := block.find(word, earliest, line)) >= 0]
        return max(at, block.rfind(b"\n", at, min(before)) + 1) if before else line

    def _read(self, line: bytes, length: int) -> list[KillRecord]:
        number = self._line
        self._line += 1
        self._at += length
        assembler = self.assembler
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
