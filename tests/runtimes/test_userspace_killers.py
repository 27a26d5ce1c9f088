"""Who a userspace OOM killer ended is no OOM, and `serve --killer-log` names the killer.

The killers, journald and the daemon are the real ones: what they write is what must be read.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import Confidence, Container, ContainerExit, Verdict
from tests.kernel import workload
from tests.runtimes import killers
from tests.runtimes.by_hand import HandHost
from tests.runtimes.containers import Spec
from tests.runtimes.processes import DaemonProcess, answers
from tests.runtimes.workloads import hold, script, tried

NAMED = "a userspace OOM killer ended it"
LEFT = 1 << 30
"""Of the node's memory. nohang cannot be told to keep more than half of all free."""


Started = AbstractContextManager[None]


@pytest.fixture
def killer(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, str, Callable[[], Started]]:
    """A killer's name, which log of it to follow, and what starts it."""
    match request.param:
        case "nohang, a file":
            log = tmp_path / "nohang.log"
            log.touch()
            return "nohang", str(log), partial(killers.nohang, log, tmp_path)
        case "nohang, its own log":
            log = killers.NOHANG_OWN_LOG
            log.parent.mkdir(exist_ok=True)
            log.touch()
            start: Callable[[], Started] = partial(killers.nohang_with_a_log_of_its_own, tmp_path)
            return "nohang", str(log), start
        case "nohang, the journal":
            request.getfixturevalue("journald")
            return "nohang", "journal", partial(killers.nohang_in_the_journal, tmp_path)
        case _:
            request.getfixturevalue("journald")
            return "earlyoom", "journal", killers.earlyoom_in_the_journal


@pytest.mark.parametrize(
    "killer",
    tried(
        "nohang, its own log",
        also=("nohang, a file", "nohang, the journal", "earlyoom, the journal"),
    ),
    indirect=True,
)
async def test_its_kill_is_no_oom_and_is_named(
    killer: tuple[str, str, Callable[[], Started]], hand_host: HandHost, tmp_path: Path
) -> None:
    name, log, start = killer
    gate = tmp_path / "gate"
    gate.mkdir()
    serve = DaemonProcess(
        (
            *(sys.executable, "-m", "oomwatch.cli.main", "serve"),
            *("--socket", tmp_path / "socket", "--killer-log", log),
        ),
        tmp_path / "serve.log",
        lambda: answers(tmp_path / "socket"),
    )
    await asyncio.to_thread(serve.start)
    text = f"until [ -e /gate/go ]; do sleep 0.5; done; exec {hold('400M')}"
    spec = Spec(command=script(text), memory=None, gate=gate)
    container = await asyncio.to_thread(hand_host.run, spec)
    try:
        async with AsyncClient(tmp_path / "socket") as client:
            pid = await asyncio.to_thread(container.pid)
            await client.watch_container(Container(id=container.id, handler="runc"), pid=pid)
            first_to_go = Path(f"/proc/{pid}/oom_score_adj")
            await asyncio.to_thread(first_to_go.write_text, "900")
            with workload.little_memory(LEFT), start():
                (gate / "go").touch()
                ended = await asyncio.to_thread(container.wait)
                exit_ = await _named(client, container.id, ended.exit_code)
        # SIGTERM or SIGKILL: the first of its lines is enough.
        says = re.compile(f"{name} killed here: its log says that it sent SIG.* to process {pid}")
        assert any(map(says.fullmatch, exit_.reasons)), exit_
        assert exit_.exit_code == 137
        assert exit_.oom_kills == 0
        assert (exit_.verdict, exit_.confidence) == (Verdict.NOT_OOM, Confidence.CONFIRMED)
    finally:
        await asyncio.to_thread(container.remove)
        serve.stop()


async def _named(client: AsyncClient, container_id: str, code: int) -> ContainerExit:
    """Ask for the verdict until it names a userspace killer: its line may be later than the end."""
    end = time.monotonic() + 30
    while True:
        exit_ = (await client.finalize(container_id, exit_code=code)).event
        assert isinstance(exit_, ContainerExit)
        if exit_.reasons[0].startswith(NAMED) or time.monotonic() > end:
            return exit_
        await asyncio.sleep(0.2)
