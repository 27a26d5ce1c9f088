"""Where the server listens: a Unix socket that is never open wider than 0660, and TCP with TLS.

gRPC binds a Unix socket itself: with mode 0777 less the umask, and after deleting whatever socket
was at that path, one that another daemon answers on included (seen with grpcio 1.85). So it is let
bind in a directory of its own, mode 0700, where nobody else can reach it; the socket is given its
mode there, and is moved to its path once the server answers. That rename also replaces a stale
socket without a moment in which there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from oomwatch.address import LONGEST_SOCKET_PATH, TcpAddress, UnixAddress
from oomwatch.errors import AddressError

SOCKET_MODE = 0o660
_LOCK_ATTEMPTS = 100
_LOCK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server: its certificate chain and key, and the CA that clients must be of.

    Without `client_ca` any client may connect.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files. Raises AddressError, naming the one that cannot be used."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise AddressError(
                f"the TLS certificate {self.certificate} with the key {self.key} cannot be used: "
                f"{error}"
            ) from error
        pair = (_pem(self.key), _pem(self.certificate))
        if self.client_ca is None:
            return grpc.ssl_server_credentials([pair])
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            raise AddressError(f"the client CA {self.client_ca} cannot be used: {error}") from error
        return grpc.ssl_server_credentials(
            [pair], root_certificates=_pem(self.client_ca), require_client_auth=True
        )


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AddressError(f"{path} cannot be read: {error.strerror}") from error


def bind_tcp(
    server: grpc.aio.Server, address: TcpAddress, tls: TlsFiles | None, insecure: bool
) -> int:
    """Bind a TCP port and give its number (of use when 0 was asked for).

    Raises AddressError where it cannot be bound, and where neither TLS nor `insecure` is given:
    process names and command lines are not for everyone on the network.
    """
    if tls is None and not insecure:
        raise AddressError(
            f"{address} would be open to the network: give a TLS certificate and key, or ask for "
            "insecure"
        )
    try:
        if tls is None:
            port = server.add_insecure_port(address.target)
        else:
            port = server.add_secure_port(address.target, tls.credentials())
    except RuntimeError as error:
        raise AddressError(
            f"{address} cannot be listened on: is the port taken, or the host not of this machine?"
        ) from error
    if not port:
        raise AddressError(f"{address} cannot be listened on: is the port taken?")
    return port


class UnixListener:
    """A Unix socket: `bind` before the server starts, `publish` after, `remove` at the end."""

    def __init__(self, address: UnixAddress) -> None:
        self.path = Path(address.path)
        self._private: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._attempts = 0

    def bind(self, server: grpc.aio.Server) -> None:
        """Let gRPC bind out of reach, after seeing that the path can be had.

        Raises AddressError: another daemon answers there, something else than a socket is there,
        or the directory cannot be used.
        """
        try:
            self._make_parent()
            self._refuse_if_taken()
            private = Path(tempfile.mkdtemp(prefix=".", dir=self.path.parent))
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        self._private = private
        bound = private / "s"
        if len(os.fsencode(bound)) > LONGEST_SOCKET_PATH:
            self.remove()
            raise self._unusable(
                f"it leaves no room for a name beside it ({LONGEST_SOCKET_PATH} bytes are a "
                "socket's most)"
            )
        try:
            server.add_insecure_port(f"unix:{bound}")
        except RuntimeError as error:
            self.remove()
            raise self._unusable("gRPC could not bind it") from error

    async def publish(self) -> None:
        """Give the socket its mode, and move it to its path. Raises AddressError as `bind` does."""
        assert self._private is not None
        bound = self._private / "s"
        try:
            bound.chmod(SOCKET_MODE)
            while not self._moved(bound):  # noqa: ASYNC110 - another process has no Event to set
                await asyncio.sleep(_LOCK_SECONDS)
            self._private.rmdir()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        self._private = None

    def _moved(self, bound: Path) -> bool:
        """Look, and move the socket to its path, as one step; False while another one does so."""
        with _locked(self.path.parent) as locked:
            self._attempts += 1
            # A lock that is held on and on is nobody's start: then it is not waited for.
            if not locked and self._attempts < _LOCK_ATTEMPTS:
                return False
            self._refuse_if_taken()
            status = bound.stat()
            bound.rename(self.path)
            self._inode = (status.st_dev, status.st_ino)
        return True

    def remove(self) -> None:
        """Remove the socket if it is still ours, and what `bind` made."""
        if self._inode is not None:
            with contextlib.suppress(FileNotFoundError):
                status = self.path.lstat()
                if (status.st_dev, status.st_ino) == self._inode:
                    self.path.unlink()
            self._inode = None
        if self._private is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._private / "s").unlink()
            with contextlib.suppress(FileNotFoundError):
                self._private.rmdir()
            self._private = None

    def _make_parent(self) -> None:
        parent = self.path.parent
        if not parent.is_dir():
            parent.mkdir(parents=True, exist_ok=True)
            parent.chmod(0o755)

    def _refuse_if_taken(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise AddressError(
                f"{self.path} is there and is no socket: oomwatch does not delete it; move it "
                "away, or choose another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            failure = probe.connect_ex(str(self.path))
        if failure in (errno.ECONNREFUSED, errno.ENOENT):
            return  # stale: whoever bound it is gone
        if failure in (0, errno.EAGAIN, errno.EINPROGRESS):
            raise AddressError(
                f"another daemon answers at {self.path}: stop it, or choose another path"
            )
        raise AddressError(
            f"{self.path} is a socket, and whether it is in use cannot be told "
            f"({os.strerror(failure)}): remove it if it is not, or choose another path"
        )

    def _unusable(self, why: str) -> AddressError:
        return AddressError(f"{self.path} cannot be listened on: {why}")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory against other daemons that look and rename in it; False where one does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
