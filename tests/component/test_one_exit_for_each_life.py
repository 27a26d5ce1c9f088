"""One exit for each life, however many events lie between two words on its end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from oomwatch import daemon
from oomwatch.containers import registry
from oomwatch.correlator.exits import book
from oomwatch.errors import RequestRefused
from oomwatch.events import Container, ContainerExit, Entry
from oomwatch.observations import ContainerEnded
from oomwatch.testing import FakeCgroupTree
from tests.component.served import Place, served

pytestmark = pytest.mark.usefixtures("on_tmpfs")

WAIT = 20.0
"""An upper bound that no test waits out: it ends as soon as the exit can be judged."""


async def ended(place: Place, *names: str) -> list[Entry]:
    """Containers run, are killed in, and end."""
    entries = []
    for name in names:
        place.tree.make(f"/{name}")
        await place.client.watch_container(Container(id=name), cgroup=f"/{name}")
        place.tree.kill(f"/{name}")
        entries.append(await place.client.finalize(name, exit_code=137, maximum_wait=WAIT))
        place.tree.remove(f"/{name}")
    return entries


async def exits(place: Place) -> list[Entry]:
    return [each for each in await place.journaled() if isinstance(each.event, ContainerExit)]


async def asked_again(place: Place, told: list[Entry]) -> None:
    """Whoever tells of the first end again is answered with its exit, and amends no other."""
    first, *others = told
    assert await place.client.finalize("first", exit_code=137) == first
    docker = ContainerEnded(
        source="docker",
        time=time.time_ns() // 1000,
        container_id="second",
        cgroup_id=others[0].event.cgroup_id if isinstance(others[0].event, ContainerExit) else 0,
        exit_code=137,
    )
    place.watcher.pipeline.emit([docker])
    again = await place.client.finalize("first", stop_requested=False)
    assert isinstance(again.event, ContainerExit)
    assert isinstance(first.event, ContainerExit)
    assert (again.event.amends, again.event.episode_id) == (first.revision, first.event.episode_id)
    assert (again.event.verdict, again.event.kills) == (first.event.verdict, first.event.kills)
    assert await place.client.finalize("first", exit_code=137) == again
    assert await place.client.finalize("second", exit_code=137) == others[0]
    assert await exits(place) == [*told, again]


async def test_one_that_is_not_kept_in_memory_any_more_is_found_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two words may wait for the journal at once: one more of it than fits would oust the other's.
    monkeypatch.setattr(book, "MAX_EXITS", 2)
    async with served(tmp_path) as place:
        await asked_again(place, await ended(place, "first", "second", "third"))


async def test_one_of_many_jobs_in_one_cgroup_is_found_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_TURNS", 2)
    async with served(tmp_path) as place:
        place.tree.make("/jobs")
        told = []
        for name in ("first", "second", "third", "fourth"):
            await place.client.watch_container(Container(id=name), cgroup="/jobs")
            told.append(await place.client.finalize(name, exit_code=1, maximum_wait=WAIT))
        assert await place.client.get_container(container_id="first") is None
        for entry in told:
            assert isinstance(entry.event, ContainerExit)
            assert entry.event.container is not None
            assert await place.client.finalize(entry.event.container.id, exit_code=1) == entry
        assert await exits(place) == told


async def test_one_that_the_start_did_not_look_through_is_found_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "RECALLED", 1)
    async with served(tmp_path) as place:
        tree: FakeCgroupTree = place.tree
        told = await ended(place, "first", "second", "third")
    async with served(tmp_path, tree) as place:
        await asked_again(place, told)


async def test_of_one_that_retention_has_deleted_nothing_new_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as place:
        tree: FakeCgroupTree = place.tree
        *_, last = await ended(place, "first", "second")
    async with served(tmp_path, tree, retention_events=1) as place:
        for _ in range(2):
            with pytest.raises(RequestRefused, match="was told, and is kept no longer") as raised:
                await place.client.finalize("first", exit_code=137)
            assert raised.value.status == "NOT_FOUND"
        assert await exits(place) == [last]
