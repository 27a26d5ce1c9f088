"""Whatever was sent, what is said of it prints, stays on its line, and is not endless."""

from hypothesis import given
from hypothesis import strategies as st

from oomwatch.escaping import LONGEST_SENTENCE, escape, quoted, sentence

TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b\x9b\n\r\u2028\u202e\u2066\udcff\ufeff\x7f\0"))
)


@given(TEXTS)
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    for said in (escape(text), quoted(text), sentence(text)):
        assert said.isprintable()


@given(st.text("abc äé\\漢"))
def test_what_prints_is_left_as_it_is(text: str) -> None:
    assert escape(text) == text


def test_what_is_long_is_cut_and_said_to_be() -> None:
    assert len(sentence("x" * 10**6)) == LONGEST_SENTENCE + 1
    assert quoted("x" * 10**6) == f"'{'x' * 120}'… (1000000 characters)"
    assert quoted("web") == "'web'"
