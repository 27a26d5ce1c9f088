"""From the word that a container ended to one exit event with its verdict, for each life of it.

Pure, a part of the correlator. An exit is held open until it can be judged:

    a runtime's word on a container that a worker registered ── up to 5 s for the worker's own
    a last look at the counters ── they have risen before the victim is dead, so one look decides
    its cgroup is gone ── the sums above it must agree with what was told
    a kill that is open, unnamed or not written down yet ── a bounded moment
    nobody could say in which cgroup it was ── up to 5 s for that cgroup's removal, which tells it

Whoever asks for it is answered when its wait is over all the same, with what is still due.

Kills are told first, the exit after them. There is one exit for one life; what is learned later,
from a source, a late name or another call, amends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from oomwatch.containers.lives import WORKER, Life
from oomwatch.containers.registry import Containers
from oomwatch.correlator.exits.book import AMEND_SECONDS, ExitBook
from oomwatch.correlator.exits.ends import concerns
from oomwatch.correlator.exits.kills import KillsTold
from oomwatch.correlator.exits.told_before import ToldBefore
from oomwatch.correlator.exits.unsettled import Unsettled
from oomwatch.correlator.exits.witnesses import ExitWitnesses
from oomwatch.correlator.exits.words import Exit, gist, with_verdict_of
from oomwatch.correlator.kills import OpenKills, Outcome
from oomwatch.correlator.residuals import Residuals
from oomwatch.events import ContainerExit, Event, OomKill
from oomwatch.observations import (
    AuditReading,
    ContainerEnded,
    ExitFound,
    LastLook,
    LastLookReading,
    ReadSandboxLog,
    Recorded,
    SandboxLogRead,
    SandboxSeen,
    SignalledByKiller,
)
from oomwatch.verdict import ExitEvidence, LastRead

WORKER_SECONDS = 5.0
"""How long a worker's own word is awaited for a container that it registered."""

PLACE_SECONDS = 5.0
"""How long the removal of its cgroup may take to say where an end was of which nobody else can.

containerd tells of an end before it has the cgroup removed, and of one that comes at once nobody
could look up the pid.
"""

RUNTIME_SECONDS = 0.5
"""How long witnesses that are due are awaited where nobody waits for the answer."""


