"""Runs the daemon: a watcher, with the gRPC server and the metrics in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from oomwatch.config import Config
from oomwatch.daemon import Watcher
from oomwatch.own_process import protect

if TYPE_CHECKING:
    from oomwatch.metrics_server import MetricsServer
    from oomwatch.rpc.server import RpcServer


async def serve(
    config: Config,
    make_server: Callable[[Watcher], RpcServer],
    ready: Callable[[], None] = lambda: None,
    make_metrics: Callable[[Watcher], MetricsServer] | None = None,
) -> None:
    """Run the daemon until this task is cancelled, then end every stream and commit.

    `make_server` builds the gRPC server in front of the watcher, `make_metrics` what counts all
    that it tells; `ready` is called once they watch and answer.
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
        watcher.on_health = server.set_serving
        await server.start()
        # What is here by now stays for good. Frozen, no collection of cycles walks it again: with
        # 100,000 cgroups that would hold up a kill for 35 ms.
        gc.collect()
        gc.freeze()
        try:
            ready()
            assert watcher.broken is not None
            await watcher.broken
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await server.stop()
    finally:
        if metrics is not None:
            await metrics.stop()
        await watcher.stop()
