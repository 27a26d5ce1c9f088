"""A machine of scripts/vm that says nothing more: any process stands for it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts._vm import signs_of_life
from scripts._vm.signs_of_life import StoodStill, TookTooLong, wait

BOUND = 30.0
SIGNS = 30


@pytest.fixture
def machine() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_one_that_gives_no_sign_any_more_is_broken(
    machine: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs_of_life, "STILL_SECONDS", 3.0)
    alive, signs = tmp_path / "alive", []

    def give_signs() -> None:
        for _ in range(SIGNS):
            alive.touch()
            signs.append(time.monotonic())
            time.sleep(0.2)

    giver = threading.Thread(target=give_signs)
    giver.start()
    with pytest.raises(StoodStill):
        wait(machine, alive, until=time.monotonic() + BOUND)
    given = len(signs)
    giver.join()
    assert given == SIGNS, "it was waited for while it gave them"


def test_one_whose_command_takes_too_long_is_not(
    machine: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with pytest.raises(TookTooLong):
        wait(machine, tmp_path / "alive", until=time.monotonic())


def test_one_that_ends_by_itself_is_let(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as machine:
        wait(machine, tmp_path / "alive", until=time.monotonic() + BOUND)
