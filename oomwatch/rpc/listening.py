"""A Unix socket that is never open wider than it was asked to be, and never in two daemons' hands.

Who may connect is whoever may write to the socket (man 7 unix): its mode and its group say so.

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
import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from oomwatch.address import LONGEST_SOCKET_PATH, UnixAddress, parse_address
from oomwatch.errors import AddressError
from oomwatch.rpc.limits import Caller

SOCKET_MODE = 0o660
_LOCK_ATTEMPTS = 100
_LOCK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A Unix socket to listen on: its path, and who may connect.

    `mode` is of its permissions (writing is what connecting needs), `group` a group's name or
    number, `None` for the process's own.
    """

    path: str | os.PathLike[str]
    mode: int = SOCKET_MODE
    group: str | None = None

    def address(self) -> UnixAddress:
        """The address of the path. Raises AddressError where it can be none."""
        text = os.fspath(self.path)
        address = parse_address(text if text.startswith("unix:") else str(Path(text).absolute()))
        assert isinstance(address, UnixAddress)
        return address


class UnixListener:
    """A Unix socket: `bind` before the server starts, `publish` after, `remove` at the end.

    It can be bound anew, to another server, once it is no longer `present`.
    """

    def __init__(self, wanted: UnixSocket) -> None:
        self.address = wanted.address()
        self.path = Path(self.address.path)
        self._mode = wanted.mode
        self._group = wanted.group
        self._private: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._attempts = 0

    def prepare(self) -> None:
        """See that the path can be had, and make the place out of reach where it is bound.

        Raises AddressError: another daemon answers there, something else than a socket is there,
        or the directory cannot be used.
        """
        self.withdraw()
        try:
            self._make_parent()
            self._refuse_if_taken()
            self._private = Path(tempfile.mkdtemp(prefix=".", dir=self.path.parent))
        except OSError as error:
            raise self._refused(error) from error
        self._attempts = 0
        if len(os.fsencode(self._private / "s")) > LONGEST_SOCKET_PATH:
            self.withdraw()
            raise self._unusable(
                f"it leaves no room for a name beside it ({LONGEST_SOCKET_PATH} bytes are a "
                "socket's most)"
            )

    def bind(self, server: grpc.aio.Server) -> None:
        """Let gRPC bind out of reach, in what `prepare` made. Raises AddressError as that does."""
        if self._private is None:
            self.prepare()
        assert self._private is not None
        bound = self._private / "s"
        try:
            server.add_insecure_port(f"unix:{bound}")
        except RuntimeError as error:
            self.withdraw()
            raise self._unusable("gRPC could not bind it") from error

    async def publish(self) -> None:
        """Give the socket its mode, and move it to its path. Raises AddressError as `bind` does."""
        assert self._private is not None
        bound = self._private / "s"
        try:
            self._let_in(bound)
            while not self._moved(bound):  # noqa: ASYNC110 - another process has no Event to set
                await asyncio.sleep(_LOCK_SECONDS)
            self._private.rmdir()
        except OSError as error:
            raise self._refused(error) from error
        self._private = None

    def _let_in(self, bound: Path) -> None:
        """Give the socket its group, then its mode: in between nobody can reach it."""
        if self._group is not None:
            try:
                group = int(self._group) if self._group.isdecimal() else _gid(self._group)
                os.chown(bound, -1, group)
            except PermissionError as error:
                raise self._unusable(
                    f"it cannot be given to the group {self._group}: {error.strerror}; only root, "
                    "or a member of that group, can do so"
                ) from error
        bound.chmod(self._mode)

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

    @property
    def present(self) -> bool:
        """Is the socket at its path, so that clients find it?"""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def caller(self, peer: str) -> Caller:
        """Whose call it is: to gRPC all who use this socket have the same, empty, name."""
        return Caller(f"{self.address}{peer.removeprefix('unix:')}")

    def remove(self) -> None:
        """Remove the socket if it is still ours, and what `bind` made."""
        with contextlib.suppress(OSError):  # what is left is stale, and replaced at the next start
            if self.present:
                self.path.unlink()
        self._inode = None
        self.withdraw()

    def withdraw(self) -> None:
        """Take back what `bind` made and `publish` did not let in."""
        if self._private is not None:
            with contextlib.suppress(OSError):
                (self._private / "s").unlink(missing_ok=True)
                self._private.rmdir()
            self._private = None

    def _make_parent(self) -> None:
        parent = self.path.parent
        if not parent.is_dir():
            try:
                parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = f"its directory cannot be made ({error.strerror}); choose another path"
                raise self._unusable(why) from error
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

    def _refused(self, error: OSError) -> AddressError:
        why = error.strerror or str(error)
        return self._unusable(f"{why}; choose another path, where oomwatch's user may write")

    def _unusable(self, why: str) -> AddressError:
        return AddressError(f"{self.path} cannot be listened on: {why}")


def refuse_one_for_both(workers: UnixListener, readers: UnixListener) -> None:
    """Raise AddressError where two sockets are one: the second would find a daemon at the first."""
    if _real(workers.path) == _real(readers.path):
        raise AddressError(
            f"--socket {workers.path} and --read-only-socket {readers.path} are one path, and must "
            "differ: what a client may do hangs on which of them it uses"
        )


def _real(path: Path) -> Path:
    """One path for all that a socket can be called: a link there is replaced, not followed."""
    return path.parent.resolve() / path.name


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise AddressError(
            f"there is no group {name!r} on this host: name one that is, or its number"
        ) from None


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
