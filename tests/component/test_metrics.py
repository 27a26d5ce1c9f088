"""The figures over real HTTP: what was told is counted, and a hostile client harms nobody."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from oomwatch import metrics_server
from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.errors import AddressError
from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Entry,
    Event,
    EvidenceGap,
    OomKill,
    Scope,
    SourceState,
    Verdict,
)
from oomwatch.metrics import Metrics
from oomwatch.metrics_server import MetricsServer
from oomwatch.testing import FakeCgroupTree

BOUND = 30.0
NAMED: dict[str, Any] = {"episode_id": "e", "detect_time": 1, "confidence": Confidence.CONFIRMED}
KILL = OomKill(**NAMED, scope=Scope.CONTAINER_LIMIT, kill_count=2, victim_cgroup="/a")

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[tuple[MetricsServer, Watcher, FakeCgroupTree]]:
    """A watcher's figures, served on a free port of the loopback."""
    tree = FakeCgroupTree(tmp_path / "cgroup")
    tree.make("/a")
    watcher = Watcher(Config(cgroup_root=tree.root, kernel_log=None, state_dir=tmp_path / "state"))
    metrics = Metrics()
    watcher.on_told = metrics.told
    server = MetricsServer("127.0.0.1:0", metrics, watcher.status)
    async with watcher:
        await server.start()
        yield server, watcher, tree
        await server.stop()


def _get(url: str, method: str, accept: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=BOUND) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


async def get(
    server: MetricsServer, path: str = "/metrics", *, method: str = "GET", accept: str = ""
) -> tuple[int, Message, bytes]:
    url = f"http://127.0.0.1:{server.port}{path}"
    return await asyncio.to_thread(_get, url, method, accept)


def samples(body: bytes) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def figures(server: MetricsServer) -> dict[Sample, float]:
    status, _, body = await get(server)
    assert status == 200
    return samples(body)


