"""The kernel log witness: the line that names each victim, in whatever form the log is to be had.

It names, and decides nothing. Where the log cannot be opened it says so and why, and the others go
on without it.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Sequence
from pathlib import Path

from oomwatch.events import SourceState
from oomwatch.ledger import LogPlace
from oomwatch.observations import Observation, Question
from oomwatch.sources import Emit
from oomwatch.sources.kernel_log.feed import Feed, Line, Lost
from oomwatch.sources.kernel_log.kmsg import Kmsg
from oomwatch.sources.kernel_log.naming import Naming
from oomwatch.sources.kernel_log.systemd import Missing, SystemdJournal, read_missing
from oomwatch.sources.kernel_log.text_file import TextFile
from oomwatch.sources.recent import Recent

log = logging.getLogger(__name__)

DEFAULT_KERNEL_LOG = Path("/dev/kmsg")

SYSTEMD_JOURNAL = Path("journal")
"""Not a file: the kernel's records in systemd's journal, by journalctl."""


class KernelLog:
    """The kernel log witness; inactive where the log cannot be opened.

    `place` is how far it was told in this boot, `None` where it never was: then what is in the log
    already is old.
    """

    name = "kernel_log"

    def __init__(self, path: Path = DEFAULT_KERNEL_LOG, place: LogPlace | None = None) -> None:
        self._path = path
        self.place = place
        self._feed = _feed(path)
        self._naming = Naming(self.name)
        self._why_not: str | None = "not started"
        self._lost = Recent()
        self._faults = Recent()
        self._filling: set[asyncio.Task[None]] = set()
        self._emit: Emit = lambda _: None

    @property
    def active(self) -> bool:
        """Is the log followed?"""
        return self._why_not is None and self._feed.problem is None

    async def start(self, emit: Emit) -> None:
        """Follow the log, if it can be opened; else say why not, and go on without."""
        self._emit = emit
        try:
            await self._feed.start(self.place, self._take)
        except OSError as error:
            await self._feed.stop()
            self._why_not = f"{self._path} cannot be followed ({error.strerror or error}): "
            self._why_not += (
                "CAP_SYSLOG is needed where kernel.dmesg_restrict is 1, and the device itself; "
                "or name another log with --kernel-log"
            )
        else:
            self._why_not = None
            # So that a crash before the first kill is no first start again.
            self._emit(self._naming.note() or self._feed.beginning())

    def answer(self, question: Question) -> bool:
        """It can be asked nothing."""
        return False

    def state(self) -> SourceState:
        """Say whether the log is followed, and what it has told."""
        figures = {
            "kills": self._naming.kills,
            "losses": self._lost.count,
            "faults": self._faults.count,
            **self._feed.figures,
        }
        lately = [recent.words for recent in (self._lost, self._faults) if recent.words]
        detail = self._why_not or self._feed.problem or self._feed.detail
        return SourceState(
            name=self.name,
            active=self.active,
            degraded=not self.active or bool(lately),
            detail="; ".join((detail, *lately)),
            figures=figures,
        )

    async def stop(self) -> None:
        """Note how far the log was read, and give back every descriptor and child."""
        filling = tuple(self._filling)
        for task in filling:
            task.cancel()
        await self._feed.stop()
        # Each ends its journalctl, and waits for that.
        await asyncio.gather(*filling, return_exceptions=True)
        self._emit(self._naming.note())

    def _take(self, read: Sequence[Line | Lost]) -> None:
        for lost in read:
            if isinstance(lost, Lost):
                records = "records" if lost.count is None else f"{lost.count} records"
                self._lost.note(f"{records} were lost: {lost.reason}; victims may lack their names")
                log.warning("%s: %s were lost: %s", self._path, records, lost.reason)
        observations = self._named(read)
        if observations:
            self._emit(observations)
        if isinstance(self._feed, Kmsg):
            for missing in self._feed.take_missing():
                task = asyncio.get_running_loop().create_task(self._fill(missing))
                self._filling.add(task)
                task.add_done_callback(self._filling.discard)

    def _named(self, read: Sequence[Line | Lost]) -> list[Observation]:
        """Take in what was read; a fault of our own costs these lines, and no others."""
        try:
            return self._naming.take(read)
        except Exception as error:
            log.exception("a fault of oomwatch's own, please report it: these lines name nobody")
            self._faults.note_fault(error)
            return []

    async def _fill(self, missing: Missing) -> None:
        """Read what the buffer has lost from systemd's journal, where there is one."""
        lines = await read_missing(missing)
        observations = self._naming.take_apart(lines)
        if observations:
            self._emit(observations)


def _feed(path: Path) -> Feed:
    if path == SYSTEMD_JOURNAL:
        return SystemdJournal()
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return TextFile(path)
    except OSError:
        # Not there yet: a device that is missing will not come, a file may.
        return Kmsg(path) if path.is_relative_to("/dev") else TextFile(path)
    return Kmsg(path)
