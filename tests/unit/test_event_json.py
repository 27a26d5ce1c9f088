"""Events as JSON: lossless, in design order, forgiving of a newer writer."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch import events
from oomwatch.event_json import (
    dumps,
    event_dumps,
    event_from_dict,
    event_loads,
    event_to_dict,
    time_from_iso,
    time_to_iso,
    to_json,
)
from oomwatch.events import (
    Confidence,
    Constraint,
    Container,
    ContainerExit,
    Entry,
    Event,
    Evidence,
    EvidenceGap,
    Invoker,
    Kind,
    MemoryPressure,
    MemoryUsage,
    OomKill,
    Pod,
    PressureLevel,
    Scope,
    Verdict,
    Victim,
)

# What bytes that are no UTF-8 become when Python reads them with surrogateescape.
text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"]),
    ),
    max_size=12,
)
integers = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, time_from_iso("9999-12-31T23:59:59.999999Z"))


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def strategy_of(declared: type[Any]) -> st.SearchStrategy[Any]:
    """Fill every field of a type by its declaration, so that none can be forgotten here."""
    arguments = {}
    for field in dataclasses.fields(declared):
        name = field.name
        strategy = by_declaration(name, str(field.type))
        arguments[name] = strategy
    return st.builds(declared, **arguments)


def by_declaration(name: str, declared: str) -> st.SearchStrategy[Any]:
    if declared.endswith(" | None"):
        return optional(by_declaration(name, declared.removesuffix(" | None")))
    if declared.startswith("tuple["):
        inner = declared.removeprefix("tuple[").removesuffix(", ...]")
        return st.lists(by_declaration(name, inner), max_size=3).map(tuple)
    if declared == "Mapping[str, str]":
        return st.dictionaries(text, text, max_size=3)
    if declared == "int":
        return times if name.endswith("time") or name == "occur_after" else integers
    simple = {
        "str": text,
        "bool": st.booleans(),
        "float": st.floats(allow_nan=False, allow_infinity=False),
    }
    if declared in simple:
        return simple[declared]
    named = getattr(events, declared)
    if isinstance(named, type) and dataclasses.is_dataclass(named):
        return strategy_of(named)
    return st.sampled_from(named)


any_event = st.one_of(
    strategy_of(OomKill),
    strategy_of(ContainerExit),
    strategy_of(MemoryPressure),
    strategy_of(EvidenceGap),
)


def full_kill() -> OomKill:
    """The example of the design, with every part filled."""
    return OomKill(
        episode_id="e-1",
        detect_time=1_795_329_646_769_814,
        occur_time=1_795_329_646_769_000,
        scope=Scope.CONTAINER_LIMIT,
        confidence=Confidence.CONFIRMED,
        kill_count=1,
        container=Container(
            id="ee12" * 16,
            name="web",
            runtime="docker",
            handler="runc",
            image="nginx:1",
            labels={},
            pod=Pod(uid="u", name="p", namespace="n"),
        ),
        victim_cgroup="/docker/" + "ee12" * 16,
        victim_cgroup_id=77,
        limit_cgroup="/docker/" + "ee12" * 16,
        group_kill=False,
        constraint=Constraint.MEMCG,
        victims=(
            Victim(
                pid=395,
                comm="tail",
                cmdline=("tail", "/dev/zero"),
                uid=0,
                total_vm_bytes=35348480,
                anon_rss_bytes=33144832,
                file_rss_bytes=4096,
                shmem_rss_bytes=1376256,
                pgtables_bytes=106496,
                oom_score_adj=0,
                main_process=True,
            ),
        ),
        invoker=Invoker(comm="tail", gfp_mask="0xcc0(GFP_KERNEL)", order=0),
        memory=MemoryUsage(
            limit_bytes=33554432, peak_bytes=33554432, current_bytes=1048576, swap_bytes=0
        ),
        evidence=(
            Evidence(source="memory_events", time=1_795_329_646_769_000, detail="oom_kill 0 -> 1"),
            Evidence(source="kernel_log", time=1_795_329_646_769_001, detail="Killed process"),
        ),
    )


@given(any_event)
def test_an_event_written_and_read_again_is_equal(event: Event) -> None:
    """No field of any kind is lost or changed."""
    assert event_loads(event_dumps(event)) == event


@given(any_event, st.integers(1, 2**63 - 1))
def test_an_entry_is_one_line_of_ascii_that_reads_back(event: Event, revision: int) -> None:
    """`-o json` is a line an entry, whatever bytes a process put into its name."""
    entry = Entry(revision, "0" * 32, event)
    line = dumps(entry)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == to_json(entry)
    assert event_from_dict(json.loads(line)) == event


@given(times)
def test_times_are_exact_to_the_microsecond(time_us: int) -> None:
    """Writing a time and reading it again gives the same microsecond."""
    assert time_from_iso(time_to_iso(time_us)) == time_us


def test_times_are_iso_8601_in_utc() -> None:
    """Six digits and a Z, also where the microseconds are zero."""
    assert time_to_iso(0) == "1970-01-01T00:00:00.000000Z"
    assert time_to_iso(1_795_329_646_769_814) == "2026-11-22T06:40:46.769814Z"
    assert time_from_iso("1970-01-01T01:00:00+01:00") == 0
    with pytest.raises(ValueError, match="offset"):
        time_from_iso("1970-01-01T01:00:00")


def test_revision_journal_episode_and_kind_come_first() -> None:
    """A person who reads the lines sees at once which event it is."""
    written = to_json(Entry(17, "j", full_kill()))
    assert list(written)[:4] == ["revision", "journal_id", "episode_id", "kind"]
    assert written["kind"] == "oom_kill"
    assert type(written["kind"]) is str
    assert list(written)[-1] == "evidence"
    assert written["occur_time"] == "2026-11-22T06:40:46.769000Z"
    assert written["evidence"][0]["time"] == "2026-11-22T06:40:46.769000Z"


def test_unknown_is_absent_and_known_empty_is_kept() -> None:
    """None and empty tuples go, `labels: {}` and `recovered: false` stay."""
    event = OomKill(
        episode_id="e",
        detect_time=1,
        scope=Scope.UNKNOWN,
        confidence=Confidence.LOW,
        container=Container(id="a", labels={}),
    )
    assert event_to_dict(event) == {
        "episode_id": "e",
        "kind": "oom_kill",
        "detect_time": "1970-01-01T00:00:00.000001Z",
        "scope": "unknown",
        "recovered": False,
        "container": {"id": "a", "labels": {}},
        "confidence": "low",
    }


def test_keys_of_a_newer_writer_are_ignored() -> None:
    """A journal that a newer oomwatch wrote can be read, at every depth."""
    written = event_to_dict(full_kill())
    written["phase_of_moon"] = "full"
    written["container"]["colour"] = {"red": 1}
    written["victims"][0]["shoe_size"] = 43
    assert event_from_dict(written) == full_kill()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "sunrise"}, "sunrise"),
        ({"kind": None}, "known are"),
        ({"scope": "galaxy"}, "galaxy"),
        ({"detect_time": "soon"}, "soon"),
    ],
)
def test_what_cannot_be_understood_is_a_value_error(change: dict[str, Any], sentence: str) -> None:
    """Never a KeyError from the depths."""
    with pytest.raises(ValueError, match=sentence):
        event_from_dict({**event_to_dict(full_kill()), **change})


def test_a_missing_field_is_named() -> None:
    """Old lines that lack what is always there are refused by name."""
    written = event_to_dict(full_kill())
    del written["scope"]
    with pytest.raises(ValueError, match="OomKill without scope"):
        event_from_dict(written)


def test_every_kind_and_enum_has_its_word() -> None:
    """The words in the JSON are those of the vocabulary."""
    exit_event = ContainerExit(
        episode_id="e",
        detect_time=1,
        verdict=Verdict.NOT_OOM,
        confidence=Confidence.HIGH,
        kills=(3, 4),
        reasons=("a", "b"),
    )
    pressure = MemoryPressure(
        episode_id="e",
        detect_time=1,
        cgroup="/",
        level=PressureLevel.FULL,
        stall_microseconds=5,
        window_microseconds=6,
    )
    gap = EvidenceGap(episode_id="e", detect_time=1, source="kernel_log", reason="overrun")
    kinds = [event_to_dict(event)["kind"] for event in (full_kill(), exit_event, pressure, gap)]
    assert kinds == [kind.value for kind in Kind]
    assert event_to_dict(exit_event)["kills"] == [3, 4]
    assert event_to_dict(pressure)["level"] == "full"
