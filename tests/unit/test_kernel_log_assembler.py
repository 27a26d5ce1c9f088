"""What belongs together is joined, what does not is not, and nothing open swallows what follows."""

from __future__ import annotations

from io import BytesIO

import pytest

from oomwatch.events import Confidence, Constraint, OomKill, Scope
from oomwatch.kernel_log.assembler import Assembler
from oomwatch.kernel_log.episodes import Episodes
from oomwatch.kernel_log.search import KillSearch
from oomwatch.kernel_log.text import LineParser

SIZES = "total-vm:9kB, anon-rss:8kB, file-rss:7kB"
NEW = f"{SIZES}, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"


def events(*lines: str) -> list[OomKill]:
    episodes = Episodes("log", 0)
    log = BytesIO("".join(f"{line}\n" for line in lines).encode())
    told = [each for kill in KillSearch().kills(log) for each in episodes.add(kill)]
    return [each.event for each in [*told, *episodes.flush()]]


def summary(pid: int, limit: str, victim: str, comm: str = "a") -> str:
    where = f"oom_memcg={limit},task_memcg={victim}" if limit else f"global_oom,task_memcg={victim}"
    kind = "MEMCG" if limit else "NONE"
    return (
        f"oom-kill:constraint=CONSTRAINT_{kind},nodemask=(null),cpuset=/,mems_allowed=0,"
        f"{where},task={comm},pid={pid},uid=7"
    )


def killed(pid: int, comm: str = "a") -> str:
    return f"Memory cgroup out of memory: Killed process {pid} ({comm}) {NEW}"


def group(path: str) -> str:
    return f"Tasks in {path} are going to be killed due to memory.oom.group set"


def pids(event: OomKill) -> list[int]:
    return [victim.pid for victim in event.victims]


def test_reports_of_several_machines_in_one_file_stay_apart() -> None:
    one, two = "Nov 22 06:40:46 one kernel: ", "Nov 22 06:40:46 two kernel: "
    first, second = events(
        f"{one}x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        f"{two}y invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=1, oom_score_adj=0",
        f"{two}memory: usage 5kB, limit 5kB, failcnt 1",
        f"{one}memory: usage 6kB, limit 6kB, failcnt 1",
        one + summary(1, "/one", "/one"),
        two + summary(1, "/two", "/two/x"),
        two + killed(1),
        one + killed(1),
    )
    by_limit = {event.limit_cgroup: event for event in (first, second)}
    for limit, comm, size in (("/one", "x", 6), ("/two", "y", 5)):
        event = by_limit[limit]
        assert event.invoker is not None
        assert event.invoker.comm == comm
        assert event.memory is not None
        assert event.memory.limit_bytes == size * 1024


def test_a_report_without_a_kill_does_not_lend_its_names_to_the_next() -> None:
    (event,) = events(
        "[    1.000000] x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0",
        "[    1.000001] memory: usage 5kB, limit 5kB, failcnt 1",
        f"[  300.000000] {killed(9)}",
    )
    assert (event.invoker, event.memory, event.limit_cgroup) == (None, None, None)
    assert event.scope is Scope.UNKNOWN
    assert event.constraint is Constraint.MEMCG


@pytest.mark.parametrize(
    "end",
    [
        "Memory cgroup out of memory: OOM victim 1 (a) is already exiting. Skip killing the task",
        "Out of memory and no killable processes...",
    ],
)
def test_a_report_that_kills_nobody_is_over(end: str) -> None:
    assert events(summary(1, "/x", "/x"), end) == []
    (event,) = events(summary(1, "/x", "/x"), end, killed(2))
    assert (pids(event), event.limit_cgroup) == ([2], None)


def test_a_boot_ends_what_was_open() -> None:
    (event,) = events(
        "x invoked oom-killer: gfp_mask=0x0(), order=0",
        "Linux version 6.1.0 (builder@host) #1 SMP",
        killed(2),
    )
    assert event.invoker is None


def test_a_summary_whose_kill_line_never_came_is_a_kill_of_less_confidence() -> None:
    alone, other = events(summary(1, "/x", "/x/y"), summary(2, "/z", "/z"), killed(2))
    assert (pids(alone), alone.confidence) == ([1], Confidence.HIGH)
    assert (alone.victims[0].comm, alone.victims[0].uid) == ("a", 7)
    assert (alone.limit_cgroup, alone.victim_cgroup) == ("/x", "/x/y")
    assert (pids(other), other.confidence) == ([2], Confidence.CONFIRMED)


def test_the_old_words_name_the_child_that_was_sacrificed_instead() -> None:
    (event,) = events(
        "sh invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
        "Task in /lxc/one killed as a result of limit of /lxc",
        "memory: usage 980kB, limit 18014398509481983kB, failcnt 4",
        "Memory cgroup out of memory: Kill process 8 (sh) score 996 or sacrifice child",
        f"Killed process 9 (sleep) {SIZES}",
    )
    assert (pids(event), event.victims[0].comm) == ([9], "sleep")
    assert (event.limit_cgroup, event.victim_cgroup) == ("/lxc", None)
    assert event.constraint is Constraint.MEMCG
    assert event.memory is not None
    assert (event.memory.limit_bytes, event.memory.current_bytes) == (None, 980 * 1024)


