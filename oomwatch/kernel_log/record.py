"""One record of a kernel's log, whatever form it was written down in."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RECORD_BYTES = 1 << 14
"""What is looked at of one record's text; the rest is cut off unseen.

The kernel's own records end at 1 KiB (kernel/printk/printk.c, PRINTKRB_RECORD_MAX); a summary put
together from its pieces holds two cgroup paths of at most 4 KiB each.
"""

COMM_BYTES = 15
"""The most bytes of a task's name (include/linux/sched.h, TASK_COMM_LEN less its end)."""

ESCAPED_COMM_BYTES = 4 * COMM_BYTES
r"""The same where a logger wrote each odd byte as four: `\x1b` by dmesg, `#033` by rsyslog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record, with what its form says about it; a `None` is not said.

    `text` is the message in bytes, as the kernel printed it where the form lets it be known.
    `kernel_time_seconds` is the kernel's own clock (seconds since boot, stopped in suspend),
    `wall_time` microseconds since the Unix epoch. `sequence`, `continued` (the flag "c": a piece of
    a line that was begun before) and `priority` are known from /dev/kmsg, `caller` (the task or
    processor that printed, "T12" or "C0") where CONFIG_PRINTK_CALLER is set. `host` is the host's
    name where a syslog wrote it. `line` counts the lines of a file from 1, 0 where there is none;
    in a log that is followed it is the place, any number that rises along it. `exact` says that the
    kernel's escapes were undone, so that every byte is the kernel's.
    """

    text: bytes
    kernel_time_seconds: float | None = None
    wall_time: int | None = None
    host: str | None = None
    sequence: int | None = None
    continued: bool = False
    caller: str | None = None
    priority: int | None = None
    line: int = 0
    exact: bool = False

    @property
    def from_kernel(self) -> bool:
        """Whether the kernel wrote it: user space can write to /dev/kmsg, but not as facility 0."""
        return self.priority is None or self.priority < 8

    @property
    def comm_bytes(self) -> int:
        """The most bytes that a task's name can take in this record."""
        return COMM_BYTES if self.exact else ESCAPED_COMM_BYTES


def to_text(name: bytes) -> str:
    """Give bytes from the kernel as text; those that are not UTF-8 as lone surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")
