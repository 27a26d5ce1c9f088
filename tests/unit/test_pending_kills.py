"""The kills that are open are found by the cgroups around them."""

from __future__ import annotations

from oomwatch.correlator.pending_kills import Pending, PendingKills
from oomwatch.events import Cgroup
from oomwatch.observations import CounterReading, Counters

ROOT = Cgroup(1, "", None)


def pending(cgroup: Cgroup) -> Pending:
    reading = CounterReading(cgroup, 0, 0, Counters(), 0)
    return Pending(cgroup, 0, 1, reading, 0, 0.0, 0.0, recovered=False)


def test_what_is_open_is_found_at_and_below_each_cgroup_around_it() -> None:
    kills = PendingKills()
    pod = Cgroup(2, "pod", ROOT)
    # Of one path, as one is removed and made anew, and of a path that only begins like another.
    former, latter = Cgroup(3, "web", pod), Cgroup(4, "web", pod)
    other = Cgroup(5, "pod-2", ROOT)
    for cgroup in (latter, other, former):
        kills.add(pending(cgroup))

    assert [one.cgroup for one in kills.below("/pod/web")] == [latter, former]
    assert [one.cgroup for one in kills.below("/pod")] == [latter, former]
    assert [one.cgroup for one in kills.below("/")] == [latter, other, former]
    assert kills.below("/po") == kills.below("/pod/web/below") == kills.below(None) == []

    kills.remove(latter.id)
    kills.remove(latter.id)
    assert [one.cgroup for one in kills.below("/pod/web")] == [former]
    assert kills.get(latter.id) is None
    for cgroup in (other, former):
        kills.remove(cgroup.id)
    assert not kills
    assert not kills._within, "nothing is kept of what was told"
