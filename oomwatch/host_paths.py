"""Names from the host's kernel, where only a part of its cgroups is watched.

The kernel prints every cgroup's path from the host's root, and tells of every kill on the host. In
a cgroup namespace (man 7 cgroup_namespaces) the same cgroups have other paths: what is above the
namespace's root is missing from them, and nothing in the namespace says what that is. So a printed
path is matched by its end, against the cgroups that are watched:

- what holds a container's id (64 digits) is *certain*: there is no second one;
- any other end that fits exactly one watched cgroup is *likely*: another container may have a
  cgroup of that name too. It names the victim of a kill that a counter showed, and no more;
- once a certain match has told what is missing, every path is known by its beginning;
- where a second one tells otherwise, somebody on the host has named a cgroup of his own after a
  container: from then on no end is more than likely.

A path that fits nothing is somebody else's, and so is one that fits several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from oomwatch.events import is_within
from oomwatch.observations import Observation, VictimNamed

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class _Match:
    """A watched cgroup, and the part of the printed path that is missing from its own."""

    cgroup: str
    above: str
    certain: bool


class HostPaths:
    """Brings names to the paths of the cgroups that are watched, and drops those of others.

    `prefix` is the path of the watched root ("" for "/") and `watched` says whether a path is one
    of its cgroups. `ours` says that the kernel prints the paths that we use.
    """

    def __init__(self, prefix: str, watched: Callable[[str], bool], *, ours: bool) -> None:
        self._prefix = prefix
        self._watched = watched
        self._above: str | None = "" if ours else None
        self._contradicted = False

    def ours(self, observations: Sequence[Observation]) -> list[Observation]:
        """Return the observations with the names of what is watched alone, by its paths."""
        kept: list[Observation] = []
        for each in observations:
            here = self._here(each) if isinstance(each, VictimNamed) else each
            if here is not None:
                kept.append(here)
        return kept

    def _here(self, record: VictimNamed) -> VictimNamed | None:
        if record.cgroup is None:
            # Whose it is, only its pid can tell.
            return self._moved(record, self._above)
        if not record.printed:
            # From /proc, which uses our paths: "/.." is above the namespace's root.
            return record if self._below(record.cgroup) else None
        match = self._match(record.cgroup)
        if match is None:
            return None
        if match.above == "":
            return record if self._below(record.cgroup) else None
        likely = f"{record.detail} [of {match.cgroup} by the end of {record.cgroup}]"
        return replace(
            self._moved(record, match.above),
            cgroup=match.cgroup,
            certain=match.certain,
            detail=record.detail if match.certain else likely,
        )

    def _moved(self, record: VictimNamed, above: str | None) -> VictimNamed:
        """The record with its limit and its group by our paths, where they have one."""
        if above == "":
            return record
        return replace(
            record,
            limit_cgroup=self._cut(record.limit_cgroup, above),
            group_cgroup=self._cut(record.group_cgroup, above),
        )

    def _match(self, path: str) -> _Match | None:
        known = self._cut(path, self._above)
        if known is not None:
            assert self._above is not None
            return _Match(known, self._above, True)
        fits = self._by_end(path)
        certain = [fit for fit in fits if fit.certain]
        if self._above is not None:
            if not certain:
                return None
            self._contradicted, self._above = True, None
        elif len(certain) == 1 and not self._contradicted:
            self._above = certain[0].above
            return certain[0]
        return replace(fits[0], certain=False) if len(fits) == 1 else None

    def _by_end(self, path: str) -> list[_Match]:
        """The watched cgroups that an end of a printed path fits."""
        ends = (found.start() for found in re.finditer("/", path) if found.start() < len(path) - 1)
        return [
            _Match(self._prefix + path[start:], path[:start], bool(_ID.search(path[start:])))
            for start in ends
            if self._watched(self._prefix + path[start:])
        ]

    def _below(self, path: str) -> bool:
        inside = is_within(path, self._prefix)
        return inside and not path.startswith("/../") and path != "/.."

    def _cut(self, path: str | None, above: str | None) -> str | None:
        """The path of a cgroup in the namespace; `None` for one that is above or beside it."""
        if path is None or above is None or not is_within(path, above):
            return None
        return self._prefix + path[len(above) :] or "/"
