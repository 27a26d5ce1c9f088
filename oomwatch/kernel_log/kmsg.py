r"""Records of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).

    6,524,25808009,-,caller=T245;oom-kill:constraint=…
     SUBSYSTEM=memory

Priority (facility * 8 + level), sequence, microseconds of the kernel's clock, flags; fields that
are added later are ignored, as are the `KEY=value` lines after the first. The kernel writes every
byte that does not print, and the backslash, as `\xNN`.
"""

from __future__ import annotations

import re

from oomwatch.kernel_log.record import MAX_RECORD_BYTES, Record

_PREFIX = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,20}),([^,;]{0,16})((?:,[^,;]{0,64}){0,16});")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


def parse_kmsg(raw: bytes, *, line: int = 0) -> Record | None:
    """Read one record as read(2) gives it; `None` for what is no such record.

    Records that user space wrote are given too (`Record.from_kernel` is False): a follower counts
    their sequence numbers. `wall_time` is left to the caller, who knows the clocks.
    """
    prefix = _PREFIX.match(raw)
    if prefix is None:
        return None
    text = raw[prefix.end() : prefix.end() + MAX_RECORD_BYTES].partition(b"\n")[0]
    if b"\\" in text:
        text = unescape(text)
    priority, sequence, microseconds, flags, rest = prefix.groups()
    caller = None
    if rest:
        for field in rest.split(b","):
            if field.startswith(b"caller="):
                caller = field[7:].decode("ascii", "replace")
    return Record(
        text=text,
        kernel_time_seconds=int(microseconds) / 1e6,
        sequence=int(sequence),
        # Before 4.9 "c" began a line in pieces and "+" went on with it.
        continued=flags in (b"c", b"+"),
        caller=caller,
        priority=int(priority),
        line=line,
        exact=True,
    )


def unescape(text: bytes) -> bytes:
    r"""Undo the kernel's `\xNN`, once: what comes out is not looked at again."""
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text)
