"""What a worker tells of a container's end: the exit is awaited until it is written down.

The call FinalizeContainer, but for its protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from oomwatch.containers.lives import WORKER, Life
from oomwatch.correlator.exits import RUNTIME_SECONDS, Exits
from oomwatch.errors import JournalStalled, NoSuchContainer, NoSuchExit
from oomwatch.events import ContainerExit
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation
from oomwatch.verdict import stop_asked_for

WRITE_SECONDS = 5.0
"""How long an exit that is judged may wait for the disk before its caller is told to ask again."""


class Finalization:
    """Takes a worker's word on an exit in, and answers with the exit as it was journaled."""

    def __init__(
        self,
        exits: Exits,
        *,
        emit: Callable[[Sequence[Observation]], None],
        find: Callable[[str], ContainerSeen | None],
        runs: Callable[[Life], bool],
    ) -> None:
        """`find` looks for a container of which nobody spoke, among the cgroups that are here;
        `runs` looks whether processes live in the cgroup of a life.
        """
        self._exits = exits
        self._emit = emit
        self._find = find
        self._runs = runs
        self._waiting: list[asyncio.Event] = []

    async def finalize(
        self,
        container_id: str,
        *,
        cgroup_id: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        exit_time: int | None = None,
        stop_requested: bool | None = None,
        stop_signal: int | None = None,
        runtime_oom_killed: bool | None = None,
        maximum_wait: float | None = None,
    ) -> tuple[int, ContainerExit]:
        """Return the exit and its revision once it is in the journal; asked again, the same.

        Waits for witnesses no longer than `maximum_wait` seconds, then for the disk. Raises
        `NoSuchContainer` for one that nobody knows, `NoSuchExit` where its exit was told and has
        been deleted since, `JournalStalled` where the disk stands still.
        """
        wait = RUNTIME_SECONDS if maximum_wait is None else maximum_wait
        ended = ContainerEnded(
            source=WORKER,
            time=time.time_ns() // 1000,
            container_id=container_id,
            cgroup_id=cgroup_id,
            exit_code=exit_code,
            signal=signal,
            exit_time=exit_time,
            stop_requested=stop_asked_for(stop_requested, stop_signal),
            stop_signal=stop_signal,
            oom_killed=runtime_oom_killed,
            wait_seconds=wait,
        )
        life = self._known(ended)
        self._emit([replace(ended, container_id=life.container_id, cgroup_id=life.cgroup_id)])
        try:
            async with asyncio.timeout(wait + WRITE_SECONDS):
                while (answer := self._exits.answer(life.key)) is None:
                    if self._exits.is_deleted(life.key):
                        raise NoSuchExit(
                            f"the exit of {container_id!r} was told, and is kept no longer: the "
                            "journal's retention has deleted it, and a life has no second exit"
                        )
                    written = asyncio.Event()
                    self._waiting.append(written)
                    await written.wait()
        except TimeoutError:
            raise JournalStalled(
                f"the exit of {container_id!r} is judged, and the journal cannot be written or "
                "read: ask again when its disk is well and has room, the answer will be the same"
            ) from None
        return answer

    def written(self) -> None:
        """Say that events were written down, or read back: those who wait look whether theirs was
        among them.
        """
        waiting, self._waiting = self._waiting, []
        for written in waiting:
            written.set()

    def _known(self, ended: ContainerEnded) -> Life:
        container_id, cgroup_id = ended.container_id, ended.cgroup_id
        life = self._exits.meant(ended, self._runs)
        if life is None and cgroup_id is None:
            seen = self._find(container_id)
            if seen is not None:
                self._emit([seen])
                life = self._exits.meant(ended, self._runs)
        if life is None:
            which = "" if cgroup_id is None else f" with a cgroup of inode {cgroup_id}"
            raise NoSuchContainer(
                f"no container {container_id!r}{which} is known: give its id in full, and "
                "register it with WatchContainer when it starts"
            )
        return life
