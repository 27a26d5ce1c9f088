"""The witnesses: each turns what it sees into observations, and decides nothing.

To add one: write a module with a class that is a `Source`, and name it in `oomwatch.witnesses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from oomwatch.events import SourceState
from oomwatch.observations import Observation, Question

Emit = Callable[[Sequence[Observation]], None]
"""Hands observations on, in the order in which they were made; returns at once."""


class Source(Protocol):
    """One witness. Every call is made on the event loop, and none may block it."""

    @property
    def name(self) -> str:
        """The name that evidence and status carry."""
        ...

    async def start(self, emit: Emit) -> None:
        """Begin to watch. An error that makes this witness useless is an `OomwatchError`."""
        ...

    def answer(self, question: Question) -> bool:
        """Look again, and emit what was found, now or soon. False if the question is another's."""
        ...

    def state(self) -> SourceState:
        """Say how this witness is doing."""
        ...

    async def stop(self) -> None:
        """Stop watching and give back every descriptor and timer. Never fails."""
        ...
