"""One OOM report while it is being read, and the kills that it makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from oomwatch.events import Constraint, Invoker, MemoryUsage, Victim
from oomwatch.kernel_log.kill_record import KillRecord, Word
from oomwatch.kernel_log.messages import Chosen, Killed, LimitHit
from oomwatch.kernel_log.record import Record, to_text
from oomwatch.kernel_log.summary import Summary, read_summary
from oomwatch.kernel_log.tasks import TaskTable


@dataclass(slots=True, eq=False)
class Report:
    """What was read of one report. `seen` is the number of the last record that was part of it."""

    first: Record
    last: Record
    seen: int
    invoker: Invoker | None = None
    limit: LimitHit | None = None
    usage: MemoryUsage | None = None
    swap_bytes: int | None = None
    stats: tuple[bytes, ...] | None = None
    table: TaskTable | None = None
    summary: bytes | None = None
    summary_record: Record | None = None
    chosen: Chosen | None = None
    episode: int = 0
    kills: list[int] = field(default_factory=list)
    last_kill: KillRecord | None = None
    group: bytes | None = None
    group_piece: bytes | None = None

    @property
    def headed(self) -> bool:
        """Whether anything of the report was printed, or the kill's line alone."""
        return any(
            part is not None
            for part in (
                self.invoker,
                self.limit,
                self.usage,
                self.stats,
                self.table,
                self.summary,
                self.chosen,
            )
        )

    def is_memcg(self) -> bool | None:
        """Whether a cgroup's limit was hit, as far as the lines before the kill say."""
        if self.limit is not None or self.usage is not None:
            return True
        if self.summary is not None:
            if b",oom_memcg=" in self.summary and b",global_oom" not in self.summary:
                return True
            return None
        return None if self.chosen is None else self.chosen.memcg

    def is_in_pieces(self) -> bool:
        """Whether a line was begun that the next record may go on with."""
        begun = self.summary is not None or self.stats == ()
        return self.group_piece is not None or (begun and not self.kills)

    def memory(self) -> MemoryUsage | None:
        """The usage and the limit of the cgroup whose limit was hit."""
        if self.usage is None:
            return None
        return replace(self.usage, swap_bytes=self.swap_bytes)

    def read_summary(self, record: Record, pid: int | None, comm: bytes | None) -> Summary | None:
        """Read the summary, with what the kill's line says as far as it was read."""
        if self.summary is None:
            return None
        return read_summary(
            self.summary,
            comm_bytes=record.comm_bytes,
            pid=pid,
            comm=comm,
            limits=self.stats or (),
        )

    def owns(self, message: Killed) -> bool:
        """Whether a kill is of this report: its own, or another of its group."""
        if not self.kills:
            said = self.is_memcg()
            return said is None or message.memcg is None or said == message.memcg
        pid = message.victim.pid
        last = self.last_kill
        assert last is not None
        if message.memcg is not None and last.memcg is not None and message.memcg != last.memcg:
            return False
        if pid in self.kills:
            return True
        if self.group is None:
            return False
        return self.table is None or pid in self.table.pids

    def first_kill(self, message: Killed, record: Record, episode: int) -> KillRecord:
        """The report's own kill, with all that was read before it."""
        victim = message.victim
        comm = None if victim.comm is None else victim.comm.encode("utf-8", "surrogateescape")
        summary = self.read_summary(record, victim.pid, comm)
        memcg = message.memcg if message.memcg is not None else self.is_memcg()
        limit = self.limit
        oom_memcg = limit.oom_memcg if limit is not None else None
        task_memcg = limit.task_memcg if limit is not None else None
        if summary is not None:
            oom_memcg = oom_memcg or summary.oom_memcg
            # The pid is another's where a child died instead (5.0), or a thread is named.
            if summary.pid in (victim.pid, None):
                task_memcg = task_memcg or summary.task_memcg
                victim = replace(
                    victim,
                    uid=summary.uid if victim.uid is None else victim.uid,
                    comm=_text(summary.comm) if victim.comm is None else victim.comm,
                )
            if memcg is None and summary.global_oom is not None:
                memcg = not summary.global_oom
        elif limit is not None and self.chosen is not None and self.chosen.pid != victim.pid:
            # A child of the one in VICTIM: it may live elsewhere.
            task_memcg = None
        self.episode = episode
        table = self.table
        return KillRecord(
            word=Word.KILLED,
            victim=victim,
            record=record,
            first_line=self.first.line,
            episode=self.episode,
            headed=self.headed,
            memcg=memcg,
            constraint=_constraint(summary, memcg),
            constraint_name=None if summary is None else summary.constraint_name,
            oom_memcg=_text(oom_memcg),
            task_memcg=_text(task_memcg),
            group=_text(self.group),
            invoker=self.invoker,
            memory=self.memory() if memcg else None,
            tasks=() if table is None else table.largest(victim),
            task_count=None if table is None else table.count,
        )

    def further_kill(self, message: Killed, record: Record, repeated: bool) -> KillRecord:
        """Another kill of the same group, or the first one's second line."""
        first = self.last_kill
        assert first is not None
        group = _text(self.group)
        # A cgroup with processes of its own has no memory cgroups below it (cgroup-v2.rst, "No
        # Internal Process Constraint"): if the first lived in the group's, all of them did.
        alike = repeated or (group is not None and first.task_memcg == group)
        return replace(
            first,
            victim=message.victim,
            record=record,
            task_memcg=first.task_memcg if alike else None,
            group=group,
            repeated=repeated,
            # Whose allocation it was is told once, with the first.
            invoker=None,
            tasks=(),
            task_count=None,
        )


def victim(pid: int, comm: bytes | None) -> Victim:
    """A victim of whom no more is known."""
    return Victim(pid=pid, comm=_text(comm))


def _text(name: bytes | None) -> str | None:
    return None if name is None else to_text(name)


def _constraint(summary: Summary | None, memcg: bool | None) -> Constraint | None:
    """The kernel's word; where it printed none, what the kill line's own words leave."""
    if summary is not None:
        return summary.constraint
    return None if memcg is None else Constraint.MEMCG if memcg else Constraint.NONE
