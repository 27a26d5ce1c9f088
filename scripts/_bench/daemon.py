"""`oomwatch serve`, with the times at which it came by certain places written down at its end.

`python -m scripts._bench.daemon STAMPS serve ...`. The places are few, each costs a fraction of a
microsecond, and what they see is the whole daemon as `oomwatch serve` composes it.
"""

# ruff: noqa: E402 - what the daemon does without is withheld before the rest is imported.
from __future__ import annotations

import functools
import json
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Everything that `serve` imports when it is run: the start is measured beyond that.
from oomwatch.cli import spared_modules

spared_modules.spare()

import oomwatch.cli.interrupts
import oomwatch.cli.logs
import oomwatch.cli.main
import oomwatch.cli.serve
import oomwatch.daemon
import oomwatch.rpc.server
from oomwatch.journal import Journal
from oomwatch.journal.store import Store
from oomwatch.rpc.streams import Streams
from oomwatch.sources.memory_events import MemoryEvents

#: Where a kill comes by, in order: a class's method, stamped as it begins or as it has ended.
PLACES: tuple[tuple[str, type, str, bool], ...] = (
    ("woken", MemoryEvents, "_wake", False),
    ("appended", Journal, "append", False),
    ("committing", Store, "commit", False),
    ("committed", Store, "commit", True),
    ("told", Journal, "_commit_told", False),
    ("sending", Streams, "_encoded", True),
)


def stamped(stamps: array[int], call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Wrap a function so that each call leaves the time it began, or ended."""

    @functools.wraps(call)
    def before_it(*arguments: Any, **named: Any) -> Any:
        stamps.append(time.monotonic_ns())
        return call(*arguments, **named)

    @functools.wraps(call)
    def after_it(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        finally:
            stamps.append(time.monotonic_ns())

    return after_it if after else before_it


def main(output: Path, arguments: list[str]) -> int:
    """Run the command line, then write the stamps."""
    places = {name: array("q") for name, *_ in PLACES}
    for name, owner, method, after in PLACES:
        setattr(owner, method, stamped(places[name], getattr(owner, method), after=after))
    imported = time.monotonic_ns()
    code = oomwatch.cli.main.run(arguments)
    found = {name: list(stamps) for name, stamps in places.items()}
    output.write_text(json.dumps({"imported": imported, **found}))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
