"""What a daemon says about itself and its cgroups, between `oomwatch.status` and protobuf."""

from __future__ import annotations

from typing import cast

from oomwatch.events import Container
from oomwatch.rpc.translator import plan
from oomwatch.rpc.v1 import oomwatch_pb2 as pb
from oomwatch.status import CgroupReport, NodeStatus

_write_status, _read_status = plan(NodeStatus, pb.NodeStatus.DESCRIPTOR)
_write_container, _read_container = plan(Container, pb.Container.DESCRIPTOR)
_write_report, _read_report = plan(
    CgroupReport, pb.ContainerReport.DESCRIPTOR, skip=frozenset({"path", "id"})
)


def status_to_message(status: NodeStatus) -> pb.NodeStatus:
    """Give a node's status as a message."""
    message = pb.NodeStatus()
    _write_status(status, message)
    return message


def status_from_message(message: pb.NodeStatus) -> NodeStatus:
    """Read a node's status."""
    return cast(NodeStatus, _read_status(message))


def container_to_message(container: Container) -> pb.Container:
    """Give who a container is as a message."""
    message = pb.Container()
    _write_container(container, message)
    return message


def container_from_message(message: pb.Container) -> Container:
    """Read who a container is."""
    return cast(Container, _read_container(message))


def report_to_message(report: CgroupReport) -> pb.ContainerReport:
    """Give a cgroup's report as a message."""
    message = pb.ContainerReport(cgroup_id=report.id)
    message.cgroup = report.path.encode("utf-8", "surrogateescape").decode(
        "utf-8", "backslashreplace"
    )
    _write_report(report, message)
    return message


def report_from_message(message: pb.ContainerReport) -> CgroupReport:
    """Read a cgroup's report."""
    return CgroupReport(
        path=message.cgroup,
        id=message.cgroup_id,
        **_read_report(message),
    )
