"""Kills that were done in a VM, against what is read from the records that its kernel wrote."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from oomwatch.events import Constraint, OomKill, Scope
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.episodes import Episodes
from oomwatch.kernel_log.kill_record import KillRecord
from oomwatch.kernel_log.kmsg import parse_kmsg
from oomwatch.kernel_log.search import KillSearch

RECORDS = Path(__file__).parents[1] / "data/kmsg"
SCENARIOS = sorted(path.stem for path in RECORDS.glob("*.kmsg"))


def done(name: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return truth


def live(log: bytes) -> list[KillRecord]:
    """What a follower is told, record by record, without a flush."""
    assembler = Assembler()
    kills = []
    for line in log.splitlines(keepends=True):
        record = parse_kmsg(line)
        if record is not None:
            kills += assembler.feed(record)
    return kills


def events(log: bytes) -> list[OomKill]:
    episodes = Episodes("log", 0)
    told = [each for kill in KillSearch().kills(BytesIO(log)) for each in episodes.add(kill)]
    return [each.event for each in [*told, *episodes.flush()]]


def test_there_are_records() -> None:
    assert len(SCENARIOS) >= 10


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_death_is_told_and_nothing_else(name: str) -> None:
    log = (RECORDS / f"{name}.kmsg").read_bytes()
    wanted = [(each["pid"], bytes.fromhex(each["comm"])) for each in done(name)["victims"]]
    kills = [kill for kill in live(log) if not kill.repeated]
    told = [
        (kill.victim.pid, (kill.victim.comm or "?").encode("utf-8", "surrogateescape"))
        for kill in kills
    ]
    told = [(pid, b"" if comm == b"?" else comm) for pid, comm in told]
    assert sorted(told) == sorted(wanted)
    in_events = [victim.pid for event in events(log) for victim in event.victims]
    assert in_events == [kill.victim.pid for kill in kills]


@pytest.mark.parametrize("name", SCENARIOS)
def test_cgroups_scope_and_constraint_are_what_was_done(name: str) -> None:
    truth = done(name)
    cgroups = {each["pid"]: each["cgroup"] for each in truth["victims"]}
    for kill in live((RECORDS / f"{name}.kmsg").read_bytes()):
        cgroup = cgroups[kill.victim.pid]
        assert kill.task_memcg in (cgroup, None)
        if truth["scope"] == "node":
            assert (kill.memcg, kill.oom_memcg) == (False, None)
            assert kill.constraint is Constraint.NONE
        else:
            assert kill.memcg
            assert kill.oom_memcg in (truth.get("limit", cgroup), None)
            assert kill.constraint is Constraint.MEMCG
        if kill.headed:
            assert (kill.oom_memcg is None) == (truth["scope"] == "node")
            # The members of a group may live anywhere below it.
            assert kill.task_memcg is not None or kill.group is not None


def test_a_storm_past_the_rate_limit_names_every_victim() -> None:
    log = (RECORDS / "storm-6.1.kmsg").read_bytes()
    kills = live(log)
    assert len(kills) == 16
    headless = [kill for kill in kills if not kill.headed]
    assert len(headless) == 2
    assert all(kill.task_memcg is None and kill.memcg for kill in headless)
    told = events(log)
    assert [event.kill_count for event in told] == [1] * 16
    assert [event.scope for event in told].count(Scope.UNKNOWN) == 2


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_a_group_kill_is_one_episode_with_distinct_victims(kernel: str) -> None:
    log = (RECORDS / f"group-{kernel}.kmsg").read_bytes()
    first, others = events(log)
    assert first.episode_id == others.episode_id
    assert first.victim_cgroup == "/grouped/c1"
    assert others.victim_cgroup is None
    assert {first.limit_cgroup, others.limit_cgroup} == {"/grouped"}
    assert (first.kill_count, others.kill_count) == (1, 2)
    assert first.group_kill
    assert (first.scope, others.scope) == (Scope.ANCESTOR_LIMIT, Scope.UNKNOWN)
    kills = live(log)
    # The first is given again by the line that names the group, and has its own line twice.
    assert [kill.repeated for kill in kills] == [False, True, True, False, False]
    assert len({kill.record.sequence for kill in kills}) == 4
    assert [kill.group for kill in kills] == [None, *["/grouped"] * 4]
    assert kills[1].group == "/grouped"


def test_memory_tasks_and_invoker_are_kept() -> None:
    (kill,) = live((RECORDS / "own-6.1.kmsg").read_bytes())
    assert kill.memory is not None
    assert kill.memory.limit_bytes == kill.memory.current_bytes == 12 << 20
    assert kill.memory.swap_bytes == 0
    assert kill.invoker is not None
    assert (kill.invoker.gfp_mask, kill.invoker.order) == ("0xcc0(GFP_KERNEL)", 0)
    assert kill.task_count == 1
    assert kill.tasks[0].pid == kill.tasks[0].tgid == kill.victim.pid
    assert kill.tasks[0].total_vm_bytes == kill.victim.total_vm_bytes
    dead = kill.victim
    parts = (dead.anon_rss_bytes, dead.file_rss_bytes, dead.shmem_rss_bytes)
    assert kill.tasks[0].rss_bytes == sum(part or 0 for part in parts)


@pytest.mark.parametrize("join", ["", " ", "[   12.000001] "])
def test_two_records_pasted_into_one_line_are_two(join: str) -> None:
    kill = (
        "Memory cgroup out of memory: Killed process %d (a) total-vm:1kB, anon-rss:1kB, "
        "file-rss:1kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
    )
    summary = (
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
        "oom_memcg=/x,task_memcg=/x,task=a,pid=1,uid=0"
    )
    both = events(f"[   12.000000] {kill % 1}{join}{kill % 2}\n".encode())
    assert [event.victims[0].pid for event in both] == [1, 2]
    (one,) = events(f"[   12.000000] {summary}{join}{kill % 1}\n".encode())
    assert (one.victims[0].comm, one.limit_cgroup, one.kill_count) == ("a", "/x", 1)
