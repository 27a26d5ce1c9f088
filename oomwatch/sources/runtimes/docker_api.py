"""Docker's HTTP API over its Unix socket, by the Docker SDK, with every answer bounded.

The SDK is imported by the first connection, not before: it costs 9 MiB. Of it the transport is
used (a `requests.Session` over a Unix socket); its calls read answers of any length whole, which a
lying runtime could use, so bodies are read here, with a limit and a deadline.

Everything here blocks: it is used in a thread. `cancel` alone may be called from another.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oomwatch.containers.claims import Json, parse_json
from oomwatch.errors import RuntimeBadAnswer, RuntimeSilent, RuntimeUnreachable

if TYPE_CHECKING:
    import requests
    from docker.types import CancellableStream

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""How long a request may take, from asking to the last byte."""

IDLE_SECONDS = 300.0
"""An event stream that was silent for so long is opened anew: a runtime that hangs looks just like
one with nothing to say. Nothing is lost by it, for the new one starts before the old one's end."""

LIST_BYTES = 16 << 20
INSPECT_BYTES = 1 << 20
EVENT_BYTES = 1 << 20
"""A longer event is passed over: it holds all labels of its container, and would come again with
each new connection."""

_READ_BYTES = 65536
_VERSION = re.compile(r"\d{1,2}\.\d{1,3}")
# What the events' filter takes: Podman has names of its own for two of them.
EVENTS = ("start", "oom", "kill", "die", "died", "rename", "destroy", "remove")


