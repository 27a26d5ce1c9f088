"""Cgroup paths short enough to read: a 64-digit container id becomes its first twelve digits."""

from __future__ import annotations

import re

_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SHORT = 12
_REMEMBERED = 100_000


class CgroupNames:
    """Shortens container ids in paths, and never two different ones to the same text.

    Twelve digits are what Docker, containerd and crictl print and accept. Two ids that begin alike
    are shown with as many digits as tell them apart, from the moment the second is met.
    """

    def __init__(self) -> None:
        self._ids_by_start: dict[str, set[str]] = {}

    def short(self, text: str) -> str:
        """Return `text` with every container id in it shortened."""
        return _CONTAINER_ID.sub(lambda match: self._short_id(match[0]), text)

    def _short_id(self, container_id: str) -> str:
        if len(self._ids_by_start) > _REMEMBERED:
            self._ids_by_start.clear()
        alike = self._ids_by_start.setdefault(container_id[:_SHORT], set())
        alike.add(container_id)
        digits = _SHORT
        while any(
            other != container_id and other[:digits] == container_id[:digits] for other in alike
        ):
            digits += 1
        return container_id[:digits]
