"""Opens a log that may be compressed, told by its first bytes: gzip, xz, bzip2 or Zstandard."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

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
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        try:
            with zstd.ZstdFile(file) as unpacked_zst:
                yield cast(Readable, unpacked_zst)
        except zstd.ZstdError as error:
            raise LogUnreadable(f"{name}: damaged or cut off: {error}") from error
    else:
        yield file
