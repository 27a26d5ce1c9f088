"""Requests, reports, statuses and addresses survive the way to the daemon and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.address import DEFAULT_SOCKET, TcpAddress, UnixAddress, parse_address
from oomwatch.errors import AddressError
from oomwatch.events import Confidence, Container, Kind, MemoryUsage, SourceState
from oomwatch.rpc import requests, translator_node
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.status import CgroupReport, JournalStatus, NodeStatus, Witness
from oomwatch.subscriptions import AfterRevision, Earliest, EventFilter, LastN, Latest, Since, Start

TERMS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=3
).map(tuple)
REVISIONS = st.integers(0, 2**63 - 1)
STARTS = st.one_of(
    st.just(Latest()),
    st.just(Earliest()),
    st.builds(AfterRevision, REVISIONS, st.none() | st.text(st.characters(codec="utf-8"))),
    st.builds(Since, st.integers(-(2**52), 2**52)),
    st.builds(LastN, REVISIONS),
)
FILTERS = st.builds(
    EventFilter,
    container_ids=TERMS,
    names=TERMS,
    labels=TERMS.map(lambda terms: tuple(f"k={term}" for term in terms)),
    pods=TERMS,
    namespaces=TERMS,
    runtimes=TERMS,
    kinds=st.lists(st.sampled_from(Kind), max_size=4).map(tuple),
    cgroups=TERMS.map(lambda terms: tuple(f"/{term}" for term in terms)),
    minimum_confidence=st.none() | st.sampled_from(Confidence),
)


@given(STARTS)
def test_a_start_position_comes_back(start: Start) -> None:
    wire = requests.start_to_message(start).SerializeToString()
    assert requests.start_from_message(pb.StartPosition.FromString(wire), Earliest()) == start


@given(FILTERS)
def test_a_filter_comes_back(event_filter: EventFilter) -> None:
    wire = requests.filter_to_message(event_filter).SerializeToString()
    assert requests.filter_from_message(pb.EventFilter.FromString(wire)) == event_filter


def test_no_start_position_is_what_the_call_says() -> None:
    assert requests.start_from_message(pb.StartPosition(), Latest()) == Latest()


def test_a_report_comes_back_and_unknown_is_not_zero() -> None:
    known = CgroupReport(
        path="/a",
        id=2**64 - 1,
        kills=0,
        kills_below=4,
        memory=MemoryUsage(limit_bytes=5),
        witnesses=(Witness("memory_events by inotify"),),
        container=Container(id="c", labels={}),
    )
    for report in (known, CgroupReport(path="/b", id=1)):
        message = translator_node.report_to_message(report)
        assert translator_node.report_from_message(message) == report


def test_a_path_that_is_no_utf8_stops_no_report() -> None:
    message = translator_node.report_to_message(CgroupReport(path="/\udcff", id=1))
    assert message.cgroup == r"/\xff"


def test_a_status_comes_back() -> None:
    journal = JournalStatus(
        journal_id="j",
        healthy=False,
        detail="full",
        oldest_revision=3,
        newest_revision=9,
        events=7,
        pending_events=2,
        disk_full=True,
    )
    status = NodeStatus(
        version="1",
        hostname="h",
        boot_id="b",
        kernel_release="6.1",
        cgroup_root="/sys/fs/cgroup",
        start_time=1_763_792_446_769_814,
        healthy=True,
        cgroups=4,
        kills_told=5,
        subscribers=6,
        sources=(
            SourceState(name="memory_events", active=True, figures={"watches": 4}),
            SourceState(name="kernel_log", active=False, degraded=True, detail="EPERM"),
        ),
        journal=journal,
    )
    message = translator_node.status_to_message(status)
    assert translator_node.status_from_message(message) == status
    assert not message.journal.HasField("path")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (DEFAULT_SOCKET, UnixAddress(DEFAULT_SOCKET)),
        ("unix:/run/s", UnixAddress("/run/s")),
        ("unix:///run/s", UnixAddress("/run/s")),
        ("node-7:9090", TcpAddress("node-7", 9090)),
        ("[fd00::7]:0", TcpAddress("fd00::7", 0)),
    ],
)
def test_addresses_as_people_type_them(text: str, address: UnixAddress | TcpAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "host", "host:", ":1", "host:65536", "host:-1", "/run/", "/" + "x" * 107),
        *("::1", "fd00::7:9090", "[::1", "[::1:9090", "[]:1", "host:" + "9" * 5000),
    ],
)
def test_what_is_no_address_is_told_so(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)
