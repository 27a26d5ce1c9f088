r"""Events between `oomwatch.events` and protobuf, both ways, and as the bytes of a response.

How a field is carried follows from its declaration: a dataclass's field and its message's have one
name, so that a field added to both is carried by itself (and one forgotten in the .proto fails as
this module is imported). Fields of every kind of event lie in `Event`; the rest in the message of
its kind. `None` and absent are the same thing; times are microseconds here and Timestamp there.

Text may hold any character but lone surrogates, which protobuf has no form for: where one occurs
(a process name that is not UTF-8, decoded with surrogateescape) it is written as \xNN or \uNNNN.
Apart from that and from numbers past 64 bits, which arrive as unknown, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oomwatch.events import (
    Confidence,
    Constraint,
    ContainerExit,
    Entry,
    Event,
    EvidenceGap,
    Kind,
    MemoryPressure,
    OomKill,
    PressureLevel,
    Scope,
    Verdict,
)
from oomwatch.rpc.v1 import oomwatch_pb2 as pb

Write = Callable[[Any, Any], None]
Read = Callable[[Any], Any]
"""From a field's value, or a message, as protobuf has it."""

_SECOND = 1_000_000
_EVENT_TYPES: tuple[type[Event], ...] = (OomKill, ContainerExit, MemoryPressure, EvidenceGap)
_ENUMS: tuple[tuple[type[StrEnum], Any, str], ...] = (
    (Kind, pb.Kind, "KIND"),
    (Confidence, pb.Confidence, "CONFIDENCE"),
    (Scope, pb.Scope, "SCOPE"),
    (Constraint, pb.Constraint, "CONSTRAINT"),
    (Verdict, pb.Verdict, "VERDICT"),
    (PressureLevel, pb.PressureLevel, "PRESSURE_LEVEL"),
)
NUMBER_OF: dict[type[StrEnum], dict[Any, int]] = {
    ours: {member: theirs.Value(f"{prefix}_{member.name}") for member in ours}
    for ours, theirs, prefix in _ENUMS
}
MEMBER_OF: dict[type[StrEnum], dict[int, Any]] = {
    ours: {number: member for member, number in numbers.items()}
    for ours, numbers in NUMBER_OF.items()
}


class NewerVersionError(ValueError):
    """A message holds a kind of event, or an enum's value, that only a newer oomwatch knows."""


def write_time(microseconds: int, timestamp: Timestamp) -> None:
    """Set a Timestamp to microseconds since the Unix epoch."""
    timestamp.seconds, rest = divmod(microseconds, _SECOND)
    timestamp.nanos = rest * 1000


_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def read_time(timestamp: Timestamp) -> int:
    """Give a Timestamp as microseconds since the Unix epoch, cut to whole ones.

    Raises ValueError outside of what a Timestamp may be: the years 1 to 9999 (timestamp.proto).
    """
    if not (_FIRST_SECOND <= timestamp.seconds <= _LAST_SECOND and 0 <= timestamp.nanos < 10**9):
        raise ValueError(
            f"a time of {timestamp.seconds} s and {timestamp.nanos} ns is none: from year 1 to "
            "9999, and less than a second of nanoseconds"
        )
    return timestamp.seconds * _SECOND + timestamp.nanos // 1000


def _member(members: dict[int, Any], declared: type[StrEnum], number: int) -> Any:
    member = members.get(number)
    if member is None:
        raise NewerVersionError(
            f"this version of oomwatch knows no {declared.__name__} of number {number}: upgrade it"
        )
    return member


def _is_time(name: str) -> bool:
    return name == "time" or name.endswith("_time") or name == "occur_after"


