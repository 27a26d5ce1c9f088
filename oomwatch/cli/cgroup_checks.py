"""Is there a cgroup v2 memory controller here, and if not, what is there instead?"""

from __future__ import annotations

import os
import re
from pathlib import Path

from oomwatch.cgroup.hierarchy import Mount, parse_mountinfo
from oomwatch.cli.checks import Check, Host, State, read

_UNIFY = (
    "Boot with the unified hierarchy: systemd.unified_cgroup_hierarchy=1 on the kernel's command "
    "line (without systemd: cgroup_no_v1=all). Until then the kernel's log (dmesg) and the node's "
    "count in /proc/vmstat still tell of kills, for the node as a whole."
)

_SANDBOXES = 8


def mounts(host: Host) -> list[Mount]:
    """Every mount that this process sees, from /proc/self/mountinfo."""
    return parse_mountinfo(host.text("/proc/self/mountinfo") or "")


def default_cgroup_root(host: Host) -> Path:
    """Where cgroup v2 is mounted, or the usual place."""
    points = [mount.point for mount in mounts(host) if mount.type == "cgroup2"]
    usual = "/sys/fs/cgroup"
    with_memory = [point for point in points if _has_memory(host.path(point))]
    return host.path((usual if usual in points else None) or next(iter(with_memory), usual))


def _has_memory(directory: Path) -> bool:
    return "memory" in (read(directory / "cgroup.controllers") or "").split()


def check_memory_controller(host: Host, cgroup_root: Path) -> Check:
    """The root is there, is cgroup v2, and has the memory controller, switched on for children."""
    name = "cgroup v2"
    if not cgroup_root.is_dir():
        return Check(
            name,
            State.FAILED,
            f"{cgroup_root} is not there or is no directory" + _elsewhere(host),
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or name the place with --cgroup-root.",
        )
    if _has_memory(cgroup_root):
        return _check_switched_on(name, cgroup_root)
    if count_cgroups(cgroup_root):
        return Check(
            name,
            State.OK,
            f"{cgroup_root} has memory.events.local files below it, and no controller of its own",
        )
    return Check(name, State.FAILED, _what_is_there(host, cgroup_root), _mend(host, cgroup_root))


def _check_switched_on(name: str, cgroup_root: Path) -> Check:
    if "memory" in (read(cgroup_root / "cgroup.subtree_control") or "").split():
        return Check(name, State.OK, f"{cgroup_root}, with the memory controller")
    if count_cgroups(cgroup_root):
        return Check(name, State.OK, f"{cgroup_root}, with the memory controller below it")
    return Check(
        name,
        State.DEGRADED,
        f"{cgroup_root} has the memory controller, but no cgroup below it: only the node counts",
        f"echo +memory > {cgroup_root}/cgroup.subtree_control",
    )


def _what_is_there(host: Host, cgroup_root: Path) -> str:
    all_mounts = mounts(host)
    v1 = [
        mount.point for mount in all_mounts if mount.type == "cgroup" and "memory" in mount.options
    ]
    v2 = [mount.point for mount in all_mounts if mount.type == "cgroup2"]
    if v1 and v2:
        return (
            f"a hybrid of cgroup v1 and v2: the memory controller is with v1 at {v1[0]}, "
            f"so cgroup v2 at {v2[0]} has none"
        )
    if v1:
        return f"cgroup v1 only: the memory controller is at {v1[0]}; cgroup v2 is not mounted"
    if v2:
        others = [point for point in v2 if _has_memory(host.path(point))]
        if others:
            return f"{cgroup_root} is no cgroup v2 with memory, but {others[0]} is"
        return f"cgroup v2 at {v2[0]} has no memory controller, and no cgroup v1 has it either"
    return f"{cgroup_root} is not cgroup v2, and none is mounted"


def _mend(host: Host, cgroup_root: Path) -> str:
    for mount in mounts(host):
        if mount.type == "cgroup2" and _has_memory(host.path(mount.point)):
            return f"oomwatch … --cgroup-root {mount.point}"
    controllers = host.text("/proc/cgroups") or ""
    memory = re.search(r"^memory\s+\d+\s+\d+\s+0$", controllers, re.M)
    if memory is not None:
        return "Boot with cgroup_enable=memory: /proc/cgroups says that it is switched off."
    return _UNIFY


def _elsewhere(host: Host) -> str:
    points = [mount.point for mount in mounts(host) if mount.type == "cgroup2"]
    return f"; cgroup v2 is mounted at {points[0]}" if points else ""


def check_local_events(host: Host) -> Check:
    """Is memory.events hierarchical? The mount option memory_localevents makes it local."""
    name = "hierarchical counters"
    for mount in mounts(host):
        if mount.type == "cgroup2" and "memory_localevents" in mount.options:
            return Check(
                name,
                State.DEGRADED,
                f"{mount.point} is mounted with memory_localevents: a kill in a cgroup now gone "
                "can only be told for the node",
                f"mount -o remount,rw {mount.point} without memory_localevents",
            )
    return Check(name, State.OK, "memory.events counts a cgroup and all below it")


def count_cgroups(cgroup_root: Path) -> int:
    """How many cgroups with a memory controller are below the root."""
    return sum("memory.events.local" in files for _, _, files in os.walk(cgroup_root))


def check_sandboxes(cgroup_root: Path) -> Check:
    """Which gVisor sandboxes run here, and what each of them lets be seen."""
    from oomwatch.cgroup.hierarchy import locate
    from oomwatch.containers.gvisor import running, sentries
    from oomwatch.errors import CgroupError
    from oomwatch.observations import FindSandbox
    from oomwatch.sources.sandboxes import look, note

    name = "sandboxes"
    found = sentries(running())
    if not found:
        return Check(name, State.OK, "no gVisor sandbox runs here that can be seen")
    try:
        hierarchy = locate(cgroup_root)
    except CgroupError:
        hierarchy = None
    seen = [look(FindSandbox(c.cmdline[-1], None, "runsc", c.pid), hierarchy) for c in found]
    said = "; ".join(f"{one.container_id[:12]} is {note(one)}" for one in seen[:_SANDBOXES])
    if len(seen) > _SANDBOXES:
        said += f"; and {len(seen) - _SANDBOXES} more"
    if all(one.alone for one in seen):
        return Check(name, State.OK, said)
    return Check(
        name,
        State.DEGRADED,
        said,
        "Give each sandbox a cgroup of its own (no --ignore-cgroups; on a systemd host runsc's "
        "--systemd-cgroup), and run oomwatch where it sees the host's processes.",
    )
