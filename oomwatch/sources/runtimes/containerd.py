"""The containerd witness: containers of all its namespaces, its `oom` events, its exits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from oomwatch.containers.places import Places
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.source import RuntimeSource

if TYPE_CHECKING:
    from oomwatch.sources.runtimes.containerd_api import ContainerdFollower


class Containerd(RuntimeSource):
    """containerd at one socket."""

    def __init__(self, name: str, socket: Path, sockets: SocketDirectories, places: Places) -> None:
        super().__init__(name, socket, sockets)
        self._places = places
        self._follower: ContainerdFollower | None = None

    async def _follow(self) -> None:
        if self._follower is None:
            # grpc takes a while to import where no server of ours has done so.
            follower = await asyncio.to_thread(_import)
            self._follower = follower(self.name, self._places, self._tell)
        await self._follower.follow(self.socket, self._connected)


def _import() -> type[ContainerdFollower]:
    from oomwatch.sources.runtimes.containerd_api import ContainerdFollower

    return ContainerdFollower
