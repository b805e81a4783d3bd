"""Timetables made of a few lines, without a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from domains.mobility.network.timetable import (
    NONE,
    Ids,
    Routes,
    Services,
    Stops,
    StopTimes,
    Timetable,
    Transfers,
    Trips,
    Version,
)

Stop = tuple[str, float, float]
Call = tuple[str, int, int]
"""A stop's id, arrival and departure."""


@dataclass(frozen=True)
class Trip:
    """A trip by the ids of its feed; `days` None: every day."""

    id: str
    route: str
    calls: Sequence[Call]
    direction: int = NONE
    days: frozenset[date] | None = None
    sequences: Sequence[int] | None = None


def ids(feed: str, names: Sequence[str]) -> Ids:
    texts = tuple(f"{feed}:{name}" for name in names)
    return Ids(texts, {text: number for number, text in enumerate(texts)})


def timetable(
    stops: Sequence[Stop],
    trips: Sequence[Trip],
    *,
    feed: str = "bus",
    timezone: str = "Asia/Tokyo",
    first_day: date = date(2026, 1, 1),
    days: int = 40,
    parents: Mapping[str, str] | None = None,
) -> Timetable:
    """One version of one feed; each trip has a service of its own."""
    stop_names = [name for name, _, _ in stops]
    stop_of = {name: number for number, name in enumerate(stop_names)}
    route_names = sorted({trip.route for trip in trips})
    calls = [call for trip in trips for call in trip.calls]
    n, m, k = len(stops), len(route_names), len(trips)
    runs = np.ones((k, days), np.bool_)
    for number, trip in enumerate(trips):
        if trip.days is not None:
            runs[number] = [first_day + timedelta(d) in trip.days for d in range(days)]
    parent = np.full(n, NONE, np.int32)
    for child, station in (parents or {}).items():
        parent[stop_of[child]] = stop_of[station]
    none, zeros = (None,) * max(n, m, k), np.zeros
    sequence = [
        number for trip in trips for number in (trip.sequences or range(1, len(trip.calls) + 1))
    ]
    return Timetable(
        (Version(1, feed, timezone, None, None, None),),
        Stops(
            ids(feed, stop_names), tuple(stop_names), none[:n], none[:n], none[:n],
            np.array([x for _, x, _ in stops]), np.array([y for _, _, y in stops]),
            zeros(n, np.int8), parent, zeros(n, np.int8), zeros(n, np.int32),
        ),
        Routes(
            ids(feed, route_names), none[:m], none[:m], none[:m], none[:m],
            np.full(m, 3, np.int16), zeros(m, np.int32),
        ),
        Services(first_day, runs),
        Trips(
            ids(feed, [trip.id for trip in trips]), none[:k], none[:k], none[:k],
            np.array([route_names.index(trip.route) for trip in trips], np.int32),
            np.arange(k, dtype=np.int32),
            np.array([trip.direction for trip in trips], np.int8),
            zeros(k, np.int8), np.full(k, NONE, np.int32), zeros(k, np.int32),
            np.cumsum([0, *(len(trip.calls) for trip in trips)]).astype(np.int32),
        ),
        StopTimes(
            np.array([stop_of[name] for name, _, _ in calls], np.int32),
            np.array(sequence, np.int32),
            np.array([arrival for _, arrival, _ in calls], np.int32),
            np.array([departure for _, _, departure in calls], np.int32),
            zeros(len(calls), np.int8), zeros(len(calls), np.int8),
        ),
        Transfers(*(zeros(0, np.int32) for _ in range(2)), zeros(0, np.int8), zeros(0, np.int32)),
    )  # fmt: skip
