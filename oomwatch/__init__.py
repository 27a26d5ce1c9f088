"""oomwatch: watches cgroup v2 for OOM kills and says who, where, at whose limit and how sure."""

from __future__ import annotations

__version__ = "0.1.0"
