"""Who a cgroup is, from its path: a row for each form, with a real path and who makes it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatch.containers.layouts import Layout
from oomwatch.containers.paths import Identity, find_pod, identify, unescape_unit
from oomwatch.errors import LayoutError
from oomwatch.events import Container, Pod

A = "ee129607aff3d1cf1f1f4fdcbb5c38b4fb3a3b0f2bb6b6d3c56a07d9c1b0f0aa"
B = "0ba8ac17e4e7a31fb82279503552fe94e64bab4745bf6fd2ff231e7c8ca8bed0"
UID = "2ca4a155-3599-498d-bb9d-4446693fa3ea"
UID_ = UID.replace("-", "_")
STATIC = "f2e1d0c9b8a7968574635241302f1e0d"
ALLOCATION = "5e16c5ea-8d6f-4d33-8f8c-a1f8d7bc0a33"
USER = "/user.slice/user-1000.slice/user@1000.service"


@dataclass(frozen=True)
class Row:
    path: str
    source: str
    id: str
    runtime: str | None
    name: str | None = None
    pod: str | None = None
    # What is left of the path below the container's own cgroup.
    below: str = ""
    # The pod's own cgroup, None where the path shows none.
    pod_cgroup: str | None = None


ROWS = [
    # Docker
    Row(f"/docker/{A}", "moby daemon/oci_linux.go, cgroupfs driver", A, "docker"),
    Row(f"/system.slice/docker-{A}.scope", "moby daemon/oci_linux.go, systemd driver", A, "docker"),
    Row(
        f"{USER}/user.slice/docker-{A}.scope",
        "moby docs, rootless mode",
        A,
        "docker",
    ),
    Row(f"/batch/low/{A}", "docker run --cgroup-parent=/batch/low, cgroupfs driver", A, None),
    Row(f"/jobs.slice/docker-{A}.scope", "docker run --cgroup-parent=jobs.slice", A, "docker"),
    Row(
        f"/ecstasks.slice/ecstasks-{STATIC}.slice/docker-{A}.scope",
        "amazon-ecs-agent agent/taskresource/cgroup, cgroup v2",
        A,
        "docker",
    ),
    Row(
        f"/system.slice:docker:{A}",
        "runsc without --systemd-cgroup, given the systemd driver's path",
        A,
        "docker",
    ),
    Row(
        f"/docker/{A}/init.scope",
        "systemd inside a Docker container",
        A,
        "docker",
        below="/init.scope",
    ),
    Row(
        f"/docker/{A}/system.slice/nginx.service",
        "systemd inside a Docker container",
        A,
        "docker",
        below="/system.slice/nginx.service",
    ),
    Row(
        "/docker/buildkit/n4eu0udvbz9vfzjy71jkvgkwh",
        "buildkit executor/oci, moby cgroupfs driver",
        "n4eu0udvbz9vfzjy71jkvgkwh",
        "buildkit",
    ),
    Row(
        "/system.slice/docker-n4eu0udvbz9vfzjy71jkvgkwh.scope",
        "moby cmd/dockerd/daemon_systemd_unix.go, newCgroupParent",
        "n4eu0udvbz9vfzjy71jkvgkwh",
        "buildkit",
    ),
    # Kubernetes
    Row(
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
        "containerd internal/cri/server/podsandbox/helpers.go, getCgroupsPath",
        A,
        "containerd",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{A}.scope",
        "kubernetes pkg/kubelet/cm/cgroup_manager_linux.go, ToSystemd",
        A,
        "containerd",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{A}.scope",
        "the same: a guaranteed pod hangs directly off kubepods.slice",
        A,
        "containerd",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{A}.scope",
        "kubernetes pkg/kubelet/config/common.go: a static pod's UID is a hash",
        A,
        "containerd",
        pod=STATIC,
        pod_cgroup=f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice",
    ),
    Row(
        f"/kubepods/burstable/pod{UID}/{A}",
        "kubernetes pkg/kubelet/cm/pod_container_manager_linux.go, cgroupfs driver",
        A,
        None,
        pod=UID,
        pod_cgroup=f"/kubepods/burstable/pod{UID}",
    ),
    Row(
        f"/kubepods/besteffort/pod{UID}/{A}",
        "the same",
        A,
        None,
        pod=UID,
        pod_cgroup=f"/kubepods/besteffort/pod{UID}",
    ),
    Row(
        f"/kubepods/pod{UID}/{A}",
        "the same, guaranteed",
        A,
        None,
        pod=UID,
        pod_cgroup=f"/kubepods/pod{UID}",
    ),
    Row(
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
        "kind images/base: the kubelet's --cgroup-root=/kubelet",
        A,
        "containerd",
        pod=UID,
        pod_cgroup=f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{A}.scope",
        "kontena/pharos-cluster#440, systemd-cgls: the kubelet with Docker",
        A,
        "docker",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
    ),
    Row(
        f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}",
        "containerd without SystemdCgroup beside a kubelet with the systemd driver",
        A,
        "containerd",
        pod=UID,
    ),
    Row(
        f"/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}",
        "Kata without sandbox_cgroup_only (kata-containers/kata-containers#11325)",
        A,
        "containerd",
        pod=UID,
    ),
    Row(
        f"/kata_overhead/{A}",
        "the same, the virtual machine's own (kata-containers/kata-containers#11598)",
        A,
        None,
    ),
    Row(
        f"/kubepods/besteffort/pod{UID}/kata_{A}",
        "kata-containers virtcontainers and runtime-rs: a name that cAdvisor does not take",
        A,
        None,
        pod=UID,
        pod_cgroup=f"/kubepods/besteffort/pod{UID}",
    ),
    Row(
        f"/kata_overhead/kata_{A}",
        "runtime-rs resource_controller utils, generate_paths: what is its virtual machine's own",
        A,
        None,
    ),
    Row(
        f"/user.slice/user-1001.slice/user@1001.service/u7s-rootlesskit.service/kubepods/burstable/pod{UID}/{A}",
        "Usernetes (rootless-containers/usernetes#200)",
        A,
        None,
        pod=UID,
        pod_cgroup=f"/user.slice/user-1001.slice/user@1001.service/u7s-rootlesskit.service/kubepods/burstable/pod{UID}",
    ),
    # CRI-O
    Row(
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{B}.scope",
        "cri-o internal/config/cgmgr/systemd_linux.go",
        B,
        "cri-o",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{B}.scope/container",
        "the same, crun: its limits are a child's (crunContainerCgroupManager)",
        B,
        "cri-o",
        pod=UID,
        below="/container",
        pod_cgroup=f"/kubepods.slice/kubepods-pod{UID_}.slice",
    ),
    Row(
        f"/kubepods/burstable/pod{UID}/crio-{B}",
        "cri-o internal/config/cgmgr/cgroupfs_linux.go",
        B,
        "cri-o",
        pod=UID,
        pod_cgroup=f"/kubepods/burstable/pod{UID}",
    ),
    # nerdctl
    Row(f"/system.slice/nerdctl-{A}.scope", "nerdctl pkg/cmd/container", A, "containerd"),
    Row(f"/default/{A}", "nerdctl, cgroupfs driver: /NAMESPACE/ID", A, None),
    # Podman
    Row(
        f"/machine.slice/libpod-{A}.scope/container",
        "podman libpod, systemd manager with crun (containers/podman#13673)",
        A,
        "podman",
        below="/container",
    ),
    Row(
        f"{USER}/user.slice/libpod-{A}.scope/container",
        "podman libpod, rootless",
        A,
        "podman",
        below="/container",
    ),
    Row(f"/libpod_parent/libpod-{A}", "podman libpod, cgroupfs manager", A, "podman"),
    Row(
        f"/srv.slice/container-zwave2jsmqtt.service/libpod-payload-{A}",
        "podman --cgroups=split, as Quadlet runs it (containers/podman#13673)",
        A,
        "podman",
    ),
    Row(
        f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container",
        "podman pod, systemd manager (containers/podman#13673)",
        A,
        "podman",
        pod=B,
        below="/container",
        pod_cgroup=f"/machine.slice/machine-libpod_pod_{B}.slice",
    ),
    Row(
        f"{USER}/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
        "podman pod, rootless (containers/podman#23664)",
        A,
        "podman",
        pod=B,
        pod_cgroup=f"{USER}/user.slice/user-libpod_pod_{B}.slice",
    ),
    Row(
        f"/libpod_parent/{B}/libpod-{A}",
        "podman pod, cgroupfs manager",
        A,
        "podman",
        pod=B,
        pod_cgroup=f"/libpod_parent/{B}",
    ),
    # LXC and Incus
    Row("/lxc.payload.a1", "lxc src/lxc/cgroups/cgroup.h, 4.0 and later", "a1", "lxc", "a1"),
    Row(
        "/lxc.payload.web-1/system.slice/nginx.service",
        "Incus: systemd inside",
        "web-1",
        "lxc",
        "web-1",
        below="/system.slice/nginx.service",
    ),
    Row(
        "/lxc.payload.snapcraft_build",
        "LXD: PROJECT_NAME outside of its default project",
        "snapcraft_build",
        "lxc",
        "snapcraft_build",
    ),
    Row("/lxc.payload/a1", "lxc 3.1 (lxc/lxc#2782)", "a1", "lxc", "a1"),
    Row("/lxc/101/ns/init.scope", "Proxmox VE", "101", "lxc", "101", below="/ns/init.scope"),
    # systemd-nspawn and machine.slice
    Row(
        "/machine.slice/systemd-nspawn@build-box.service/payload",
        "systemd units/systemd-nspawn@.service.in: --machine=%i",
        "build-box",
        "systemd-nspawn",
        "build-box",
        below="/payload",
    ),
    Row(
        r"/machine.slice/machine-build\x2dbox.scope/payload",
        "systemd src/machine/machine-dbus.c: unit_name_escape",
        "build-box",
        "systemd-machined",
        "build-box",
        below="/payload",
    ),
    Row(
        r"/machine.slice/machine-qemu\x2d1\x2dvm1.scope/libvirt",
        "libvirt src/util/virsystemd.c",
        "qemu-1-vm1",
        "systemd-machined",
        "qemu-1-vm1",
        below="/libvirt",
    ),
    # Nomad and Garden
    Row(
        f"/nomad.slice/share.slice/{ALLOCATION}.redis.scope",
        "nomad client/lib/cgroupslib/editor.go, pathCG2",
        ALLOCATION,
        "nomad",
        "redis",
    ),
    Row(
        f"/nomad.slice/reserve.slice/{ALLOCATION}.redis.cache.scope",
        "the same, with reserved cores",
        ALLOCATION,
        "nomad",
        "redis.cache",
    ),
    Row(
        f"/nomad.slice/{ALLOCATION}.redis.scope",
        "nomad 1.3 to 1.6, client/lib/cgutil",
        ALLOCATION,
        "nomad",
        "redis",
    ),
    Row(
        f"/garden/good/{UID}",
        "guardian rundmc/cgroups/constants.go, cpucgrouper_linux.go",
        UID,
        "garden",
    ),
    Row(f"/garden/bad/{UID}/init", "the same", UID, "garden", below="/init"),
    Row(
        f"/system.slice/garden.service/garden/{UID}",
        "guardian, before CPU throttling",
        UID,
        "garden",
    ),
    # systemd's own
    Row(
        "/system.slice/nginx.service",
        "systemd.service(5)",
        "nginx.service",
        "systemd",
        "nginx.service",
    ),
    Row(
        "/system.slice/system-getty.slice/getty@tty1.service",
        "systemd.slice(5)",
        "getty@tty1.service",
        "systemd",
        "getty@tty1.service",
    ),
    Row(
        r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-1.service",
        "the same, escaped: a unit's name is written as systemctl takes it",
        r"systemd-fsck@dev-disk-by\x2duuid-1.service",
        "systemd",
        r"systemd-fsck@dev-disk-by\x2duuid-1.service",
    ),
    Row(
        "/system.slice/_cpu.service",
        "systemd src/basic/cgroup-util.c, cg_escape",
        "cpu.service",
        "systemd",
        "cpu.service",
    ),
    Row(
        f"{USER}/app.slice/app-gnome-firefox-2345.scope",
        "systemd.special(7), a user's manager",
        "app-gnome-firefox-2345.scope",
        "systemd",
        "app-gnome-firefox-2345.scope",
    ),
    Row(
        "/user.slice/user-0.slice/session-4.scope",
        "pam_systemd(8)",
        "session-4.scope",
        "systemd",
        "session-4.scope",
    ),
    Row("/init.scope", "systemd.special(7)", "init.scope", "systemd", "init.scope"),
    Row(
        "/system.slice/docker.service/worker",
        "a service that makes cgroups of its own (Delegate=)",
        "docker.service",
        "systemd",
        "docker.service",
        below="/worker",
    ),
    # conmon's scopes are units, and no containers
    Row(
        f"/machine.slice/libpod-conmon-{A}.scope",
        "podman libpod/oci_conmon_linux.go",
        f"libpod-conmon-{A}.scope",
        "systemd",
        f"libpod-conmon-{A}.scope",
    ),
    Row(
        f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{B}.scope",
        "cri-o internal/config/cgmgr/systemd_linux.go, MoveConmonToCgroup",
        f"crio-conmon-{B}.scope",
        "systemd",
        f"crio-conmon-{B}.scope",
        pod=UID,
        pod_cgroup=f"/kubepods.slice/kubepods-pod{UID_}.slice",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_a_path_tells_who_it_is(row: Row) -> None:
    found = identify(row.path)
    assert found is not None
    assert found.container == Container(
        id=row.id,
        name=row.name,
        runtime=row.runtime,
        pod=Pod(uid=row.pod) if row.pod is not None else None,
    )
    assert found.cgroup + row.below == row.path
    assert found.pod_cgroup == row.pod_cgroup
    assert found.outer is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/system.slice",
        "/user.slice/user-1000.slice",
        "/kubepods.slice/kubepods-burstable.slice",
        f"/kubepods.slice/kubepods-pod{UID_}.slice",
        f"/kubepods/burstable/pod{UID}",
        "/docker",
        "/docker/buildkit",
        "/libpod_parent/conmon",
        f"/kubepods/burstable/pod{UID}/crio-conmon-{B}",
        f"/libpod_parent/{A}",
        "/lxc.monitor.a1",
        "/lxc.pivot",
        "/garden/good",
        f"/docker/{A[:63]}",
        f"/docker/{A.upper()}",
        f"/docker-{A}x",
        f"/{ALLOCATION}.redis",
    ],
)
def test_what_is_no_container_is_nobody(path: str) -> None:
    assert identify(path) is None


def ids(identity: Identity | None) -> list[str]:
    return [] if identity is None else [found.container.id for found in identity.nested()]


def test_containers_in_containers_are_told_innermost_first() -> None:
    docker = identify(f"/docker/{A}/docker/{B}")
    assert ids(docker) == [B, A]
    assert docker is not None
    assert docker.cgroup == f"/docker/{A}/docker/{B}"
    assert docker.outer is not None
    assert (docker.outer.container.runtime, docker.outer.cgroup) == ("docker", f"/docker/{A}")


def test_kinds_nodes_are_containers_around_the_pods() -> None:
    # kubernetes/minikube#11280, systemctl status kubepods.slice; kind nests alike.
    slices = f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice"
    found = identify(f"/docker/{A}/{slices}/crio-{B}.scope")
    assert ids(found) == [B, A]
    assert found is not None
    assert found.container.pod == Pod(uid=UID)
    assert found.pod_cgroup == f"/docker/{A}/{slices}"
    assert found.outer is not None
    assert found.outer.container.pod is None
    assert found.outer.pod_cgroup is None


def test_kinds_own_nesting_on_a_host_with_systemd() -> None:
    # kind images/base/files/kind/bin/create-kubelet-cgroup-v2.sh; the node is a Docker container.
    slices = (
        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
        f"kubelet-kubepods-burstable-pod{UID_}.slice"
    )
    found = identify(f"/system.slice/docker-{A}.scope/{slices}/cri-containerd-{B}.scope")
    assert ids(found) == [B, A]
    assert found is not None
    assert found.container == Container(id=B, runtime="containerd", pod=Pod(uid=UID))
    assert found.pod_cgroup == f"/system.slice/docker-{A}.scope/{slices}"
    # Before, in the node's own cgroup namespace, with the cgroupfs driver.
    old = identify(f"/docker/{A}/kubelet/kubepods/besteffort/pod{UID}/{B}")
    assert ids(old) == [B, A]
    assert old is not None
    assert old.container.pod == Pod(uid=UID)


def test_a_pod_with_a_container_that_nests_is_the_outer_ones() -> None:
    found = identify(f"/kubepods/burstable/pod{UID}/{A}/docker/{B}")
    assert ids(found) == [B, A]
    assert found is not None
    assert found.container.pod is None
    assert found.outer is not None
    assert found.outer.container.pod == Pod(uid=UID)


def test_a_pod_is_found_at_its_own_cgroup_and_below() -> None:
    pod = f"/kubepods/burstable/pod{UID}"
    for path in (pod, f"{pod}/{A}", f"{pod}/{A}/nested"):
        found = find_pod(path)
        assert found is not None
        assert (found.pod, found.cgroup) == (Pod(uid=UID), pod)
    assert find_pod("/kubepods/burstable") is None
    assert find_pod(f"/pod{UID}") is None  # not the kubelet's


def test_a_namespaces_way_up_is_stepped_over() -> None:
    assert ids(identify(f"/../../docker/{A}")) == [A]


names = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=40)
parts = st.one_of(
    names,
    st.sampled_from(
        [
            "docker",
            "lxc",
            "garden",
            "good",
            "buildkit",
            "kubepods",
            f"docker-{A}.scope",
            A,
            "..",
            "",
        ]
    ),
    st.builds("lxc.payload.{}".format, names),
    st.builds("machine-{}.scope".format, names),
    st.builds("kubepods-pod{}.slice".format, names),
)


@given(st.lists(parts, max_size=8))
def test_whatever_a_path_is_an_answer_is_part_of_it(directories: list[str]) -> None:
    path = "/" + "/".join(directories)
    found = identify(path, (Layout.parse("{pod_name}/x-{name}-{id}"),))
    find_pod(path)
    if found is not None:
        for identity in found.nested():
            assert (path + "/").startswith(identity.cgroup + "/")
            assert identity.container.id


@pytest.mark.parametrize(
    "hostile",
    [
        "-" * 16000,
        "kubepods-" * 2000,
        "a:" * 8000,
        "x-libpod_pod_" * 1500,
        "\\x2d" * 4000,
        "machine-" + "\\x2d" * 4000 + ".scope",
        "/".join("-" * 8 for _ in range(2000)),
        "x-a-" * 4000,
    ],
)
def test_a_hostile_name_costs_no_more_than_its_length(hostile: str) -> None:
    layouts = (Layout.parse("x-{name}-{id}.scope"), Layout.parse("*-*-*-{id}-*.x"))
    # Some milliseconds; what tries again and again would run into the test's own time limit.
    identify("/" + hostile, layouts)
    find_pod("/" + hostile)
    unescape_unit(hostile)


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (r"build\x2dbox", "build-box"),
        ("dev-sda", "dev/sda"),
        (r"caf\xc3\xa9", "café"),
        (r"\xff", "\udcff"),
        (r"no\xescape\x2", r"no\xescape\x2"),
        ("\ud800-", "\ud800-"),
    ],
)
def test_a_units_name_is_unescaped(escaped: str, plain: str) -> None:
    assert unescape_unit(escaped) == plain


@pytest.mark.parametrize(
    ("pattern", "path", "cgroup", "container"),
    [
        ("/workers/{id}", "/workers/w1", "/workers/w1", Container(id="w1")),
        ("/workers/{id}", "/workers/w1/task", "/workers/w1", Container(id="w1")),
        (
            "jobs/job-{id}.scope",
            "/a/b/jobs/job-7.scope",
            "/a/b/jobs/job-7.scope",
            Container(id="7"),
        ),
        (
            "/w/{pod_namespace}_{pod_name}/{name}-{id}",
            "/w/prod_api/web-9/x",
            "/w/prod_api/web-9",
            Container(id="9", name="web", pod=Pod(name="api", namespace="prod")),
        ),
        ("/w/{name}", "/w/web", "/w/web", Container(id="web", name="web")),
        ("/w/*/{id}", "/w/any/1", "/w/any/1", Container(id="1")),
        ("/w/{pod_uid}/{id}", "/w/u/1", "/w/u/1", Container(id="1", pod=Pod(uid="u"))),
    ],
)
def test_an_operators_own_layout_is_read(
    pattern: str, path: str, cgroup: str, container: Container
) -> None:
    found = identify(path, (Layout.parse(pattern),))
    assert found is not None
    assert (found.container, found.cgroup) == (container, cgroup)


def test_a_layout_outranks_the_known_forms_and_fits_where_it_says() -> None:
    layout = Layout.parse("/workers/w-{name}.service")
    found = identify("/workers/w-a.service", (layout,))
    assert found is not None
    assert found.container == Container(id="a", name="a")
    assert ids(identify(f"/workers/w-a.service/docker/{A}", (layout,))) == [A, "a"]
    elsewhere = identify("/other/workers/w-a.service", (layout,))
    assert elsewhere is not None
    assert elsewhere.container.runtime == "systemd"


def test_the_first_of_two_layouts_wins() -> None:
    layouts = (Layout.parse("/w/a-{id}"), Layout.parse("/w/{id}"))
    assert ids(identify("/w/a-1", layouts)) == ["1"]
    assert ids(identify("/w/b-1", layouts)) == ["b-1"]


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("/workers/all", "neither"),
        ("/workers/{pod_name}", "neither"),
        ("/w/{ID}", "none of"),
        ("/w/{id}{name}", "parts"),
        ("/w/{id}/{id}", "twice"),
        ("/w//{id}", "empty"),
        ("", "neither"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(LayoutError, match=complaint):
        Layout.parse(pattern)
