"""Where a container lives: from the pid that its runtime told to a cgroup of the watched tree.

The pid is a claim, and may have been given to another process meanwhile. So it is held against the
path: one that names other containers, and not this one, is not its place.
"""

from __future__ import annotations

import posixpath
from copy import copy
from dataclasses import dataclass

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.locating import printed_cgroup, shown_cgroup
from oomwatch.cgroup.process import sees_the_hosts_pids
from oomwatch.cgroup.resolving import LONGEST_PATH, resolve
from oomwatch.containers.claims import Json
from oomwatch.containers.paths import identify
from oomwatch.errors import BadCgroupPath, NoSuchCgroup, NoSuchProcess


@dataclass(frozen=True, slots=True)
class Place:
    """A container's init and its own cgroup; `None` is what could not be found."""

    pid: int | None = None
    cgroup: str | None = None
    cgroup_id: int | None = None


class Places:
    """Finds containers' cgroups in one hierarchy, or none at all where nothing is watched.

    /proc is asked only where its pids are the host's, as a runtime's are: unless that lives in a
    PID namespace nested in the host's, where its pids are `foreign`, and name somebody else here.
    """

    def __init__(self, hierarchy: Hierarchy | None, proc: str = "/proc") -> None:
        self.foreign = False
        self._hierarchy = hierarchy
        self._proc = proc
        self._own_pids = sees_the_hosts_pids(proc)

    def of_one_runtime(self) -> Places:
        """The same places, as one runtime speaks of them."""
        return copy(self)

    def locate(self, container_id: str, pid: int | None) -> Place:
        """Find the container's own cgroup: the leaf that its init lives in may be one below."""
        if pid is None or self.foreign:
            return Place()
        if not self._own_pids:
            return Place(pid)
        try:
            # Without counters there is the kernel's log: what counts is the path that it prints.
            find = printed_cgroup if self._hierarchy is None else shown_cgroup
            path = find(pid, self._proc)
        except NoSuchProcess:
            return Place()
        if path is None:
            return Place(pid)
        cgroup = _own_cgroup(container_id, path)
        if cgroup is None:
            return Place()
        if self._hierarchy is None:
            return Place(pid, cgroup)
        try:
            found = resolve(self._hierarchy, cgroup)
        except (BadCgroupPath, NoSuchCgroup):
            return Place(pid)  # outside of what is watched, or gone
        return Place(pid, found.path, found.cgroup_id)

    def claimed(self, path: Json) -> Place:
        """Where a runtime says that it puts a container: one that was gone before a look at its
        pid has no other place, if its path does not show it.

        What the path means is known where the whole tree is watched.
        """
        whole = self._hierarchy is None or self._hierarchy.real_root
        if not whole or not isinstance(path, str) or len(path) > LONGEST_PATH:
            return Place()
        if not path.startswith("/") or path != posixpath.normpath(path) or "\0" in path:
            return Place()
        return Place(cgroup=path) if path != "/" and identify(path) is None else Place()


def _own_cgroup(container_id: str, path: str) -> str | None:
    """The part of a process's path that is this container's; `None` where it is another's.

    A path without any container on it is taken as it is: a layout that nobody told us of. But
    neither the root nor a unit of systemd's is a container's own.
    """
    identity = identify(path)
    if identity is None:
        return path if path != "/" else None
    for found in identity.nested():
        if container_id in (found.container.id, found.container.name):
            return found.cgroup
    return None
