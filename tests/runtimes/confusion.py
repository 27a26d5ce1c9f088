"""What happened, beside what each rule makes of it: the verdict, Docker's OOMKilled, 137 is OOM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from oomwatch.events import Confidence, Verdict


class Truth(Enum):
    """What really ended a container: the tests know, for they did it.

    `EITHER` is an end of which docs/semantics.md says that it cannot be told: a child was killed,
    and the main process then failed by its own choice, or it is one of several.
    """

    OOM = "oom"
    NOT = "not_oom"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Word:
    """What was said of an end, by which row of the table; `due` if it said what may amend it."""

    verdict: Verdict
    confidence: Confidence
    row: str
    due: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One end, and what was made of it: what a worker was told `first`, and what that came to."""

    what: str
    runtime: str
    truth: Truth
    exit_code: int | None
    settled: Word
    first: Word
    oom_killed: bool | None

    @property
    def row(self) -> str:
        """The row of docs/semantics.md that the verdict settled to."""
        return self.settled.row

    @property
    def right(self) -> bool:
        """Is the verdict what happened, and unknown where that cannot be told, and only there?

        At first it may be unknown elsewhere too, where it says which witness is due.
        """
        early = self.first.verdict is Verdict.UNKNOWN and self.first.due
        return self._right(self.settled) and (early or self._right(self.first))

    def _right(self, word: Word) -> bool:
        if self.truth is Truth.EITHER:
            return word.verdict is Verdict.UNKNOWN
        return bool(word.verdict.value == self.truth.value)


def table(outcomes: Iterable[Outcome]) -> str:
    """Print every end, and how often each rule was wrong."""
    rows = list(outcomes)
    head = f"{'what happened':34} {'runtime':12} exit {'truth':7} "
    lines = [f"{head}{'verdict':8} {'confidence':10} {'OOMKilled':9} {'137 rule':8} row"]
    lines += [
        f"{one.what:34} {one.runtime:12} {'-' if one.exit_code is None else one.exit_code:>4} "
        f"{one.truth.value:7} {one.settled.verdict.value:8} {one.settled.confidence.value:10} "
        f"{_flag(one.oom_killed):9} {_rule_of_137(one):8} {one.row}{_at_first(one)}"
        f"{'' if one.right else '   WRONG'}"
        for one in rows
    ]
    asked = [one for one in rows if one.oom_killed is not None]
    lines += [
        "",
        f"{'':18} {'ends':>5} {'false oom':>9} {'false not_oom':>13} {'unknown':>7}",
        _confusion("oomwatch at first", [(one.truth, one.first.verdict.value) for one in rows]),
        _confusion("oomwatch settled", [(one.truth, one.settled.verdict.value) for one in rows]),
        _confusion("OOMKilled", [(one.truth, _flag(one.oom_killed)) for one in asked]),
        _confusion("137 rule", [(one.truth, _rule_of_137(one)) for one in rows]),
    ]
    return "\n".join(lines)


def _at_first(one: Outcome) -> str:
    """What a worker was told at first, where that was something else."""
    first, settled = one.first, one.settled
    if (first.verdict, first.confidence, first.row) == (
        settled.verdict,
        settled.confidence,
        settled.row,
    ):
        return ""
    return f"   (at first {first.verdict.value}, {first.confidence.value}, {first.row})"


def _flag(oom_killed: bool | None) -> str:
    return "-" if oom_killed is None else "oom" if oom_killed else "not_oom"


def _rule_of_137(one: Outcome) -> str:
    return "oom" if one.exit_code == 137 else "not_oom"


def _confusion(rule: str, told: list[tuple[Truth, str]]) -> str:
    """Where the truth cannot be told, no word on it is counted as false."""
    false_oom = sum(truth is Truth.NOT and said == "oom" for truth, said in told)
    false_not = sum(truth is Truth.OOM and said == "not_oom" for truth, said in told)
    unknown = sum(said == "unknown" for _, said in told)
    return f"{rule:18} {len(told):5} {false_oom:9} {false_not:13} {unknown:7}"
