"""Waits for a machine's end, as long as it gives signs of life."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

# guest.sh gives a sign every five seconds. A machine out of memory may take minutes for one; one
# whose kernel waits for itself gives none ever (seen: three quarters of an hour of CI for nothing).
STILL_SECONDS = 300.0


class TookTooLong(Exception):
    """The time is up. The message says how long it was."""


class StoodStill(Exception):
    """It gave no sign any more. The message says for how long."""


def wait(machine: subprocess.Popen[bytes], alive: Path, *, until: float) -> None:
    """Return when the machine has ended; until then each touch of `alive` is a sign of life.

    `until` is when it must have, monotonic seconds. Raises TookTooLong and StoodStill, and leaves
    it to the caller to end the machine.
    """
    began = seen = time.monotonic()
    sign = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            machine.wait(1.0)
            return
        now = time.monotonic()
        with suppress(FileNotFoundError):
            last = alive.stat().st_mtime_ns
            if last != sign:
                sign, seen = last, now
        if now > until:
            raise TookTooLong(f"ended it after {now - began:.0f} s: the command took too long")
        if now - seen > STILL_SECONDS:
            raise StoodStill(f"ended it: it stood still for {now - seen:.0f} s")
