"""Runs a coroutine until it ends or a signal asks it to; a second Ctrl-C does not ask."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType

_GRACEFUL = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(work: Coroutine[object, object, int | None]) -> int:
    """Run `work` on a loop of its own and return its exit code, 0 if it has none.

    SIGINT and SIGTERM cancel it, so that everything it holds is given back; the answer is then 128
    plus the signal's number, as a shell would say it. From the first signal on the default actions
    stand again, so a second one ends the process at once, even if the loop is stuck. On return the
    handlers are those that were there before.
    """
    caught: list[int] = []

    async def body() -> int | None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def ask_to_end(number: int, _frame: FrameType | None) -> None:
            caught.append(number)
            for each in _GRACEFUL:
                signal.signal(each, signal.SIG_DFL)
            # A handler runs between two bytecodes of this same thread; the loop may be asleep in
            # epoll_wait, which Python resumes: only the loop's own wake-up pipe ends that.
            loop.call_soon_threadsafe(task.cancel)

        before = {each: signal.signal(each, ask_to_end) for each in _GRACEFUL}
        try:
            return await task
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    try:
        outcome = asyncio.run(body())
    except asyncio.CancelledError:
        if not caught:
            raise
        outcome = None
    return 128 + caught[0] if caught else outcome or 0
