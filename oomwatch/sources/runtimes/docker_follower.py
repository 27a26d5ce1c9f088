"""Follows one Docker: what it lists, shows and reports becomes observations.

What was seen of Docker 20.10 and in Podman's source, and what follows from it:

- The kernel has killed before Docker says `oom`, and a container's cgroup is gone seconds before
  `die`. So: names and witnesses only, and nothing waits for them.
- The events begin after the answer's header was sent. So: they are asked for from a moment before,
  and what comes twice is told once.
- Docker keeps its last 256 events, in memory: a restart loses them. So: after a lost connection,
  and a restart of ours, they are asked for first; then containers are listed anew, and one that is
  missing is inspected for how it ended. Docker may still say `die` for it, as it finds out itself.
- `docker stop` and `docker kill` are a `kill` event with the signal, before `die`. Podman's carries
  no signal, and then nothing is said of who asked.
- With --rm there is nothing left to inspect after `die`: Docker's own OOM flag is then unknown; nor
  after `start`, where it ended at once: the event itself names the container. Where the answer was
  cut, as of a Docker that restarts, it is asked for once more over the next connection.
- Podman says `remove` for `destroy`, and has no `oom`.

It blocks, and so lives in a thread.
"""

from __future__ import annotations

import signal as signals
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from oomwatch.containers.lives import Life
from oomwatch.containers.places import Places
from oomwatch.observations import ContainerEnded, ContainerSeen, Observation, RuntimeOom
from oomwatch.sources.runtimes.docker_answers import (
    DockerEvent,
    Inspected,
    read_event,
    read_inspected,
    read_started,
    read_summary,
)
from oomwatch.sources.runtimes.docker_api import DockerApi
from oomwatch.sources.runtimes.docker_lives import DockerLife, DockerLives

_OVERLAP_SECONDS = 2.0
_HELD_MICROSECONDS = 60_000_000
"""What happened so long before the last event was written down has been told, and not just held."""

_EVENTS_REMEMBERED = 4096
_UNFLAGGED_REMEMBERED = 256
_ENDING = frozenset({"kill", "die", "died"})
_STOPPING = frozenset({signals.SIGINT, signals.SIGQUIT, signals.SIGKILL, signals.SIGTERM})


