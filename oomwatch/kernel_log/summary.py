"""The `oom-kill:constraint=…` line (dump_oom_summary in mm/oom_kill.c; kernel 5.0 and later).

    oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,
        oom_memcg=/par,task_memcg=/par/c1,task=python3,pid=245,uid=0          (one line)

It is printed in pieces (pr_cont) and comes as several records when another processor prints between
them, or when it passes a kilobyte; `continues` says what may be the next piece. It holds three
names that anyone may choose, and any of them can hold the words around it:

- the end is the kernel's: `,pid=N,uid=N`, and `,task=C` before it, C at most fifteen bytes and best
  known from the `Killed process` line of the same pid;
- the cpuset is a single name, without a slash (or the root, "/"), so the first slash after it
  begins a cgroup's path: nothing before it can be part of one;
- `oom_memcg` is `task_memcg` or an ancestor of it.

Where that leaves more than one reading, `Memory cgroup stats for PATH:` of the same report decides;
else the paths are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from oomwatch.events import Constraint
from oomwatch.kernel_log.grammar import lies_in
from oomwatch.kernel_log.record import MAX_RECORD_BYTES

BEGIN = b"oom-kill:constraint="

_HEAD = re.compile(
    rb"oom-kill:constraint=(\w{1,64})(?:,nodemask=(?:\(null\)|[\d,-]{0,1024}))?"
    rb"(?:,cpuset=(?:/|[^/]{0,1024})(?:,mems_allowed=[\d,-]{0,1024})?)?"
    # What stands here tells the form, and where the cgroups' names begin.
    rb"(,oom_memcg=(?=/)|,global_oom,task_memcg=(?=/)|,global_oom(?=,task=)|(?=,task=))"
)
_CONSTRAINT = re.compile(rb"oom-kill:constraint=(\w{1,64})(?:,|\s*\Z)")
_TAIL = re.compile(rb",pid=(\d{1,10}),uid=(-?\d{1,10})\s*\Z")
_TASK = b",task="
_TASK_MEMCG = b",task_memcg="
_NEXT_PIECE = re.compile(rb",(?:(?:cpuset|mems_allowed|oom_memcg|task_memcg|task)=|global_oom\b)")

_CONSTRAINTS = {
    b"CONSTRAINT_MEMCG": Constraint.MEMCG,
    b"CONSTRAINT_NONE": Constraint.NONE,
    b"CONSTRAINT_CPUSET": Constraint.CPUSET,
    b"CONSTRAINT_MEMORY_POLICY": Constraint.MEMORY_POLICY,
}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summary says; a `None` is not said, or not beyond doubt.

    `constraint_name` is the kernel's word, `constraint` ours for the four that there are;
    `global_oom` is `None` without memcg fields (a kernel without CONFIG_MEMCG, a line cut short).
    """

    constraint_name: str
    constraint: Constraint | None
    global_oom: bool | None = None
    oom_memcg: bytes | None = None
    task_memcg: bytes | None = None
    comm: bytes | None = None
    pid: int | None = None
    uid: int | None = None


def continues(summary: bytes, text: bytes, *, flagged: bool) -> bool:
    """Whether a record's text can be the next piece of a summary that ends as `summary` does.

    `flagged` says that the record has the kernel's flag for it; text logs keep no such flag.
    """
    if len(summary) + len(text) > MAX_RECORD_BYTES:
        return False
    if _NEXT_PIECE.match(text) is not None:
        return True
    if text.startswith(b"/"):
        return summary.endswith((b",oom_memcg=", b",task_memcg=", b",cpuset="))
    # The cpuset's name, which is a single one.
    return summary.endswith(b",cpuset=") and (flagged or b",mems_allowed=" in text)


