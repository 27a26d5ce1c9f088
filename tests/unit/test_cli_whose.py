"""A container in words, whatever its texts hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.cli.whose import called, label, scope_word, told
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    MemoryUsage,
    OomKill,
    Pod,
    Scope,
    Verdict,
    Victim,
)

ID = "ee129607aff3" + "0" * 52
WEB = Container(id=ID, name="web", runtime="docker", image="nginx:1.25")
KILL = OomKill(
    episode_id="e",
    detect_time=1,
    scope=Scope.CONTAINER_LIMIT,
    confidence=Confidence.CONFIRMED,
    kill_count=1,
    victim_cgroup=f"/docker/{ID}",
    limit_cgroup=f"/docker/{ID}",
    container=WEB,
    victims=(
        Victim(
            pid=395,
            comm="tail",
            anon_rss_bytes=33144832,
            file_rss_bytes=4096,
            shmem_rss_bytes=0,
            main_process=False,
        ),
    ),
    memory=MemoryUsage(limit_bytes=32 << 20),
)
POD = "/kubepods.slice/kubepods-pod3e8f4e1c_2f1a_4b0e_9d57_0c8a4b1d2e3f.slice"


EXIT = ContainerExit(
    episode_id="x",
    detect_time=2_100_001,
    verdict=Verdict.OOM,
    confidence=Confidence.HIGH,
    container=WEB,
)


def test_a_kill_is_told_in_one_sentence_about_its_container() -> None:
    assert told(KILL, WEB) == (
        "web (docker ee129607aff3) lost process 395 `tail` at its own limit of 32 MiB; "
        "it held 31.6 MiB; the container lived on"
    )


def test_that_it_lived_on_is_said_only_where_its_end_would_have_been_told() -> None:
    for nobodys in (
        Container(id=ID, runtime="docker"),
        Container(id="a1", name="a1", runtime="lxc"),
    ):
        assert told(KILL, nobodys).endswith("; the container's main process was not killed")
    ended = told(KILL, WEB, Entry(20, "j", EXIT))
    assert ended.endswith("it held 31.6 MiB; the container ended 2.1 s later (revision 20)")
    main = replace(KILL, victims=(Victim(pid=1, main_process=True),))
    assert told(main, WEB, Entry(20, "j", EXIT)).endswith(
        "; it was the container's main process; the container ended 2.1 s later (revision 20)"
    )
    unsure = replace(KILL, victims=(Victim(pid=1),))
    assert told(unsure, WEB).endswith("at its own limit of 32 MiB")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"victims": (), "kill_count": 1}, "lost a process at"),
        ({"victims": (), "kill_count": 4}, "lost 4 processes at"),
        ({"victims": (Victim(pid=1), Victim(pid=2))}, "lost 2 processes at"),
        ({"victims": (Victim(pid=7),)}, "lost process 7 at its own limit of 32 MiB"),
        ({"scope": Scope.NODE, "limit_cgroup": None}, "as the node ran out of memory"),
        ({"scope": Scope.UNKNOWN, "memory": None}, "at a limit that is not known"),
        ({"scope": Scope.ANCESTOR_LIMIT, "limit_cgroup": "/p"}, "at the limit of 32 MiB of /p"),
        ({"scope": Scope.DESCENDANT, "limit_cgroup": "/x"}, "nested in it, that of /x"),
        ({"scope": Scope.ANCESTOR_LIMIT, "limit_cgroup": None}, "of an ancestor"),
    ],
)
def test_what_is_not_known_is_not_said(changes: dict[str, object], words: str) -> None:
    assert words in told(replace(KILL, **changes), WEB)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scope", "limit", "word"),
    [
        (Scope.CONTAINER_LIMIT, "/a", "own"),
        (Scope.DESCENDANT, "/a/b", "nested"),
        (Scope.ANCESTOR_LIMIT, POD, "pod"),
        (Scope.ANCESTOR_LIMIT, "/system.slice", "slice"),
        (Scope.ANCESTOR_LIMIT, "/jobs", "ancestor"),
        (Scope.ANCESTOR_LIMIT, None, "ancestor"),
        (Scope.NODE, None, "node"),
        (Scope.UNKNOWN, None, "unknown"),
    ],
)
def test_whose_limit_in_a_word(scope: Scope, limit: str | None, word: str) -> None:
    assert scope_word(replace(KILL, scope=scope, limit_cgroup=limit)) == word


def test_a_label_holds_pod_name_and_image() -> None:
    assert label(WEB) == "web (nginx:1.25)"
    pod = Pod(uid="u", name="shop", namespace="prod")
    assert label(replace(WEB, pod=pod, image=None)) == "prod/shop/web"
    assert label(Container(id=ID, runtime="docker")) == ""


def test_a_container_without_a_name_is_called_by_its_id() -> None:
    assert called(Container(id=ID, runtime="docker")) == "docker ee129607aff3"
    assert called(Container(id="job-17")) == "container job-17"
    assert called(Container(id="job-17", name="job-17")) == "container job-17"


def test_no_text_of_a_containers_reaches_the_terminal_as_it_is() -> None:
    hostile = "\x1b[2J\n‮evil"
    container = Container(
        id=hostile, name=hostile, runtime=hostile, image=hostile, pod=Pod(name=hostile)
    )
    kill = replace(KILL, limit_cgroup=hostile, victims=(Victim(pid=1, comm=hostile),))
    for text in (label(container), called(container), told(kill, container)):
        assert not set(text) & {"\x1b", "\n", "‮"}
