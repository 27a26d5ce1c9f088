"""`oomwatch serve` as a process, and the commands that ask it, on a tree of plain files."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatch.cli.main import run
from oomwatch.testing import FakeCgroupTree

BOUND = 30.0
OOMWATCH = (sys.executable, "-m", "oomwatch.cli.main")


class Served:
    """A daemon on a fake tree, ready, and the commands run against it."""

    def __init__(self, directory: Path) -> None:
        self.tree = FakeCgroupTree(directory / "cgroup")
        self.tree.make("/a", limit_bytes=32 << 20)
        self.socket = directory / "o.sock"
        self.state = directory / "state"
        self.process: subprocess.Popen[str] | None = None

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Serve, set up by the environment; return once it says READY as to systemd."""
        notified = self.socket.with_name("notify.sock")
        notified.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(notified))
            manager.settimeout(BOUND)
            self.process = subprocess.Popen(
                [*OOMWATCH, "serve", *words],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "OOMWATCH_SOCKET": str(self.socket),
                    "OOMWATCH_STATE_DIR": str(self.state),
                    "OOMWATCH_CGROUP_ROOT": str(self.tree.root),
                    "NOTIFY_SOCKET": str(notified),
                },
            )
            assert manager.recv(64) == b"READY=1"
        return self.process

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command against this daemon."""
        return subprocess.run(
            [*OOMWATCH, *words],
            capture_output=True,
            text=True,
            timeout=BOUND,
            env={**os.environ, "OOMWATCH_SOCKET": str(self.socket)},
        )

    def killed(self, kills: int = 1) -> None:
        """Kill in /a, and return once the daemon has told it."""
        with subprocess.Popen(
            [*OOMWATCH, "tail", "-n", "0", "--socket", str(self.socket)],
            stdout=subprocess.PIPE,
            text=True,
        ) as tail:
            assert tail.stdout is not None
            for number in range(2):
                assert select.select([tail.stdout], [], [], BOUND)[0]
                assert tail.stdout.readline()
                if number == 0:
                    self.tree.kill("/a", kills)
            tail.send_signal(signal.SIGINT)
            assert tail.wait(BOUND) == 130


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    process = served.start()
    yield served
    for each in {process, served.process}:
        assert each is not None
        if each.poll() is None:
            each.kill()
        each.communicate()


def test_its_log_begins_with_what_it_sees(served: Served) -> None:
    assert served.process is not None
    served.process.terminate()
    _, log = served.process.communicate(timeout=BOUND)
    assert f"memory_events: 2 cgroups below {served.tree.root}, followed by inotify\n" in log
    assert f"journal {served.state / 'journal.db'}: 0 events kept\n" in log


def test_tail_list_and_show_ask_the_daemon(served: Served) -> None:
    served.killed(2)

    told = served.run("tail", "--no-follow", "-o", "json")
    assert (told.returncode, told.stderr) == (0, "")
    (event,) = [json.loads(line) for line in told.stdout.splitlines()]
    assert (event["kill_count"], event["victim_cgroup"]) == (2, "/a")
    revision = str(event["revision"])

    table = served.run("tail", "--no-follow").stdout.splitlines()
    assert [line.split()[-1] for line in table] == ["CGROUP", "/a"]

    shown = served.run("show", revision)
    assert "killed 2 times" in shown.stdout
    assert "oom_kill 0 -> 2" in shown.stdout
    assert json.loads(served.run("show", revision, "-o", "json").stdout) == event

    listed = served.run("list", "/a", "-o", "json")
    assert json.loads(listed.stdout)["kills"] == 2
    assert "null" not in listed.stdout, "what is not known is absent"

    nowhere = served.run("list", "/nope")
    assert nowhere.returncode == 0
    assert nowhere.stderr == "oomwatch: no cgroup is watched at or below /nope\n"

    cut = served.run("list", "/docker/ee129607aff3")
    assert "shortened" in cut.stderr, "a table's path is none to ask for"
    assert "-o json" in cut.stderr

    # A cgroup may be called so, and gRPC has no form for it.
    for words in (("list", "/caf\udce9"), ("tail", "--no-follow", "--filter", "cgroup=/caf\udce9")):
        odd = served.run(*words)
        assert odd.returncode == 1
        assert odd.stderr.startswith(r"oomwatch: '/caf\xe9' is not UTF-8"), odd.stderr

    none = served.run("show", "99")
    assert none.returncode == 1
    assert "has no revision 99" in none.stderr


@pytest.mark.parametrize("more", [(), ("--no-follow",)])
@pytest.mark.parametrize(("after", "said"), [("other:0", "old journal are gone"), ("99", "future")])
def test_history_that_is_not_there_is_told_with_what_a_person_types(
    served: Served, after: str, said: str, more: tuple[str, ...]
) -> None:
    lost = served.run("tail", "--after", after, *more)
    assert lost.returncode == 4
    assert said in lost.stderr
    assert lost.stderr.endswith("; begin with --earliest\n"), lost.stderr


def test_the_doctor_judges_a_named_daemon_by_what_that_one_sees(served: Served) -> None:
    """On a fake tree it does, whatever this host has."""
    done = served.run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == f"Kills can be seen by the daemon at {served.socket}."
    assert any(str(served.tree.root) in line and "this machine" in line for line in lines)
    assert not any("cgroup v2" in line for line in lines)


def test_resuming_where_history_does_not_go_is_exit_code_4(served: Served) -> None:
    for after in ("99", "another-journal:1"):
        done = served.run("tail", "--after", after)
        assert done.returncode == 4, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_sigterm_ends_the_daemon_in_good_order_and_the_journal_is_readable(
    served: Served,
) -> None:
    served.killed()
    held = served.run("show", "1", "--state-dir", str(served.state))
    assert held.returncode == 1
    assert "is held by a daemon: leave --state-dir out" in held.stderr

    process = served.process
    assert process is not None
    process.terminate()
    assert process.wait(BOUND) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert not served.socket.exists()

    shown = served.run("show", "1", "--state-dir", str(served.state))
    assert shown.returncode == 0
    assert "The victim lived in /a." in shown.stdout


def test_looking_for_an_event_makes_no_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal has a reserve of some MiB, and whoever mistypes a directory has none there."""
    assert run(["show", "1", "--state-dir", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no journal (journal.db)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run(["show", "1", "--state-dir", str(tmp_path), "--socket", "/s"]) == 2
    assert "it asks no daemon" in capsys.readouterr().err


def test_tail_goes_on_when_the_daemon_comes_back(served: Served) -> None:
    with subprocess.Popen(
        [*OOMWATCH, "tail", "--socket", str(served.socket)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert tail.stdout.readline().startswith("TIME ")
        served.tree.kill("/a")
        assert tail.stdout.readline().split()[2] == "1"
        first = served.process
        assert first is not None
        first.terminate()
        first.communicate(timeout=BOUND)
        served.start()
        served.tree.kill("/a")
        assert select.select([tail.stdout], [], [], BOUND)[0]
        assert tail.stdout.readline().split()[-1] == "/a"
        tail.terminate()
        assert tail.wait(BOUND) == 143
        lost, back = tail.stderr.read().splitlines()  # each once, however often it tried
        assert "the connection to the daemon was lost" in lost
        assert "is back, and nothing was missed" in back


def test_sighup_ends_nothing(served: Served) -> None:
    """It means "read the TLS files again" to every daemon, as a manager may send it to any."""
    process = served.process
    assert process is not None
    process.send_signal(signal.SIGHUP)
    assert served.run("list").returncode == 0
    process.terminate()
    _, words = process.communicate(timeout=BOUND)
    assert process.returncode == 0
    assert "no TLS files to read again" in words


def test_figures_are_served_where_asked_for(served: Served) -> None:
    process = served.process
    assert process is not None
    process.terminate()
    process.communicate(timeout=BOUND)
    process = served.start("--metrics", "127.0.0.1:0")
    assert process.stderr is not None
    line = ""
    while "serving metrics at " not in line:
        line = process.stderr.readline()
    served.killed(4)
    url = line.split("serving metrics at ")[1].strip()
    with urllib.request.urlopen(url, timeout=BOUND) as answer:
        assert b'oomwatch_kills_total{scope="container_limit"} 4.0' in answer.read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metrics", "0.0.0.0:0"), "say --insecure twice"),
        (("--listen", "127.0.0.1:0"), "say --insecure"),
        (("--listen", "0.0.0.0:0", "--insecure"), "say --insecure twice"),
        (("--insecure",), "about --listen and --metrics"),
        (("--socket-mode", "0o888"), "is no mode"),
        (("--read-only-socket-group", "users"), "needs --read-only-socket"),
        (("--listen", "7433"), "--listen: '7433' is not HOST:PORT"),
        (("--metrics", "/metrics"), "--metrics: '/metrics' is not HOST:PORT"),
        (("--read-only-socket", "/proc/none/s"), "directory cannot be made"),
        (("--state-dir", "/proc/none"), "choose another --state-dir"),
        (("--read-only-socket", "/proc/self/s"), "choose another path"),
        (("--socket", "/proc/none/s", "--read-only-socket", "/proc/none/s"), "must differ"),
    ],
)
def test_what_would_let_others_in_is_refused_in_words(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    tree = FakeCgroupTree(tmp_path / "cgroup")
    where = ("--socket", str(tmp_path / "s"), "--cgroup-root", str(tree.root))
    refused = subprocess.run(
        [*OOMWATCH, "serve", *where, *words], capture_output=True, text=True, timeout=BOUND
    )
    assert refused.returncode in (1, 2)
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_ctrl_c_is_an_interruption(served: Served) -> None:
    process = served.process
    assert process is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND) == 130


def test_a_second_daemon_at_the_same_socket_is_refused_in_words(served: Served) -> None:
    second = served.run("serve", "--cgroup-root", str(served.tree.root))
    assert second.returncode == 1
    assert "another daemon answers at" in second.stderr
    assert "Traceback" not in second.stderr


def test_what_the_daemon_never_asks_of_asyncio_is_not_loaded(tmp_path: Path) -> None:
    served = Served(tmp_path)
    process = served.start(
        *("--read-only-socket", str(tmp_path / "reading.sock")),
        *("--listen", "127.0.0.1:0", "--insecure"),
        # Named, since the Docker SDK, which is imported where there is a Docker, wants TLS.
        *("--runtime", f"containerd={tmp_path}/c.sock", "--container-pattern", "/own/{id}"),
    )
    try:
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.kill()
        process.communicate()
    assert f"{files_of('_sqlite3')[0]}\n" in mapped
    spared = files_of("_ssl", "_bz2", "_lzma")
    assert spared, "this Python has them built in: run another's to see them spared"
    assert [file for file in spared if f"{file}\n" in mapped] == []


def files_of(*extensions: str) -> list[str]:
    """The files of modules in C, but of those that are built into the interpreter."""
    specs = map(importlib.util.find_spec, extensions)
    return [str(spec.origin) for spec in specs if spec is not None and spec.has_location]
