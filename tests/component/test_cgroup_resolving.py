"""A client's cgroup path ends below the root or nowhere, in trees that were made to mislead."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.cgroup.hierarchy import Hierarchy
from oomwatch.cgroup.resolving import LONGEST_NAME, LONGEST_PATH, Resolved, resolve
from oomwatch.errors import BadCgroupPath, CgroupError, NoSuchCgroup


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with /pod/web in it, and beside it what nobody may reach: outside/secret."""
    (tmp_path / "outside" / "secret").mkdir(parents=True)
    root = tmp_path / "cgroup"
    (root / "pod" / "web").mkdir(parents=True)
    (root / "pod" / "memory.max").write_text("max\n")
    return root


def hierarchy(root: Path, prefix: str = "") -> Hierarchy:
    return Hierarchy(str(root), prefix, real_root=False, kernel=False, local_events=False)


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_path_is_found_with_its_inode(root: Path) -> None:
    found = resolve(hierarchy(root), "/pod/web")
    assert found == Resolved("/pod/web", inode(root / "pod" / "web"))


@pytest.mark.parametrize("path", ["/", "//", "///"])
def test_the_root_itself_is_found(root: Path, path: str) -> None:
    assert resolve(hierarchy(root), path) == Resolved("/", inode(root))


@pytest.mark.parametrize("path", ["/pod/web/", "//pod//web", "/pod/web///"])
def test_the_answer_is_the_path_as_the_kernel_writes_it(root: Path, path: str) -> None:
    assert resolve(hierarchy(root), path).path == "/pod/web"


def test_below_a_namespace_the_prefix_is_looked_through(root: Path) -> None:
    below = hierarchy(root / "pod", "/kube/pod")
    assert resolve(below, "/kube/pod/web") == Resolved("/kube/pod/web", inode(root / "pod/web"))
    assert resolve(below, "/kube/pod").cgroup_id == inode(root / "pod")
    for above in ("/", "/kube", "/kube/pod2", "/web", "/kube/podweb"):
        with pytest.raises(BadCgroupPath, match="is all that is watched"):
            resolve(below, above)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "not absolute"),
        ("pod/web", "not absolute"),
        ("../outside", "not absolute"),
        ("/..", "'..'"),
        ("/../outside/secret", "'..'"),
        ("/pod/../../outside", "'..'"),
        ("/pod/..", "'..'"),
        ("/pod/./web", "'.'"),
        ("/pod\0/web", "NUL"),
        ("/\ud800", "no text"),
        ("/" + "a" * (LONGEST_NAME + 1), "longer than 255"),
        ("/" + "ä" * (LONGEST_NAME // 2 + 1), "longer than 255"),
        ("/a" * (LONGEST_PATH // 2 + 1), "4098 bytes long"),
    ],
)
def test_what_can_be_no_path_is_refused_with_the_reason(root: Path, path: str, why: str) -> None:
    with pytest.raises(BadCgroupPath, match=why):
        resolve(hierarchy(root), path)


def test_what_is_not_there_is_told_as_not_there(root: Path) -> None:
    for path in ("/gone", "/pod/gone/deeper", "/pod/web\n", "/" + "a" * LONGEST_NAME):
        with pytest.raises(NoSuchCgroup, match="there is no cgroup"):
            resolve(hierarchy(root), path)


def test_a_file_is_no_cgroup(root: Path) -> None:
    for path in ("/pod/memory.max", "/pod/memory.max/below"):
        with pytest.raises(NoSuchCgroup, match="is a file"):
            resolve(hierarchy(root), path)


@pytest.mark.parametrize(
    "target", ["{outside}", "../outside", "pod", "/", "/proc/self/root", "loop"]
)
def test_no_symbolic_link_is_followed(root: Path, target: str) -> None:
    (root / "loop").symlink_to(target.format(outside=root.parent / "outside"))
    for path in ("/loop", "/loop/secret", "/loop/web", "/loop/"):
        with pytest.raises(BadCgroupPath, match="symbolic link"):
            resolve(hierarchy(root), path)


def test_another_file_system_below_the_root_is_no_part_of_it(root: Path) -> None:
    proc = Hierarchy("/", "", real_root=False, kernel=False, local_events=False)
    with pytest.raises(BadCgroupPath, match="another file system"):
        resolve(proc, "/proc/self")


def test_a_directory_swapped_for_a_link_is_never_left_through_it(root: Path) -> None:
    """As resolve walks /pod/web, /pod becomes a link to a tree that has a web too, and back."""
    outside = root.parent / "outside"
    (outside / "web").mkdir()
    (root / "link").symlink_to(outside)
    inside = inode(root / "pod" / "web")
    with _swapping(root):
        found = refused = 0
        for _ in range(20_000):
            try:
                assert resolve(hierarchy(root), "/pod/web").cgroup_id == inside
                found += 1
            except CgroupError:
                refused += 1
            if found > 500 and refused > 500:
                break
    assert found, refused


@contextmanager
def _swapping(root: Path) -> Iterator[None]:
    """Another process swaps /pod with the link, without a pause, until the end."""
    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "print(flush=True)\n"
        "while os.getppid() == int(sys.argv[2]):\n"
        "    os.rename('pod', 'kept'); os.rename('link', 'pod')\n"
        "    os.rename('pod', 'link'); os.rename('kept', 'pod')\n"
    )
    command = [sys.executable, "-c", script, str(root), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()


def outcome(root: Path, path: str) -> Resolved | CgroupError:
    try:
        return resolve(hierarchy(root), path)
    except CgroupError as error:
        return error


def test_no_descriptor_is_left_open(root: Path) -> None:
    (root / "link").symlink_to("/")
    before = set(Path("/proc/self/fd").iterdir())
    for path in ("/pod/web", "/pod/gone", "/link/etc", "/..", "/pod/memory.max"):
        outcome(root, path)
    assert set(Path("/proc/self/fd").iterdir()) == before


_PARTS = st.one_of(
    st.sampled_from(["pod", "web", "..", ".", "", "out", "memory.max", "…", "\0", "\x1b[2J"]),
    st.text(max_size=300),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "cgroup"
    (root / "pod" / "web").mkdir(parents=True)
    (root / "pod" / "memory.max").touch()
    (root / "pod" / "out").symlink_to("/")
    (root / "out").symlink_to("../..")
    return root


@given(parts=st.lists(_PARTS, max_size=8))
def test_whatever_a_client_sends_ends_below_the_root_or_in_a_sentence(
    hostile: Path, parts: list[str]
) -> None:
    inside = {inode(d) for d in (hostile, hostile / "pod", hostile / "pod" / "web")}
    match outcome(hostile, "/".join(["", *parts])):
        case Resolved(_, cgroup_id):
            assert cgroup_id in inside
        case error:
            assert str(error).isprintable()
            assert len(str(error)) < 2000
