"""Runs the daemon: a watcher, with the gRPC server and the metrics in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.errors import AddressError
from oomwatch.own_process import protect

if TYPE_CHECKING:
    from oomwatch.metrics_server import MetricsServer
    from oomwatch.rpc.server import RpcServer

_log = logging.getLogger(__name__)

UNREACHABLE_SECONDS = 30.0
"""How long nobody can connect before a daemon with a service manager ends, to be started again."""


async def serve(
    config: Config,
    make_server: Callable[[Watcher], RpcServer],
    ready: Callable[[], None] = lambda: None,
    make_metrics: Callable[[Watcher], MetricsServer] | None = None,
    *,
    managed: bool = False,
) -> None:
    """Run the daemon until this task is cancelled, then end every stream and commit.

    `make_server` builds the gRPC server in front of the watcher, `make_metrics` what counts all
    that it tells; `ready` is called once they watch and answer. `managed` says that somebody starts
    it again where it ends: then it does, with AddressError, where its socket cannot be had again.
    """
    protect()
    watcher = Watcher(config)
    metrics: MetricsServer | None = None
    try:
        if make_metrics is not None:
            metrics = make_metrics(watcher)
        await watcher.start()
        if metrics is not None:
            await metrics.start()
        server = make_server(watcher)
        reach = Reach(watcher, managed=managed)
        watcher.on_health = server.set_serving
        server.unreachable = reach.unreachable
        await server.start()
        # What is here by now stays for good. Frozen, no collection of cycles walks it again: with
        # 100,000 cgroups that would hold up a kill for 35 ms.
        gc.collect()
        gc.freeze()
        try:
            await _say_what_is_seen(watcher)
            ready()
            assert watcher.broken is not None
            ends = (watcher.broken, reach.given_up)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            reach.close()
            with contextlib.suppress(asyncio.CancelledError):
                await server.stop()
    finally:
        if metrics is not None:
            await metrics.stop()
        await watcher.stop()


async def _say_what_is_seen(watcher: Watcher) -> None:
    """Log each witness and how it is doing: who misses a kill here reads what could be seen."""
    status = await watcher.status()
    for source in status.sources:
        state = "degraded: " if source.degraded else "" if source.active else "not active: "
        _log.info("%s: %s%s", source.name, state, source.detail)
    _log.info("%s", status.journal.detail)


class Reach:
    """Whether clients can connect; a daemon that nobody reaches may be given up.

    Its supervisor makes it a new runtime directory, the journal has all that was told, and who was
    subscribed goes on from its cursor. Without one to start it again it lives on: what it sees is
    written down.
    """

    def __init__(self, watcher: Watcher, *, managed: bool) -> None:
        self.given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with AddressError."""
        self._watcher = watcher
        self._managed = managed
        self._sentences: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def unreachable(self, address: str, sentence: str | None) -> None:
        """Note why nobody can connect at an address; `None` once they can again."""
        self._watcher.unreachable(address, sentence)
        if sentence is not None:
            self._sentences[address] = sentence
        else:
            self._sentences.pop(address, None)
        if not self._sentences:
            self.close()
        elif self._managed and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(UNREACHABLE_SECONDS, self._give_up)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        sentence = next(iter(self._sentences.values()))
        if not self.given_up.done():
            self.given_up.set_exception(
                AddressError(
                    f"{sentence}. After {UNREACHABLE_SECONDS:g} s of that oomwatch ends, for its "
                    "service manager to start it with a new directory: no kill is lost by that"
                )
            )
