"""The Docker witness, and Podman's: the SDK blocks, so it follows in a thread of its own.

The thread hands each batch to the loop and waits until it is taken: a runtime that floods waits for
the loop, not the other way round. It is a daemon thread, for one that hangs in the runtime's answer
must not hold up our end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as socket_module
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.errors import RuntimeUnreachable
from oomwatch.observations import Observation
from oomwatch.sources.runtimes.docker_api import ANSWER_SECONDS, DockerApi
from oomwatch.sources.runtimes.docker_follower import DockerFollower
from oomwatch.sources.runtimes.sockets import SocketDirectories
from oomwatch.sources.runtimes.source import RuntimeSource

_END_SECONDS = 1.0


class Docker(RuntimeSource):
    """Docker, or another runtime that speaks its API, at one socket."""

    def __init__(self, name: str, socket: Path, sockets: SocketDirectories, places: Places) -> None:
        super().__init__(name, socket, sockets, places)
        self._thread: _Thread | None = None
        self._follower = DockerFollower(name, self._places, self._hand_over)

    def recall(self, lives: Sequence[Life], since: int | None) -> None:
        """Have the lives' ends looked for at the first connection."""
        self._follower.recall(lives, since)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        if self._thread is not None and self._thread.is_alive():
            # The one before still hangs in an answer: two would mix what they know.
            raise RuntimeUnreachable("it does not answer")
        self._thread = _Thread(self.socket, self._follower, loop, self._connected, self.name)
        try:
            await self._thread.follow()
        finally:
            await self._thread.end()

    def _hand_over(self, observations: Sequence[Observation]) -> None:
        """Called in the thread."""
        assert self._thread is not None
        self._thread.on_loop(lambda: self._tell(observations))


class _Thread(threading.Thread):
    """One connection, from its opening to its end."""

    def __init__(
        self,
        socket: Path,
        follower: DockerFollower,
        loop: asyncio.AbstractEventLoop,
        connected: Callable[[], None],
        name: str,
    ) -> None:
        super().__init__(name=f"oomwatch-{name}", daemon=True)
        self._socket = socket
        self._follower = follower
        self._loop = loop
        self._connected = connected
        self._over: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._api: DockerApi | None = None
        self._ending = threading.Event()

    async def follow(self) -> None:
        """Start, and wait until the connection is lost: a `RuntimeUnreachable`."""
        self.start()
        await asyncio.shield(self._over)

    async def end(self) -> None:
        """Close the connection and see the thread off, unless it hangs in an answer."""
        self._ending.set()
        if self._api is not None:
            self._api.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await asyncio.shield(self._gone)

    def run(self) -> None:
        """Follow; whatever goes wrong goes to whoever waits in `follow`."""
        failure: Exception | None = None
        try:
            _probe(self._socket)
            self._api = DockerApi(self._socket)
            if not self._ending.is_set():
                self._follower.follow(self._api, lambda: self.on_loop(self._connected))
        except Exception as error:  # noqa: BLE001 - it is raised again, on the loop
            failure = error
        finally:
            if self._api is not None:
                self._api.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed already: nobody waits
            self._loop.call_soon_threadsafe(self._finish, failure)

    def _finish(self, failure: Exception | None) -> None:
        self._gone.set_result(None)
        if failure is not None and not self._ending.is_set():
            self._over.set_exception(failure)
        else:
            self._over.set_result(None)

    def on_loop(self, call: Callable[[], None]) -> None:
        """Called in the thread: run this on the loop, and wait until it has been run."""
        done = threading.Event()

        def run() -> None:
            try:
                if not self._ending.is_set():
                    call()
            finally:
                done.set()

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:
            raise RuntimeUnreachable("the loop is closed") from None
        while not done.wait(1.0):
            if self._ending.is_set():
                raise RuntimeUnreachable("the connection was closed")


def _probe(path: Path) -> None:
    """See whether anybody listens: a socket that was left behind is not worth importing the SDK."""
    with socket_module.socket(socket_module.AF_UNIX, socket_module.SOCK_STREAM) as caller:
        caller.settimeout(ANSWER_SECONDS)
        try:
            caller.connect(os.fspath(path))
        except OSError as error:
            raise RuntimeUnreachable(error.strerror or str(error)) from error