class Exits:
    """The exits that are open, and those of the last while."""

    def __init__(
        self,
        boot: str,
        containers: Containers,
        open_kills: OpenKills,
        residuals: Residuals,
        *,
        name: Callable[[Sequence[Event], float], list[Event]],
        counted: bool = True,
    ) -> None:
        """`name` gives events their containers; `counted` is False where there are no counters at
        all.
        """
        self._containers = containers
        self._open_kills = open_kills
        self._residuals = residuals
        self._name = name
        self._counted = counted
        self._kills = KillsTold()
        self._book = ExitBook(boot, containers.lives)
        self._witnesses = ExitWitnesses(
            containers.lives, self._kills, exit_revision=self._book.first_revision, counted=counted
        )
        self.began = self._witnesses.began
        self.unwatched_until = self._witnesses.unwatched_until
        self.seen = self._witnesses.seen
        self.watched = self._witnesses.watched
        self.hit_limit = self._witnesses.hit_limit
        self.sampled = self._witnesses.sampled
        self.sandbox = self._witnesses.sandbox
        self.life = self._book.life
        self.meant = self._book.meant
        self.answer = self._book.answer
        self._told_before = ToldBefore()
        self.is_deleted = self._told_before.is_deleted
        self._unsettled = Unsettled(self._witnesses)
        self.sought = self._unsettled.sought
        self._recent: dict[Exit, float] = {}
        """Those that were told, or looked at anew, in the last while, and when. In that order."""
        self._lacking: list[Exit] = []
        self._unread: dict[Exit, float] = {}
        """Those that were told before their counters, or the sums, could be read; until when they
        may be."""
        self._nameless: dict[Exit, float] = {}
        """Those that were told before it was known who was killed; until when that may come. In the
        order of time."""
        self._held: dict[Exit, float] = {}
        """Those that wait for their worker's own word; until when. In the order of time."""
        self._open: dict[Exit, None] = {}
        """Those that are looked at."""

    # What comes in

    def ended(self, ended: ContainerEnded, now: float, outcome: Outcome) -> Life | None:
        """Take in that a container ended, and return which life; `None` where nobody knows it."""
        life = self._book.ending(ended)
        if life is None:
            return None
        exit_ = self._book.of(life)
        if exit_ is None and life.end_told:
            episode_ids = self._book.episode_ids(life)
            outcome.questions.append(self._told_before.hold(life, ended, episode_ids))
            return life
        exit_ = exit_ or self._same_end(life, ended, now, outcome)
        if exit_ is None:
            exit_ = self._add(life, ended.time)
        if exit_.settled and exit_.stands is None and exit_.told is not None:
            # What it rested on may not all be here any more.
            left = self._witnesses.event(exit_, ended.time)
            exit_.stands = exit_.told if gist(left) != gist(exit_.told) else None
        if exit_.runs:
            near = self._witnesses.evidence(exit_).any_near
            if any(kill.time < exit_.ran_time for kill in near):
                exit_.was_dying()
        exit_.hear(ended, self._kills.leapt)
        exit_.awaits = None
        if exit_.looked_too_soon:
            exit_.runs = False
            self._look_anew(exit_, now, outcome)
        elif exit_.told is not None:
            self._judge_again(exit_, ended.time, outcome)
        elif exit_.due is None:
            if life.registered and WORKER not in exit_.words:
                self._held.setdefault(exit_, now + WORKER_SECONDS)
            else:
                self._begin(exit_, now, outcome)
        elif ended.wait_seconds is not None:
            # It was held for longer than this caller waits.
            exit_.due = min(exit_.due, now + ended.wait_seconds)
        return life

    def found_exit(self, found: ExitFound) -> list[ContainerEnded]:
        """Take in an exit that was told before, and return the words on it that waited for it.

        Of one that was deleted no word is taken in: it would be a second exit.
        """
        waiting = self._told_before.take(found.question)
        if waiting is None:
            return []
        life, words = waiting
        if self._book.of(life) is not None:
            return words
        if found.revision is not None and found.event is not None:
            exit_ = self._book.recall(found.revision, found.event)
            if exit_ is not None and exit_.life.key != life.key:
                self._book.move(exit_, life)
        elif self._containers.told_by_another_id(life):
            self._add(life, words[0].time)
        else:
            self._told_before.deleted(life)
            return []
        return words

    def placed(self, container_id: str, now: float, outcome: Outcome) -> None:
        """Take in what is known of a container's lives now: one may have been found its cgroup."""
        self._look_at_kills_anew()
        found = self._book.found_its_place(container_id)
        if found is not None:
            self._place(*found, now, outcome)

    def _same_end(
        self, life: Life, ended: ContainerEnded, now: float, outcome: Outcome
    ) -> Exit | None:
        exit_ = self._book.same_end(life, ended)
        if exit_ is not None and exit_.life.cgroup_id is None:
            self._place(exit_, life, now, outcome)
        return exit_

    def _place(self, exit_: Exit, life: Life, now: float, outcome: Outcome) -> None:
        """Put an exit into the cgroup that it is known to have been in from now on.

        One that was told already is judged once more: its counters, or the sums, can be read now.
        """
        self._book.move(exit_, life)
        if exit_.settled:
            return
        self._look_anew(exit_, now, outcome)

    def _look_anew(self, exit_: Exit, now: float, outcome: Outcome) -> None:
        """Read its counters again, for it is known by now where they are."""
        if exit_.due is None:
            return  # it is not looked at yet
        self._unread.pop(exit_, None)  # it is again, if this is not read in time
        exit_.last_read, exit_.gone, exit_.summed = None, False, False
        exit_.place_until = None
        until = exit_.due
        self._begin(exit_, now, outcome)
        if exit_.told is None:
            # Whoever waits for it does so no longer than before.
            exit_.due = min(until, exit_.due)

    def found(self, seen: SandboxSeen, now: float, outcome: Outcome) -> None:
        """Take in where a sandbox is; its exit may be open already, or told.

        A sandbox may end between its being found in /proc and that being told here, and a pod's
        container before its sandbox.
        """
        outcome.questions += self._witnesses.found(seen)
        self._look_at_kills_anew()
        if seen.sought:
            return
        exit_ = self._exit_of(seen)
        if exit_ is None or exit_.due is None or exit_.settled:
            return
        place = self._witnesses.place(exit_.life)
        if (place.cgroup, place.cgroup_id) != (exit_.place.cgroup, exit_.place.cgroup_id):
            self._look_anew(exit_, now, outcome)
        elif not exit_.log_asked:
            self._ask_for_log(exit_, outcome)  # its answer has it judged again
        else:
            self._judge_again(exit_, seen.time, outcome)

    def _ask_for_log(self, exit_: Exit, outcome: Outcome) -> None:
        """Have read what its sandbox wrote of its end, if it has one: that says whose a kill is."""
        sandbox = self._witnesses.sandbox(exit_.life)
        if sandbox is not None and not sandbox.sought:
            exit_.log_asked = True
            asked = (exit_.life.container_id, exit_.life.cgroup_id)
            outcome.questions.append(ReadSandboxLog(*asked, sandbox.sentry))

    def sandbox_wrote(self, read: SandboxLogRead, outcome: Outcome) -> None:
        """Take in what a sandbox wrote of its end; its exit may be told already."""
        self._witnesses.sandbox_wrote(read)
        self._look_at_kills_anew()
        exit_ = self._exit_of(read)
        if exit_ is not None:
            self._judge_again(exit_, exit_.seen_time, outcome)

    def _exit_of(self, sandbox: SandboxSeen | SandboxLogRead) -> Exit | None:
        """The exit of the life that a sandbox is; `None` while nobody told of its end."""
        life = self._book.life(sandbox.container_id, sandbox.cgroup_id)
        return None if life is None else self._book.of(life)

    def clock_stepped(self, microseconds: int) -> None:
        """Take in that the wall clock leapt."""
        self._kills.clock_stepped(microseconds)
        self._look_at_kills_anew()
        for exit_ in self._unjudged():
            exit_.gone_time += microseconds

    def recorded(self, recorded: Recorded, outcome: Outcome) -> None:
        """Take in the revision of a kill, or of an exit."""
        exit_ = self._book.in_episode(recorded.episode_id)
        if exit_ is not None:
            exit_.revision = recorded.revision
            exit_.first_revision = exit_.first_revision or recorded.revision
            if exit_.outdated:
                self._judge_again(exit_, exit_.seen_time, outcome)
            return
        kill = self._kills.recorded(recorded.episode_id, recorded.victim_cgroup, recorded.revision)
        if kill is None:
            return
        self._look_at_kills_anew(kill)
        for exit_ in [x for x in self._lacking if concerns(x.place, kill)]:
            evidence = self._witnesses.evidence(exit_)
            self._judge_again(exit_, exit_.seen_time, outcome, evidence)
            if not evidence.unwritten:
                self._lacking.remove(exit_)

    def looked(self, reading: LastLookReading) -> None:
        """Take in the last look at a cgroup."""
        self.hit_limit(reading.cgroup_id, reading.limit_hits)
        for exit_ in self._unjudged():
            asked = (exit_.place.cgroup, exit_.place.cgroup_id)
            if asked == (reading.path, reading.cgroup_id) and exit_.last_read is None:
                exit_.look(reading, shares=self._witnesses.shares_cgroup(exit_))
                exit_.awaits = None

    def audited(self, reading: AuditReading) -> None:
        """Take in that the sums were read from the top: what is in doubt is known from now on."""
        if reading.asked.parent is not None:
            return
        for exit_ in self._unjudged():
            # A long audit goes on in slices: its sum may have been read before this one ended.
            stale = reading.counts and reading.counts[0].time < exit_.gone_time
            if exit_.gone and not stale:
                exit_.sum_up(reading)

    def signalled(self, told: SignalledByKiller, outcome: Outcome) -> None:
        """Take in that a userspace OOM killer signalled a process: an exit may be told already."""
        self._witnesses.signalled(told)
        for exit_ in self._recent:
            self._judge_again(exit_, told.time, outcome)

    # What goes out

    @property
    def wants_sums(self) -> bool:
        """Is an exit open whose cgroup is gone, and the sums not read since?"""
        return any(exit_.gone and not exit_.summed for exit_ in self._unjudged())

    def _unjudged(self) -> Iterator[Exit]:
        """The exits that wait for a last look, or for the sums."""
        yield from self._open
        yield from self._unread

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called next; `None` while no exit is open, and nothing due."""
        first = (next(iter(held.values()), None) for held in (self._held, self._nameless))
        due = (exit_.due for exit_ in self._open)
        times = (time for time in (*due, *first) if time is not None)
        return min((*times, *self._unread.values()), default=None)

    def expire(self, now: float, outcome: Outcome) -> None:
        """Do what `advance` does, at `deadline`, and judge the exits that must be judged by now.

        What is asked now is answered first: a busy host makes a second look and its exit due in one
        moment.
        """
        self.advance(now, outcome)
        if not outcome.questions:
            for exit_ in [x for x in self._open if x.due is not None and x.due <= now]:
                self._conclude(exit_, now, outcome)

    def advance(self, now: float, outcome: Outcome) -> None:
        """Name and take in what is told now; judge the exits that can be judged."""
        while self._recent and now - next(iter(self._recent.values())) > AMEND_SECONDS:
            exit_ = next(iter(self._recent))
            del self._recent[exit_]
            exit_.rest()
        self._take(outcome, 0, now)
        self._read_late(now, outcome)
        self._give_names_up(now, outcome)
        while self._held and next(iter(self._held.values())) <= now:
            self._begin(next(iter(self._held)), now, outcome)
        for exit_ in list(self._open):
            if self._nothing_is_due(exit_):
                self._conclude(exit_, now, outcome)

    def _take(self, outcome: Outcome, first: int, now: float) -> None:
        """Name the events that are told now, and take in the kills among them; one of them may
        change an exit that was told before.
        """
        told = self._name(outcome.events[first:], now)
        outcome.events[first:] = told
        for event in told:
            if not isinstance(event, OomKill):
                continue
            before = self._kills.told(event)
            # Also where it may have been its own, and is known to be another's by now.
            kills = [event] if before is None else [event, before]
            self._look_at_kills_anew(*kills)
            for exit_ in self._recent:
                if any(concerns(exit_.place, kill) for kill in kills):
                    self._judge_again(exit_, event.detect_time, outcome)

    def recall(self, revision: int, event: Event) -> None:
        """Take in what was journaled before this process began, in this same boot."""
        if isinstance(event, OomKill):
            self._kills.told(event)
            self._kills.recorded(event.episode_id, event.victim_cgroup, revision)
        elif isinstance(event, ContainerExit):
            exit_ = self._book.recall(revision, event)
            if exit_ is not None:
                self._unsettled.recalled(exit_, event)

    def reopen(self, now: float, outcome: Outcome) -> None:
        """Look anew at the exits that were told with something due before this process began.

        From now on what is gone is known to be, and so are the counts above it.
        """
        for exit_ in self._unsettled.take():
            self._keep(exit_, now)
            self._begin(exit_, now, outcome)

    # Judging

    def _begin(self, exit_: Exit, now: float, outcome: Outcome) -> None:
        self._held.pop(exit_, None)
        self._open[exit_] = None
        waits = [w.wait_seconds for w in exit_.words.values() if w.wait_seconds is not None]
        exit_.due = now + min(waits, default=RUNTIME_SECONDS)
        exit_.life = self._containers.lives.of_key(exit_.life.key) or exit_.life
        place = exit_.place = self._witnesses.place(exit_.life)
        exit_.awaits = None
        self._ask_for_log(exit_, outcome)
        if self._counted and place.cgroup is not None:
            outcome.questions.append(LastLook(place.cgroup, place.cgroup_id))
        elif self._counted and not self._witnesses.was_unwatched(exit_, exit_.said_time):
            exit_.place_until = exit_.place_until or now + PLACE_SECONDS
            exit_.due = min(exit_.due, exit_.place_until) if waits else exit_.place_until
        else:
            exit_.last_read = LastRead.NONE

    def _nothing_is_due(self, exit_: Exit) -> bool:
        # First: it is all that is due to the thousands that end at once as a node is shut down.
        if exit_.last_read is None and not (exit_.gone and exit_.summed):
            return False
        if exit_.awaits or self._witnesses.seeks_sandbox(exit_.life):
            return False
        if exit_.log_asked and not self._witnesses.has_sandbox_log(exit_.life):
            return False
        cgroup = exit_.place.cgroup
        if cgroup is not None and self._open_kills.below(cgroup):
            return False
        if exit_.gone and self._in_doubt(exit_):
            return False
        if exit_.awaits is None:
            exit_.awaits = self._awaits(exit_)
        return not exit_.awaits

    def _look_at_kills_anew(self, *kills: OomKill) -> None:
        """Have the open exits that these kills concern, or all, look again what they wait for.

        It is asked with each observation, and a storm of kills brings thousands while a hundred
        exits are open: nearly all of them change nothing.
        """
        for exit_ in self._open:
            if not kills or any(concerns(exit_.place, kill) for kill in kills):
                exit_.awaits = None

    def _awaits(self, exit_: Exit) -> bool:
        """Is more to come on the kills near it: they themselves, their revisions, or names?"""
        evidence = self._witnesses.evidence(exit_)
        if evidence.unwritten:
            return True
        if not self._counted:
            # No counter says that there is a kill: its line may be read after the exit is told.
            return not evidence.near
        return self._awaits_names(evidence)

    def _awaits_names(self, evidence: ExitEvidence) -> bool:
        """Was somebody killed near the exit, here or perhaps here, and nobody has said who?"""
        return bool(self._open_kills.naming and evidence.unnamed)

    def _in_doubt(self, exit_: Exit) -> bool:
        return exit_.place.cgroup is None or self._residuals.in_doubt(exit_.place.cgroup)

    def _conclude(self, exit_: Exit, now: float, outcome: Outcome) -> None:
        if exit_.place.cgroup is not None:
            first = len(outcome.events)
            for cgroup in self._open_kills.below(exit_.place.cgroup):
                self._open_kills.close(cgroup, now, outcome)
            self._take(outcome, first, now)
        self._settle(exit_, now)
        if exit_.last_read is None:
            self._unread[exit_] = exit_.place_until or now + AMEND_SECONDS
        self._open.pop(exit_, None)
        self._keep(exit_, now)
        self._containers.end_told(exit_.life.key)
        evidence = self._witnesses.evidence(exit_)
        if exit_.told is not None:
            self._judge_again(exit_, exit_.seen_time, outcome, evidence)
        else:
            exit_.names_due = self._awaits_names(evidence)
            exit_.told = self._witnesses.event(exit_, exit_.seen_time, evidence)
            outcome.events.append(exit_.told)
            if exit_.names_due:
                self._nameless[exit_] = now + AMEND_SECONDS
        if evidence.unwritten:
            self._lacking.append(exit_)

    def _keep(self, exit_: Exit, now: float) -> None:
        """Let a kill that is told, or named, in the next while change it."""
        self._recent.pop(exit_, None)
        self._recent[exit_] = now

    def _settle(self, exit_: Exit, now: float) -> None:
        """The sums count once no residual that may be its own is in doubt any more; a removal that
        has not told its place in time is not awaited any longer.
        """
        if exit_.last_read is not None:
            return
        if exit_.gone and exit_.summed and not self._in_doubt(exit_):
            exit_.last_read = LastRead.SUMS
        elif exit_.place_until is not None and exit_.place_until <= now:
            exit_.last_read = LastRead.NONE

    def _read_late(self, now: float, outcome: Outcome) -> None:
        """Amend those whose counters, or the sums, were read after their caller's wait was over."""
        for exit_, until in list(self._unread.items()):
            self._settle(exit_, now)
            if exit_.last_read is None and until <= now:
                exit_.last_read = LastRead.NONE  # it never came
            if exit_.last_read is not None:
                del self._unread[exit_]
                self._judge_again(exit_, exit_.seen_time, outcome)

    def _give_names_up(self, now: float, outcome: Outcome) -> None:
        """Amend those of whose kills no name came while one could: none is due any more."""
        for exit_, until in list(self._nameless.items()):
            if until > now:
                break
            del self._nameless[exit_]
            exit_.names_due = False
            self._judge_again(exit_, exit_.seen_time, outcome)

    def _judge_again(
        self, exit_: Exit, time: int, outcome: Outcome, evidence: ExitEvidence | None = None
    ) -> None:
        """Amend an exit that was told, if what was learned since changes what it says."""
        told = exit_.told
        if told is None or exit_ in self._open:
            return
        exit_.outdated = exit_.revision is None
        if exit_.outdated:
            return
        event = self._witnesses.event(exit_, time, evidence)
        differs = (event.verdict, event.confidence) != (told.verdict, told.confidence)
        if exit_.stands is None and differs and not self._kills.knows(told.kills):
            exit_.stands = told
        if exit_.stands is not None:
            event = with_verdict_of(exit_.stands, event)
        if gist(event) == gist(told):
            return
        exit_.told = replace(event, amends=exit_.first_revision)
        exit_.revision = None
        outcome.events.append(exit_.told)

    def _add(self, life: Life, seen_time: int) -> Exit:
        exit_, forgotten = self._book.add(life, seen_time)
        exit_.leapt = self._kills.leapt
        for oldest in forgotten:
            self._open.pop(oldest, None)  # looked at anew
            self._unread.pop(oldest, None)
            self._nameless.pop(oldest, None)
            self._recent.pop(oldest, None)
            if oldest in self._lacking:
                self._lacking.remove(oldest)
        return exit_
