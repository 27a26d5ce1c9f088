"""Finds things by the cgroups around them: what is in one, or anywhere below it."""

from __future__ import annotations

from typing import Generic, TypeVar

from oomwatch.events import upwards

_Key = TypeVar("_Key")


class PathIndex(Generic[_Key]):
    """Keys by the path of each cgroup at and above theirs, in the order in which they were put in.

    The root's has all of them, so that to add or to remove one goes through none of the others.
    """

    def __init__(self) -> None:
        self._within: dict[str, dict[_Key, None]] = {}

    def __len__(self) -> int:
        return len(self._within)

    def add(self, path: str | None, key: _Key) -> None:
        """Put a key in; one without a path is found nowhere."""
        for above in upwards(path):
            self._within.setdefault(above, {})[key] = None

    def below(self, path: str | None) -> list[_Key]:
        """Return those at and below a path; none where it is not known."""
        return list(self._within.get(path, ())) if path is not None else []

    def remove(self, path: str | None, key: _Key) -> None:
        """Take out a key that was put in with this path."""
        for above in upwards(path):
            keys = self._within[above]
            del keys[key]
            if not keys:
                del self._within[above]
