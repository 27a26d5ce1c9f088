"""An operator's own layout of cgroups, as a pattern: where container ids and names are in a path.

A pattern is a path whose directories may hold placeholders: `/workers/{pod_name}/{id}`,
`jobs/job-{id}.scope`. One that begins with "/" fits from the root, any other at any depth; `*` is
any text within one directory's name. Each placeholder takes as little as it can, and nothing is
ever tried twice: a hostile name costs no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from oomwatch.errors import LayoutError
from oomwatch.events import Container, Pod

PLACEHOLDERS = ("id", "name", "pod_uid", "pod_name", "pod_namespace")

_TOKEN = re.compile(r"\{([^{}]*)\}|\*")


@dataclass(frozen=True, slots=True)
class Layout:
    """One pattern, compiled: a regular expression for each directory."""

    pattern: str
    anchored: bool
    parts: tuple[re.Pattern[str], ...]

    @classmethod
    def parse(cls, pattern: str) -> Layout:
        """Read a pattern; `LayoutError` says what is wrong with it."""
        names = _placeholders(pattern)
        if not {"id", "name"} & set(names):
            raise LayoutError(f"container pattern {pattern!r} has neither {{id}} nor {{name}}")
        directories = pattern.strip("/").split("/")
        if "" in directories:
            raise LayoutError(f"container pattern {pattern!r} has an empty directory name")
        parts = tuple(_compile(directory, pattern) for directory in directories)
        return cls(pattern, pattern.startswith("/"), parts)

    def find(self, path: str) -> Iterator[tuple[int, Container]]:
        """Yield each container that the pattern finds: where its cgroup's path ends, and who."""
        names = path.strip("/").split("/")
        offset = len(path) - len(path.lstrip("/"))
        last = len(names) - len(self.parts)
        for first in range(min(1, last + 1) if self.anchored else last + 1):
            found = self._fit(names[first : first + len(self.parts)])
            if found is not None:
                end = offset + len("/".join(names[: first + len(self.parts)]))
                yield end, found

    def _fit(self, names: list[str]) -> Container | None:
        values: dict[str, str] = {}
        for part, name in zip(self.parts, names, strict=True):
            match = part.fullmatch(name)
            if match is None:
                return None
            values.update(match.groupdict())
        pod = None
        if any(key.startswith("pod_") for key in values):
            pod = Pod(
                uid=values.get("pod_uid"),
                name=values.get("pod_name"),
                namespace=values.get("pod_namespace"),
            )
        # A layout without {id} is one whose names are all there is to tell containers apart.
        container_id = values.get("id") or values["name"]
        return Container(id=container_id, name=values.get("name"), pod=pod)


def _placeholders(pattern: str) -> list[str]:
    names = [match[1] for match in _TOKEN.finditer(pattern) if match[1] is not None]
    for name in names:
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise LayoutError(f"container pattern {pattern!r}: {{{name}}} is none of {known}")
        if names.count(name) > 1:
            raise LayoutError(f"container pattern {pattern!r} has {{{name}}} twice")
    return names


def _compile(directory: str, pattern: str) -> re.Pattern[str]:
    """Each placeholder runs to the next literal and, being atomic, is never tried again."""
    text, position = "", 0
    tokens = list(_TOKEN.finditer(directory))
    for index, token in enumerate(tokens):
        text += re.escape(directory[position : token.start()])
        position = token.end()
        after = tokens[index + 1].start() if index + 1 < len(tokens) else len(directory)
        literal = directory[position:after]
        if not literal and index + 1 < len(tokens):
            raise LayoutError(
                f"container pattern {pattern!r}: nothing parts {token[0]} from what follows"
            )
        taken = f"(?P<{token[1]}>" if token[1] is not None else "(?:"
        if index + 1 == len(tokens):
            text += taken + ".+)"  # the last one takes all up to the literal that ends the name
        else:
            text += f"(?>{taken}.+?){re.escape(literal)})"
            position = after
    return re.compile(text + re.escape(directory[position:]), re.DOTALL)
