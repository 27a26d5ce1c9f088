"""TCP with TLS as it is in the field: certificates are renewed, clients are old, keys lie open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient, ClientTls
from oomwatch.daemon import Watcher
from oomwatch.errors import AddressError, DaemonUnavailable, RequestRefused
from oomwatch.events import Container
from oomwatch.rpc.limits import Limits
from oomwatch.rpc.server import Plaintext, RpcServer, TlsFiles

BOUND = 30.0


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


def make_authority(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca",
        "-addext", "keyUsage=critical,keyCertSign", cwd=directory,
    )  # fmt: skip


def make_pair(
    directory: Path, name: str, serial: int, of: str = "IP:127.0.0.1,DNS:localhost"
) -> None:
    (directory / "ext").write_text(f"subjectAltName={of}\n")
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", cwd=directory,
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial",
        str(serial), "-days", "2", "-extfile", "ext", "-out", f"{name}.pem", cwd=directory,
    )  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, the pairs first (serial 1), second (2), client (3) and elsewhere (4), which has another
    name, and another CA's stranger.
    """
    made = tmp_path_factory.mktemp("pem")
    make_authority(made)
    for serial, name in enumerate(("first", "second", "client"), start=1):
        make_pair(made, name, serial)
    make_pair(made, "elsewhere", 4, of="DNS:node-7.example")
    make_authority(made / "other")
    make_pair(made / "other", "stranger", 9)
    return made


@pytest.fixture
def files(authority: Path, tmp_path: Path) -> TlsFiles:
    """The first pair, where a server reads it."""
    place = tmp_path / "tls"
    place.mkdir()
    shutil.copy(authority / "first.pem", place / "tls.crt")
    shutil.copy(authority / "first.key", place / "tls.key")
    return TlsFiles(place / "tls.crt", place / "tls.key")


def serving(watcher: Watcher, files: TlsFiles) -> RpcServer:
    return RpcServer(watcher, socket=None, listen="127.0.0.1:0", tls=files)


