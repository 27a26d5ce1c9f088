"""Real logs with hand-made truth: everything in the truth is found, and nothing else.

The logs are other people's text and no part of this project: they are read where they lie, beside
the checkout or where OOMWATCH_CORPUS says, and the tests skip where they are not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from oomwatch.events import OomKill, Victim
from oomwatch.kernel_log.episodes import Episodes
from oomwatch.kernel_log.search import KillSearch

ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("OOMWATCH_CORPUS") or ROOT.parent / "shared" / "corpus")
CASES = sorted(CORPUS.glob("*/*.json"))

# Where the truth was found to be wrong, by file: the fields that are not asserted, and why.
# None of these four holds an "invoked oom-killer" line, so no invoker is stated in it.
DISPUTED: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("vm/065-k612b-split0", "vm/067-k612b-split2", "vm/068-k510b-split0", "vm/070-k510b-split2"),
    ("invoker_comm",),
)


def read(log: Path) -> list[OomKill]:
    search, episodes = KillSearch(), Episodes(log.name, detect_time=0)
    with log.open("rb") as stream:
        told = [each for kill in search.kills(stream) for each in episodes.add(kill)]
    return [each.event for each in [*told, *episodes.flush()]]


def log_of(case: Path) -> Path:
    (log,) = [path for path in case.parent.glob(f"{case.stem}.*") if path != case]
    return log


def name(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def kibibytes(size: int | None) -> int | None:
    return None if size is None else size // 1024


def found(event: OomKill, victim: Victim) -> dict[str, Any]:
    """An event's victim in the truth's words."""
    return {
        "constraint": None if event.constraint is None else event.constraint.upper(),
        "victim_pid": victim.pid,
        "victim_comm": name(victim.comm),
        "victim_uid": victim.uid,
        "oom_memcg": event.limit_cgroup,
        "task_memcg": event.victim_cgroup,
        "invoker_comm": name(event.invoker.comm) if event.invoker is not None else None,
        "total_vm_kb": kibibytes(victim.total_vm_bytes),
        "anon_rss_kb": kibibytes(victim.anon_rss_bytes),
        "file_rss_kb": kibibytes(victim.file_rss_bytes),
        "shmem_rss_kb": kibibytes(victim.shmem_rss_bytes),
        "oom_score_adj": victim.oom_score_adj,
    }


def wanted(truth: dict[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in truth.items() if key not in ("note", "constraint_raw")}
    for key in ("victim_comm", "invoker_comm"):
        in_hex = said.pop(f"{key}_bytes", None)
        said[key] = bytes.fromhex(in_hex) if in_hex is not None else name(said.get(key))
    return said


@pytest.mark.skipif(not CASES, reason=f"the corpus of real logs is not at {CORPUS}")
def test_the_corpus_is_whole() -> None:
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_a_real_log_tells_what_an_engineer_reads_in_it(case: Path) -> None:
    truth = json.loads(case.read_text())
    log = log_of(case)
    if truth.get("mail_wrapped"):
        pytest.skip("a mail program broke its lines")
    events = read(log)
    told = [found(event, victim) for event in events for victim in event.victims]
    assert sum(event.kill_count or 0 for event in events) == len(told)
    for field in DISPUTED.get(f"{case.parent.name}/{case.stem}", ()):
        for each in [*told, *truth["events"]]:
            each[field] = None
    assert told == [wanted(each) for each in truth["events"]]
