"""What went wrong with a source and was made up for at once: nobody who looks later would see it.

It is counted for as long as the daemon runs, in the source's figures, and for a while it is shown
as what the source is: degraded, with a sentence. Without that a probe would have to look in the one
moment when it happened.
"""

from __future__ import annotations

import time

SHOWN_SECONDS = 300.0
"""How long it is shown; as long as an alert commonly takes to be raised."""


class Recent:
    """One kind of thing that goes wrong now and then."""

    def __init__(self) -> None:
        self.count = 0
        """How often, or how much, since the daemon started."""
        self._words = ""
        self._time = 0.0

    def note(self, words: str, count: int = 1) -> None:
        """It happened now, so often."""
        self.count += count
        self._words, self._time = words, time.monotonic()

    def note_fault(self, error: Exception) -> None:
        """An exception of our own: what was taken in then is lost, and nothing else."""
        self.note(
            f"it failed ({type(error).__name__}: {error}), a fault of oomwatch's own: its log has "
            "more"
        )

    @property
    def words(self) -> str:
        """What happened last, where that is not long ago; otherwise empty.

        It says so itself that it is over: a sentence that changed by the second would be a new one
        to whoever compares them.
        """
        if not self.count or time.monotonic() - self._time >= SHOWN_SECONDS:
            return ""
        return f"within the last {SHOWN_SECONDS:g} s {self._words}"