class DockerApi:
    """One runtime's API. `RuntimeUnreachable` wherever it does not answer as it should."""

    def __init__(self, socket: Path) -> None:
        import docker
        import requests
        import urllib3

        # A file that the person has for the Docker command may be broken: DockerException.
        self._failures = (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
        )
        self._timeout = requests.Timeout
        self._silent: str | None = None
        try:
            # The version is what the SDK's own calls would ask for; none of them is used.
            self._session = docker.APIClient(base_url=f"unix://{socket}", version="1.41")
        except self._failures as error:
            raise RuntimeUnreachable(_shown(error)) from error
        # Neither a proxy nor a .netrc has a say in a Unix socket.
        self._session.trust_env = False
        # The SDK would keep a connection for each URL, up to 25: a descriptor a container.
        self._session.headers["Connection"] = "close"
        # A small answer must not unpack to a large one.
        self._session.headers["Accept-Encoding"] = "identity"
        self._version = ""
        self._podman = False
        self._response: requests.Response | None = None
        self._stream: CancellableStream[bytes] | None = None
        self._cancelled = False

    def open(self) -> bool:
        """Agree on a version of the API; says whether it is Podman's.

        By /_ping, for /version has Podman start two programs first: that took it over 5 s in a
        slow machine.
        """
        response = self._request("/_ping", {}, ANSWER_SECONDS)
        version = response.headers.get("Api-Version", "")
        self._podman = "Libpod-Api-Version" in response.headers
        response.close()
        if not _VERSION.fullmatch(version):
            raise RuntimeUnreachable("it names no version of its API")
        self._version = f"/v{version}"
        return self._podman

    def running(self) -> list[Json]:
        """List the running containers, in the short form of GET /containers/json."""
        answer = self._get("/containers/json", LIST_BYTES)
        return answer if isinstance(answer, list) else []

    def inspect(self, container_id: str) -> Json:
        """Describe one container as GET /containers/ID/json does; `None` where it is gone.

        Or cannot be described: what is wrong with one container (a description of megabytes, a
        layer that is lost, a lock that is held for ever) must not cost all others their
        names. Where a second one in turn has no answer it is the runtime that hangs.
        """
        try:
            answer = self._get(f"/containers/{container_id}/json", INSPECT_BYTES)
        except RuntimeBadAnswer as error:
            log.info("container %s is not described: %s", container_id, error)
            return None
        except RuntimeSilent as error:
            if self._silent not in (None, container_id):
                raise
            log.warning("container %s is not described: %s", container_id, error)
            self._silent = container_id
            return None
        self._silent = None
        return answer

    def events(self, since: float, *, past: bool = False) -> Iterator[Json | None]:
        """Yield the containers' events from this time on (seconds since the epoch).

        The first item is `None`, once the runtime has agreed. Ends where the stream was silent for
        long: then it can be opened anew. `past` gives what the runtime remembers up to now, as far
        as that comes in a while.
        """
        from docker.types import CancellableStream

        filters = json.dumps({"type": ["container"], "event": EVENTS})
        params = {"since": f"{since:.9f}", "filters": filters}
        if past and self._podman:
            params["stream"] = "false"  # with an end that is past, 4.3 was seen to give nothing
        elif past:
            params["until"] = f"{time.time():.9f}"
        silence = ANSWER_SECONDS if past else IDLE_SECONDS
        response = self._request("/events", params, silence)
        self._response = response
        parts = response.iter_content(_READ_BYTES)
        # Its close() ends a read that is under way in another thread. It is not read by: to it a
        # stream that was cut has ended.
        self._stream = CancellableStream(parts, response)
        if self._cancelled:
            self.cancel()
        yield None
        lines = _Lines()
        began = heard = time.monotonic()
        try:
            for part in parts:
                heard = time.monotonic()
                if past and heard - began > ANSWER_SECONDS:
                    break
                yield from lines.feed(part)
            else:
                if not past:
                    raise RuntimeUnreachable("it closed the connection")
        except (AttributeError, ValueError) as error:
            # urllib3 lost its socket under its hands: cancel() came from the other thread.
            raise RuntimeUnreachable("the connection was closed") from error
        except self._failures as error:
            # Silence is such a failure too.
            if self._cancelled or time.monotonic() - heard < 0.9 * silence:
                raise RuntimeUnreachable(_shown(error)) from error
        finally:
            response.close()

    def cancel(self) -> None:
        """End the events, from whichever thread."""
        self._cancelled = True
        if self._stream is not None:
            with contextlib.suppress(OSError, AttributeError):
                self._stream.close()

    def close(self) -> None:
        """Close every connection, in the thread that uses them."""
        self.cancel()
        if self._response is not None:
            self._response.close()
        self._session.close()

    def _get(self, path: str, limit: int) -> Json:
        response = self._request(path, {}, ANSWER_SECONDS)
        deadline = time.monotonic() + ANSWER_SECONDS
        body = bytearray()
        try:
            if response.status_code == 404:
                return None
            for part in response.iter_content(_READ_BYTES):
                body += part
                if len(body) > limit:
                    raise RuntimeBadAnswer(f"it answers with more than {limit >> 20} MiB")
                if time.monotonic() > deadline:
                    raise RuntimeSilent(f"it took more than {ANSWER_SECONDS:g} s to answer")
        except self._failures as error:
            raise RuntimeUnreachable(_shown(error)) from error
        finally:
            response.close()
        answer = parse_json(bytes(body))
        if answer is None and not _says_its_length(response, len(body)):
            # Its header was cut: then an answer is as long as the connection, and seems whole.
            raise RuntimeUnreachable("it closed the connection")
        return answer

    def _request(self, path: str, params: dict[str, str], seconds: float) -> requests.Response:
        if self._cancelled:
            raise RuntimeUnreachable("the connection was closed")
        url = f"{self._session.base_url}{self._version}{path}"
        try:
            response = self._session.get(
                url,
                params=params,
                stream=True,
                allow_redirects=False,
                timeout=(ANSWER_SECONDS, seconds),
            )
        except self._timeout as error:
            raise RuntimeSilent(_shown(error)) from error
        except (*self._failures, ValueError) as error:
            raise RuntimeUnreachable(_shown(error)) from error
        if response.status_code not in (200, 404) or "Content-Encoding" in response.headers:
            response.close()
            raise RuntimeBadAnswer(f"it answers {response.status_code} to {path}")
        return response


def _says_its_length(response: requests.Response, length: int) -> bool:
    """Is it known that an answer came to its end? A missing chunk is an error by itself."""
    told = response.headers.get("Content-Length")
    return "Transfer-Encoding" in response.headers or told == str(length)


class _Lines:
    """Events, each a line of JSON, out of a stream that is cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._passed_over = 0

    def feed(self, part: bytes) -> Iterator[Json]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            if not self._passed_over and len(line) <= EVENT_BYTES:
                yield parse_json(line)
            self._passed_over = 0
        if self._passed_over or len(self._rest) > EVENT_BYTES:
            self._passed_over += len(self._rest)
            self._rest = b""
        if self._passed_over > LIST_BYTES:
            raise RuntimeUnreachable(f"it sends an event of more than {LIST_BYTES >> 20} MiB")


def _shown(error: BaseException) -> str:
    """The innermost reason, in a line: the SDK's errors wrap one another three deep."""
    reason = error
    while reason.__cause__ or reason.__context__:
        reason = reason.__cause__ or reason.__context__ or reason
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)[:200] or type(reason).__name__
