"""What every runtime's witness has in common: it waits for its socket, follows, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.errors import RuntimeUnreachable
from oomwatch.events import SourceState
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation, Question, RuntimeOom
from oomwatch.sources import Emit
from oomwatch.sources.runtimes.sockets import (
    SocketDirectories,
    is_hidden,
    is_there,
    speaks_of_foreign_pids,
)

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 30.0
_HELD_SECONDS = 5.0
"""A connection that held for so long starts the retries anew; one that never does waits longer."""


class RuntimeSource(ABC):
    """A runtime's witness: inactive until its socket is there and answers, and whenever it is not.

    A connection that is lost is tried again, at first at once and then at most every 30 s; without
    a socket nothing is tried at all until there is one.
    """

    def __init__(self, name: str, socket: Path, sockets: SocketDirectories, places: Places) -> None:
        self._name = name
        self._places = places.of_one_runtime()
        self.socket = socket
        self._sockets = sockets
        self._emit: Emit = lambda _: None
        self._task: asyncio.Task[None] | None = None
        self._active = False
        self._missing = True
        self._detail = f"{socket} has not answered yet"
        self._connections = self._seen = self._ooms = self._ended = 0

    @property
    def name(self) -> str:
        """The runtime's name."""
        return self._name

    @property
    def active(self) -> bool:
        """Does the runtime answer?"""
        return self._active

    @abstractmethod
    def recall(self, lives: Sequence[Life], since: int | None) -> None:
        """Take in the lives whose end nobody told before a restart: the runtime may still know it.

        Nothing was written down after `since`, microseconds since the epoch.
        """

    async def start(self, emit: Emit) -> None:
        """Begin to look for the runtime; returns at once, whether or not it is there."""
        self._emit = emit
        self._task = asyncio.create_task(self._run(), name=f"oomwatch-{self._name}")

    def answer(self, question: Question) -> bool:
        """It can be asked nothing."""
        return False

    def state(self) -> SourceState:
        """Say whether the runtime answers. One that is not installed is no fault of the host's."""
        return SourceState(
            name=self._name,
            active=self._active,
            degraded=not self._active and not self._missing,
            detail=self._detail,
            figures={
                "connections": self._connections,
                "seen": self._seen,
                "ooms": self._ooms,
                "ended": self._ended,
            },
        )

    async def stop(self) -> None:
        """Close the connection and stop looking for the runtime."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._active = False

    @abstractmethod
    async def _follow(self) -> None:
        """Connect and follow until the connection ends.

        Call `_connected` once the runtime answers. Raises `RuntimeUnreachable`.
        """

    def _connected(self) -> None:
        self._active = True
        self._connections += 1
        self._detail = f"{self.socket}, followed"
        log.info("%s answers at %s", self._name, self.socket)

    def _tell(self, observations: Sequence[Observation]) -> None:
        for observation in observations:
            self._seen += isinstance(observation, ContainerSeen)
            self._ooms += isinstance(observation, RuntimeOom)
            self._ended += isinstance(observation, ContainerEnded)
        if observations:
            self._emit(observations)

    async def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            self._missing = not is_there(self.socket)
            if self._missing:
                what = "this user may not look for" if is_hidden(self.socket) else "there is no"
                self._detail = f"{what} {self.socket}: nothing is known from {self._name}"
                await self._sockets.appears(self.socket)
                self._missing = False
                self._detail = f"{self.socket} has not answered yet"
            why = "it closed the connection"
            began = asyncio.get_running_loop().time()
            try:
                self._places.foreign = speaks_of_foreign_pids(self.socket)
                await self._follow()
            except RuntimeUnreachable as error:
                why = str(error)
            except Exception:
                # Ours to mend, but no name is worth a daemon.
                log.exception("%s at %s", self._name, self.socket)
                why = "what it answered could not be understood"
            if self._active:
                log.warning("%s at %s is lost: %s", self._name, self.socket, why)
            if asyncio.get_running_loop().time() - began > _HELD_SECONDS and self._active:
                delay = FIRST_RETRY_SECONDS
            self._active = False
            self._detail = f"{self.socket} does not answer ({why}); it is tried again by itself"
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_RETRY_SECONDS)
