"""What a sandbox wrote of its end: real lines of runsc's, and what others make it write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.containers.gvisor_log import SandboxLog, SandboxWords, logs_of, read

STUB = (
    b"W1126 10:50:06.692885   31031 subprocess.go:351] "
    b"The ptrace stub process 31076 has been killed by SIGKILL.\n"
)
DEBUG = b"D1126 10:50:04.016255   31031 sampler.go:191] Time: Adjusting syscall overhead down\n"
PANIC = b"fatal error: runtime: out of memory\n\ngoroutine 1 [running]:\n"


def written(path: Path, text: bytes, *, before: bytes = b"") -> SandboxLog:
    path.write_bytes(before)
    begin = len(before)
    path.write_bytes(before + text)
    return SandboxLog(str(path), path.stat().st_ino, begin)


def test_the_stub_that_was_killed_is_named(tmp_path: Path) -> None:
    words = read([written(tmp_path / "boot", DEBUG * 3 + STUB)])
    line = "The ptrace stub process 31076 has been killed by SIGKILL."
    assert words == SandboxWords((31076,), (line,))


def test_a_panic_says_whether_memory_was_wanting(tmp_path: Path) -> None:
    assert read([written(tmp_path / "panic", PANIC)]).out_of_memory
    other = read([written(tmp_path / "panic", b"panic: a bug\n")])
    assert (other.lines, other.out_of_memory) == (("panic: a bug",), False)


def test_what_was_there_before_is_another_sandboxs(tmp_path: Path) -> None:
    log = written(tmp_path / "panic", b"", before=PANIC + STUB)
    assert read([log]) == SandboxWords()


def test_the_end_of_a_long_log_is_read_and_no_more_than_that(tmp_path: Path) -> None:
    log = written(tmp_path / "boot", DEBUG * 50_000 + STUB)
    assert read([log]).stubs == (31076,)
    assert read([written(tmp_path / "boot", DEBUG * 5000 + STUB + DEBUG * 5000)]).stubs == ()


@pytest.mark.parametrize(
    "line",
    [
        b"D1126 10:50:06.692885 31031 strace.go:1] write(" + STUB.rstrip() + b")\n",
        STUB.rstrip() + b" said the application\n",
        STUB.replace(b"subprocess.go", b"strace.go"),
    ],
)
def test_the_applications_own_words_are_not_the_sandboxs(tmp_path: Path, line: bytes) -> None:
    assert read([written(tmp_path / "boot", line)]) == SandboxWords()


def test_what_took_the_logs_place_is_not_read(tmp_path: Path) -> None:
    log = written(tmp_path / "boot", STUB)
    aside = tmp_path / "aside"
    (tmp_path / "boot").rename(aside)
    assert read([log]) == SandboxWords()
    (tmp_path / "boot").symlink_to(aside)
    assert read([log]) == SandboxWords()
    (tmp_path / "boot").unlink()
    os.mkfifo(tmp_path / "boot")
    assert read([log]) == SandboxWords()


def test_logs_are_found_by_the_descriptors_that_the_command_line_names(tmp_path: Path) -> None:
    path = tmp_path / "boot"
    path.write_bytes(DEBUG)
    with path.open("ab") as log:
        words = ("runsc-sandbox", f"--debug-log-fd={log.fileno()}", "--log-fd=99999", "boot")
        assert logs_of(os.getpid(), words) == (
            SandboxLog(str(path), path.stat().st_ino, len(DEBUG)),
        )
    reading, writing = os.pipe()
    assert logs_of(os.getpid(), (f"--panic-log-fd={writing}",)) == ()
    os.close(reading)
    os.close(writing)


@given(st.binary(max_size=500))
def test_anything_can_be_read(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    log = written(tmp_path_factory.mktemp("logs") / "boot", text)
    assert all(line.isprintable() for line in read([log]).lines)
