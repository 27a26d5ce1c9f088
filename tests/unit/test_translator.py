"""Events survive the way through protobuf, whatever the kernel's names hold."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.events import (
    Confidence,
    ContainerExit,
    Entry,
    EvidenceGap,
    Invoker,
    MemoryPressure,
    OomKill,
    Scope,
    Victim,
)
from oomwatch.rpc import translator
from oomwatch.rpc.v1 import oomwatch_pb2 as pb

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES = st.integers(min_value=-(2**52), max_value=2**52)
NARROW = {"order", "oom_score_adj", "exit_code", "signal"}
KINDS = (OomKill, ContainerExit, MemoryPressure, EvidenceGap)


def values(name: str, declared: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this declaration may hold."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType):
        (inner,) = (part for part in arguments if part is not type(None))
        return st.none() | values(name, inner)
    if origin is tuple:
        return st.lists(values(name, arguments[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(TEXT, values(name, arguments[1]), max_size=3)
    if is_dataclass(declared):
        assert isinstance(declared, type)
        return instances(declared)
    if isinstance(declared, type) and issubclass(declared, StrEnum):
        return st.sampled_from(list(declared))
    if declared is str:
        return TEXT
    if declared is bool:
        return st.booleans()
    if declared is float:
        return st.floats(allow_nan=False)
    if name == "time" or name.endswith("_time") or name == "occur_after":
        return TIMES
    if name.endswith("cgroup_id"):
        return st.integers(min_value=0, max_value=2**64 - 1)
    bits = 31 if name in NARROW else 63
    return st.integers(min_value=-(2**bits), max_value=2**bits - 1)


def instances(declared: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a dataclass of ours."""
    hints = get_type_hints(declared)
    return st.builds(declared, **{f.name: values(f.name, hints[f.name]) for f in fields(declared)})


ENTRIES = st.builds(Entry, st.integers(1, 2**63 - 1), TEXT, st.one_of(*map(instances, KINDS)))


@given(ENTRIES)
def test_every_event_comes_back_equal(entry: Entry) -> None:
    wire = translator.entry_to_message(entry).SerializeToString()
    assert translator.entry_from_message(pb.Event.FromString(wire)) == entry


@given(st.lists(ENTRIES, max_size=4))
def test_frames_put_one_after_the_other_are_a_response(entries: list[Entry]) -> None:
    wire = b"".join(map(translator.frame, entries))
    for response in (pb.SubscribeResponse, pb.ListEventsResponse):
        events = response.FromString(wire).events
        assert [translator.entry_from_message(event) for event in events] == entries


KILL = OomKill(
    episode_id="e", detect_time=1, scope=Scope.NODE, confidence=Confidence.LOW, kill_count=1
)


def through(event: OomKill) -> Any:
    return translator.entry_from_message(
        pb.Event.FromString(translator.entry_to_message(Entry(1, "j", event)).SerializeToString())
    ).event


@given(st.binary(max_size=15))
def test_a_name_that_is_no_utf8_is_escaped_and_one_that_is_stays(name: bytes) -> None:
    comm = name.decode("utf-8", "surrogateescape")
    event = replace(KILL, victims=(Victim(pid=1, comm=comm, cmdline=(comm, "x")),))
    (victim,) = through(event).victims
    assert victim.comm == name.decode("utf-8", "backslashreplace")
    assert victim.cmdline == (victim.comm, "x")


@given(st.text(max_size=8))
def test_no_surrogate_can_stop_an_event(text: str) -> None:
    event = replace(KILL, victim_cgroup=text, candidates=(text,), episode_id=text)
    assert len(through(event).candidates) == 1


@pytest.mark.parametrize("number", [2**31, 2**63, 2**64, -(2**63) - 1])
def test_a_number_too_large_for_its_field_is_unknown_and_stops_nothing(number: int) -> None:
    event = replace(KILL, kill_count=None, invoker=Invoker(comm="c", order=number))
    assert through(event) == replace(event, invoker=Invoker(comm="c"))


def test_known_and_empty_differs_from_unknown() -> None:
    assert through(KILL).container is None
    assert not translator.entry_to_message(Entry(1, "j", KILL)).HasField("container")
    assert through(replace(KILL, invoker=Invoker())).invoker == Invoker()


def test_a_kind_that_only_a_newer_daemon_knows_is_named() -> None:
    with pytest.raises(translator.NewerVersionError, match="revision 7: upgrade"):
        translator.entry_from_message(pb.Event(revision=7))


def test_an_enum_that_only_a_newer_daemon_knows_is_named() -> None:
    message = translator.entry_to_message(Entry(1, "j", KILL))
    message.oom_kill.scope = 99  # type: ignore[assignment]
    with pytest.raises(translator.NewerVersionError, match="Scope of number 99"):
        translator.entry_from_message(message)
