"""Which daemon a command asks, and what is said where none can be asked."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from oomwatch.cli import reach
from oomwatch.cli.main import run
from tests.unprivileged import let_in

ASKING = (["show", "1"], ["tail", "--no-follow"], ["tail", "--after", "1"])
TELLING = (["verdict", "--container", "a", "--exit-code", "1"],)


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual socket, elsewhere."""
    path = tmp_path / "oomwatch.sock"
    monkeypatch.setattr(reach, "DEFAULT_SOCKET", str(path))
    return path


@pytest.mark.parametrize("words", [*ASKING, *TELLING], ids=" ".join)
def test_where_none_answers_it_is_said_how_to_start_one(
    words: list[str], usual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"oomwatch: no daemon answers at {usual}: start one with 'oomwatch ser")
    assert " out" in said or "--state-dir" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
@pytest.mark.parametrize("words", [*ASKING, *TELLING], ids=" ".join)
def test_who_may_not_connect_is_not_told_to_start_another(
    words: list[str], usual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(words)  # what it imports can be read by root alone
    capsys.readouterr()
    let_in(usual.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(usual))
        server.listen()
        usual.chmod(0o660)
        os.chown(usual, 12345, 12345)
        os.seteuid(65534)
        try:
            assert run(words) == 3
        finally:
            os.seteuid(0)
    said = capsys.readouterr().err
    assert f"{usual} may not be connected to (permission denied; be root, or a member of" in said
    assert "serve" not in said
