"""What the host's kernel prints, where a part of its cgroups is watched: ours, or nobody's."""

from __future__ import annotations

import pytest

from oomwatch.events import Victim
from oomwatch.host_paths import HostPaths
from oomwatch.observations import EvidenceLost, VictimNamed

ID = "ee12" + "0123456789" * 6
OTHER = "ff34" + "0123456789" * 6


def named(cgroup: str | None, *, printed: bool = True, **more: object) -> VictimNamed:
    fields = {"sequence": 1, "time": 6, "seen_time": 9, "detail": "Killed process 7"} | more
    return VictimNamed(
        source="kernel_log",
        victim=Victim(pid=7),
        cgroup=cgroup,
        printed=printed,
        **fields,  # type: ignore[arg-type]
    )


class Namespace:
    """Cgroups as a namespace shows them, and what becomes of a name there."""

    def __init__(self, *cgroups: str, prefix: str = "", ours: bool = False) -> None:
        self.paths = HostPaths(prefix, set(cgroups).__contains__, ours=ours)

    def here(self, record: VictimNamed) -> VictimNamed | None:
        for kept in self.paths.ours([record]):
            assert isinstance(kept, VictimNamed)
            return kept
        return None

    def cgroup(self, path: str) -> str | None:
        kept = self.here(named(path))
        return None if kept is None else kept.cgroup


def test_a_path_is_known_by_the_container_in_it() -> None:
    inside = Namespace("/docker", f"/docker/{ID}", f"/docker/{ID}/init", "/init")
    kept = inside.here(
        named(f"/node/docker/{ID}/init", limit_cgroup=f"/node/docker/{ID}", group_cgroup="/")
    )
    assert kept is not None
    assert (kept.cgroup, kept.certain) == (f"/docker/{ID}/init", True)
    assert kept.limit_cgroup == f"/docker/{ID}"
    assert kept.group_cgroup is None  # above the namespace: it has no path there


def test_what_a_container_told_holds_for_every_other_path() -> None:
    inside = Namespace("/a", "/a/a", f"/{ID}")
    assert inside.cgroup("/node/a/a") is None
    assert inside.cgroup(f"/node/{ID}") == f"/{ID}"
    assert inside.cgroup("/node/a/a") == "/a/a"
    assert inside.cgroup("/node/gone") == "/gone"
    assert inside.cgroup("/node") == "/"
    assert inside.cgroup("/other/a") is None
    assert inside.cgroup("/node2/a") is None


def test_who_names_a_cgroup_after_a_container_hides_no_kill_in_it() -> None:
    inside = Namespace(f"/{ID}", f"/{OTHER}", "/a")
    assert inside.cgroup(f"/user/{ID}") == f"/{ID}"  # made by somebody on the host
    for _ in range(2):
        for container in (ID, OTHER):
            kept = inside.here(named(f"/node/{container}", limit_cgroup="/node"))
            assert kept is not None
            assert (kept.cgroup, kept.certain, kept.limit_cgroup) == (f"/{container}", False, "/")
    # And what was told falsely holds for no other path.
    assert inside.cgroup("/user/gone") is None


def test_an_end_that_fits_one_cgroup_alone_is_likely() -> None:
    inside = Namespace("/a", "/a/b")
    kept = inside.here(named("/node/a/b", limit_cgroup="/node/a"))
    assert kept is not None
    assert (kept.cgroup, kept.certain, kept.limit_cgroup) == ("/a/b", False, "/a")
    assert kept.detail == "Killed process 7 [of /a/b by the end of /node/a/b]"


@pytest.mark.parametrize("path", ["/x", "/node/b/c", f"/docker/{OTHER}", "/", "/node/a"])
def test_a_path_that_fits_none_or_several_is_nobodys(path: str) -> None:
    inside = Namespace("/b", "/a/a", "/node/a", "/a", f"/docker/{ID}")
    assert inside.cgroup(path) is None


def test_a_part_of_the_hosts_own_tree_has_the_hosts_paths() -> None:
    part = Namespace(prefix="/kubepods", ours=True)
    kept = part.here(named("/kubepods/p/c", limit_cgroup="/kubepods", group_cgroup="/kubepods/p"))
    assert kept == named("/kubepods/p/c", limit_cgroup="/kubepods", group_cgroup="/kubepods/p")
    assert part.cgroup("/kubepods") == "/kubepods"
    assert part.cgroup("/kubepods2/p") is None
    assert part.cgroup("/system.slice") is None
    assert part.here(named(None, group_cgroup="/kubepods/p")) is not None


def test_a_path_from_proc_is_ours_or_above_us() -> None:
    inside = Namespace("/a")
    assert inside.here(named("/gone", printed=False)) == named("/gone", printed=False)
    assert inside.here(named("/../other", printed=False)) is None
    assert inside.here(named("/..", printed=False)) is None


def test_a_name_of_nowhere_is_kept_without_the_hosts_paths() -> None:
    kept = Namespace("/a").here(named(None, limit_cgroup="/node", group_cgroup="/node/a"))
    assert kept == named(None)


def test_what_is_no_name_passes() -> None:
    lost = EvidenceLost("kernel_log", "overrun", 7)
    assert HostPaths("", lambda _: False, ours=False).ours([lost]) == [lost]
