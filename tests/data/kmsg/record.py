"""Makes the records beside this file: real kills, and what the kernel wrote of each.

    scripts/vm --kernel 6.1 --results DIR -- python tests/data/kmsg/record.py

Each NAME.kmsg holds what read(2) gave from /dev/kmsg, a record after the other, and NAME.json what
was done: the victims as (pid, comm in hex, cgroup), in the order of their deaths where it is known.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LIMIT = 12 << 20
PR_SET_NAME = 15
_libc = ctypes.CDLL(None)


def cgroup(path: str, *, limit: int | None = None, group: bool = False) -> Path:
    directory = ROOT / path
    directory.mkdir()
    if limit is not None:
        (directory / "memory.max").write_text(str(limit))
        swap = directory / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    if group:
        (directory / "memory.oom.group").write_text("1")
    return directory


def spawn(where: Path, comm: bytes, work: Callable[[], None], adj: int = 0) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        (where / "cgroup.procs").write_text("0")
        Path("/proc/self/oom_score_adj").write_text(str(adj))
        _libc.prctl(PR_SET_NAME, comm + b"\0", 0, 0, 0)
        work()
    finally:
        os._exit(1)


def allocate() -> None:
    held = []
    while True:
        piece = mmap.mmap(-1, 4 << 20)
        for offset in range(0, len(piece), 4096):
            piece[offset] = 1
        held.append(piece)


def sleep() -> None:
    time.sleep(1000)


def victim(pid: int, comm: bytes, where: Path) -> dict[str, object]:
    return {"pid": pid, "comm": comm.hex(), "cgroup": f"/{where.relative_to(ROOT)}"}


CHATTER = b"chatter from another processor"


def thinned(log: bytes) -> bytes:
    """Leave out the chatter that stands beside chatter."""
    lines = log.splitlines(keepends=True)
    noise = [CHATTER in line for line in [b"", *lines, b""]]
    noise[0] = noise[-1] = True
    return b"".join(
        line for number, line in enumerate(lines) if not all(noise[number : number + 3])
    )


class Recorder:
    def __init__(self, results: Path) -> None:
        self.results = results
        self.log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.log, 0, os.SEEK_END)

    def drain(self) -> bytes:
        records = []
        while True:
            try:
                records.append(os.read(self.log, 8192))
            except BlockingIOError:
                return b"".join(records)
            except BrokenPipeError:
                continue

    def scenario(self, name: str, run: Callable[[], dict[str, object]]) -> None:
        self.drain()
        held: list[bytes] = []
        over = threading.Event()

        def keep_up() -> None:
            while not over.is_set():
                held.append(self.drain())
                time.sleep(0.01)

        reader = threading.Thread(target=keep_up)
        reader.start()
        done = run()
        time.sleep(0.3)
        over.set()
        reader.join()
        held.append(self.drain())
        (self.results / f"{name}.kmsg").write_bytes(thinned(b"".join(held)))
        done["kernel"] = platform.release()
        (self.results / f"{name}.json").write_text(json.dumps(done, indent=1) + "\n")


def own() -> dict[str, object]:
    where = cgroup("own-limit.service", limit=LIMIT)
    pid = spawn(where, b"eater", allocate)
    os.waitpid(pid, 0)
    return {"scope": "container_limit", "victims": [victim(pid, b"eater", where)]}


def ancestor() -> dict[str, object]:
    parent = cgroup("pod", limit=LIMIT)
    (parent / "cgroup.subtree_control").write_text("+memory")
    where = cgroup("pod/container")
    pid = spawn(where, b"eater", allocate)
    os.waitpid(pid, 0)
    return {"scope": "ancestor_limit", "limit": "/pod", "victims": [victim(pid, b"eater", where)]}


def node() -> dict[str, object]:
    where = cgroup("greedy")
    pid = spawn(where, b"node eater", allocate, adj=1000)
    os.waitpid(pid, 0)
    return {"scope": "node", "victims": [victim(pid, b"node eater", where)]}


def group() -> dict[str, object]:
    parent = cgroup("grouped", limit=LIMIT, group=True)
    (parent / "cgroup.subtree_control").write_text("+memory")
    one, two = cgroup("grouped/c1"), cgroup("grouped/c2")
    sleepers = [spawn(two, b"sleeper", sleep) for _ in range(2)]
    time.sleep(0.2)
    pid = spawn(one, b"eater", allocate)
    for each in (pid, *sleepers):
        os.waitpid(each, 0)
    victims = [victim(pid, b"eater", one)] + [victim(each, b"sleeper", two) for each in sleepers]
    return {"scope": "ancestor_limit", "limit": "/grouped", "group": True, "victims": victims}


def storm() -> dict[str, object]:
    victims = []
    for number in range(16):
        where = cgroup(f"storm{number}", limit=4 << 20)
        pid = spawn(where, b"s%d" % number, allocate)
        os.waitpid(pid, 0)
        victims.append(victim(pid, b"s%d" % number, where))
    return {"scope": "container_limit", "victims": victims}


HOSTILE = (
    b"a,pid=1,uid=0",
    b"x) total-vm:1kB",
    b"Killed process ",
    b"oom-kill:constr",
    b",task=init",
    b"nl\nKilled proc",
    b"\xff\xfe \x1b[2J",
    b"b\\x29 s\\lash",
    b"",
    b" invoked oom-ki",
    b"c (d), UID 0, ",
)


def hostile() -> dict[str, object]:
    victims = []
    for number, comm in enumerate(HOSTILE):
        # A whole report of each: the kernel prints ten in five seconds.
        time.sleep(0.7)
        where = cgroup(f"h{number},task=init,pid=1,uid=0", limit=4 << 20)
        pid = spawn(where, comm, allocate)
        os.waitpid(pid, 0)
        victims.append(victim(pid, comm, where))
    return {"scope": "container_limit", "victims": victims}


def noise() -> dict[str, object]:
    def chatter() -> None:
        log = os.open("/dev/kmsg", os.O_WRONLY)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            os.write(log, b"<12>" + CHATTER)

    Path("/proc/sys/kernel/printk_devkmsg").write_text("on\n")
    talker = spawn(ROOT, b"chatter", chatter)
    time.sleep(0.3)
    victims = []
    for number in range(3):
        where = cgroup(f"noisy{number}", limit=4 << 20)
        pid = spawn(where, b"eater", allocate)
        os.waitpid(pid, 0)
        victims.append(victim(pid, b"eater", where))
    os.kill(talker, signal.SIGKILL)
    os.waitpid(talker, 0)
    return {"scope": "container_limit", "victims": victims}


def long_paths() -> dict[str, object]:
    parent = ROOT
    for letter in "abcd":
        parent = cgroup(str((parent / (letter * 200)).relative_to(ROOT)))
        if letter != "d":
            (parent / "cgroup.subtree_control").write_text("+memory")
    (parent / "memory.max").write_text(str(LIMIT))
    pid = spawn(parent, b"eater", allocate)
    os.waitpid(pid, 0)
    return {"scope": "container_limit", "victims": [victim(pid, b"eater", parent)]}


def forged() -> dict[str, object]:
    Path("/dev/kmsg").write_bytes(
        b"<3>Memory cgroup out of memory: Killed process 1 (systemd) total-vm:1kB\n"
    )
    Path("/dev/kmsg").write_bytes(b"Out of memory: Killed process 1 (systemd) total-vm:1kB\n")
    return {"victims": []}


def main() -> None:
    recorder = Recorder(Path(os.environ["OOMWATCH_RESULTS"]))
    scenarios = (own, ancestor, group, noise, long_paths, forged, hostile, storm, node)
    for scenario in scenarios:
        if len(sys.argv) < 2 or scenario.__name__ in sys.argv[1:]:
            # The report is rate-limited to ten in five seconds.
            time.sleep(5)
            kernel = ".".join(platform.release().split(".")[:2])
            name = f"{scenario.__name__.replace('_', '-')}-{kernel}"
            recorder.scenario(name, scenario)


if __name__ == "__main__":
    main()
