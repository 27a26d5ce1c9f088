"""What several sources say of one life, joined."""

from __future__ import annotations

from oomwatch.containers.lives import merged
from oomwatch.events import Container, Pod


def test_words_are_joined_field_by_field() -> None:
    one = Container(id="a", name="web", pod=Pod(name="p"))
    two = Container(id="b", name="x", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="q"))
    assert merged([one, two]) == Container(
        id="a", name="web", image="i", labels={"k": "v"}, pod=Pod(uid="u", name="p")
    )
