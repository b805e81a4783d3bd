"""Fixtures of the journeys."""

from tests.journeys.replays import outboxes

__all__ = ["outboxes"]
