"""Addresses of a daemon: a Unix socket's path, or HOST:PORT. Loads no gRPC: --help is quick.

/run/oomwatch/oomwatch.sock     a path: anything that begins with "/" or "." or holds a "/"
unix:/run/oomwatch/oomwatch.sock    the same (also unix:///run/…)
node-7:9090, 10.0.0.7:9090, [fd00::7]:9090    TCP
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass

from oomwatch.errors import AddressError

DEFAULT_SOCKET = "/run/oomwatch/oomwatch.sock"
"""Where the daemon listens, and where clients look for it, unless told otherwise."""

LONGEST_SOCKET_PATH = 107
"""Bytes of the longest path that a Unix socket can have (unix(7): sun_path less its NUL)."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket's path, absolute."""

    path: str

    @property
    def target(self) -> str:
        """The name that gRPC dials."""
        return f"unix:{self.path}"

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name, IPv4, or IPv6 without brackets) and a port from 0 to 65535."""

    host: str
    port: int

    @property
    def target(self) -> str:
        """The name that gRPC dials or listens on."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.target


Address = UnixAddress | TcpAddress


def parse_address(text: str | os.PathLike[str]) -> Address:
    """Read an address as people type it; relative paths are from the working directory.

    Raises AddressError, which says what an address looks like.
    """
    text = os.fspath(text)
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:").replace("///", "/", 1), text)
    if "/" in text or text.startswith("."):
        return _unix(text, text)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    # Without brackets nobody knows where an IPv6 address ends and its port begins.
    if not colon or not host or not is_port or "[" in host or (":" in host and not bracketed):
        raise AddressError(
            f"{text[:256]!r} is no address: give a socket's path ({DEFAULT_SOCKET}), unix:PATH, "
            "or HOST:PORT, of IPv6 [::1]:PORT"
        )
    return TcpAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """Do all the addresses that a host stands for lead back to this machine? It may ask the DNS."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    hosts = {str(address[0]).partition("%")[0] for *_, address in found}
    return all(ipaddress.ip_address(each).is_loopback for each in hosts)


def _unix(path: str, text: str) -> UnixAddress:
    if not path or "\0" in path or path.endswith("/"):
        raise AddressError(f"{text!r} names no Unix socket: give its path, {DEFAULT_SOCKET}")
    path = os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow symbolic links
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise AddressError(
            f"{path} is {len(os.fsencode(path))} bytes long, and a Unix socket's path has at most "
            f"{LONGEST_SOCKET_PATH}: choose a shorter one"
        )
    return UnixAddress(path)
