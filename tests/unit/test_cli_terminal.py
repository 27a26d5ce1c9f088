"""Nothing from outside can give a terminal orders, and colours are where they are wanted."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oomwatch.cli.terminal import Paint, escape, pad, wants_colour, width

_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def _harmful(char: str) -> bool:
    code = ord(char)
    return (
        code < 0x20
        or 0x7F <= code <= 0x9F
        or code in _BIDI
        or code in (0x2028, 0x2029)
        or 0xD800 <= code <= 0xDFFF
    )


@given(st.text(alphabet=st.characters(exclude_categories=())))
@example("foo)\nZ\n")
@example("\x1b]0;owned\x07\x9b2J")
@example("a‮gpj.exe⁦")
@example("\udc80\ud800")
def test_no_control_character_ever_comes_through(text: str) -> None:
    assert not any(_harmful(char) for char in escape(text))


@given(st.binary())
def test_a_comm_of_any_bytes_can_be_printed(raw: bytes) -> None:
    escaped = escape(raw.decode("utf-8", "surrogateescape"))
    escaped.encode("utf-8")
    assert "\n" not in escaped


@given(st.text())
def test_escaping_twice_is_escaping_once(text: str) -> None:
    assert escape(escape(text)) == escape(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("system-foo\\x2dbar.slice", "system-foo\\x2dbar.slice"),
        ("plain name", "plain name"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\tb\r\n", "a\\x09b\\x0d\\x0a"),
        ("\x9b", "\\x9b"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("‮", "\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("日本", "日本"),
    ],
)
def test_what_does_not_print_is_shown_by_its_code(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_padding_counts_columns_and_not_characters() -> None:
    assert width("日本") == 4
    assert width("é") == 1
    assert width("ก็") == 1, "a mark of combining class 0 takes no room either"
    assert width("☁\ufe0e") == 1
    assert pad("日本", 6) == "日本  "
    assert pad("7", 3, right=True) == "  7"
    assert pad("long", 2) == "long"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_that_wants_them() -> None:
    assert wants_colour(_Terminal(), {"TERM": "xterm"})
    assert not wants_colour(_Terminal(), {"TERM": "dumb"})
    assert not wants_colour(_Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert wants_colour(_Terminal(), {"TERM": "xterm", "NO_COLOR": ""})
    assert not wants_colour(io.StringIO(), {"TERM": "xterm"})


def test_paint_is_nothing_when_it_is_off() -> None:
    off, on = Paint(enabled=False), Paint(enabled=True)
    for name in ("bold", "dim", "red", "yellow", "green"):
        assert getattr(off, name)("x") == "x"
        assert getattr(on, name)("x") != "x"
