"""gVisor on the host: its handlers in the configurations, its processes among the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oomwatch.containers.gvisor import Command, Handlers, SandboxProcesses, find, inside_sandbox

ID = "ee12" * 16
NOWHERE = Path("/nonexistent")


def handlers(tmp_path: Path, docker: object = None, containerd: str = "") -> Handlers:
    (tmp_path / "daemon.json").write_text(json.dumps(docker))
    (tmp_path / "config.toml").write_text(containerd)
    return Handlers(tmp_path / "daemon.json", tmp_path / "config.toml")


@pytest.mark.parametrize("name", ["runsc", "/usr/bin/runsc", "io.containerd.runsc.v1", "runsc-kvm"])
def test_runsc_by_its_own_names(name: str) -> None:
    assert name in Handlers(NOWHERE, NOWHERE)


@pytest.mark.parametrize("name", ["runc", "crun", "kata", "", "/usr/bin/runc", "notrunsc"])
def test_others_are_not(name: str) -> None:
    assert name not in Handlers(NOWHERE, NOWHERE)


def test_names_that_docker_maps_to_it(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\nexec runsc --platform=ptrace "$@"\n')
    found = handlers(
        tmp_path,
        {
            "runtimes": {
                "secure": {"path": "/usr/local/bin/runsc"},
                "wrapped": {"path": str(wrapper)},
                "shim": {"runtimeType": "io.containerd.runsc.v1"},
                "fast": {"path": "/usr/bin/crun"},
                "odd": 4,
            }
        },
    )
    assert found.mapped == {"secure", "wrapped", "shim"}


@pytest.mark.parametrize("plugin", ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"])
def test_names_that_containerd_maps_to_it(tmp_path: Path, plugin: str) -> None:
    found = handlers(
        tmp_path,
        None,
        f"""
        [plugins."{plugin}".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        [plugins."{plugin}".containerd.runtimes.sandboxed]
        runtime_type = "io.containerd.runsc.v1"
        """,
    )
    assert found.mapped == {"sandboxed"}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"runtimes": []}', '{"runtimes": {"a": {"path": 1}}}']
)
def test_a_configuration_that_makes_no_sense_maps_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "daemon.json").write_text(text)
    (tmp_path / "config.toml").write_text("plugins = 4\n= broken")
    assert not Handlers(tmp_path / "daemon.json", tmp_path / "config.toml").mapped


def boot(pid: int, parent: int, container_id: str) -> Command:
    return Command(pid, parent, ("runsc-sandbox", "--root=/run", "boot", "--fd=3", container_id))


HOST = [
    Command(1, 0, ("init",)),
    Command(10, 1, ("containerd-shim", "-id", ID)),
    Command(11, 10, ("runsc-gofer", "--root=/run", "gofer", "--bundle", "/b")),
    boot(12, 10, ID),
    Command(13, 12, ("exe",)),
    Command(14, 13, ("exe",)),
    Command(20, 1, ("containerd-shim", "-id", "other")),
    Command(21, 20, ("runsc-gofer", "--root=/run", "gofer", "--bundle", "/c")),
    boot(22, 20, "b" * 64),
    Command(30, 1, ("vi", "runsc-sandbox", "boot", ID)),
]


def test_a_sandbox_is_found_by_its_id() -> None:
    assert find(HOST, ID, None) == SandboxProcesses(12, (13, 14), (11,))


def test_of_sandboxes_with_one_parent_each_has_the_gofer_of_its_own_bundle() -> None:
    """`runsc run --detach`, twice: whoever started them is gone, and both are init's children."""
    host = [
        Command(1, 0, ("init",)),
        Command(11, 1, ("runsc-gofer", "--root=/run", "gofer", "--bundle", "/b")),
        Command(12, 1, ("runsc-sandbox", "--root=/run", "boot", "--bundle=/b", "first")),
        Command(21, 1, ("runsc-gofer", "--root=/run", "gofer", "--bundle", "/c")),
        Command(22, 1, ("runsc-sandbox", "--root=/run", "boot", "--bundle=/c", "second")),
        Command(31, 1, ("runsc-gofer", "--root=/run", "gofer")),
        Command(32, 1, ("runsc-sandbox", "--root=/run", "boot", "third")),
    ]
    assert find(host, "first", None) == SandboxProcesses(12, (), (11,))
    assert find(host, "second", None) == SandboxProcesses(22, (), (21,))
    assert find(host, "third", None) == SandboxProcesses(32)


def test_a_reported_pid_that_is_no_sentrys_does_not_mislead() -> None:
    assert find(HOST, ID, 30) == SandboxProcesses(12, (13, 14), (11,))


@pytest.mark.parametrize("pid", [12, 11, 10])
def test_a_pods_sandbox_is_found_by_kinship(pid: int) -> None:
    found = find(HOST, "a-container-in-the-pod", pid)
    assert found is not None
    assert found.sentry == 12


@pytest.mark.parametrize("pid", [None, 1, 999, 30])
def test_no_sandbox_is_found_where_there_is_none(pid: int | None) -> None:
    assert find(HOST, "unknown", pid) is None


@pytest.mark.parametrize(
    "version",
    [
        "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016",
        "Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016",
    ],
)
def test_the_inside_of_a_sandbox_is_known_by_its_version(version: str) -> None:
    assert inside_sandbox(version) is not None


def test_a_kernel_is_not_taken_for_a_sandbox() -> None:
    assert inside_sandbox("Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)") is None
