"""What was told of one exit, by whom, and how far the looking for its cause is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from oomwatch.containers.lives import PATH, WORKER, Life
from oomwatch.events import Container, ContainerExit, Evidence
from oomwatch.observations import AuditReading, ContainerEnded, LastLookReading
from oomwatch.verdict import KillerMark, LastRead
from oomwatch.verdict.words import STILL_DUE, kills_of

_COUNTERS = "memory_events"

_READ_AFTER = "read after the exit"
"""How a last look's detail ends: its cgroup was still there."""

_PHRASES = (
    ("a stop was asked for", "stop_requested", True),
    ("no stop was asked for", "stop_requested", False),
    ("OOM flag set", "oom_killed", True),
    ("OOM flag not set", "oom_killed", False),
)
_NUMBERS = (("exit code", "exit_code"), ("signal", "signal"), ("stop signal", "stop_signal"))

_FACTS = ("exit_code", "signal", "exit_time", "stop_requested", "stop_signal", "oom_killed")


@dataclass(slots=True, eq=False)
class Exit:
    """One exit: what was told of it, how far the looking is, and what was journaled.

    `place` is the life as the host's kernel sees it: in its sandbox's cgroup, where it has one.
    `leapt` is how far the wall clock had leapt when it was first told of. `gone_time` is when its
    cgroup was looked for and was `gone`; `runs` says that processes of its own lived there at the
    last look, `ran_time` when they last did. `awaits`: more is to come on the kills near it
    (`None`: that is to be looked at). `place_until` is up to when a removal may tell in which
    cgroup it was. `names_due`: it had to be told before it was known who was killed. One that is
    `recalled` was read back from the journal, and is `reopened` where a witness was still due as
    the process that told it ended; `outdated` says that more was learned before what was `told` had
    its revision; `stands` is what was told of it, where what is left of its evidence does not bear
    that out.
    """

    life: Life
    episode_id: str
    seen_time: int
    leapt: int = 0
    words: dict[str, ContainerEnded] = field(default_factory=dict)
    due: float | None = None
    place_until: float | None = None
    last_read: LastRead | None = None
    look_detail: Evidence | None = None
    gone: bool = False
    gone_time: int = 0
    runs: bool = False
    ran_time: int = 0
    summed: bool = False
    marks: tuple[KillerMark, ...] = ()
    log_asked: bool = False
    awaits: bool | None = None
    names_due: bool = False
    recalled: bool = False
    reopened: bool = False
    stands: ContainerExit | None = None
    told: ContainerExit | None = None
    outdated: bool = False
    first_revision: int | None = None
    revision: int | None = None
    place: Life = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.life

    @property
    def said(self) -> ContainerEnded:
        """All words as one: each fact from the worker where it has it, else from a runtime."""
        ranked = sorted(self.words.values(), key=lambda word: word.source == WORKER)
        merged = ranked[0]
        for word in ranked[1:]:
            merged = _joined(merged, word)
        return merged

    @property
    def settled(self) -> bool:
        """Was it read back from the journal, with nothing due any more?"""
        return self.recalled and not self.reopened

    @property
    def said_time(self) -> int:
        """When it ended: the earliest time that anybody told.

        Where its processes lived on then, and somebody else tells of a later end, that is it.
        """
        times = [word.exit_time or word.time for word in self.words.values()]
        return min([time for time in times if time > self.ran_time] or times)

    @property
    def looked_too_soon(self) -> bool:
        """Did its processes live on as it was looked at last, and has it ended since?"""
        return self.runs and self.said_time > self.ran_time

    def was_dying(self) -> None:
        """What lived on had been killed near the end that was told: a later word is just late."""
        self.runs, self.ran_time = False, 0

    @property
    def is_lost(self) -> bool:
        """Did nobody say how it ended, but that its cgroup was gone?"""
        return self.words.keys() == {PATH}

    def hear(self, word: ContainerEnded, leapt: int) -> None:
        """Take in a source's word; its older one stands where the newer says nothing.

        The earliest time that anybody told is the exit's: a clock that was turned back since makes
        no word the earliest.
        """
        turned_back = max(0, self.leapt - leapt)
        exit_time = None if word.exit_time is None else word.exit_time + turned_back
        word = replace(
            word,
            time=word.time + turned_back,
            exit_time=exit_time,
            container_id=self.life.container_id,  # one text for all
        )
        old = self.words.get(word.source)
        self.words[word.source] = word if old is None else _joined(old, word)

    def rest(self) -> None:
        """Drop what the registry can give again: of most that are kept nobody asks any more."""
        in_its_own = self.place is self.life
        self.life = replace(self.life, said={})
        self.place = self.life if in_its_own else replace(self.place, said={})

    @property
    def container(self) -> Container:
        """Who ended: as it is known now, else as it was told."""
        if self.life.said:
            return self.life.container
        told = self.told.container if self.told is not None else None
        return told or Container(id=self.life.container_id)

    def repeats(self, word: ContainerEnded) -> bool:
        """Did its source tell just this before? Runtimes repeat themselves after a reconnection."""
        old = self.words.get(word.source)
        return old is not None and (old.time, old.exit_code) == (word.time, word.exit_code)

    def recall(self, event: ContainerExit) -> None:
        """Take in what was journaled of it: whose words it rests on, what the looks showed."""
        self.words = {word.source: word for word in _words_of(event)}
        if not self.words:
            # Nobody's word can be read back: its facts are what they came to.
            self.words["journal"] = _word(event, "journal", event.detect_time)
        for evidence in event.evidence:
            if evidence.source != _COUNTERS:
                continue
            self.look_detail = evidence
            read = evidence.detail.endswith(_READ_AFTER)
            self.last_read = LastRead.READ if read else LastRead.SUMS
        self.told = event

    def look(self, reading: LastLookReading, *, shares: bool) -> None:
        """Take in the last look at its cgroup; of one that it `shares` others may live there."""
        self.runs = reading.populated and not shares
        if self.runs:
            self.ran_time = reading.time
        self.marks = tuple(KillerMark(killer=k, mark=m) for k, m in reading.killer_marks)
        if not reading.present:
            self.gone, self.gone_time = True, reading.time
        elif reading.kills is None:
            self.last_read = LastRead.NONE
        else:
            self.last_read = LastRead.READ
            detail = f"oom_kill {reading.kills} in {reading.path}, {_READ_AFTER}"
            self.look_detail = Evidence(source=_COUNTERS, time=reading.time, detail=detail)

    def sum_up(self, reading: AuditReading) -> None:
        """Take in that the sums were read from the top, as its cgroup is gone."""
        if not reading.counts:
            self.last_read = LastRead.NONE
            return
        self.summed = True
        detail = f"{self.place.cgroup} was gone, and no kill above it untold"
        self.look_detail = Evidence(source=_COUNTERS, time=reading.counts[0].time, detail=detail)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Who said what, and what the last look showed."""
        said = [
            Evidence(source=word.source, time=word.time, detail=_told_words(word))
            for word in self.words.values()
        ]
        looked = self.look_detail is not None and self.last_read not in (None, LastRead.NONE)
        return (*said, *((self.look_detail,) if self.look_detail and looked else ()))


def _joined(old: ContainerEnded, new: ContainerEnded) -> ContainerEnded:
    """A source's newer word, and its older one where that says nothing."""
    kept = {name: getattr(old, name) for name in _FACTS if getattr(new, name) is None}
    return replace(new, time=min(old.time, new.time), **kept)


