"""What a gVisor sandbox itself wrote of its end: its debug log, and the Go runtime's panic.

The sentry's command line names the descriptors (`--debug-log-fd`, `--panic-log-fd`, `--log-fd`:
runsc/sandbox/sandbox.go), and while it lives /proc says which files those are. A sentry that is
killed writes nothing; one that lost a stub writes which (pkg/sentry/platform/ptrace/subprocess.go)
and kills itself, uncounted: the kernel's log then has a pid that is not the sentry's.

The logs hold what the application made the sentry say: a line counts from its beginning to its end.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oomwatch.escaping import escape

_DESCRIPTORS = re.compile(r"--(?:debug-log|panic-log|log)-fd=(\d{1,6})", re.ASCII)
_STUB = re.compile(
    rb"W\d{4} [\d:.]{8,20} {1,8}\d{1,10} subprocess\.go:\d{1,5}\] "
    rb"(The ptrace stub process (\d{1,10}) has been killed by SIGKILL\.)"
)
_PANIC = re.compile(rb"(?:panic: |fatal error: |runtime: out of memory|runtime: cannot allocate)")
_NO_MEMORY = re.compile(rb"out of memory|cannot allocate memory")
_MOST_LOGS = 3
_HEAD_BYTES, _TAIL_BYTES = 1 << 14, 1 << 16
_WORDS_BYTES = 200


@dataclass(frozen=True, slots=True)
class SandboxLog:
    """A log of a sandbox that runs: the file, and where in it what is still to come begins."""

    path: str
    inode: int
    begin: int


@dataclass(frozen=True, slots=True)
class SandboxWords:
    """What the logs say: stubs that were killed, its own lines, and whether it had no memory."""

    stubs: tuple[int, ...] = ()
    lines: tuple[str, ...] = ()
    out_of_memory: bool = False


def logs_of(pid: int, cmdline: Iterable[str]) -> tuple[SandboxLog, ...]:
    """Find the logs of a sentry that runs; those that are no files are left out."""
    found: dict[int, SandboxLog] = {}
    for word in cmdline:
        descriptor = _DESCRIPTORS.fullmatch(word)
        if descriptor is None or len(found) >= _MOST_LOGS:
            continue
        try:
            link = Path(f"/proc/{pid}/fd/{descriptor[1]}")
            path, status = link.readlink(), link.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found[status.st_ino] = SandboxLog(str(path), status.st_ino, status.st_size)
    return tuple(found.values())


def read(logs: Iterable[SandboxLog]) -> SandboxWords:
    """Read what was written since, its beginning and its end; nothing where that cannot be."""
    stubs: dict[int, None] = {}
    said: list[str] = []
    out_of_memory = False
    for log in logs:
        for line in _lines(log):
            stub, panic = _STUB.fullmatch(line), _PANIC.match(line)
            if stub is not None:
                stubs[int(stub[2])] = None
            elif panic is not None:
                out_of_memory = out_of_memory or _NO_MEMORY.search(line) is not None
            words = stub[1] if stub is not None else line if panic is not None else b""
            if words and len(said) < _MOST_LOGS:
                said.append(escape(words[:_WORDS_BYTES].decode("utf-8", "surrogateescape")))
    return SandboxWords(tuple(stubs), tuple(said), out_of_memory)


def _lines(log: SandboxLog) -> Iterator[bytes]:
    try:
        # Whoever can write there may have put a FIFO or a link in its place.
        file = os.open(log.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_ino != log.inode:
            return
        head = os.pread(file, _HEAD_BYTES, log.begin)
        after = log.begin + len(head)
        tail_begin = max(after, status.st_size - _TAIL_BYTES)
        tail = os.pread(file, _TAIL_BYTES, tail_begin)
    except OSError:
        return
    finally:
        os.close(file)
    if tail_begin == after:
        yield from (head + tail).split(b"\n")
    else:
        yield from head.split(b"\n")[:-1]
        yield from tail.split(b"\n")[1:]
