"""Who lives in a cgroup, noted before one of them is killed.

A victim that is killed, reaped and removed at once leaves a pid in the kernel's log and nothing in
/proc. So cgroup.procs is read beforehand, at two moments that inotify tells of:

- A cgroup is *at its limit*: its `max` rises before the kill. What is below it is read as well (the
  limit may be an ancestor's), each once a second at most.
- A cgroup that was made under our eyes is *peopled*, by its cgroup.events. Whoever is in it then is
  its first process; and where many are killed at once, we may be too late for the other moment. The
  watch for this is taken back when it has told.

No more than so many processes are looked up in a second, over all. A host at rest pays nothing.

Command lines are read in a thread: reading one waits for whoever holds the process's mmap_lock,
which a process at its limit may hold for seconds (proc_pid_cmdline_read in fs/proc/base.c).
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence

from oomwatch.cgroup.process import (
    Stat,
    read_cmdline,
    read_pids,
    read_stat,
    sees_the_hosts_pids,
)
from oomwatch.observations import ProcessesSeen, Resident
from oomwatch.sources import Emit
from oomwatch.sources.memory_events.node import Node
from oomwatch.sources.memory_events.tree import Tree, wall_time

AGAIN_SECONDS = 1.0
"""How long a cgroup is not asked again."""

PROCESSES_A_SECOND = 512
"""Processes looked up over all cgroups: some 5 ms of a core each second, at the very most."""

MAX_UNPEOPLED = 128
"""New cgroups that are waited for; of more than these, the oldest are given up."""

_PROCESSES_A_CGROUP = 256
_CGROUPS_A_WAKE = 64
_CMDLINES_KEPT = 1024

_Life = tuple[int, int, str]


class Census:
    """Notes who lives where, at a bounded cost."""

    def __init__(self, tree: Tree, emit: Emit) -> None:
        self._tree = tree
        self._emit = emit
        self._active = tree.hierarchy.kernel and sees_the_hosts_pids()
        self._asked: OrderedDict[Node, float] = OrderedDict()
        self._cmdlines: OrderedDict[_Life, tuple[str, ...]] = OrderedDict()
        self._unpeopled: OrderedDict[int, Node] = OrderedDict()
        self._reading: threading.Thread | None = None
        self._second = 0.0
        self._spent = 0
        self.looks = 0

    def born(self, node: Node) -> None:
        """Wait for the first process of a cgroup that has just appeared."""
        watcher = self._tree.watcher
        if not self._active or watcher is None:
            return
        watch = watcher.watch_file(f"{self._tree.directory(node)}/cgroup.events")
        if not isinstance(watch, int):
            return
        self._unpeopled[watch] = node
        self.peopled(watch)
        if len(self._unpeopled) > MAX_UNPEOPLED:
            watcher.remove(self._unpeopled.popitem(last=False)[0])

    def peopled(self, watch: int) -> None:
        """Look at a new cgroup whose cgroup.events changed; nothing if the watch is not for that.

        A watch whose cgroup is gone has the kernel forget it, or is taken back here.
        """
        node = self._unpeopled.get(watch)
        if node is None or self._tree.watcher is None:
            return
        now = asyncio.get_running_loop().time()
        seen = self._look(node) if self._has_budget(now) else None
        if seen is not None or node.gone:
            del self._unpeopled[watch]
            self._tree.watcher.remove(watch)
        if seen is not None:
            self._emit([seen])

    def at_limit(self, node: Node) -> None:
        """Note who lives in a cgroup that is at its limit, and in those below it."""
        if not self._active:
            return
        now = asyncio.get_running_loop().time()
        if not self._may_ask(node, now):
            return
        seen: list[ProcessesSeen] = []
        for number, below in enumerate(node.subtree()):
            if number >= _CGROUPS_A_WAKE or self._spent >= PROCESSES_A_SECOND:
                break
            if below is node or self._may_ask(below, now):
                self._asked[below] = now
                self._asked.move_to_end(below)
                found = self._look(below)
                if found is not None:
                    seen.append(found)
        if seen:
            self._emit(seen)
            self._read_cmdlines(seen)

    def _may_ask(self, node: Node, now: float) -> bool:
        return self._has_budget(now) and node not in self._asked

    def _has_budget(self, now: float) -> bool:
        if now - self._second >= 1.0:
            self._second, self._spent = now, 0
            while self._asked and now - next(iter(self._asked.values())) >= AGAIN_SECONDS:
                self._asked.popitem(last=False)
        return self._spent < PROCESSES_A_SECOND

    def _look(self, node: Node) -> ProcessesSeen | None:
        pids, whole = read_pids(self._tree.directory(node), _PROCESSES_A_CGROUP)
        time = wall_time()
        self._spent += 1 + len(pids)
        if not pids:
            return None
        self.looks += 1
        stats = {pid: read_stat(pid) for pid in pids}
        ages = oldest(stats, whole=whole)
        residents = tuple(
            Resident(pid)
            if stat is None
            else Resident(
                pid, stat.comm, stat.started, self._cmdlines.get(_life(pid, stat), ()), ages[pid]
            )
            for pid, stat in stats.items()
        )
        return ProcessesSeen(node.cgroup, time, residents, whole)

    def _read_cmdlines(self, seen: Sequence[ProcessesSeen]) -> None:
        """Read the command lines that are not known yet; one that hangs holds up no more than it.

        The thread is a daemon's: the kernel may keep it for as long as it likes.
        """
        if self._reading is not None and self._reading.is_alive():
            return
        wanted = [look for look in seen if any(_unread(resident) for resident in look.residents)]
        if not wanted:
            return
        loop = asyncio.get_running_loop()

        def read() -> None:
            found = [_with_cmdlines(look) for look in wanted]
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._cmdlines_read, found)

        self._reading = threading.Thread(target=read, name="oomwatch-cmdlines", daemon=True)
        self._reading.start()

    def _cmdlines_read(self, found: list[ProcessesSeen]) -> None:
        for look in found:
            for resident in look.residents:
                if resident.comm is not None and resident.started is not None and resident.cmdline:
                    life = (resident.pid, resident.started, resident.comm)
                    self._cmdlines[life] = resident.cmdline
                    self._cmdlines.move_to_end(life)
        while len(self._cmdlines) > _CMDLINES_KEPT:
            self._cmdlines.popitem(last=False)
        self._emit(found)


def oldest(stats: dict[int, Stat | None], *, whole: bool) -> dict[int, bool | None]:
    """Say of each process whether it began before all others; `None` where that is not certain.

    Ticks are coarse (10 ms): of those that began in the same one, a child is not the oldest.
    """
    known = {pid: stat for pid, stat in stats.items() if stat is not None}
    if not known:
        return {}
    begin = min(stat.started for stat in known.values())
    first = {pid for pid, stat in known.items() if stat.started == begin}
    first = {pid for pid in first if known[pid].parent not in first}
    certain = whole and len(known) == len(stats) and len(first) == 1
    return {pid: (True if certain else None) if pid in first else False for pid in known}


def _life(pid: int, stat: Stat) -> _Life:
    return (pid, stat.started, stat.comm)


def _unread(resident: Resident) -> bool:
    return resident.started is not None and not resident.cmdline


def _with_cmdlines(look: ProcessesSeen) -> ProcessesSeen:
    """The same look with the command lines of those that are still the same process."""
    residents = []
    for resident in look.residents:
        cmdline = resident.cmdline
        if _unread(resident):
            cmdline = read_cmdline(resident.pid)
            stat = read_stat(resident.pid)
            if stat is None or (stat.started, stat.comm) != (resident.started, resident.comm):
                cmdline = ()
        residents.append(
            Resident(resident.pid, resident.comm, resident.started, cmdline, resident.oldest)
        )
    return ProcessesSeen(look.cgroup, look.time, tuple(residents), look.complete)
