"""A container in words: in a cell of a table, and in the sentence that tells its kill."""

from __future__ import annotations

from oomwatch.cli.terminal import escape
from oomwatch.cli.times import human_bytes, human_duration
from oomwatch.containers.paths import find_pod
from oomwatch.events import Container, ContainerExit, Entry, OomKill, Scope, Victim

_SHORT_ID = 12
"""As the runtimes print their 64 digits."""


SCOPE_WORDS = {
    Scope.CONTAINER_LIMIT.value: "own",
    Scope.ANCESTOR_LIMIT.value: "ancestor",
    Scope.DESCENDANT.value: "nested",
}
"""What people are told of a scope, where that is not its name."""


def label(container: Container) -> str:
    """Its name, with its pod's, and its image; empty where only its id is known. Escaped."""
    pod, name = container.pod, container.name
    if pod is not None and pod.name is not None:
        in_pod = f"{pod.namespace}/{pod.name}" if pod.namespace else pod.name
        name = f"{in_pod}/{name}" if name else in_pod
    words = [name] if name else []
    if container.image:
        words.append(f"({container.image})")
    return escape(" ".join(words))


def called(container: Container) -> str:
    """Its name, and what its runtime calls it: "web (docker ee129607aff3)". Escaped."""
    id_ = container.id
    if len(id_) == 64 and set(id_) <= set("0123456789abcdef"):
        id_ = id_[:_SHORT_ID]
    formal = f"{container.runtime} {id_}" if container.runtime else f"container {id_}"
    name = label(Container(id="", name=container.name, pod=container.pod))
    return escape(formal) if not name or name == escape(id_) else f"{name} ({escape(formal)})"


def scope_word(event: OomKill) -> str:
    """Whose limit was hit, in a word: own, nested, pod, slice, ancestor, node, unknown."""
    limit = event.limit_cgroup
    if event.scope is Scope.ANCESTOR_LIMIT and limit is not None:
        pod = find_pod(limit)
        if pod is not None and pod.cgroup == limit:
            return "pod"
        if limit.endswith(".slice"):
            return "slice"
    return SCOPE_WORDS.get(event.scope.value, event.scope.value)


def told(event: OomKill, container: Container, end: Entry | None = None) -> str:
    """The kill as one sentence about its container, without a full stop. Escaped.

    `end` is the exit of its life, `None` where none was told.
    """
    parts = [f"{called(container)} lost {_lost(event)} {_at(event)}"]
    victim = event.victims[0] if len(event.victims) == 1 else None
    if victim is not None and (held := _held(victim)) is not None:
        parts.append(f"it held {held}")
    if victim is not None and victim.main_process:
        parts.append("it was the container's main process")
    if end is not None and isinstance(end.event, ContainerExit):
        after = max(0, (end.event.exit_time or end.event.detect_time) - event.detect_time)
        parts.append(f"the container ended {human_duration(after)} later (revision {end.revision})")
    elif victim is not None and victim.main_process is False:
        # Whoever knows as much of it, its runtime or its worker, would have told its end as well.
        # Its name is not enough: it may be all that its path shows.
        known = (container.image, container.handler, container.labels)
        followed = any(word is not None for word in known)
        lived_on, spared = "the container lived on", "the container's main process was not killed"
        parts.append(lived_on if followed else spared)
    return "; ".join(parts)


def _lost(event: OomKill) -> str:
    if len(event.victims) == 1:
        (victim,) = event.victims
        name = f" `{escape(victim.comm)}`" if victim.comm is not None else ""
        return f"process {victim.pid}{name}"
    if event.victims:
        return f"{len(event.victims)} processes"
    return "a process" if event.kill_count == 1 else f"{event.kill_count} processes"


def _at(event: OomKill) -> str:
    size = event.memory.limit_bytes if event.memory is not None else None
    of = f" of {human_bytes(size)}" if size is not None else ""
    limit = escape(event.limit_cgroup) if event.limit_cgroup is not None else "an ancestor"
    match event.scope:
        case Scope.CONTAINER_LIMIT:
            return f"at its own limit{of}"
        case Scope.DESCENDANT:
            return f"at a limit{of} nested in it, that of {limit}"
        case Scope.ANCESTOR_LIMIT:
            return f"at the limit{of} of {limit}"
        case Scope.NODE:
            return "as the node ran out of memory"
        case _:
            return "at a limit that is not known"


def _held(victim: Victim) -> str | None:
    sizes = (victim.anon_rss_bytes, victim.file_rss_bytes, victim.shmem_rss_bytes)
    known = [size for size in sizes if size is not None]
    return human_bytes(sum(known)) if known else None
