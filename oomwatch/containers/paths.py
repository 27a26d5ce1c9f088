r"""Who a cgroup is, from its path alone: no runtime is asked, nothing is read.

Container runtimes write the container's id into the name of its cgroup's directory, each in a form
of its own; systemd writes the unit's name; the kubelet the pod's UID. `tests/unit/test_paths.py`
has a real path, and who makes it, beside each form.

A path can hold several containers: Docker in Docker, kind's nodes. All are told, innermost first.
What is below a container's cgroup was named by whoever lives in the container: an inner identity
is their claim, the outermost is the host's.

Of a name in a form that several runtimes share (a bare 64-digit id) the runtime is absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from oomwatch.containers.layouts import Layout
from oomwatch.events import Container, Pod


@dataclass(frozen=True, slots=True)
class Identity:
    """A container found on a path.

    `cgroup` is the container's own cgroup, the path itself or an ancestor of it; `pod_cgroup` that
    of its pod, and `outer` the container around it, `None` where the path shows none. A systemd
    unit counts only where no container is on the path; its `runtime` is then "systemd", and both
    id and name are the unit's.
    """

    container: Container
    cgroup: str
    pod_cgroup: str | None = None
    outer: Identity | None = None

    def nested(self) -> Iterator[Identity]:
        """Yield this identity, then the containers around it, outwards."""
        identity: Identity | None = self
        while identity is not None:
            yield identity
            identity = identity.outer


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """A pod found on a path, and the cgroup that is the pod's own."""

    pod: Pod
    cgroup: str


_ID = "[0-9a-f]{64}"
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID_ESCAPED = "[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}"
# A static pod's UID is the hash of its manifest, without dashes.
_HASH = "[0-9a-f]{32}"

_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
}
_PREFIX = "|".join(map(re.escape, _RUNTIMES))

_COMPONENT = re.compile(
    # prefix-ID.scope with the systemd driver; without ".scope" where the driver is cgroupfs.
    rf"(?P<prefix>{_PREFIX})-(?P<id>{_ID})(?:\.scope)?"
    # SLICE:PREFIX:ID is the systemd driver's argument. A runtime that was not told of that driver
    # makes a directory of just that name.
    rf"|(?P<slice>[^:]*):(?P<slice_prefix>{_PREFIX}):(?P<slice_id>{_ID})"
    # A step of a build by Docker's own BuildKit, with the systemd driver.
    r"|docker-(?P<build>[0-9a-z]{25})\.scope"
    # Kata puts its own word before a name.
    rf"|(?:kata_)?(?P<bare>{_ID})"
    r"|lxc\.payload\.(?P<lxc>.+)"
    r"|machine-(?P<machine>.+)\.scope"
    r"|systemd-nspawn@(?P<nspawn>.+)\.service"
    rf"|(?P<allocation>{_UUID})\.(?P<task>.+)\.scope"
    rf"|(?P<pod_slice>(?:.+-)?kubepods(?:-burstable|-besteffort)?-pod"
    rf"(?:{_UUID_ESCAPED}|{_HASH})\.slice)"
    rf"|pod(?P<pod>{_UUID}|{_HASH})"
    rf"|.+-libpod_pod_(?P<libpod_pod>{_ID})\.slice",
    re.DOTALL,
)
_SLICE_UID = re.compile(rf"-pod({_UUID_ESCAPED}|{_HASH})\.slice$")

_POD_PARENTS = frozenset({"kubepods", "burstable", "besteffort"})
_NOMAD_PARENTS = frozenset({"nomad.slice", "share.slice", "reserve.slice"})
_BUILD = re.compile("[0-9a-z]{25}")
_GARDEN_OWN = frozenset({"good", "bad", "init"})
_PODS = frozenset({"pod", "pod_slice", "libpod_pod"})

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})|-")


def identify(path: str, layouts: Sequence[Layout] = ()) -> Identity | None:
    """Return the innermost container on the path, `None` where there is none, nor a systemd unit.

    `path` is a cgroup's path as the kernel writes it. `layouts` are an operator's own: where one
    fits, it outranks the known forms. Never fails, whatever the path is.
    """
    named: dict[int, Container] = {}
    for layout in reversed(layouts):  # the first that fits wins
        named.update(layout.find(path))
    walk = _Walk(path)
    for name, parent, grandparent, end in _directories(path):
        if end in named:
            walk.found(named[end], end)
        else:
            walk.look(name, parent, grandparent, end)
    return walk.innermost or walk.unit


def find_pod(path: str) -> PodIdentity | None:
    """Return the innermost pod whose cgroup is the path itself or above it."""
    walk = _Walk(path)
    found = None
    for name, parent, grandparent, end in _directories(path):
        walk.look(name, parent, grandparent, end)
        if walk.pod is not None and walk.pod_cgroup is not None:
            found = PodIdentity(walk.pod, walk.pod_cgroup)
    return found


