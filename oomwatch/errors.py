"""Every error that oomwatch raises on purpose.

    OomwatchError
    ├── CgroupError             the cgroup tree cannot be used
    │   ├── NoCgroupRoot        the directory is missing, or is no directory
    │   ├── NoMemoryController  cgroup v1, or v2 without the memory controller
    │   ├── BadCgroupPath       a client's path that can be no cgroup's below the root
    │   ├── NoSuchCgroup        no cgroup is (any more) where a client says, or in what is watched
    │   └── NoSuchProcess       the process that a client names is gone
    ├── NoSuchContainer         nobody spoke of a container of that id
    ├── NoSuchExit              an exit was told, and the journal has it no longer
    ├── JournalError            the journal cannot be opened, read or written
    │   ├── JournalLocked       another daemon holds it
    │   ├── JournalUnusable     corrupt, of a newer version, or its disk refuses
    │   └── JournalStalled      what was asked for cannot be written down yet
    ├── CursorError             a subscription cannot start where it was asked to
    │   ├── HistoryCompacted    the events after the cursor were deleted by retention
    │   └── JournalReset        the cursor belongs to another journal
    │       └── CursorAhead     ... or to a lost copy of this one (oomwatch.subscriptions)
    ├── SubscriptionClosed      oomwatch is shutting down (oomwatch.subscriptions)
    ├── LayoutError             a pattern for container paths cannot be understood
    ├── LimitReached            a client asks for more than it is given
    ├── RuntimeUnreachable      a container runtime does not answer as it should
    │   ├── RuntimeBadAnswer    ... but with something else than what was asked for
    │   └── RuntimeSilent       ... at all, once it was asked
    ├── AddressError            a socket cannot be listened on or understood
    ├── LogUnreadable           a log file cannot be opened or unpacked (oomwatch.cli)
    ├── OwnFault                oomwatch itself has a fault, and ends rather than tell wrongly
    ├── DaemonUnavailable       no daemon answers, or it went away and did not come back
    └── RequestRefused          the daemon answers, and will not do what was asked

Each names the path or the address it is about, and says what to do next.
"""

from __future__ import annotations


class OomwatchError(Exception):
    """The root: catching it catches every error that oomwatch raises on purpose."""


class CgroupError(OomwatchError):
    """The cgroup tree cannot be used as it is."""


class NoCgroupRoot(CgroupError):
    """The cgroup root is missing or is not a directory."""


class NoMemoryController(CgroupError):
    """There is a hierarchy, but no cgroup v2 memory controller in it."""


class BadCgroupPath(CgroupError):
    """A client's path that can be no cgroup's below the watched root: its sender has to mend it.

    It is relative, holds `..` or a NUL, is too long, above the root, or leads through a link.
    """


class NoSuchCgroup(CgroupError):
    """No cgroup is at the path that a client gave: it is gone, or never was."""


class NoSuchProcess(CgroupError):
    """The process that a client gave is gone."""


class LimitReached(OomwatchError):
    """A bound on what clients may hold is reached; the message names it, and the mend."""


class NoSuchContainer(OomwatchError):
    """Nobody spoke of a container of that id, and no cgroup here is named after it."""


class NoSuchExit(OomwatchError):
    """The exit of that life was told, and retention has deleted it: there is no second one."""


class JournalError(OomwatchError):
    """The journal cannot be opened, read or written."""


class JournalLocked(JournalError):
    """Another process holds this journal."""


class JournalUnusable(JournalError):
    """The database is corrupt, newer than this program, or its disk refuses it."""


class JournalStalled(JournalError):
    """What was asked for is held in memory and cannot be written down yet."""


START_AGAIN = "start from 'earliest'"
"""The mend of a cursor's error for who calls by gRPC or Python; `oomwatch tail` has its own."""


class CursorError(OomwatchError):
    """A subscription cannot start where it was asked to."""


class HistoryCompacted(CursorError):
    """Events after the cursor were deleted by retention.

    `oldest_revision` is the oldest revision that can still be read, and
    `requested_revision` the cursor that was asked for.
    """

    def __init__(self, requested_revision: int, oldest_revision: int) -> None:
        super().__init__(
            f"revision {requested_revision} was compacted away; the oldest one kept is "
            f"{oldest_revision}: {START_AGAIN}, or after {oldest_revision - 1}"
        )
        self.requested_revision = requested_revision
        self.oldest_revision = oldest_revision


class JournalReset(CursorError):
    """The cursor belongs to another journal than the one that is served now.

    `requested_journal_id` is the cursor's, `journal_id` the one served,
    `oldest_revision` the oldest revision that can be read there.
    """

    def __init__(self, requested_journal_id: str, journal_id: str, oldest_revision: int) -> None:
        super().__init__(
            f"the cursor is of journal {requested_journal_id}, but journal {journal_id} is served: "
            f"events of the old journal are gone; {START_AGAIN}"
        )
        self.requested_journal_id = requested_journal_id
        self.journal_id = journal_id
        self.oldest_revision = oldest_revision


class LayoutError(OomwatchError):
    """A pattern for the paths of an operator's own containers cannot be understood."""


class RuntimeUnreachable(OomwatchError):
    """A container runtime does not answer, refuses, or answers what it should not."""


class RuntimeBadAnswer(RuntimeUnreachable):
    """It answers, but not with what was asked for: with an error, or too much."""


class RuntimeSilent(RuntimeUnreachable):
    """It took the question, and does not answer in time."""


class AddressError(OomwatchError):
    """An address cannot be listened on, or cannot be understood."""


class OwnFault(OomwatchError):
    """Oomwatch has a fault of its own; what it holds can no longer be trusted, the journal can."""


class DaemonUnavailable(OomwatchError):
    """No daemon answers at the address, or it went away and did not come back."""


class RequestRefused(OomwatchError):
    """The daemon answers, and will not do what was asked; the message is its own sentence.

    `status` is the name of the gRPC status: UNIMPLEMENTED, RESOURCE_EXHAUSTED, …
    """

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