def _text(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that is no escaped byte
        return text.encode("utf-8", "backslashreplace").decode()


def _set(name: str) -> Write:
    """Set a scalar; one that protobuf refuses is escaped (text) or left unknown (a number)."""

    def write(value: Any, message: Any) -> None:
        try:
            setattr(message, name, value)
        except ValueError:
            if isinstance(value, str):
                setattr(message, name, _text(value))

    return write


def _set_all(name: str) -> Write:
    def write(values: Iterable[Any], message: Any) -> None:
        repeated = getattr(message, name)
        for value in values:
            try:
                repeated.append(value)
            except ValueError:
                if isinstance(value, str):
                    repeated.append(_text(value))

    return write


def _update(target: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        try:
            target[key] = value
        except ValueError:
            if isinstance(value, str):
                target[_text(key)] = _text(value)


def _field(name: str, declared: Any, descriptor: Any) -> tuple[Write, Read | None]:
    """How one field is set from a value that is not None, and what makes its value ours.

    The latter is None where protobuf has the very type.
    """
    if name not in descriptor.fields_by_name:
        raise TypeError(f"{descriptor.full_name} lacks the field {name}: add it to the .proto")
    if get_origin(declared) is tuple:
        (declared, _) = get_args(declared)
        if not is_dataclass(declared):
            return _set_all(name), tuple
        assert isinstance(declared, type)
        write, read = plan(declared, descriptor.fields_by_name[name].message_type)

        def write_all(values: Iterable[Any], message: Any) -> None:
            add = getattr(message, name).add
            for value in values:
                write(value, add())

        return write_all, lambda values: tuple([read(item) for item in values])
    if get_origin(declared) is Mapping:
        return _mapping(name, descriptor)
    if is_dataclass(declared):
        assert isinstance(declared, type)
        write, read = plan(declared, descriptor.fields_by_name[name].message_type)

        def write_one(value: Any, message: Any) -> None:
            inner = getattr(message, name)
            inner.SetInParent()
            write(value, inner)

        return write_one, read
    if isinstance(declared, type) and issubclass(declared, StrEnum):
        numbers, members = NUMBER_OF[declared], MEMBER_OF[declared]
        return (
            lambda value, message: setattr(message, name, numbers[value]),
            lambda number: _member(members, declared, number),
        )
    if _is_time(name):
        return (
            lambda value, message: write_time(value, getattr(message, name)),
            read_time,
        )
    return _set(name), None


def _mapping(name: str, descriptor: Any) -> tuple[Write, Read]:
    if descriptor.fields_by_name[name].message_type.GetOptions().map_entry:
        return (
            lambda value, message: _update(getattr(message, name), value),
            dict,
        )

    def write_values(value: Mapping[str, Any], message: Any) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        _update(inner.values, value)

    return write_values, lambda message: dict(message.values)


def plan(
    declared: type[Any], descriptor: Any, skip: frozenset[str] = frozenset()
) -> tuple[Write, Read]:
    """How a dataclass is written into a message of the same field names, and read from one.

    What is read is what the message lists as there: most of an event's fields are not, and to ask
    for each took twice as long. An enum that is UNSPECIFIED is not there.
    """
    hints = get_type_hints(declared)
    writes: list[tuple[str, Write]] = []
    reads: dict[Any, tuple[str, Read | None]] = {}
    always: list[tuple[str, Read | None]] = []
    for field in fields(declared):
        hint = hints[field.name]
        optional = get_origin(hint) in (Union, UnionType)
        if optional:
            (hint,) = (part for part in get_args(hint) if part is not type(None))
        if field.name in skip:
            continue
        write_field, read_field = _field(field.name, hint, descriptor)
        writes.append((field.name, write_field))
        reads[descriptor.fields_by_name[field.name]] = field.name, read_field
        if not optional:
            always.append((field.name, read_field))

    def write(value: Any, message: Any) -> None:
        for name, write_field in writes:
            field_value = getattr(value, name)
            if field_value is not None:
                write_field(field_value, message)

    def read_arguments(message: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for listed, value in message.ListFields():
            if listed in reads:
                name, read = reads[listed]
                arguments[name] = value if read is None else read(value)
        for name, read in always:
            if name not in arguments:
                value = getattr(message, name)
                arguments[name] = value if read is None else read(value)
        return arguments

    return write, read_arguments if skip else lambda message: declared(**read_arguments(message))


_EVENT = pb.Event.DESCRIPTOR
_COMMON = frozenset(field.name for field in _EVENT.fields)


def _event_plans(declared: type[Event]) -> tuple[Write, Write, Read, Read]:
    names = frozenset(field.name for field in fields(declared))
    write_common, read_common = plan(declared, _EVENT, skip=names - _COMMON)
    own = _EVENT.fields_by_name[declared.kind.value].message_type
    write_own, read_own = plan(declared, own, skip=names & _COMMON)
    return write_common, write_own, read_common, read_own


_PLANS = {declared.kind: _event_plans(declared) for declared in _EVENT_TYPES}
_TYPES: dict[str, type[Event]] = {declared.kind.value: declared for declared in _EVENT_TYPES}


def _write_entry(entry: Entry, message: pb.Event) -> None:
    event = entry.event
    write_common, write_own, _, _ = _PLANS[event.kind]
    message.revision = entry.revision
    message.journal_id = entry.journal_id
    write_common(event, message)
    own = getattr(message, event.kind.value)
    own.SetInParent()
    write_own(event, own)


def entry_to_message(entry: Entry) -> pb.Event:
    """Give an entry as a message. What protobuf cannot carry is escaped or left out."""
    message = pb.Event()
    _write_entry(entry, message)
    return message


def entry_from_message(message: pb.Event) -> Entry:
    """Read an entry. Raises NewerVersionError (a ValueError) for what only a newer one knows."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise NewerVersionError(
            f"this version of oomwatch does not know the kind of revision {message.revision}: "
            "upgrade it"
        )
    declared = _TYPES[kind]
    _, _, read_common, read_own = _PLANS[declared.kind]
    event = declared(**read_common(message), **read_own(getattr(message, kind)))
    return Entry(message.revision, message.journal_id, event)


def _tag(descriptor: Any) -> bytes:
    assert descriptor.number < 16
    return bytes([descriptor.number << 3 | 2])  # wire type 2: length-delimited


_EVENTS_TAG = _tag(pb.SubscribeResponse.DESCRIPTOR.fields_by_name["events"])
assert _tag(pb.ListEventsResponse.DESCRIPTOR.fields_by_name["events"]) == _EVENTS_TAG


def frame(entry: Entry) -> bytes:
    """Give the bytes of one element of `repeated Event events`.

    A response of several events is the concatenation of their frames (the wire format's own rule:
    developers.google.com/protocol-buffers/docs/encoding), so that one encoding serves every stream.
    """
    body = entry_to_message(entry).SerializeToString()
    return b"".join((_EVENTS_TAG, _varint(len(body)), body))


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def bookmark(revision: int, journal_id: str, *, caught_up: bool) -> bytes:
    """Give the bytes of a SubscribeResponse that is a bookmark."""
    mark = pb.Bookmark(revision=revision, journal_id=journal_id, caught_up=caught_up)
    return cast(Message, pb.SubscribeResponse(bookmark=mark)).SerializeToString()
