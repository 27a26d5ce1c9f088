"""The memory.events witness: every cgroup's own kill counter, followed by inotify or by polling."""

from __future__ import annotations

from oomwatch.sources.memory_events.source import MemoryEvents

__all__ = ["MemoryEvents"]
