"""The kernel log witness: /dev/kmsg followed from now on, for the line that names each victim.

Facts about /dev/kmsg (Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c), and what
follows from them:

- One record a read; a buffer that is too small consumes it with EINVAL. So: 8 KiB.
- User space can write to it, as any facility but the kernel's. So: priority below 8 only.
- What is overwritten before it is read is gone: EPIPE once, then the oldest record is next. The
  jump in the sequence is the loss, and is told.
- Its clock stops in suspend, as CLOCK_MONOTONIC does, but is another one and drifts from it. So it
  is held against CLOCK_MONOTONIC at each read: the smallest lag seen lately is their distance.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

from oomwatch.cgroup.process import read_process, sees_the_hosts_pids
from oomwatch.events import SourceState, Victim
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.kill_record import KillRecord, Word
from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.record import Record, to_text
from oomwatch.observations import EvidenceLost, Observation, Question, VictimNamed
from oomwatch.sources import Emit

log = logging.getLogger(__name__)

DEFAULT_KERNEL_LOG = Path("/dev/kmsg")

_READ_BYTES = 8192
_RECORDS_A_WAKE = 512
_LAGS_KEPT = 64


class KernelLog:
    """The kernel log witness; inactive where the log cannot be opened."""

    name = "kernel_log"

    def __init__(self, path: Path = DEFAULT_KERNEL_LOG) -> None:
        self._path = path
        self._fd: int | None = None
        self._why_not = ""
        self._assembler = Assembler()
        self._sequence: int | None = None
        self._last_time = 0
        self._lags: deque[int] = deque(maxlen=_LAGS_KEPT)
        self._own_pids = sees_the_hosts_pids()
        self._kills = self._lost = self._malformed = self._foreign = 0
        self._emit: Emit = lambda _: None

    @property
    def active(self) -> bool:
        """Is the log followed?"""
        return self._fd is not None

    async def start(self, emit: Emit) -> None:
        """Follow the log from its end, if it can be opened; else say why not, and go on without."""
        self._emit = emit
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
            asyncio.get_running_loop().add_reader(self._fd, self._wake)
        except OSError as error:
            self._close()
            mend = "CAP_SYSLOG is needed where kernel.dmesg_restrict is 1, and the device itself"
            self._why_not = f"{self._path} cannot be followed ({error.strerror}): {mend}"

    def answer(self, question: Question) -> bool:
        """It can be asked nothing."""
        return False

    def state(self) -> SourceState:
        """Say whether the log is followed, and what it has told."""
        return SourceState(
            name=self.name,
            active=self.active,
            degraded=not self.active or bool(self._lost),
            detail=self._why_not or f"{self._path}, followed",
            figures={
                "kills": self._kills,
                "lost": self._lost,
                "malformed": self._malformed,
                "not_the_kernels": self._foreign,
            },
        )

    async def stop(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
        self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _wake(self) -> None:
        assert self._fd is not None
        observations: list[Observation] = []
        for _ in range(_RECORDS_A_WAKE):
            try:
                raw = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overrun: the next record's sequence says by how much
                self._malformed += 1
                if error.errno != errno.EINVAL:
                    log.error("%s: %s; the kernel log is no longer followed", self._path, error)
                    asyncio.get_running_loop().remove_reader(self._fd)
                    self._close()
                    self._why_not = f"{self._path} failed: {error.strerror}"
                    break
                continue
            observations += self._take(raw)
        if observations:
            self._emit(observations)

    def _take(self, raw: bytes) -> list[Observation]:
        record = parse_kmsg(raw)
        if record is None or record.sequence is None:
            self._malformed += 1
            return []
        wall = time.time_ns() // 1000
        lost = self._lost_before(record.sequence, wall)
        stamp = round((record.kernel_time_seconds or 0) * 1_000_000)
        lag = time.monotonic_ns() // 1000 - stamp
        self._lags.append(lag)
        self._last_time = wall - (lag - min(self._lags))
        if not record.from_kernel:
            self._foreign += 1
            return lost
        kills = self._assembler.feed(record)
        named = [self._named(kill, record, wall) for kill in kills if kill.word is Word.KILLED]
        return [*lost, *named]

    def _lost_before(self, sequence: int, wall: int) -> list[Observation]:
        before, self._sequence = self._sequence, sequence
        if before is None or sequence <= before + 1:
            return []
        count = sequence - before - 1
        self._lost += count
        reason = "the kernel log was overwritten before it could be read"
        return [EvidenceLost(self.name, reason, wall, self._last_time or None, count)]

    def _named(self, kill: KillRecord, record: Record, wall: int) -> VictimNamed:
        # A kill that is given again, since this line tells more of it, is of an earlier record.
        again = kill.record.sequence != record.sequence
        self._kills += not again
        process = read_process(kill.victim.pid) if self._own_pids and not again else None
        seconds = (record.kernel_time_seconds or 0) - (kill.record.kernel_time_seconds or 0)
        return VictimNamed(
            source=self.name,
            sequence=kill.record.sequence or 0,
            time=self._last_time - round(seconds * 1_000_000),
            seen_time=wall,
            victim=self._with_cmdline(kill.victim, process.cmdline if process else ()),
            detail=to_text(record.text),
            cgroup=kill.task_memcg or (process.cgroup if process is not None else None),
            printed=kill.task_memcg is not None,
            limit_cgroup=kill.oom_memcg,
            node_wide=kill.memcg is False and kill.headed,
            constraint=kill.constraint,
            invoker=kill.invoker,
            group_kill=True if kill.group is not None else None,
            group_cgroup=kill.group,
            repeated=kill.repeated and not again,
            tasks=kill.tasks,
            task_count=kill.task_count,
        )

    @staticmethod
    def _with_cmdline(victim: Victim, cmdline: tuple[str, ...]) -> Victim:
        return replace(victim, cmdline=cmdline) if cmdline and not victim.cmdline else victim
