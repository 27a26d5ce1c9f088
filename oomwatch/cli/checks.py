"""What `oomwatch doctor` looks at: each check is a small function of a host, maybe a fake one.

A check is `failed` only where no kill of any cgroup can be seen; where something is missing that
makes events poorer, later or less sure it is `degraded`. What was not judged is `skipped`. Nothing
is changed on the host.
"""

from __future__ import annotations

import grp
import os
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from oomwatch.containers.gvisor import inside_sandbox

# include/linux/proc_ns.h: the inode numbers of the namespaces that the kernel starts with.
_INITIAL_PID, _INITIAL_CGROUP = 4026531836, 4026531835
# include/uapi/linux/capability.h
_CAPABILITIES = {19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 34: "CAP_SYSLOG"}
# One on the directory, one on memory.events.local.
_WATCHES_PER_CGROUP = 2


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was found, and, unless all is well, what would mend it."""

    name: str
    state: State
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """Where to look. `root` stands for "/": a test hands a directory with proc/, sys/ and dev/."""

    root: Path = Path("/")

    def path(self, absolute: str) -> Path:
        """The file that stands for that absolute path."""
        return self.root / absolute.lstrip("/")

    def text(self, absolute: str) -> str | None:
        """The file's text, None where it cannot be read."""
        return read(self.path(absolute))


def read(path: Path) -> str | None:
    """The text of a small file, None where it cannot be read."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return None


def check_inotify(host: Host, cgroups: int) -> Check:
    """Are there watches enough for every cgroup? Those that get none are polled."""
    limits: dict[str, int] = {}
    for name in ("max_user_watches", "max_user_instances", "max_queued_events"):
        text = host.text(f"/proc/sys/fs/inotify/{name}")
        if text is None:
            return Check(
                "inotify",
                State.DEGRADED,
                f"/proc/sys/fs/inotify/{name} cannot be read: this kernel may have no inotify",
                "None needed: cgroups are polled instead, which costs CPU and half a second.",
            )
        limits[name] = int(text)
    watches, instances = limits["max_user_watches"], limits["max_user_instances"]
    needed = _WATCHES_PER_CGROUP * cgroups + 1
    found = (
        f"{cgroups} cgroups need about {needed} watches of the {watches} a user may have "
        f"(shared with this user's other programs), and 1 of {instances} instances"
    )
    if instances < 1:
        return Check("inotify", State.DEGRADED, found, "sysctl fs.inotify.max_user_instances=128")
    if needed > watches:
        return Check(
            "inotify",
            State.DEGRADED,
            f"{found}: the rest is polled",
            f"sysctl fs.inotify.max_user_watches={max(65536, 4 * needed)}",
        )
    return Check("inotify", State.OK, found)


def check_permissions(host: Host) -> Check:
    """Root, or the capabilities that matter (CapEff of /proc/self/status)."""
    status = host.text("/proc/self/status") or ""
    uid_match = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.M)
    cap_match = re.search(r"^CapEff:\s+([0-9a-f]+)", status, re.M)
    if uid_match is None or cap_match is None:
        return Check(
            "permissions", State.DEGRADED, "/proc/self/status cannot be read", "Mount /proc."
        )
    capabilities = int(cap_match[1], 16)
    missing = [name for bit, name in _CAPABILITIES.items() if not capabilities >> bit & 1]
    who = "root" if uid_match[1] == "0" else f"uid {uid_match[1]}"
    if not missing:
        return Check("permissions", State.OK, f"{who}, with {', '.join(_CAPABILITIES.values())}")
    return Check(
        "permissions",
        State.DEGRADED,
        f"{who}, without {', '.join(missing)}: the counters can be read, other witnesses may not",
        "Run as root, or give the process these capabilities.",
    )


def check_namespaces(host: Host) -> Check:
    """Are we where pids and cgroup paths are the kernel's own?"""
    inside: list[str] = []
    for kind, initial, meaning in (
        ("pid", _INITIAL_PID, "the pids that the kernel prints are not those of /proc here"),
        ("cgroup", _INITIAL_CGROUP, "cgroups above the namespace's root cannot be seen"),
    ):
        try:
            target = str(host.path(f"/proc/self/ns/{kind}").readlink())
        except OSError:
            inside.append(f"the {kind} namespace cannot be told")
            continue
        if target != f"{kind}:[{initial}]":
            inside.append(f"not the initial {kind} namespace: {meaning}")
    if inside:
        return Check(
            "namespaces",
            State.DEGRADED,
            "; ".join(inside),
            "Run on the host, or with its namespaces (docker run --pid=host --cgroupns=host).",
        )
    return Check("namespaces", State.OK, "the initial pid and cgroup namespaces")


def check_kernel(host: Host, cgroup_root: Path) -> Check:
    """Which of the kernel's counters and figures are there, looked up in a real cgroup."""
    release = (host.text("/proc/sys/kernel/osrelease") or "").strip()
    sample = _first_with_memory(cgroup_root)
    kernel = f"Linux {release}" if release else "a kernel of unknown release"
    if sample is None:
        return Check("kernel", State.OK, f"{kernel}; no cgroup with memory to look at yet")
    lacks: list[str] = []
    if "oom_group_kill " not in (read(sample / "memory.events.local") or ""):
        lacks.append("oom_group_kill (5.17): group kills are not told as such")
    if not (sample / "memory.peak").exists():
        lacks.append("memory.peak (5.19): events carry no peak")
    if lacks:
        return Check(
            "kernel", State.DEGRADED, f"{kernel} has no {'; no '.join(lacks)}", "A newer kernel."
        )
    return Check("kernel", State.OK, f"{kernel}, with oom_kill, oom_group_kill and memory.peak")


