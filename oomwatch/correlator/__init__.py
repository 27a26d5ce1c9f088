"""From the witnesses' observations to events: pure, and one module for each step of it."""

from oomwatch.correlator.correlator import Correlator
from oomwatch.correlator.kills import Outcome

__all__ = ["Correlator", "Outcome"]