def test_red_hats_word_orders_are_read() -> None:
    six, seven = events(
        "Out of memory: Kill process 1 (a) score 5 or sacrifice child",
        f"Killed process 1, UID 500, (a) {SIZES}",
        "Out of memory: Kill process 2 (b) score 5 or sacrifice child",
        f"Killed process 2 (b), UID 600, {SIZES}",
    )
    assert [(event.victims[0].comm, event.victims[0].uid) for event in (six, seven)] == [
        ("a", 500),
        ("b", 600),
    ]
    assert {six.scope, seven.scope} == {Scope.NODE}
    assert {six.constraint, seven.constraint} == {Constraint.NONE}


def test_a_reaped_task_is_a_kill_only_where_its_report_was_printed() -> None:
    report = (
        "Task in /x/y killed as a result of limit of /x",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[  101]     0   101      242        1    28672        0          -998 pause",
        "[  102]     0   102      242      100    28672        0          -998 main",
    )
    reaped = "oom_reaper: reaped process 102 (main), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
    (event,) = events(*report, reaped)
    assert (pids(event), event.confidence) == ([102], Confidence.HIGH)
    assert (event.limit_cgroup, event.victim_cgroup) == ("/x", "/x/y")
    assert events(reaped) == []
    (told,) = events(*report, killed(102, "main"), *report, reaped)
    assert pids(told) == [102]


def test_a_group_in_one_cgroup_is_one_event() -> None:
    (event,) = events(
        summary(1, "/x", "/x"), killed(1), group("/x"), killed(1), killed(2, "b"), killed(3, "c")
    )
    assert (pids(event), event.kill_count, event.group_kill) == ([1, 2, 3], 3, True)
    assert (event.victim_cgroup, event.scope) == ("/x", Scope.CONTAINER_LIMIT)


def test_groups_without_reports_that_follow_each_other_stay_apart() -> None:
    first, second = events(
        killed(1), group("/x"), killed(1), killed(2), killed(3), group("/y"), killed(3), killed(4)
    )
    assert (pids(first), pids(second)) == ([1, 2], [3, 4])
    assert first.episode_id != second.episode_id


def test_a_group_whose_line_is_missing_is_known_by_the_pid_that_comes_back() -> None:
    first, others = events(summary(1, "/x", "/x/y"), killed(1), killed(2), killed(1))
    assert first.episode_id == others.episode_id
    assert (pids(first), pids(others)) == ([1], [2])
    assert (others.limit_cgroup, others.victim_cgroup, others.invoker) == ("/x", None, None)


def test_who_is_not_in_the_groups_table_is_not_of_the_group() -> None:
    first, second = events(
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[    1]     0     1      242        1    28672        0             0 a",
        "[    2]     0     2      242        1    28672        0             0 a",
        summary(1, "/x", "/x"),
        killed(1),
        group("/x"),
        killed(1),
        killed(2),
        killed(77, "z"),
    )
    assert (pids(first), pids(second)) == ([1, 2], [77])
    assert second.limit_cgroup is None


def test_suppressed_reports_are_counted() -> None:
    assembler, lines = Assembler(), LineParser()
    for number in (33, 2):
        record = lines.parse(b"[ 1.000000] oom_kill_process: %d callbacks suppressed" % number)
        assert record is not None
        assert assembler.feed(record) == []
    assert assembler.suppressed == 35


def test_open_reports_are_bounded_in_number() -> None:
    lines = [f"Nov 22 06:40:46 host{n} kernel: {summary(n, '/x', '/x')}" for n in range(2, 1000)]
    told = events(*lines)
    assert [pids(event) for event in told] == [[n] for n in range(2, 1000)]


@pytest.mark.parametrize(("kilobytes", "page"), [(20_000, 4096), (320_000, 65536), (5, None)])
def test_a_node_out_of_memory_keeps_the_largest_tasks_of_a_long_table(
    kilobytes: int, page: int | None
) -> None:
    """Their sizes are printed in pages; how large a page is follows from the victim's own."""
    line = NEW.replace("total-vm:9kB", f"total-vm:{kilobytes}kB")
    rows = [f"[{n:7}]     0 {n:5} 5000 {n * 7919 % 10007} 0 4096 0 0 t{n}" for n in range(2, 5000)]
    log = "\n".join(
        [
            "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "[  pid  ]   uid  tgid total_vm rss anon pgtables_bytes swapents oom_score_adj name",
            *rows,
            summary(9, "", "/y"),
            f"Out of memory: Killed process 9 (a) {line}",
            "",
        ]
    )
    (kill,) = KillSearch().kills(BytesIO(b"nothing\n" * 400_000 + log.encode()))
    assert kill.task_count == 4998
    assert len(kill.tasks) == 10
    largest = sorted((n * 7919 % 10007 for n in range(2, 5000)), reverse=True)[:10]
    assert [task.pid * 7919 % 10007 for task in kill.tasks] == largest
    sizes = [pages * page if page else None for pages in largest]
    assert [task.rss_bytes for task in kill.tasks] == sizes
    assert (kill.memcg, kill.task_memcg, kill.record.line) == (False, "/y", 400_000 + 5002)