def _first_with_memory(cgroup_root: Path) -> Path | None:
    for directory, _, files in os.walk(cgroup_root):
        if "memory.events.local" in files:
            return Path(directory)
    return None


def check_vmstat(host: Host) -> Check:
    """The node's own counter, which catches what was killed and removed at once."""
    match = re.search(r"^oom_kill (\d+)$", host.text("/proc/vmstat") or "", re.M)
    if match is None:
        return Check(
            "node counter",
            State.DEGRADED,
            "/proc/vmstat has no oom_kill: a top-level cgroup killed in and removed at once "
            "can be missed",
            "A kernel from 4.13 on, outside a sandbox, has it.",
        )
    return Check("node counter", State.OK, f"oom_kill in /proc/vmstat: {match[1]} since boot")


def check_kernel_log(host: Host) -> Check:
    """Could /dev/kmsg be read? It names the process."""
    path = host.path("/dev/kmsg")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        found, mend = "/dev/kmsg is not there", "In a container: --device /dev/kmsg."
    except OSError as error:
        restricted = (host.text("/proc/sys/kernel/dmesg_restrict") or "").strip() == "1"
        why = " (kernel.dmesg_restrict is 1)" if restricted else ""
        found = f"/dev/kmsg cannot be opened: {error.strerror}{why}"
        mend = "Run as root, or with CAP_SYSLOG and the device allowed."
    else:
        os.close(descriptor)
        return Check("kernel log", State.OK, "/dev/kmsg can be read, across restarts too")
    others = _other_kernel_logs(host)
    if others:
        mend += f" Or: oomwatch serve --kernel-log {' or '.join(others)}."
    return Check("kernel log", State.DEGRADED, f"{found}: the log cannot name the victims", mend)


def _other_kernel_logs(host: Host) -> list[str]:
    """What --kernel-log could be given here instead of the device."""
    # The files that hold the kernel's lines alone come first: in the others anybody may write.
    files = ("/var/log/kern.log", "/var/log/messages", "/var/log/syslog")
    found = [file for file in files if os.access(host.path(file), os.R_OK)][:1]
    stored = any(
        os.access(host.path(directory), os.R_OK)
        for directory in ("/var/log/journal", "/run/log/journal")
    )
    if stored and os.access(host.path("/usr/bin/journalctl"), os.X_OK):
        found.append("journal")
    return found


def check_tracepoint(host: Host) -> Check:
    """Is oom:mark_victim there?"""
    for tracefs in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.access(host.path(f"{tracefs}/events/oom/mark_victim/format"), os.R_OK):
            return Check("tracepoint", State.OK, f"oom:mark_victim in {tracefs}")
    return Check(
        "tracepoint",
        State.DEGRADED,
        "oom:mark_victim cannot be reached: tracefs is not mounted, or not for this user",
        "As root: mount -t tracefs tracefs /sys/kernel/tracing",
    )


def check_pressure(host: Host) -> Check:
    """Is PSI there, and on?"""
    text = host.text("/proc/pressure/memory")
    if text is None:
        return Check(
            "pressure",
            State.DEGRADED,
            "/proc/pressure/memory is not there or is switched off: no warning before a kill",
            "Boot with psi=1 (the kernel needs CONFIG_PSI).",
        )
    return Check("pressure", State.OK, "/proc/pressure/memory can be read")


def check_sandbox(host: Host) -> Check:
    """Are we inside gVisor, where the counters are a constant row of zeros?"""
    why = inside_sandbox(host.text("/proc/version") or "")
    if why is not None:
        return Check(
            "gVisor",
            State.FAILED,
            f"this is the inside of a gVisor sandbox ({why}): its memory.events counts no kill",
            "Run oomwatch on the host: there the sandbox is an ordinary cgroup.",
        )
    return Check("gVisor", State.OK, "this is not the inside of a gVisor sandbox")


FORBIDDEN = "permission denied"
"""What `why_silent` gives where somebody may listen, and the asker may not connect."""


def why_silent(path: Path) -> str | None:
    """None if somebody accepts connections at this Unix socket, else why not; without gRPC."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return "it is no socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(1)
            caller.connect(str(path))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def who_may(path: Path) -> str:
    """What it takes to connect to a socket that forbids it."""
    try:
        status = path.stat()
    except OSError:
        return "root"
    if not status.st_mode & stat.S_IWGRP:
        return "root, or its owner"
    try:
        name = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        name = str(status.st_gid)
    return f"root, or a member of the group {name}"


HOST_CHECKS: tuple[Callable[[Host], Check], ...] = (
    check_permissions,
    check_namespaces,
    check_vmstat,
    check_kernel_log,
    check_tracepoint,
    check_pressure,
    check_sandbox,
)
"""The checks that need nothing but the host."""
