"""`oomwatch scan` beside `grep -c 'Killed process'`, over the same large log."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts._bench.figures import Figure

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "tests/data/kmsg"
TIMES = 5
# Into a pipe: grep that writes to /dev/null stops at the first line that it finds.
_TIMED = """\
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""

_OTHER = (
    "kernel: [{0:12.6f}] usb 1-1: new high-speed USB device number 7 using xhci_hcd",
    "systemd[1]: Started Session 1234 of user root, run by the killer app.",
    'kernel: [{0:12.6f}] audit: type=1400 apparmor="DENIED" operation="open" profile="snap.x"',
    "sshd[{1}]: Accepted publickey for root from 192.0.2.7 port 51234 ssh2: ED25519 SHA256:abc",
    "kernel: [{0:12.6f}] IPv6: ADDRCONF(NETDEV_CHANGE): veth9f3a: link becomes ready",
    "cron[{1}]: (root) CMD (test -x /usr/sbin/anacron || run-parts --report /etc/cron.hourly)",
    "systemd[1]: web.service: Failed with result 'exit-code'.",
    "kernel: [{0:12.6f}] EXT4-fs (vda1): re-mounted. Quota mode: none.",
)


def measure(folder: Path, *, quick: bool, rounds: int) -> list[Figure]:
    """Time both over one log in `folder`, whose file is in memory; rates are medians."""
    size = (1 << 27) if quick else (1 << 30)
    kills = size >> 20
    log = folder / "kern.log"
    try:
        _write(log, size, kills)
        counted = subprocess.run(
            ["grep", "-c", "Killed process", log], capture_output=True, check=True
        )
        assert int(counted.stdout) == kills
        scan = [sys.executable, "-m", "oomwatch.cli.main", "scan", str(log), "-o", "json"]
        found = subprocess.run(scan, capture_output=True, check=True).stdout.count(b"\n")
        assert found == kills, found
        grep_times, scan_times, peak = [], [], 0
        for _ in range(max(rounds, TIMES)):
            grep_times.append(_timed(["grep", "-c", "Killed process", str(log)])[0])
            took, resident = _timed(scan)
            scan_times.append(took)
            peak = max(peak, resident)
    finally:
        log.unlink(missing_ok=True)
    grep, ours = statistics.median(grep_times), statistics.median(scan_times)
    what = f"a log of {size >> 20} MiB with {kills} kills"
    return [
        Figure(f"scan: {what}", ours, "s", 5 * grep),
        Figure("scan: grep -c 'Killed process' over the same", grep, "s"),
        Figure("scan: times as long as grep", ours / grep, "×", 5.0),
        Figure("scan: resident, at most", peak / 1024, "MiB"),
    ]


def _timed(command: list[str]) -> tuple[float, int]:
    """Seconds by the clock, and the most memory resident, in KiB."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", _TIMED, *command], capture_output=True, check=True, cwd=ROOT
    )
    took = time.perf_counter() - began
    code, resident = done.stdout.split()
    assert code == b"0"
    return took - _startup(), int(resident)


_measured: list[float] = []


def _startup() -> float:
    """What the process that measures takes itself."""
    if not _measured:
        command = [sys.executable, "-S", "-c", _TIMED, "true"]
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            _measured.append(time.perf_counter() - began)
    return min(_measured)


def _write(log: Path, size: int, kills: int) -> None:
    """Write other lines, and a real report of a kill at every so many of them."""
    from oomwatch.kernel_log.kmsg import parse_kmsg

    report = []
    for raw in (RECORDS / "own-6.1.kmsg").read_bytes().splitlines():
        record = parse_kmsg(raw)
        if record is not None:
            report += record.text.decode().split("\n")
    between = size // kills
    with log.open("w") as out:
        for kill in range(kills):
            uptime = kill * 600.0
            stamp = f"Nov {1 + kill % 30:2} 06:40:46 server-1 "
            other = "".join(f"{stamp}{text.format(uptime, 1000 + kill)}\n" for text in _OTHER)
            out.write(other * (between // len(other)))
            pid = str(10_000 + kill)
            for text in report:
                text = text.replace("pid=138", f"pid={pid}").replace(
                    "process 138", f"process {pid}"
                )
                out.write(f"{stamp}kernel: [{uptime + 1:12.6f}] {text}\n")


def main() -> None:
    """Measure this alone."""
    from scripts._bench.figures import table

    with tempfile.TemporaryDirectory(prefix="oomwatch-bench-", dir="/dev/shm") as folder:
        quick = "--quick" in sys.argv
        print(table(measure(Path(folder), quick=quick, rounds=1)))
    print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