async def test_a_kill_is_counted_by_its_scope(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    server, watcher, tree = scraped
    before = await figures(server)
    assert before["oomwatch_kills_total", (("scope", "node"),)] == 0
    tree.kill("/a", 3)
    async with asyncio.timeout(BOUND):
        while (await watcher.status()).kills_told < 3 or (
            await watcher.status()
        ).journal.events < 1:
            await asyncio.sleep(0.01)
    after = await figures(server)
    assert after["oomwatch_kills_total", (("scope", "container_limit"),)] == 3
    assert after["oomwatch_kills_recovered_total", ()] == 0
    assert after["oomwatch_journal_events", ()] == 1
    assert after["oomwatch_journal_healthy", ()] == 1
    assert after["oomwatch_journal_size_bytes", ()] > 0
    assert after["oomwatch_cgroups", ()] == 2
    assert after["oomwatch_subscribers", ()] == 0
    assert after["oomwatch_healthy", ()] == 1
    assert after["oomwatch_source_active", (("source", "memory_events"),)] == 1
    assert after["oomwatch_source_figure", (("figure", "watches"), ("source", "memory_events"))] > 0


async def test_everything_that_is_told_is_counted_once(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    _, watcher, _ = scraped
    metrics = Metrics()
    told: list[Event] = [
        KILL,
        replace(KILL, scope=Scope.NODE, recovered=True, kill_count=5),
        # An amendment adds words, and no kills.
        replace(KILL, kill_count=None, amends=1),
        ContainerExit(**NAMED, verdict=Verdict.OOM),
        replace(ContainerExit(**NAMED, verdict=Verdict.NOT_OOM), amends=2),
        EvidenceGap(**NAMED, source="kernel_log", reason="overwritten"),
    ]
    metrics.told([Entry(number, "j", event) for number, event in enumerate(told, start=1)])
    found = samples(metrics.render(await watcher.status(), "")[0])
    assert found["oomwatch_kills_total", (("scope", "container_limit"),)] == 2
    assert found["oomwatch_kills_total", (("scope", "node"),)] == 5
    assert found["oomwatch_kills_recovered_total", ()] == 5
    assert found["oomwatch_container_exits_total", (("verdict", "oom"),)] == 1
    assert found["oomwatch_container_exits_total", (("verdict", "not_oom"),)] == 0
    assert found["oomwatch_evidence_gaps_total", (("source", "kernel_log"),)] == 1


async def test_what_containers_choose_is_no_label(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    """However many containers there are, there are as many figures."""
    _, watcher, _ = scraped
    metrics = Metrics()
    status = await watcher.status()
    few = metrics.render(status, "")[0].count(b"\n")
    metrics.told(
        Entry(
            number,
            "j",
            replace(
                KILL,
                victim_cgroup=f"/{number}",
                container=Container(id=f"{number}", name='x"} 1\n', labels={"a": "\x1b"}),
            ),
        )
        for number in range(1000)
    )
    assert metrics.render(status, "")[0].count(b"\n") == few


async def test_two_sources_of_one_name_are_one_series(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    """containerd's and k3s's containerd's sockets: a scraper refuses a series that comes twice."""
    _, watcher, _ = scraped
    ill = SourceState(name="containerd", active=True, degraded=True, figures={"seen": 3})
    away = SourceState(name="containerd", active=False, figures={"seen": 1})
    status = await watcher.status()
    body = Metrics().render(replace(status, sources=(ill, away)), "")[0]
    series = [line.rpartition(b" ")[0] for line in body.splitlines() if line[:1] != b"#"]
    assert len(set(series)) == len(series)
    found = samples(body)
    containerd = ("source", "containerd")
    assert found["oomwatch_source_active", (containerd,)] == 1
    assert found["oomwatch_source_degraded", (containerd,)] == 1
    assert found["oomwatch_source_figure", (("figure", "seen"), containerd)] == 4


async def test_what_is_well_hides_nothing_that_is_ill_of_the_same_name(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health that is asked for by a source's name is of every source of that name."""
    _, watcher, _ = scraped
    ill = SourceState(name="containerd", active=True, degraded=True)
    away = SourceState(name="containerd", active=False)
    for states in ([ill, away], [away, ill]):
        monkeypatch.setattr(watcher.witnesses, "states", lambda states=states: states)
        assert watcher.degraded() == {"containerd": True}


async def test_a_scraper_of_openmetrics_gets_it(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    server, _, _ = scraped
    _, fields, body = await get(server, accept="application/openmetrics-text; version=1.0.0")
    assert fields["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    _, fields, _ = await get(server, accept="*/*")
    assert fields["Content-Type"].startswith("text/plain")


async def test_other_questions_are_answered_shortly(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree],
) -> None:
    server, _, _ = scraped
    assert (await get(server, "/"))[0] == 404
    assert (await get(server, "/metrics/../etc/passwd"))[0] == 404
    assert (await get(server, "/metrics?x=1"))[0] == 200
    status, fields, _ = await get(server, method="POST")
    assert (status, fields["Allow"]) == (405, "GET, HEAD")
    status, fields, body = await get(server, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(fields["Content-Length"]) > 1000


async def raw(server: MetricsServer, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(BOUND):
            writer.write(sent)
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"\x16\x03\x01 TLS hello\r\n\r\n", b" 400 "),
        (b"GET\r\n\r\n", b" 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" 400 "),
    ],
)
async def test_what_is_no_request_is_refused(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree], sent: bytes, answer: bytes
) -> None:
    server, _, _ = scraped
    assert answer in (await raw(server, sent)).partition(b"\r\n")[0]
    assert await figures(server)


async def test_who_says_nothing_is_let_go_and_keeps_nobody_out(
    scraped: tuple[MetricsServer, Watcher, FakeCgroupTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, _ = scraped
    monkeypatch.setattr(metrics_server, "SECONDS", 0.5)
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
    for reader, _ in silent:
        async with asyncio.timeout(BOUND):
            while await reader.read(1000):
                pass
    for _, writer in silent:
        writer.close()
    assert await figures(server)


async def test_figures_stay_on_the_loopback_unless_asked_otherwise(watcher: Watcher) -> None:
    with pytest.raises(AddressError, match="say --insecure twice"):
        MetricsServer("0.0.0.0:0", Metrics(), watcher.status)
    server = MetricsServer("0.0.0.0:0", Metrics(), watcher.status, anywhere=True)
    await server.start()
    assert await figures(server)
    taken = MetricsServer(f"127.0.0.1:{server.port}", Metrics(), watcher.status)
    with pytest.raises(AddressError, match="cannot be served at"):
        await taken.start()
    await server.stop()
    with pytest.raises(AddressError, match="no HOST:PORT"):
        MetricsServer("/run/metrics.sock", Metrics(), watcher.status)