def unescape_unit(name: str) -> str:
    r"""Undo systemd's unit name escaping (man 5 systemd.unit): "-" was "/", `\xNN` any other byte.

    Bytes that are not UTF-8 come out as surrogates.
    """
    try:
        raw = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return name  # no directory's name: what no byte could have been decoded to
    plain = _ESCAPE.sub(lambda match: bytes.fromhex((match[1] or b"2f").decode()), raw)
    return plain.decode(errors="surrogateescape")


def _directories(path: str) -> Iterator[tuple[str, str, str, int]]:
    """Each directory's name, those of the two above it, and where it ends in the path."""
    parent = grandparent = ""
    end = -1
    for name in path.split("/"):
        end += 1 + len(name)
        if name:
            yield name, parent, grandparent, end
            parent, grandparent = name, parent


class _Walk:
    """Down a path, one directory after another: the containers so far, and the pod around."""

    __slots__ = ("innermost", "path", "pod", "pod_cgroup", "unit")

    def __init__(self, path: str) -> None:
        self.path = path
        self.innermost: Identity | None = None
        self.unit: Identity | None = None
        self.pod: Pod | None = None
        self.pod_cgroup: str | None = None

    def look(self, name: str, parent: str, grandparent: str, end: int) -> None:
        """Take in one directory's name, which ends at `end` of the path."""
        match = _COMPONENT.fullmatch(name)
        kind = match.lastgroup if match is not None else None
        if match is not None and kind in _PODS:
            self._take_pod(_pod_uid(match, kind, parent), self.path[:end])
        elif match is not None and kind == "bare" and parent == "libpod_parent":
            self._take_pod(match["bare"], self.path[:end])
        else:
            if match is not None and kind == "slice_id":
                # The slice is in the container's own name: the pod has no cgroup of its own.
                self._take_pod(_slice_uid(match["slice"]), None)
            container = _by_name(match, kind, parent) if match is not None else None
            container = container or _by_parent(name, parent, grandparent)
            if container is not None:
                self.found(container, end)
            elif name.endswith((".service", ".scope")):
                self._take_unit(name, end)

    def found(self, container: Container, end: int) -> None:
        """A container's own cgroup ends here; what was seen of a pod so far is around it."""
        if self.pod is not None and container.pod is None:
            container = replace(container, pod=self.pod)
        self.innermost = Identity(container, self.path[:end], self.pod_cgroup, self.innermost)
        self.pod = self.pod_cgroup = None

    def _take_pod(self, uid: str | None, cgroup: str | None) -> None:
        if uid is not None:
            self.pod, self.pod_cgroup = Pod(uid=uid), cgroup

    def _take_unit(self, name: str, end: int) -> None:
        if self.innermost is not None:
            return  # systemd inside a container: the container is who it is
        # systemd's cg_escape: a name that a controller's file could have gets an underscore.
        name = name.removeprefix("_")
        unit = Container(id=name, name=name, runtime="systemd", pod=self.pod)
        self.unit = Identity(unit, self.path[:end], self.pod_cgroup)


def _by_name(match: re.Match[str], kind: str | None, parent: str) -> Container | None:
    """The container that a directory's name tells, by itself or beside its parent's."""
    match kind:
        case "id":
            return Container(id=match["id"], runtime=_RUNTIMES[match["prefix"]])
        case "bare":
            return Container(id=match["bare"], runtime="docker" if parent == "docker" else None)
        case "slice_id":
            return Container(id=match["slice_id"], runtime=_RUNTIMES[match["slice_prefix"]])
        case "build":
            return Container(id=match["build"], runtime="buildkit")
        case "lxc":
            return Container(id=match["lxc"], name=match["lxc"], runtime="lxc")
        case "nspawn":
            return Container(id=match["nspawn"], name=match["nspawn"], runtime="systemd-nspawn")
        case "machine":
            machine = unescape_unit(match["machine"])
            return Container(id=machine, name=machine, runtime="systemd-machined")
        case "task" if parent in _NOMAD_PARENTS:
            return Container(id=match["allocation"], name=match["task"], runtime="nomad")
    return None


def _by_parent(name: str, parent: str, grandparent: str) -> Container | None:
    """The container whose directory can be told by those above it alone."""
    if parent in ("lxc", "lxc.payload"):
        return Container(id=name, name=name, runtime="lxc")
    if parent == "buildkit" and _BUILD.fullmatch(name):
        return Container(id=name, runtime="buildkit")
    garden = grandparent if parent in ("good", "bad") else parent
    if garden == "garden" and name not in _GARDEN_OWN:
        return Container(id=name, runtime="garden")
    return None


def _pod_uid(match: re.Match[str], kind: str | None, parent: str) -> str | None:
    if kind == "pod_slice":
        return _slice_uid(match["pod_slice"])
    if kind == "pod":
        return match["pod"] if parent in _POD_PARENTS else None
    return match["libpod_pod"]


def _slice_uid(name: str) -> str | None:
    """The pod's UID out of its slice's name, with the dashes that systemd has no room for."""
    match = _SLICE_UID.search(name)
    return match[1].replace("_", "-") if match is not None else None
