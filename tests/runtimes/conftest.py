"""Tests here start real container runtimes, in the VM that scripts/vm --runtimes boots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import why_not as why_no_kernel
from tests.runtimes.by_hand import HandHost
from tests.runtimes.confusion import table
from tests.runtimes.containers import Host
from tests.runtimes.cri import CriHost
from tests.runtimes.ctr import ContainerdHost
from tests.runtimes.hosts import (
    CONTAINERD_SOCKET,
    DockerHost,
    PodmanHost,
    SystemdDockerHost,
    end,
    start_containerd,
)
from tests.runtimes.journald import journald as run_journald
from tests.runtimes.judging import OUTCOMES
from tests.runtimes.processes import DaemonProcess
from tests.runtimes.systemd import Systemd
from tests.runtimes.workloads import make_root


def _why_not() -> str | None:
    """What this host lacks for these tests; None when it lacks nothing."""
    if os.environ.get("OOMWATCH_IN_VM") != "1":
        # A dockerd of the tests' own would meddle with the one that a person has.
        return "container runtimes are started in a VM only"
    if shutil.which("dockerd") is None:
        return "the VM was booted without --runtimes"
    return why_no_kernel()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where they cannot run; fail where they were meant to."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    reason = _why_not()
    for item in ours:
        # Docker's SDK leaves a socket that it could not connect to the garbage collector.
        item.add_marker(
            pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
        )
    if not ours or reason is None:
        return
    if os.environ.get("OOMWATCH_REQUIRE_KERNEL") == "1":
        raise pytest.UsageError(f"the runtimes' tests cannot run: {reason}")
    for item in ours:
        item.add_marker(pytest.mark.skip(reason=f"{reason}; scripts/test brings what it takes"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was judged, beside what other rules say."""
    if OUTCOMES:
        terminalreporter.section("verdicts")
        terminalreporter.write_line(table(OUTCOMES))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the daemons keep what they have: on tmpfs, since overlayfs needs a real one below."""
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture(scope="session")
def root(data: Path) -> Path:
    """The root file system of every container."""
    return make_root(data / "root")


@pytest.fixture(scope="session")
def containerd_daemon(data: Path) -> Iterator[DaemonProcess]:
    """containerd itself."""
    daemon = start_containerd(data)
    yield daemon
    end(daemon)


@pytest.fixture(scope="session")
def docker_host(data: Path, root: Path, containerd_daemon: DaemonProcess) -> Iterator[DockerHost]:
    """dockerd."""
    host = DockerHost(data, root)
    yield host
    host.close()
    end(host.daemon)


@pytest.fixture(scope="session")
def podman_host(data: Path, root: Path) -> Iterator[PodmanHost]:
    """Podman and its API."""
    host = PodmanHost(data, root)
    yield host
    host.close()
    end(host.daemon)


@pytest.fixture(scope="session")
def containerd_host(root: Path, containerd_daemon: DaemonProcess) -> ContainerdHost:
    """containerd, by its own command."""
    return ContainerdHost(root, containerd_daemon)


@pytest.fixture(scope="session")
def cri_host(root: Path, containerd_daemon: DaemonProcess) -> Iterator[CriHost]:
    """containerd, as the kubelet asks it."""
    host = CriHost(CONTAINERD_SOCKET, root)
    yield host
    host.close()


@pytest.fixture(scope="session")
def hand_host(data: Path, root: Path) -> HandHost:
    """OCI runtimes without a daemon."""
    return HandHost(data, root)


@pytest.fixture(scope="module")
def journald(data: Path) -> Iterator[None]:
    """systemd's journald alone."""
    with run_journald(data):
        yield


@pytest.fixture(scope="session")
def systemd(data: Path) -> Iterator[Systemd]:
    """systemd, in namespaces of its own."""
    manager = Systemd(data)
    yield manager
    end(manager.daemon)


@pytest.fixture(scope="session")
def systemd_docker_host(data: Path, root: Path, systemd: Systemd) -> Iterator[SystemdDockerHost]:
    """dockerd below systemd."""
    host = SystemdDockerHost(data, root, systemd)
    yield host
    host.close()


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> tuple[Host, str]:
    """A runtime that runs, and the OCI runtime to use with it, for `host-handler`."""
    name, _, handler = str(request.param).partition("-")
    return request.getfixturevalue(f"{name}_host"), handler
