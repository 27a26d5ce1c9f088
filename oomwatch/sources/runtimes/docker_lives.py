"""The lives of Docker's containers that have not ended yet, told apart by when each began.

An event is read after it happened, and a container is inspected later still: by then it may run
anew. So an inspection shows the newest life, and the end that is read next may be another's. Docker
tells of a start once that has been, and of an end before it starts the next: an event is of the
last life that had begun by then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import KeysView
from dataclasses import dataclass

_CONTAINERS_REMEMBERED = 16384


@dataclass(slots=True, eq=False)
class DockerLife:
    """What is remembered of a life until it ends.

    `start_time` is when it began, in microseconds since the epoch, or when Docker told of that.
    `connection` numbers the one under which its start was seen: only while that holds is it known
    that nobody asked it to stop. `None` where it was there before us.
    """

    start_time: int | None = None
    cgroup_id: int | None = None
    connection: int | None = None
    image_stop_signal: int | None = None
    stop_signal: int | None = None
    unclear: bool = False

    def had_begun(self, time: int) -> bool:
        """Did it begin before this, for all that is known?"""
        return self.start_time is None or self.start_time <= time

    def began_at(self, time: int | None) -> bool:
        """Did it begin then, as an inspection says? Docker tells of that a little later."""
        return time is None or self.start_time is None or self.start_time >= time


class DockerLives:
    """Lives by their container's id, in the order in which they began; mostly one of each."""

    def __init__(self) -> None:
        self._lives: OrderedDict[str, list[DockerLife]] = OrderedDict()

    @property
    def containers(self) -> KeysView[str]:
        """The containers that have a life which has not ended."""
        return self._lives.keys()

    def started(self, container_id: str, time: int, connection: int) -> DockerLife:
        """A start is told: of a life that an inspection showed before, or of one that is new."""
        life = self.at(container_id, time)
        if life is None or life.start_time is None or life.connection is not None:
            life = self._add(container_id, DockerLife(time))
        life.connection = connection
        return life

    def shown(self, container_id: str, start_time: int | None, cgroup_id: int | None) -> DockerLife:
        """An inspection shows the newest life, which runs."""
        life = self._shown(container_id, start_time, cgroup_id)
        if life is None:
            life = self._add(container_id, DockerLife(start_time))
        life.start_time = start_time or life.start_time
        life.cgroup_id = cgroup_id or life.cgroup_id
        return life

    def at(self, container_id: str, time: int) -> DockerLife | None:
        """The life that an event of this time is of."""
        begun = [life for life in self._lives.get(container_id, ()) if life.had_begun(time)]
        return begun[-1] if begun else None

    def end(self, container_id: str, time: int) -> list[DockerLife]:
        """Take out what had begun by the time of an end: the last of them ended then, and of those
        before it nobody said how.
        """
        lives = self._lives.pop(container_id, [])
        begun = [life for life in lives if life.had_begun(time)]
        if len(begun) < len(lives):
            self._lives[container_id] = lives[len(begun) :]
        return begun

    def forget(self, container_id: str) -> None:
        """The container is gone, with all of its lives."""
        self._lives.pop(container_id, None)

    def _shown(
        self, container_id: str, start_time: int | None, cgroup_id: int | None
    ) -> DockerLife | None:
        lives = self._lives.get(container_id)
        if not lives or start_time is None:
            return lives[-1] if lives else None
        for life in lives:
            if life.start_time is None:
                if None in (life.cgroup_id, cgroup_id) or life.cgroup_id == cgroup_id:
                    return life
            elif life.began_at(start_time):
                return life
        return None

    def _add(self, container_id: str, life: DockerLife) -> DockerLife:
        lives = self._lives.setdefault(container_id, [])
        lives.append(life)
        lives.sort(key=lambda one: one.start_time or 0)
        if len(self._lives) > _CONTAINERS_REMEMBERED:
            self._lives.popitem(last=False)
        return life
