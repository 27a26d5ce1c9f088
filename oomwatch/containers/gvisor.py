"""gVisor on the host: which handlers it is, where a sandbox's processes are, and being inside one.

A sandbox is host processes: the sentry (`runsc-sandbox … boot … ID`), its stubs (its children) and
gofers (`runsc-gofer … gofer …`), named so by runsc/sandbox/sandbox.go and runsc/container. The
application's memory is the sentry's, a memfd. A runtime may report the pid of a runsc command that
is gone in a moment: so the sentry is looked for by its command line and by parentage.
"""

from __future__ import annotations

import ctypes
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCKER_CONFIG = Path("/etc/docker/daemon.json")
CONTAINERD_CONFIG = Path("/etc/containerd/config.toml")

_VERSION = re.compile(
    r"^Linux version (4\.4\.0 .*Sun Jan 10 15:06:54 PST 2016|\S+-gvisor\b)", re.ASCII
)
_SHIM = "io.containerd.runsc"
_CONFIG_BYTES = 1 << 20
_SCRIPT_BYTES = 4096
_READ_ALL = 3
"""SYSLOG_ACTION_READ_ALL (man 2 syslog): what a sandbox answers begins with its own name."""


@dataclass(frozen=True, slots=True)
class Command:
    """A host process as far as it matters here."""

    pid: int
    parent: int
    cmdline: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxProcesses:
    """The host processes of one sandbox; stubs are those of the moment, they come and go."""

    sentry: int
    stubs: tuple[int, ...] = ()
    gofers: tuple[int, ...] = ()

    @property
    def all(self) -> frozenset[int]:
        """Every pid of it."""
        return frozenset((self.sentry, *self.stubs, *self.gofers))


class Handlers:
    """Which OCI runtimes are runsc: by name, or mapped to it by Docker's or containerd's config."""

    def __init__(self, docker: Path = DOCKER_CONFIG, containerd: Path = CONTAINERD_CONFIG) -> None:
        self.mapped = frozenset((*_of_docker(_json(docker)), *_of_containerd(_toml(containerd))))

    def __contains__(self, handler: str) -> bool:
        return _is_runsc(handler) or handler in self.mapped


def find(
    commands: Iterable[Command], container_id: str, pid: int | None
) -> SandboxProcesses | None:
    """Find a container's sandbox: its own by id, or the one that the reported pid belongs to."""
    by_pid = {command.pid: command for command in commands}
    sentry = next(
        (c for c in by_pid.values() if _is_sentry(c) and c.cmdline[-1] == container_id), None
    )
    if sentry is None and pid is not None:
        # In a pod the sandbox bears another container's id: go by kinship.
        kin = [by_pid[p] for p in _kin(by_pid, pid) if p in by_pid]
        sentries = {command.pid: command for command in kin if _is_sentry(command)}
        sentry = next(iter(sentries.values())) if len(sentries) == 1 else None
    if sentry is None:
        return None
    stubs = tuple(sorted(_descendants(by_pid, sentry.pid)))
    gofers = tuple(sorted(c.pid for c in _gofers(by_pid, sentry)))
    return SandboxProcesses(sentry.pid, stubs, gofers)


def running() -> Iterator[Command]:
    """Yield the host's processes. Blocks: it reads all of /proc."""
    import psutil

    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        known: dict[str, Any] = process.info
        cmdline = known["cmdline"] or ()
        yield Command(known["pid"], known["ppid"] or 0, tuple(cmdline))


def sentries(commands: Iterable[Command]) -> list[Command]:
    """Return the sentries of every sandbox on the host."""
    return [command for command in commands if _is_sentry(command)]


