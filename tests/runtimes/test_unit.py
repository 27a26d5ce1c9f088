"""contrib/oomwatch.service under a real systemd, installed as its first lines say."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.client import AsyncClient
from oomwatch.events import OomKill
from oomwatch.status import NodeStatus
from tests.kernel import workload
from tests.kernel.workload import kills_below
from tests.runtimes.processes import SECONDS, wait_for
from tests.runtimes.systemd import Systemd
from tests.runtimes.workloads import CHILD_KILLED, LIMIT, only_where_all
from tests.unprivileged import NOBODY, rights

CHECKOUT = Path(__file__).parents[2]
UNIT = CHECKOUT / "contrib" / "oomwatch.service"
DMESG_RESTRICT = Path("/proc/sys/kernel/dmesg_restrict")
CAP_SYSLOG = 1 << 34
LIVES_ON = (f"MemoryMax={LIMIT}", "OOMPolicy=continue")
"""For a service that loses a child. Of a cgroup that is gone, the kernel's log names it by a path
that says nothing in a cgroup namespace, which the tests' systemd has and a host's has not.
"""

# The interpreter and the checkout may be in a home directory or below /tmp, of which the unit is to
# see nothing: they are shown elsewhere. /usr/local/bin/oomwatch is what an installation puts there.
INSTALL = """\
set -eu
mount -t tmpfs -o mode=0755 tmpfs /mnt
cd /mnt
mkdir python packages checkout bin
mount --bind {base} python
mount --bind {packages} packages
mount --bind {checkout} checkout
cat >bin/oomwatch <<'END'
#!/bin/sh
export PYTHONHOME=/mnt/python PYTHONPATH=/mnt/checkout:/mnt/packages
export LD_LIBRARY_PATH=/mnt/python/lib PYTHONDONTWRITEBYTECODE=1
exec /mnt/python/bin/python{version} -m oomwatch.cli.main "$@"
END
chmod 0755 bin/oomwatch
mount --bind bin /usr/local/bin
"""


class Installed:
    """The unit, installed, and what a systemd, an operator and a user see of it."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._log = systemd.units / "oomwatch.log"
        if "oomwatch" not in {user.pw_name for user in pwd.getpwall()}:
            self._command("useradd", "--system", "--no-create-home", "oomwatch")
        install = INSTALL.format(
            base=shlex.quote(sys.base_prefix),
            packages=shlex.quote(sysconfig.get_path("purelib")),
            checkout=shlex.quote(str(CHECKOUT)),
            version=f"{sys.version_info.major}.{sys.version_info.minor}",
        )
        self._command(*systemd.inside("sh", "-c", install))
        shutil.copy(UNIT, systemd.units)
        # No journald runs here: what it logs is kept for a failure.
        beside = systemd.units / "oomwatch.service.d"
        beside.mkdir(exist_ok=True)
        (beside / "log.conf").write_text(f"[Service]\nStandardError=append:{self._log}\n")
        self.systemctl("daemon-reload")

    @property
    def socket(self) -> Path:
        """The daemon's socket, as it is seen from outside of systemd's mounts."""
        return self._systemd.root / "run/oomwatch/oomwatch.sock"

    @property
    def pid(self) -> int:
        """The daemon's, outside of systemd's PID namespace."""
        cgroup = Path("/sys/fs/cgroup/systemd/system.slice/oomwatch.service/cgroup.procs")
        return int(cgroup.read_text().split()[0])

    def systemctl(self, *words: str) -> str:
        """Run systemctl, which must succeed; what it printed."""
        return self._command(*self._systemd.inside("systemctl", *words))

    def shown(self, name: str) -> str:
        """A property of the unit."""
        return self.systemctl("show", "oomwatch", "--property", name, "--value").strip()

    def tail(self, *, group: int) -> subprocess.CompletedProcess[str]:
        """`oomwatch tail` as nobody, in a group."""
        become = ("setpriv", f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups")
        words = ("/usr/local/bin/oomwatch", "tail", "--no-follow", "-o", "json", "--socket")
        command = self._systemd.inside(*become, *words, "/run/oomwatch/oomwatch.sock")
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)

    def log(self) -> str:
        """What systemd says of it, for a failure."""
        status = self._systemd.inside("systemctl", "status", "oomwatch", "--no-pager")
        done = subprocess.run(status, capture_output=True, text=True, check=False)
        logged = self._log.read_text() if self._log.exists() else ""
        return done.stdout + logged[-4000:] + self._systemd.daemon.last_words()

    def _command(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log()}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(systemd: Systemd) -> Iterator[Installed]:
    """The unit, where the kernel's log is for those with CAP_SYSLOG, as hardened hosts have it."""
    before = DMESG_RESTRICT.read_text()
    DMESG_RESTRICT.write_text("1")
    unit = Installed(systemd)
    yield unit
    with contextlib.suppress(AssertionError):
        unit.systemctl("stop", "oomwatch")
    DMESG_RESTRICT.write_text(before)


