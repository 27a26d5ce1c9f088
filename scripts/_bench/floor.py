"""The floor: the barest inotify loop that reads the file. `python -m scripts._bench.floor ROOT`

It is told cgroups on its first line of input, then how many kills to wait for, and says when it
saw each: the same conversation as the subscriber's.
"""

from __future__ import annotations

import json
import os
import sys
import time

from inotify_simple import INotify, flags, parse_events


def main(root: str) -> None:
    """Watch, then answer each line with what was seen."""
    inotify = INotify()
    fd = inotify.fileno()
    paths: dict[int, tuple[str, str]] = {}
    counts: dict[str, int] = {}
    for cgroup in json.loads(sys.stdin.readline()):
        path = f"{root}{cgroup}/memory.events.local"
        paths[inotify.add_watch(path, flags.MODIFY)] = cgroup, path
        counts[cgroup] = _kills(_read(path))
    print("ready", flush=True)
    for line in sys.stdin:
        records: list[tuple[int, str, int]] = []
        missing = int(line)
        while missing:
            for event in parse_events(os.read(fd, 65536)):
                cgroup, path = paths[event.wd]
                text = _read(path)
                stamp = time.monotonic_ns()
                rise = _kills(text) - counts[cgroup]
                if rise:
                    records.append((stamp, cgroup, rise))
                    counts[cgroup] += rise
                    missing -= rise
        print(json.dumps(records), flush=True)


def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    text = os.read(file, 4096)
    os.close(file)
    return text


def _kills(text: bytes) -> int:
    return int(text.partition(b"\noom_kill ")[2].split(b"\n")[0])


if __name__ == "__main__":
    main(sys.argv[1])
