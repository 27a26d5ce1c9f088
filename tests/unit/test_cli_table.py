"""Events as lines: aligned, readable, unambiguous, and never more than one line each."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oomwatch.cli.cgroup_names import CgroupNames
from oomwatch.cli.explain import explain
from oomwatch.cli.table import EventTable, cgroup_table
from oomwatch.cli.terminal import Paint
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    Event,
    Evidence,
    EvidenceGap,
    MemoryPressure,
    MemoryUsage,
    OomKill,
    Pod,
    PressureLevel,
    Scope,
    Task,
    Verdict,
    Victim,
)
from oomwatch.status import CgroupReport, Witness

ID = "ee12" + "0123456789" * 6
TIME = 1_795_329_646_769_814


def kill(**fields: Any) -> OomKill:
    base: dict[str, Any] = {
        "episode_id": "e1",
        "detect_time": TIME,
        "scope": Scope.CONTAINER_LIMIT,
        "confidence": Confidence.CONFIRMED,
        "kill_count": 1,
        "victim_cgroup": f"/docker/{ID}",
        "limit_cgroup": f"/docker/{ID}",
    }
    return OomKill(**(base | fields))


def row(event: Event, revision: int = 17) -> str:
    return EventTable(Paint(enabled=False)).row(Entry(revision, "j1", event))


def explained(event: Event) -> str:
    return "\n".join(explain(Entry(17, "j1", event)))


def test_a_kill_is_one_line_under_its_headers() -> None:
    memory = MemoryUsage(limit_bytes=33554432, peak_bytes=33554432)
    table = EventTable(Paint(enabled=False))
    line = table.row(Entry(17, "j1", kill(memory=memory, victims=(Victim(pid=395, comm="tail"),))))
    header = table.header()
    assert line.split()[2:] == [
        "17", "1", "own", "32", "MiB", "32", "MiB", "confirmed", "tail[395]",
        "/docker/ee1201234567",
    ]  # fmt: skip
    for word, column in (("own", "SCOPE"), ("confirmed", "CONFIDENCE"), ("/docker", "CGROUP")):
        assert line.index(word) == header.index(column)


def test_colours_do_not_shift_columns() -> None:
    entry = Entry(17, "j1", kill())
    painted = EventTable(Paint(enabled=True)).row(entry)
    assert "\x1b[31m" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == EventTable(Paint(enabled=False)).row(entry)


def test_what_is_not_known_is_a_dash_and_not_a_nought() -> None:
    assert row(kill(kill_count=None, amends=12)).split()[3:7] == ["-", "own", "-", "-"]
    assert "(adds to revision 12)" in row(kill(kill_count=None, amends=12))


def test_an_ancestors_limit_is_named() -> None:
    line = row(kill(scope=Scope.ANCESTOR_LIMIT, limit_cgroup="/docker"))
    assert line.endswith("/docker/ee1201234567 (limit of /docker)")


def test_an_unattributed_kill_says_below_what_and_how_many_candidates() -> None:
    lost = {"victim_cgroup": None, "limit_cgroup": None, "survivor_cgroup": "/x"}
    assert row(kill(**lost, candidates=("/x/a", "/x/b"))).endswith("below /x (2 candidates)")
    assert row(kill(**lost, candidates=("/x/a",))).endswith("below /x (1 candidate)")
    assert "(7 candidates)" in row(kill(**lost, candidates=("/x/a",), candidates_omitted=6))
    assert row(kill(**lost)).endswith("below /x (no candidate: it came and went unseen)")
    assert "It may have been /x/b." in explained(kill(**lost, candidates=("/x/a", "/x/b")))


def test_a_gap_is_readable() -> None:
    gap = EvidenceGap(
        episode_id="e2",
        detect_time=TIME,
        source="memory_events",
        reason="inotify overflowed",
        cgroup="/x",
        lost_count=3,
    )
    assert row(gap).endswith("gap below /x: memory_events: inotify overflowed (3 lost)")
    assert "3 records were lost." in explained(gap)


def test_exits_and_pressure_have_their_lines_too() -> None:
    container = Container(id=ID, name="web", pod=Pod(name="shop-1", namespace="prod"))
    ended = ContainerExit(
        episode_id="e3",
        detect_time=TIME,
        verdict=Verdict.NOT_OOM,
        confidence=Confidence.LOW,
        container=container,
        cgroup=f"/docker/{ID}",
        exit_code=137,
    )
    assert row(ended).endswith("/docker/ee1201234567 [prod/shop-1/web] exited with 137: not oom")
    stalled = MemoryPressure(
        episode_id="e4",
        detect_time=TIME,
        cgroup="/a",
        level=PressureLevel.SOME,
        stall_microseconds=150_000,
        window_microseconds=1_000_000,
    )
    assert row(stalled).endswith("/a stalled on memory for 150 ms of 1.0 s (some)")
    assert "exited with code 137" in explained(ended)
    assert "Reasons:" not in explained(ended)
    reasoned = replace(ended, reasons=("it exited with 137", "x\x1b killed here: a mark"))
    assert (
        "  Confidence: low.\n"
        "  Reasons:\n"
        "    it exited with 137\n"
        "    x\\x1b killed here: a mark\n"
        "  Journal "
    ) in explained(reasoned)
    assert "some tasks stalled for 150 ms" in explained(stalled)


def test_a_container_without_a_name_is_told_by_its_id_where_the_path_lacks_it() -> None:
    """As a worker registers one, in a cgroup called otherwise."""
    ended = ContainerExit(
        episode_id="e3",
        detect_time=TIME,
        verdict=Verdict.OOM,
        confidence=Confidence.LOW,
        container=Container(id="job\x1b-17"),
        cgroup="/workers/3",
        exit_code=137,
    )
    assert row(ended).endswith("/workers/3 [job\\x1b-17] exited with 137: oom")
    unknown = replace(ended, container=Container(id=ID), cgroup=None)
    assert row(unknown).endswith("a container [ee1201234567] exited with 137: oom")
    named_by_its_path = replace(ended, container=Container(id=ID), cgroup=f"/docker/{ID}")
    assert row(named_by_its_path).endswith("/docker/ee1201234567 exited with 137: oom")
    report = CgroupReport(path="/workers/3", id=2, container=Container(id="job-17"))
    assert cgroup_table([report], Paint(enabled=False))[1].endswith("/workers/3 [job-17]")


def test_two_containers_never_get_the_same_short_id() -> None:
    names = CgroupNames()
    one, two = "a" * 40 + "b" * 24, "a" * 40 + "c" * 24
    assert names.short(f"/d/{one}") == "/d/" + "a" * 12
    assert names.short(f"/d/{two}.scope") == "/d/" + "a" * 40 + "c.scope"
    assert names.short(f"/d/{one}") == "/d/" + "a" * 40 + "b"
    assert names.short("/d/" + "a" * 65) == "/d/" + "a" * 65


_TEXT = st.text(st.characters(exclude_categories=()), min_size=1)


@given(path=_TEXT, comm=_TEXT, detail=_TEXT)
def test_hostile_names_stay_on_their_line(path: str, comm: str, detail: str) -> None:
    event = kill(
        victim_cgroup="/" + path,
        limit_cgroup="/",
        container=Container(id=comm, name=path, image=detail),
        victims=(Victim(pid=1, comm=comm, cmdline=(path, detail)),),
        tasks=(Task(pid=1, comm=comm),),
        evidence=(Evidence(source=comm, time=TIME, detail=detail),),
    )
    assert row(event).isprintable()
    assert all(line.isprintable() for line in explain(Entry(17, path, event)))


def test_show_tells_who_whose_limit_and_by_which_witness() -> None:
    text = explained(
        kill(
            occur_after=TIME - 3200,
            memory=MemoryUsage(limit_bytes=33554432, current_bytes=1048576),
            victims=(
                Victim(pid=395, comm="tail", uid=0, anon_rss_bytes=33144832, oom_score_adj=0),
                Victim(pid=396, comm="sh", main_process=True),
            ),
            tasks=(
                Task(pid=395, comm="tail", rss_bytes=33144832, swap_bytes=0, oom_score_adj=0),
                Task(pid=7, comm="sh"),
            ),
            task_count=12,
            evidence=(Evidence(source="memory_events", time=TIME, detail="oom_kill 0 -> 1"),),
            group_kill=True,
        )
    )
    for words in (
        "Revision 17: the kernel's OOM killer killed once.",
        f"The victim lived in /docker/{ID}.",
        "that cgroup's own",
        "a limit of 32 MiB, in use when read 1 MiB",
        "The kernel killed tail (pid 395, uid 0), holding 31.6 MiB anonymous, oom_score_adj 0.",
        "The kernel killed sh (pid 396), its cgroup's first process.",
        "The kernel could choose from these tasks (the 2 largest of 12):",
        "pid 395  31.6 MiB resident  0 B in swap  oom_score_adj 0  tail",
        "pid   7         ? resident    ? in swap  oom_score_adj ?  sh",
        "within the 3.2 ms before",
        "memory_events  oom_kill 0 -> 1",
        "memory.oom.group is set",
        "Confidence: confirmed.",
    ):
        assert words in text


def test_the_list_is_as_wide_as_what_it_holds() -> None:
    lines = cgroup_table(
        [
            CgroupReport(
                path="/a", id=2, kills=3, kills_below=1234567, witnesses=(Witness("memory_events"),)
            ),
            CgroupReport(path="/b\n", id=3),
        ],
        Paint(enabled=False),
    )
    assert (
        len({line.index(word) for line, word in zip(lines, ("CGROUP", "/a", "/b"), strict=True)})
        == 1
    )
    assert lines[2].split()[:5] == ["-"] * 5
    assert lines[2].endswith("/b\\x0a")
