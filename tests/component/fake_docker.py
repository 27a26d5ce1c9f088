"""A server that speaks as much of Docker's HTTP API over a Unix socket as is asked of it.

It is real as far as the wire goes, and can be told to hang, to lie, to flood, or to end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WEB = "ee129607aff3d1cf1f1f4fdcbb5c38b4fb3a3b0f2bb6b6d3c56a07d9c1b0f0aa"
DB = "0ba8ac17e4e7a31fb82279503552fe94e64bab4745bf6fd2ff231e7c8ca8bed0"


def now_shown() -> str:
    """This moment, as Docker shows it."""
    return f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def container(container_id: str, name: str, **state: Any) -> dict[str, Any]:
    """What GET /containers/ID/json shows of a container that runs."""
    return {
        "Id": container_id,
        "Name": f"/{name}",
        "State": {"Running": True, "Pid": 0, "OOMKilled": False, "ExitCode": 0, **state},
        "Config": {"Image": "shop:1", "Labels": {"app": name}, "StopSignal": "SIGWINCH"},
        "HostConfig": {"Memory": 32 << 20, "Runtime": "runc"},
    }


class FakeDocker:
    """The runtime's state, and its misbehaviour."""

    def __init__(self) -> None:
        self.podman = False
        self.version = "1.41"
        self.ends_the_past = True
        self.containers: dict[str, Any] = {}
        # What stands for the answer to a path, as it is.
        self.raw: dict[str, bytes] = {}
        # What is answered once, instead, before the connection is closed.
        self.cut: dict[str, bytes] = {}
        self.hangs: set[str] = set()
        self.requests: list[str] = []
        self.sinces: list[float] = []
        self.past: list[bytes] = []
        self._streams: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def following(self) -> bool:
        """Does anybody follow the events?"""
        return bool(self._streams)

    def event(self, action: str, container_id: str, **attributes: str) -> bytes:
        """Report an event to whoever follows, and remember it; returns its line."""
        nanoseconds = time.time_ns()
        line = (
            json.dumps(
                {
                    "Type": "container",
                    "Action": action,
                    "Actor": {"ID": container_id, "Attributes": attributes},
                    "time": nanoseconds // 10**9,
                    "timeNano": nanoseconds,
                }
            ).encode()
            + b"\n"
        )
        self.past.append(line)
        self.send(line)
        return line

    def send(self, data: bytes) -> None:
        """Send this to whoever follows, as it is."""
        for stream in self._streams:
            stream.write(b"%x\r\n%s\r\n" % (len(data), data))

    def break_off(self, data: bytes) -> None:
        """Send this to whoever follows, which is no chunk, and close the connection."""
        for stream in self._streams:
            stream.write(data)
            stream.close()

    def drop(self) -> None:
        """Close every connection, as a daemon that is killed does."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while request := (await reader.readuntil(b"\r\n\r\n")).decode():
                target = request.split(" ")[1]
                if not await self._answer(target, writer):
                    await reader.read()  # until they are gone
                    return
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._streams.discard(writer)
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, target: str, writer: asyncio.StreamWriter) -> bool:
        url = urlsplit(target)
        path = url.path.removeprefix(f"/v{self.version}")
        self.requests.append(path)
        if path in self.hangs:
            return False
        if path in self.cut:
            writer.write(self.cut.pop(path))
            await writer.drain()
            raise ConnectionResetError
        if path in self.raw:
            writer.write(self.raw[path])
            await writer.drain()
            return True
        if path == "/events":
            query = parse_qs(url.query)
            since = float(query["since"][0])
            until = float(query["until"][0]) if "until" in query else None
            past = query.get("stream") == ["false"] if self.podman else until is not None
            if self.podman and until is not None:
                until = since  # so it is with Podman 4.3
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for line in self.past:
                if since <= json.loads(line)["timeNano"] / 1e9 <= (until or time.time()):
                    writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            if past:
                if self.ends_the_past:
                    writer.write(b"0\r\n\r\n")
                return self.ends_the_past
            self.sinces.append(since)
            self._streams.add(writer)
            return False
        if path == "/_ping":
            libpod = b"Libpod-Api-Version: 4.3.1\r\n" if self.podman else b""
            writer.write(
                b"HTTP/1.1 200 OK\r\nApi-Version: %s\r\n%sContent-Length: 2\r\n\r\nOK"
                % (self.version.encode(), libpod)
            )
            return True
        answer: Any = None
        if path == "/containers/json":
            answer = [
                {
                    "Id": one["Id"],
                    "Names": [one["Name"]],
                    "Image": one["Config"]["Image"],
                    "Labels": one["Config"]["Labels"],
                }
                for one in self.containers.values()
                if one["State"]["Running"]
            ]
        else:
            answer = self.containers.get(path.split("/")[2])
        body = json.dumps(answer if answer is not None else {"message": "No such container"})
        status = b"200 OK" if answer is not None else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (
            status,
            len(body.encode()),
        )
        writer.write(head + body.encode())
        return True


def remove(socket: Path) -> None:
    """From Python 3.13 on the server has done so itself."""
    socket.unlink(missing_ok=True)


@asynccontextmanager
async def listening(docker: FakeDocker, socket: Path) -> AsyncIterator[None]:
    """Serve at the socket, which is gone afterwards, as is every connection."""
    server = await asyncio.start_unix_server(docker.serve, socket, limit=1 << 20)
    try:
        yield
    finally:
        server.close()
        docker.drop()
        await server.wait_closed()
        remove(socket)
