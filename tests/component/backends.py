"""A server's backend without containers, for tests of what has none."""

from __future__ import annotations

from oomwatch.errors import NoSuchProcess
from oomwatch.events import Container
from oomwatch.status import CgroupReport


class NoContainers:
    """Knows no container, and finds no process."""

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

    def unwatch_container(self, container_id: str) -> bool:
        return False