def oom_score_adj(pid: int) -> int:
    """How gladly the kernel would kill a process."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def status(installed: Installed) -> NodeStatus:
    """What the daemon says of itself."""
    async with AsyncClient(installed.socket) as client:
        assert await client.health()
        return await client.get_status()


async def kills(installed: Installed, unit: str, *, named: bool) -> list[OomKill]:
    """Wait until a kill in a unit was told, and who it was if that can be had; all told of it."""
    end = time.monotonic() + SECONDS
    async with AsyncClient(installed.socket) as client:
        while True:
            entries = [entry async for entry in client.list_events()]
            told = [entry.event for entry in entries if isinstance(entry.event, OomKill)]
            assert time.monotonic() < end, (told, installed.log())
            found = [kill for kill in told if f"/{unit}.service" in (kill.victim_cgroup or "")]
            names = [victim for kill in found for victim in kill.victims]
            if found and (names or not named):
                return found
            await asyncio.sleep(0.5)


@only_where_all
@pytest.mark.timeout(900)
async def test_the_unit_as_it_is_tells_kills_to_its_group_and_ends_in_good_order(
    systemd: Systemd, installed: Installed
) -> None:
    await asyncio.to_thread(installed.systemctl, "start", "oomwatch")
    user, group = pwd.getpwnam("oomwatch"), grp.getgrnam("oomwatch")
    had = rights(installed.pid)
    assert had["Uid"].split() == [str(user.pw_uid)] * 4
    assert int(had["CapEff"], 16) == int(had["CapBnd"], 16) == CAP_SYSLOG
    assert had["NoNewPrivs"] == "1"
    assert had["Seccomp"] == "2"
    assert had["VmLck"].split()[0] != "0"
    assert oom_score_adj(installed.pid) == -900
    mode = installed.socket.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_gid) == (0o660, group.gr_gid)

    now = await status(installed)
    sources = {source.name: source for source in now.sources}
    assert now.healthy
    assert now.journal.path == "/var/lib/oomwatch/journal.db"
    for name in ("memory_events", "kernel_log"):
        assert sources[name].active, sources[name]
        assert not sources[name].degraded, sources[name]

    await asyncio.to_thread(systemd.service, "unit-hog", *CHILD_KILLED, properties=LIVES_ON)
    told = await kills(installed, "unit-hog", named=True)
    assert sum(kill.kill_count or 0 for kill in told) == 1
    assert {victim.comm for kill in told for victim in kill.victims} == {"dd"}

    heard = await asyncio.to_thread(installed.tail, group=group.gr_gid)
    assert heard.returncode == 0, heard.stderr
    assert "/unit-hog.service" in heard.stdout
    refused = await asyncio.to_thread(installed.tail, group=NOBODY)
    assert refused.returncode == 3
    assert "permission denied" in refused.stderr
    assert "a member of the group oomwatch" in refused.stderr

    pid = installed.pid
    await asyncio.to_thread(installed.systemctl, "reload", "oomwatch")
    assert (await status(installed)).start_time == now.start_time
    assert installed.pid == pid

    await asyncio.to_thread(installed.systemctl, "stop", "oomwatch")
    ended = [installed.shown(name) for name in ("ActiveState", "Result", "ExecMainStatus")]
    assert ended == ["inactive", "success", "0"], installed.log()
    assert not installed.socket.exists()

    cgroup = await asyncio.to_thread(
        systemd.service, "unit-late", *CHILD_KILLED, properties=LIVES_ON
    )
    killed = workload.ROOT / cgroup[1:]
    await asyncio.to_thread(wait_for, lambda: kills_below(killed) == 1, "nothing is killed")
    await asyncio.to_thread(installed.systemctl, "start", "oomwatch")
    # Whose it was tells a path alone that is watched as its line is read: not so of a downtime's.
    late, *_ = await kills(installed, "unit-late", named=False)
    assert late.recovered
    assert late.kill_count == 1
    for name in ("unit-hog", "unit-late"):
        await asyncio.to_thread(systemd.stop, name)


@only_where_all
@pytest.mark.timeout(900)
async def test_its_runtime_directory_removed_it_is_started_anew_with_another(
    systemd: Systemd, installed: Installed
) -> None:
    """It may not make one itself, in what ProtectSystem= leaves it."""
    await asyncio.to_thread(installed.systemctl, "start", "oomwatch")
    before = await status(installed)
    remove = systemd.inside("rm", "-r", "/run/oomwatch")
    await asyncio.to_thread(subprocess.run, remove, check=True, timeout=SECONDS)

    def is_back() -> bool:
        return installed.shown("NRestarts") == "1" and installed.shown("ActiveState") == "active"

    await asyncio.to_thread(wait_for, is_back, installed.log)
    after = await status(installed)
    assert after.healthy
    assert after.journal.journal_id == before.journal.journal_id
    assert after.start_time > before.start_time
