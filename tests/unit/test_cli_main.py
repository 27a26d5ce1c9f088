"""The commands as a whole: quick to start, documented, and clear about what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from oomwatch.cli import main as cli_main
from oomwatch.cli.main import cli, run
from oomwatch.cli.reference import reference
from oomwatch.cli.tail import as_typed
from oomwatch.errors import (
    AddressError,
    DaemonUnavailable,
    HistoryCompacted,
    JournalReset,
    NoCgroupRoot,
    OomwatchError,
)
from oomwatch.escaping import quoted
from oomwatch.testing import FakeCgroupTree

ROOT = Path(__file__).parents[2]
COMMANDS = cli.list_commands(click.Context(cli))
HEAVY = ("grpc", "google.protobuf", "docker", "prometheus_client", "psutil", "sqlite3", "asyncio")


TITLE = "\x1b]0;owned\x07"
"""Sets the title of a terminal's window."""


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(['', *sys.modules]))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    loaded = modules_after(
        f"from oomwatch.cli.main import run\nassert run([{command!r}, '--help']) == 0"
    )
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_package_loads_no_optional_part() -> None:
    assert modules_after("import oomwatch").isdisjoint(HEAVY)


def test_only_the_command_that_runs_is_imported() -> None:
    loaded = modules_after("from oomwatch.cli.main import run\nrun(['tail', '--help'])")
    ours = {name for name in loaded if name.startswith("oomwatch.cli.")}
    assert "oomwatch.cli.tail" in ours
    assert ours.isdisjoint(f"oomwatch.cli.{name}" for name in COMMANDS if name != "tail")


def test_the_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs/cli.md").read_text() == reference(), (
        "run: python -m oomwatch.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_examples(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    assert "Examples:\n  oomwatch " in (command.epilog or "")
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} {param.opts} has no help"


