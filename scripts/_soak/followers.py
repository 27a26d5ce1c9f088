"""The subscribers of a soak, in a process of their own: started first, compared at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from scripts._soak.lives import ANSWER_SECONDS, CHECKOUT
from scripts._soak.truth import DifferenceError


class Followers:
    """Of each kind that `subscribers` has, at one socket."""

    def __init__(self, socket: Path, seed: int, count: int) -> None:
        self.count = count
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "scripts._soak.subscribers"),
                *(str(socket), str(seed), str(count)),
            ],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_there(self) -> None:
        """Return once they try to connect."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def compare(self, written: dict[int, str]) -> str:
        """Hold what each saw against the journal, in words. Raises DifferenceError."""
        newest = max(written, default=0)
        # Of those that read nothing until now, each reads all of it.
        seconds = ANSWER_SECONDS + self.count * newest / 50
        out, _ = self._process.communicate(f"{newest}\n", timeout=seconds)
        rows = list(written.items())
        for line in out.splitlines():
            told = json.loads(line)
            seen = [(revision, text) for revision, text in told["seen"]]
            wanted = rows if told["whole"] else [row for row in rows if row >= seen[0]]
            if seen != wanted:
                raise DifferenceError(f"subscriber {told['kind']}: {_first_apart(seen, wanted)}")
        if len(out.splitlines()) != self.count:
            raise DifferenceError(f"{len(out.splitlines())} of {self.count} subscribers answer")
        return f"{self.count} subscribers saw all {newest} revisions once, in order"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _first_apart(seen: list[tuple[int, str]], wanted: list[tuple[int, str]]) -> str:
    for number, (one, other) in enumerate(zip(seen, wanted, strict=False)):
        if one != other:
            return f"its event {number} was {one}, should be {other}"
    return f"it saw {len(seen)} events, of {len(wanted)}"
