"""The server's certificate, which may be renewed while streams go on.

gRPC asks for the certificate as each connection is made, so a new one is for those that come later;
the others keep what they began with. The files are read again when their directories change (also
where Kubernetes swaps the symbolic link `..data` beside them) and on SIGHUP. What cannot be used is
said in the log, and the certificate that was read before stays.

TLS 1.2 is the oldest that is spoken: gRPC's own default, which Python cannot set (seen with grpcio
1.85: to a client of TLS 1.0 or 1.1 it hangs up, and logs UNSUPPORTED_PROTOCOL).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from inotify_simple import INotify, flags

from oomwatch.errors import AddressError
from oomwatch.watches import open_inotify

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.2
"""A certificate and its key are two files: how long after a change they are read, together."""

_CHANGES = int(flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.DELETE)
_READ_ATTEMPTS = 5
_READ_BYTES = 65536


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server: its certificate chain and key, and the CA that clients must be of.

    Without `client_ca` any client may connect.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        files = (self.certificate, self.key)
        return files if self.client_ca is None else (*files, self.client_ca)

    def read(self) -> tuple[bytes, ...]:
        """Read the files, as one state. Raises AddressError, naming what cannot be used."""
        for _ in range(_READ_ATTEMPTS):
            read = tuple(_pem(path) for path in self.paths())
            self._check()
            if read == tuple(_pem(path) for path in self.paths()):
                return read
        raise AddressError(f"{self.certificate} and its key change while they are read: try again")

    def _check(self) -> None:
        # Only here, for gRPC has a library of its own: 4 MiB where there is no TLS are spared.
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                # Else OpenSSL would ask a terminal for the passphrase of an encrypted key.
                self.certificate,
                self.key,
                password=lambda: "",
            )
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise AddressError(
                f"the TLS certificate {self.certificate} with the key {self.key} cannot be used: "
                f"{error}"
            ) from error
        if self.client_ca is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            raise AddressError(f"the client CA {self.client_ca} cannot be used: {error}") from error


class Certificates:
    """What each new connection is given. `follow` reads the files again when they change."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises AddressError, naming the one that cannot be used."""
        self._files = files
        self._read = files.read()
        self._configuration = _configuration(self._read)
        self._given = self._configuration
        self._inotify: INotify | None = None
        self._timer: asyncio.TimerHandle | None = None
        _warn_of_open_key(files.key)

    def credentials(self) -> grpc.ServerCredentials:
        """Give what gRPC listens with."""
        # Its types leave out the None that its documentation allows.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._fetch)
        return grpc.dynamic_ssl_server_credentials(
            self._given,
            fetch,
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Answer gRPC, from a thread of its own, before each handshake; None is "as before"."""
        newest = self._configuration
        if newest is self._given:
            return None
        self._given = newest
        return newest

    def reload(self) -> None:
        """Read the files again; what cannot be used is logged, and changes nothing."""
        try:
            read = self._files.read()
        except AddressError as error:
            _log.error("%s; new connections get the certificate that was read before", error)
            return
        if read != self._read:
            self._read = read
            self._configuration = _configuration(read)
            _log.info("%s was read again, for new connections", self._files.certificate)
            _warn_of_open_key(self._files.key)

    def follow(self) -> None:
        """Read the files again whenever they change, until `close`."""
        try:
            self._inotify = open_inotify()
        except OSError as error:
            _log.warning(
                "the TLS files cannot be followed (inotify: %s): send SIGHUP when they change",
                error.strerror,
            )
            return
        for place, why in self._watch(self._inotify):
            _log.warning(
                "changes in %s cannot be followed (%s): send SIGHUP when there are any", place, why
            )
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._changed, self._inotify)

    def close(self) -> None:
        """Follow no more."""
        if self._timer is not None:
            self._timer.cancel()
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            asyncio.get_running_loop().remove_reader(inotify.fileno())
            inotify.close()

    def _watch(self, inotify: INotify) -> list[tuple[Path, str | None]]:
        """Watch where the names are, and where the files are behind links; what cannot be, why."""
        refused = []
        places = {path.absolute().parent for path in self._files.paths()}
        places |= {Path(os.path.realpath(path)).parent for path in self._files.paths()}
        for place in places:
            try:
                inotify.add_watch(str(place), _CHANGES)
            except OSError as error:
                refused.append((place, error.strerror))
        return refused

    def _changed(self, inotify: INotify) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(inotify.fileno(), _READ_BYTES)
        # Not put off by what comes meanwhile: something else may write there without a pause.
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SETTLE_SECONDS, self._settled, inotify)

    def _settled(self, inotify: INotify) -> None:
        self._timer = None
        self._watch(inotify)
        self.reload()


def _configuration(read: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
    certificate, key, *client_ca = read
    return grpc.ssl_server_certificate_configuration(
        [(key, certificate)], root_certificates=client_ca[0] if client_ca else None
    )


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AddressError(f"{path} cannot be read: {error.strerror}") from error


def _warn_of_open_key(key: Path) -> None:
    """Say that others may read the key, and go on.

    Kubernetes mounts secrets with mode 0644 unless told otherwise, in a file system that only the
    pod sees: refusing, as sshd does, would break what is common there. Reading by the group is how
    Debian's ssl-cert and Kubernetes' fsGroup hand keys out, and is nobody's mistake.
    """
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            _log.warning(
                "the TLS key %s has mode %04o: others than its owner can read or replace it "
                "(chmod 600 %s; in Kubernetes, the secret's defaultMode)",
                key,
                mode,
                key,
            )
