"""The calls about containers: what a worker tells of its own, and what is known of any."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Protocol, cast

import grpc

from oomwatch.errors import (
    BadCgroupPath,
    JournalStalled,
    LimitReached,
    NoSuchCgroup,
    NoSuchContainer,
    NoSuchExit,
    NoSuchProcess,
)
from oomwatch.escaping import quoted
from oomwatch.events import LONGEST_ID, Container, Entry
from oomwatch.rpc import translator_node
from oomwatch.rpc.limits import Caller, Limits
from oomwatch.rpc.paging import BYTES_A_PAGE, page_size, page_token, token_parts
from oomwatch.rpc.refusals import RefusalError, invalid, not_found
from oomwatch.rpc.registrars import Registrars
from oomwatch.rpc.translator import entry_to_message, read_time
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.status import CgroupReport

LONGEST_TEXT = 1024
LONGEST_LABEL = 4096
MOST_LABELS = 256
MOST_LABEL_TEXT = 16 * 1024
"""Characters of a name or an image, of a label's key and value; how many labels, and how many
characters all of them together, one container has."""

DEFAULT_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 60.0
"""How long FinalizeContainer waits for witnesses that are due: if nothing is said, and at most."""

_ANSWER_SECONDS = 0.02


class ContainerBackend(Protocol):
    """What these calls ask; `oomwatch.daemon.Watcher` is one."""

    async def list_cgroups(self, prefix: str, after_path: str, limit: int) -> list[CgroupReport]:
        """Cgroups at and below `prefix` by path, the first `limit` after `after_path`."""

    async def get_cgroup(self, path: str) -> CgroupReport | None:
        """One cgroup; `None` where none of that path is watched."""

    async def get_cgroup_by_id(self, cgroup_id: int) -> CgroupReport | None:
        """One cgroup by the inode of its directory; `None` where none of that is watched."""

    async def get_container(self, container_id: str) -> CgroupReport | None:
        """The container whose id begins so; raises LookupError where several do."""

    async def watch_container(
        self,
        container: Container,
        *,
        pid: int | None,
        cgroup: str | None,
        memory_limit_bytes: int | None,
    ) -> CgroupReport:
        """Register a container by one of `pid` and `cgroup`."""

    def is_registered(self, container_id: str) -> bool:
        """Whether a worker registered it, and it has neither ended nor been unwatched."""

    def unwatch_container(self, container_id: str) -> bool:
        """Forget what was registered; False where nothing was."""

    async def finalize_container(
        self,
        container_id: str,
        *,
        cgroup_id: int | None,
        exit_code: int | None,
        signal: int | None,
        exit_time: int | None,
        stop_requested: bool | None,
        stop_signal: int | None,
        runtime_oom_killed: bool | None,
        maximum_wait: float | None,
    ) -> Entry:
        """Give the exit of a container, judged and written down, after no longer a wait."""


class ContainerCalls:
    """The calls, from the bytes of a request to the bytes of its answer."""

    def __init__(self, backend: ContainerBackend, limits: Limits) -> None:
        self._backend = backend
        self._registrars = Registrars(limits.registered_a_peer, backend.is_registered)

    async def watch(self, request: bytes, caller: Caller) -> bytes:
        """Answer WatchContainer."""
        message = pb.WatchContainerRequest.FromString(request)
        container = _container(message.container)
        where = message.WhichOneof("location")
        if where is None:
            raise invalid("say where the container runs: set pid or cgroup")
        if where == "pid" and message.pid < 1:
            raise invalid(f"pid {message.pid}: a process's pid is 1 or more")
        limit = message.memory_limit_bytes if message.HasField("memory_limit_bytes") else None
        if limit is not None and limit < 0:
            raise invalid(f"memory_limit_bytes {limit}: a limit is 0 or more")
        with self._registrars.registering(caller, container.id), _refusing():
            report = await self._backend.watch_container(
                container,
                pid=message.pid if where == "pid" else None,
                cgroup=message.cgroup if where == "cgroup" else None,
                memory_limit_bytes=limit,
            )
        answer = pb.WatchContainerResponse(container=translator_node.report_to_message(report))
        return answer.SerializeToString()

    async def unwatch(self, request: bytes) -> bytes:
        """Answer UnwatchContainer."""
        message = pb.UnwatchContainerRequest.FromString(request)
        _check("container_id", message.container_id, LONGEST_ID, needed=True)
        if not self._backend.unwatch_container(message.container_id):
            raise not_found(f"container {message.container_id!r} was not registered, or has ended")
        return pb.UnwatchContainerResponse().SerializeToString()

    async def finalize(self, request: bytes, remaining: float | None) -> bytes:
        """Answer FinalizeContainer; `remaining` is what is left of the caller's deadline."""
        message = pb.FinalizeContainerRequest.FromString(request)
        _check("container_id", message.container_id, LONGEST_ID, needed=True)
        exit_time = _exit_time(message)
        with _refusing():
            entry = await self._backend.finalize_container(
                message.container_id,
                cgroup_id=_given(message, "cgroup_id"),
                exit_code=_within(message, "exit_code", 0, 255),
                signal=_within(message, "signal", 0, 64),
                exit_time=exit_time,
                stop_requested=_given(message, "stop_requested"),
                stop_signal=_within(message, "stop_signal", 1, 64),
                runtime_oom_killed=_given(message, "runtime_oom_killed"),
                maximum_wait=_wait(message, remaining),
            )
        return pb.FinalizeContainerResponse(event=entry_to_message(entry)).SerializeToString()

    async def list(self, request: bytes) -> bytes:
        """Answer ListContainers: one page of cgroups, by path."""
        message = pb.ListContainersRequest.FromString(request)
        size = page_size(message.page_size)
        after = ""
        if message.page_token:
            match token_parts(message.page_token):
                case [str(after)]:
                    pass
                case _:
                    raise invalid("page_token is none that ListContainers gave: leave it empty")
        prefix = _cgroup_path(message.cgroup_prefix or "/", "cgroup_prefix")
        reports = await self._backend.list_cgroups(prefix, after, size)
        answer = pb.ListContainersResponse()
        held = 0
        for report in reports:
            answer.containers.append(translator_node.report_to_message(report))
            held += answer.containers[-1].ByteSize()
            if held >= BYTES_A_PAGE:
                break
        if answer.containers and (len(answer.containers) < len(reports) or len(reports) == size):
            answer.next_page_token = page_token([reports[len(answer.containers) - 1].path])
        return answer.SerializeToString()

    async def get(self, request: bytes) -> bytes:
        """Answer GetContainer."""
        message = pb.GetContainerRequest.FromString(request)
        report: CgroupReport | None
        match message.WhichOneof("selector"):
            case "cgroup":
                path = _cgroup_path(message.cgroup, "cgroup")
                report, what = await self._backend.get_cgroup(path), f"cgroup {quoted(path)}"
            case "cgroup_id":
                report = await self._backend.get_cgroup_by_id(message.cgroup_id)
                what = f"cgroup with inode {message.cgroup_id}"
            case "container_id":
                _check("container_id", message.container_id, LONGEST_ID, needed=True)
                with _refusing():
                    report = await self._backend.get_container(message.container_id)
                what = f"container whose id begins with {message.container_id!r}"
            case _:
                raise invalid("say which one: set container_id, cgroup or cgroup_id")
        if report is None:
            raise not_found(f"no {what} is watched")
        answer = pb.GetContainerResponse(container=translator_node.report_to_message(report))
        return answer.SerializeToString()


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (NoSuchProcess, NoSuchCgroup, NoSuchContainer, NoSuchExit) as error:
        raise not_found(str(error)) from error
    except (BadCgroupPath, LookupError) as error:
        raise invalid(str(error)) from error
    except LimitReached as error:
        raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
    except JournalStalled as error:
        raise RefusalError(grpc.StatusCode.UNAVAILABLE, str(error)) from error


