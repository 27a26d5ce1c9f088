"""Cgroups to kill in, and processes to be killed: the real thing, small and bounded.

Run as a program it races: it makes a cgroup, has a child killed in it, reaps it and removes the
cgroup without a pause, as often as it is told; then it prints who was killed where. A crowd is
first put into its cgroups, and then killed one after the other when standard input ends. Asked, it
has a child killed in each cgroup that a line names, and answers with its pid once it is reaped.

    python workload.py race DIRECTORY PREFIX COUNT
    python workload.py crowd DIRECTORY COUNT
    python workload.py asked < PATHS
    python workload.py comm DIRECTORY HEX
    python workload.py thrash DEVICE
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEBIBYTE = 1 << 20
LIMIT = 8 * MEBIBYTE


class Scratch:
    """A cgroup of a test's own, and what is made below it; all of it goes at the end."""

    def __init__(self, name: str) -> None:
        self.path = ROOT / f"oomwatch-{name}-{os.getpid()}"
        self.path.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def cgroup(self) -> str:
        """The kernel's path of it."""
        return f"/{self.path.relative_to(ROOT)}"

    def make(
        self, name: str, *, limit: int | None = None, group: bool = False, below: bool = False
    ) -> Path:
        """Make a cgroup below this one; `below` hands the memory controller on to its children."""
        path = self.path / name
        make(path, limit=limit, group=group)
        if below:
            (path / "cgroup.subtree_control").write_text("+memory")
        return path

    def hand_down(self) -> None:
        """Let the cgroups below have memory controllers of their own."""
        (self.path / "cgroup.subtree_control").write_text("+memory")

    def limit(self, size: int, *, group: bool = False) -> None:
        """Limit everything below."""
        configure(self.path, limit=size, group=group)

    def start(self, cgroup: Path, command: str) -> subprocess.Popen[bytes]:
        """Run a shell command (busybox, which starts quickly) in a cgroup."""
        process = subprocess.Popen(
            ["busybox", "sh", "-c", f"echo 0 > {cgroup}/cgroup.procs; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def hog(self, cgroup: Path) -> subprocess.Popen[bytes]:
        """Start a process that allocates until it is killed; it alone is the node's victim."""
        return self.start(
            cgroup, "echo 1000 > /proc/self/oom_score_adj; exec busybox tail /dev/zero"
        )

    def sleeper(self, cgroup: Path) -> subprocess.Popen[bytes]:
        """Start a process that does nothing; returns once it is in the cgroup."""
        process = self.start(cgroup, "exec busybox sleep 1000")
        wait_for(lambda: str(process.pid) in (cgroup / "cgroup.procs").read_text().split())
        return process

    def close(self) -> None:
        """Kill what is left, reap it, and remove every cgroup."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for directory, _, _ in os.walk(self.path, topdown=False):
            for pid in (Path(directory) / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            remove(Path(directory))

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make(path: Path, *, limit: int | None = None, group: bool = False) -> None:
    """Make a cgroup with a limit and no swap."""
    path.mkdir()
    configure(path, limit=limit, group=group)


def configure(path: Path, *, limit: int | None = None, group: bool = False) -> None:
    """Set a cgroup's limit, without swap, and whether it is killed as one."""
    if limit is not None:
        (path / "memory.max").write_text(str(limit))
        swap = path / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    if group:
        (path / "memory.oom.group").write_text("1")


def remove(path: Path) -> None:
    """Remove a cgroup as soon as the kernel lets go of its last process."""
    wait_for(lambda: removed(path))


def removed(path: Path) -> bool:
    """Try to remove a cgroup; False while the kernel holds it."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def wait_for(true: object, seconds: float = 60.0) -> None:
    """Wait for a condition that no descriptor tells of; fail after a bound."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.005)


def counters(cgroup: Path, name: str = "memory.events.local") -> dict[str, int]:
    """The kernel's own word."""
    lines = (cgroup / name).read_text().splitlines()
    return {key: int(value) for key, value in (line.split() for line in lines)}


def kills_below(cgroup: Path) -> int:
    """Kills in a cgroup and below it, removed children included."""
    return counters(cgroup, "memory.events")["oom_kill"]


def node_kills() -> int:
    """Every kill on the node."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def little_memory(leave: int = 384 * MEBIBYTE) -> Iterator[None]:
    """Take most of the node's memory away as huge pages, so that it runs out soon."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    figures = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    pages = (figures["MemAvailable"] - leave) // figures["Hugepagesize"]
    knob = Path("/proc/sys/vm/nr_hugepages")
    knob.write_text(str(max(pages, 0)))
    try:
        yield
    finally:
        knob.write_text("0")


@contextmanager
def killing_before_thrashing(working_set_ms: int = 1000) -> Iterator[None]:
    """Have the kernel kill where it would take away what was used so lately, if it can (6.1).

    Else a node may spend an hour reading its programs again and again, and kill nobody.
    Documentation/admin-guide/mm/multigen_lru.rst, "Thrashing prevention". kswapd may kill once more
    before the first victim's memory is free (0.6 s on 6.1): idle processes stand in for the test.
    """
    knobs = Path("/sys/kernel/mm/lru_gen/enabled"), Path("/sys/kernel/mm/lru_gen/min_ttl_ms")
    before = [knob.read_text() for knob in knobs]
    spares = [subprocess.Popen(["busybox", "sleep", "1000"]) for _ in range(8)]
    try:
        for spare in spares:
            Path(f"/proc/{spare.pid}/oom_score_adj").write_text("500")
        for knob, value in zip(knobs, ("y", str(working_set_ms)), strict=True):
            knob.write_text(value)
        yield
    finally:
        for knob, value in zip(reversed(knobs), reversed(before), strict=True):
            knob.write_text(value)
        for spare in spares:
            spare.kill()
            spare.wait()


@contextmanager
def inotify_limit(name: str, value: int) -> Iterator[Callable[[], object]]:
    """Set a limit of inotify's for a while; call what is given to put it back sooner."""
    knob = Path("/proc/sys/fs/inotify") / name
    before = knob.read_text()
    knob.write_text(str(value))
    try:
        yield lambda: knob.write_text(before)
    finally:
        knob.write_text(before)


@contextmanager
def mounted_with(option: str) -> Iterator[None]:
    """Mount the hierarchy with an option for a while."""
    subprocess.run(["mount", "-o", f"remount,{option}", ROOT], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-t", "cgroup2", "-o", "remount", "cgroup2", ROOT], check=True)


def ram_disk() -> Path:
    """A disk of which nothing was ever written, 4 GiB large; it stays.

    It has nothing in memory but the page cache of who reads it, and is as fast as a disk can be.
    """
    subprocess.run(["modprobe", "brd", "rd_nr=1", f"rd_size={4 << 20}"], check=True)
    return Path("/dev/ram0")


def race(directory: Path, prefix: str, count: int) -> None:
    """Make, kill, reap and remove, without a pause."""
    dead = []
    for number in range(count):
        path = directory / f"{prefix}{number}"
        make(path, limit=LIMIT)
        pid = os.fork()
        if pid == 0:
            _be_killed(path)
        _reap_and_remove(pid, path)
        dead.append(f"{pid} {path}")
    sys.stdout.write("\n".join(dead))


def start_crowd(directory: Path, count: int) -> subprocess.Popen[bytes]:
    """Start a crowd; it is killed when its standard input is closed."""
    return subprocess.Popen(
        (sys.executable, "-I", "-S", __file__, "crowd", directory, str(count)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def crowd(directory: Path, count: int) -> None:
    """Put a child into each of so many cgroups; then kill, reap and remove each, in order."""
    waiting = []
    for number in range(count):
        path = directory / f"c{number}"
        make(path, limit=LIMIT)
        ends, begin = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(begin)
            (path / "cgroup.procs").write_text("0")
            os.read(ends, 1)
            _be_killed(path)
        waiting.append((pid, path, begin))
        os.close(ends)
    sys.stdin.read()
    for pid, path, begin in waiting:
        os.write(begin, b"\n")
        _reap_and_remove(pid, path)
    sys.stdout.write("\n".join(f"{pid} {path}" for pid, path, _ in waiting))


def start_asked() -> subprocess.Popen[str]:
    """Start who kills when asked; it ends when its standard input is closed."""
    return subprocess.Popen(
        (sys.executable, "-I", "-S", __file__, "asked"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def asked() -> None:
    """Have a child killed in each cgroup that a line names."""
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        pid = os.fork()
        if pid == 0:
            _be_killed(path)
        _reap(pid, path)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _reap(pid: int, path: Path) -> None:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise SystemExit(f"the child in {path} was not killed: status {status}")


def _reap_and_remove(pid: int, path: Path) -> None:
    _reap(pid, path)
    while not removed(path):
        pass


def _be_killed(path: Path) -> None:
    (path / "cgroup.procs").write_text("0")
    size = 2 * LIMIT
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        memory[offset] = 1
    os._exit(3)


def be_killed_as(path: Path, comm: bytes) -> None:
    """Be killed in a cgroup under a name of any bytes."""
    Path("/proc/self/comm").write_bytes(comm)
    _be_killed(path)


def thrash(device: Path) -> None:
    """Read pages of a file that is larger than memory, without end; the first to be killed."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    with device.open("rb") as file:
        pages = mmap.mmap(
            file.fileno(), os.lseek(file.fileno(), 0, os.SEEK_END), prot=mmap.PROT_READ
        )
    while True:
        pages[random.randrange(len(pages))]


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "crowd":
        crowd(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "asked":
        asked()
    elif sys.argv[1] == "comm":
        be_killed_as(Path(sys.argv[2]), bytes.fromhex(sys.argv[3]))
    elif sys.argv[1] == "thrash":
        thrash(Path(sys.argv[2]))
