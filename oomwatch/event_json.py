"""Events as JSON: one object a line, the field names of the protobuf message.

How a field is written follows from its declaration in `oomwatch.events`, so that a field added
there appears here by itself:

- times (`time`, `*_time`, `occur_after`) are ISO 8601 in UTC with microseconds and a "Z";
- `None` and empty tuples are left out; an empty mapping or object is kept, since it says "known,
  and empty";
- enums are their values; nested types are objects; tuples are arrays.

Reading ignores keys that it does not know, so that a newer oomwatch may have written them. Writing
and reading again gives an equal event. Text is escaped to ASCII: names in the kernel are bytes, and
those that are no UTF-8 arrive here as lone surrogates, which no other encoding would take.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from oomwatch.events import (
    ContainerExit,
    Entry,
    Event,
    EvidenceGap,
    Kind,
    MemoryPressure,
    OomKill,
)

Convert = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000

_EVENT_TYPES: tuple[type[Event], ...] = (OomKill, ContainerExit, MemoryPressure, EvidenceGap)
_FIRST = ("episode_id", "occur_time", "occur_after", "detect_time")
_LAST = ("confidence", "reasons", "evidence")


@lru_cache(maxsize=256)
def _date_of_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()


@lru_cache(maxsize=256)
def _second_of_date(date: str) -> int:
    return (datetime.fromisoformat(date + "+00:00") - _EPOCH) // timedelta(seconds=1)


def time_to_iso(time: int) -> str:
    """Write microseconds since the Unix epoch as "2026-11-22T06:40:46.769814Z".

    Raises OverflowError outside the years 1 to 9999.
    """
    second, microsecond = divmod(time, _SECOND)
    return f"{_date_of_second(second)}.{microsecond:06d}Z"


def time_from_iso(text: str) -> int:
    """Read any ISO 8601 time with an offset back to microseconds since the Unix epoch.

    Raises ValueError for text that is no such time, or has no offset.
    """
    if len(text) == 27 and text[19] == "." and text[26] == "Z" and text[20:26].isdecimal():
        return _second_of_date(text[:19]) * _SECOND + int(text[20:26])
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC: end it with 'Z'")
    return (time - _EPOCH) // _MICROSECOND


def _is_time(name: str) -> bool:
    return name == "time" or name.endswith("_time") or name == "occur_after"


def _without_none(declared: Any) -> Any:
    if get_origin(declared) in (Union, UnionType):
        (declared,) = (part for part in get_args(declared) if part is not type(None))
    return declared


def _converters(name: str, declared: Any) -> tuple[Convert | None, Convert | None]:
    """How a field is written and read; None where JSON has the very type."""
    declared = _without_none(declared)
    if get_origin(declared) is tuple:
        write, read = _converters(name, get_args(declared)[0])
        return _list_writer(write), _tuple_reader(read)
    if get_origin(declared) is Mapping:
        write, read = _converters(name, get_args(declared)[1])
        return (dict, None) if write is None or read is None else _mapping(write, read)
    if is_dataclass(declared):
        assert isinstance(declared, type)
        return object_writer(declared), object_reader(declared)
    if isinstance(declared, type) and issubclass(declared, StrEnum):
        return _enum_writer(declared), declared
    if _is_time(name):
        return time_to_iso, time_from_iso
    return None, None


def _enum_writer(members: type[StrEnum]) -> Convert:
    return {member: member.value for member in members}.__getitem__


def _list_writer(write: Convert | None) -> Convert:
    if write is None:
        return list
    return lambda values: [write(value) for value in values]


def _tuple_reader(read: Convert | None) -> Convert:
    if read is None:
        return tuple
    return lambda values: tuple([read(value) for value in values])


def _mapping(write: Convert, read: Convert) -> tuple[Convert, Convert]:
    return (
        lambda values: {key: write(value) for key, value in values.items()},
        lambda written: {key: read(value) for key, value in written.items()},
    )


def _in_order(names: list[str]) -> list[str]:
    first = [name for name in _FIRST if name in names]
    last = [name for name in _LAST if name in names]
    return first + [name for name in names if name not in first and name not in last] + last


def object_writer(declared: type[Any]) -> Convert:
    """Make what gives a dataclass of the vocabulary's as plain JSON values; unknown is absent."""
    hints = get_type_hints(declared)
    names = _in_order([field.name for field in fields(declared)])
    plan = [(name, _converters(name, hints[name])[0]) for name in names]

    def write(value: Any) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, convert in plan:
            field_value = getattr(value, name)
            if field_value is None or field_value == ():
                continue
            written[name] = field_value if convert is None else convert(field_value)
        return written

    return write


def object_reader(declared: type[Any]) -> Convert:
    """Make what reads those values; it raises ValueError where a required one is missing."""
    hints = get_type_hints(declared)
    plan = {field.name: _converters(field.name, hints[field.name])[1] for field in fields(declared)}
    plain = [
        field.name
        for field in fields(declared)
        if field.default is MISSING and field.default_factory is MISSING
    ]
    # Unknown is absent, also where the declaration has no default for it.
    unknown = [name for name in plain if type(None) in get_args(hints[name])]
    required = [name for name in plain if name not in unknown]

    def read(written: Mapping[str, Any]) -> Any:
        arguments: dict[str, Any] = dict.fromkeys(unknown)
        for name, value in written.items():
            if name in plan:
                convert = plan[name]
                arguments[name] = value if convert is None else convert(value)
        missing = [name for name in required if name not in arguments]
        if missing:
            raise ValueError(f"{declared.__name__} without {', '.join(missing)}")
        return declared(**arguments)

    return read


_WRITERS: dict[Kind, Convert] = {event.kind: object_writer(event) for event in _EVENT_TYPES}
_READERS: dict[str, Convert] = {event.kind.value: object_reader(event) for event in _EVENT_TYPES}
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def event_to_dict(event: Event) -> dict[str, Any]:
    """Give the event as plain JSON values, `episode_id` and `kind` first; unknown is absent."""
    written = cast("dict[str, Any]", _WRITERS[event.kind](event))
    return {"episode_id": event.episode_id, "kind": event.kind.value, **written}


def event_from_dict(written: Mapping[str, Any]) -> Event:
    """Read what `event_to_dict` or `to_json` gave, or a newer writer with further keys.

    Raises ValueError where the kind is not one of ours, a field that is always there is missing, or
    a time or enum cannot be understood.
    """
    kind = written.get("kind")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ValueError(f"an event of kind {kind!r}; known are {', '.join(_READERS)}")
    return cast(Event, read(written))


def event_dumps(event: Event) -> str:
    """Give the event as one line of JSON without its place in a journal."""
    return _encode(event_to_dict(event))


def event_loads(line: str) -> Event:
    """Read one line of JSON; raises ValueError as `event_from_dict` does."""
    return event_from_dict(json.loads(line))


def to_json(entry: Entry) -> dict[str, Any]:
    """Give the entry as plain JSON values: revision, journal_id, episode_id and kind first."""
    return {
        "revision": entry.revision,
        "journal_id": entry.journal_id,
        **event_to_dict(entry.event),
    }


def dumps(entry: Entry) -> str:
    """Give the entry as one line of JSON, in ASCII and without a line break."""
    return _encode(to_json(entry))
