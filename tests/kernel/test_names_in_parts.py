"""Who was killed, where only a part of the host's cgroups is watched: ours, and nobody else's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oomwatch.events import OomKill, Scope
from tests.kernel.test_daemon import Follower, daemon
from tests.kernel.watching import watching
from tests.kernel.workload import LIMIT, Scratch

CONTAINER = "ab12" * 16

ENTER = """
echo 0 > "$0/cgroup.procs"  # the namespace's root is where the shell is when it enters
exec unshare -C -m -p -f --mount-proc --kill-child sh -e -c '
    umount -l /sys/fs/cgroup  # the kernel mounts no file system twice at one place
    mount -t cgroup2 none /sys/fs/cgroup
    mkdir /sys/fs/cgroup/watcher
    echo 0 > /sys/fs/cgroup/watcher/cgroup.procs
    exec "$@"' sh "$@"
"""


class Namespace(Follower):
    """What a daemon tells inside a container's namespaces."""

    def kills(self) -> list[OomKill]:
        return [entry.event for entry in self.entries if isinstance(entry.event, OomKill)]

    def named(self) -> dict[int, str | None]:
        """The cgroup of each victim that was named."""
        return {v.pid: kill.victim_cgroup for kill in self.kills() for v in kill.victims}

    async def until_named(self, pid: int) -> None:
        async with asyncio.timeout(120):
            while pid not in self.named():
                await asyncio.sleep(0.02)


@pytest.mark.timeout(600)
async def test_in_a_containers_namespaces_victims_have_names(tmp_path: Path) -> None:
    """The kernel prints the host's paths and pids; nothing inside says where that is."""
    with Scratch("parts") as scratch:
        scratch.hand_down()
        inside = scratch.make("pod")
        async with daemon(tmp_path, ("sh", "-c", ENTER, str(inside))) as served:
            for pid in (inside / "cgroup.procs").read_text().split():
                (inside / "watcher/cgroup.procs").write_text(pid)  # unshare, which waits
            (inside / "cgroup.subtree_control").write_text("+memory")
            ours = scratch.make("pod/plain", limit=LIMIT)
            container = scratch.make(f"pod/{CONTAINER}", limit=LIMIT)
            scratch.make("other", below=True)
            theirs = scratch.make("other/theirs", limit=LIMIT)
            namesake = scratch.make("other/plain", limit=LIMIT)
            told = Namespace(served.socket, "/")
            try:
                scratch.hog(theirs).wait()
                first = scratch.hog(ours)
                await told.until_named(first.pid)
                (kill, *_) = [k for k in told.kills() if k.victims]
                assert (kill.victim_cgroup, kill.limit_cgroup) == ("/plain", "/plain")
                assert any("by the end of" in evidence.detail for evidence in kill.evidence)
                second = scratch.hog(container)
                await told.until_named(second.pid)
                # From now on it is known where the namespace is.
                scratch.hog(namesake).wait()
                third = scratch.hog(ours)
                await told.until_named(third.pid)
            finally:
                await told.close()
            assert told.named() == {
                first.pid: "/plain",
                second.pid: f"/{CONTAINER}",
                third.pid: "/plain",
            }
            assert told.told == 3


async def test_below_a_watched_slice_the_limit_above_it_is_named() -> None:
    with Scratch("slice") as scratch:
        scratch.hand_down()
        scratch.make("par", limit=LIMIT, below=True)
        watched = scratch.make("par/watched", below=True)
        ours, theirs = scratch.make("par/watched/c"), scratch.make("par/c")
        async with watching(cgroup_root=watched) as told:
            scratch.hog(theirs).wait()
            hog = scratch.hog(ours)
            await told.until(lambda: any(kill.victims for kill in told.kills))
            await told.quiet()
        path = f"{scratch.cgroup}/par/watched/c"
        assert {kill.victim_cgroup for kill in told.kills} == {path}
        assert {v.pid for kill in told.kills for v in kill.victims} == {hog.pid}
        (kill, *_) = [kill for kill in told.kills if kill.victims]
        assert (kill.scope, kill.limit_cgroup) == (Scope.ANCESTOR_LIMIT, f"{scratch.cgroup}/par")
