"""The kernel log witness, for the line that names each victim: `source`, which see.

`kmsg` follows /dev/kmsg, `text_file` a log that a syslog daemon writes, `systemd` systemd's
journal; each is a `feed.Feed` of records. `naming` makes observations of them, `clock` knows when
they were.
"""

from oomwatch.sources.kernel_log.source import DEFAULT_KERNEL_LOG, SYSTEMD_JOURNAL, KernelLog

__all__ = ["DEFAULT_KERNEL_LOG", "SYSTEMD_JOURNAL", "KernelLog"]
