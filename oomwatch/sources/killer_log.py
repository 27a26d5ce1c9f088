"""The userspace OOM killers' own log: which process earlyoom or nohang says that it kills.

Neither leaves a mark in a counter or on a cgroup: their line is all that there is. earlyoom's is
written before the signal is sent, and so is nohang's in its `separate_log`: it is there when the
process has ended. What nohang writes to its standard output is buffered, and may come after that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from oomwatch.events import SourceState
from oomwatch.kernel_log.userspace_killers import KILLERS, KillersLines, KillersWords, quoted
from oomwatch.observations import LastLook, Question, SignalledByKiller
from oomwatch.sources import Emit
from oomwatch.sources.kernel_log import SYSTEMD_JOURNAL
from oomwatch.sources.kernel_log.feed import Line, Lost
from oomwatch.sources.kernel_log.systemd import SystemdJournal
from oomwatch.sources.kernel_log.text_file import TextFile
from oomwatch.sources.recent import Recent

log = logging.getLogger(__name__)

_THEIRS = ("--output=short-unix", *(f"--identifier={killer}" for killer in KILLERS))


class KillerLog:
    """Follows a file that a killer or a syslog daemon writes, or systemd's journal."""

    name = "killer_log"

    def __init__(self, path: Path) -> None:
        self._feed: TextFile | SystemdJournal
        if path == SYSTEMD_JOURNAL:
            self._feed = SystemdJournal(_THEIRS, KillersLines())
        else:
            self._feed = TextFile(path, KillersLines())
        self._words = KillersWords()
        self._kills = 0
        self._faults = Recent()
        self._why_not: str | None = "not started"
        self._emit: Emit = lambda _: None

    async def start(self, emit: Emit) -> None:
        """Follow it from its end on; where that cannot be, say so and go on without."""
        self._emit = emit
        try:
            await self._feed.start(None, self._take)
        except OSError as error:
            await self._feed.stop()
            self._why_not = f"it cannot be followed: {error.strerror or error}"
        else:
            self._why_not = None

    def answer(self, question: Question) -> bool:
        """Read on where a container has ended; the answer itself is the counters'."""
        if isinstance(question, LastLook) and isinstance(self._feed, TextFile):
            self._feed.read_on()
        return False

    def state(self) -> SourceState:
        """Say whether it is followed, and what it has told."""
        problem = self._why_not or self._feed.problem
        return SourceState(
            name=self.name,
            active=problem is None,
            degraded=problem is not None or bool(self._faults.words),
            detail="; ".join(filter(None, (problem or self._feed.detail, self._faults.words))),
            figures={"kills": self._kills, "faults": self._faults.count},
        )

    async def stop(self) -> None:
        """Give back every descriptor and child."""
        await self._feed.stop()

    def _take(self, read: Sequence[Line | Lost]) -> None:
        try:
            told = self._signalled(read)
        except Exception as error:
            log.exception("a fault of oomwatch's own, please report it: these lines name no killer")
            self._faults.note_fault(error)
            return
        self._kills += len(told)
        if told:
            self._emit(told)

    def _signalled(self, read: Sequence[Line | Lost]) -> list[SignalledByKiller]:
        told = []
        for line in read:
            killed = self._words.read(line.record.text) if isinstance(line, Line) else None
            if killed is not None and isinstance(line, Line):
                told.append(SignalledByKiller(killed.killer, line.time, killed.pid, quoted(killed)))
        return told
