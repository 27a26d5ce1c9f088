"""A real daemon under hostile clients: every call with any message, and bytes that are no calls."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.testing import FakeCgroupTree
from scripts._fuzz.messages import messages
from scripts._fuzz.parts import QUIET

EXAMPLES = 25

SERVICE = pb.DESCRIPTOR.services_by_name["OomWatchService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CALL_SECONDS = 20.0
GROWTH_BYTES = 16 << 20
GROWTH_DESCRIPTORS = 4

_BLAMELESS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
"""No request, however malformed, may be answered so: that is a failure of the daemon."""


@dataclass(frozen=True)
class Size:
    """What a process holds."""

    resident_bytes: int
    descriptors: int


class Daemon:
    """`oomwatch serve` on a fake tree, with a history to ask for."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "s"
        self.log = directory / "log"
        tree = FakeCgroupTree(directory / "cgroup")
        for name in ("/a", "/a/b", "/c"):
            tree.make(name)
        self._command = [
            sys.executable, "-m", "oomwatch.cli.main", "serve", "--socket", str(self.socket),
            "--state-dir", str(directory / "state"), "--cgroup-root", str(tree.root),
            "--kernel-log", "off",
        ]  # fmt: skip
        self.tree = tree
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and give it a few kills to tell of."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stderr=log)
        with self.channel() as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
        for number in range(1, 11):
            self.tree.kill("/a", number)
        self.must_answer()

    def stop(self) -> None:
        """End it. Raises AssertionError where it had ended before, or not in good order."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=60)
        assert code == 0, f"it ended with {code}: {self.words()}"
        assert "Traceback" not in self.words(), self.words()
        assert "failed" not in self.words(), self.words()

    def words(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-4000:]

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self.socket}", options) as channel:
            yield channel

    def must_answer(self) -> None:
        """Raises where it does not answer any more."""
        with self.channel() as channel:
            call = channel.unary_unary(
                f"/{SERVICE.full_name}/GetStatus",
                request_serializer=bytes,
                response_deserializer=pb.GetStatusResponse.FromString,
            )
            call(b"", timeout=CALL_SECONDS, wait_for_ready=True)

    def size(self) -> Size:
        """What it holds now."""
        assert self._process is not None
        proc = Path("/proc", str(self._process.pid))
        pages = int((proc / "statm").read_text().split()[1])
        return Size(pages * os.sysconf("SC_PAGESIZE"), len(list((proc / "fd").iterdir())))


def calls(daemon: Daemon, round_seed: int) -> None:
    """Every call, with a message of its type, or with bytes that are none."""
    with daemon.channel() as channel:
        for method in (*SERVICE.methods, *HEALTH.methods):
            _call(channel, method, round_seed)


def _call(channel: grpc.Channel, method: MethodDescriptor, round_seed: int) -> None:
    name = method.name
    path = f"/{method.containing_service.full_name}/{name}"
    encoded = messages(method.input_type).map(lambda message: message.SerializeToString())

    @settings(QUIET, max_examples=EXAMPLES)
    @seed(round_seed)
    @given(request=st.one_of(encoded, encoded, st.binary(max_size=200), st.just(b"\x0a" * 20_000)))
    def check(request: bytes) -> None:
        code, words = (
            _stream(channel, path, request)
            if method.server_streaming
            else _answer(channel, path, request)
        )
        assert code not in _BLAMELESS, (name, request, code, words)
        assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, (name, request, "hangs")
        assert words.isprintable(), (name, request, ascii(words))
        assert len(words) < 4000, (name, request, len(words))

    check()


def _answer(channel: grpc.Channel, path: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    call: Callable[..., bytes] = channel.unary_unary(path, request_serializer=bytes)
    try:
        call(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def _stream(channel: grpc.Channel, path: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    call: Any = channel.unary_stream(path, request_serializer=bytes)
    stream = call(request, timeout=CALL_SECONDS)
    try:
        next(stream, b"")  # the bookmark that every stream begins with
        stream.cancel()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def garbage(daemon: Daemon, round_seed: int) -> None:
    """Connections of bytes that are no calls: noise, half a preface, frames of every kind."""
    frames = st.builds(
        lambda size, kind, flags, stream, body: (
            (len(body) if size is None else size).to_bytes(3, "big")
            + bytes([kind, flags])
            + stream.to_bytes(4, "big")
            + body
        ),
        st.one_of(st.none(), st.integers(0, 2**24 - 1)),
        st.one_of(st.integers(0, 10), st.integers(0, 255)),
        st.integers(0, 255),
        st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)),
        st.binary(max_size=100),
    )
    sent = st.one_of(
        st.binary(max_size=2000),
        st.integers(0, len(PREFACE)).map(lambda size: PREFACE[:size]),
        st.lists(frames, max_size=20).map(lambda parts: PREFACE + b"".join(parts)),
    )

    @settings(QUIET, max_examples=EXAMPLES)
    @seed(round_seed)
    @given(sent=sent)
    def check(sent: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.02)
            connection.connect(str(daemon.socket))
            with contextlib.suppress(OSError):
                connection.sendall(sent)
                while connection.recv(65536):
                    pass

    check()
    daemon.must_answer()


@contextlib.contextmanager
def rounds() -> Iterator[Callable[[int], None]]:
    """Give a round against a daemon; at the end see that it is well, and not grown."""
    with tempfile.TemporaryDirectory(prefix="oomwatch-fuzz-", dir="/dev/shm") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        warm: Size | None = None
        done = 0

        def run(round_seed: int) -> None:
            nonlocal warm, done
            calls(daemon, round_seed)
            garbage(daemon, round_seed)
            done += 1
            # The first rounds fill what is meant to be filled: caches, allocator, code.
            if done == 2:
                warm = daemon.size()

        try:
            yield run
            if warm is not None:
                daemon.must_answer()
                _see_growth(warm, daemon.size(), done)
        finally:
            daemon.stop()


def _see_growth(warm: Size, now: Size, done: int) -> None:
    print(
        f"fuzz: the daemon held {warm.resident_bytes >> 10} KiB and {warm.descriptors} descriptors "
        f"after 2 rounds, {now.resident_bytes >> 10} KiB and {now.descriptors} after {done}",
        file=sys.stderr,
    )
    assert now.resident_bytes - warm.resident_bytes < GROWTH_BYTES, "its memory grows"
    assert now.descriptors - warm.descriptors <= GROWTH_DESCRIPTORS, "its descriptors grow"
