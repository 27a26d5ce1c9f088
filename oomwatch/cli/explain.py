"""One event in sentences, with the evidence that it rests on: what `oomwatch show` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from oomwatch.cli.later import Later, whole
from oomwatch.cli.table import candidates
from oomwatch.cli.terminal import escape
from oomwatch.cli.times import human_bytes, human_duration, local_time, local_zone
from oomwatch.cli.whose import told
from oomwatch.events import (
    Confidence,
    Constraint,
    Container,
    ContainerExit,
    Entry,
    Event,
    EvidenceGap,
    MemoryPressure,
    MemoryUsage,
    OomKill,
    Scope,
    Task,
    Verdict,
    Victim,
)

_CONSTRAINTS = {
    Constraint.MEMCG: "the memory limit of a cgroup",
    Constraint.NONE: "the memory of the whole node",
    Constraint.CPUSET: "the memory nodes that a cpuset allows",
    Constraint.MEMORY_POLICY: "the memory nodes that a NUMA policy allows",
}


def explain(entry: Entry, later: Later | None = None) -> list[str]:
    """Return the lines that explain the event; all that came from outside is escaped.

    `later` is what the journal says of it since: a kill is told with that.
    """
    later = later or Later()
    told_first = entry.event
    entry = whole(entry, later)
    event = entry.event
    lines = [f"Revision {entry.revision}: {_headline(event, later)}"]
    lines += [f"  {sentence}" for sentence in _sentences(event)]
    lines.append(f"  {_when(event)}")
    if event.recovered:
        lines.append("  It happened while nobody watched, and was found afterwards.")
    if event.amends is not None:
        lines.append(f"  It adds to what revision {event.amends} told.")
    if later.amendments:
        added = _revisions(*(each.revision for each in later.amendments))
        if event is told_first:
            lines.append(f"  More is told of it in {added}.")
        else:
            lines.append(f"  What came later, in {added}, is told with it.")
    lines += judged(event.confidence, event.reasons if isinstance(event, ContainerExit) else ())
    if event.evidence:
        lines.append("  Evidence:")
        names = max(len(escape(evidence.source)) for evidence in event.evidence)
        lines += [
            f"    {local_time(evidence.time, digits=6)}  {escape(evidence.source):{names}}  "
            f"{escape(evidence.detail)}"
            for evidence in event.evidence
        ]
    lines.append(f"  Journal {escape(entry.journal_id)}, episode {escape(event.episode_id)}.")
    return lines


def judged(confidence: Confidence, reasons: Sequence[str]) -> list[str]:
    """Return the lines that say how sure something is, and why: the reasons as they were given."""
    why = ["  Reasons:", *(f"    {escape(reason)}" for reason in reasons)] if reasons else []
    return [f"  Confidence: {confidence.value}.", *why]


def _headline(event: Event, later: Later) -> str:
    match event:
        case OomKill():
            if event.kill_count is None:
                return "more is known about a kill."
            if event.container is not None:
                return f"{told(event, event.container, later.end)}."
            times = "once" if event.kill_count == 1 else f"{event.kill_count} times"
            return f"the kernel's OOM killer killed {times}."
        case ContainerExit():
            answer = {
                Verdict.OOM: "and it was out of memory",
                Verdict.NOT_OOM: "and it was not out of memory",
                Verdict.UNKNOWN: "and whether it was out of memory is not known",
            }
            return f"a container ended, {answer[event.verdict]}."
        case MemoryPressure():
            return "tasks stalled on memory."
        case EvidenceGap():
            return "evidence may have been lost."
        case _:
            assert_never(event)


def _sentences(event: Event) -> Iterator[str]:
    match event:
        case OomKill():
            yield from _kill(event)
        case ContainerExit():
            yield from _exit(event)
        case MemoryPressure():
            yield from _container(event.container)
            yield (
                f"In {escape(event.cgroup)}, {event.level.value} tasks stalled for "
                f"{human_duration(event.stall_microseconds)} within "
                f"{human_duration(event.window_microseconds)}."
            )
            yield from _memory(event.memory, "That cgroup")
        case EvidenceGap():
            yield f"The witness {escape(event.source)}: {escape(event.reason)}."
            if event.cgroup is not None:
                yield f"It matters for {escape(event.cgroup)} and what is below it."
            if event.lost_count is not None:
                yield f"{event.lost_count} records were lost."
        case _:
            assert_never(event)


def _kill(event: OomKill) -> Iterator[str]:
    victim = event.victim_cgroup
    if victim is not None:
        yield f"The victim lived in {escape(victim)}."
    else:
        below = escape(event.survivor_cgroup or "/")
        yield (
            f"In which cgroup is not known: somewhere below {below}, the nearest that still "
            f"exists ({candidates(event)})."
        )
        yield from (f"It may have been {escape(path)}." for path in event.candidates)
        if event.candidates_omitted:
            yield f"{event.candidates_omitted} further candidates are not listed."
    yield from _container(event.container)
    yield _limit(event)
    yield from _memory(event.memory, "The limit's cgroup" if event.limit_cgroup else "The cgroup")
    if event.group_kill:
        yield "memory.oom.group is set: the kernel killed the whole group together."
    if event.constraint is not None:
        yield f"What ran out was {_CONSTRAINTS[event.constraint]}."
    yield from (_victim(process) for process in event.victims)
    if not event.victims and event.kill_count is not None:
        yield "Which process died is not known: the counters tell that and how many, not who."
    if event.invoker is not None and event.invoker.comm is not None:
        yield f"The allocation that failed was made by {escape(event.invoker.comm)}."
    yield from _tasks(event)


def _limit(event: OomKill) -> str:
    limit = escape(event.limit_cgroup) if event.limit_cgroup is not None else None
    match event.scope:
        case Scope.CONTAINER_LIMIT:
            return "The limit that was hit is that cgroup's own."
        case Scope.ANCESTOR_LIMIT:
            return f"The limit that was hit is an ancestor's: {limit or 'which is not known'}."
        case Scope.DESCENDANT:
            return (
                f"The limit that was hit is nested in the container: {limit or 'not known where'}."
            )
        case Scope.NODE:
            return "The node itself ran out of memory; no cgroup's limit was hit."
        case Scope.UNKNOWN:
            return "Whose limit was hit is not known: more than one answer fits the counters."
        case _:
            assert_never(event.scope)


def _victim(victim: Victim) -> str:
    name = escape(victim.comm) if victim.comm is not None else "a process of unknown name"
    who = f"The kernel killed {name} (pid {victim.pid}"
    who += f", uid {victim.uid})" if victim.uid is not None else ")"
    if victim.main_process is not None:
        who += ", its cgroup's first process" if victim.main_process else ", not its cgroup's first"
    sizes = _sizes(
        ("{} anonymous", victim.anon_rss_bytes),
        ("{} of files", victim.file_rss_bytes),
        ("{} shared", victim.shmem_rss_bytes),
        ("{} of page tables", victim.pgtables_bytes),
    )
    if sizes:
        who += f", holding {sizes}"
    if victim.oom_score_adj is not None:
        who += f", oom_score_adj {victim.oom_score_adj}"
    if victim.cmdline:
        who += f": {escape(' '.join(victim.cmdline))}"
    return f"{who}."


def _tasks(event: OomKill) -> Iterator[str]:
    if not event.tasks:
        return
    all_of_them = event.task_count in (None, len(event.tasks))
    of = "" if all_of_them else f"the {len(event.tasks)} largest of "
    count = event.task_count if event.task_count is not None else len(event.tasks)
    yield f"The kernel could choose from these tasks ({of}{count}):"
    widths = [max(map(len, column)) for column in zip(*map(_row, event.tasks), strict=True)]
    for task in event.tasks:
        cells = zip(_row(task), widths, strict=True)
        (pid, rss, swap, adj, name) = (cell.rjust(width) for cell, width in cells)
        yield f"  pid {pid}  {rss} resident  {swap} in swap  oom_score_adj {adj}  {name.strip()}"


def _row(task: Task) -> tuple[str, ...]:
    rss, swap = (
        "?" if size is None else human_bytes(size) for size in (task.rss_bytes, task.swap_bytes)
    )
    adj = "?" if task.oom_score_adj is None else str(task.oom_score_adj)
    return str(task.pid), rss, swap, adj, "?" if task.comm is None else escape(task.comm)


def _exit(event: ContainerExit) -> Iterator[str]:
    yield from _container(event.container)
    if event.cgroup is not None:
        yield f"Its cgroup was {escape(event.cgroup)}."
    if event.exit_code is not None:
        yield f"It exited with code {event.exit_code}."
    if event.signal is not None:
        yield f"It was ended by signal {event.signal}."
    if event.stop_requested:
        yield "A stop had been asked for."
    if event.kills:
        yield f"It rests on {_revisions(*event.kills)}."


def _revisions(*numbers: int) -> str:
    return f"revision{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _container(container: Container | None) -> Iterator[str]:
    if container is None:
        return
    known = [
        f"{word} {escape(text)}"
        for word, text in (
            ("name", container.name),
            ("image", container.image),
            ("runtime", container.runtime),
            ("handler", container.handler),
            ("pod", container.pod.name if container.pod else None),
            ("namespace", container.pod.namespace if container.pod else None),
        )
        if text is not None
    ]
    yield f"It is container {escape(container.id)}{''.join(f', {text}' for text in known)}."


def _memory(memory: MemoryUsage | None, owner: str) -> Iterator[str]:
    if memory is None:
        return
    known = _sizes(
        ("a limit of {}", memory.limit_bytes),
        ("a peak of {}", memory.peak_bytes),
        ("in use when read {}", memory.current_bytes),
        ("in swap {}", memory.swap_bytes),
    )
    if known:
        yield f"{owner} had {known}."


def _sizes(*sizes: tuple[str, int | None]) -> str:
    """Those that are known, each in its words."""
    return ", ".join(words.format(human_bytes(size)) for words, size in sizes if size is not None)


def _when(event: Event) -> str:
    seen = local_time(event.detect_time, digits=6)
    text = f"It was seen at {seen} {local_zone(event.detect_time)}"
    occur = event.occur_time if isinstance(event, OomKill) else None
    if occur is not None:
        return f"{text}; the kernel did it at {local_time(occur, digits=6)}."
    after = event.occur_after if isinstance(event, OomKill | EvidenceGap) else None
    if after is not None:
        gap = human_duration(max(0, event.detect_time - after))
        return f"{text}, and happened within the {gap} before."
    return f"{text}."
