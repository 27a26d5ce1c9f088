"""Opens a log that may be compressed, told by its first bytes: gzip, xz, bzip2 or Zstandard.

Zstandard is read by Python's own module where there is one (3.14), and by the `zstd` program before
that: a package more to install would serve nothing else here.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from oomwatch.errors import OomwatchError
from oomwatch.kernel_log.search import Readable

STDIN = "-"
_GZIP, _XZ, _BZIP2, _ZSTANDARD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
_LONGEST_MAGIC = 6


class LogUnreadable(OomwatchError):
    """A log cannot be opened, or not be read to its end."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """An open log. `size` is how many bytes there are to read, `None` where that cannot be known;
    `position` tells how many of them were.
    """

    name: str
    stream: Readable
    size: int | None
    position: Callable[[], int]


@contextmanager
def open_log(path: str) -> Iterator[LogFile]:
    """Open a log for reading; "-" is stdin. What fails while it is open is told as of this log.

    Raises LogUnreadable, whose sentence names the path.
    """
    import lzma
    import zlib

    name = "<stdin>" if path == STDIN else path
    try:
        with _raw(path) as raw:
            size = os.fstat(raw.fileno()).st_size if raw.seekable() else None
            # A pipe gives little at a time, and cannot be gone back in.
            file: Any = raw if raw.seekable() else io.BufferedReader(raw, 1 << 20)
            begin = _first_bytes(file)
            with _decompressed(file, begin, name) as stream:
                position = raw.tell if raw.seekable() else int
                yield LogFile(name, stream, size, position)
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise LogUnreadable(f"{name}: damaged or cut off: {error}") from error
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        mend = "; run as root, or give this user the right" if _is_refusal(error) else ""
        raise LogUnreadable(f"{name}: {error.strerror or error}{mend}") from error


def _is_refusal(error: OSError) -> bool:
    return isinstance(error, PermissionError)


def _raw(path: str) -> io.FileIO:
    if path == STDIN:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    return io.FileIO(path)


def _first_bytes(file: Any) -> bytes:
    if isinstance(file, io.BufferedReader):
        return file.peek(_LONGEST_MAGIC)[:_LONGEST_MAGIC]
    begin = file.read(_LONGEST_MAGIC)
    file.seek(0)
    return cast(bytes, begin)


@contextmanager
def _decompressed(file: Any, begin: bytes, name: str) -> Iterator[Readable]:
    if begin.startswith(_GZIP):
        import gzip

        with gzip.GzipFile(fileobj=file) as stream:
            yield cast(Readable, stream)
    elif begin.startswith(_XZ):
        import lzma

        with lzma.LZMAFile(file) as unpacked:
            yield cast(Readable, unpacked)
    elif begin.startswith(_BZIP2):
        import bz2

        with bz2.BZ2File(file) as unpacked_bz2:
            yield cast(Readable, unpacked_bz2)
    elif begin.startswith(_ZSTANDARD):
        with _zstandard(file, name) as stream_zst:
            yield stream_zst
    else:
        yield file


@contextmanager
def _zstandard(file: Any, name: str) -> Iterator[Readable]:
    if sys.version_info >= (3, 14):
        from compression import zstd

        with zstd.ZstdFile(file) as stream:
            yield cast(Readable, stream)
        return
    import shutil
    import subprocess
    import threading

    program = shutil.which("zstd")
    if program is None:
        raise LogUnreadable(
            f"{name}: compressed by Zstandard, which needs Python 3.14 or the zstd program: "
            "install zstd, or give the log unpacked"
        )
    # A pipe was looked into, so that its beginning is in our buffer: the program is fed from there.
    fed = isinstance(file, io.BufferedReader)
    with subprocess.Popen(
        [program, "-dcq"],
        stdin=subprocess.PIPE if fed else file.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        if fed:
            threading.Thread(target=_feed, args=(file, process.stdin), daemon=True).start()
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield cast(Readable, process.stdout)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            words = process.stderr.read(1000).decode("utf-8", "replace").strip()
            raise LogUnreadable(f"{name}: damaged or cut off: {words}")


def _feed(source: io.BufferedReader, sink: BinaryIO) -> None:
    """Hand a pipe on to a program, as long as that reads."""
    import shutil
    from contextlib import suppress

    # It says itself, by its exit status, why it stopped.
    with suppress(BrokenPipeError), sink:
        shutil.copyfileobj(source, sink, 1 << 20)
