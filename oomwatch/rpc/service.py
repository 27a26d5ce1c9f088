"""OomWatchService: what each call answers, from the backend's journal and streams."""

from __future__ import annotations

from typing import Protocol

from oomwatch.errors import JournalReset
from oomwatch.journal import Journal
from oomwatch.rpc import translator_node
from oomwatch.rpc.limits import Admission
from oomwatch.rpc.paging import BYTES_A_PAGE, page_size, page_token, token_parts
from oomwatch.rpc.refusals import Context, invalid, not_found
from oomwatch.rpc.requests import filter_from_message, start_from_message
from oomwatch.rpc.streams import Streams
from oomwatch.rpc.translator import entry_to_message, frame
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.status import NodeStatus
from oomwatch.subscriptions import Earliest, EventFilter, Latest, Subscriptions

SERVICE = pb.DESCRIPTOR.services_by_name["OomWatchService"].full_name

CHANGING = frozenset({"WatchContainer", "UnwatchContainer", "FinalizeContainer"})
"""The calls that change what the daemon holds to be true, or writes down."""

LONG = frozenset({"ListEvents", "ListContainers"})
"""The calls that walk the journal or the tree: with 100,000 cgroups that takes a while."""

SCANNED_A_CALL = 10_000
"""How many events one ListEvents looks at: a filter that fits nothing cannot hold the journal."""

_READ_AT_ONCE = 500


class HistoryBackend(Protocol):
    """What the service tells of; `oomwatch.daemon.Watcher` is one."""

    @property
    def journal(self) -> Journal:
        """The history."""

    @property
    def subscriptions(self) -> Subscriptions:
        """The hub that wakes streams."""

    async def status(self) -> NodeStatus:
        """How the daemon is, now."""


class Service:
    """The calls, from the bytes of a request to the bytes of its answer."""

    def __init__(self, backend: HistoryBackend, streams: Streams, admission: Admission) -> None:
        self._backend = backend
        self._streams = streams
        self._admission = admission

    async def subscribe(self, request: bytes, context: Context) -> None:
        """Answer Subscribe: write messages until the client or the daemon has enough."""
        message = pb.SubscribeRequest.FromString(request)
        try:
            start = start_from_message(message.start, Latest())
            event_filter = filter_from_message(message.filter)
        except ValueError as error:
            raise invalid(error) from error
        with self._admission.filtering(event_filter):
            newest = self._backend.journal.newest_revision
            with await self._backend.subscriptions.open(start, event_filter) as subscription:
                await self._streams.send(subscription, context, newest)

    async def list_events(self, request: bytes) -> bytes:
        """Answer ListEvents: one page, after reading a bounded part of the journal."""
        message = pb.ListEventsRequest.FromString(request)
        size = page_size(message.page_size)
        journal = self._backend.journal
        try:
            event_filter = filter_from_message(message.filter)
            start = start_from_message(message.start, Earliest())
        except ValueError as error:
            raise invalid(error) from error
        if message.page_token:
            after = self._resume(message.page_token)
        else:
            with await self._backend.subscriptions.open(start, event_filter) as subscription:
                after = subscription.cursor
        frames, after, ended = await self._scan(after, event_filter, size)
        answer = pb.ListEventsResponse()
        answer.bookmark.revision = after
        answer.bookmark.journal_id = journal.id
        answer.bookmark.caught_up = ended
        if not ended:
            answer.next_page_token = page_token([journal.id, after])
        return b"".join(frames) + answer.SerializeToString()

    async def _scan(
        self, after: int, event_filter: EventFilter, size: int
    ) -> tuple[list[bytes], int, bool]:
        frames: list[bytes] = []
        held = scanned = 0
        while len(frames) < size and scanned < SCANNED_A_CALL and held < BYTES_A_PAGE:
            entries = await self._backend.subscriptions.history(after, _READ_AT_ONCE)
            if not entries:
                return frames, after, True
            for entry in entries:
                if event_filter.matches(entry.event):
                    if len(frames) == size or held >= BYTES_A_PAGE:
                        return frames, after, False
                    frames.append(frame(entry))
                    held += len(frames[-1])
                after = entry.revision
                scanned += 1
        return frames, after, after >= self._backend.journal.newest_revision

    def _resume(self, token: str) -> int:
        match token_parts(token):
            case [str(journal_id), int(after)] if 0 <= after < 2**63:
                if journal_id != self._backend.journal.id:
                    raise self._reset(journal_id)
                return after
        raise invalid("page_token is none that ListEvents gave: leave it empty to begin again")

    async def get_event(self, request: bytes) -> bytes:
        """Answer GetEvent."""
        message = pb.GetEventRequest.FromString(request)
        journal = self._backend.journal
        if message.revision < 1:
            raise invalid(f"revision {message.revision}: revisions begin at 1")
        if message.HasField("journal_id") and message.journal_id != journal.id:
            raise self._reset(message.journal_id)
        entry = await journal.get(message.revision)
        if entry is None:
            kept = f"it keeps {journal.oldest_revision} to {journal.newest_revision}"
            raise not_found(f"revision {message.revision} is not in the journal: {kept}")
        return pb.GetEventResponse(event=entry_to_message(entry)).SerializeToString()

    def _reset(self, asked: str) -> JournalReset:
        journal = self._backend.journal
        return JournalReset(asked, journal.id, journal.oldest_revision)

    async def get_status(self, request: bytes) -> bytes:
        """Answer GetStatus."""
        pb.GetStatusRequest.FromString(request)
        status = translator_node.status_to_message(await self._backend.status())
        return pb.GetStatusResponse(status=status).SerializeToString()
