"""The measures: each gives its figures, from trees that are built once and shared."""

from __future__ import annotations

import heapq
import os
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from scripts._bench.figures import Figure, medians, percentile
from scripts._bench.processes import Daemon, Helper, resident_mib, usage
from scripts._bench.tree import Script, Tree, kills, thrashing

APART_SECONDS = 0.004
TARGETS = 1000
CONTAINERS = 10_000
FINALIZED = 1000
THRASHING = 50
THRASHES_A_SECOND = 100
SUBSCRIBERS = 500
BURST = 1000
WARM_UP = 50


class Trees:
    """Trees by size, each built when it is first wanted."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._trees: dict[int, Tree] = {}

    def __getitem__(self, cgroups: int) -> Tree:
        if cgroups not in self._trees:
            self._trees[cgroups] = Tree(self._memory / f"tree-{cgroups}", cgroups, TARGETS)
        return self._trees[cgroups]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for tree in self._trees.values():
            tree.close()


class Bench:
    """All measures, on this machine: journals on `disk`, `quick` for fewer and smaller ones."""

    def __init__(
        self, trees: Trees, disk: Path, sizes: Sequence[int], *, quick: bool, rounds: int
    ) -> None:
        self._trees = trees
        self._disk = disk
        self._quick = quick
        self._rounds = rounds
        self._sizes = sizes

    def by_size(self) -> Iterator[Figure]:
        """Latency, start and memory by number of cgroups."""
        rounds: dict[int, list[dict[str, float]]] = defaultdict(list)
        floors: dict[int, list[dict[str, float]]] = defaultdict(list)
        disks: list[dict[str, float]] = []
        for _ in range(self._rounds):
            # Each round has every size, so that what else the machine does troubles all alike.
            for size in self._sizes:
                floors[size].append(self._floor(size))
                rounds[size].append(self._latency(size))
            disks.append(self._sync())
        one, disk = medians(rounds[1]), medians(disks)
        yield Figure("the disk alone, 4 KiB written and synced: p50", disk["p50"], "ms")
        yield Figure("  p99", disk["p99"], "ms")
        for size in self._sizes:
            now, floor = medians(rounds[size]), medians(floors[size])
            at = f"{size:,} cgroup{'s' if size > 1 else ''}"
            yield Figure(f"kill to subscriber, {at}: p50", now["p50"], "ms", 1.5, floor["p50"])
            yield Figure("  p50 less the commit", now["less_commit"], "ms", 0.8, floor["p50"])
            yield Figure("  p99", now["p99"], "ms", 5.0, floor["p99"])
            if size > 1:
                yield Figure("  p50, of that at 1 cgroup", now["p50"] / one["p50"], "×", 1.3)
                yield Figure("  p99, of that at 1 cgroup", now["p99"] / one["p99"], "×", 1.3)
            yield Figure("  the floor alone: p50", floor["p50"], "ms")
            yield Figure("  the floor alone: p99", floor["p99"], "ms")
            for stage in STAGES:
                yield Figure(f"  of it, {stage}: p50", now[stage], "ms")
            start = {10_000: 1.0, 100_000: 4.0}.get(size)
            yield Figure("  start beyond imports", now["start"], "s", start)
            memory = {1: 48.0, 10_000: 60.0, 100_000: 150.0}.get(size)
            yield Figure("  resident memory after that", now["memory"], "MiB", memory)

    def containers(self) -> Iterator[Figure]:
        """What it costs to know 10,000 containers: latency and memory, before and after."""
        found = medians([self._containers() for _ in range(self._rounds)])
        at = f"{CONTAINERS:,} cgroups, each a registered container"
        yield Figure(f"{at}: kill to subscriber, p50", found["p50"], "ms", 1.5)
        yield Figure("  the same before", found["bare_p50"], "ms")
        yield Figure("  ratio", found["p50"] / found["bare_p50"], "×", 1.3)
        yield Figure("  p99", found["p99"], "ms", 5.0)
        yield Figure("  the same before", found["bare_p99"], "ms")
        yield Figure("  resident memory", found["memory"], "MiB")
        yield Figure("  the same before", found["bare_memory"], "MiB", 60.0)
        yield Figure("  one WatchContainer", found["seconds"] / CONTAINERS * 1000, "ms")
        yield Figure("  one FinalizeContainer, p50", found["finalize_p50"], "ms", 5.0)
        yield Figure("  p99", found["finalize_p99"], "ms")

    def idle(self) -> Iterator[Figure]:
        """What an idle host costs, with one subscriber connected."""
        seconds = 20.0 if self._quick else 60.0
        tree = self._trees[10_000]
        with Daemon(tree.root, self._disk) as daemon, Helper("subscriber", daemon.socket):
            time.sleep(3.0)  # what was started has come to rest
            before = usage(daemon.pid)
            time.sleep(seconds)
            used = usage(daemon.pid) - before
        at = f"idle for {seconds:g} s, 10,000 cgroups"
        yield Figure(f"{at}: switches a second", used.switches / used.time, "/s", 15.0)
        # The audit and the bookmark are each due every 30 s.
        allowed = 2.0 * (1 + seconds // 30)
        yield Figure("  switches of the main thread", used.main_switches, "", allowed)
        yield Figure("  CPU", used.cpu_percent, "%", 0.1)

    def thrash(self) -> Iterator[Figure]:
        """Cgroups at their limits: their price, and what it does to kills in them and elsewhere."""
        found = medians([self._thrash() for _ in range(self._rounds)])
        at = f"{THRASHING} cgroups thrashing, {THRASHES_A_SECOND} times a second each"
        yield Figure(f"{at}: CPU", found["cpu"], "%", 6.0)
        yield Figure("  kill elsewhere: p50", found["elsewhere_p50"], "ms")
        yield Figure("  the same before: p50", found["quiet_p50"], "ms")
        yield Figure("  ratio", found["elsewhere_p50"] / found["quiet_p50"], "×", 1.3)
        yield Figure("  kill elsewhere: p99", found["elsewhere_p99"], "ms")
        yield Figure("  the same before: p99", found["quiet_p99"], "ms")
        yield Figure("  kill inside: p50", found["inside_p50"], "ms")
        yield Figure("  kill inside: p99", found["inside_p99"], "ms", 35.0)

    def fanout(self) -> Iterator[Figure]:
        """Many subscribers, each of which gets every event of a burst."""
        found = medians([self._fanout() for _ in range(self._rounds)])
        at = f"{SUBSCRIBERS} subscribers, a burst of {BURST:,} kills"
        yield Figure(f"{at}: until all have all", found["seconds"], "s", 2.0)
        yield Figure("  subscribers that had all, in order", found["in_order"], "")
        yield Figure("  memory beyond the idle subscribers'", found["burst"], "MiB", 20.0)
        yield Figure("  memory of the idle subscribers", found["idle"], "MiB")

    def help(self) -> Iterator[Figure]:
        """How long `oomwatch tail --help` takes."""
        command = [str(Path(sys.executable).with_name("oomwatch")), "tail", "--help"]
        ours, bare = [], []
        for _ in range(11):
            ours.append(_wall_ms(command))
            bare.append(_wall_ms([sys.executable, "-c", "pass"]))
        floor = statistics.median(bare)
        yield Figure("oomwatch tail --help: median", statistics.median(ours), "ms", 150.0, floor)
        yield Figure("  python -c pass", floor, "ms")

    def _floor(self, size: int) -> dict[str, float]:
        tree = self._trees[size]
        count = self._count
        with Helper("floor", tree.root, first=tree.targets) as floor:
            floor.say(count)
            tree.play(kills(tree.targets, count, APART_SECONDS))
            delays = _delays(tree.take_kills(), floor.answer())
        return {"p50": percentile(delays, 50), "p99": percentile(delays, 99)}

    def _sync(self) -> dict[str, float]:
        """What a commit waits for at the least: the journal can be no faster than its disk."""
        delays = []
        with tempfile.TemporaryFile(dir=self._disk) as file:
            for _ in range(self._count):
                time.sleep(APART_SECONDS)
                began = time.monotonic()
                os.pwrite(file.fileno(), bytes(4096), 0)
                os.fdatasync(file.fileno())
                delays.append((time.monotonic() - began) * 1000)
        return {"p50": percentile(delays, 50), "p99": percentile(delays, 99)}

    @property
    def _count(self) -> int:
        return 500 if self._quick else 1000

    def _latency(self, size: int) -> dict[str, float]:
        tree, count = self._trees[size], self._count
        with (
            Daemon(tree.root, self._disk) as daemon,
            Helper("subscriber", daemon.socket) as subscriber,
        ):
            _kill_all(tree, subscriber, kills(tree.targets, WARM_UP, APART_SECONDS), WARM_UP)
            subscriber.say(count)
            tree.play(kills(tree.targets, count, APART_SECONDS))
            written, seen = tree.take_kills(), subscriber.answer()
            memory = resident_mib(daemon.pid)
        delays = _delays(written, seen)
        stages = _stages([stamp for _, stamp in written], daemon.stamps, [row[0] for row in seen])
        return {
            "p50": percentile(delays, 50),
            "p99": percentile(delays, 99),
            "start": daemon.start_seconds,
            "memory": memory,
            **stages,
        }

    def _containers(self) -> dict[str, float]:
        tree, count = self._trees[CONTAINERS], self._count
        found: dict[str, float] = {}
        with (
            Daemon(tree.root, self._disk) as daemon,
            Helper("subscriber", daemon.socket) as subscriber,
            Helper("registrar", daemon.socket, first=tree.leaves) as registrar,
        ):
            _kill_all(tree, subscriber, kills(tree.targets, WARM_UP, APART_SECONDS), WARM_UP)
            for prefix in ("bare_", ""):
                if not prefix:
                    registrar.say("go")
                    found["seconds"] = registrar.answer()
                delays = _kill_all(
                    tree, subscriber, kills(tree.targets, count, APART_SECONDS), count
                )
                found[f"{prefix}p50"] = percentile(delays, 50)
                found[f"{prefix}p99"] = percentile(delays, 99)
                found[f"{prefix}memory"] = resident_mib(daemon.pid)
            registrar.say(f"finalize {FINALIZED}")
            took = registrar.answer()
            found["finalize_p50"] = percentile(took, 50)
            found["finalize_p99"] = percentile(took, 99)
        return found

    def _thrash(self) -> dict[str, float]:
        tree = self._trees[1000]
        inside, elsewhere = tree.targets[:THRASHING], tree.targets[THRASHING:]
        seconds = 10.0 if self._quick else 20.0
        count = int(seconds / 2 / 0.02)
        found: dict[str, list[float]] = {}
        with (
            Daemon(tree.root, self._disk) as daemon,
            Helper("subscriber", daemon.socket) as subscriber,
        ):

            def kill_in(name: str, targets: list[str], *others: Script) -> None:
                script = heapq.merge(kills(targets, count, 0.02), *others)
                found[name] = _kill_all(tree, subscriber, script, count)

            def at_limits(seconds: float) -> Script:
                return thrashing(inside, seconds, THRASHES_A_SECOND)

            kill_in("warm", elsewhere)
            kill_in("quiet", elsewhere)
            tree.play(at_limits(1.0))
            before = usage(daemon.pid)
            tree.play(at_limits(seconds))
            used = usage(daemon.pid) - before
            kill_in("elsewhere", elsewhere, at_limits(count * 0.02))
            kill_in("inside", inside, at_limits(count * 0.02))
        figures = {"cpu": used.cpu_percent}
        for name, delays in found.items():
            figures[f"{name}_p50"] = percentile(delays, 50)
            figures[f"{name}_p99"] = percentile(delays, 99)
        return figures

    def _fanout(self) -> dict[str, float]:
        tree = self._trees[10_000]
        with ExitStack() as stack:
            daemon = stack.enter_context(Daemon(tree.root, self._disk))
            empty = resident_mib(daemon.pid)
            clients = stack.enter_context(Helper("crowd", daemon.socket, "live", SUBSCRIBERS))
            clients.say(BURST)
            idle = resident_mib(daemon.pid)
            tree.play(kills(tree.targets, BURST, 0.0))
            written = tree.take_kills()
            answer = clients.answer()
            full = resident_mib(daemon.pid)
        return {
            "seconds": (max(map(max, answer["stamps"])) - written[0][1]) / 1e9,
            "in_order": answer["in_order"],
            "idle": idle - empty,
            "burst": full - idle,
        }


STAGES = ("wake", "read and correlate", "queue", "commit", "notify", "encode", "gRPC and decode")
_BOUNDS = ("woken", "appended", "committing", "committed", "told", "sending")


def _stages(
    written: Sequence[int], stamps: dict[str, list[int]], seen: Sequence[int]
) -> dict[str, float]:
    """How long each stage took, the median over the kills: each kill is the next to come by."""
    spans: dict[str, list[float]] = {stage: [] for stage in STAGES}
    less_commit = []
    for begin in written:
        before, kill = begin, {}
        for stage, bound in zip(STAGES, (*_BOUNDS, ""), strict=True):
            times = stamps[bound] if bound else seen
            index = bisect_left(times, before)
            if index == len(times):
                break
            kill[stage] = (times[index] - before) / 1e6
            before = times[index]
        else:
            less_commit.append(sum(kill.values()) - kill["commit"])
            for stage, span in kill.items():
                spans[stage].append(span)
    found = {stage: percentile(values, 50) for stage, values in spans.items()}
    return {**found, "less_commit": percentile(less_commit, 50)}


def _delays(written: Sequence[tuple[str, int]], seen: Sequence[Sequence[int]]) -> list[float]:
    """Milliseconds from each kill to the event that told it; one event may tell several."""
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for cgroup, stamp in written:
        waiting[cgroup].append(stamp)
    delays = []
    for stamp, place, count in seen:
        queue = waiting[str(place)]
        delays += [(stamp - queue.popleft()) / 1e6 for _ in range(min(count, len(queue)))]
    if any(waiting.values()) or len(delays) != len(written):
        raise RuntimeError(f"{len(written)} kills were written and {len(delays)} of them told")
    return delays


def _kill_all(tree: Tree, subscriber: Helper, script: Script, count: int) -> list[float]:
    subscriber.say(count)
    tree.play(script)
    return _delays(tree.take_kills(), subscriber.answer())


def _wall_ms(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000