def _given(message: pb.FinalizeContainerRequest, field: str) -> Any:
    return getattr(message, field) if message.HasField(cast(Any, field)) else None


def _within(message: pb.FinalizeContainerRequest, field: str, low: int, high: int) -> int | None:
    value: int | None = _given(message, field)
    if value is not None and not low <= value <= high:
        raise invalid(f"{field} {value}: must be from {low} to {high}")
    return value


def _exit_time(message: pb.FinalizeContainerRequest) -> int | None:
    if not message.HasField("exit_time"):
        return None
    try:
        told = read_time(message.exit_time)
    except ValueError as error:
        raise invalid(f"exit_time: {error}") from error
    # A worker's clock that runs ahead would make every kill look old; and so would what stands for
    # no time at all, 1970 or the year 1.
    now = time.time_ns() // 1000
    started = now - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return min(now, told) if told >= started else None


def _wait(message: pb.FinalizeContainerRequest, remaining: float | None) -> float:
    wait = DEFAULT_WAIT_SECONDS
    if message.HasField("maximum_wait"):
        wait = message.maximum_wait.ToNanoseconds() / 1e9
    if not 0 <= wait <= LONGEST_WAIT_SECONDS:
        raise invalid(f"maximum_wait {wait} s: must be from 0 to {LONGEST_WAIT_SECONDS:.0f}")
    if remaining is not None:
        # The exit is to be written down, and the answer sent, within the deadline too; which gRPC
        # has rounded up, by up to a hundredth (20 s to 20.1).
        wait = max(0.0, min(wait, remaining * 0.99 - _ANSWER_SECONDS))
    return wait


def _container(message: pb.Container) -> Container:
    """Read a container that a client describes. Raises what refuses it past its bounds."""
    _check("container.id", message.id, LONGEST_ID, needed=True)
    for field in ("name", "runtime", "handler", "image"):
        _check(f"container.{field}", getattr(message, field), LONGEST_TEXT)
    for field in ("uid", "name", "namespace"):
        _check(f"container.pod.{field}", getattr(message.pod, field), LONGEST_TEXT)
    labels = message.labels.values
    size = sum(len(key) + len(value) for key, value in labels.items())
    if size > MOST_LABEL_TEXT:
        raise invalid(f"labels of {size} characters: at most {MOST_LABEL_TEXT} are taken in all")
    if len(labels) > MOST_LABELS:
        raise invalid(f"{len(labels)} labels: a container has at most {MOST_LABELS}")
    for key, value in labels.items():
        _check("a label's key", key, LONGEST_LABEL, needed=True)
        _check(f"label {key[:64]!r}", value, LONGEST_LABEL)
    return translator_node.container_from_message(message)


def _check(field: str, text: str, longest: int, *, needed: bool = False) -> None:
    if needed and not text:
        raise invalid(f"{field} is empty: it is needed")
    if len(text) > longest:
        raise invalid(f"{field} has {len(text)} characters: at most {longest} are taken")


def _cgroup_path(path: str, field: str) -> str:
    if not path.startswith("/"):
        raise invalid(f"{field} {quoted(path)}: a cgroup's path begins with '/'")
    return path.rstrip("/") or "/"
