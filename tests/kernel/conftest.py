"""Tests here kill real processes in real cgroups; this says where that can be done."""

import os
from pathlib import Path

import pytest

CGROUP_ROOT = Path("/sys/fs/cgroup")


def why_not() -> str | None:
    """What this host lacks for these tests; None when it lacks nothing."""
    try:
        controllers = (CGROUP_ROOT / "cgroup.controllers").read_text().split()
    except OSError:
        return f"{CGROUP_ROOT} is not a cgroup v2 hierarchy"
    if "memory" not in controllers:
        return f"cgroup v2 at {CGROUP_ROOT} has no memory controller to give"
    if os.geteuid() != 0:
        return "making cgroups there needs root"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where they cannot run.

    With OOMWATCH_REQUIRE_KERNEL=1, which scripts/test sets wherever it has brought a kernel
    that will do, that is a failure instead: tests that did not run must not look green.
    """
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    reason = why_not()
    if not ours or reason is None:
        return
    if os.environ.get("OOMWATCH_REQUIRE_KERNEL") == "1":
        raise pytest.UsageError(f"the kernel tests cannot run: {reason}")
    for item in ours:
        item.add_marker(pytest.mark.skip(reason=f"{reason}; scripts/test brings a VM that has it"))
