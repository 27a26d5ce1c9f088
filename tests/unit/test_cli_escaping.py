"""No command and no log line lets hostile text through: no control, no bidi override, no new line.

Whoever runs in a container chooses its processes' names, its cgroups' names, its labels and its
log; whoever answers for a runtime chooses the rest.
"""

from __future__ import annotations

import io
import logging
import types
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oomwatch.cli.checks import Check, State
from oomwatch.cli.doctor import report
from oomwatch.cli.explain import explain
from oomwatch.cli.later import Later
from oomwatch.cli.list import as_json
from oomwatch.cli.logs import OneLine
from oomwatch.cli.main import run
from oomwatch.cli.output import say
from oomwatch.cli.table import EventTable, cgroup_table
from oomwatch.cli.terminal import Paint
from oomwatch.event_json import dumps, event_dumps
from oomwatch.events import ContainerExit, Entry, Event, EvidenceGap, MemoryPressure, OomKill
from oomwatch.status import CgroupReport

PLAIN = Paint(enabled=False)
CORPUS = sorted((Path(__file__).parents[1] / "data" / "kmsg").glob("*.kmsg"))

HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x1b\x9b\n\r\t\0\x7f\x85\u2028\u2029\u202e\u2066\u200f\ufeff\udc1b\udcff\\/"
        ),
    ),
    max_size=20,
)


@cache
def hostile(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, every text in it as its author may have chosen it."""
    arguments = get_args(kind)
    if kind is str:
        return HOSTILE
    if kind is int:
        return st.integers(0, 2**45)
    if kind is float:
        return st.floats(0, 1e6)
    if kind in (bool, type(None)):
        return st.booleans() if kind is bool else st.none()
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*(hostile(one) for one in arguments))
    if get_origin(kind) is tuple:
        return st.lists(hostile(arguments[0]), max_size=3).map(tuple)
    if get_origin(kind) is Mapping or get_origin(kind) is dict:
        return st.dictionaries(hostile(arguments[0]), hostile(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    hints = get_type_hints(kind)
    wanted = [field.name for field in fields(kind) if field.init]
    return st.builds(kind, **{name: _later(hints[name]) for name in wanted})


def _later(kind: Any) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: hostile(kind))


EVENTS: st.SearchStrategy[Event] = st.one_of(
    *(hostile(kind) for kind in (OomKill, ContainerExit, MemoryPressure, EvidenceGap))
)
ENTRIES = st.builds(Entry, st.integers(1, 2**40), HOSTILE, EVENTS)
thoroughly = settings(max_examples=50, suppress_health_check=list(HealthCheck))


@thoroughly
@given(ENTRIES)
def test_a_line_of_tail_is_one_line_that_prints(entry: Entry) -> None:
    assert EventTable(PLAIN).row(entry).isprintable()


@thoroughly
@given(ENTRIES)
def test_every_line_of_show_prints(entry: Entry) -> None:
    for line in (*explain(entry), *explain(entry, Later((entry, entry), entry))):
        assert line.isprintable()


@thoroughly
@given(ENTRIES)
def test_json_is_one_line_of_ascii(entry: Entry) -> None:
    for line in (dumps(entry), event_dumps(entry.event)):
        assert line.isascii()
        assert line.isprintable()


@thoroughly
@given(st.lists(hostile(CgroupReport), min_size=1, max_size=3))
def test_every_line_of_list_prints(reports: list[CgroupReport]) -> None:
    for line in [*cgroup_table(reports, PLAIN), *map(as_json, reports)]:
        assert line.isprintable()


@thoroughly
@given(HOSTILE, HOSTILE, st.sampled_from(State))
def test_every_line_of_the_doctor_prints(found: str, mend: str, state: State) -> None:
    for line in report([Check("memory controller", state, found, mend)], PLAIN):
        assert line.isprintable()


@thoroughly
@given(HOSTILE)
def test_a_record_of_the_daemons_log_is_one_line_that_prints(text: str) -> None:
    try:
        raise OSError(text)
    except OSError as error:
        record = logging.LogRecord(
            text,
            logging.ERROR,
            text,
            1,
            "%s failed",
            (text,),
            (OSError, error, error.__traceback__),
        )
    assert OneLine().format(record).isprintable()


@thoroughly
@given(HOSTILE)
def test_a_sentence_is_one_line_that_prints(text: str) -> None:
    with redirect_stderr(io.StringIO()) as said:
        say(text)
    assert said.getvalue().endswith("\n")
    assert said.getvalue()[:-1].isprintable()


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(data=st.data(), output=st.sampled_from([(), ("-o", "json"), ("--summary",)]))
def test_nothing_of_a_log_gets_through_a_scan(
    data: st.DataObject, output: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.getbasetemp() / "hostile\x1b[2J.log"
    lines = [
        line for path in CORPUS for line in path.read_bytes().splitlines() if b"oom" in line.lower()
    ]
    picked = data.draw(st.lists(st.sampled_from(lines), max_size=30))
    alien = data.draw(
        st.sampled_from([b"\x1b[31m", b"\xe2\x80\xae", b"\xff", b"\\x1b", b"\r", b"\0"])
    )
    log.write_bytes(b"\n".join(line.replace(b"=", b"=" + alien, 40) for line in picked))
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as said:
        run(["scan", *output, str(log)])
    for text in (out, said):
        for line in text.getvalue().split("\n"):
            assert line.isprintable()
