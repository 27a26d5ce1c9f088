"""When a record of the kernel's log was printed, by clocks that drift and stop."""

from __future__ import annotations

from oomwatch.sources.kernel_log.clock import Anchor, Clocks, StampClock, date_backlog

SECOND = 1_000_000
WALL = 1_795_000_000 * SECOND


def read(clock: StampClock, stamp: int, now: Clocks) -> int:
    (time,) = clock.read([stamp], now)
    return time


def at(seconds: float, *, suspended: float = 0, wall_offset: float = 0) -> Clocks:
    """The clocks so long after the boot, at a monotonic time."""
    monotonic = round(seconds * SECOND)
    slept = round(suspended * SECOND)
    return Clocks(
        WALL + monotonic + slept + round(wall_offset * SECOND), monotonic, monotonic + slept
    )


def test_a_record_that_is_read_at_once_is_of_now() -> None:
    clock = StampClock()
    assert read(clock, 7 * SECOND, at(10)) == at(10).wall


def test_what_is_read_late_is_as_old_as_its_stamp_says() -> None:
    clock = StampClock()
    read(clock, 100 * SECOND, at(100))
    assert read(clock, 101 * SECOND, at(103)) == at(101).wall


def test_many_records_that_are_read_late_are_each_as_old_as_their_stamp() -> None:
    """A storm prints hundreds while the reader is held up."""
    clock = StampClock()
    read(clock, 100 * SECOND, at(100))
    for number in range(500):
        stamp = 101 * SECOND + number * 1000
        assert read(clock, stamp, at(104)) == at(101).wall + number * 1000


def test_drift_between_the_clocks_is_not_taken_for_lateness() -> None:
    """4 s a day; a record a day, each read at once, is dated by when it was read."""
    clock = StampClock()
    day = 86_400
    for number in range(1, 30):
        now = at(number * day)
        stamp = now.monotonic - number * 4 * SECOND
        assert read(clock, stamp, now) == now.wall


def test_a_suspend_does_not_make_later_records_late() -> None:
    """Whether the kernel's clock stops in suspend, runs on, or falls behind: read now is now."""
    for jump in (0, 3600, -5):
        clock = StampClock()
        for second in range(10):
            read(clock, (90 + second) * SECOND, at(90 + second))
        now = at(101, suspended=3600)
        assert read(clock, (101 + jump) * SECOND, now) == now.wall


def test_a_step_of_the_wall_clock_moves_what_comes_after() -> None:
    clock = StampClock()
    read(clock, 100 * SECOND, at(100))
    now = at(101, wall_offset=-3600)
    assert read(clock, 101 * SECOND, now) == now.wall


def test_the_backlog_of_a_downtime_is_dated_from_the_last_record_read() -> None:
    """The kernel's clock is 40 s behind the monotonic one; the anchor knows, the clocks do not."""
    anchor = Anchor(1000 * SECOND, at(1040).wall)
    stamps = [(1010 * SECOND, False), (1500 * SECOND, False)]
    assert date_backlog(stamps, anchor, at(2000)) == [at(1050).wall, at(1540).wall]


def test_the_backlog_is_dated_on_both_sides_of_a_suspend() -> None:
    anchor = Anchor(1000 * SECOND, at(1000).wall)
    stamps = [(1010 * SECOND, False), (1020 * SECOND, True), (1030 * SECOND, False)]
    slept = at(1040, suspended=3600)
    assert date_backlog(stamps, anchor, slept) == [
        at(1010).wall,
        at(1020).wall,
        at(1030, suspended=3600).wall,
    ]


def test_without_an_anchor_no_record_is_of_the_future() -> None:
    assert date_backlog([(50 * SECOND, False), (105 * SECOND, False)], None, at(100)) == [
        at(45).wall,
        at(100).wall,
    ]
    assert date_backlog([], None, at(100)) == []


def test_what_is_read_together_is_as_far_apart_as_it_was_printed() -> None:
    clock = StampClock()
    times = clock.read([90 * SECOND, 95 * SECOND, 100 * SECOND], at(100))
    assert times == [at(90).wall, at(95).wall, at(100).wall]
    assert clock.anchor == Anchor(100 * SECOND, at(100).wall)
    assert clock.read([], at(101)) == []
