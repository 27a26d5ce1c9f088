"""Observations in, events and questions out, in order."""

from __future__ import annotations

from oomwatch.containers.lives import Life
from oomwatch.containers.registry import Containers
from oomwatch.correlator import Correlator
from oomwatch.events import Container
from oomwatch.ledger import Ledger
from oomwatch.observations import ContainerSeen, FindSandbox
from oomwatch.pipeline import Pipeline
from oomwatch.testing import FakeSource, MemorySink

ID = "ee12" * 16


async def test_two_lives_of_a_container_are_asked_about_each_for_itself() -> None:
    said = {"docker": Container(id=ID, handler="runsc")}
    lives = [Life(ID, inode, 1, pid=300 + inode, said=said) for inode in (7, 8)]
    correlator = Correlator("boot", Ledger(), containers=Containers(lives))
    asked = FakeSource()
    pipeline = Pipeline(correlator, MemorySink(), [asked])
    pipeline.emit([ContainerSeen(source="docker", time=2, container=Container(id="another"))])
    pipeline.stop()
    assert asked.questions == [FindSandbox(ID, life, "runsc", 300 + life) for life in (7, 8)]
