"""Was it OOM? Evidence about one exit in, a verdict with its reasons out.

Pure. `judge` walks `ROWS` from the first and takes the first that fits the evidence; the same
rows, in words, are the table of docs/semantics.md.
"""

from oomwatch.verdict.evidence import (
    DYING_MICROSECONDS,
    NEAR_MICROSECONDS,
    Due,
    ExitEvidence,
    KillerMark,
    KillOfLife,
    LastRead,
    LimitHit,
    Sandbox,
    UsageSample,
    VictimRole,
    stop_asked_for,
)
from oomwatch.verdict.rows import ROWS, Row, Ruling, judge

__all__ = [
    "DYING_MICROSECONDS",
    "NEAR_MICROSECONDS",
    "ROWS",
    "Due",
    "ExitEvidence",
    "KillOfLife",
    "KillerMark",
    "LastRead",
    "LimitHit",
    "Row",
    "Ruling",
    "Sandbox",
    "UsageSample",
    "VictimRole",
    "judge",
    "stop_asked_for",
]
