"""A small container worker that tells its user the truth about an end.

    python examples/worker.py docker IMAGE COMMAND...     with the Docker SDK
    python examples/worker.py runc BUNDLE                 with runc by hand

The python is one that oomwatch is installed for: `.venv/bin/python` of a clone, say.

The order that loses nothing:

    1. start the container, and register it at once: WatchContainer
    2. wait for its end
    3. finalize it: FinalizeContainer, which reads its counters a last time
    4. only then delete it, and its cgroup with it

A container that dies between 1 and 2 is still judged rightly: its cgroup is followed from the
beginning, and registering only gives it a name. With the Docker SDK step 3 may come after Docker
has removed the cgroup: the daemon then judges by the sums above it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oomwatch.client import Client
from oomwatch.errors import OomwatchError, RequestRefused
from oomwatch.events import Confidence, Container, ContainerExit, Verdict

UNUSABLE = 125
"""The exit code where no container was run, as `docker run` has it."""


@dataclass(frozen=True)
class Ended:
    """What the runtime says of an end."""

    exit_code: int
    oom_killed: bool | None = None


class Runtime(Protocol):
    """Starts one container, and removes it."""

    def start(self) -> tuple[Container, int]:
        """Start it; who it is, and the pid of its main process on this host."""

    def wait(self) -> Ended:
        """Wait until it has ended."""

    def stop(self) -> int:
        """Ask it to stop; the signal that this is done with."""

    def remove(self) -> None:
        """Remove it, and its cgroup."""


class Unusable(Exception):
    """What would run the container is not there, or refuses; the message says what mends that."""


class Docker:
    """A container of Docker's, by its SDK. Raises Unusable where no Docker answers."""

    def __init__(self, image: str, command: list[str], memory: str | None, runtime: str) -> None:
        import docker

        self._errors = docker.errors
        try:
            self._containers = docker.from_env().containers
        except docker.errors.DockerException as error:
            host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
            raise Unusable(
                f"no Docker answers at {host} ({reason(error)}): start dockerd, name it in "
                "DOCKER_HOST, or run a bundle by 'worker.py runc'"
            ) from error
        self._image, self._command, self._memory, self._oci = image, command, memory, runtime

    def start(self) -> tuple[Container, int]:
        """Run it in the background. Raises Unusable where Docker refuses to."""
        try:
            self._container = self._containers.run(
                self._image, self._command, detach=True, mem_limit=self._memory, runtime=self._oci
            )
        except self._errors.DockerException as error:
            why = " ".join(str(getattr(error, "explanation", None) or error).split())
            raise Unusable(f"Docker does not run {self._image}: {why}") from error
        self._container.reload()
        pid = self._container.attrs["State"]["Pid"]
        return (
            Container(
                id=str(self._container.id),
                name=self._container.name,
                runtime="docker",
                handler=self._oci,
                image=self._image,
            ),
            pid,
        )

    def wait(self) -> Ended:
        """Wait, and ask for Docker's own OOM flag: it is no proof, and a witness."""
        code = self._container.wait()["StatusCode"]
        self._container.reload()
        return Ended(code, self._container.attrs["State"]["OOMKilled"])

    def stop(self) -> int:
        """`docker stop`."""
        self._container.stop()
        return signal.SIGTERM

    def remove(self) -> None:
        """`docker rm`."""
        self._container.remove(force=True)


