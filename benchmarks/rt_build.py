"""The GTFS-Realtime of 10,000 vehicles: built when every one of them has moved, and from nothing.

10,000 trips of 25 stops run at once, each with a vehicle and a prediction for every stop. Moved is
what a feed costs each time that all of its vehicles were heard anew; unchanged, what it costs when
a hundredth was.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np

from benchmarks.result import Goal, Result
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
from domains.mobility.realtime import publish
from domains.mobility.realtime.overlay import Overlay, TripState, Vehicle
from domains.mobility.realtime.publish import Kind, Memo
from domains.mobility.realtime.static import Static

VEHICLES, STOPS, ROUTES = 10_000, 25, 500
FEED = "city"
GOAL = Goal("value", maximum=50.0)
RUNS = 20
DAY = date(2026, 4, 6)
AT = datetime(2026, 4, 6, 3, 0, tzinfo=UTC)
NOON = 12 * 3600


def ids(kind: str, count: int) -> Ids:
    """`city:kind-n` of each."""
    texts = tuple(f"{FEED}:{kind}-{number}" for number in range(count))
    return Ids(texts, {text: number for number, text in enumerate(texts)})


def timetable(trips: int) -> Timetable:
    """Trips of 25 stops, a minute and a half apart, that all are under way at noon."""
    stops = max(trips // 10, STOPS)
    calls = trips * STOPS
    number = np.arange(calls, dtype=np.int32)
    arrival = NOON - 900 + number % STOPS * 90 + number // STOPS % 600
    none = np.zeros(stops, np.int8)
    text = tuple(None for _ in range(trips))
    return Timetable(
        versions=(Version(1, FEED, "Asia/Tokyo", "ja", None, None),),
        stops=Stops(
            ids("stop", stops), ("",) * stops, (None,) * stops, (None,) * stops, (None,) * stops,
            139 + np.arange(stops) / 1e4, 35 + np.arange(stops) / 1e4, none,
            np.full(stops, NONE, np.int32), none, np.zeros(stops, np.int32),
        ),
        routes=Routes(
            ids("route", ROUTES), *(((None,) * ROUTES,) * 4), np.full(ROUTES, 3, np.int16),
            np.zeros(ROUTES, np.int32),
        ),
        services=Services(DAY, np.ones((1, 1), np.bool_)),
        trips=Trips(
            ids("trip", trips), text, text, text,
            (np.arange(trips) % ROUTES).astype(np.int32), np.zeros(trips, np.int32),
            np.zeros(trips, np.int8), np.zeros(trips, np.int8), np.full(trips, NONE, np.int32),
            np.zeros(trips, np.int32), (np.arange(trips + 1) * STOPS).astype(np.int32),
        ),
        stop_times=StopTimes(
            (number * 7 % stops).astype(np.int32), number % STOPS + 1, arrival,
            (arrival + 20).astype(np.int32), np.zeros(calls, np.int8), np.zeros(calls, np.int8),
        ),
        transfers=Transfers(
            np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int8),
            np.zeros(0, np.int32),
        ),
    )  # fmt: skip


def overlay(table: Timetable) -> Overlay:
    """A vehicle and a prediction for each trip."""
    count = len(table.trips.ids.texts)
    skipped = np.zeros(STOPS, np.bool_)
    trips, vehicles = {}, []
    for trip in range(count):
        first, end = trip * STOPS, trip * STOPS + STOPS
        late = trip % 300
        trips[trip, DAY] = TripState(
            False, table.stop_times.arrival[first:end] + late,
            table.stop_times.departure[first:end] + late, skipped, AT,
        )  # fmt: skip
        document = {
            "vehicle": {"id": f"bus-{trip}", "label": f"Bus {trip}"}, "currentStatus": "STOPPED_AT",
            "currentStopSequence": 12, "occupancyStatus": "FEW_SEATS_AVAILABLE",
            "trip": {"tripId": f"trip-{trip}"},
        }  # fmt: skip
        vehicles.append(
            Vehicle(f"{FEED}:bus-{trip}", AT, 139 + trip / 1e5, 35.5, 8.5, 90.0, (trip, DAY),
                    trip % ROUTES, document)
        )  # fmt: skip
    return Overlay(AT, trips, (), tuple(vehicles))


def moved(before: Overlay, every: int = 1) -> Overlay:
    """A second later; each `every`th vehicle has moved and each such trip is later."""
    at = before.at + timedelta(seconds=1)
    vehicles = tuple(
        replace(each, time=at, longitude=each.longitude + 1e-4) if number % every == 0 else each
        for number, each in enumerate(before.vehicles)
    )
    trips = {
        day: replace(state, arrival=state.arrival + 1, departure=state.departure + 1, time=at)
        if day[0] % every == 0
        else state
        for day, state in before.trips.items()
    }
    return Overlay(at, trips, (), vehicles)


def milliseconds(build: Callable[[Overlay], bytes], overlays: list[Overlay]) -> list[float]:
    """How long each build took."""
    taken = []
    for each in overlays:
        began = time.perf_counter()
        build(each)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def run(scale: float = 1.0) -> Iterator[Result]:
    """Positions and trip updates: all moved, a hundredth moved, and from nothing."""
    count = max(10, round(VEHICLES * scale))
    table, static = timetable(count), Static(FEED, frozenset({FEED}))
    first = overlay(table)
    for kind, name in ((Kind.POSITIONS, "positions"), (Kind.UPDATES, "updates")):
        for way, every in (("moved", 1), ("unchanged", 100)):
            memo, later = Memo(table), [first]
            for _ in range(max(2, round(RUNS * min(1.0, scale * 10)))):
                later.append(moved(later[-1], every))

            def build(each: Overlay, kind: Kind = kind, memo: Memo = memo) -> bytes:
                return publish.message(kind, table, each, static, memo)

            cold, *warm = milliseconds(build, later)
            size = len(build(later[-1])) / 1e6
            goal = GOAL if (kind, way) == (Kind.POSITIONS, "moved") else None
            note = f"{count} vehicles, {size:.1f} MB; from nothing {cold:.0f} ms"
            middle = float(np.median(warm))
            yield Result(
                f"rt_build_{name}_{way}", middle, "ms", (min(warm), max(warm)), goal=goal, note=note
            )
