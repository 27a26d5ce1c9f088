"""Sizes as people read them: one form, in a table as in the reasons of a verdict."""

from __future__ import annotations


def size(count: int) -> str:
    """Return a size in bytes with a binary unit, and a digit after the point unless that is 0.

    "32 MiB", "33.7 MiB", "512 B".
    """
    if abs(count) < 1024:
        return f"{count} B"
    figure = float(count)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = "B"
    # 1023.96 rounds to 1024.0, which is 1 of the next unit.
    while abs(figure) >= 1023.95:
        figure /= 1024
        unit = next(units)
    return f"{f'{figure:.1f}'.removesuffix('.0')} {unit}"
