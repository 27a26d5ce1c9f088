"""How a call fails: a status with a sentence, and what a client can act on as an ErrorInfo."""

from __future__ import annotations

import asyncio
from typing import Any, Never, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from oomwatch.errors import CursorError, HistoryCompacted, JournalReset
from oomwatch.escaping import sentence

ERROR_DOMAIN = "oomwatch"
HISTORY_COMPACTED = "HISTORY_COMPACTED"
JOURNAL_RESET = "JOURNAL_RESET"

_LONGEST_ID = 256

Context = grpc.aio.ServicerContext[bytes, bytes]

GOING_AWAY = "the daemon is shutting down: reconnect, after the last revision seen"


class RefusalError(Exception):
    """A call that is answered with a status and a sentence for people."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code


def invalid(error: ValueError | str) -> RefusalError:
    """A request that its sender has to mend."""
    return RefusalError(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def not_found(words: str) -> RefusalError:
    """Something that is asked for by name, and is not there."""
    return RefusalError(grpc.StatusCode.NOT_FOUND, words)


async def abort(context: Context, code: grpc.StatusCode, words: str) -> Never:
    """End a call with a status and a sentence, which may quote what the client sent.

    It travels as a header, of which clients take 8 KiB in all, and ends in somebody's log.
    """
    await _end(context, code, sentence(words))


async def abort_cursor(context: Context, error: CursorError) -> Never:
    """End a call with OUT_OF_RANGE, and an ErrorInfo that says what is left to read."""
    info = error_details_pb2.ErrorInfo(domain=ERROR_DOMAIN)
    if isinstance(error, HistoryCompacted):
        info.reason = HISTORY_COMPACTED
        info.metadata["requested_revision"] = str(error.requested_revision)
        info.metadata["oldest_revision"] = str(error.oldest_revision)
    elif isinstance(error, JournalReset):
        info.reason = JOURNAL_RESET
        info.metadata["requested_journal_id"] = error.requested_journal_id[:_LONGEST_ID]
        info.metadata["journal_id"] = error.journal_id
        info.metadata["oldest_revision"] = str(error.oldest_revision)
    detail = any_pb2.Any()
    detail.Pack(info)
    code = grpc.StatusCode.OUT_OF_RANGE
    words = sentence(str(error))
    status = rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=words, details=[detail])
    )
    await _end(context, code, words, status.trailing_metadata)


async def _end(context: Context, code: grpc.StatusCode, words: str, *metadata: Any) -> Never:
    try:
        await context.abort(code, words, *metadata)
    except grpc.aio.UsageError as error:
        # It has a status already: one that waits to be read, or the client has hung up.
        raise asyncio.CancelledError from error
    raise AssertionError("abort returned")


def cursor_error(error: grpc.aio.AioRpcError) -> CursorError | None:
    """Read `abort_cursor`'s error back, with the daemon's own sentence; None when it is none."""
    try:
        status = rpc_status.from_call(cast(grpc.Call, error))
    except ValueError:
        return None
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if not detail.Unpack(info) or info.domain != ERROR_DOMAIN:
            continue
        oldest = _number(info.metadata["oldest_revision"])
        found: CursorError
        if info.reason == HISTORY_COMPACTED:
            found = HistoryCompacted(_number(info.metadata["requested_revision"]), oldest)
        elif info.reason == JOURNAL_RESET:
            asked, served = info.metadata["requested_journal_id"], info.metadata["journal_id"]
            found = JournalReset(asked, served, oldest)
        else:
            continue
        found.args = (error.details(),)
        return found
    return None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0