def read_summary(
    text: bytes,
    *,
    comm_bytes: int,
    pid: int | None = None,
    comm: bytes | None = None,
    limits: Collection[bytes] = (),
) -> Summary | None:
    """Read a summary that was put together; `None` for what is none.

    `pid` and `comm` are those of the `Killed process` line, `limits` what the path of the memory
    statistics may be: each as far as known, and used only where the summary agrees with it.
    """
    head = _HEAD.match(text)
    if head is None:
        # Cut off before the names; the constraint is the kernel's word all the same.
        word = _CONSTRAINT.match(text)
        return None if word is None else _summary(word[1], b"")
    form = head[2]
    tail = _TAIL.search(text, max(head.end(), len(text) - 64))
    body = text[head.end() : len(text) if tail is None else tail.start()]
    named: int | None
    uid: int | None
    if tail is not None:
        named, uid = int(tail[1]), int(tail[2]) % 2**32
        ends = _task_positions(body, comm_bytes)
        if comm is not None and named == pid:
            ends = [at for at in ends if body[at + len(_TASK) :] == comm] or ends
    else:
        # Damaged at its end: what the kill line says may still be found there.
        at = -1 if comm is None else body.rfind(b"%s%s,pid=%d" % (_TASK, comm, pid or 0))
        named, uid, ends = (None, None, []) if at < 0 else (pid, None, [at])
    readings = {_paths(form, body[:at], limits) for at in ends} - {_NO_PATHS}
    if not ends:
        readings = {_cut_paths(form, body)}
    agreed = {oom_memcg for oom_memcg, _ in readings}
    comms = {body[at + len(_TASK) :] for at in ends} if tail is not None else set()
    return _summary(
        head[1],
        form,
        oom_memcg=agreed.pop() if len(agreed) == 1 else None,
        task_memcg=readings.pop()[1] if len(readings) == 1 else None,
        comm=comms.pop() if len(comms) == 1 else None,
        pid=named,
        uid=uid,
    )


def _summary(
    name: bytes,
    form: bytes,
    *,
    oom_memcg: bytes | None = None,
    task_memcg: bytes | None = None,
    comm: bytes | None = None,
    pid: int | None = None,
    uid: int | None = None,
) -> Summary:
    return Summary(
        constraint_name=name.decode("ascii", "replace"),
        constraint=_CONSTRAINTS.get(name),
        global_oom=True if b"global_oom" in form else False if form == b",oom_memcg=" else None,
        oom_memcg=oom_memcg,
        task_memcg=task_memcg,
        comm=comm,
        pid=pid,
        uid=uid,
    )


def _task_positions(body: bytes, comm_bytes: int) -> list[int]:
    """Every place where `,task=` may be the kernel's: no name behind it is longer than can be."""
    found = []
    at = body.find(_TASK, max(0, len(body) - comm_bytes - len(_TASK)))
    while at >= 0:
        found.append(at)
        at = body.find(_TASK, at + 1)
    return found


_Paths = tuple[bytes | None, bytes | None]
_NO_PATHS: _Paths = (None, None)


def _paths(form: bytes, body: bytes, limits: Collection[bytes]) -> _Paths:
    if form == b",global_oom,task_memcg=":
        return None, body
    if form != b",oom_memcg=":
        return _NO_PATHS
    found: list[tuple[bytes, bytes]] = []
    at = body.find(_TASK_MEMCG)
    while at >= 0 and len(found) < 8:
        oom_memcg, task_memcg = body[:at], body[at + len(_TASK_MEMCG) :]
        if task_memcg.startswith(b"/") and lies_in(task_memcg, oom_memcg):
            found.append((oom_memcg, task_memcg))
        at = body.find(_TASK_MEMCG, at + 1)
    if len(found) > 1:
        found = [paths for paths in found if paths[0] in limits]
    return found[0] if len(found) == 1 else _NO_PATHS


def _cut_paths(form: bytes, body: bytes) -> _Paths:
    """Of a summary without its end: the limit's path, if it is whole."""
    if form != b",oom_memcg=" or body.count(_TASK_MEMCG) != 1:
        return _NO_PATHS
    return body.partition(_TASK_MEMCG)[0], None
