"""The command line of scripts/fuzz."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from scripts._fuzz import daemon
from scripts._fuzz.parts import PARTS

NAMES = (*PARTS, "daemon")


def main() -> int:
    """Fuzz what was asked for, for as long as was asked for; 1 where something failed."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Hostile input against the parsers, the path resolver and a real daemon: "
        "no crash, no hang, no growth.",
        epilog="Parts: log (kernel logs in any form), events (files of a cgroup), path (a "
        "client's cgroup path), daemon (every call, and bytes that are none, at a real socket).",
    )
    parser.add_argument("parts", nargs="*", choices=[[], *NAMES], metavar="PART")
    parser.add_argument("--seconds", type=float, default=40.0, help="in all (40)")
    parser.add_argument("--seed", type=int, help="the first round's; from the clock if not given")
    options = parser.parse_args()
    parts = options.parts or NAMES
    first = time.time_ns() % 10**9 if options.seed is None else options.seed
    failed = False
    for name in parts:
        # The daemon has nine calls to be asked, and starts first.
        share = 3 if name == "daemon" else 1
        whole = len(parts) + 2 * ("daemon" in parts)
        failed |= not _fuzz(name, first, options.seconds * share / whole)
    return int(failed)


def _fuzz(name: str, first: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    done = 0
    try:
        with daemon.rounds() if name == "daemon" else nullcontext(PARTS[name]) as run:
            while not done or time.monotonic() < until:
                run(first + done)
                done += 1
    except Exception as error:  # noqa: BLE001 - whatever it is, it was found
        notes = "\n".join(getattr(error, "__notes__", ()))
        print(f"fuzz: {name}: {type(error).__name__}: {error}\n{notes}", file=sys.stderr)
        print(f"fuzz: again: scripts/fuzz {name} --seed {first + done}", file=sys.stderr)
        return False
    print(f"fuzz: {name}: {done} rounds from seed {first}: well", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