class Runc:
    """A container of a bundle, by runc's command line. Raises Unusable where runc is not there."""

    def __init__(self, bundle: Path, runc: str = "runc") -> None:
        self._bundle, self._runc = bundle, runc
        self._id = f"worker-{uuid.uuid4().hex}"

    def start(self) -> tuple[Container, int]:
        """Create it, which makes its cgroup; then let it run."""
        pid_file = self._bundle / "pid"
        self._call("create", "--bundle", str(self._bundle), "--pid-file", str(pid_file), self._id)
        self._pid = int(pid_file.read_text())
        self._pidfd = os.pidfd_open(self._pid)
        return Container(id=self._id, runtime="runc", handler="runc"), self._pid

    def run(self) -> None:
        """Start what `create` prepared: by now it is registered, and not a moment is missed."""
        self._call("start", self._id)

    def wait(self) -> Ended:
        """Wait for its end. Its parent is this process's subreaper, so the status is ours."""
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert status is not None
        killed = status.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        return Ended(128 + status.si_status if killed else status.si_status)

    def stop(self) -> int:
        """`runc kill`."""
        self._call("kill", self._id, "TERM")
        return signal.SIGTERM

    def remove(self) -> None:
        """`runc delete` removes the cgroup."""
        self._call("delete", "--force", self._id)

    def _call(self, *words: str) -> None:
        try:
            subprocess.run([self._runc, *words], check=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise Unusable(
                f"{self._runc} cannot be run ({error.strerror}): install runc, put its directory "
                "on the PATH, or run an image by 'worker.py docker'"
            ) from error
        except subprocess.CalledProcessError as error:
            raise Unusable(
                f"'{self._runc} {words[0]}' failed with {error.returncode}, and says why above"
            ) from error


def work(client: Client, runtime: Runtime) -> tuple[Ended, ContainerExit | None]:
    """Run one container from its start to its removal; return how it ended, and that judged.

    Without a daemon it runs all the same, and nobody judges.
    """
    container, pid = runtime.start()
    try:
        register(client, container, pid)
        if isinstance(runtime, Runc):
            runtime.run()
        stop_signal: int | None = None
        try:
            ended = runtime.wait()
        except KeyboardInterrupt:
            stop_signal = runtime.stop()
            ended = runtime.wait()
        return ended, finalize(client, container, ended, stop_signal)
    finally:
        runtime.remove()


def register(client: Client, container: Container, pid: int) -> None:
    """Tell the daemon of it; one that has ended by now is known by its cgroup all the same."""
    try:
        report = client.watch_container(container, pid=pid) if pid else None
    except OomwatchError as error:
        if not isinstance(error, RequestRefused) or error.status != "NOT_FOUND":
            print(f"worker: not registered: {error}", file=sys.stderr)
            return
        report = None
    for note in report.notes if report is not None else ("it has ended already",):
        print(f"worker: {note}", file=sys.stderr)


def finalize(
    client: Client, container: Container, ended: Ended, stop_signal: int | None
) -> ContainerExit | None:
    """Tell the daemon how it ended, while its cgroup is there; `None` where it cannot judge."""
    try:
        entry = client.finalize(
            container.id,
            exit_code=ended.exit_code,
            stop_requested=stop_signal is not None,
            stop_signal=stop_signal,
            runtime_oom_killed=ended.oom_killed,
        )
    except OomwatchError as error:
        print(f"worker: not judged: {error}", file=sys.stderr)
        return None
    assert isinstance(entry.event, ContainerExit)
    return entry.event


def advice(exit_: ContainerExit) -> str:
    """What the user should be told."""
    code = exit_.exit_code
    match exit_.verdict, exit_.confidence:
        case Verdict.OOM, Confidence.CONFIRMED | Confidence.HIGH:
            return "Your job ran out of memory. Give it more, or make it need less."
        case Verdict.OOM, _:
            return "Your job seems to have run out of memory."
        case Verdict.UNKNOWN, Confidence.MEDIUM:
            return f"Your job ended with {code}, and running out of memory is the likely cause."
        case Verdict.UNKNOWN, _:
            return f"Your job ended with {code}; what ended it cannot be told."
    if code == 0:
        lost = exit_.oom_kills or 0
        if lost:
            return f"Your job ended well, but {lost} of its processes ran out of memory."
        return "Your job ended well."
    if exit_.stop_requested:
        return "Your job was stopped, as was asked."
    return f"Your job ended with {code}. It was not out of memory."


def main() -> int:
    """Read the command line, and run one container."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", default="/run/oomwatch/oomwatch.sock")
    kinds = parser.add_subparsers(dest="kind", required=True)
    docker = kinds.add_parser("docker")
    docker.add_argument("--memory", help="as in docker run: 512m")
    docker.add_argument("--runtime", default="runc", help="as in docker run: runsc")
    docker.add_argument("image")
    docker.add_argument("command", nargs=argparse.REMAINDER)
    runc = kinds.add_parser("runc")
    runc.add_argument("bundle", type=Path, help="a folder with config.json and its root")
    given = parser.parse_args()
    runtime: Runtime
    try:
        if given.kind == "docker":
            runtime = Docker(given.image, given.command, given.memory, given.runtime)
        else:
            be_reaper()
            runtime = Runc(given.bundle)
        with Client(given.socket) as client:
            ended, exit_ = work(client, runtime)
    except Unusable as error:
        print(f"worker: {error}", file=sys.stderr)
        return UNUSABLE
    if exit_ is None:
        print(f"Your job ended with {ended.exit_code}; whether memory ran out nobody could tell.")
    else:
        print(advice(exit_))
        for reason in exit_.reasons:
            print(f"  {reason}")
        told = {"verdict": exit_.verdict, "confidence": exit_.confidence}
        print(json.dumps(told), file=sys.stderr)
    return 0 if ended.exit_code == 0 else 1


def reason(error: BaseException) -> str:
    """What the kernel said, if it is below what the Docker SDK makes of it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return str(error)


def be_reaper() -> None:
    """Let containers that runc leaves behind be this process's children (man 2 prctl)."""
    import ctypes

    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


if __name__ == "__main__":
    sys.exit(main())