def _handshake(port: int, version: ssl.TLSVersion | None) -> tuple[str | None, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if version is not None:
        # OpenSSL's own defaults would not let an old version be tried at all.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=BOUND) as raw,
        context.wrap_socket(raw) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None
        text = subprocess.run(
            ["openssl", "x509", "-inform", "DER", "-noout", "-serial"],
            input=certificate, check=True, capture_output=True,
        ).stdout  # fmt: skip
        return secured.version(), int(text.partition(b"=")[2], 16)


async def handshake(
    server: RpcServer, version: ssl.TLSVersion | None = None
) -> tuple[str | None, int]:
    """Shake hands as a client would: the version that is spoken, the certificate's serial."""
    assert server.port is not None
    return await asyncio.to_thread(_handshake, server.port, version)


async def serial_becomes(server: RpcServer, serial: int) -> None:
    async with asyncio.timeout(BOUND):
        while (await handshake(server))[1] != serial:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_what_is_older_than_tls_1_2_is_refused(
    watcher: Watcher,
    files: TlsFiles,
    version: ssl.TLSVersion,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with serving(watcher, files) as server:
        with pytest.raises(OSError):  # noqa: PT011 - an SSLError or a reset: it just hangs up
            await handshake(server, version)
    # gRPC's own words, from the server's side: the client did ask, and that was why.
    assert "UNSUPPORTED_PROTOCOL" in capfd.readouterr().err


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_later_are_spoken(
    watcher: Watcher, files: TlsFiles, version: ssl.TLSVersion
) -> None:
    async with serving(watcher, files) as server:
        spoken, serial = await handshake(server, version)
        assert spoken == version.name.replace("_", ".")
        assert serial == 1


async def test_a_plain_client_gets_no_answer(watcher: Watcher, files: TlsFiles) -> None:
    async with (
        serving(watcher, files) as server,
        AsyncClient(f"127.0.0.1:{server.port}", insecure=True, timeout=2) as client,
    ):
        with pytest.raises(DaemonUnavailable):
            await client.health()


def copied(authority: Path, files: TlsFiles) -> None:
    """As a person renews: each file is written in place."""
    shutil.copy(authority / "second.pem", files.certificate)
    shutil.copy(authority / "second.key", files.key)


def renamed(authority: Path, files: TlsFiles) -> None:
    """As certbot and most tools renew: each file is moved over the old one."""
    for source, target in (("second.key", files.key), ("second.pem", files.certificate)):
        beside = target.with_name(".new")
        shutil.copy(authority / source, beside)
        beside.rename(target)


def swapped(authority: Path, files: TlsFiles) -> None:
    """As the kubelet renews: ..data, which the names lead through, becomes another directory."""
    place = files.certificate.parent
    _projected(authority, place, "second", "..2026_2")
    (place / "..data_tmp").symlink_to("..2026_2")
    (place / "..data_tmp").rename(place / "..data")
    shutil.rmtree(place / "..2026_1")


def _projected(authority: Path, place: Path, name: str, directory: str) -> None:
    (place / directory).mkdir()
    shutil.copy(authority / f"{name}.pem", place / directory / "tls.crt")
    shutil.copy(authority / f"{name}.key", place / directory / "tls.key")


@pytest.mark.parametrize("renew", [copied, renamed, swapped])
async def test_a_renewed_certificate_is_for_new_connections_and_streams_go_on(
    watcher: Watcher,
    files: TlsFiles,
    authority: Path,
    renew: Callable[[Path, TlsFiles], None],
) -> None:
    if renew is swapped:
        place = files.certificate.parent
        _projected(authority, place, "first", "..2026_1")
        (place / "..data").symlink_to("..2026_1")
        for path in files.paths():
            path.unlink()
            path.symlink_to(f"..data/{path.name}")
    async with (
        serving(watcher, files) as server,
        AsyncClient(f"127.0.0.1:{server.port}", tls=ClientTls(ca=authority / "ca.pem")) as client,
    ):
        stream = client.subscribe()
        await stream.next()
        assert (await handshake(server))[1] == 1
        renew(authority, files)
        await serial_becomes(server, 2)
        assert server.streams == 1
        kill(watcher)
        while not (batch := await stream.next()).entries:
            pass
        assert batch.entries[0].event.kind == "oom_kill"


def kill(watcher: Watcher) -> None:
    counters = watcher.config.cgroup_root / "a" / "memory.events.local"
    counters.write_text(counters.read_text().replace("oom_kill 0", "oom_kill 1"))


async def test_what_cannot_be_used_is_said_and_the_old_certificate_stays(
    watcher: Watcher, files: TlsFiles, authority: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(watcher, files) as server:
        shutil.copy(authority / "second.pem", files.certificate)  # and the key not yet
        async with asyncio.timeout(BOUND):
            while "read before" not in caplog.text:
                await asyncio.sleep(0.02)
        assert "cannot be used" in caplog.text
        assert (await handshake(server))[1] == 1
        files.certificate.unlink()
        server.reload()
        assert f"{files.certificate} cannot be read" in caplog.text
        assert (await handshake(server))[1] == 1
        copied(authority, files)
        await serial_becomes(server, 2)


async def test_what_others_write_beside_it_does_not_put_a_renewal_off(
    watcher: Watcher, files: TlsFiles, authority: Path
) -> None:
    async def scribble() -> None:
        while True:
            (files.key.parent / "log").write_text("x")
            await asyncio.sleep(0.01)

    async with serving(watcher, files) as server:
        others = asyncio.create_task(scribble())
        renamed(authority, files)
        await serial_becomes(server, 2)
        others.cancel()


async def test_asking_for_a_reload_reads_at_once(
    watcher: Watcher, files: TlsFiles, authority: Path
) -> None:
    async with serving(watcher, files) as server:
        copied(authority, files)
        server.reload()
        assert (await handshake(server))[1] == 2


def showing(server: RpcServer, authority: Path, pair: Path) -> AsyncClient:
    """A client that shows a certificate."""
    tls = ClientTls(
        ca=authority / "ca.pem", certificate=Path(f"{pair}.pem"), key=Path(f"{pair}.key")
    )
    return AsyncClient(f"127.0.0.1:{server.port}", tls=tls, timeout=5)


async def test_only_clients_of_the_ca_are_let_in_and_a_new_ca_counts_from_then_on(
    watcher: Watcher, files: TlsFiles, authority: Path
) -> None:
    trusted = files.certificate.with_name("clients.pem")
    shutil.copy(authority / "ca.pem", trusted)
    mutual = TlsFiles(files.certificate, files.key, trusted)

    def client(directory: Path, name: str) -> AsyncClient:
        return showing(server, authority, directory / name)

    async with serving(watcher, mutual) as server:
        async with client(authority, "client") as known:
            assert await known.health() is True
        async with client(authority / "other", "stranger") as stranger:
            with pytest.raises(DaemonUnavailable):
                await stranger.health()
        nobody = ClientTls(ca=authority / "ca.pem")
        async with AsyncClient(f"127.0.0.1:{server.port}", tls=nobody, timeout=5) as unnamed:
            with pytest.raises(DaemonUnavailable):
                await unnamed.health()
        shutil.copy(authority / "other" / "ca.pem", trusted)
        server.reload()
        async with client(authority / "other", "stranger") as stranger:
            assert await stranger.health() is True
        async with client(authority, "client") as known:
            with pytest.raises(DaemonUnavailable):
                await known.health()


async def test_one_tcp_host_does_not_take_all_the_places_of_registered_containers(
    watcher: Watcher, files: TlsFiles, authority: Path, tmp_path: Path
) -> None:
    server = RpcServer(
        watcher,
        socket=tmp_path / "s",
        listen="127.0.0.1:0",
        tls=TlsFiles(files.certificate, files.key, authority / "ca.pem"),
        limits=Limits(registered_a_peer=2),
    )
    async with (
        server,
        showing(server, authority, authority / "client") as remote,
        AsyncClient(tmp_path / "s") as local,
    ):

        async def registers(client: AsyncClient, container_id: str) -> None:
            await client.watch_container(Container(id=container_id), cgroup="/a")

        with pytest.raises(RequestRefused, match="no cgroup"):
            await remote.watch_container(Container(id="job-0"), cgroup="/none")
        for container_id in ("job-1", "job-2", "job-2"):
            await registers(remote, container_id)
        with pytest.raises(RequestRefused, match="has 2 containers registered, its most") as raised:
            await registers(remote, "job-3")
        assert raised.value.status == "RESOURCE_EXHAUSTED"
        for container_id in ("local-1", "local-2", "local-3"):
            await registers(local, container_id)
        assert await local.unwatch_container("job-1")
        await registers(remote, "job-3")
        await remote.finalize("job-2", exit_code=0)
        await registers(remote, "job-4")
        with pytest.raises(RequestRefused, match="its most"):
            await registers(remote, "job-5")


async def oomwatch(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oomwatch.cli.main", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BOUND):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_commands_reach_a_daemon_over_mutual_tls(
    watcher: Watcher, files: TlsFiles, authority: Path
) -> None:
    mutual = TlsFiles(files.certificate, files.key, authority / "ca.pem")
    async with serving(watcher, mutual) as server:
        kill(watcher)
        where = ("--address", f"127.0.0.1:{server.port}", "--tls-ca", str(authority / "ca.pem"))
        ours = ("--tls-cert", authority / "client.pem", "--tls-key", authority / "client.key")
        named = (*where, *map(str, ours))
        done = [
            await oomwatch(*words, *named)
            for words in (("list",), ("tail", "--no-follow"), ("show", "1"))
        ]
        for code, out, errors in done:
            assert (code, errors) == (0, "")
            assert "/a" in out
        code, out, errors = await oomwatch("doctor", *named)
        assert (code, errors) == (0, "")
        assert f"answers at 127.0.0.1:{server.port}" in out
        assert out.endswith(f"Kills can be seen by the daemon at 127.0.0.1:{server.port}.\n")
        code, out, errors = await oomwatch("doctor", *where)
        assert (code, errors) == (3, "")
        assert "does it want a client's certificate" in out
        code, _, errors = await oomwatch("list", *where)
        assert code == 3
        assert "no daemon answers" in errors
        assert "does it want a client's certificate" in errors
        code, _, errors = await oomwatch("list", *where[:2], "--insecure")
        assert code == 3
        assert "does it want TLS" in errors
        # What gRPC would log by itself of a handshake is no second sentence.
        code, _, errors = await oomwatch("list", *where[:3], str(authority / "client.pem"))
        assert code == 3
        assert "was not signed by the CA that was given" in errors
        assert errors.startswith("oomwatch: ")
        assert errors.count("\n") == 1


@pytest.mark.parametrize("command", ["list", "doctor"])
async def test_a_certificate_of_another_name_is_taken_by_that_name(
    watcher: Watcher, authority: Path, command: str
) -> None:
    files = TlsFiles(authority / "elsewhere.pem", authority / "elsewhere.key")
    async with serving(watcher, files) as server:
        where = ("--address", f"127.0.0.1:{server.port}", "--tls-ca", str(authority / "ca.pem"))
        code, out, errors = await oomwatch(command, *where)
        assert code == 3
        assert f"is for another name than 127.0.0.1:{server.port}" in out + errors
        code, out, errors = await oomwatch(command, *where, "--tls-server-name", "node-7.example")
        assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--tls-ca", "ca.pem"), 2, "about --address"),
        (("--insecure",), 2, "about --address"),
        (("--tls-server-name", "node-7"), 2, "about --address"),
        (("--address", "127.0.0.1:1", "--insecure", "--tls-ca", "ca.pem"), 2, "without TLS"),
        (("--address", "127.0.0.1:1"), 2, "give --tls-ca"),
        (("--address", "127.0.0.1:1", "--tls-cert", "client.pem"), 2, "need each other"),
        (("--address", "127.0.0.1:1", "--tls-ca", "client.key"), 1, "cannot be used"),
        (("--address", "127.0.0.1:1", "--tls-ca", "none.pem"), 1, "No such file"),
    ],
)
async def test_what_is_missing_for_tls_is_said_in_words(
    authority: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    given = [str(authority / word) if word.endswith((".pem", ".key")) else word for word in words]
    status, _, errors = await oomwatch("list", *given)
    assert status == code
    assert said in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("mode", "said"), [(0o600, False), (0o640, False), (0o644, True)])
async def test_a_key_that_lies_open_is_said_and_used(
    watcher: Watcher,
    files: TlsFiles,
    mode: int,
    said: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.key.chmod(mode)
    with caplog.at_level(logging.WARNING):
        async with serving(watcher, files) as server:
            assert (await handshake(server))[1] == 1
    assert (f"mode {mode:04o}" in caplog.text) is said


async def test_an_encrypted_key_is_refused_and_asks_nobody(
    watcher: Watcher, files: TlsFiles, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    openssl(
        "ec", "-in", str(files.key), "-aes128", "-passout", "pass:secret", "-out", str(locked),
        cwd=tmp_path,
    )  # fmt: skip
    with pytest.raises(AddressError, match="cannot be used"):
        serving(watcher, TlsFiles(files.certificate, locked))


async def test_a_server_that_ended_follows_nothing_more(watcher: Watcher, files: TlsFiles) -> None:
    def inotifies() -> int:
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(entry.readlink()) == "anon_inode:inotify"
        return found

    before = inotifies()
    async with serving(watcher, files):
        assert inotifies() == before + 1
    assert inotifies() == before


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
async def test_plain_text_is_for_the_loopback(watcher: Watcher, host: str) -> None:
    async with RpcServer(watcher, socket=None, listen=f"{host}:0", insecure=True) as server:
        assert server.port


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "no-such-host.invalid"])
async def test_plain_text_elsewhere_is_for_those_who_said_so_twice(
    watcher: Watcher, host: str
) -> None:
    with pytest.raises(AddressError, match="say --insecure twice"):
        RpcServer(watcher, socket=None, listen=f"{host}:0", insecure=True)


async def test_plain_text_anywhere_when_asked_for_twice(watcher: Watcher) -> None:
    server = RpcServer(watcher, socket=None, listen="0.0.0.0:0", insecure=Plaintext.ANYWHERE)
    async with server, AsyncClient(f"127.0.0.1:{server.port}", insecure=True) as client:
        assert await client.health() is True