def test_each_command_has_a_whole_line_in_the_overview(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 80 columns, which is what a pipe is taken for."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    lines = told.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines), told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_one_that_the_parser_takes(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    examples = [line for line in (command.epilog or "").splitlines() if f"oomwatch {name}" in line]
    assert examples
    for line in examples:
        words = line.partition(f"oomwatch {name}")[2]
        # A wide gap begins a remark, a bar or a bracket what the shell does.
        for end in ("   ", " | ", " > "):
            words = words.partition(end)[0]
        context = command.make_context(name, words.split())
        assert not context.args


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("oomwatch ")


def test_the_package_is_the_command_as_well() -> None:
    command = (sys.executable, "-m", "oomwatch", "--version")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("oomwatch ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert "_OOMWATCH_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["tail", "--since", "yesterday"],
        ["tail", "--after", "x"],
        ["tail", "-n", "3", "--since", "2h"],
        ["tail", "--kind", "murder"],
        ["tail", "--filter", "colour=red"],
        ["tail", "--socket", "/a", "--address", "b:1"],
        ["tail", "--cgroup-root", "/a", "--socket", "/b"],
        ["tail", "--address", "nonsense"],
        ["list", "docker"],
        ["show", "0"],
        ["serve", "--listen", "0.0.0.0:1"],
        ["serve", "--tls-cert", "a"],
        ["serve", "--insecure"],
        ["serve", "--poll-interval", "0"],
        ["serve", "--retention-age", "long"],
        ["serve", "--retention-age", "0"],
        ["completion", "csh"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OomwatchError("x"), 1),
        (NoCgroupRoot("x"), 1),
        (AddressError("x"), 1),
        (DaemonUnavailable("x"), 3),
        (HistoryCompacted(3, 10), 4),
        (JournalReset("a", "b", 1), 4),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (BrokenPipeError(), 141),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_expected_error_is_a_sentence_and_a_code(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raises(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli_main, "forget_stdout", lambda: None)
    monkeypatch.setattr(cli, "main", raises)
    assert run([]) == code
    said = capsys.readouterr().err
    assert said.startswith("oomwatch: ") if code in (1, 3, 4) else said == ""
    assert said.count("\n") == (1 if said else 0)


@pytest.mark.parametrize("sentence", [None, "in the words of an older daemon"])
def test_where_history_was_deleted_tail_says_what_to_type(sentence: str | None) -> None:
    error = HistoryCompacted(3, 10)
    assert "start from 'earliest', or after 9" in str(error), "as gRPC and Python have it"
    if sentence is not None:
        error.args = (sentence,)
    told = as_typed(error)
    assert told is error
    found = sentence or "revision 3 was compacted away; the oldest one kept is 10"
    assert str(told) == f"{found}; begin with --earliest, or --after 9"


@pytest.mark.parametrize(
    "words", ["--help", "--version", "tail --help", "verdict --exit-code 1", "completion bash"]
)
def test_a_reader_that_left_is_told_by_the_exit_code_alone(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "oomwatch", *words.split()],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_output_that_is_full_is_said_to_be_what_failed() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "oomwatch", "verdict", "--exit-code", "1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "oomwatch: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_was_closed_before_the_start_is_no_end_of_it(closed: str) -> None:
    """As some supervisors start what they run."""
    command = f"{sys.executable} -m oomwatch verdict --exit-code 1 {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = f"{sys.executable} -m oomwatch verdict {closed}"
    done = subprocess.run(["sh", "-c", wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", ["serve --state-dir", "serve --socket", "tail --socket", "list --cgroup-root"]
)
def test_an_empty_path_is_not_the_working_directory(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, option = words.split()
    assert run([command, option, ""]) == 2
    said = capsys.readouterr().err
    assert f"'{option}'" in said
    assert "it is empty" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("socket-mode", "9"),
        ("insecure", "twice"),
        ("poll-interval", "soon"),
        ("runtime", "docker=/run/docker.sock nonsense"),
        ("container-pattern", "nonsense"),
    ],
)
def test_each_option_of_serve_is_read_from_the_environment_by_its_name(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = f"OOMWATCH_{option.upper().replace('-', '_')}"
    monkeypatch.setenv(variable, value)
    assert run(["serve"]) == 2
    assert f"Invalid value for '{variable}', which is '--{option}': " in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "-1", "3", "true", "1.0", "٢", "\x1b[2J", "9" * 5000])
def test_how_often_a_flag_is_said_in_the_environment_is_one_of_a_few_numbers(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OOMWATCH_INSECURE", value)
    assert run(["serve"]) == 2
    said = capsys.readouterr().err
    assert f"'OOMWATCH_INSECURE', which is '--insecure': {quoted(value)} is none of 0, 1" in said
    assert "and 2: how often the option is given" in said


@pytest.mark.parametrize(("words", "given"), [("", 2), ("--insecure", 1), ("--insecure " * 3, 3)])
def test_a_flag_that_is_typed_outweighs_the_number_in_the_environment(
    words: str, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OOMWATCH_INSECURE", "2")
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    assert command.make_context("serve", words.split()).params["insecure"] == given


def test_what_is_typed_wrongly_is_not_said_to_be_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OOMWATCH_SOCKET_MODE", "9")
    assert run(["serve", "--socket-mode", "8"]) == 2
    assert "Invalid value for '--socket-mode': '8' is no mode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("OOMWATCH_LISTEN", "x", "serve"),  # what the command looks at itself, after the parser
        ("OOMWATCH_POLL_INTERVAL", "0", "serve"),
        ("OOMWATCH_ADDRESS", "x", "list"),  # a variable that the option names
    ],
)
def test_a_wrong_value_of_the_environment_is_said_to_be_from_there(
    variable: str,
    value: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert run([command]) == 2
    option = variable.removeprefix("OOMWATCH_").lower().replace("_", "-")
    assert f"Invalid value for '{variable}', which is '--{option}': " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--socket-mode", "--read-only-socket-mode"])
@pytest.mark.parametrize("mode", ["0000", "0", "0400", "0466", "0060", "0o066"])
def test_a_socket_that_not_even_its_owner_may_connect_to_is_refused(option: str, mode: str) -> None:
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    with pytest.raises(click.BadParameter) as refused:
        command.make_context("serve", [option, mode])
    assert f"with {mode!r} not even its owner could connect" in refused.value.message
    assert "give 0660 (the owner and the group), 0600 or 0666" in refused.value.message


@pytest.mark.parametrize(("mode", "given"), [("0200", 0o200), ("660", 0o660), ("0o777", 0o777)])
def test_a_socket_that_its_owner_may_connect_to_is_taken(mode: str, given: int) -> None:
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    assert command.make_context("serve", ["--socket-mode", mode]).params["socket_mode"] == given


def test_no_option_of_serve_is_called_otherwise_in_the_environment() -> None:
    command = cli.get_command(click.Context(cli), "serve")
    assert command is not None
    for param in command.params:
        assert f"--{(param.name or '').replace('_', '-')}" in param.opts


@pytest.mark.parametrize(
    ("variable", "value", "words", "asked"),
    [
        ("OOMWATCH_SOCKET", "/nowhere/env.sock", "--address 127.0.0.1:1 --insecure", "127.0.0.1:1"),
        ("OOMWATCH_ADDRESS", "127.0.0.1:1", "--socket /nowhere/typed.sock", "/nowhere/typed.sock"),
    ],
)
def test_the_daemon_that_is_typed_outweighs_that_of_the_environment(
    variable: str,
    value: str,
    words: str,
    asked: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(["list", *words.split()]) == 3
    assert f"no daemon answers at {asked}" in capsys.readouterr().err


def test_two_daemons_in_the_environment_are_one_too_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OOMWATCH_SOCKET", "/nowhere/env.sock")
    monkeypatch.setenv("OOMWATCH_ADDRESS", "127.0.0.1:1")
    assert run(["list"]) == 2
    assert "OOMWATCH_ADDRESS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", [["--kernel-log", "/var/log/kern.log"], ["--kernel-log", "/dev/kmsg"], []]
)
def test_a_kernel_log_is_not_ignored_in_silence_beside_a_tree_that_is_no_kernels(
    given: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = FakeCgroupTree(tmp_path)
    if not given:
        monkeypatch.setenv("OOMWATCH_KERNEL_LOG", "journal")
    assert run(["serve", "--cgroup-root", str(tree.root), *given]) == 2
    said = capsys.readouterr().err
    assert f"cannot be used beside --cgroup-root {tree.root}" in said
    assert "leave --kernel-log out" in said


def test_beside_a_tree_that_is_no_kernels_the_kernel_log_may_be_said_to_be_off(
    tmp_path: Path,
) -> None:
    """It goes on to the socket, which is none."""
    tree = FakeCgroupTree(tmp_path / "cgroup")
    (blocked := tmp_path / "file").touch()
    words = ["--cgroup-root", str(tree.root), "--socket", str(blocked)]
    for fits in ([], ["--kernel-log", "off"]):
        command = [sys.executable, "-m", "oomwatch", "serve", *words, *fits]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "is no socket" in done.stderr


@pytest.mark.parametrize("word", ["abc", "0", "17a", "1.5", "٣", "9" * 19, "9" * 5000, "j:17", ""])
def test_what_is_no_revision_is_told_where_revisions_are_found(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", word]) == 2
    said = capsys.readouterr().err
    assert "is no revision" in said
    assert "'oomwatch tail --no-follow'" in said
    assert len(said) < 500


def test_a_cursor_of_any_length_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tail", "--after", "9" * 5000]) == 2
    assert "holds no revision" in capsys.readouterr().err


def test_an_error_that_quotes_a_hostile_path_stays_on_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(**_: object) -> None:
        raise NoCgroupRoot("/a\n\x1b[2J is not there")

    monkeypatch.setattr(cli, "main", raises)
    run([])
    assert capsys.readouterr().err == "oomwatch: /a\\x0a\\x1b[2J is not there\n"


@pytest.mark.parametrize(
    "words", [["tail", "--filter", "kind=\x1b[2J"], ["tail", "\x1b[2J", "\u202e"]]
)
def test_wrong_usage_that_quotes_what_was_typed_is_harmless_on_a_terminal(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "w") as terminal, os.fdopen(primary, "rb", 0) as seen:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert run(words) == 2
        terminal.flush()
        said = b""
        while b"Error: " not in said or not said.endswith(b"\n"):
            said += seen.read(4096)
    assert all(line.isprintable() for line in said.decode().split("\r\n"))


def test_help_is_there_before_a_human_notices() -> None:
    def cpu_seconds() -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-c", "from oomwatch.cli.main import run; run(['tail', '--help'])"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        after = os.times()
        spent = after.children_user - before.children_user
        return spent + after.children_system - before.children_system

    # Processor time, and the best of several: what others do on the machine is not counted.
    assert min(cpu_seconds() for _ in range(5)) < 0.15