class DockerFollower:
    """What is known of one Docker, over all connections to it."""

    def __init__(
        self, name: str, places: Places, tell: Callable[[Sequence[Observation]], None]
    ) -> None:
        self._name = name
        self._places = places
        self._tell = tell
        self._runtime = name
        self._connection = 0
        self._since: float | None = None
        self._written: float | None = None
        self._lives = DockerLives()
        self._told: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        self._found_ended: set[str] = set()
        self._unflagged: deque[ContainerEnded] = deque(maxlen=_UNFLAGGED_REMEMBERED)

    def recall(self, lives: Sequence[Life], since: int | None) -> None:
        """Take in the lives that had not ended, for all that was written down at `since`."""
        for life in sorted(lives, key=lambda life: life.seen_time):
            self._lives.shown(life.container_id, life.start_time, life.cgroup_id)
        oldest = min((life.seen_time for life in lives), default=0)
        self._written = (oldest if since is None else since - _HELD_MICROSECONDS) / 1e6

    def follow(self, api: DockerApi, connected: Callable[[], None]) -> None:
        """Follow until the connection is lost, which is a `RuntimeUnreachable`."""
        self._runtime = "podman" if api.open() else "docker"
        self._connection += 1
        if self._lives.containers:
            self._take_past(api)
        listed = False
        while True:
            asked = time.time()
            for event in api.events((self._since or asked) - _OVERLAP_SECONDS):
                if self._since is None:
                    self._since = asked
                if not listed:
                    # The events wait in the socket, so nothing falls between them and the list.
                    listed = True
                    connected()
                    self._take_list(api)
                happened = read_event(event)
                if happened is not None and self._is_new(happened):
                    # A time that is yet to come would hide what comes before it.
                    self._since = max(self._since, min(happened.nanoseconds / 1e9, time.time()))
                    self._take(happened, api)

    def _take_past(self, api: DockerApi) -> None:
        """Take in how what ran when the connection was lost has ended, if it is remembered.

        The rest is among the events that are followed; of a time before a restart it was told then.
        """
        since = (self._since or self._written or time.time()) - _OVERLAP_SECONDS
        for event in api.events(since, past=True):
            happened = read_event(event)
            if happened is None or happened.action not in _ENDING:
                continue
            if self._lives.at(happened.container_id, happened.time) and self._is_new(happened):
                self._take(happened, api)

    def _take_list(self, api: DockerApi) -> None:
        """Take in what runs: all names first, for they are cheap, then each one's place."""
        running = []
        for summary in api.running():
            container = read_summary(summary, self._runtime)
            if container is not None:
                running.append(container)
        now = _now()
        self._found_ended.clear()
        self._tell(
            [
                ContainerSeen(source=self._name, time=now, container=one, listed=True)
                for one in running
            ]
        )
        for missing in self._lives.containers - {container.id for container in running}:
            self._take_missing(missing, api)
        for container in running:
            self._inspect(container.id, api)
        self._take_flags(api)

    def _take_missing(self, container_id: str, api: DockerApi) -> None:
        """It ran when the connection was lost, and runs no more; nobody saw how it ended."""
        found = read_inspected(api.inspect(container_id), container_id, self._runtime)
        if found is None or found.running:
            return  # its end, if it is told, is among the events that wait
        for life in self._lives.end(container_id, _now()):
            if life.began_at(found.start_time):
                self._found_ended.add(container_id)
                self._tell([self._ended(container_id, life, found, None)])

    def _take(self, event: DockerEvent, api: DockerApi) -> None:
        match event.action:
            case "start":
                life = self._lives.started(event.container_id, event.time, self._connection)
                self._found_ended.discard(event.container_id)
                described = False
                try:
                    described = self._inspect(event.container_id, api)
                finally:
                    if not described:
                        # It is gone already, or will be when Docker answers again; when it began
                        # says which of its lives this was.
                        who, began = read_started(event, self._runtime), life.start_time
                        self._tell(
                            [
                                ContainerSeen(
                                    source=self._name, time=_now(), container=who, start_time=began
                                )
                            ]
                        )
            case "rename":
                self._inspect(event.container_id, api)
            case "oom":
                self._tell(
                    [
                        RuntimeOom(
                            source=self._name,
                            time=event.time,
                            seen_time=_now(),
                            container_id=event.container_id,
                            detail=f"{self._runtime} reports oom",
                        )
                    ]
                )
            case "kill":
                self._asked_to_stop(event)
            case "die" | "died":
                self._take_end(event, api)
            case "destroy" | "remove":
                self._lives.forget(event.container_id)

    def _take_end(self, event: DockerEvent, api: DockerApi) -> None:
        *_, life = DockerLife(), *self._lives.end(event.container_id, event.time)
        if event.container_id in self._found_ended:
            # A Docker that was restarted says `die` as it finds what ended without it.
            self._found_ended.discard(event.container_id)
            return
        found, answered = None, False
        try:
            found = self._as_it_ended(event.container_id, event.time, api)
            answered = True
        finally:
            # Also where Docker is ending itself: it stops its containers, and answers no more.
            ended = self._ended(event.container_id, life, found, event)
            if not answered:
                self._unflagged.append(ended)
            self._tell([ended])

    def _take_flags(self, api: DockerApi) -> None:
        """Ask, once, for the flags of the ends that were told while Docker gave no answer."""
        while self._unflagged:
            ended = self._unflagged.popleft()
            found = self._as_it_ended(ended.container_id, ended.exit_time or 0, api)
            if found is not None and found.oom_killed is not None:
                self._tell([replace(ended, oom_killed=found.oom_killed)])

    def _as_it_ended(self, container_id: str, time: int, api: DockerApi) -> Inspected | None:
        """What is left of it since an end; `None` where it is gone, or has run anew."""
        found = read_inspected(api.inspect(container_id), container_id, self._runtime)
        return None if found is None or (found.start_time or 0) > time else found

    def _inspect(self, container_id: str, api: DockerApi) -> bool:
        """Tell who and where a container is; False where it is gone."""
        found = read_inspected(api.inspect(container_id), container_id, self._runtime)
        if found is None:
            return False
        place = self._places.locate(container_id, found.pid)
        if found.running:
            life = self._lives.shown(container_id, found.start_time, place.cgroup_id)
            life.image_stop_signal = found.stop_signal
        self._tell(
            [
                ContainerSeen(
                    source=self._name,
                    time=_now(),
                    container=found.container,
                    cgroup=place.cgroup,
                    cgroup_id=place.cgroup_id,
                    pid=place.pid,
                    memory_limit_bytes=found.memory_limit_bytes,
                    start_time=found.start_time,
                )
            ]
        )
        return True

    def _asked_to_stop(self, event: DockerEvent) -> None:
        life = self._lives.at(event.container_id, event.time)
        if life is None:
            return
        if event.signal is None:
            life.unclear = True
        elif event.signal in _STOPPING or event.signal == life.image_stop_signal:
            life.stop_signal = event.signal

    def _ended(
        self,
        container_id: str,
        life: DockerLife,
        found: Inspected | None,
        event: DockerEvent | None,
    ) -> ContainerEnded:
        asked: bool | None = None
        if life.stop_signal is not None:
            asked = True
        elif event is not None and life.connection == self._connection and not life.unclear:
            # `podman stop` says nothing before `die`: its silence means nothing either.
            asked = False if self._runtime == "docker" else None
        code = event.exit_code if event is not None else None
        if code is None and found is not None:
            code = found.exit_code
        finished = found.finish_time if found is not None else None
        return ContainerEnded(
            source=self._name,
            time=_now(),
            container_id=container_id,
            cgroup_id=life.cgroup_id,
            exit_code=code,
            exit_time=event.time if event is not None else finished,
            stop_requested=asked,
            stop_signal=life.stop_signal,
            # Once it runs again, the flag is the new life's.
            oom_killed=found.oom_killed if found is not None else None,
        )

    def _is_new(self, event: DockerEvent) -> bool:
        key = (event.container_id, event.action, event.nanoseconds)
        if key in self._told:
            return False
        self._told[key] = None
        if len(self._told) > _EVENTS_REMEMBERED:
            self._told.popitem(last=False)
        return True


def _now() -> int:
    return time.time_ns() // 1000
