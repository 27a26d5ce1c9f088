"""What `journalctl -o json` and `-o export` write (systemd.journal-fields(7)), and Docker's JSON.

A field whose value is not clean UTF-8 is an array of bytes in JSON, and in the export format a
length and the bytes. A record is the kernel's if its transport is, and its facility is 0: what user
space writes to /dev/kmsg passes through the same transport.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from oomwatch.kernel_log.record import MAX_RECORD_BYTES, Record
from oomwatch.kernel_log.text import LineParser

MAX_JSON_BYTES = 1 << 18
_MAX_FIELDS = 256
_WANTED = (
    b"MESSAGE",
    b"PRIORITY",
    b"SYSLOG_FACILITY",
    b"SYSLOG_IDENTIFIER",
    b"_HOSTNAME",
    b"_SOURCE_MONOTONIC_TIMESTAMP",
    b"_SOURCE_REALTIME_TIMESTAMP",
    b"_TRANSPORT",
    b"__REALTIME_TIMESTAMP",
)


class AnyLineParser(LineParser):
    """Reads lines of any form that keeps a record on one line, JSON included."""

    def parse(self, line: bytes, number: int = 0) -> Record | None:
        """Give the kernel's record in a line, or `None`."""
        if line[:1] != b"{":
            return super().parse(line, number)
        if len(line) > MAX_JSON_BYTES:
            return None
        try:
            fields = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        if "MESSAGE" in fields:
            return _from_journal(lambda name: _value(fields.get(name)), number)
        log = fields.get("log")
        if isinstance(log, str):
            return super().parse(_encoded(log), number)
        return None


class ExportParser:
    """Reads the export format, line by line; a record comes when its last line was read."""

    def __init__(self) -> None:
        self._fields: dict[bytes, bytes] = {}
        self._line = 0
        self._binary: tuple[bytes, bytearray] | None = None

    @property
    def pending(self) -> bool:
        """Whether a record was begun."""
        return bool(self._fields) or self._binary is not None

    def parse(self, line: bytes, number: int = 0) -> Record | None:
        """Take the next line, with its line break; give the record that it ends, if it does."""
        if self._binary is not None:
            self._more(line)
            return None
        line = line.rstrip(b"\n")
        if not line:
            return self.finish()
        if not self._fields:
            self._line = number
        name, equals, value = line.partition(b"=")
        if name == b"MESSAGE":
            self._line = number
        if not equals:
            self._binary = (name, bytearray())
        else:
            self._keep(name, value)
        return None

    def finish(self) -> Record | None:
        """Give the record that the end of the file ends, if there is one."""
        fields, self._fields, self._binary = self._fields, {}, None
        if b"MESSAGE" not in fields:
            return None
        return _from_journal(lambda name: fields.get(name.encode()), self._line)

    def _keep(self, name: bytes, value: bytes) -> None:
        if name in _WANTED and len(self._fields) < _MAX_FIELDS:
            self._fields[name] = value[:MAX_RECORD_BYTES]

    def _more(self, line: bytes) -> None:
        assert self._binary is not None
        name, held = self._binary
        held += line
        if len(held) < 8:
            return
        size = int.from_bytes(held[:8], "little")
        if size > MAX_JSON_BYTES:
            # No field of a kernel's record: this was no length.
            self._binary = None
        elif len(held) >= 8 + size:
            self._keep(name, bytes(held[8 : 8 + size]))
            self._binary = None


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # JSON may name half a character: "\\ud800"
        return text.encode("utf-8", "replace")


def _value(value: Any) -> bytes | None:
    if isinstance(value, str):
        return _encoded(value)
    if isinstance(value, list):
        # An array of bytes; or, for a field given more than once, of values: the first is told.
        if value and all(isinstance(each, int) and 0 <= each <= 255 for each in value):
            return bytes(value)
        return _value(value[0]) if value and not isinstance(value[0], list) else None
    return str(value).encode() if isinstance(value, int) else None


def _from_journal(field: Callable[[str], bytes | None], line: int) -> Record | None:
    message = field("MESSAGE")
    if message is None:
        return None
    transport = field("_TRANSPORT")
    if transport is None:
        if field("SYSLOG_IDENTIFIER") != b"kernel":
            return None
    elif transport != b"kernel":
        return None
    if (field("SYSLOG_FACILITY") or b"0") != b"0":
        return None
    wall_time = _number(field("_SOURCE_REALTIME_TIMESTAMP"))
    monotonic = _number(field("_SOURCE_MONOTONIC_TIMESTAMP"))
    host = field("_HOSTNAME")
    return Record(
        text=message[:MAX_RECORD_BYTES],
        kernel_time_seconds=None if monotonic is None else monotonic / 1e6,
        wall_time=_number(field("__REALTIME_TIMESTAMP")) if wall_time is None else wall_time,
        host=None if host is None else host.decode("utf-8", "replace"),
        line=line,
        exact=True,
    )


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None
