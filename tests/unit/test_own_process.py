"""What is asked of the kernel for the daemon itself, and what is said where it is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from oomwatch import own_process

STATUS = "Name:\toomwatch\nCapEff:\t{:016x}\nThreads:\t1\n"


def test_a_capability_is_read_from_the_effective_set(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS.format(1 << 14))
    assert own_process.has_capability(14, status)
    assert not own_process.has_capability(13, status)
    assert not own_process.has_capability(14, tmp_path / "none")


def test_what_is_refused_is_said_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(own_process, "_lower_oom_score", lambda: None)
    monkeypatch.setattr(own_process, "_may_lock", lambda: False)
    with caplog.at_level(logging.INFO):
        own_process.protect()
    assert "LimitMEMLOCK=infinity" in caplog.text


def test_a_lower_score_of_its_own_is_left_as_it_is(tmp_path: Path) -> None:
    score = tmp_path / "oom_score_adj"
    for before, after in (("0", "-900"), ("-1000", "-1000")):
        score.write_text(before + "\n")
        assert own_process._lower_oom_score(score) is None
        assert score.read_text().strip() == after
    refused = own_process._lower_oom_score(tmp_path / "no" / "file")
    assert refused is not None
    assert "stays as it is (No such file or directory): CAP_SYS_RESOURCE, or OOMSc" in refused


def test_a_protected_process_still_runs_and_makes_threads() -> None:
    """Locking what is mapped later must not make later allocations fail."""
    program = (
        "import threading; from oomwatch.own_process import protect; protect(); "
        "held = bytearray(32 << 20); "
        "threads = [threading.Thread(target=held.count, args=(1,)) for _ in range(8)]; "
        "[t.start() for t in threads]; [t.join() for t in threads]; print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
