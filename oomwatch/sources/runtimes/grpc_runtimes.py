"""The witnesses that speak gRPC: containerd, and whoever serves Kubernetes' CRI (CRI-O).

Neither blocks, so each runs on the loop. What it follows with imports grpc, and is imported once
the socket is there, in a thread: where no server of ours has imported grpc, that takes a while.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.observations import Observation
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.source import RuntimeSource


class Follower(Protocol):
    """What is known of one runtime, over all connections to it."""

    def recall(self, lives: Sequence[Life]) -> None:
        """Look for the ends of these lives at the first connection."""
        ...

    async def follow(self, socket: Path, connected: Callable[[], None]) -> None:
        """Follow until the connection is lost, which is a `RuntimeUnreachable`."""
        ...


MakeFollower = Callable[[str, Places, Callable[[Sequence[Observation]], None]], Follower]


class GrpcRuntime(RuntimeSource):
    """A runtime that is followed over gRPC."""

    def __init__(self, name: str, socket: Path, sockets: SocketDirectories, places: Places) -> None:
        super().__init__(name, socket, sockets, places)
        self._follower: Follower | None = None
        self._recalled: Sequence[Life] = ()

    @staticmethod
    @abstractmethod
    def load() -> MakeFollower:
        """Import what follows this runtime."""

    def recall(self, lives: Sequence[Life], since: int | None) -> None:
        """Have the lives' ends looked for at the first connection."""
        self._recalled = lives

    async def _follow(self) -> None:
        if self._follower is None:
            make = await asyncio.to_thread(self.load)
            self._follower = make(self.name, self._places, self._tell)
            self._follower.recall(self._recalled)
            self._recalled = ()
        await self._follower.follow(self.socket, self._connected)


class Containerd(GrpcRuntime):
    """containerd, by its own API: containers of all its namespaces."""

    @staticmethod
    def load() -> MakeFollower:
        """Import what follows containerd."""
        from oomwatch.sources.runtimes.containerd_api import ContainerdFollower

        return ContainerdFollower


class Cri(GrpcRuntime):
    """CRI-O, or another that serves the Container Runtime Interface: pods and their containers."""

    @staticmethod
    def load() -> MakeFollower:
        """Import what follows it."""
        from oomwatch.sources.runtimes.cri_api import CriFollower

        return CriFollower
