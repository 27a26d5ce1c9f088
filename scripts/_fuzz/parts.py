"""What is fuzzed in this process: the log parsers, the files of a cgroup, the path resolver.

Each part is an endless supply of rounds; a round is a hypothesis test with a seed, so that what
fails is shrunk to the least that still does, and comes again with the same seed.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from oomwatch.cgroup import files
from oomwatch.cgroup.hierarchy import Hierarchy, parse_mountinfo
from oomwatch.cgroup.resolving import Resolved, resolve
from oomwatch.errors import CgroupError
from oomwatch.event_json import event_dumps
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.episodes import Episodes
from oomwatch.kernel_log.journal_forms import AnyLineParser
from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.search import KillSearch

Round = Callable[[int], None]
"""Runs one round with a seed; raises what failed."""

CORPUS = Path("tests/data/kmsg")
EXAMPLES = 200
SLOWEST_SECONDS = 5.0
"""A round's example that takes longer hangs: the usual one takes less than a millisecond."""

MOST_HELD_BYTES = 2 << 20
"""What a parser may hold of a log: 64 open reports with their tables, and 4096 kills."""

QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

_ALIEN = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\0", b"\xff" * 9000, b"\n", b"=" * 300, b"9" * 400, b"\\x", b"\x1b]0;"]),
)


@contextmanager
def promptly() -> Iterator[None]:
    """Fail where something took so long that it may as well hang."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took > SLOWEST_SECONDS:
        raise AssertionError(f"took {took:.1f} s")


@st.composite
def damaged(draw: st.DrawFn, lines: list[bytes]) -> bytes:
    """Lines of real logs: picked, cut, joined, repeated, and with alien bytes in them."""
    picked = draw(st.lists(st.sampled_from(lines), min_size=1, max_size=12))
    done = []
    for line in picked:
        match draw(st.integers(0, 5)):
            case 0:
                cut = draw(st.integers(0, len(line)))
                line = line[:cut] + draw(_ALIEN) + line[cut:]
            case 1:
                line = line[: draw(st.integers(0, len(line)))]
            case 2:
                line += draw(st.sampled_from(lines))
            case 3:
                begin = draw(st.integers(0, len(line)))
                line = line[begin:]
            case 4:
                at = draw(st.integers(0, max(0, len(line) - 1)))
                line = line[:at] + bytes([draw(st.integers(0, 255))]) + line[at + 1 :]
        done.append(line)
    return draw(st.sampled_from([b"\n", b"\n", b"\r\n", b""])).join(done)


@cache
def follower() -> Assembler:
    """One that has followed all that came, as a daemon's does for months."""
    return Assembler()


def held(*roots: object) -> int:
    """How many bytes these objects and all that they refer to take, without code."""
    seen: dict[int, object] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))


def log(round_seed: int) -> None:
    """Any log into kills, by every door: record by record, and by the search through a file.

    One parser goes on through all rounds, and holds no more for that.
    """
    lines = [
        line for path in sorted(CORPUS.glob("*.kmsg")) for line in path.read_bytes().split(b"\n")
    ]

    @QUIET
    @seed(round_seed)
    @given(text=damaged(lines))
    def check(text: bytes) -> None:
        with promptly():
            assembler = Assembler()
            for number, line in enumerate(text.split(b"\n")):
                record = parse_kmsg(line, line=number)
                if record is not None:
                    assembler.feed(record)
                    follower().feed(record)
            assembler.flush()
            episodes = Episodes("fuzz", time.time_ns() // 1000)
            for kill in KillSearch(AnyLineParser()).kills(io.BytesIO(text)):
                for told in episodes.add(kill):
                    event_dumps(told.event)
            episodes.flush()

    check()
    assert held(follower()) < MOST_HELD_BYTES, "the log's parser grows"


def events(round_seed: int) -> None:
    """Any memory.events, memory.max and mountinfo: a count is a 64-bit number or absent."""
    names = ("low", "high", "max", "oom", "oom_kill", "oom_group_kill", "sock_throttled")
    real = [f"{name} {value}".encode() for name in names for value in (0, 1, 2**63, 10**30, -1)]
    # What a descriptor may be open on, rather than a path for each example: /dev/shm is a tmpfs.
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:

        @QUIET
        @seed(round_seed)
        @given(text=st.one_of(damaged(real), st.binary(max_size=6000)))
        def check(text: bytes) -> None:
            with promptly():
                file.seek(0)
                file.truncate()
                file.write(text)
                file.flush()
                found = files.EventsReader().read(file.name).counters
                counts = [found.oom, found.oom_kill, found.oom_group_kill]
                counts += [files.read_value(file.name), files.parse_count(text, b"oom_kill")]
                assert all(count is None or 0 <= count < 10**19 for count in counts), counts
                parse_mountinfo(text.decode(errors="surrogateescape"))

        check()


def path(round_seed: int) -> None:
    """Any path of a client, in a tree that is full of traps: below the root, or a sentence."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        root = Path(directory, "cgroup")
        (root / "pod" / "web").mkdir(parents=True)
        (root / "pod" / "memory.max").touch()
        (root / "pod" / "up").symlink_to("../..")
        (root / "out").symlink_to("/")
        (root / "loop").symlink_to("loop")
        os.mkfifo(root / "pipe")
        inside = {place.stat().st_ino for place in (root, root / "pod", root / "pod" / "web")}
        hierarchy = Hierarchy(str(root), "", False, False, False)
        known = ["pod", "web", "up", "out", "loop", "pipe", "memory.max", "..", ".", "", "\0"]
        parts = st.one_of(st.sampled_from(known), st.text(max_size=300))

        @QUIET
        @seed(round_seed)
        @given(parts=st.lists(parts, max_size=40), absolute=st.booleans())
        def check(parts: list[str], absolute: bool) -> None:
            with promptly():
                asked = "/".join(["", *parts] if absolute else parts)
                match _outcome(hierarchy, asked):
                    case Resolved(_, cgroup_id):
                        assert cgroup_id in inside, asked
                    case error:
                        assert str(error).isprintable(), ascii(str(error))

        check()


def _outcome(hierarchy: Hierarchy, asked: str) -> Resolved | CgroupError:
    try:
        return resolve(hierarchy, asked)
    except CgroupError as error:
        return error


PARTS: dict[str, Round] = {"log": log, "events": events, "path": path}
