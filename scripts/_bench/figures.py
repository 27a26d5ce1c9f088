"""Figures, their budgets (issue 2, "Speed"), and the table of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: a value, the most it may be (`None`: for information), the floor's of the same."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    floor: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The line's cells."""
        over = self.budget is not None and self.value > self.budget
        return (
            self.what,
            _number(self.value, self.unit),
            "" if self.budget is None else f"≤ {_number(self.budget, self.unit)}",
            "" if not self.floor else f"{self.value / self.floor:.0f} ×",
            "" if self.budget is None else "OVER" if over else "ok",
        )


HEADINGS = ("figure", "measured", "budget", "of floor", "")


def table(figures: Iterable[Figure]) -> str:
    """Lay figures out in columns."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        first, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join((first, *rest)).rstrip())
    return "\n".join(lines)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over the rounds of each thing measured in all of them."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def load() -> str:
    """What else keeps this machine busy."""
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} cores, load {one:.1f} (1 min) {five:.1f} (5 min)"


def _number(value: float, unit: str) -> str:
    digits = 0 if unit == "" else 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f} {unit}".rstrip()
