"""systemd's journald, which needs no systemd: it makes the sockets itself that it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.runtimes.processes import DaemonProcess, answers

_JOURNALD = Path("/usr/lib/systemd/systemd-journald")
_SETTINGS = Path("/etc/systemd/journald.conf.d/tests.conf")
_SOCKETS = Path("/run/systemd/journal")
_JOURNALS = Path("/run/log/journal")


@contextmanager
def journald(data: Path) -> Iterator[None]:
    """Run it beside whatever runs here; it reads /dev/kmsg, and keeps its journal in memory."""
    _SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    _SETTINGS.write_text("[Journal]\nStorage=volatile\n")
    _SOCKETS.mkdir(parents=True, exist_ok=True)
    daemon = DaemonProcess(
        (_JOURNALD,), data / "journald.log", lambda: answers(_SOCKETS / "stdout")
    )
    daemon.start()
    try:
        yield
    finally:
        daemon.stop()
        shutil.rmtree(_JOURNALS, ignore_errors=True)
