"""The lines of an OOM report from kernel 2.6.32 to 7.2, read from both ends.

A task's name is at most fifteen bytes of anything, a cgroup's anything but a slash and a newline.
So a line is known by how it starts, where nothing of theirs stands yet; the pid is read before the
name; and the name runs to the *last* place where the kernel's own words can follow it. What follows
is read as far as it goes: a line that a terminal or a mail program cut off still tells its pid.

The summary (`oom-kill:constraint=`) and the table of tasks have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from oomwatch.events import Invoker, MemoryUsage, Victim
from oomwatch.kernel_log.messages import (
    Booted,
    Chosen,
    GroupKill,
    Invoked,
    Killed,
    LimitHit,
    Message,
    NoVictim,
    Reaped,
    Skipped,
    StatsOf,
    Suppressed,
    UsageLine,
)
from oomwatch.kernel_log.record import COMM_BYTES, to_text

_WHY = rb"(?:(Memory cgroup out of memory|Out of memory(?: \(oom_kill_allocating_task\))?): )?"
_KILLED = re.compile(_WHY + rb"Killed process (\d{1,10})(?:, UID (\d{1,10}),)? \(")
_PASTED = re.compile(
    rb"(,uid=\d{1,10}|kB|UID:\d{1,10}|adj:-?\d{1,4}) *(?:\[ *\d{1,12}\.\d{1,9}\] {0,2})?"
    rb"(?=(?:Memory cgroup out|Out) of memory(?: \(oom_kill_allocating_task\))?: Killed process \d)"
)
_WHOLE_END = re.compile(
    rb"kB(?:, UID:\d{1,10}(?: pgtables:\d{1,16}kB oom_score_adj:-?\d{1,5})?)?\s*\Z"
)
_CHOSEN = re.compile(_WHY + rb"[Kk]ill process (\d{1,10}) \(")
_CHOSEN_END = re.compile(rb"\) score \d{1,10} or (?:sacrifice|a) child\s*\Z")
_SKIPPED = re.compile(_WHY + rb"OOM victim (\d{1,10}) \(")
_EL7_UID = re.compile(rb"\), UID (\d{1,10}), \Z")
_SIZES = re.compile(
    rb"total-vm:(\d{1,16})kB(?:, anon-rss:(\d{1,16})kB(?:, file-rss:(\d{1,16})kB"
    rb"(?:, shmem-rss:(\d{1,16})kB)?)?)?"
    rb"(?:, UID:(\d{1,10})(?: pgtables:(\d{1,16})kB(?: oom_score_adj:(-?\d{1,5})(?!\d))?)?)?"
)
_INVOKED = b" invoked oom-killer"
_INVOKED_END = re.compile(
    rb"(?:: gfp_mask=(0x[0-9a-f]{1,16}(?:\([\w|]{0,1024}\))?)"
    rb"(?:, +nodemask=(?:\(null\)|[\d,-]{0,1024}))?"
    rb"(?:, +order=(-?\d{1,3})(?!\d))?)?"
)
_USAGE = re.compile(rb"(memory|swap): usage (\d{1,20})kB, limit (\d{1,20})kB")
_REAPED = re.compile(rb"oom_reaper: reaped process (\d{1,10}) \(")
_SUPPRESSED = re.compile(
    rb"(?:oom_kill_process|dump_header|out_of_memory): (\d{1,10}) callbacks suppressed"
)
GROUP_BEGIN = b"Tasks in "
GROUP_END = b" are going to be killed due to memory.oom.group set"
_LIMIT_BEGIN = b"Task in /"
_LIMIT_MIDDLE = b" killed as a result of limit of /"
_STATS_BEGIN = b"Memory cgroup stats for "

# PAGE_COUNTER_MAX in kB: no limit. Of 64 bit before 3.19 and after, and of 32 bit.
_NO_LIMIT_FROM = 9_007_199_254_740_000
_NO_LIMIT_32_BIT = 8_589_934_588

_KIB = 1024


def parse_message(text: bytes, comm_bytes: int = COMM_BYTES) -> Message | None:
    """Say what a kernel's message means, `None` where it is no line of an OOM report.

    `comm_bytes` is the most that a task's name can take; a longer one is none, and is left out.
    """
    words = text.lstrip(b" \t")
    for begins, read in _READERS:
        if words.startswith(begins):
            message = read(words, comm_bytes)
            if message is not None:
                return message
    # A name may begin with a space, or be empty: where bytes are the kernel's, it counts.
    return parse_invoked(text if comm_bytes == COMM_BYTES else words, comm_bytes) or parse_invoked(
        text, comm_bytes
    )


def parse_invoked(text: bytes, comm_bytes: int) -> Invoked | None:
    """`C invoked oom-killer: …`, the one line that begins with a name (dump_header)."""
    # The words are longer than a name: the first are the kernel's.
    at = text.find(_INVOKED, 0, comm_bytes + len(_INVOKED))
    if at < 0:
        return None
    end = _INVOKED_END.match(text, at + len(_INVOKED))
    assert end is not None
    gfp_mask, order = end.groups()
    return Invoked(
        Invoker(
            comm=to_text(text[:at]),
            gfp_mask=None if gfp_mask is None else gfp_mask.decode(),
            order=None if order is None else int(order),
        )
    )


def pasted_kill(text: bytes) -> tuple[int, int] | None:
    """Where a record ends and a kill begins, in a line that a person pasted two records into.

    For logs that people handed on: the kernel's own record is one. A summary that ends as a kill
    line does, and a kill line that is longer than a name allows, are two.
    """
    if text.count(b"Killed process ") < (2 if _KILLED.match(text) else 1):
        return None
    every = list(_PASTED.finditer(text, 1))
    found = every[-1] if every else None
    if found is None or _WHOLE_END.search(text, found.end()) is None:
        return None
    return found.end(1), found.end()


def _killed(text: bytes, comm_bytes: int) -> Message | None:
    """`M: Killed process N (C) total-vm:…` (__oom_kill_process), the words of all kernels."""
    begin = _KILLED.match(text)
    if begin is None:
        return _chosen(text, comm_bytes) or _skipped(text) or _no_victim(text)
    why, pid, el6_uid = begin.groups()
    name, sizes, el7_uid = text[begin.end() :], None, None
    at = name.rfind(b"total-vm:")
    if at >= 0 and name[:at].endswith(b") "):
        name, sizes = name[: at - 2], _SIZES.match(name, at)
    elif at >= 0 and (between := _EL7_UID.search(name, 0, at)) is not None:
        el7_uid, sizes = between[1], _SIZES.match(name, at)
        name = name[: between.start()]
    else:
        # Cut off: the name may have lost its end.
        name = name.rstrip()
        name = name[:-1] if name.endswith(b")") else b"?" * (comm_bytes + 1)
    total, anon, file, shmem, uid, tables, adj = (None,) * 7 if sizes is None else sizes.groups()
    return Killed(
        memcg=None if why is None else why.startswith(b"Memory cgroup"),
        victim=Victim(
            pid=int(pid),
            comm=to_text(name) if len(name) <= comm_bytes else None,
            uid=_number(uid or el6_uid or el7_uid),
            total_vm_bytes=_bytes(total),
            anon_rss_bytes=_bytes(anon),
            file_rss_bytes=_bytes(file),
            shmem_rss_bytes=_bytes(shmem),
            pgtables_bytes=_bytes(tables),
            oom_score_adj=_number(adj),
        ),
    )


def _chosen(text: bytes, _: int) -> Chosen | None:
    begin = _CHOSEN.match(text)
    if begin is None or _CHOSEN_END.search(text, begin.end()) is None:
        return None
    return Chosen(memcg=(begin[1] or b"").startswith(b"Memory cgroup"), pid=int(begin[2]))


def _skipped(text: bytes) -> Skipped | None:
    begin = _SKIPPED.match(text)
    if begin is None or not text.rstrip().endswith(b") is already exiting. Skip killing the task"):
        return None
    return Skipped(int(begin[2]))


def _no_victim(text: bytes) -> NoVictim | None:
    words = text.rstrip()
    return NoVictim() if words.endswith(b"ut of memory and no killable processes...") else None


def _usage(text: bytes, _: int) -> UsageLine | None:
    found = _USAGE.match(text)
    if found is None:
        return None
    usage, limit = int(found[2]), int(found[3])
    if found[1] == b"swap":
        return UsageLine(MemoryUsage(swap_bytes=usage * _KIB))
    limited = limit < _NO_LIMIT_FROM and limit != _NO_LIMIT_32_BIT
    return UsageLine(
        MemoryUsage(limit_bytes=limit * _KIB if limited else None, current_bytes=usage * _KIB)
    )


def _limit_hit(text: bytes, _: int) -> LimitHit | None:
    """`Task in V killed as a result of limit of L`: V is L, or lies below it."""
    text = text.rstrip()
    if _LIMIT_MIDDLE not in text:
        return None
    paths = text[len(_LIMIT_BEGIN) - 1 :]
    found: list[LimitHit] = []
    at = paths.find(_LIMIT_MIDDLE)
    while at >= 0 and len(found) < 2:
        victim, limit = paths[:at], paths[at + len(_LIMIT_MIDDLE) - 1 :]
        if lies_in(victim, limit):
            found.append(LimitHit(victim, limit))
        at = paths.find(_LIMIT_MIDDLE, at + 1)
    return found[0] if len(found) == 1 else LimitHit(None, None)


def lies_in(path: bytes, ancestor: bytes) -> bool:
    """Whether a cgroup is another one, or below it."""
    return (
        path == ancestor
        or ancestor == b"/"
        or (path.startswith(ancestor) and path[len(ancestor) : len(ancestor) + 1] == b"/")
    )


def _group(text: bytes, _: int) -> GroupKill | None:
    text = text.rstrip()
    if not text.endswith(GROUP_END) or len(text) <= len(GROUP_BEGIN) + len(GROUP_END):
        return None
    return GroupKill(text[len(GROUP_BEGIN) : -len(GROUP_END)])


def _stats(text: bytes, _: int) -> StatsOf:
    return StatsOf(stats_readings(text[len(_STATS_BEGIN) :]))


def stats_readings(text: bytes) -> tuple[bytes, ...]:
    """What the path in `Memory cgroup stats for PATH:` may be, given what follows "for "."""
    path, v1, _values = text.rstrip(b"\n").partition(b": cache:")
    if v1 or not path.endswith(b":"):
        return (path,) if path else ()
    return path[:-1], path


def _reaped(text: bytes, comm_bytes: int) -> Reaped | None:
    begin = _REAPED.match(text)
    if begin is None:
        return None
    end = text.rfind(b"), now anon-rss:")
    comm = text[begin.end() : end] if end >= begin.end() else None
    return Reaped(int(begin[1]), comm if comm is None or len(comm) <= comm_bytes else None)


def _suppressed(text: bytes, _: int) -> Suppressed | None:
    found = _SUPPRESSED.match(text)
    return None if found is None else Suppressed(int(found[1]))


def _booted(text: bytes, comm_bytes: int) -> Booted | None:
    return Booted() if parse_invoked(text, comm_bytes) is None else None


_Reader = Callable[[bytes, int], Message | None]

# A name can begin a line only before " invoked": a reader gives none for what does not go on as its
# own line does.
_READERS: tuple[tuple[bytes, _Reader], ...] = (
    (b"Memory cgroup out of memory", _killed),
    (b"Out of memory", _killed),
    (b"Killed process ", _killed),
    (b"Kill process ", _chosen),
    (b"memory: usage ", _usage),
    (b"swap: usage ", _usage),
    (_LIMIT_BEGIN, _limit_hit),
    (GROUP_BEGIN, _group),
    (_STATS_BEGIN, _stats),
    (b"oom_reaper: reaped process ", _reaped),
    (b"oom_kill_process: ", _suppressed),
    (b"dump_header: ", _suppressed),
    (b"Linux version ", _booted),
)


def _number(digits: bytes | None) -> int | None:
    return None if digits is None else int(digits)


def _bytes(kilobytes: bytes | None) -> int | None:
    return None if kilobytes is None else int(kilobytes) * _KIB
