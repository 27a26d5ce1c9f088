"""Where to start and what to select, between `oomwatch.subscriptions` and protobuf."""

from __future__ import annotations

from typing import Any

from oomwatch.events import Confidence, Kind
from oomwatch.rpc.translator import MEMBER_OF, NUMBER_OF, read_time, write_time
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.subscriptions import (
    AfterRevision,
    Earliest,
    EventFilter,
    LastN,
    Latest,
    Since,
    Start,
)

_WORDS = ("container_ids", "names", "pods", "namespaces", "runtimes", "cgroups")


def start_to_message(start: Start) -> pb.StartPosition:
    """Give a start position as a message."""
    message = pb.StartPosition()
    match start:
        case Latest():
            message.latest.SetInParent()
        case Earliest():
            message.earliest.SetInParent()
        case AfterRevision(revision, journal_id):
            message.after_revision.revision = revision
            if journal_id is not None:
                message.after_revision.journal_id = journal_id
        case Since(time):
            write_time(time, message.since_time)
        case LastN(count):
            message.last_events = count
    return message


def start_from_message(message: pb.StartPosition, default: Start) -> Start:
    """Read a start position; `default` where none is set. Raises ValueError for a negative one."""
    match message.WhichOneof("position"):
        case "latest":
            return Latest()
        case "earliest":
            return Earliest()
        case "after_revision":
            after = message.after_revision
            if after.revision < 0:
                raise ValueError(f"after_revision {after.revision}: revisions begin at 1")
            return AfterRevision(
                after.revision, after.journal_id if after.HasField("journal_id") else None
            )
        case "since_time":
            return Since(read_time(message.since_time))
        case "last_events":
            if message.last_events < 0:
                raise ValueError(f"last_events {message.last_events}: must be 0 or more")
            return LastN(message.last_events)
    return default


def filter_to_message(event_filter: EventFilter) -> pb.EventFilter:
    """Give a filter as a message."""
    message = pb.EventFilter(
        label_selectors=event_filter.labels,
        **{name: getattr(event_filter, name) for name in _WORDS},
    )
    numbers: list[Any] = [NUMBER_OF[Kind][kind] for kind in event_filter.kinds]
    message.kinds.extend(numbers)
    if event_filter.minimum_confidence is not None:
        number = NUMBER_OF[Confidence][event_filter.minimum_confidence]
        message.minimum_confidence = number  # type: ignore[assignment]
    return message


def filter_from_message(message: pb.EventFilter) -> EventFilter:
    """Read a filter. Raises ValueError past its bounds, and for kinds that are not known here."""
    unknown = [number for number in message.kinds if number not in MEMBER_OF[Kind]]
    if unknown:
        raise ValueError(f"kind {unknown[0]} is not one that this daemon knows")
    minimum = message.minimum_confidence
    if minimum and minimum not in MEMBER_OF[Confidence]:
        raise ValueError(f"confidence {minimum} is not one that this daemon knows")
    return EventFilter(
        labels=tuple(message.label_selectors),
        kinds=tuple(MEMBER_OF[Kind][number] for number in message.kinds),
        minimum_confidence=MEMBER_OF[Confidence][minimum] if minimum else None,
        **{name: tuple(getattr(message, name)) for name in _WORDS},
    )
