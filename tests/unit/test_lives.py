"""What several sources say of one life, joined; and which of several is meant."""

from __future__ import annotations

from dataclasses import replace

from oomwatch.containers.lives import WORKER, Life, merged, the_one
from oomwatch.events import Container, Pod


def test_words_are_joined_field_by_field() -> None:
    one = Container(id="a", name="web", pod=Pod(name="p"))
    two = Container(id="b", name="x", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="q"))
    assert merged([one, two]) == Container(
        id="a", name="web", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="p")
    )


def test_of_several_in_one_cgroup_the_one_is_the_workers_that_runs() -> None:
    ended = Life("a", 7, 1, ended_time=2, said={WORKER: Container(id="a")})
    runs = Life("b", 7, 3, said={WORKER: Container(id="b")})
    runtimes = Life("c", 7, 4, said={"docker": Container(id="c")})
    assert the_one([ended, runs, runtimes]) == runs
    assert the_one([ended, runtimes]) == runtimes
    assert the_one([replace(runs, ended_time=5), ended]) == replace(runs, ended_time=5)
    assert the_one([replace(ended, ended_time=None), runs]) is None
    assert the_one([]) is None
