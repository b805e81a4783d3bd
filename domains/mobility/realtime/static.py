"""What a published static feed has beside its Timetable: what real time about it may name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Static:
    """One static feed as it is published."""

    feed: str
    sources: frozenset[str]
    """Ids of the feeds whose real time is about it, itself among them."""
    agencies: frozenset[str] = frozenset()
    flexible: frozenset[str] = frozenset()
    """Ids of trips that run by frequencies with exact_times = 0."""


def own_id(text: str, feed: str) -> str:
    """An id as its feed gave it."""
    return text[len(feed) + 1 :]
