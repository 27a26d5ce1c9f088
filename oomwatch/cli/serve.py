"""`oomwatch serve`: the daemon, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oomwatch.address import DEFAULT_SOCKET
from oomwatch.cli.options import (
    CGROUP_ROOT,
    ContainerPattern,
    Duration,
    Named,
    Number,
    Permissions,
    Runtime,
    Times,
)

if TYPE_CHECKING:
    from oomwatch.config import Config
    from oomwatch.containers.layouts import Layout
    from oomwatch.daemon import Watcher
    from oomwatch.metrics_server import MetricsServer
    from oomwatch.rpc.server import RpcServer
    from oomwatch.sources.runtimes import RuntimeSocket

_FILE = Named(path_type=Path)


@click.command(
    short_help="Run the daemon: watch, keep a journal, answer over gRPC.",
    # Every option can come from the environment as well: OOMWATCH_STATE_DIR is --state-dir.
    context_settings={"auto_envvar_prefix": "OOMWATCH"},
    epilog="""\b
Examples:
  oomwatch serve --state-dir /var/lib/oomwatch
  oomwatch serve --socket /run/oomwatch/oomwatch.sock --retention-age 90d
  oomwatch serve --listen 0.0.0.0:7433 --tls-cert node.pem --tls-key node.key --tls-client-ca ca.pem
  OOMWATCH_STATE_DIR=/var/lib/oomwatch oomwatch serve

