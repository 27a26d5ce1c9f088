"""What a subscriber may ask for, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oomwatch.events import (
    Confidence,
    Container,
    ContainerExit,
    Event,
    EvidenceGap,
    Kind,
    MemoryPressure,
    OomKill,
    Pod,
    PressureLevel,
    Scope,
    Verdict,
)
from oomwatch.subscriptions import EventFilter

CONTAINER = Container(
    id="ee12ab",
    name="web",
    runtime="containerd",
    handler="runsc",
    labels={"app": "shop", "tier": ""},
    pod=Pod(uid="uid-1", name="shop-0", namespace="prod"),
)
KILL = OomKill(
    episode_id="e",
    detect_time=1,
    scope=Scope.ANCESTOR_LIMIT,
    confidence=Confidence.CONFIRMED,
    container=CONTAINER,
    victim_cgroup="/kube/pod1/ee12ab",
    limit_cgroup="/kube/pod1",
)
UNKNOWN = replace(
    KILL,
    container=None,
    victim_cgroup=None,
    limit_cgroup=None,
    survivor_cgroup="/kube",
    candidates=("/kube/pod7/a", "/kube/pod8/b"),
)
EXIT = ContainerExit(
    episode_id="e",
    detect_time=1,
    verdict=Verdict.OOM,
    confidence=Confidence.LOW,
    container=CONTAINER,
    cgroup="/kube/pod1/ee12ab",
)
PRESSURE = MemoryPressure(
    episode_id="e",
    detect_time=1,
    cgroup="/kube",
    level=PressureLevel.SOME,
    stall_microseconds=1,
    window_microseconds=2,
)
NODE_GAP = EvidenceGap(episode_id="e", detect_time=1, source="kernel_log", reason="overrun")
GAP = replace(NODE_GAP, cgroup="/kube/pod1")


@pytest.mark.parametrize(
    ("terms", "event", "wanted"),
    [
        ([], KILL, True),
        ([], NODE_GAP, True),
        (["container=ee12"], KILL, True),
        (["container=ee12ab"], EXIT, True),
        (["container=e1"], KILL, False),
        (["container=ee12"], UNKNOWN, False),
        (["container=ff", "container=ee"], KILL, True),
        (["name=web"], KILL, True),
        (["name=we"], KILL, False),
        (["label=app=shop"], KILL, True),
        (["label=app=other"], KILL, False),
        (["label=tier"], KILL, True),
        (["label=tier="], KILL, True),
        (["label=!tier"], KILL, False),
        (["label=!gone"], KILL, True),
        (["label=app=shop", "label=gone"], KILL, False),
        (["label=!gone"], replace(KILL, container=Container(id="a")), True),
        (["label=app==shop"], KILL, True),
        (["label=app!=shop"], KILL, False),
        (["label=app!=other"], KILL, True),
        (["label=gone!=shop"], KILL, True),
        (["label=app!=shop"], replace(KILL, container=Container(id="a")), True),
        (["label=app!="], KILL, True),
        (["label=tier!="], KILL, False),
        (["label=app="], KILL, False),
        (["label=gone="], KILL, False),
        (["label=app in (shop, till)"], KILL, True),
        (["label=app in(till)"], KILL, False),
        (["label=gone in (shop)"], KILL, False),
        (["label=app notin (shop,till)"], KILL, False),
        (["label=app notin (till)"], KILL, True),
        (["label=gone notin (shop)"], KILL, True),
        (["label=tier in ()"], KILL, True),
        (["label=app!=shop"], UNKNOWN, False),
        (["label=a b=c"], replace(KILL, container=Container(id="a", labels={"a b": "c"})), True),
        (["pod=shop-0"], KILL, True),
        (["pod=uid-1"], KILL, True),
        (["pod=uid"], KILL, False),
        (["pod=uid"], replace(KILL, container=Container(id="a")), False),
        (["namespace=prod"], KILL, True),
        (["namespace=test"], KILL, False),
        (["runtime=containerd"], KILL, True),
        (["runtime=runsc"], KILL, True),
        (["runtime=docker"], KILL, False),
        (["kind=oom_kill"], KILL, True),
        (["kind=oom_kill", "kind=container_exit"], EXIT, True),
        (["kind=oom_kill"], NODE_GAP, False),
        (["cgroup=/"], KILL, True),
        (["cgroup=/kube/pod1"], KILL, True),
        (["cgroup=/kube/pod1/"], KILL, True),
        (["cgroup=/kube/pod"], KILL, False),
        (["cgroup=/kube/pod1/ee12ab/x"], KILL, False),
        (["cgroup=/kube/pod8"], UNKNOWN, True),
        (["cgroup=/kube/pod9"], UNKNOWN, False),
        (["cgroup=/kube"], UNKNOWN, True),
        (["cgroup=/kube"], PRESSURE, True),
        (["cgroup=/kube"], GAP, True),
        (["cgroup=/other"], GAP, False),
        (["cgroup=/other"], NODE_GAP, True),
        (["container=other"], NODE_GAP, True),
        (["container=other"], GAP, False),
        (["confidence=high"], KILL, True),
        (["confidence=medium"], EXIT, False),
        (["name=web", "confidence=high", "cgroup=/kube", "kind=oom_kill"], KILL, True),
        (["name=web", "namespace=test"], KILL, False),
    ],
)
def test_terms_take_what_they_say(terms: list[str], event: Event, wanted: bool) -> None:
    """Within a key one term is enough, between keys all must hold."""
    assert EventFilter.parse(terms).matches(event) is wanted


def test_equal_questions_are_equal_filters() -> None:
    """So that their subscribers share what is read and encoded."""
    one = EventFilter(names=("b", "a", "b"), kinds=(Kind.OOM_KILL,))
    other = EventFilter.parse(["kind=oom_kill", "name=a", "name=b"])
    assert one == other
    assert hash(one) == hash(other)
    assert EventFilter().takes_all
    assert not one.takes_all


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        (["nonsense=1"], "container, name, label, pod, namespace, runtime, kind, cgroup, conf"),
        (["name"], "KEY=VALUE"),
        (["name="], "nothing after"),
        (["kind=oom"], "oom_kill, container_exit, memory_pressure, evidence_gap"),
        (["confidence=sure"], "low, medium, high, confirmed"),
        (["confidence=low", "confidence=high"], "once"),
        (["cgroup=docker"], "begin with '/'"),
        (["label==x"], "has no name"),
        (["label=!"], "has no name"),
        (["label=!=x"], "has no name: write k=v, k!=v, k in .v,w., k notin .v,w., k or !k"),
        (["label=in (x)"], "spaces in its name: write k=v"),
        (["label=app in x"], "spaces in its name: write k=v"),
        (["label=app in (x),tier=db"], "is several: give each by itself"),
        (["label=tier notin (x),app!=y"], "is several: give each by itself"),
        (["label=app = x"], "spaces in its name: write k=v"),
        (["label=app > 5"], "spaces in its name: write k=v"),
        (["name=" + "x" * 513], "513 characters"),
        ([f"name=n{number}" for number in range(65)], "65 terms"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_a_sentence(
    terms: list[str], sentence: str
) -> None:
    """Whoever typed it learns what to type."""
    with pytest.raises(ValueError, match=sentence):
        EventFilter.parse(terms)


def test_the_bounds_themselves_are_taken() -> None:
    """64 terms of 512 characters."""
    EventFilter(names=tuple(f"{number:0512}" for number in range(64)))


def test_the_longest_label_that_kubernetes_allows_can_be_asked_for() -> None:
    """A prefix of 253, a name of 63 and a value of 63 characters."""
    EventFilter(labels=(f"{'p' * 253}/{'n' * 63}={'v' * 63}",))


def test_a_pod_of_kind_in_docker_can_be_asked_for_by_its_path() -> None:
    """Four slices of two kubelets, and two ids of 64 digits."""
    slices = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
    pod = f"kubelet-kubepods-burstable-pod{'0' * 36}.slice"
    outer, inner = f"docker-{'a' * 64}.scope", f"cri-containerd-{'b' * 64}.scope"
    EventFilter(cgroups=(f"/system.slice/{outer}{slices}/{pod}/{inner}",))


def test_a_text_in_place_of_terms_is_a_mistake() -> None:
    """Its letters would be taken for terms."""
    with pytest.raises(TypeError, match="names"):
        EventFilter(names="web")  # type: ignore[arg-type]
