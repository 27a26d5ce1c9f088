"""Moves what the sources saw through the correlator into the journal, one way.

    sources ──observations──▶ correlator ──events + ledger change──▶ journal
       ▲                          │
       └────────questions─────────┘

It owns the clock and the one timer that the correlator asks for; it decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from oomwatch.containers.lives import LivesChange
from oomwatch.correlator import Correlator, Outcome
from oomwatch.events import Cgroup, Event
from oomwatch.ledger import LedgerChange
from oomwatch.observations import (
    Audit,
    AuditReading,
    ClockStepped,
    Describe,
    FindExit,
    FindSandbox,
    FollowUsage,
    LastLook,
    LineageReading,
    Look,
    Measure,
    Observation,
    Question,
    ReadSandboxLog,
    SandboxLogRead,
    UsageReading,
)

log = logging.getLogger(__name__)


LEAP_MICROSECONDS = 500_000
"""The wall clock is slewed by less between two observations; what is more was set, or slept."""


class Answerer(Protocol):
    """Whoever can look again when asked."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    def answer(self, question: Question) -> bool:
        """Emit the answer, now or soon; False if the question is another's."""
        ...


class Sink(Protocol):
    """Where events go: the journal, or a list in a test."""

    def append(self, events: Sequence[Event], change: LedgerChange, lives: LivesChange) -> None:
        """Take events and what changed with them, to be committed together; never blocks."""
        ...


class Pipeline:
    """Feeds the correlator in order, and hands on what comes out of it."""

    def __init__(self, correlator: Correlator, sink: Sink, answerers: Sequence[Answerer]) -> None:
        self.correlator = correlator
        self._sink = sink
        self._answerers = answerers
        self._observations: deque[Observation] = deque()
        self._questions: dict[tuple[type, object], Question] = {}
        self._events: list[Event] = []
        self._draining = False
        self.failing: dict[str, str] = {}
        """By name, who raised when it was last asked, and what: a fault of oomwatch's own."""
        self.broken = False
        """Has the correlator failed? Then nothing is taken in or written any more."""
        self.on_fault: Callable[[Exception], None] = lambda error: None
        self._ahead: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None

    def emit(self, observations: Sequence[Observation]) -> None:
        """Take observations from a source; what follows from them is done before this returns.

        Called from inside an answer it only queues: the outermost call does the work.
        """
        if self.broken:
            return
        self._observations.extend(observations)
        if not self._draining:
            self._drain()

    def audit(self, root: Cgroup) -> None:
        """Hold the sums of the whole tree against what was told."""
        if self.broken:
            return
        self._ask(self.correlator.audit_all(root))
        if not self._draining:
            self._drain()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_due = None

    def _drain(self) -> None:
        self._draining = True
        now = asyncio.get_running_loop().time
        try:
            self._watch_clock(now())
            while self._observations or self._questions:
                while self._observations:
                    observation = self._observations.popleft()
                    self._correlate(partial(self.correlator.feed, observation, now()))
                if self._questions:
                    key = next(iter(self._questions))
                    self._put(self._questions.pop(key))
        finally:
            self._draining = False
        if not self.broken:
            self._hand_on()

    def _watch_clock(self, now: float) -> None:
        """Say so where the wall clock leapt since anything was last taken in."""
        ahead = time.time_ns() // 1000 - round(now * 1e6)
        leapt = 0 if self._ahead is None else ahead - self._ahead
        self._ahead = ahead
        if abs(leapt) >= LEAP_MICROSECONDS:
            self._correlate(partial(self.correlator.feed, ClockStepped(leapt), now))

    def _hand_on(self) -> None:
        events, self._events = self._events, []
        now = asyncio.get_running_loop().time()
        change = self.correlator.take_changes(now, told=bool(events))
        lives = self.correlator.containers.lives.take_changes()
        if events or change or lives:
            self._sink.append(events, change, lives)
        self._schedule()

    def _correlate(self, step: Callable[[], Outcome]) -> None:
        try:
            outcome = step()
        except Exception as error:
            # What it had booked and what it had told may differ by now: nothing of it is written.
            # The journal and the counters have it all, for the next start to tell.
            self.broken = True
            self._observations.clear()
            self._questions.clear()
            self.stop()
            log.exception("a fault of oomwatch's own; please report it")
            self.on_fault(error)
        else:
            self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        self._events += outcome.events
        for question in outcome.questions:
            self._ask(question)

    def _ask(self, question: Question) -> None:
        """The same question asked twice before it is answered is one question."""
        about: object
        match question:
            case Look():
                about = question.path
            case LastLook():
                about = (question.path, question.cgroup_id)
            case FindSandbox() | ReadSandboxLog() | FollowUsage():
                about = (question.container_id, question.cgroup_id)
            case FindExit():
                about = question
            case _:
                about = question.cgroup.id
        key = (type(question), about)
        if isinstance(question, Audit):
            self._questions.pop(key, None)  # at the end: what is asked about may be read meanwhile
        self._questions[key] = question

    def _put(self, question: Question) -> None:
        for answerer in self._answerers:
            try:
                if answerer.answer(question):
                    self.failing.pop(answerer.name, None)
                    return
            except Exception as error:
                # One witness less for this question; the sums are held against each other anyway.
                log.exception("%s failed to answer %r; please report it", answerer.name, question)
                self.failing[answerer.name] = f"{type(error).__name__}: {error}"
                break
        else:
            log.error("nobody answers %r", question)
        self._observations.extend(unanswered(question))

    def _schedule(self) -> None:
        due = self.correlator.deadline
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(due, self._expire) if due is not None else None

    def _expire(self) -> None:
        self._timer = self._timer_due = None
        # The loop may call a timer up to its clock's resolution early.
        now = asyncio.get_running_loop().time() + 0.001
        self._correlate(lambda: self.correlator.expire(now))
        self._drain()


def unanswered(question: Question) -> list[Observation]:
    """What is known where nobody answers: nothing, and that it is not to be waited for."""
    match question:
        case Describe():
            return [LineageReading(question.cgroup, (), False, None)]
        case Measure():
            return [UsageReading(question.cgroup, None)]
        case Audit():
            return [AuditReading(question.cgroup, ())]
        case ReadSandboxLog():
            return [
                SandboxLogRead(container_id=question.container_id, cgroup_id=question.cgroup_id)
            ]
        case _:
            return []
