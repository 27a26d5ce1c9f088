"""Which lives, or exits of them, share something: a container's id, a path, a cgroup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

_At = TypeVar("_At")
_Key = TypeVar("_Key")


class KeyIndex(Generic[_At, _Key]):
    """Keys by what they share, in the order in which they were heard of; none is a list.

    Most share it with nobody: then the key is kept as it is, without a list around it.
    """

    def __init__(self) -> None:
        self._keys: dict[_At, _Key | list[_Key]] = {}

    def __iter__(self) -> Iterator[_At]:
        return iter(self._keys)

    def __getitem__(self, at: _At) -> Sequence[_Key]:
        """The keys, none where nobody has it."""
        keys = self._keys.get(at, [])
        return keys if isinstance(keys, list) else [keys]

    def add(self, at: _At, key: _Key) -> None:
        """A life that was heard of last has this too."""
        self._keys[at] = [*self[at], key] if at in self._keys else key

    def put_back(self, at: _At, key: _Key, place: int) -> None:
        """Give the newest key an older one's place."""
        keys = [other for other in self[at] if other != key]
        if keys:
            self._keys[at] = [*keys[:place], key, *keys[place:]]

    def discard(self, at: _At, key: _Key) -> None:
        """A life that has it is forgotten, or has another."""
        left = [other for other in self[at] if other != key]
        if left:
            self._keys[at] = left if len(left) > 1 else left[0]
        else:
            del self._keys[at]
