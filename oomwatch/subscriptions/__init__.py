"""Subscriptions: a cursor, a filter and a wake-up over the journal each; no queue per client."""

from oomwatch.subscriptions.filter import EventFilter
from oomwatch.subscriptions.hub import Batch, Subscription, SubscriptionClosed, Subscriptions
from oomwatch.subscriptions.start import (
    AfterRevision,
    CursorAhead,
    Earliest,
    LastN,
    Latest,
    Since,
    Start,
)

__all__ = [
    "AfterRevision",
    "Batch",
    "CursorAhead",
    "Earliest",
    "EventFilter",
    "LastN",
    "Latest",
    "Since",
    "Start",
    "Subscription",
    "SubscriptionClosed",
    "Subscriptions",
]
