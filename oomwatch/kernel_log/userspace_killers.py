"""What earlyoom and nohang write of a process that they kill; pure.

earlyoom (kill.c) names pid and signal in one line, before it sends the signal:

    sending SIGTERM to process 1234 uid 0 "tail": badness 1300, VmRSS 412 MiB

nohang (src/nohang) names the pid among the victim's particulars, and the signal lines later:

    TOP printed in 3ms; process with highest badness:
      PID: 1234, name: tail, badness: 1300
    Victim status (found in 4ms):
      PID:       1234, name: tail, state: R (running), EUID: 0, …
    Implementing a corrective action:
      Sending SIGKILL to the victim

In both the pid stands before any name, which is the victim's own choice. nohang's status can be
switched off (`print_victim_status`), and with `separate_log` it dates its lines as Python's logging
does, the first of several alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oomwatch.kernel_log.record import MAX_RECORD_BYTES, Record
from oomwatch.kernel_log.text import LineParser

KILLERS = ("earlyoom", "nohang")

_PRIORITY = re.compile(rb"<\d{1,3}>")
_TAG = re.compile(rb" ?(?:\S{1,255} )?(earlyoom|nohang)(?:\[\d{1,10}\])?: ?")
_EARLYOOM = re.compile(
    rb'sending (SIG[A-Z0-9]{2,8}|signal \d{1,3}) to process (\d{1,10}) uid \d{1,10} "'
)
_NOHANG_BEGINS = (
    b"TOP printed in ",
    b"Process with highest badness (found in ",
    b"Victim status (found in ",
)
_NOHANG_PID = re.compile(rb"\s{1,8}PID: {1,16}(\d{1,10}), [Nn]ame: ")
_NOHANG_CACHED = re.compile(rb"New victim is cached victim (\d{1,10}) \(")
_NOHANG = re.compile(rb"\s{1,8}Sending (SIG[A-Z0-9]{2,8}) to the victim\s*$")


@dataclass(frozen=True, slots=True)
class UserspaceKill:
    """A userspace OOM killer says that it signals a process; `signal` as it writes it."""

    killer: str
    pid: int
    signal: str


class KillersLines(LineParser):
    """Takes the two killers' lines out of a log, without what a syslog or journalctl put before.

    A line that has no date, or Python's, is one of a file of the killer's own.
    """

    def parse(self, line: bytes, number: int = 0) -> Record | None:
        """Give what a killer wrote, or `None` where another did."""
        line = line[:MAX_RECORD_BYTES].rstrip(b"\r\n\0")
        priority = _PRIORITY.match(line)
        stamp = self._stamp(line, priority.end() if priority is not None else 0)
        if stamp is None:
            return Record(text=line, line=number) if line else None
        if stamp.bare and line.startswith(b": ", stamp.end):
            return Record(text=line[stamp.end + 2 :], wall_time=stamp.wall_time, line=number)
        tag = _TAG.match(line, stamp.end)
        if tag is None:
            return None
        return Record(text=line[tag.end() :], wall_time=stamp.wall_time, line=number)


class KillersWords:
    """Reads what the killers wrote, line by line."""

    def __init__(self) -> None:
        self._victim: int | None = None

    def read(self, text: bytes) -> UserspaceKill | None:
        """Give the kill that a line completes, if it does."""
        killed = _EARLYOOM.match(text)
        if killed is not None:
            return UserspaceKill("earlyoom", int(killed[2]), killed[1].decode())
        if text.startswith(_NOHANG_BEGINS):
            self._victim = None
            return None
        cached = _NOHANG_CACHED.match(text)
        if cached is not None:
            self._victim = int(cached[1])
            return None
        pid = _NOHANG_PID.match(text)
        if pid is not None:
            # The first: what follows is the victim's command line, which may look like anything.
            self._victim = self._victim or int(pid[1])
            return None
        killed = _NOHANG.match(text)
        if killed is None or self._victim is None:
            return None
        victim, self._victim = self._victim, None
        return UserspaceKill("nohang", victim, killed[1].decode())


def quoted(kill: UserspaceKill) -> str:
    """Say in words what the killer wrote."""
    return f"its log says that it sent {kill.signal} to process {kill.pid}"
