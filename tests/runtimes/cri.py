"""Pods and their containers by Kubernetes' Container Runtime Interface, as the kubelet makes them.

The requests are written field by field, by the numbers of the interface (k8s.io/cri-api,
pkg/apis/runtime/v1/api.proto): oomwatch's own messages hold what is read of it, and no request that
makes anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from oomwatch.sources.runtimes.v1 import cri_pb2 as pb
from tests.runtimes.containers import Ended, Spec, now
from tests.runtimes.images import IMAGE, import_image
from tests.runtimes.processes import SECONDS, wait_for

_NODE = 2
"""NamespaceMode: the node's own network, for which no plugin is needed."""

_numbers = itertools.count(1)

_Fields = Mapping[int, "int | str | _Fields | Sequence[str | _Fields]"]


@dataclass(frozen=True, slots=True)
class PodSandbox:
    """A pod that runs, and the request that made it, which each of its containers repeats."""

    id: str
    name: str
    uid: str
    config: bytes
    cgroup: str


class CriHost:
    """Whoever serves the interface at a socket: containerd does, at its own."""

    runtime = "containerd"

    def __init__(self, socket: Path, root: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        import_image(socket, "k8s.io", root)
        wait_for(
            lambda: IMAGE.encode() in self._ask("ImageService/ListImages", b""),
            "it does not take the image in",
        )

    def run_pod(self, name: str, namespace: str = "shop") -> PodSandbox:
        """Start a pod, without any container yet."""
        uid = f"0f3c1a52-7d1e-4a0b-9c55-{next(_numbers):012}"
        cgroup = f"/kubepods/burstable/pod{uid}"
        config = _message(
            {
                1: {1: name, 2: uid, 3: namespace},
                8: {1: cgroup, 2: {1: {1: _NODE}}},
            }
        )
        sandbox = self._call("RunPodSandbox", _field(1, config))
        return PodSandbox(sandbox, name, uid, config, cgroup)

    def run(self, spec: Spec, pod: PodSandbox) -> CriContainer:
        """Start a container in a pod."""
        asked = now()
        config = _message(
            {
                1: {1: spec.name or f"container-{next(_numbers)}"},
                2: {1: IMAGE},
                3: list(spec.command),
                9: [{1: key, 2: value} for key, value in (spec.labels or {}).items()],
                15: {1: {4: spec.memory or 0}},
            }
        )
        made = _field(1, pod.id.encode()) + _field(2, config) + _field(3, pod.config)
        container = self._call("CreateContainer", made)
        self._call("StartContainer", _field(1, container.encode()))
        return CriContainer(self, container, f"{pod.cgroup}/{container}", asked)

    def remove_pod(self, pod: PodSandbox) -> None:
        """End and remove a pod and its containers."""
        self._call("StopPodSandbox", _field(1, pod.id.encode()))
        self._call("RemovePodSandbox", _field(1, pod.id.encode()))

    def status(self, container_id: str) -> pb.ContainerStatusResponse:
        """The runtime's word on a container."""
        request = pb.ContainerStatusRequest(container_id=container_id, verbose=True)
        return pb.ContainerStatusResponse.FromString(
            self._ask("RuntimeService/ContainerStatus", request.SerializeToString())
        )

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _call(self, name: str, request: bytes) -> str:
        """Make a call whose answer is an id, or nothing."""
        # Every such answer has the id as its first field, as this message has.
        return pb.ContainerStatusRequest.FromString(
            self._ask(f"RuntimeService/{name}", request)
        ).container_id

    def _ask(self, name: str, request: bytes) -> bytes:
        call = self._channel.unary_unary(
            f"/runtime.v1.{name}",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        return call(request, timeout=SECONDS)


class CriContainer:
    """A container in a pod."""

    def __init__(self, host: CriHost, container_id: str, cgroup: str, asked: float) -> None:
        self.id = container_id
        self.cgroup = cgroup
        self._host = host
        self._asked = asked
        self._started = now()

    def wait(self) -> Ended:
        """Return once it has ended."""
        wait_for(
            lambda: self._host.status(self.id).status.state == pb.CONTAINER_STATE_EXITED,
            "it did not end",
        )
        status = self._host.status(self.id).status
        oom_killed = status.reason == "OOMKilled"
        return Ended(status.exit_code, oom_killed, self._asked, self._started, now())


def _message(fields: _Fields) -> bytes:
    """A message in protobuf's wire format, by the numbers of its fields."""
    written = b""
    for number, value in fields.items():
        if isinstance(value, int):
            written += _varint(number << 3) + _varint(value)
            continue
        for one in [value] if isinstance(value, str | Mapping) else value:
            content = one.encode() if isinstance(one, str) else _message(one)
            written += _field(number, content)
    return written


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
