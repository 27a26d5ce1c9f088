"""A server's backend without containers, for tests of what has none."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from oomwatch.errors import NoSuchContainer, NoSuchProcess
from oomwatch.events import Container, Entry
from oomwatch.status import CgroupReport


class NoContainers:
    """Knows no container, and finds no process; well, unless it is given `trouble`."""

    trouble: tuple[str, ...] = ()
    poor: Mapping[str, bool] = MappingProxyType({})

    def problems(self) -> tuple[str, ...]:
        return self.trouble

    def degraded(self) -> Mapping[str, bool]:
        return self.poor

    async def get_cgroup_by_id(self, cgroup_id: int) -> CgroupReport | None:
        return None

    async def get_container(self, container_id: str) -> CgroupReport | None:
        return None

    async def watch_container(
        self,
        container: Container,
        *,
        pid: int | None,
        cgroup: str | None,
        memory_limit_bytes: int | None,
    ) -> CgroupReport:
        raise NoSuchProcess(f"there is no process {pid}")

    def is_registered(self, container_id: str) -> bool:
        return False

    def unwatch_container(self, container_id: str) -> bool:
        return False

    async def finalize_container(
        self,
        container_id: str,
        *,
        cgroup_id: int | None,
        exit_code: int | None,
        signal: int | None,
        exit_time: int | None,
        stop_requested: bool | None,
        stop_signal: int | None,
        runtime_oom_killed: bool | None,
        maximum_wait: float | None,
    ) -> Entry:
        raise NoSuchContainer(f"no container {container_id!r} is known")
