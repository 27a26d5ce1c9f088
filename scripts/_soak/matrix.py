"""`scripts/soak --matrix`: every end in every runtime, on each kernel, as often as is asked."""

from __future__ import annotations

import argparse
import subprocess
import sys

_TESTS = ("tests/runtimes/test_verdicts.py", "tests/runtimes/test_verdicts_shared.py")
_BOOT_SECONDS = 7200
"""For all of it once; under emulation an end takes some 10 s, and a sandbox's twice that."""


def main(arguments: list[str]) -> int:
    """Run the matrix; 1 where a verdict was wrong, or was found in another row than it should be.

    The tables are printed by the tests themselves, one for each run.
    """
    parser = argparse.ArgumentParser(prog="scripts/soak --matrix", description=__doc__)
    parser.add_argument("--kernel", action="append", metavar="SERIES", help="6.1 and newest")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often on each")
    parser.add_argument("-k", metavar="NAME", help="only the ends that pytest selects by this")
    asked = parser.parse_args(arguments)
    wrong = []
    for time in range(1, asked.times + 1):
        for kernel in asked.kernel or ("6.1", "newest"):
            print(f"kernel {kernel}, {time} of {asked.times}", flush=True)
            if _run(kernel, ("-k", asked.k) if asked.k else ()) != 0:
                wrong.append(f"{kernel} ({time})")
    print(f"not clean: {', '.join(wrong)}" if wrong else "clean")
    return 1 if wrong else 0


def _run(kernel: str, selected: tuple[str, ...]) -> int:
    machine = ("--runtimes", "--memory", "4G", "--kernel", kernel, "--timeout", str(_BOOT_SECONDS))
    test = ("python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-o", "timeout=900")
    environment = ("env", "OOMWATCH_REQUIRE_KERNEL=1", "OOMWATCH_RUNTIMES=all")
    words = ("scripts/vm", *machine, "--", *environment, *test, *_TESTS, *selected)
    return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
