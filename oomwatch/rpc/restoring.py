"""Listens anew where a socket is gone from its path: removed, renamed, replaced, or its directory.

Who is connected stays so; nobody new could connect. So the daemon is not as it promised to be until
clients find it again, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc.aio

from oomwatch.errors import AddressError
from oomwatch.rpc.doors import Door
from oomwatch.rpc.listening import UnixListener
from oomwatch.rpc.presence import Presence

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
"""How long who takes the socket away is given to be done with it."""

RETRY_SECONDS = 1.0
"""How soon it is tried again; a directory that can be made again is notified by nothing."""


class Restoring:
    """Follows the sockets of some doors, and opens those anew that are gone, until `close`.

    `unreachable` is told the address and a sentence where nobody can connect, and the address and
    `None` once they can again.
    """

    def __init__(
        self,
        doors: Sequence[Door],
        make_server: Callable[[Door], grpc.aio.Server],
        unreachable: Callable[[str, str | None], None],
    ) -> None:
        self._doors = [door for door in doors if isinstance(door.listener, UnixListener)]
        self._make_server = make_server
        self._unreachable = unreachable
        self._tasks: dict[Door, asyncio.Task[None]] = {}
        self._presence: Presence | None = Presence(self.look) if self._doors else None
        for door in self._doors:
            self._follow(door)

    def look(self) -> None:
        """See whether each socket is at its path; one that is not is told of and made anew."""
        if self._presence is None:
            return
        for door in self._doors:
            if door not in self._tasks and not door.listener.present:
                self._say_lost(door)
                loop = asyncio.get_running_loop()
                self._tasks[door] = loop.create_task(self._restore(door))

    async def close(self) -> None:
        """Follow no more, and try no more."""
        if self._presence is not None:
            self._presence.close()
            self._presence = None
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, door: Door) -> None:
        assert isinstance(door.listener, UnixListener)
        if self._presence is not None:
            self._presence.follow(door.listener.path)

    def _say_lost(self, door: Door) -> None:
        self._say(door, "it is listened there anew")

    def _say(self, door: Door, what: str) -> None:
        address = str(door.listener.address)
        sentence = (
            f"nobody can connect at {address}: the socket was removed or replaced; {what}. Who is "
            "connected stays so, and every kill is told"
        )
        _log.error("%s", sentence)
        self._unreachable(address, sentence)

    async def _restore(self, door: Door) -> None:
        said = ""
        # Whoever removes the directory first removes what is in it: it must be empty for that.
        await asyncio.sleep(SETTLE_SECONDS)
        while not door.listener.present:
            why = await self._opened(door)
            if why is None:
                self._follow(door)
                continue  # it may have gone once more before it was followed
            if why != said:
                said = why
                self._say(door, f"{why}; put it back, or start oomwatch again")
            await asyncio.sleep(RETRY_SECONDS)
        _log.warning("clients can connect at %s again", door.listener.address)
        self._unreachable(str(door.listener.address), None)
        del self._tasks[door]

    async def _opened(self, door: Door) -> str | None:
        """Try once; why it could not be."""
        assert isinstance(door.listener, UnixListener)
        try:
            # Before a server is made: gRPC does not give back all that one costs, 3 KiB each.
            door.listener.prepare()
            await door.open_again(self._make_server(door))
        except AddressError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it is logged, and told
            _log.exception("a fault of oomwatch's own; please report it")
            return f"a fault of oomwatch's own ({type(error).__name__}: {error})"
        return None
