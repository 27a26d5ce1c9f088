"""From the word that a container ended to one exit for each life, after its kills; pure."""

from oomwatch.correlator.exits.book import AMEND_SECONDS, MAX_EXITS
from oomwatch.correlator.exits.exits import (
    PLACE_SECONDS,
    RUNTIME_SECONDS,
    WORKER_SECONDS,
    Exits,
)

__all__ = [
    "AMEND_SECONDS",
    "MAX_EXITS",
    "PLACE_SECONDS",
    "RUNTIME_SECONDS",
    "WORKER_SECONDS",
    "Exits",
]
