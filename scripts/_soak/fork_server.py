"""Imports the daemon once, and forks it for each of its lives: a start takes ms, emulated 1 s.

`python -m scripts._soak.fork_server LOG serve ...` reads a line for each life: `{"die": [PLACE,
N]}` has it kill itself at a place in its N-th commit, `{}` leaves that to others. It answers with
the pid, and after the line `{"wait": PID}` with the status that it ended with.

gRPC starts its threads with its first server or channel, and this process makes neither.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import oomwatch.cli.interrupts
import oomwatch.cli.logs
import oomwatch.cli.main
import oomwatch.cli.serve
import oomwatch.daemon
import oomwatch.rpc.server
from oomwatch.journal.store import Store

PLACES = ("before", "within", "after")
"""Of a commit: nothing is written yet; written but not committed; committed but not told."""


def die_in_commit(place: str, number: int) -> None:
    """Have this process killed at a place in its `number`-th transaction."""
    begun = 0
    transaction = Store._transaction

    def here(now: str) -> None:
        if begun == number and now == place:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def deadly(self: Store) -> Iterator[sqlite3.Connection]:
        nonlocal begun
        begun += 1
        here("before")
        with transaction(self) as connection:
            yield connection
            here("within")
        here("after")

    Store._transaction = deadly  # type: ignore[method-assign]


def live(arguments: list[str], log: str, die: list[Any] | None) -> NoReturn:
    """Be the daemon; never returns to the server's loop."""
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if die:
            die_in_commit(*die)
        status = oomwatch.cli.main.run(arguments)
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(log: str, arguments: list[str]) -> int:
    """Fork lives as told, until there is nobody left to tell."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            live(arguments, log, order.get("die"))
        print(pid, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
