"""Where a gVisor sandbox is, is said at last, whatever comes of the search."""

from __future__ import annotations

from typing import Any

import pytest

from oomwatch.observations import FindSandbox, Observation, SandboxSeen
from oomwatch.sources import sandboxes
from oomwatch.sources.sandboxes import Sandboxes


@pytest.mark.parametrize("broken", [False, True])
async def test_a_search_that_finds_nothing_or_fails_is_over_all_the_same(
    broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exit waits for it, and says meanwhile that it is due."""

    def look(*_: Any) -> SandboxSeen:
        raise OSError("no /proc")

    if broken:
        monkeypatch.setattr(sandboxes, "look", look)
    said: list[Observation] = []
    witness = Sandboxes(None)
    witness.start(said.extend)
    assert witness.answer(FindSandbox("a" * 64, 7, "runsc", None))
    await witness.settled()
    assert [seen.sought for seen in said if isinstance(seen, SandboxSeen)] == [True, False]
