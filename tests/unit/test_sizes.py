"""A size is written in one form, in reasons as in tables."""

from __future__ import annotations

import pytest

from oomwatch.cli.times import human_bytes
from oomwatch.sizes import size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (33554432, "32 MiB"),
        (35348480, "33.7 MiB"),
        (1048575, "1 MiB"),
        (2**63 - 1, "8 EiB"),
    ],
)
def test_a_size_has_a_binary_unit_and_no_zero_after_the_point(count: int, text: str) -> None:
    assert size(count) == text
    assert human_bytes(count) == text


def test_a_size_that_is_not_known_is_a_dash_in_a_table() -> None:
    assert human_bytes(None) == "-"
