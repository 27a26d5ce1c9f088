"""Debian's userspace OOM killers, and where what they write goes.

Both ask who has the largest oom_score once less memory is available than they were told to keep
free: they are told so much that a container which takes 400 MiB is enough.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MEBIBYTE_IN_KIB = 1024
NOHANG_OWN_LOG = Path("/var/log/nohang/nohang.log")
"""Where nohang writes with `separate_log`."""

_NOHANG_CONFIG = Path("/usr/share/nohang/nohang.conf")


@contextmanager
def earlyoom(log: Path) -> Iterator[None]:
    """earlyoom, its output in a file."""
    with log.open("ab") as output, _running(_earlyoom(), output.fileno()):
        yield


@contextmanager
def earlyoom_in_the_journal() -> Iterator[None]:
    """earlyoom, its output sent to journald as systemd does it for a unit."""
    with _running((*_TO_THE_JOURNAL, *_earlyoom())):
        yield


@contextmanager
def nohang(log: Path, folder: Path) -> Iterator[None]:
    """nohang, its output in a file."""
    with log.open("ab") as output, _running(_nohang(folder), output.fileno()):
        yield


@contextmanager
def nohang_with_a_log_of_its_own(folder: Path) -> Iterator[None]:
    """nohang with its `separate_log`, and without its victims' status."""
    with _running(_nohang(folder, separate_log="True", print_victim_status="False")):
        yield


@contextmanager
def nohang_in_the_journal(folder: Path) -> Iterator[None]:
    """nohang, its output sent to journald as systemd does it for a unit."""
    with _running((*_TO_THE_JOURNAL, *_nohang(folder))):
        yield


_TO_THE_JOURNAL = ("sh", "-c", 'exec systemd-cat --identifier="${1##*/}" "$@"', "sh")


def _earlyoom() -> tuple[str, ...]:
    """The words that start it: it kills when 200 MiB more are in use than now.

    A container's main process need not listen to its SIGTERM, and is killed when 100 MiB more are
    gone. A sandbox's memory is free some time after its sentry: who else would be killed until then
    is to be spared.
    """
    free = max(_available() - 200 * MEBIBYTE_IN_KIB, 200 * MEBIBYTE_IN_KIB)
    thresholds = ("-M", f"{free},{free - 100 * MEBIBYTE_IN_KIB}")
    spared = ("--avoid", "^(python|docker|containerd|runsc)")
    return ("earlyoom", "-r", "0", *thresholds, *spared)


def _nohang(folder: Path, **options: str) -> tuple[str, ...]:
    """The words that start it, with Debian's configuration but for when it kills."""
    free = _available() // MEBIBYTE_IN_KIB - 200
    options |= {"soft_threshold_min_mem": f"{free} M", "hard_threshold_min_mem": f"{free - 50} M"}
    text = _NOHANG_CONFIG.read_text()
    for key, value in options.items():
        text, found = re.subn(rf"^{key}\b.*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    config = folder / "nohang.conf"
    config.write_text(text)
    return ("/usr/sbin/nohang", "--monitor", "--config", str(config))


@contextmanager
def _running(command: Sequence[str], output: int = subprocess.DEVNULL) -> Iterator[None]:
    killer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
        assert killer.poll() is None, f"{command[0]} ended with {killer.returncode}"
    finally:
        killer.kill()
        killer.wait()


def _available() -> int:
    """How much memory can be had without swapping, in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
