"""Words on exits that were told, and are not kept here any more: they wait for the journal's word.

A life has one exit. That it was told is kept with the life; which it was, the journal has.
"""

from __future__ import annotations

from oomwatch.containers.lives import Life, LifeKey
from oomwatch.correlator.exits.book import MAX_EXITS
from oomwatch.observations import ContainerEnded, FindExit

MOST_WORDS = 16
"""Words of one source on one exit: a worker asks again and again while the journal is not read."""


class ToldBefore:
    """The words that wait, and the lives whose exit the journal does not have any more."""

    def __init__(self) -> None:
        self._waiting: dict[FindExit, tuple[Life, list[ContainerEnded]]] = {}
        self._deleted: dict[LifeKey, None] = {}

    def hold(self, life: Life, ended: ContainerEnded, episode_ids: tuple[str, ...]) -> FindExit:
        """Keep a word until the exit that it is on is found, and ask for that."""
        self._deleted.pop(life.key, None)
        question = FindExit(life.container_id, life.cgroup_id, episode_ids)
        _, words = self._waiting.setdefault(question, (life, []))
        words.append(ended)
        of_source = [word for word in words if word.source == ended.source]
        if len(of_source) > MOST_WORDS:
            words.remove(of_source[0])
        if len(self._waiting) > MAX_EXITS:
            del self._waiting[next(iter(self._waiting))]
        return question

    def take(self, question: FindExit) -> tuple[Life, list[ContainerEnded]] | None:
        """Return the life that was asked about, and the words on it; `None` where none waits."""
        return self._waiting.pop(question, None)

    def deleted(self, life: Life) -> None:
        """Note that the journal does not have a life's exit any more."""
        self._deleted[life.key] = None
        if len(self._deleted) > MAX_EXITS:
            del self._deleted[next(iter(self._deleted))]

    def is_deleted(self, key: LifeKey) -> bool:
        """Was a life's exit told, and has the journal it no longer?"""
        return key in self._deleted