Each option can come from the environment: OOMWATCH_ and its name, as in OOMWATCH_STATE_DIR.
Several values are separated by spaces there, and OOMWATCH_INSECURE=2 is --insecure twice.""",
)
@click.option(
    "--socket",
    type=_FILE,
    metavar="PATH",
    default=DEFAULT_SOCKET,
    show_default=True,
    help="Listen on this Unix socket. Who may connect may register and finalize containers.",
)
@click.option(
    "--socket-mode",
    type=Permissions(),
    default="0660",
    show_default=True,
    help="The socket's permissions; writing is what connecting needs.",
)
@click.option(
    "--socket-group", metavar="GROUP", help="The socket's group; by default that of the process."
)
@click.option(
    "--read-only-socket",
    type=_FILE,
    metavar="PATH",
    help="Listen on this one as well, for those who may only read and subscribe.",
)
@click.option(
    "--read-only-socket-mode",
    type=Permissions(),
    default="0660",
    show_default=True,
    help="Its permissions.",
)
@click.option("--read-only-socket-group", metavar="GROUP", help="Its group.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Listen on TCP as well; needs the TLS files, or --insecure. Without --tls-client-ca, for "
    "reading and subscribing alone.",
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="The certificate chain, PEM.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key, PEM.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Ask clients for a certificate that one of these signed, PEM.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve figures for Prometheus at http://HOST:PORT/metrics, on the loopback.",
)
@click.option(
    "--insecure",
    count=True,
    type=Times(),
    help="Let --listen be without TLS, on the loopback; said twice, it and --metrics anywhere.",
)
@click.option(
    "--state-dir",
    type=_FILE,
    metavar="DIR",
    help="Keep the journal here; without it, history ends with this process.",
)
@click.option(
    "--cgroup-root",
    type=_FILE,
    metavar="DIR",
    default=CGROUP_ROOT,
    show_default=True,
    help="The cgroup v2 tree to watch.",
)
@click.option(
    "--kernel-log",
    type=_FILE,
    metavar="PATH|journal|off",
    default="/dev/kmsg",
    show_default=True,
    help="Where victims are named, the tracepoint beside it: the device, a file that a syslog "
    "daemon writes (/var/log/kern.log, followed across rotation), or journal for systemd's, by "
    "journalctl; off leaves the counters alone.",
)
@click.option(
    "--killer-log",
    type=_FILE,
    metavar="PATH|journal",
    help="Where earlyoom or nohang write which process they kill: a file of theirs or of a syslog "
    "daemon's, or journal for systemd's. The verdict on an exit names them by it.",
)
@click.option(
    "--runtime",
    type=Runtime(),
    metavar="KIND=PATH|off",
    multiple=True,
    help="Ask the runtime at this socket for the names of containers: docker, podman, containerd "
    "or cri (CRI-O). May be given several times. By default those at the usual sockets, once they "
    "are there; off asks none.",
)
@click.option(
    "--container-pattern",
    type=ContainerPattern(),
    multiple=True,
    help="Where your own containers are in the cgroup tree: /workers/{pod_name}/{id}, with {id}, "
    "{name}, {pod_uid}, {pod_name}, {pod_namespace} and *. May be given several times.",
)
@click.option(
    "--poll-interval",
    type=Duration(),
    default="500ms",
    show_default=True,
    help="How often cgroups are read that cannot be watched by inotify.",
)
@click.option(
    "--retention-events",
    type=Number(min=1),
    metavar="N",
    default=100_000,
    show_default=True,
    help="Keep at most this many events.",
)
@click.option(
    "--retention-age",
    type=Duration(),
    default="30d",
    show_default=True,
    help="Keep events at most this long.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged on stderr, one line each.",
)
def command(
    socket: Path,
    socket_mode: int,
    socket_group: str | None,
    read_only_socket: Path | None,
    read_only_socket_mode: int,
    read_only_socket_group: str | None,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    metrics: str | None,
    insecure: int,
    state_dir: Path | None,
    cgroup_root: Path,
    kernel_log: Path,
    killer_log: Path | None,
    runtime: tuple[RuntimeSocket | None, ...],
    container_pattern: tuple[Layout, ...],
    poll_interval: float,
    retention_events: int,
    retention_age: float,
    log_level: str,
) -> int:
    """Run the daemon: watch this host, keep a journal, and answer over gRPC.

    SIGTERM and Ctrl-C end it in good order: streams are ended, what was told is written. A second
    one ends it at once. SIGHUP reads the TLS files again, which is also done whenever they change;
    open streams go on. Under systemd, Type=notify is served.
    """
    for option, text in (("--listen", listen), ("--metrics", metrics)):
        _need_host_and_port(option, text)
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key need each other")
    if tls_client_ca is not None and tls_cert is None:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    if listen is not None and tls_cert is None and not insecure:
        raise click.UsageError(
            "--listen is open to the network: give --tls-cert and --tls-key, or say --insecure"
        )
    if read_only_socket is None and read_only_socket_group is not None:
        raise click.UsageError("--read-only-socket-group needs --read-only-socket PATH")
    if listen is None and tls_cert is not None:
        raise click.UsageError("TLS is about --listen HOST:PORT: give that too")
    if listen is None and metrics is None and insecure:
        raise click.UsageError("--insecure is about --listen and --metrics: give one of them too")
    for option, seconds in (
        ("--poll-interval", poll_interval),
        ("--retention-age", retention_age),
    ):
        if seconds <= 0:
            raise click.BadParameter("must be more than 0", param_hint=option)
    asked = click.get_current_context().get_parameter_source("kernel_log")
    if asked is not click.core.ParameterSource.DEFAULT and str(kernel_log) != "off":
        _need_a_kernels_tree(cgroup_root)

    import logging

    from oomwatch.cli import spared_modules

    spared_modules.spare()  # before any other does
    from oomwatch.cli.interrupts import run_until_signal
    from oomwatch.cli.logs import log_to_stderr
    from oomwatch.config import Config

    log_to_stderr(getattr(logging, log_level.upper()))
    # Else gRPC writes a line of its own for each handshake that fails, which any client can make.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

    def make_server(watcher: Watcher) -> RpcServer:
        from oomwatch.rpc.server import Plaintext, RpcServer, TlsFiles, UnixSocket

        reading = read_only_socket and UnixSocket(
            read_only_socket, read_only_socket_mode, read_only_socket_group
        )
        return RpcServer(
            watcher,
            socket=UnixSocket(socket, socket_mode, socket_group),
            read_only_socket=reading,
            listen=listen,
            tls=TlsFiles(tls_cert, tls_key, tls_client_ca) if tls_cert and tls_key else None,
            insecure=Plaintext(min(insecure, Plaintext.ANYWHERE)),
        )

    config = Config(
        cgroup_root=cgroup_root,
        state_dir=state_dir,
        kernel_log=None if str(kernel_log) == "off" else kernel_log,
        killer_log=killer_log,
        runtimes=tuple(one for one in runtime if one is not None) if runtime else None,
        layouts=container_pattern,
        poll_seconds=poll_interval,
        retention_events=retention_events,
        retention_age_seconds=retention_age,
    )

    def make_metrics(watcher: Watcher) -> MetricsServer:
        from oomwatch.metrics import Metrics
        from oomwatch.metrics_server import MetricsServer

        counted = Metrics()
        watcher.on_told = counted.told
        return MetricsServer(metrics or "", counted, watcher.status, anywhere=insecure > 1)

    code = run_until_signal(_serve(config, make_server, make_metrics if metrics else None))
    # Told to end and ended in good order: what systemd and Kubernetes count as success.
    return 0 if code == 143 else code


def _need_host_and_port(option: str, text: str | None) -> None:
    from oomwatch.address import TcpAddress, parse_address
    from oomwatch.errors import AddressError

    if text is None:
        return
    try:
        fits = isinstance(parse_address(text), TcpAddress)
    except AddressError:
        fits = False
    if not fits:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint=option)


def _need_a_kernels_tree(cgroup_root: Path) -> None:
    """Refuse a kernel log that was asked for, and would not be read (`oomwatch.witnesses`)."""
    from oomwatch.cgroup.hierarchy import locate
    from oomwatch.errors import CgroupError

    try:
        kernel = locate(cgroup_root).kernel
    except CgroupError:
        return  # the watcher says so, or watches the log alone
    if not kernel:
        raise click.UsageError(
            f"--kernel-log cannot be used beside --cgroup-root {cgroup_root}: that is a directory "
            "of plain files, and the kernel's log tells of no kills there; leave --kernel-log out, "
            "or watch a cgroup v2 file system"
        )


async def _serve(
    config: Config,
    make_server: Callable[[Watcher], RpcServer],
    make_metrics: Callable[[Watcher], MetricsServer] | None,
) -> None:
    import asyncio
    import signal

    from oomwatch.serving import serve

    loop = asyncio.get_running_loop()
    servers: list[RpcServer] = []

    def reload() -> None:
        for server in servers:
            server.reload()

    def make(watcher: Watcher) -> RpcServer:
        servers.append(make_server(watcher))
        return servers[-1]

    # From the first moment on: its default action would end the daemon.
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await serve(
            config,
            make,
            lambda: notify_service_manager("READY=1"),
            make_metrics=make_metrics,
            managed=bool(os.environ.get("NOTIFY_SOCKET")),
        )
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        notify_service_manager("STOPPING=1")


def notify_service_manager(state: str) -> None:
    """Tell systemd how we are (sd_notify(3)), if it gave NOTIFY_SOCKET; a deaf one is ignored."""
    import contextlib
    import socket as sockets

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC) as manager,
    ):
        manager.connect(name)
        manager.send(state.encode())
