"""systemd in a PID and a cgroup namespace of its own, as in a container that runs it.

It is a real system manager: its services, scopes and slices are real cgroups, below /systemd here,
and Docker's systemd driver speaks to it over D-Bus. Only its units are few, since booting a whole
system would take minutes under emulation.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kernel.workload import ROOT
from tests.runtimes.processes import SECONDS, DaemonProcess, wait_for

CGROUP = "/systemd"

# The process that waits for the new PID namespace's first stays out of the cgroup: one with
# processes of its own cannot hand controllers to its children.
_OUTER = """\
echo 0 >{cgroup}/cgroup.procs
exec unshare --cgroup --mount --uts --ipc sh {inner}
"""
_INNER = """\
set -e
mount -t proc proc /proc
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock
export container=oomwatch-tests SYSTEMD_UNIT_PATH={units}:/run/systemd/transient
exec /usr/bin/systemd --system --unit=tests.target --log-target=console --show-status=no
"""
_TARGETS = ("sysinit", "basic", "sockets", "shutdown", "umount")


class Systemd:
    """A system manager that runs."""

    def __init__(self, data: Path) -> None:
        self.units = units = data / "units"
        units.mkdir()
        for target in _TARGETS:
            (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
        (units / "tests.target").write_text("[Unit]\nRequires=dbus.socket\nAfter=dbus.socket\n")
        for unit in ("dbus.socket", "dbus.service"):
            shutil.copy(f"/usr/lib/systemd/system/{unit}", units)
        inner, outer = data / "systemd-inner", data / "systemd-outer"
        inner.write_text(_INNER.format(units=units))
        outer.write_text(_OUTER.format(cgroup=f"{ROOT}{CGROUP}", inner=inner))
        Path(f"{ROOT}{CGROUP}").mkdir()
        self.daemon = DaemonProcess(
            ("unshare", "--pid", "--fork", "--kill-child", "sh", outer),
            data / "systemd.log",
            lambda: self._first() is not None and self._answers(),
        )
        self.daemon.start()

    @property
    def root(self) -> Path:
        """The root directory as its services see it, with their mounts."""
        return Path(f"/proc/{self._first()}/root")

    def inside(self, *words: str | Path) -> list[str]:
        """The words that run a command where systemd runs."""
        first = self._first()
        assert first is not None, self.daemon.last_words()
        return [
            *("nsenter", "--target", str(first), "--pid", "--mount", "--cgroup", "--uts", "--ipc"),
            *map(str, words),
        ]

    def service(self, name: str, *command: str | Path, properties: tuple[str, ...] = ()) -> str:
        """Start a service; returns its cgroup."""
        options = (f"--property={one}" for one in properties)
        words = ("systemd-run", f"--unit={name}", *options, "--", *command)
        done = subprocess.run(
            self.inside(*words), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr + self.daemon.last_words()
        return f"{CGROUP}/system.slice/{name}.service"

    def result(self, name: str) -> str:
        """The service's Result, once it has one: `oom-kill`, `success`, …"""
        wait_for(lambda: self.state(name) in ("failed", "inactive"), "it runs on")
        return self._show(name, "Result")

    def state(self, name: str) -> str:
        """The service's ActiveState: `active`, `failed`, …"""
        return self._show(name, "ActiveState")

    def stop(self, name: str) -> None:
        """End a service."""
        words = self.inside("systemctl", "stop", f"{name}.service")
        subprocess.run(words, check=True, capture_output=True, timeout=SECONDS)

    def _show(self, name: str, what: str) -> str:
        words = ("systemctl", "show", f"{name}.service", "--property", what, "--value")
        done = subprocess.run(
            self.inside(*words), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        return done.stdout.strip()

    def _first(self) -> int | None:
        try:
            text = Path(f"{ROOT}{CGROUP}/init.scope/cgroup.procs").read_text()
        except OSError:
            return None
        return min(map(int, text.split()), default=None)

    def _answers(self) -> bool:
        done = subprocess.run(
            self.inside("systemctl", "is-active", "tests.target"),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.stdout.strip() == "active"
