"""Which runtime is asked where, and what a runtime's pid is taken for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.process import is_in_a_nested_pid_namespace
from oomwatch.containers.places import Place, Places
from oomwatch.errors import AddressError
from oomwatch.sources.runtimes import RuntimeSocket
from oomwatch.sources.runtimes.sockets import speaks_of_foreign_pids

A = "ee129607aff3d1cf1f1f4fdcbb5c38b4fb3a3b0f2bb6b6d3c56a07d9c1b0f0aa"
B = "0ba8ac17e4e7a31fb82279503552fe94e64bab4745bf6fd2ff231e7c8ca8bed0"


def test_a_runtime_is_named_with_its_socket() -> None:
    assert RuntimeSocket.parse("docker=/run/d=1.sock") == RuntimeSocket(
        "docker", Path("/run/d=1.sock")
    )


@pytest.mark.parametrize("text", ["docker", "docker=", "docker=run/docker.sock", "rkt=/x", "=/x"])
def test_what_is_no_runtimes_socket_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="runtime"):
        RuntimeSocket.parse(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one process, in the initial PID namespace."""
    for pid in ("self", "7"):
        (tmp_path / "proc" / pid / "ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    return tmp_path / "proc"


@pytest.mark.parametrize(
    ("path", "cgroup"),
    [
        (f"/docker/{A}", f"/docker/{A}"),
        (f"/docker/{A}/init.scope", f"/docker/{A}"),
        (f"/docker/{A}/docker/{B}", f"/docker/{A}"),
        (f"/machine.slice/libpod-{A}.scope/container", f"/machine.slice/libpod-{A}.scope"),
        ("/batch/low", "/batch/low"),
        (f"/docker/{B}", None),
        ("/init.scope", None),
        ("/", None),
    ],
    ids=["own", "leaf", "nested", "crun", "unknown layout", "another's", "a unit", "root"],
)
def test_a_pid_is_held_against_the_path_that_it_lives_in(
    tmp_path: Path, proc: Path, path: str, cgroup: str | None
) -> None:
    root = tmp_path / "cgroup"
    (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (proc / "7/cgroup").write_text(f"0::{path}\n")
    tree = Hierarchy(os.fspath(root), "", True, False, False)
    place = Places(tree, os.fspath(proc)).locate(A, 7)
    assert place.cgroup == cgroup
    if cgroup is None:
        assert place == Place()
    else:
        assert place.cgroup_id == (root / cgroup.lstrip("/")).stat().st_ino
        assert place.pid == 7


def test_what_is_gone_or_cannot_be_seen_has_no_place(tmp_path: Path, proc: Path) -> None:
    tree = Hierarchy(os.fspath(tmp_path), "", True, False, False)
    places = Places(tree, os.fspath(proc))
    assert places.locate(A, None) == Place()
    assert places.locate(A, 8) == Place()
    (proc / "7/cgroup").write_text(f"0::/docker/{A}\n")
    assert places.locate(A, 7) == Place(7)  # its cgroup is gone already
    # In another PID namespace the pid is somebody else's here.
    (tmp_path / "docker" / A).mkdir(parents=True)
    assert places.locate(A, 7).cgroup == f"/docker/{A}"
    (proc / "self/ns/pid").unlink()
    assert Places(tree, os.fspath(proc)).locate(A, 7) == Place(7)


def test_a_pid_of_another_namespaces_names_somebody_else_here(tmp_path: Path, proc: Path) -> None:
    tree = Hierarchy(os.fspath(tmp_path), "", True, False, False)
    (proc / "7/cgroup").write_text("0::/batch\n")
    (tmp_path / "batch").mkdir()
    places = Places(tree, os.fspath(proc))
    nested = places.of_one_runtime()
    nested.foreign = True
    assert nested.locate(A, 7) == Place()
    assert places.of_one_runtime().locate(A, 7).cgroup == "/batch", "others' are as they were"


@pytest.mark.parametrize(("line", "nested"), [("NSpid:\t7\n", False), ("NSpid:\t7\t1\n", True)])
def test_who_has_a_pid_in_a_nested_namespace_too_lives_there(
    proc: Path, line: str, nested: bool
) -> None:
    (proc / "7/status").write_text(f"Name:\tdockerd\n{line}NSpgid:\t7\n")
    assert is_in_a_nested_pid_namespace(7, os.fspath(proc)) is nested
    assert not is_in_a_nested_pid_namespace(8, os.fspath(proc)), "it is gone"


_LISTENS = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("nested", [False, True])
def test_a_runtime_in_a_pid_namespace_of_its_own_speaks_of_foreign_pids(
    tmp_path: Path, nested: bool
) -> None:
    path = tmp_path / "runtime.sock"
    command = [sys.executable, "-I", "-S", "-c", _LISTENS, os.fspath(path)]
    if nested:
        command = ["unshare", "--pid", "--fork", "--kill-child", *command]
        if subprocess.run([*command[:2], "--fork", "true"], capture_output=True).returncode:
            pytest.skip("this user may make no PID namespace")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        assert speaks_of_foreign_pids(path) is nested
        listening.communicate()
    assert not speaks_of_foreign_pids(path), "nobody listens any more"
