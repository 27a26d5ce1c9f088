"""The exits that a restart finds with a witness still due: the daemon died before that was heard.

They are looked at anew, with what came meanwhile. What was concluded of one stands where not all
that it rested on can be read back.
"""

from __future__ import annotations

from oomwatch.correlator.exits.witnesses import ExitWitnesses
from oomwatch.correlator.exits.words import Exit, what_is_due
from oomwatch.events import Confidence, ContainerExit, Verdict
from oomwatch.observations import Question


class Unsettled:
    """Those exits, from their being read back until they are looked at anew."""

    def __init__(self, witnesses: ExitWitnesses) -> None:
        self._witnesses = witnesses
        self._exits: dict[Exit, None] = {}

    def recalled(self, exit_: Exit, told: ContainerExit) -> None:
        """Take in what was told of an exit last, when no more than was told before it is known."""
        self._exits.pop(exit_, None)
        exit_.stands = None
        if not what_is_due(told):
            return
        self._exits[exit_] = None
        left = self._witnesses.event(exit_, told.detect_time)
        same = (left.verdict, left.confidence) == (told.verdict, told.confidence)
        concluded = (told.verdict, told.confidence) != (Verdict.UNKNOWN, Confidence.LOW)
        fewer = (left.oom_kills or 0) < (told.oom_kills or 0)
        if fewer or (concluded and not same):
            exit_.stands = told

    def sought(self) -> list[Question]:
        """Ask for their sandboxes, for they are no plain containers though these may be gone."""
        return [question for exit_ in self._exits for question in self._witnesses.sought(exit_)]

    def take(self) -> list[Exit]:
        """Give them out, to be looked at anew."""
        exits, self._exits = self._exits, {}
        for exit_ in exits:
            exit_.reopened = True
        return list(exits)
