"""The daemon in figures, for Prometheus.

What was told is counted as it is committed, by a few words of our own: scope, source, verdict. No
figure has a label that a container, a process or a client could choose, so there are as many of
them on a node with 10,000 containers as on an empty one; who was killed is what subscribing is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from oomwatch.events import ContainerExit, Entry, EvidenceGap, OomKill, Scope, Verdict
from oomwatch.status import JournalStatus, NodeStatus

_MICROSECONDS = 1e6


class Metrics:
    """Counts what is told from its making on, and writes it out beside a status."""

    def __init__(self) -> None:
        self._kills: Counter[str] = Counter(dict.fromkeys(Scope, 0))
        self._exits: Counter[str] = Counter(dict.fromkeys(Verdict, 0))
        self._gaps: Counter[str] = Counter()
        self._recovered = 0

    def told(self, entries: Iterable[Entry]) -> None:
        """Count events as they are committed; an amendment counts nothing again."""
        for entry in entries:
            event = entry.event
            if event.amends is not None:
                continue
            match event:
                case OomKill():
                    self._kills[event.scope] += event.kill_count or 0
                    self._recovered += (event.kill_count or 0) if event.recovered else 0
                case ContainerExit():
                    self._exits[event.verdict] += 1
                case EvidenceGap():
                    self._gaps[event.source] += 1

    def render(self, status: NodeStatus, accept: str) -> tuple[bytes, str]:
        """Write the figures as a scraper that accepts `accept` reads them, and the content type."""
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families([*self._counted(), *_of_node(status), *_of_sources(status)]))
        return encode(registry), content_type

    def _counted(self) -> Iterator[Metric]:
        yield _counter("kills", "OOM kills told, by whose limit was hit.", "scope", self._kills)
        yield _plain_counter(
            "kills_recovered", "Those of them that happened while nobody watched.", self._recovered
        )
        yield _counter("container_exits", "Exits told, by verdict.", "verdict", self._exits)
        yield _counter("evidence_gaps", "Gaps told, by the source.", "source", self._gaps)


def _of_node(status: NodeStatus) -> Iterator[Metric]:
    info = {"version": status.version, "kernel_release": status.kernel_release}
    yield InfoMetricFamily("oomwatch", "What runs here.", value=info)
    yield _gauge("healthy", "1 while what is promised is kept.", status.healthy)
    yield _gauge(
        "start_time_seconds",
        "When the daemon started, in seconds since the Unix epoch.",
        status.start_time / _MICROSECONDS,
    )
    yield _gauge("cgroups", "Cgroups that are watched.", status.cgroups)
    yield _gauge("subscribers", "Subscribe streams that are open.", status.subscribers)
    yield from _of_journal(status.journal)


def _of_journal(journal: JournalStatus) -> Iterator[Metric]:
    yield _gauge("journal_healthy", "1 while events can be written.", journal.healthy)
    yield _gauge("journal_disk_full", "1 while the oldest go for want of room.", journal.disk_full)
    yield _gauge("journal_events", "Events that are kept.", journal.events)
    yield _gauge(
        "journal_pending_events", "Events that wait to be written.", journal.pending_events
    )
    yield _gauge("journal_newest_revision", "0 before the first.", journal.newest_revision)
    yield _gauge("journal_oldest_revision", "The oldest that is kept.", journal.oldest_revision)
    if journal.size_bytes is not None:
        yield _gauge("journal_size_bytes", "On disk.", journal.size_bytes)


def _of_sources(status: NodeStatus) -> Iterator[Metric]:
    active = GaugeMetricFamily("oomwatch_source_active", "1 while it watches.", labels=["source"])
    degraded = GaugeMetricFamily(
        "oomwatch_source_degraded",
        "1 while it watches less well than it could; GetStatus says how.",
        labels=["source"],
    )
    figures = GaugeMetricFamily(
        "oomwatch_source_figure",
        "What each source counts of itself, by the names that GetStatus has.",
        labels=["source", "figure"],
    )
    # containerd is looked for at two sockets: two sources of one name, and a series is told once.
    actives: Counter[str] = Counter()
    degradeds: Counter[str] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    for source in status.sources:
        actives[source.name] |= source.active
        degradeds[source.name] |= source.degraded
        for name, value in sorted((source.figures or {}).items()):
            sums[source.name, name] += value
    for name in actives:
        active.add_metric([name], actives[name])
        degraded.add_metric([name], degradeds[name])
    for labels, value in sums.items():
        figures.add_metric(labels, value)
    yield from (active, degraded, figures)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"oomwatch_{name}", words, value=value)


def _plain_counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"oomwatch_{name}", words, value=value)


def _counter(name: str, words: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(f"oomwatch_{name}", words, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


class _Families(Collector):
    """Families that were made beforehand, as a collector."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Give them."""
        return self._families