def inside_sandbox(version: str) -> str | None:
    """Why this process is taken to run inside a gVisor sandbox, `None` where it does not.

    `version` is what /proc/version says: pkg/sentry/kernel/version.go gave every release of 4.4.0
    the same build date, and a later one calls its own by name.

    There memory.events is a constant row of zeros and the kernel's log is made up: nothing that
    oomwatch reads there means anything.
    """
    if _VERSION.search(version):
        return "/proc/version is the one that gVisor writes"
    buffer = ctypes.create_string_buffer(4096)
    try:
        read = ctypes.CDLL(None).klogctl(_READ_ALL, buffer, len(buffer) - 1)
    except (OSError, AttributeError):
        return None
    if read > 0 and b"Starting gVisor" in buffer.value.split(b"\n", 1)[0]:
        return "its kernel log begins with 'Starting gVisor'"
    return None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_sentry(command: Command) -> bool:
    words = command.cmdline
    return len(words) > 2 and _name(words[0]) == "runsc-sandbox" and "boot" in words


def _is_gofer(command: Command) -> bool:
    words = command.cmdline
    return len(words) > 1 and _name(words[0]) == "runsc-gofer"


def _gofers(by_pid: dict[int, Command], sentry: Command) -> Iterator[Command]:
    """A sandbox's gofers: its parent's, and of the same bundle where that has several sandboxes.

    A shim has one, with a gofer for each container of a pod; detached ones are all init's.
    """
    beside = [c for c in by_pid.values() if c.parent == sentry.parent]
    alone = sum(map(_is_sentry, beside)) == 1
    bundle = _bundle(sentry)
    for command in filter(_is_gofer, by_pid.values()):
        its_own = alone or _bundle(command) == bundle is not None
        named = sentry.cmdline[-1] in command.cmdline
        if named or (its_own and command.parent == sentry.parent):
            yield command


def _bundle(command: Command) -> str | None:
    """The directory that its container was made from; both of runsc's forms of a flag are used."""
    words = iter(command.cmdline)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--bundle":
            return value if equals else next(words, None)
    return None


def _kin(by_pid: dict[int, Command], pid: int) -> Iterator[int]:
    """The process itself, what descends from it, and what its parent started beside it."""
    yield pid
    yield from _descendants(by_pid, pid)
    command = by_pid.get(pid)
    if command is not None and command.parent > 1:
        yield command.parent
        yield from (c.pid for c in by_pid.values() if c.parent == command.parent)


def _descendants(by_pid: dict[int, Command], pid: int) -> set[int]:
    found: set[int] = set()
    parents = {pid}
    while parents:
        parents = {c.pid for c in by_pid.values() if c.parent in parents} - found
        found |= parents
    return found


def _is_runsc(text: str) -> bool:
    name = _name(text)
    return name == "runsc" or name.startswith(("runsc-", _SHIM))


def _of_docker(config: Any) -> Iterator[str]:
    runtimes = config.get("runtimes") if isinstance(config, dict) else None
    for name, options in runtimes.items() if isinstance(runtimes, dict) else ():
        if not isinstance(options, dict):
            continue
        told = (options.get("path"), options.get("runtimeType"))
        if any(isinstance(text, str) and (_is_runsc(text) or _wraps_runsc(text)) for text in told):
            yield name


def _of_containerd(config: Any) -> Iterator[str]:
    plugins = config.get("plugins") if isinstance(config, dict) else None
    for plugin in plugins.values() if isinstance(plugins, dict) else ():
        containerd = plugin.get("containerd") if isinstance(plugin, dict) else None
        runtimes = containerd.get("runtimes") if isinstance(containerd, dict) else None
        for name, options in runtimes.items() if isinstance(runtimes, dict) else ():
            kind = options.get("runtime_type") if isinstance(options, dict) else None
            if isinstance(kind, str) and _is_runsc(kind):
                yield name


def _wraps_runsc(path: str) -> bool:
    """Is it a script that starts runsc with options, as its own documentation proposes?"""
    try:
        with Path(path).open("rb") as script:
            text = script.read(_SCRIPT_BYTES)
    except (OSError, ValueError):
        return False
    return text.startswith(b"#!") and b"runsc" in text


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        return None


def _toml(path: Path) -> Any:
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError:
        return None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
