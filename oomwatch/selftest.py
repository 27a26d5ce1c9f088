"""A real OOM kill that disturbs nobody: one small process of our own, in a cgroup of its own.

The process is forked, not executed: it is ready in a millisecond, also where Python takes a second
to start. It waits for a word, touches memory page by page until the kernel kills it at the limit,
and if nobody does, ends by itself after a few times the limit. It offers itself as the first victim
(oom_score_adj 1000), and dies with the process that made it.

Used by `oomwatch selftest` and by the tests on real kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from oomwatch.errors import CgroupError, NoCgroupRoot, NoMemoryController

LIMIT_BYTES = 16 << 20
_AT_MOST = 4
"""Times the limit that a process allocates when nothing stops it."""

_NAME = re.compile(r"oomwatch-selftest-(\d+)(?:-\d+)?")
_REMOVE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

_libc = ctypes.CDLL(None)
_made = 0


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended, and when that was seen: `signal` is 0 if it ended by itself."""

    pid: int
    signal: int
    monotonic_ns: int


class Hog:
    """A forked process inside a cgroup that allocates when told, and is killed by the kernel."""

    def __init__(self, cgroup: Path, at_most_bytes: int) -> None:
        reader, writer = os.pipe()
        parent = os.getpid()
        with warnings.catch_warnings():
            # From 3.12 on, forking beside threads warns of locks that they hold for ever in the
            # child. This child writes two files, touches memory, and takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _be_the_hog(cgroup, reader, writer, parent, at_most_bytes)
        os.close(reader)
        self._writer = writer
        self._death: Death | None = None
        self.pidfd = os.pidfd_open(self.pid)

    def go(self) -> None:
        """Let it allocate. BrokenPipeError if it is gone already."""
        os.write(self._writer, b"g")

    def wait(self) -> Death:
        """Wait until it is dead, and reap it; `pidfd` becomes readable when that will not block."""
        if self._death is None:
            _, status = os.waitpid(self.pid, 0)
            seen = time.monotonic_ns()
            self._death = Death(
                self.pid, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, seen
            )
        return self._death

    def close(self) -> None:
        """Kill it if it lives, reap it, and give its descriptors back; may be called twice."""
        if self._writer < 0:
            return
        if self._death is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._writer)
        os.close(self.pidfd)
        self._writer = -1


def _be_the_hog(
    cgroup: Path, reader: int, writer: int, parent: int, at_most_bytes: int
) -> None:  # pragma: no cover - the child's life
    """Never returns: what the parent would do on its way out must not be done twice."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # Tied to the parent, which may already be gone: then prctl came too late.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)
        os.close(writer)
        Path("/proc/self/oom_score_adj").write_text("1000")
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if os.read(reader, 1) == b"g":
            memory = mmap.mmap(-1, at_most_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for offset in range(0, at_most_bytes, mmap.PAGESIZE):
                memory[offset] = 1
    except BaseException:  # noqa: BLE001 - the parent tells how it ended, not this copy of it
        os._exit(1)
    os._exit(0)


class ScratchCgroup:
    """A cgroup of our own with a memory limit, gone when the block ends, however it ends.

    Raises `NoCgroupRoot` or `NoMemoryController` where there is no cgroup v2 with memory, and
    `CgroupError` where this user may not make cgroups; each says what to do.
    """

    def __init__(self, parent: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        global _made
        _made += 1
        self.parent = parent
        self.limit_bytes = limit_bytes
        self.directory = parent / f"oomwatch-selftest-{os.getpid()}-{_made}"
        self._hogs: list[Hog] = []
        self._made = False
        self._switched_on = False

    def __enter__(self) -> ScratchCgroup:
        try:
            self._make()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._clean_up()

    def hog(self) -> Hog:
        """Fork a process that will move in here and allocate past the limit when told."""
        hog = Hog(self.directory, _AT_MOST * self.limit_bytes)
        self._hogs.append(hog)
        return hog

    def kills(self) -> int:
        """The cgroup's own oom_kill counter."""
        text = (self.directory / "memory.events.local").read_text()
        match = re.search(r"^oom_kill (\d+)$", text, re.M)
        return int(match[1]) if match else 0

    def _make(self) -> None:
        _need_memory_controller(self.parent)
        remove_leftovers(self.parent)
        self._switch_on()
        if self.directory.is_dir():  # of a process that had our pid before us
            _remove(self.directory)
        try:
            self.directory.mkdir()
            self._made = True
        except OSError as error:
            raise CgroupError(
                f"{self.directory} cannot be made ({error.strerror}): run the self-test as root, "
                "or name a cgroup that this user owns with --cgroup-root"
            ) from error
        limit = self.directory / "memory.max"
        if not limit.exists():
            raise NoMemoryController(
                f"{self.parent} gave {self.directory.name} no memory.max: it is not a cgroup v2 "
                "hierarchy of the kernel with the memory controller; see 'oomwatch doctor'"
            )
        limit.write_text(str(self.limit_bytes))
        # Where there is swap, the process would fill that first. The file is absent without it.
        swap = self.directory / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")

    def _switch_on(self) -> None:
        switches = self.parent / "cgroup.subtree_control"
        if "memory" in switches.read_text().split():
            return
        try:
            switches.write_text("+memory")
        except OSError as error:
            raise CgroupError(
                f"{switches} does not switch the memory controller on ({error.strerror}): run the "
                "self-test as root, in a cgroup without processes of its own"
            ) from error
        self._switched_on = True

    def _clean_up(self) -> None:
        for hog in self._hogs:
            hog.close()
        self._hogs.clear()
        if self._made:
            _remove(self.directory)
            self._made = False
        if self._switched_on:
            self._switched_on = False
            with contextlib.suppress(OSError):
                (self.parent / "cgroup.subtree_control").write_text("-memory")


def _need_memory_controller(parent: Path) -> None:
    if not parent.is_dir():
        raise NoCgroupRoot(
            f"{parent} is not there or is no directory: name the cgroup v2 root with --cgroup-root"
        )
    try:
        controllers = (parent / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        controllers = []
    if "memory" not in controllers:
        raise NoMemoryController(
            f"{parent} is not cgroup v2 with the memory controller, so no kill can be made there: "
            "'oomwatch doctor' says what there is, and what would mend it"
        )


def remove_leftovers(parent: Path) -> list[Path]:
    """Remove the scratch cgroups of self-tests whose process is gone; return what was removed."""
    removed: list[Path] = []
    for directory in parent.glob("oomwatch-selftest-*"):
        match = _NAME.fullmatch(directory.name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            _remove(directory)
            removed.append(directory)
    return removed


def _remove(directory: Path) -> None:
    """Kill what is in a scratch cgroup and remove it; it is busy until its last process is gone."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        else:
            return
        # cgroup.kill is from 5.14 on; before, and in every kernel, signals do.
        with contextlib.suppress(OSError):
            for pid in (directory / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.005)
