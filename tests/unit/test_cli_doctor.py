"""The doctor on hosts that are directories: what it finds, and what it would mend."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from oomwatch.cli import daemon_checks
from oomwatch.cli.cgroup_checks import (
    check_local_events,
    check_memory_controller,
    default_cgroup_root,
)
from oomwatch.cli.checks import (
    Check,
    Host,
    State,
    check_inotify,
    check_kernel,
    check_kernel_log,
    check_namespaces,
    check_permissions,
    check_pressure,
    check_sandbox,
    check_tracepoint,
    check_vmstat,
)
from oomwatch.cli.daemon_checks import ask_daemon, judge_daemon
from oomwatch.cli.doctor import can_see_kills, examine, report
from oomwatch.cli.main import run
from oomwatch.cli.options import Connection
from oomwatch.cli.reach import Daemon
from oomwatch.cli.runtime_checks import check_runtimes
from oomwatch.cli.terminal import Paint
from oomwatch.client import AsyncClient
from oomwatch.containers import gvisor
from oomwatch.events import SourceState
from oomwatch.status import JournalStatus, NodeStatus
from tests.unprivileged import let_in

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_CPU = "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
TMPFS = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw"


class Tree:
    """A host to be filled with files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root)
        self.socket = root / "oomwatch.sock"
        self.asked = Daemon(str(self.socket), Connection())

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mounts(self, *lines: str) -> None:
        self.write("/proc/self/mountinfo", "".join(f"{line}\n" for line in lines))

    def link(self, path: str, target: str) -> None:
        link = self.root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def good(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A host as it should be."""
    # The machine that the tests run on may have sandboxes.
    monkeypatch.setattr(gvisor, "running", lambda: iter(()))
    tree.mounts(V2)
    tree.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory pids\n")
    tree.write("/sys/fs/cgroup/cgroup.subtree_control", "memory pids\n")
    tree.write("/sys/fs/cgroup/a/memory.events.local", "oom 0\noom_kill 0\noom_group_kill 0\n")
    tree.write("/sys/fs/cgroup/a/memory.peak", "0\n")
    for name, limit in (("watches", 65536), ("instances", 128)):
        tree.write(f"/proc/sys/fs/inotify/max_user_{name}", f"{limit}\n")
    tree.write("/proc/sys/fs/inotify/max_queued_events", "16384\n")
    tree.write("/proc/self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
    tree.link("/proc/self/ns/pid", "pid:[4026531836]")
    tree.link("/proc/self/ns/cgroup", "cgroup:[4026531835]")
    tree.write("/proc/vmstat", "nr_free_pages 1\noom_kill 3\n")
    tree.write("/dev/kmsg", "")
    tree.write("/sys/kernel/tracing/events/oom/mark_victim/format", "")
    tree.write("/proc/pressure/memory", "")
    tree.write("/proc/version", "Linux version 6.12.0 (x) #1 SMP\n")
    tree.write("/proc/sys/kernel/osrelease", "6.12.0\n")
    return tree


def test_a_good_host_is_well_and_lacks_only_a_daemon(good: Tree) -> None:
    checks = examine(good.host, good.asked)
    assert [check.name for check in checks if check.state is not State.OK] == ["daemon"]
    assert can_see_kills(checks)
    assert report(checks, Paint(enabled=False))[-1] == "Kills can be seen on this host."


def test_whatever_is_not_well_says_how_to_mend_it(tree: Tree) -> None:
    for check in examine(tree.host, tree.asked):
        assert check.found
        assert check.state is State.OK or check.mend, check


def test_v1_only_is_recognised(tree: Tree) -> None:
    tree.mounts(TMPFS, V1, V1_CPU)
    (tree.root / "sys/fs/cgroup/memory").mkdir(parents=True)
    check = check_memory_controller(tree.host, default_cgroup_root(tree.host))
    assert check.state is State.FAILED
    assert "cgroup v1 only: the memory controller is at /sys/fs/cgroup/memory" in check.found
    assert "systemd.unified_cgroup_hierarchy=1" in check.mend
    assert "/proc/vmstat still" in check.mend


def test_a_hybrid_is_recognised(tree: Tree) -> None:
    tree.mounts(TMPFS, V1, UNIFIED)
    tree.write("/sys/fs/cgroup/unified/cgroup.controllers", "\n")
    check = check_memory_controller(tree.host, default_cgroup_root(tree.host))
    assert check.state is State.FAILED
    assert "hybrid" in check.found
    assert "/sys/fs/cgroup/unified has none" in check.found
    assert not can_see_kills(examine(tree.host, tree.asked))


def test_a_hybrid_whose_v2_has_memory_is_used(tree: Tree) -> None:
    tree.mounts(TMPFS, V1_CPU, UNIFIED)
    tree.write("/sys/fs/cgroup/unified/cgroup.controllers", "memory\n")
    tree.write("/sys/fs/cgroup/unified/cgroup.subtree_control", "memory\n")
    assert default_cgroup_root(tree.host) == tree.root / "sys/fs/cgroup/unified"
    usual = check_memory_controller(tree.host, tree.root / "sys/fs/cgroup")
    assert usual.state is State.FAILED
    assert "--cgroup-root /sys/fs/cgroup/unified" in usual.mend


def test_a_controller_switched_off_at_boot_is_named(tree: Tree) -> None:
    tree.mounts(V2)
    tree.write("/sys/fs/cgroup/cgroup.controllers", "cpu\n")
    tree.write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n")
    check = check_memory_controller(tree.host, default_cgroup_root(tree.host))
    assert check.state is State.FAILED
    assert "cgroup_enable=memory" in check.mend


def test_a_missing_root_says_where_to_mount_it(tree: Tree) -> None:
    check = check_memory_controller(tree.host, tree.root / "nowhere")
    assert check.state is State.FAILED
    assert "mount -t cgroup2" in check.mend


def test_a_controller_that_no_child_has_is_named(tree: Tree) -> None:
    tree.mounts(V2)
    tree.write("/sys/fs/cgroup/cgroup.controllers", "memory\n")
    tree.write("/sys/fs/cgroup/cgroup.subtree_control", "\n")
    check = check_memory_controller(tree.host, default_cgroup_root(tree.host))
    assert check.state is State.DEGRADED
    assert "echo +memory" in check.mend


def test_a_plain_directory_of_cgroup_files_will_do(tree: Tree) -> None:
    tree.write("/fake/a/memory.events.local", "oom_kill 0\n")
    assert check_memory_controller(tree.host, tree.root / "fake").state is State.OK


def test_memory_localevents_is_noticed(tree: Tree) -> None:
    tree.mounts(V2)
    assert check_local_events(tree.host).state is State.OK
    tree.mounts(V2 + ",memory_localevents")
    assert check_local_events(tree.host).state is State.DEGRADED


def test_watches_are_held_against_the_number_of_cgroups(good: Tree) -> None:
    assert check_inotify(good.host, 30_000).state is State.OK
    short = check_inotify(good.host, 40_000)
    assert short.state is State.DEGRADED
    assert "sysctl fs.inotify.max_user_watches=" in short.mend
    good.write("/proc/sys/fs/inotify/max_user_instances", "0\n")
    assert check_inotify(good.host, 1).state is State.DEGRADED


def test_an_old_kernel_says_what_it_lacks(good: Tree) -> None:
    good.write("/sys/fs/cgroup/a/memory.events.local", "oom 0\noom_kill 0\n")
    (good.root / "sys/fs/cgroup/a/memory.peak").unlink()
    check = check_kernel(good.host, good.root / "sys/fs/cgroup")
    assert check.state is State.DEGRADED
    assert "oom_group_kill" in check.found
    assert "memory.peak" in check.found


def test_namespaces_and_rights_are_told(good: Tree) -> None:
    good.write("/proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n")
    assert "uid 1000, without CAP_SYS_PTRACE" in check_permissions(good.host).found
    (good.root / "proc/self/ns/pid").unlink()
    good.link("/proc/self/ns/pid", "pid:[4026532000]")
    assert check_namespaces(good.host).state is State.DEGRADED


def test_a_gvisor_sandbox_is_no_place_to_watch_from(good: Tree) -> None:
    good.write("/proc/version", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n")
    assert check_sandbox(good.host).state is State.FAILED


@pytest.mark.parametrize(
    "check", [check_vmstat, check_kernel_log, check_tracepoint, check_pressure]
)
def test_a_missing_witness_degrades_and_does_not_fail(tree: Tree, check: object) -> None:
    assert callable(check)
    assert check(tree.host).state is State.DEGRADED


def test_where_the_device_is_missing_other_logs_are_offered(good: Tree) -> None:
    (good.root / "dev/kmsg").unlink()
    assert "--kernel-log" not in check_kernel_log(good.host).mend
    good.write("/var/log/syslog", "")
    good.write("/run/log/journal/id/system.journal", "")
    good.write("/usr/bin/journalctl", "")
    (good.root / "usr/bin/journalctl").chmod(0o755)
    assert "--kernel-log /var/log/syslog or journal" in check_kernel_log(good.host).mend
    good.write("/var/log/kern.log", "")
    assert "--kernel-log /var/log/kern.log or journal" in check_kernel_log(good.host).mend


def test_without_counters_the_log_alone_is_poor_and_no_failure(good: Tree) -> None:
    good.write("/sys/fs/cgroup/cgroup.controllers", "cpu\n")
    (good.root / "sys/fs/cgroup/a/memory.events.local").unlink()
    first, *others = examine(good.host, good.asked)
    assert first.state is State.DEGRADED
    assert "told by the kernel log and the tracepoint alone" in first.found
    about_counters = [c for c in others if c.name in ("hierarchical counters", "inotify")]
    assert [c.state for c in about_counters] == [State.SKIPPED] * 2, "there is nothing to judge"
    assert can_see_kills(examine(good.host, good.asked))
    (good.root / "dev/kmsg").unlink()
    (good.root / "sys/kernel/tracing/events/oom/mark_victim/format").unlink()
    assert not can_see_kills(examine(good.host, good.asked))


def test_a_stale_socket_is_no_daemon(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_checks, "_ANSWER_SECONDS", 0.2)
    path = tree.root / "oomwatch.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert ask_daemon(tree.asked)[0].state is State.DEGRADED
        server.listen()
        assert ask_daemon(tree.asked)[0].state is State.OK
    assert path.exists()
    assert ask_daemon(tree.asked)[0].state is State.DEGRADED


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
@pytest.mark.parametrize(("mode", "who"), [(0o660, "group 12345"), (0o600, "its owner")])
def test_who_may_not_connect_is_told_who_may(tree: Tree, mode: int, who: str) -> None:
    path = tree.root / "oomwatch.sock"
    let_in(tree.root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(mode)
        os.chown(path, 12345, 12345)
        os.seteuid(65534)
        try:
            (check,) = ask_daemon(tree.asked)
        finally:
            os.seteuid(0)
    assert check.state is State.DEGRADED
    assert "may not be connected to" in check.found
    assert who in check.mend
    assert "serve" not in check.mend, "one runs already"


def test_what_listens_and_does_not_answer_is_said(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_checks, "_ANSWER_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree.root / "oomwatch.sock"))
        server.listen()
        daemon, check = ask_daemon(tree.asked)
    assert daemon.state is State.OK
    assert check.state is State.DEGRADED
    assert "did not answer within 0.2 s" in check.found
    assert "start it again" in check.mend


def test_a_named_daemon_that_does_not_answer_is_a_failure_and_no_word_on_this_host(
    good: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though kills could be seen here: that is not what was asked."""
    assert run(["doctor", "--socket", str(good.socket), "-o", "json"]) == 3
    daemon, here = map(json.loads, capsys.readouterr().out.splitlines())
    assert (daemon["name"], daemon["state"]) == ("daemon", "failed")
    assert f"none answers at {good.socket} (no such file" in daemon["found"]
    assert (here["name"], here["state"]) == ("this host", "skipped")
    assert "--cgroup-root" in here["mend"]
    assert run(["doctor", "--socket", str(good.socket)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Whether kills can be seen by the daemon at {good.socket} is not known."


def node_status(sources: tuple[SourceState, ...], *, disk_full: bool = False) -> NodeStatus:
    return NodeStatus(
        version="1",
        hostname="node-7",
        boot_id="boot-1",
        kernel_release="6.12.0",
        cgroup_root="/host/cgroup",
        start_time=0,
        healthy=True,
        cgroups=12,
        kills_told=0,
        subscribers=0,
        sources=sources,
        journal=JournalStatus(
            journal_id="j",
            healthy=True,
            detail="in memory",
            oldest_revision=0,
            newest_revision=0,
            events=0,
            pending_events=0,
            disk_full=disk_full,
        ),
    )


def judged(tree: Tree, monkeypatch: pytest.MonkeyPatch, status: NodeStatus) -> list[Check]:
    """What is said of a daemon that answers so."""

    async def answer(_: AsyncClient) -> NodeStatus:
        return status

    monkeypatch.setattr(AsyncClient, "get_status", answer)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree.root / "oomwatch.sock"))
        server.listen()
        return judge_daemon(tree.host, tree.asked)


@pytest.mark.parametrize(
    ("sources", "seen"),
    [
        ({"memory_events": True}, True),
        ({"memory_events": False, "kernel_log": True}, True),
        ({"memory_events": False, "kernel_log": False, "docker": True}, False),
        ({}, False),
    ],
)
def test_a_named_daemon_is_judged_by_what_it_sees_itself(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, sources: dict[str, bool], seen: bool
) -> None:
    """The host of this test has nothing at all to see a kill by."""
    tree.write("/proc/sys/kernel/random/boot_id", "boot-1\n")
    status = node_status(tuple(SourceState(name=name, active=on) for name, on in sources.items()))
    checks = judged(tree, monkeypatch, status)
    assert can_see_kills(checks) is seen
    word = "can" if seen else "cannot"
    assert report(checks, Paint(enabled=False), "by it")[-1] == f"Kills {word} be seen by it."
    found = {check.name: check.found for check in checks}
    assert found["its tree"] == ("/host/cgroup on node-7 (Linux 6.12.0, this machine): 12 cgroups")
    assert "cgroup v2" not in found
    assert checks[-1].state is State.SKIPPED
    assert all(check.found and (check.state is State.OK or check.mend) for check in checks)


def test_a_daemon_whose_history_goes_for_want_of_room_is_degraded_and_sees_kills(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = node_status((SourceState(name="memory_events", active=True),), disk_full=True)
    checks = judged(tree, monkeypatch, status)
    (journal,) = [check for check in checks if check.name == "its journal"]
    assert journal.state is State.DEGRADED
    assert "Free space on its filesystem" in journal.mend
    assert can_see_kills(checks)


def test_the_sources_that_are_not_there_are_named_beside_those_that_are(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime whose socket was mistyped is no fault, and nobody would look for it elsewhere."""
    sources = (
        SourceState(name="docker", active=False),
        SourceState(name="containerd", active=False),
        SourceState(name="containerd", active=False),
        SourceState(name="kernel_log", active=True, degraded=True, detail="d"),
        SourceState(name="tracepoint", active=False, degraded=True, detail="d"),
        SourceState(name="memory_events", active=True),
    )
    checks = judged(tree, monkeypatch, node_status(sources))
    (found,) = [check.found for check in checks if check.name == "its sources"]
    assert found == "active: kernel_log, memory_events; not there: docker, containerd"


def test_a_runtime_that_may_not_even_be_looked_for_is_no_end_of_it(tree: Tree) -> None:
    """As in a sandbox, or for a user whom /run/podman is closed to."""
    (tree.root / "run/podman").mkdir(parents=True)
    (tree.root / "run/podman").chmod(0)
    check_runtimes(tree.host)  # what it imports can be read by root alone
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        closed = check_runtimes(tree.host)
    finally:
        if root:
            os.seteuid(0)
        (tree.root / "run/podman").chmod(0o700)
    assert closed.state is State.DEGRADED
    assert "podman at /run/podman/podman.sock (permission denied)" in closed.found


def test_a_runtime_that_is_there_must_answer(tree: Tree) -> None:
    nobody = check_runtimes(tree.host)
    assert nobody.state is State.OK
    assert "no runtime's socket" in nobody.found

    path = tree.root / "run/docker.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        docker = check_runtimes(tree.host)
        assert docker.state is State.OK
        assert "docker at /run/docker.sock" in docker.found
    gone = check_runtimes(tree.host)
    assert gone.state is State.DEGRADED
    assert "connection refused" in gone.found
    assert gone.mend
