"""`oomwatch scan`, over logs of every form, as a person runs it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from oomwatch.cli.main import run
from oomwatch.event_json import event_loads
from oomwatch.kernel_log.kmsg import parse_kmsg

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDS = Path(__file__).parents[1] / "data/kmsg"
OWN = RECORDS / "own-6.1.kmsg"
WHEN = datetime(2026, 11, 22, 6, 40, 46, 769814, UTC)


def json_lines(text: str) -> list[dict[str, Any]]:
    for line in text.splitlines():
        event_loads(line)
    return [json.loads(line) for line in text.splitlines()]


def as_text(name: str, prefix: Callable[[float], str], *, end: str = "\n") -> bytes:
    """A recording as a logger writes it: `prefix` is given the seconds since boot."""
    lines = []
    for raw in (RECORDS / name).read_bytes().splitlines():
        record = parse_kmsg(raw)
        if record is not None and record.from_kernel:
            assert record.kernel_time_seconds is not None
            lines.append(prefix(record.kernel_time_seconds).encode() + record.text + end.encode())
    return b"".join(lines)


ISO = f"{WHEN:%Y-%m-%dT%H:%M:%S}"
FORMS: dict[str, tuple[Callable[[float], str], datetime | None, bool]] = {
    # The form: its prefix, the time that it gives, whether it gives the kernel's own time.
    "message-only": (lambda _: "", None, False),
    "dmesg": (lambda at: f"[{at:12.6f}] ", None, True),
    "dmesg-caller": (lambda at: f"[{at:12.6f}][  T138] ", None, True),
    "dmesg-T": (lambda _: f"[{WHEN:%a %b %e %H:%M:%S %Y}] ", WHEN.replace(microsecond=0), False),
    "dmesg-iso": (lambda _: f"{ISO},769814+00:00 ", WHEN, False),
    "dmesg-x": (lambda at: f"kern  :err   : [{at:12.6f}] ", None, True),
    "dmesg-r": (lambda at: f"<3>[{at:12.6f}] ", None, True),
    "journal-short": (lambda _: "Nov 22 06:40:46 web-1 kernel: ", None, False),
    "journal-precise": (lambda _: "Nov 22 06:40:46.769814 web-1 kernel: ", None, False),
    "journal-iso": (
        lambda _: f"{ISO}+0000 web-1 kernel: ",
        WHEN.replace(microsecond=0),
        False,
    ),
    "journal-iso-precise": (lambda _: f"{ISO}.769814+00:00 web-1 kernel: ", WHEN, False),
    "journal-full": (
        lambda _: "Sun 2026-11-22 06:40:46 UTC web-1 kernel: ",
        WHEN.replace(microsecond=0),
        False,
    ),
    "journal-unix": (lambda _: f"{WHEN.timestamp():.6f} web-1 kernel: ", WHEN, False),
    "journal-monotonic": (lambda at: f"[{at:12.6f}] web-1 kernel: ", None, True),
    "rsyslog": (lambda at: f"Nov 22 06:40:46 web-1 kernel: [{at:12.6f}] ", None, True),
    "rsyslog-iso": (lambda at: f"{ISO}.769814+00:00 web-1 kernel: [{at:12.6f}] ", WHEN, True),
    "rfc5424": (lambda at: f"<3>1 {ISO}.769814Z web-1 kernel - - - [{at:12.6f}] ", WHEN, True),
    "rfc3164": (lambda at: f"<3>Nov 22 06:40:46 web-1 kernel: [{at:12.6f}] ", None, True),
    "busybox": (lambda at: f"Nov 22 06:40:46 box kern.err kernel: [{at:12.6f}] ", None, True),
    "logread": (
        lambda at: f"Sun Nov 22 06:40:46 2026 kern.err kernel: [{at:12.6f}] ",
        WHEN.replace(microsecond=0),
        True,
    ),
    "kubectl-timestamps": (lambda at: f"{ISO}.769814123Z [{at:12.6f}] ", WHEN, True),
    "kubectl-prefix": (lambda at: f"[pod/reader-x/dmesg] [{at:12.6f}] ", None, True),
    "cri": (lambda at: f"{ISO}.769814123Z stdout F [{at:12.6f}] ", WHEN, True),
    "compose": (lambda at: f"reader-1  | [{at:12.6f}] ", None, True),
    "quoted": (lambda at: f"> [{at:12.6f}] ", None, True),
    "indented": (lambda at: f"    [{at:12.6f}] ", None, True),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_the_same_kill(
    form: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, when, has_uptime = FORMS[form]
    log = tmp_path / "log"
    log.write_bytes(as_text("own-6.1.kmsg", prefix, end=end))
    assert run(["scan", str(log), "-o", "json", "--timezone", "UTC"]) == 0
    (event,) = json_lines(capsys.readouterr().out)
    assert event["victim_cgroup"] == event["limit_cgroup"] == "/own-limit.service"
    assert event["scope"] == "container_limit"
    assert event["constraint"] == "memcg"
    assert event["confidence"] == "confirmed"
    assert event["memory"]["limit_bytes"] == 12 << 20
    (victim,) = event["victims"]
    assert (victim["comm"], victim["uid"], victim["oom_score_adj"]) == ("eater", 0, 0)
    assert event["invoker"] == {"comm": "eater", "gfp_mask": "0xcc0(GFP_KERNEL)", "order": 0}
    assert event.get("occur_time") == (when and f"{when:%Y-%m-%dT%H:%M:%S.%f}Z")
    assert ("kernel_time_seconds" in event) == has_uptime
    last = log.read_bytes().count(b"\n")
    assert event["evidence"][0]["detail"].startswith(f"{log}:{last}: Killed process ")


def test_a_stamp_without_a_year_has_a_time_only_when_the_year_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "syslog"
    log.write_bytes(as_text("own-6.1.kmsg", FORMS["journal-precise"][0]))
    assert run(["scan", str(log), "-o", "json", "--timezone", "UTC"]) == 0
    captured = capsys.readouterr()
    assert "occur_time" not in json_lines(captured.out)[0]
    assert "--year" in captured.err
    assert run(["scan", str(log), "-o", "json", "--year", "2026", "--timezone", "UTC"]) == 0
    captured = capsys.readouterr()
    assert json_lines(captured.out)[0]["occur_time"] == "2026-11-22T06:40:46.769814Z"
    assert captured.err == ""


def test_a_named_zone_is_the_stamps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "dmesg-T"
    log.write_bytes(as_text("own-6.1.kmsg", FORMS["dmesg-T"][0]))
    assert run(["scan", str(log), "-o", "json", "--timezone", "Europe/Berlin"]) == 0
    (event,) = json_lines(capsys.readouterr().out)
    assert event["occur_time"] == "2026-11-22T05:40:46.000000Z"


@pytest.mark.parametrize("transport", [b"syslog", b"stdout", b"journal"])
def test_a_program_that_writes_a_kill_line_kills_nobody(
    transport: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = b"Out of memory: Killed process 1 (systemd) total-vm:1kB, anon-rss:1kB, file-rss:1kB"
    log = tmp_path / "log"
    log.write_bytes(
        b"Nov 22 06:40:46 web-1 app[7]: " + words + b"\n"
        b"Nov 22 06:40:46 web-1 app: " + words + b"\n"
        b"<14>Nov 22 06:40:46 web-1 kernel: " + words + b"\n"
        b"user  :err   : [   12.000000] " + words + b"\n"
        b"<11>1 2026-11-22T06:40:46Z web-1 kernel - - - " + words + b"\n"
        b"<3>1 2026-11-22T06:40:46Z web-1 app 7 - - " + words + b"\n"
        b'{"MESSAGE":"' + words + b'","_TRANSPORT":"' + transport + b'"}\n'
        b'{"MESSAGE":"' + words + b'","_TRANSPORT":"kernel","SYSLOG_FACILITY":"1"}\n'
        b"12,5,7,-;" + words + b"\n"
    )
    assert run(["scan", str(log)]) == 0
    assert capsys.readouterr().out == ""


def journal_fields(name: str) -> list[dict[str, bytes]]:
    entries = []
    for raw in (RECORDS / name).read_bytes().splitlines():
        record = parse_kmsg(raw)
        if record is None or record.kernel_time_seconds is None:
            continue
        assert record.priority is not None
        entries.append(
            {
                "__REALTIME_TIMESTAMP": b"%d" % (WHEN.timestamp() * 1e6),
                "_TRANSPORT": b"kernel",
                "_HOSTNAME": b"web-1",
                "SYSLOG_FACILITY": b"%d" % (record.priority >> 3),
                "_SOURCE_MONOTONIC_TIMESTAMP": b"%d" % round(record.kernel_time_seconds * 1e6),
                "MESSAGE": record.text,
            }
        )
    return entries


def as_json(value: bytes) -> str | list[int]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return list(value)
    return text if text.isprintable() else list(value)


def journal_json(name: str) -> bytes:
    return b"".join(
        json.dumps(
            {key: as_json(value) for key, value in entry.items()}, separators=(",", ":")
        ).encode()
        + b"\n"
        for entry in journal_fields(name)
    )


def journal_export(name: str) -> bytes:
    log = bytearray()
    for number, entry in enumerate(journal_fields(name)):
        log += b"__CURSOR=s=%d\n" % number
        for key, value in entry.items():
            if isinstance(as_json(value), str):
                log += key.encode() + b"=" + value + b"\n"
            else:
                log += key.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
        log += b"\n"
    return bytes(log)


@pytest.mark.parametrize("padding", [0, 3 << 20], ids=["at-once", "after-much-else"])
@pytest.mark.parametrize("write", [journal_json, journal_export])
def test_the_journal_gives_the_kernels_own_bytes(
    write: Callable[[str], bytes],
    padding: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = b"__CURSOR=x\n_TRANSPORT=stdout\nMESSAGE=hello\n\n"
    if write is journal_json:
        other = b'{"MESSAGE":"hello from oom-killer test","_TRANSPORT":"stdout"}\n'
    log = tmp_path / "journal"
    log.write_bytes(other * (padding // len(other) + 1) + write("hostile-6.1.kmsg"))
    assert run(["scan", str(log), "-o", "json"]) == 0
    events = json_lines(capsys.readouterr().out)
    truth = json.loads((RECORDS / "hostile-6.1.json").read_text())["victims"]
    assert [event["victims"][0]["pid"] for event in events] == [each["pid"] for each in truth]
    for event, each in zip(events, truth, strict=True):
        comm = event["victims"][0]["comm"].encode("utf-8", "surrogateescape")
        assert comm == bytes.fromhex(each["comm"])
        assert event["victim_cgroup"] == each["cgroup"]
        assert event["occur_time"] == "2026-11-22T06:40:46.769814Z"
        assert event["kernel_time_seconds"] > 1


def test_docker_json_logs_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "container-json.log"
    with log.open("w") as out:
        for line in as_text("own-6.1.kmsg", FORMS["dmesg"][0]).decode().splitlines():
            out.write(json.dumps({"log": line + "\n", "stream": "stdout"}) + "\n")
    assert run(["scan", str(log), "-o", "json"]) == 0
    assert json_lines(capsys.readouterr().out)[0]["victims"][0]["comm"] == "eater"


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, lzma.compress, bz2.compress, zstd.compress],
    ids=["gz", "xz", "bz2", "zst"],
)
def test_compressed_logs_are_told_by_their_bytes(
    pack: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack(OWN.read_bytes())
    log = tmp_path / "log.1"
    log.write_bytes(packed)
    assert run(["scan", str(log), "-o", "json"]) == 0
    assert json_lines(capsys.readouterr().out)[0]["victims"][0]["comm"] == "eater"
    log.write_bytes(packed[: len(packed) // 2])
    assert run(["scan", str(log)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"oomwatch: {log}: ")
    assert said.count("\n") == 1


def test_what_cannot_be_read_is_said_and_the_rest_is_scanned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "gone"
    assert run(["scan", str(missing), str(tmp_path), str(OWN), "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert len(json_lines(captured.out)) == 1
    assert captured.err.splitlines() == [
        f"oomwatch: {missing}: No such file or directory",
        f"oomwatch: {tmp_path}: Is a directory",
    ]


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, zstd.compress], ids=["plain", "gz", "xz", "zst"]
)
def test_stdin_is_a_log_too_compressed_or_not(pack: Callable[[bytes], bytes]) -> None:
    data = pack(OWN.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "oomwatch.cli.main", "scan", "-", "-o", "json"],
        input=data,
        capture_output=True,
        check=True,
    )
    (event,) = json_lines(done.stdout.decode())
    assert event["evidence"][0]["detail"].startswith("<stdin>:43: ")


def test_a_log_without_kills_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "quiet"
    log.write_text("Nov 22 06:40:46 web-1 kernel: all is well\n")
    assert run(["scan", str(log)]) == 0
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.startswith("oomwatch: no kill ")
    log.write_text("")
    assert run(["scan", str(log), "--summary"]) == 0
    assert capsys.readouterr() == ("0 kills in 0 events\n", "")


def test_the_table_is_one_harmless_line_a_kill(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", str(RECORDS / "hostile-6.1.kmsg")]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["TIME", "KILLS", "SCOPE", "LIMIT", "RSS", "VICTIM", "LINE", "CGROUP"]
    assert len(rows) == 11
    assert all(row.isprintable() for row in rows)
    assert "hostile-6.1.kmsg:44" in rows[0]


def test_the_summary_counts_by_cgroup_process_scope_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs = [str(RECORDS / f"{name}-6.1.kmsg") for name in ("own", "ancestor", "group", "node")]
    assert run(["scan", *logs, "--summary", "-o", "json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["kills"], counts["events"]) == (6, 5)
    scopes = {row["scope"]: row["kills"] for row in counts["by_scope"]}
    assert scopes == {"container_limit": 1, "ancestor_limit": 2, "node": 1, "unknown": 2}
    assert {"kills": 2} in counts["by_cgroup"]
    assert {row["comm"]: row["kills"] for row in counts["by_process"]} == {
        "eater": 3,
        "sleeper": 2,
        "node eater": 1,
    }
    assert sum(row["kills"] for row in counts["by_hour"]) == 6
    assert run(["scan", *logs, "--summary"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("6 kills in 5 events\n")
    for title in ("SCOPE", "CGROUP", "PROCESS", "FROM"):
        assert f"KILLS  {title}\n" in text
    assert "  own\n" in text, "in the words of the other tables"
    assert "container_limit" not in text


def test_progress_is_shown_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oomwatch.cli import progress

    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.0)
    log = tmp_path / "log"
    log.write_bytes(b"nothing here\n" * 200_000)
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as shown, os.fdopen(controller, "rb", buffering=0) as seen:
        monkeypatch.setattr(sys, "stderr", shown)
        assert run(["scan", str(log)]) == 0
        shown.write("end\n")
        shown.flush()
        text = b""
        while b"end" not in text:
            text += seen.read(4096)
    assert b"% of 2.5 MiB, 0 kills" in text
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    assert run(["scan", str(log)]) == 0
    assert quiet.getvalue().startswith("oomwatch: no kill ")
    assert "%" not in quiet.getvalue()


@pytest.mark.parametrize("words", [["scan"], ["scan", "x", "--timezone", "Mars/Olympus"]])
def test_wrong_usage_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "Error: " in capsys.readouterr().err
