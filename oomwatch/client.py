"""Asking a daemon: `AsyncClient` for asyncio, `Client` for everybody else.

    async with AsyncClient() as client:
        async for entry in client.subscribe(LastN(10)):
            print(entry.revision, entry.event)

A subscription outlives the daemon: when the connection is lost it is made again, after a pause that
grows, and goes on after the last revision seen. Nothing is missed and nothing comes twice. Where
that cannot be kept, the loop ends with an exception and never in silence: `HistoryCompacted` when
the daemon no longer has the events that follow, `JournalReset` when it has begun another journal.
Catch it, count what lay between as lost, and subscribe again from `Earliest()`.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from oomwatch.address import DEFAULT_SOCKET
from oomwatch.errors import RequestRefused
from oomwatch.events import Container, Entry
from oomwatch.rpc.channel import Answer, ClientTls, Connection
from oomwatch.rpc.requests import filter_to_message, start_to_message
from oomwatch.rpc.resuming import Bookmark, RemoteSubscription
from oomwatch.rpc.translator import entry_from_message, write_time
from oomwatch.rpc.translator_node import (
    container_to_message,
    report_from_message,
    status_from_message,
)
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.status import CgroupReport, NodeStatus
from oomwatch.subscriptions import Earliest, EventFilter, Latest, Start

__all__ = ["AsyncClient", "Bookmark", "Client", "ClientTls", "RemoteSubscription"]

Result = TypeVar("Result")

_PAGE = 500


class AsyncClient:
    """Asks the daemon at an address: a socket's path, unix:PATH, or HOST:PORT.

    HOST:PORT needs `tls`, or `insecure=True`; anything else raises AddressError. `timeout` bounds
    each call but `subscribe`, in seconds, and for `finalize` besides what that is told to wait. The
    first connection fails at once with `DaemonUnavailable`; one that is lost later is tried again
    for `reconnect_seconds`, `None` for ever. It may be made anywhere, and is used on one loop, the
    one of its first call.

    Calls raise `DaemonUnavailable` (nobody answers, or not in time), `ValueError` (the daemon finds
    the request malformed) and `RequestRefused` (it refuses for another reason, and says why).
    """

    def __init__(
        self,
        address: str | os.PathLike[str] = DEFAULT_SOCKET,
        *,
        tls: ClientTls | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        reconnect_seconds: float | None = None,
    ) -> None:
        self._connection = Connection(address, tls, insecure, timeout)
        self._reconnect_seconds = reconnect_seconds
        self._subscriptions: set[RemoteSubscription] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the subscriptions and close the connection. A later call opens it again."""
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()
        await self._connection.close()

    def subscribe(
        self,
        start: Start | None = None,
        event_filter: EventFilter | None = None,
        *,
        on_bookmark: Callable[[Bookmark], object] | None = None,
        on_outage: Callable[[str | None], object] | None = None,
    ) -> RemoteSubscription:
        """Follow events in order of revision, those of the past from `start` (`Latest()`) first.

        Use it with `async for`, or call its `next` for a batch at a time. `on_bookmark` is called
        with each bookmark, after the events before it; `on_outage` once with the reason when the
        connection is lost, and once with `None` when it is back. A reader may be as slow as it
        likes.
        """
        subscription = RemoteSubscription(
            self._connection,
            start or Latest(),
            event_filter,
            self._reconnect_seconds,
            on_bookmark,
            on_outage,
        )
        self._subscriptions = {open_ for open_ in self._subscriptions if not open_.closed}
        self._subscriptions.add(subscription)
        return subscription

    async def list_events(
        self, start: Start | None = None, event_filter: EventFilter | None = None
    ) -> AsyncIterator[Entry]:
        """Yield what the journal holds, oldest first from `start` (`Earliest()`), page by page.

        Ends at the journal's end. Raises HistoryCompacted and JournalReset as a subscription does.
        """
        request = pb.ListEventsRequest(start=start_to_message(start or Earliest()), page_size=_PAGE)
        if event_filter is not None:
            request.filter.CopyFrom(filter_to_message(event_filter))
        while True:
            page = await self._connection.call("ListEvents", request, pb.ListEventsResponse)
            for event in page.events:
                yield entry_from_message(event)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def get_event(self, revision: int, journal_id: str | None = None) -> Entry | None:
        """Give one event, or `None` when the journal does not hold it (any more).

        Raises JournalReset where `journal_id` is given and another journal is served.
        """
        request = pb.GetEventRequest(revision=revision)
        if journal_id is not None:
            request.journal_id = journal_id
        answer = await self._call_or_none("GetEvent", request, pb.GetEventResponse)
        return None if answer is None else entry_from_message(answer.event)

    async def list_containers(self, prefix: str = "/") -> AsyncIterator[CgroupReport]:
        """Yield the watched cgroups at and below `prefix`, by path, page by page."""
        request = pb.ListContainersRequest(cgroup_prefix=prefix, page_size=_PAGE)
        while True:
            page = await self._connection.call("ListContainers", request, pb.ListContainersResponse)
            for report in page.containers:
                yield report_from_message(report)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch_container(
        self,
        container: Container,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> CgroupReport:
        """Tell the daemon who a cgroup is, as its container starts; see who follows it.

        Give one of `pid` (as the daemon's /proc shows it) and `cgroup` (its path from the root of
        the hierarchy, as /proc/PID/cgroup shows it). Twice is the same as once; the same id
        elsewhere is a new life of it. Raises RequestRefused: NOT_FOUND where the process or the
        cgroup is gone, and ValueError for both or neither.
        """
        if pid is not None and cgroup is not None:
            raise ValueError("pid and cgroup both say where the container runs: give one of them")
        request = pb.WatchContainerRequest(container=container_to_message(container))
        if pid is not None:
            request.pid = pid
        if cgroup is not None:
            request.cgroup = cgroup
        if memory_limit_bytes is not None:
            request.memory_limit_bytes = memory_limit_bytes
        answer = await self._connection.call("WatchContainer", request, pb.WatchContainerResponse)
        return report_from_message(answer.container)

    async def unwatch_container(self, container_id: str) -> bool:
        """Have the daemon forget what `watch_container` told it; False where that was nothing."""
        request = pb.UnwatchContainerRequest(container_id=container_id)
        answer = await self._call_or_none("UnwatchContainer", request, pb.UnwatchContainerResponse)
        return answer is not None

    async def finalize(
        self,
        container_id: str,
        *,
        cgroup_id: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        exit_time: int | None = None,
        stop_requested: bool | None = None,
        stop_signal: int | None = None,
        runtime_oom_killed: bool | None = None,
        maximum_wait: float | None = None,
    ) -> Entry:
        """Tell the daemon how a container ended, and get the exit with its verdict.

        Call it *before* the cgroup is removed: the last read of its counters is made then. Set
        what is known; `exit_time` is microseconds since the epoch by the daemon's clock, now unless
        given; `cgroup_id` (from `watch_container`) names one life of several, else it is the newest
        that does not run.
        `maximum_wait` is how many seconds to wait at the most for witnesses that are due, 0.05
        unless given; a reason that begins with "still due" names one that did not come. Asking
        again gives the same exit and revision; what is learned later is told as its amendment,
        and asking again gives that. Raises RequestRefused: NOT_FOUND for a container that nobody
        spoke of, and where its exit was told and retention has deleted it since.
        """
        request = pb.FinalizeContainerRequest(
            container_id=container_id,
            cgroup_id=cgroup_id,
            exit_code=exit_code,
            signal=signal,
            stop_requested=stop_requested,
            stop_signal=stop_signal,
            runtime_oom_killed=runtime_oom_killed,
        )
        if exit_time is not None:
            write_time(exit_time, request.exit_time)
        if maximum_wait is not None:
            if not math.isfinite(maximum_wait):
                raise ValueError(f"maximum_wait {maximum_wait}: give seconds, 60 at the most")
            request.maximum_wait.FromNanoseconds(round(maximum_wait * 1e9))
        answer = await self._connection.call(
            "FinalizeContainer",
            request,
            pb.FinalizeContainerResponse,
            patience=max(0.0, maximum_wait or 0.0),
        )
        return entry_from_message(answer.event)

    async def get_container(
        self, cgroup: str | None = None, *, container_id: str | None = None
    ) -> CgroupReport | None:
        """Give one watched cgroup, or `None` when there is none.

        By its path, or by the id of its container or a beginning of that which fits only one.
        Raises ValueError for both or neither, and for a beginning that fits several.
        """
        if cgroup is not None and container_id is not None:
            raise ValueError("cgroup and container_id both say which one: give one of them")
        request = pb.GetContainerRequest(cgroup=cgroup, container_id=container_id)
        answer = await self._call_or_none("GetContainer", request, pb.GetContainerResponse)
        return None if answer is None else report_from_message(answer.container)

    async def get_status(self) -> NodeStatus:
        """Give the daemon's status."""
        answer = await self._connection.call(
            "GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse
        )
        return status_from_message(answer.status)

    async def health(self, service: str = "") -> bool:
        """Say whether the daemon keeps its promises; raises DaemonUnavailable if none answers.

        With the name `oomwatch.v1.Sources`, whether no source is degraded; with a source's name
        after it (`oomwatch.v1.Sources/kernel_log`), whether that one is not.
        """
        answer = await self._connection.call(
            "Check",
            health_pb2.HealthCheckRequest(service=service),
            health_pb2.HealthCheckResponse,
            service="grpc.health.v1.Health",
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _call_or_none(
        self, name: str, request: Message, answer: type[Answer]
    ) -> Answer | None:
        try:
            return await self._connection.call(name, request, answer)
        except RequestRefused as refused:
            if refused.status == "NOT_FOUND":
                return None
            raise


class Client:
    """`AsyncClient` for code without asyncio: the same calls, the same errors, plain iterators.

    Use one from one thread, and none where a loop is running: a call raises RuntimeError there.
    Ctrl-C ends any call at once, and a subscription's iterator with it.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] = DEFAULT_SOCKET,
        *,
        tls: ClientTls | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        reconnect_seconds: float | None = None,
    ) -> None:
        self._client = AsyncClient(
            address,
            tls=tls,
            insecure=insecure,
            timeout=timeout,
            reconnect_seconds=reconnect_seconds,
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; subscriptions end."""
        loop = self._loop
        if loop is not None:
            self._run(self._client.close)
            self._run(loop.shutdown_asyncgens)
            self._loop = None
            loop.close()

    def subscribe(
        self,
        start: Start | None = None,
        event_filter: EventFilter | None = None,
        *,
        on_bookmark: Callable[[Bookmark], object] | None = None,
        on_outage: Callable[[str | None], object] | None = None,
    ) -> Iterator[Entry]:
        """Yield events; see `AsyncClient.subscribe`. It begins with the first `next`."""
        subscription = self._client.subscribe(
            start, event_filter, on_bookmark=on_bookmark, on_outage=on_outage
        )
        try:
            while True:
                yield from self._run(subscription.next).entries
        finally:
            subscription.close()

    def list_events(
        self, start: Start | None = None, event_filter: EventFilter | None = None
    ) -> Iterator[Entry]:
        """Yield what the journal holds; see `AsyncClient.list_events`."""
        return self._iterate(self._client.list_events(start, event_filter))

    def get_event(self, revision: int, journal_id: str | None = None) -> Entry | None:
        """Give one event, or `None` when the journal does not hold it (any more)."""
        return self._run(lambda: self._client.get_event(revision, journal_id))

    def list_containers(self, prefix: str = "/") -> Iterator[CgroupReport]:
        """Yield the watched cgroups at and below `prefix`, by path."""
        return self._iterate(self._client.list_containers(prefix))

    def watch_container(
        self,
        container: Container,
        *,
        pid: int | None = None,
        cgroup: str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> CgroupReport:
        """Tell the daemon who a cgroup is; see `AsyncClient.watch_container`."""
        return self._run(
            lambda: self._client.watch_container(
                container, pid=pid, cgroup=cgroup, memory_limit_bytes=memory_limit_bytes
            )
        )

    def unwatch_container(self, container_id: str) -> bool:
        """Have the daemon forget what `watch_container` told it; False where that was nothing."""
        return self._run(lambda: self._client.unwatch_container(container_id))

    def finalize(
        self,
        container_id: str,
        *,
        cgroup_id: int | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        exit_time: int | None = None,
        stop_requested: bool | None = None,
        stop_signal: int | None = None,
        runtime_oom_killed: bool | None = None,
        maximum_wait: float | None = None,
    ) -> Entry:
        """Tell the daemon how a container ended; see `AsyncClient.finalize`."""
        return self._run(
            lambda: self._client.finalize(
                container_id,
                cgroup_id=cgroup_id,
                exit_code=exit_code,
                signal=signal,
                exit_time=exit_time,
                stop_requested=stop_requested,
                stop_signal=stop_signal,
                runtime_oom_killed=runtime_oom_killed,
                maximum_wait=maximum_wait,
            )
        )

    def get_container(
        self, cgroup: str | None = None, *, container_id: str | None = None
    ) -> CgroupReport | None:
        """Give one watched cgroup, or `None`; see `AsyncClient.get_container`."""
        return self._run(lambda: self._client.get_container(cgroup, container_id=container_id))

    def get_status(self) -> NodeStatus:
        """Give the daemon's status."""
        return self._run(self._client.get_status)

    def health(self, service: str = "") -> bool:
        """Say whether the daemon keeps its promises."""
        return self._run(lambda: self._client.health(service))

    def _run(self, begin: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run what `begin` makes to its end, or until Ctrl-C.

        A KeyboardInterrupt is raised wherever the interpreter happens to be: inside gRPC's
        callbacks or a weak reference's, which drop it (seen: the client then waited on), or before
        a task began. So Ctrl-C cancels the task while there is one, and the interrupt is raised
        when that has ended; a second Ctrl-C does not wait for it. (asyncio.Runner does the same,
        but forgets one that comes as it begins.)
        """
        _refuse_running_loop()
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            return loop.run_until_complete(begin())
        task: asyncio.Task[Result] | None = None
        interrupts = 0

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal interrupts
            interrupts += 1
            if interrupts > 1:
                raise KeyboardInterrupt
            if task is not None:
                task.cancel()
                loop.call_soon_threadsafe(lambda: None)  # wakes it

        signal.signal(signal.SIGINT, interrupt)
        try:
            task = loop.create_task(begin())
            if interrupts:
                task.cancel()
            return loop.run_until_complete(task)
        finally:
            task = None  # here, where what its end calls cannot be interrupted
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if interrupts:
                raise KeyboardInterrupt from None

    def _iterate(self, items: AsyncIterator[Result]) -> Iterator[Result]:
        end = object()

        async def step() -> Any:
            return await anext(items, end)

        while (item := self._run(step)) is not end:
            yield item


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("an event loop runs in this thread: use AsyncClient there")
