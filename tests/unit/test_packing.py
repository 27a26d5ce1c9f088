"""A packed life is the life that was packed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.containers.lives import WORKER, Life
from oomwatch.containers.packing import PackedLives
from oomwatch.events import Container, Pod
from tests.unit.test_containers_registry import ID, PATH, WEB


@pytest.mark.parametrize("cgroup_id", [None, 2**63 + 7])
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"docker": Container(id=ID)},
        {WORKER: Container(id=ID, name="a\udcff", labels={}, pod=Pod())},
        {
            WORKER: Container(
                id=ID,
                name="web",
                runtime="docker",
                handler="runc",
                image="nginx:1.25",
                labels={"app": "web", "team": ""},
                pod=Pod(uid="8f", name="web-0", namespace="shop"),
            ),
            "docker": replace(WEB, labels=None),
        },
    ],
)
def test_a_packed_life_is_the_life_that_was_packed(
    cgroup_id: int | None, said: dict[str, Container]
) -> None:
    bare = Life(ID, cgroup_id, 2**50, said=said)
    whole = replace(
        bare,
        cgroup=PATH,
        pid=395,
        memory_limit_bytes=2**40,
        ended_time=2**51,
        moved=True,
    )
    lives = PackedLives()
    for life in (bare, whole):
        lives[life.key] = life
        assert lives[life.key] == life


def test_packed_lives_are_found_by_their_keys_whatever_came_since() -> None:
    lives = PackedLives()
    # The last as JSON of a runtime may have it: half of a pair is no UTF-8.
    ids = [*(f"job-{number:060x}" for number in range(200)), "job-\ud83d"]
    kept = [
        Life(id, n + 1, n, cgroup=f"/jobs/{id}", said={"docker": WEB}) for n, id in enumerate(ids)
    ]
    for life in kept:
        lives[life.key] = life
    assert [lives[life.key] for life in kept] == [
        replace(life, said={"docker": replace(WEB, id=life.container_id)}) for life in kept
    ]
