"""From the kernel log's stamps to wall time. Pure: every clock is handed in.

Facts (kernel/printk/printk.c, kernel/time/sched_clock.c), and what follows from them:

- A record is stamped by local_clock(), which, as CLOCK_MONOTONIC, stops in suspend; but no NTP
  slews it, so that the two drift apart: 50 ppm are 4 s a day. So it is held against
  CLOCK_MONOTONIC at each read, and only what was seen in the last minute counts: of those the
  smallest lag is the clocks' distance; what a record's lag has beyond it is how late it is read.
- CLOCK_BOOTTIME minus CLOCK_MONOTONIC is the time spent suspended. When it grows, the distance is
  measured anew: not every machine brings local_clock() back to where it was.
- Before a suspend the kernel prints "PM: suspend entry", and kills nobody until its end
  (oom_killer_disable in kernel/power/process.c): who keeps up has read every kill by then.
- What was written while nobody read is dated by the last record that was read then, and where it
  was: the drift of a downtime is milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_LAGS_SECONDS = 60
_SUSPEND_BEGINS = (b"PM: suspend entry", b"PM: hibernation: hibernation entry")
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Clocks:
    """One look at the clocks, in microseconds: CLOCK_REALTIME, _MONOTONIC and _BOOTTIME."""

    wall: int
    monotonic: int
    boottime: int

    @property
    def suspended(self) -> int:
        """How long the machine has been suspended since its boot."""
        return self.boottime - self.monotonic


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record's stamp, by the kernel's clock, and the wall time that it stood for; µs."""

    stamp: int
    wall: int


def begins_suspend(text: bytes) -> bool:
    """Is this the kernel's last word before it stops its clocks?"""
    return text.startswith(_SUSPEND_BEGINS)


class StampClock:
    """Gives each record of a log its wall time, in the order in which they are read.

    `anchor` is the last of them, `None` before the first.
    """

    def __init__(self) -> None:
        # The smallest lag of each second: who has fallen behind reads hundreds of late records.
        self._lags: deque[tuple[int, int]] = deque(maxlen=_LAGS_SECONDS + 1)
        self._suspended: int | None = None
        self.anchor: Anchor | None = None

    def read(self, stamps: Sequence[int], now: Clocks) -> list[int]:
        """Return when records were printed that were read together, by `now`."""
        if not stamps:
            return []
        if self._suspended is None or abs(now.suspended - self._suspended) > _MICROSECONDS:
            self._lags.clear()
            self._suspended = now.suspended
        # The youngest is the least late, and says most about the clocks.
        distance = self._distance(now.monotonic - max(stamps), now)
        times = [now.wall - (now.monotonic - stamp - distance) for stamp in stamps]
        self.anchor = Anchor(stamps[-1], times[-1])
        return times

    def _distance(self, lag: int, now: Clocks) -> int:
        second = now.monotonic // _MICROSECONDS
        while self._lags and second - self._lags[0][0] > _LAGS_SECONDS:
            self._lags.popleft()
        if self._lags and self._lags[-1][0] == second:
            _, least = self._lags.pop()
            self._lags.append((second, min(lag, least)))
        else:
            self._lags.append((second, lag))
        return min(lag for _, lag in self._lags)


def date_backlog(
    stamps: Sequence[tuple[int, bool]], anchor: Anchor | None, now: Clocks
) -> list[int]:
    """Return when records were printed that nobody read then, given as (stamp, begins a suspend).

    Up to the last suspend by the anchor: between two, where nobody knows how long the first took,
    that is no later than it was. After it, and without an anchor, by today's clocks, which may be
    off by what they have drifted apart since the boot.
    """
    slept = now.suspended >= _MICROSECONDS
    suspends = [at for at, (_, begins) in enumerate(stamps) if begins and slept]
    anchored = len(stamps) if not suspends else suspends[-1] + 1
    # A stamp is never ahead of now: where it seems so, the clocks are at least so far apart.
    distance = min((now.monotonic - stamp for stamp, _ in stamps), default=0)
    times = []
    for at, (stamp, _) in enumerate(stamps):
        if anchor is not None and at < anchored:
            times.append(min(anchor.wall + stamp - anchor.stamp, now.wall))
        else:
            times.append(now.wall - (now.monotonic - stamp - min(distance, 0)))
    return times
