"""The tracepoint witness: oom:mark_victim names each victim, before it can exit, at no rate limit.

It fires once per victim, after the counters rose, and for victims that were exiting already too: so
it names, and never counts. It has no cgroup; /proc has, until the victim is reaped. Its fields are
the pid alone on older kernels and the sizes too on newer ones: they are read by the event's own
`format` file (Documentation/trace/events.rst). It is followed in a tracefs instance of our own, so
that nobody else's tracing is touched, and by the monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

from oomwatch.cgroup.process import read_process, sees_the_hosts_pids
from oomwatch.events import SourceState, Victim
from oomwatch.observations import EvidenceLost, Observation, Question, VictimNamed
from oomwatch.sources import Emit
from oomwatch.sources.recent import Recent

log = logging.getLogger(__name__)

DEFAULT_TRACEFS = Path("/sys/kernel/tracing")

_EVENT = "events/oom/mark_victim"
_INSTANCE = "oomwatch-"
_READ_BYTES = 65536
_LONGEST_BUFFER = 1 << 20
_LOST = re.compile(rb"CPU:\d+ \[LOST (\d+) EVENTS\]\n")
_HEAD = rb"[\s\S]{1,32}?-\d+\s+\[\d+\]\s+\S+\s+(?P<seconds>\d+)\.(?P<micros>\d{6}): mark_victim: "
_NUMBERS = {"d", "i", "u", "ld", "lu", "hd", "hu", "lld", "llu"}

_BYTES = {
    "total_vm": "total_vm_bytes",
    "anon_rss": "anon_rss_bytes",
    "file_rss": "file_rss_bytes",
    "shmem_rss": "shmem_rss_bytes",
    "pgtables": "pgtables_bytes",
}


class Format:
    """The text of one hit, as the event's own `format` file says that it is printed.

    The victim's name is raw bytes, newlines and all: it is bounded by its 15 bytes and by the
    fields that are printed around it.
    """

    def __init__(self, text: str) -> None:
        printed = re.search(r'print fmt: "(.*)", (REC->.*|__.*)', text)
        if printed is None:
            raise ValueError("the format file has no 'print fmt'")
        names = re.findall(r"(?:REC->|__get_str\()(\w+)", printed[2])
        pattern = ""
        for literal, kind in re.findall(r"([^%]*)%(s|[a-z]+)?", printed[1] + "%"):
            pattern += re.escape(literal)
            if not kind:
                continue
            name = names.pop(0)
            if kind == "s":
                pattern += rf"(?P<{name}>[\s\S]{{0,15}}?)"
                continue
            number = next(k for k in sorted(_NUMBERS, key=len, reverse=True) if kind.startswith(k))
            pattern += rf"(?P<{name}>-?\d+)" + re.escape(kind[len(number) :])
        self._hit = re.compile(_HEAD + pattern.encode() + rb"\n")

    def parse(self, buffer: bytes) -> tuple[list[dict[str, bytes]], bytes]:
        """Return the hits in a buffer, and what of it may be the beginning of another."""
        hits = []
        end = 0
        for match in self._hit.finditer(buffer):
            hits.append({name: value for name, value in match.groupdict().items() if value})
            end = match.end()
        return hits, buffer[end:]


class Tracepoint:
    """The tracepoint witness; inactive where tracefs, the event or the right to it is missing."""

    name = "tracepoint"

    def __init__(self, tracefs: Path = DEFAULT_TRACEFS) -> None:
        self._tracefs = tracefs
        self._instance: Path | None = None
        self._pipe: int | None = None
        self._buffer = b""
        self._hits = 0
        self._lost = Recent()
        self._faults = Recent()
        self._why_not = ""
        self._own_pids = sees_the_hosts_pids()
        self._emit: Emit = lambda _: None

    @property
    def active(self) -> bool:
        """Is the tracepoint followed?"""
        return self._pipe is not None

    async def start(self, emit: Emit) -> None:
        """Follow the tracepoint, if it can be had; else say why not, and go on without it."""
        self._emit = emit
        try:
            self._open()
        except (OSError, ValueError) as error:
            self._close()
            self._why_not = (
                f"{self._tracefs}/{_EVENT} cannot be followed ({error}): root and a mounted "
                f"tracefs are needed (mount -t tracefs tracefs {self._tracefs})"
            )
            return
        assert self._pipe is not None
        asyncio.get_running_loop().add_reader(self._pipe, self._wake)

    def answer(self, question: Question) -> bool:
        """It can be asked nothing."""
        return False

    def state(self) -> SourceState:
        """Say whether it is followed, and what it has told."""
        detail = self._why_not or f"oom:mark_victim, followed in {self._instance}"
        return SourceState(
            name=self.name,
            active=self.active,
            degraded=not self.active or bool(self._lost.words or self._faults.words),
            detail="; ".join(filter(None, (detail, self._lost.words, self._faults.words))),
            figures={
                "hits": self._hits,
                "lost": self._lost.count,
                "faults": self._faults.count,
            },
        )

    async def stop(self) -> None:
        """Give back the pipe and the instance."""
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
        self._close()

    def _open(self) -> None:
        instances = self._tracefs / "instances"
        self._remove_leftovers(instances)
        instance = instances / f"{_INSTANCE}{os.getpid()}"
        instance.mkdir(exist_ok=True)
        self._instance = instance
        (instance / "trace_clock").write_text("mono")
        # Else the kernel notes a name at every switch of tasks, and we have no use for them.
        with contextlib.suppress(OSError):
            (instance / "trace_options").write_text("norecord-cmd")
        self._format = Format((instance / _EVENT / "format").read_text())
        self._pipe = os.open(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        (instance / _EVENT / "enable").write_text("1")

    def _remove_leftovers(self, instances: Path) -> None:
        """Remove the instances of daemons that were killed: nobody else will."""
        for left in instances.glob(f"{_INSTANCE}*"):
            pid = left.name.removeprefix(_INSTANCE)
            if pid.isdigit() and not Path("/proc", pid).exists():
                with contextlib.suppress(OSError):
                    left.rmdir()

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._instance is not None:
            try:
                self._instance.rmdir()
            except OSError as error:
                log.warning("%s cannot be removed: %s", self._instance, error.strerror)
            self._instance = None

    def _wake(self) -> None:
        assert self._pipe is not None
        try:
            self._buffer += os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        try:
            observations = self._hit()
        except Exception as error:
            log.exception("a fault of oomwatch's own, please report it: these hits name nobody")
            self._faults.note_fault(error)
            self._buffer = b""
            return
        if observations:
            self._emit(observations)

    def _hit(self) -> list[Observation]:
        offset = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        observations: list[Observation] = []
        lost = sum(int(count) for count in _LOST.findall(self._buffer))
        hits, self._buffer = self._format.parse(self._buffer)
        if len(self._buffer) > _LONGEST_BUFFER:
            self._buffer = b""
        observations += [self._named(hit, offset) for hit in hits]
        if lost:
            self._buffer = _LOST.sub(b"", self._buffer)
            self._lost.note(
                f"the trace buffer was overrun by {lost} hits: victims may lack their names", lost
            )
            observations.append(
                EvidenceLost(
                    self.name, "the trace buffer was overrun", offset + _monotonic(), count=lost
                )
            )
        return observations

    def _named(self, hit: dict[str, bytes], offset: int) -> VictimNamed:
        self._hits += 1
        pid = int(hit["pid"])
        process = read_process(pid) if self._own_pids else None
        sizes: dict[str, Any] = {_BYTES[n]: int(v) * 1024 for n, v in hit.items() if n in _BYTES}
        comm = hit.get("comm")
        return VictimNamed(
            source=self.name,
            sequence=self._hits,
            time=offset + int(hit["seconds"]) * 1_000_000 + int(hit["micros"]),
            seen_time=offset + _monotonic(),
            victim=Victim(
                pid=pid,
                comm=comm.decode(errors="surrogateescape") if comm is not None else None,
                cmdline=process.cmdline if process is not None else (),
                uid=int(hit["uid"]) if "uid" in hit else None,
                oom_score_adj=int(hit["oom_score_adj"]) if "oom_score_adj" in hit else None,
                **sizes,
            ),
            detail=f"oom:mark_victim pid={pid}",
            cgroup=process.cgroup if process is not None else None,
        )


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
