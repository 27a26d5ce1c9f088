"""The real daemons, started for the tests: containerd, dockerd over it, and Podman."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.runtimes.api import ApiHost
from tests.runtimes.images import IMAGE
from tests.runtimes.processes import DaemonProcess, answers, wait_for
from tests.runtimes.systemd import CGROUP, Systemd

CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")
DOCKER_SOCKET = Path("/run/docker.sock")
PODMAN_SOCKET = Path("/run/podman/podman.sock")
"""The usual places, where a watcher finds them by itself."""

_CONTAINERD_CONFIG = """\
version = 2
root = "{data}/containerd"
state = "/run/containerd"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
"""
_STORAGE_CONFIG = """\
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "{data}/podman"
"""


def runsc_wrapper(folder: Path) -> Path:
    """A command like runsc's that needs no KVM: what a runtime is told to call.

    On 7.2 runsc takes a network namespace of Docker's for the host's, and refuses to set it up.
    """
    wrapper = folder / "runsc"
    if not wrapper.exists():
        logs = f"--debug-log={folder}/runsc-logs/ --panic-log={folder}/runsc-panic.log"
        wrapper.write_text(
            f'#!/bin/sh\nexec /usr/bin/runsc --platform=ptrace --network=none {logs} "$@"\n'
        )
        wrapper.chmod(0o755)
    return wrapper


def start_containerd(data: Path) -> DaemonProcess:
    """Start containerd, whose tasks live on without it."""
    CONTAINERD_SOCKET.parent.mkdir(exist_ok=True)
    config = data / "containerd.toml"
    config.write_text(_CONTAINERD_CONFIG.format(data=data, socket=CONTAINERD_SOCKET, image=IMAGE))
    daemon = DaemonProcess(
        ("containerd", "--config", config),
        data / "containerd.log",
        lambda: answers(CONTAINERD_SOCKET),
    )
    daemon.start()
    return daemon


class DockerHost(ApiHost):
    """dockerd, with runc, crun and runsc, and cgroups by cgroupfs."""

    def __init__(self, data: Path, root: Path) -> None:
        super().__init__("docker", DOCKER_SOCKET, root, "/docker/{}".format)
        # --live-restore: containers run on while the daemon is away.
        self.daemon = DaemonProcess(
            (
                *("dockerd", "--data-root", data / "docker", "--exec-root", "/run/docker"),
                *("--pidfile", "/run/docker.pid", "--host", f"unix://{DOCKER_SOCKET}"),
                *("--containerd", CONTAINERD_SOCKET, "--live-restore"),
                *(
                    "--iptables=false",
                    "--bridge=none",
                    "--exec-opt",
                    "native.cgroupdriver=cgroupfs",
                ),
                *("--add-runtime", "crun=/usr/bin/crun"),
                *("--add-runtime", f"runsc={runsc_wrapper(data)}"),
            ),
            data / "dockerd.log",
            lambda: answers(DOCKER_SOCKET),
        )
        self.daemon.start()
        self.load_image()


class SystemdDockerHost(ApiHost):
    """dockerd as a service of systemd's, with cgroups by systemd: scopes in system.slice."""

    def __init__(self, data: Path, root: Path, systemd: Systemd) -> None:
        socket = data / "systemd-docker.sock"
        super().__init__(
            "docker", socket, root, lambda id_: f"{CGROUP}/system.slice/docker-{id_}.scope"
        )
        systemd.service(
            "docker",
            *("/usr/sbin/dockerd", "--data-root", data / "systemd-docker"),
            *("--host", f"unix://{socket}", "--iptables=false", "--bridge=none"),
            *("--exec-opt", "native.cgroupdriver=systemd"),
            properties=("Delegate=yes", "KillMode=process"),
        )
        wait_for(lambda: answers(socket), systemd.daemon.last_words)
        self.load_image()


class PodmanHost(ApiHost):
    """Podman's API, with crun, conmon, and cgroups by cgroupfs."""

    def __init__(self, data: Path, root: Path) -> None:
        super().__init__("podman", PODMAN_SOCKET, root, "/libpod_parent/libpod-{}".format)
        PODMAN_SOCKET.parent.mkdir(exist_ok=True)
        storage = data / "storage.conf"
        storage.write_text(_STORAGE_CONFIG.format(data=data))
        self.daemon = DaemonProcess(
            (
                *("podman", "--cgroup-manager=cgroupfs", "--runtime=crun", "system", "service"),
                *("--time=0", f"unix://{PODMAN_SOCKET}"),
            ),
            data / "podman.log",
            lambda: answers(PODMAN_SOCKET),
            environment=os.environ | {"CONTAINERS_STORAGE_CONF": str(storage)},
        )
        self.daemon.start()
        self.load_image()


def end(daemon: DaemonProcess) -> None:
    """End a daemon when the tests are over, by force: nobody needs what it would tidy."""
    with suppress(AssertionError, ProcessLookupError):
        daemon.stop(signal.SIGKILL)
