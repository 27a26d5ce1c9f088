"""A userspace OOM killer's log, followed for real: its line names who ended a container."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomwatch.events import Confidence, Container, ContainerExit, Verdict
from oomwatch.kernel_log.userspace_killers import KillersWords
from oomwatch.rpc.health import SOURCES
from tests.component.served import BOUND, Place, served

pytestmark = pytest.mark.usefixtures("on_tmpfs")

LINE = 'sending {} to process {} uid 0 "sleep": badness 1300, VmRSS 412 MiB\n'


@contextmanager
def job(place: Place) -> Iterator[int]:
    """A process in the cgroup /a."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        place.tree.make("/a")
        place.tree.write("/a", "cgroup.procs", f"{process.pid}\n")
        yield process.pid
        process.kill()


async def finalized(place: Place, code: int) -> ContainerExit:
    exit_ = (await place.client.finalize("job", exit_code=code)).event
    assert isinstance(exit_, ContainerExit)
    return exit_


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGKILL", 137)])
async def test_the_killer_is_named(tmp_path: Path, name: str, code: int) -> None:
    log = tmp_path / "earlyoom.log"
    log.write_text(LINE.format("SIGKILL", os.getpid()))
    async with served(tmp_path, killer_log=log) as place:
        with job(place) as pid:
            await place.client.watch_container(Container(id="job"), pid=pid)
            with log.open("a") as file:
                file.write(LINE.format(name, pid))
            # No await between: the line is not notified yet, and is read all the same.
            exit_ = (await place.watcher.finalize_container("job", exit_code=code)).event
        assert isinstance(exit_, ContainerExit)
        assert (exit_.verdict, exit_.confidence) == (Verdict.NOT_OOM, Confidence.CONFIRMED)
        assert exit_.reasons[0].startswith("a userspace OOM killer ended it")
        assert exit_.amends is None
        says = f"earlyoom killed here: its log says that it sent {name} to process {pid}"
        assert says in exit_.reasons


async def test_a_line_that_comes_after_the_verdict_amends_it(tmp_path: Path) -> None:
    log = tmp_path / "earlyoom.log"
    async with served(tmp_path, killer_log=log) as place:
        with job(place) as pid:
            await place.client.watch_container(Container(id="job"), pid=pid)
            first = await place.client.finalize("job", exit_code=137)
            log.write_text(LINE.format("SIGKILL", pid))
            async with asyncio.timeout(BOUND):
                while (last := (await place.journaled())[-1]) == first:
                    await asyncio.sleep(0.01)
        assert isinstance(last.event, ContainerExit)
        assert last.event.amends == first.revision
        assert last.event.reasons[0].startswith("a userspace OOM killer ended it")


async def test_another_processs_death_names_nobody(tmp_path: Path) -> None:
    log = tmp_path / "earlyoom.log"
    log.touch()
    async with served(tmp_path, killer_log=log) as place:
        with job(place) as pid:
            await place.client.watch_container(Container(id="job"), pid=pid)
            log.write_text(LINE.format("SIGKILL", os.getpid()))
            exit_ = await finalized(place, 137)
        assert exit_.reasons[0].startswith("SIGKILL, and not by the kernel's OOM killer")


async def test_lines_that_could_not_be_taken_in_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "earlyoom.log"
    log.touch()

    def fails(self: KillersWords, text: bytes) -> None:
        raise ValueError("seeded")

    async with served(tmp_path, killer_log=log) as place:
        monkeypatch.setattr(KillersWords, "read", fails)
        log.write_text(LINE.format("SIGKILL", os.getpid()))
        async with asyncio.timeout(BOUND):
            while await place.client.health(f"{SOURCES}/killer_log"):
                await asyncio.sleep(0.01)
        sources = {source.name: source for source in (await place.client.get_status()).sources}
        assert sources["killer_log"].active
        assert "it failed (ValueError: seeded)" in sources["killer_log"].detail
    assert "these lines name no killer" in caplog.text
