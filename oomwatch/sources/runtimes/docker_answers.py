"""What Docker's answers and events say, read into our words: pure, and whatever they hold.

The forms are those of https://docs.docker.com/reference/api/engine/; where Podman's compatible API
differs (pkg/api/handlers/compat), that is said.
"""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from oomwatch.containers import claims
from oomwatch.containers.claims import Json, at
from oomwatch.events import Container

# Podman tells an exit code and a pod with every event.
_OWN_ATTRIBUTES = ("name", "image", "containerExitCode", "podId")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Inspected:
    """A container as GET /containers/ID/json shows it; `None` is what it does not say.

    `stop_signal` is the one that the image asks to be stopped with. `start_time`, of its newest
    life, and `finish_time` are in microseconds since the epoch.
    """

    container: Container
    running: bool
    pid: int | None
    memory_limit_bytes: int | None
    stop_signal: int | None
    oom_killed: bool | None
    exit_code: int | None
    start_time: int | None
    finish_time: int | None


@dataclass(frozen=True, slots=True)
class DockerEvent:
    """One event of a container. `nanoseconds` since the epoch tell events apart.

    `attributes` are what it says of the container: its name, its image, and among them its labels.
    """

    container_id: str
    action: str
    nanoseconds: int
    exit_code: int | None
    signal: int | None
    attributes: Json = field(default=None, compare=False)

    @property
    def time(self) -> int:
        """When it happened, in microseconds since the epoch."""
        return self.nanoseconds // 1000


def read_summary(summary: Json, runtime: str) -> Container | None:
    """Read a line of GET /containers/json: who the container is, not where."""
    container_id = claims.plausible_id(at(summary, "Id"))
    if container_id is None:
        return None
    names = at(summary, "Names")
    known = claims.labels(at(summary, "Labels"))
    return Container(
        id=container_id,
        name=_name(names[0] if isinstance(names, list) and names else None),
        runtime=runtime,
        image=claims.text(at(summary, "Image")),
        labels=known,
        pod=claims.pod_of(known),
    )


def read_inspected(answer: Json, container_id: str, runtime: str) -> Inspected | None:
    """Read GET /containers/ID/json; `None` where it is about another container, or about none."""
    if at(answer, "Id") != container_id:
        return None
    known = claims.labels(at(answer, "Config", "Labels"))
    handler = claims.text(at(answer, "HostConfig", "Runtime"))
    if runtime == "podman":
        # Its compatible API says "oci" for whichever OCI runtime it is.
        handler = None if handler == "oci" else handler
    running = at(answer, "State", "Running") is True
    oom_killed = at(answer, "State", "OOMKilled")
    if runtime == "podman" and oom_killed is False:
        oom_killed = None  # seen of a container that was OOM-killed: only its True is a word
    return Inspected(
        container=Container(
            id=container_id,
            name=_name(at(answer, "Name")),
            runtime=runtime,
            handler=handler,
            image=claims.text(at(answer, "Config", "Image")),
            labels=known,
            pod=claims.pod_of(known),
        ),
        running=running,
        pid=claims.count(at(answer, "State", "Pid")) if running else None,
        memory_limit_bytes=claims.count(at(answer, "HostConfig", "Memory")),
        stop_signal=_signal(at(answer, "Config", "StopSignal")),
        oom_killed=oom_killed if isinstance(oom_killed, bool) and not running else None,
        exit_code=_exit_code(at(answer, "State", "ExitCode")) if not running else None,
        start_time=_microseconds(at(answer, "State", "StartedAt")),
        finish_time=_microseconds(at(answer, "State", "FinishedAt")) if not running else None,
    )


def read_event(event: Json) -> DockerEvent | None:
    """Read one line of GET /events; `None` where it is no container's."""
    container_id = claims.plausible_id(at(event, "Actor", "ID"))
    action, nanoseconds = at(event, "Action"), claims.count(at(event, "timeNano"))
    if container_id is None or not isinstance(action, str) or nanoseconds is None:
        return None
    code = at(event, "Actor", "Attributes", "exitCode")
    return DockerEvent(
        container_id=container_id,
        action=action[:32],
        nanoseconds=nanoseconds,
        exit_code=_exit_code(int(code)) if isinstance(code, str) and _is_number(code) else None,
        signal=_signal(at(event, "Actor", "Attributes", "signal")),
        attributes=at(event, "Actor", "Attributes"),
    )


def read_started(event: DockerEvent, runtime: str) -> Container:
    """Read who was started: all that is left of one that was removed before it could be asked for.

    Its labels stand among the attributes, of which a start has none of its own but name and image.
    """
    told = claims.labels(event.attributes) or {}
    known = {key: label for key, label in told.items() if key not in _OWN_ATTRIBUTES}
    return Container(
        id=event.container_id,
        name=_name(at(event.attributes, "name")),
        runtime=runtime,
        image=claims.text(at(event.attributes, "image")),
        labels=known,
        pod=claims.pod_of(known),
    )


def _name(value: Json) -> str | None:
    """A name without the slash that it is told with (a link's alias has two)."""
    return claims.text(value.removeprefix("/")) if isinstance(value, str) else None


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 3


def _exit_code(value: Json) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value
    return None


def _signal(value: Json) -> int | None:
    """A signal by number or by name, with or without SIG; "SIGRTMIN+3" is one too."""
    if not isinstance(value, str):
        return None
    name = value.upper().removeprefix("SIG")
    base, _, offset = name.partition("+")
    if _is_number(name):
        number = int(name)
    elif base in ("RTMIN", "RTMAX") and (not offset or _is_number(offset)):
        number = int(getattr(signals, f"SIG{base}")) + int(offset or 0)
    else:
        number = next((int(s) for s in signals.Signals if s.name == f"SIG{name}"), 0)
    return number if 0 < number <= 64 else None


def _microseconds(value: Json) -> int | None:
    """An RFC 3339 time; Go's zero time means that it has not happened."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        when = datetime.fromisoformat(value)
        return (when - _EPOCH) // timedelta(microseconds=1) if when > _EPOCH else None
    except (ValueError, TypeError, OverflowError):
        return None  # no time, or one without a zone