def gist(event: ContainerExit) -> tuple[object, ...]:
    """What an amendment is worth telling for, if it changes."""
    return (
        event.verdict,
        event.confidence,
        event.kills,
        event.oom_kills,
        event.exit_code,
        event.signal,
        event.stop_requested,
        event.cgroup_id,
        # Why: a userspace killer's name may come late, and change nothing else.
        event.reasons[:1],
        # Who was killed and at whose limit: the log may say so after a kill was named.
        kills_of(event.reasons[1:]),
        what_is_due(event),
    )


def what_is_due(event: ContainerExit) -> tuple[str, ...]:
    """The reasons that name a witness which was not heard yet."""
    return tuple(reason for reason in event.reasons if reason.startswith(STILL_DUE))


def with_verdict_of(told: ContainerExit, event: ContainerExit) -> ContainerExit:
    """What is known of an exit now, with what was concluded when more of its evidence was here."""
    return replace(
        event,
        verdict=told.verdict,
        confidence=told.confidence,
        reasons=(
            *(reason for reason in told.reasons if not reason.startswith(STILL_DUE)),
            *what_is_due(event),
        ),
        kills=told.kills,
        oom_kills=told.oom_kills,
    )


def _told_words(word: ContainerEnded) -> str:
    if word.source == PATH:
        return "ended, and nobody told how"
    known = [
        f"{said} {value}" for said, name in _NUMBERS if (value := getattr(word, name)) is not None
    ]
    known += [said for said, name, fact in _PHRASES if getattr(word, name) is fact]
    return sys.intern("ended: " + ", ".join(known) if known else "ended")


def _words_of(event: ContainerExit) -> Iterator[ContainerEnded]:
    """Read back from a journaled exit what each source had said."""
    for evidence in event.evidence:
        begins, _, told = evidence.detail.partition("ended")
        if begins or evidence.source == _COUNTERS:
            continue
        facts: dict[str, Any] = {}
        for part in told.removeprefix(": ").split(", "):
            facts |= {name: fact for said, name, fact in _PHRASES if part == said}
            said, _, value = part.rpartition(" ")
            numbers = _NUMBERS if value.isdecimal() else ()
            facts |= {name: int(value) for number, name in numbers if said == number}
        unsaid = dict.fromkeys(("exit_code", "signal", "stop_requested"))
        yield replace(_word(event, evidence.source, evidence.time), **{**unsaid, **facts})


def _word(event: ContainerExit, source: str, time: int) -> ContainerEnded:
    assert event.container is not None
    return ContainerEnded(
        source=source,
        time=time,
        container_id=event.container.id,
        exit_code=event.exit_code,
        signal=event.signal,
        exit_time=event.exit_time,
        stop_requested=event.stop_requested,
    )
