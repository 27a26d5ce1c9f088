"""Inside a gVisor sandbox no kill can be seen: the commands say so, and why, and watch nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.runtimes.by_hand import HandHost
from tests.runtimes.containers import Spec

COMMANDS = ("doctor", "tail", "serve --socket /tmp/oomwatch.sock")
# In one process: to start Python takes long where each system call is traced, under emulation. A
# sandbox writes its stdout and its stderr each from where it was in the file: so there is but one.
PROGRAM = f"""
import os
os.dup2(1, 2)
from oomwatch.cli.main import run
for words in {COMMANDS}:
    print("=", words, flush=True)
    print("status", run(words.split()), flush=True)
"""


@pytest.fixture
def guest(data: Path) -> HandHost:
    """Containers whose root is the machine's own, with its Python and our code in it."""
    return HandHost(data, Path("/"))


def test_the_commands_refuse_to_watch_from_inside(guest: HandHost) -> None:
    command = (sys.executable, "-c", PROGRAM)
    spec = Spec(command=command, handler="runsc", name="inside", memory=None)
    sandbox = guest.run(spec)
    try:
        sandbox.wait()
        output = sandbox.output()
    finally:
        sandbox.remove()
    assert output.count("status ") == len(COMMANDS), output
    _, doctor, tail, serve = output.split("= ")
    why = "this is the inside of a gVisor sandbox (/proc/version is the one that gVisor writes)"
    assert "failed    gVisor" in doctor, doctor
    assert why in doctor, doctor
    assert "Kills cannot be seen on this host." in doctor, doctor
    assert "status 1\n" in doctor, doctor
    for refused in (tail, serve):
        assert f"{why}: no kill can be seen from here; run oomwatch on its host" in refused, refused
        assert "status 0" not in refused, refused
