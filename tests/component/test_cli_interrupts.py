"""Ctrl-C while a command is still loaded, and while one reads: it ends, and nobody sees Python."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from oomwatch.cli.main import cli

COMMANDS = cli.list_commands(click.Context(cli))
ENTRIES = {
    "module": (sys.executable, "-m", "oomwatch"),
    "script": (str(Path(sys.executable).with_name("oomwatch")),),
}
BOUND = 60.0

PRESSED_AS_IT_IS_IMPORTED = """
import os, signal, sys

class CtrlC:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["PRESSED_AT"]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, CtrlC)
"""


@pytest.fixture
def pressed_at(tmp_path: Path) -> dict[str, str]:
    """An environment in which Ctrl-C comes as the module that PRESSED_AT names is imported."""
    (tmp_path / "sitecustomize.py").write_text(PRESSED_AS_IT_IS_IMPORTED)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


AT_A_TERMINAL = ("env", "--default-signal=INT")
"""Whoever runs these tests in the background has the signal ignored. By a command, for a function
of Python's before it would need a fork, whose child gRPC ends where it is at work in this process.
"""


def interrupted(environment: dict[str, str], module: str, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [*AT_A_TERMINAL, *words],
        env={**environment, "PRESSED_AT": module},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["oomwatch.cli.main", "click", "oomwatch.errors"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_ctrl_c_before_there_is_a_command_ends_it_quietly(
    entry: str, module: str, pressed_at: dict[str, str]
) -> None:
    assert interrupted(pressed_at, module, *ENTRIES[entry], "--version") == (-signal.SIGINT, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_as_a_command_is_loaded_ends_it_quietly(
    command: str, pressed_at: dict[str, str]
) -> None:
    module = f"oomwatch.cli.{command}"
    code, said = interrupted(pressed_at, module, *ENTRIES["module"], command, "--help")
    assert (code, said) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["asyncio", "grpc"])
@pytest.mark.parametrize("words", ["tail", "list", "doctor", "show 1", "verdict --container a"])
def test_ctrl_c_as_a_command_loads_what_is_heavy_ends_it_quietly(
    words: str, module: str, pressed_at: dict[str, str]
) -> None:
    to_nobody = ("--address", "127.0.0.1:1", "--insecure")
    code, said = interrupted(pressed_at, module, *ENTRIES["module"], *words.split(), *to_nobody)
    assert said == ""
    assert code in (-signal.SIGINT, 130)


def test_what_was_started_to_be_spared_of_ctrl_c_is_spared(pressed_at: dict[str, str]) -> None:
    """As a shell starts what it puts in the background: with the signal ignored."""
    shell = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    code, said = interrupted(pressed_at, "click", *shell, *ENTRIES["module"], "--version")
    assert (code, said) == (0, "")


def test_ctrl_c_takes_the_bar_of_a_long_reading_away_with_it() -> None:
    controller, terminal = os.openpty()
    scan = subprocess.Popen(
        [*AT_A_TERMINAL, *ENTRIES["module"], "scan", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    assert scan.stdin is not None
    shown = b""
    try:
        while b" 0 kills" not in shown:
            scan.stdin.write(b"nothing here\n" * 100_000)
            scan.stdin.flush()
            if select.select([controller], [], [], 0)[0]:
                shown += os.read(controller, 4096)
        scan.send_signal(signal.SIGINT)
        scan.stdin.close()  # who writes the log gets it too
        assert scan.wait(BOUND) == 130
        with contextlib.suppress(OSError):  # EIO: nobody else has the terminal open any more
            while more := os.read(controller, 4096):
                shown += more
    finally:
        scan.kill()
        scan.wait()
        os.close(controller)
    *_, last, end = shown.split(b"\r")
    # click ends the line, as the terminal has shown ^C in it.
    assert (last.strip(b" "), end.strip()) == (b"", b"")
