"""Answers from the journal which exit a life had that nobody remembers any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from oomwatch.errors import JournalError
from oomwatch.journal import Journal
from oomwatch.observations import ExitFound, FindExit, Observation, Question

log = logging.getLogger(__name__)


class Recollection:
    """Answers `FindExit`; where the journal cannot be read it does not, and is asked again."""

    name = "journal"

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._emit: Callable[[Sequence[Observation]], None] = lambda _: None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, emit: Callable[[Sequence[Observation]], None]) -> None:
        """Answer from now on, by way of `emit`."""
        self._emit = emit

    def answer(self, question: Question) -> bool:
        """Look for an exit in the journal; others' questions are left to others."""
        if not isinstance(question, FindExit):
            return False
        task = asyncio.get_running_loop().create_task(self._find(question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _find(self, question: FindExit) -> None:
        try:
            found = await self._journal.exit_of(
                question.container_id, question.cgroup_id, list(question.episode_ids)
            )
        except JournalError as error:
            log.warning("the exit of %r is not found: %s", question.container_id, error)
            return
        self._emit([ExitFound(question, *(found or ()))])
