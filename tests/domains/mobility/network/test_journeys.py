"""Journeys as they are told: walks, changes, wheelchairs, shared bikes, real time and alerts."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.mobility.network import bikes as bikes_module
from domains.mobility.network.bikes import Bikes
from domains.mobility.network.isochrones import project, unproject
from domains.mobility.network.journey_answer import alerts_of
from domains.mobility.network.journeys import Journey, Place, Way, Wish, place_of_stops, plan
from domains.mobility.network.modes import MODES, mode_of, types_of
from domains.mobility.network.raptor import Raptor, Ride
from domains.mobility.network.walking import changes_of
from domains.mobility.realtime.overlay import NOTHING_AT, Closure, Overlay, TripState
from tests.domains.mobility.network.made import Call, Plan, Stop, Trip, timetable_of

DAY = date(2026, 6, 10)
PLANNED = Overlay(NOTHING_AT)
ZERO = int(datetime(2026, 6, 9, 15, tzinfo=UTC).timestamp())
"""00:00 of DAY in Tokyo."""
HOUR = 3600


def calls(start: int, *stops: str) -> list[Call]:
    """Ten minutes between stops, a minute at each."""
    return [Call(stop, start + n * 600, start + n * 600 + 60) for n, stop in enumerate(stops)]


STOPS = [
    Stop("a", 139.70, 35.60, wheelchair=1),
    Stop("hub", 139.75, 35.60, kind=1),
    Stop("h1", 139.75, 35.60, "hub", wheelchair=1),
    Stop("h2", 139.751, 35.60, "hub", wheelchair=1),
    Stop("b", 139.80, 35.60, wheelchair=1),
    Stop("near-b", 139.802, 35.60, wheelchair=2),
]
TRIPS = [
    Trip("first", calls(8 * HOUR, "a", "h1"), [DAY], "r", 1),
    Trip("tight", calls(8 * HOUR + 600, "h2", "b"), [DAY], "s", 1),
    Trip("later", calls(8 * HOUR + 1800, "h2", "b"), [DAY], "s", 2),
    Trip("last", calls(9 * HOUR, "h2", "b"), [DAY], "s", 0),
    Trip("slow", [*calls(8 * HOUR, "a"), *calls(8 * HOUR + 1500, "near-b")], [DAY], "t", 1),
]
ROUTES = {"r": 3, "s": 2, "t": 715}


def raptor_of(*rules: tuple[str, str, int, int]) -> Raptor:
    return Raptor(timetable_of(Plan(STOPS, TRIPS, rules, ROUTES)))


def stop(raptor: Raptor, name: str) -> Place:
    return place_of_stops(raptor.timetable, raptor.timetable.stops.ids.all_of(f"made:{name}"))


def ridden(raptor: Raptor, journey: Journey) -> list[str]:
    return [raptor.timetable.trips.ids.texts[ride.trip][5:] for ride in journey.rides]


def ask(
    raptor: Raptor, overlay: Overlay = PLANNED, bikes: Bikes | None = None, **wished: Any
) -> list[list[str]]:
    """The trips of each journey from a to b after 7:50, without walks between stops."""
    wish = Wish(
        stop(raptor, "a"), stop(raptor, "b"), ZERO + 8 * HOUR - 600, walk_metres_max=10.0, limit=5
    )
    found = plan(raptor, overlay, replace(wish, **wished), bikes)
    return [ridden(raptor, each) for each in found]


def test_a_change_takes_its_time() -> None:
    """Across the station 118 m on foot take 95 s: a connection of 60 s is missed."""
    wide = {"walk_metres_max": 200.0}
    assert ask(raptor_of(), **wide)[0] == ["first", "later"]
    assert ask(raptor_of(("h1", "h2", 2, 30)), **wide)[0] == ["first", "tight"]
    assert ask(raptor_of(("hub", "hub", 1, 0)), **wide)[0] == ["first", "tight"]
    assert ask(raptor_of(("h1", "h2", 2, 3000)), **wide)[0] == ["first", "last"]
    assert ask(raptor_of(("h1", "h2", 3, 0)), **wide) == []
    assert ask(raptor_of(("hub", "hub", 3, 0), ("h1", "h2", 0, 0)), **wide)[0][1] == "later"


def test_what_is_not_known_to_be_accessible_is_left_out() -> None:
    raptor = raptor_of(("h1", "h2", 2, 3000))
    assert ask(raptor, walk_metres_max=200.0, wheelchair="true") == []
    assert ask(raptor, walk_metres_max=200.0, wheelchair="prefer") == [["first", "last"]]
    raptor = raptor_of(("h1", "h2", 1, 0))
    assert ask(raptor, walk_metres_max=200.0, wheelchair="true") == [["first", "tight"]]


def test_fewer_changes_are_an_answer_too() -> None:
    """The slow bus arrives after the tight train and before the later one, without a change."""
    found = ask(raptor_of(("h1", "h2", 1, 0)), walk_metres_max=300.0)
    assert sorted(found[:2]) == [["first", "tight"], ["slow"]]
    assert ask(raptor_of(), walk_metres_max=300.0, modes=frozenset({"bus"})) == [["slow"]]
    assert ask(raptor_of(), walk_metres_max=300.0, transfers_max=0) == [["slow"]]


def test_arriving_by_takes_the_last_that_is_in_time() -> None:
    raptor = raptor_of()
    by = {"time": ZERO + 9 * HOUR + 700, "arrive_by": True, "walk_metres_max": 200.0}
    found = plan(raptor, PLANNED, Wish(stop(raptor, "h2"), stop(raptor, "b"), limit=2, **by))  # type: ignore[arg-type]
    assert [ridden(raptor, each) for each in found] == [["last"], ["later"]]


def state(delay: int, *, cancelled: bool = False) -> TripState:
    times = np.array([8 * HOUR, 8 * HOUR + 600], np.int32) + np.int32(delay)
    return TripState(
        cancelled, times, times + np.int32(60), np.zeros(2, np.bool_), datetime.now(UTC)
    )


def test_real_time_is_what_counts() -> None:
    raptor, wide = raptor_of(), {"walk_metres_max": 200.0}
    first = raptor.timetable.trips.ids.numbers["made:first"]
    late = Overlay(datetime.now(UTC), {(first, DAY): state(1500)})
    assert ask(raptor, late, **wide)[0] == ["first", "last"]
    gone = Overlay(datetime.now(UTC), {(first, DAY): state(0, cancelled=True)})
    assert ask(raptor, gone, **wide) == []
    other_day = Overlay(datetime.now(UTC), {(first, DAY + timedelta(days=1)): state(1500)})
    assert ask(raptor, other_day, **wide)[0] == ["first", "later"]


@pytest.mark.parametrize("name", ["hub", "h2"])
def test_a_closed_stop_is_not_used_while_it_is_closed(name: str) -> None:
    raptor, wide = raptor_of(), {"walk_metres_max": 200.0}
    at = datetime.fromtimestamp(ZERO + 8 * HOUR, UTC)
    number = raptor.timetable.stops.ids.numbers[f"made:{name}"]
    shut = Closure("alert", at + timedelta(minutes=20), at + timedelta(minutes=40))
    overlay = Overlay(at, closures=(replace(shut, stops=frozenset({number})),))
    assert ask(raptor, overlay, **wide)[0] == ["first", "last"]
    route = raptor.timetable.routes.ids.numbers["made:s"]
    overlay = Overlay(at, closures=(replace(shut, end=None, routes=frozenset({route})),))
    assert ask(raptor, overlay, **wide) == []


def bikes(*stations: tuple[float, int, int]) -> Bikes:
    """At longitudes along the line: bikes and docks."""
    x, n, free = (np.array(each) for each in zip(*stations, strict=True))
    names = tuple(f"station {i}" for i in range(len(x)))
    ids = tuple(f"share:{i}" for i in range(len(x)))
    latitude = np.full(len(x), 35.6)
    return Bikes(ids, names, x, latitude, n.astype(np.int32), free.astype(np.int32))


def test_a_bike_to_the_train() -> None:
    """From a place out of walking reach of h2; not from an empty station, nor to a full one."""
    raptor = raptor_of()
    wish = Wish(
        Place(139.735, 35.6), stop(raptor, "b"), ZERO + 8 * HOUR, walk_metres_max=100.0,
        modes=frozenset({"transit", "bike", "walk"}), limit=1,
    )  # fmt: skip
    assert plan(raptor, PLANNED, wish) == []
    shared = bikes((139.7351, 1, 0), (139.7509, 0, 2))
    (journey,) = plan(raptor, PLANNED, wish, shared)
    modes = [leg.mode if isinstance(leg, Way) else "ride" for leg in journey.legs]
    assert modes == ["walk", "bike", "walk", "ride"]
    assert ridden(raptor, journey) == ["tight"] or ridden(raptor, journey) == ["later"]
    times = [(leg.departure, leg.arrival) for leg in journey.legs]
    assert all(a[1] <= b[0] for a, b in pairwise(times))
    assert journey.legs[2].arrival <= journey.rides[0].departure
    for nothing in (
        bikes((139.7351, 0, 9), (139.7509, 0, 2)),
        bikes((139.7351, 1, 0), (139.7509, 5, 0)),
    ):
        assert plan(raptor, PLANNED, wish, nothing) == []
    assert plan(raptor, PLANNED, replace(wish, wheelchair="prefer"), shared) == []


def test_a_bike_from_the_train_and_all_the_way() -> None:
    raptor = raptor_of()
    shared = bikes((139.8001, 3, 0), (139.83, 0, 2), (139.7352, 2, 0))
    wish = Wish(
        stop(raptor, "h2"), Place(139.8301, 35.6), ZERO + 8 * HOUR, walk_metres_max=100.0,
        modes=frozenset({"transit", "bike"}), limit=1,
    )  # fmt: skip
    (journey,) = plan(raptor, PLANNED, wish, shared)
    modes = [leg.mode if isinstance(leg, Way) else "ride" for leg in journey.legs]
    assert modes == ["ride", "walk", "bike", "walk"]
    way = bikes_module.direct(shared, (139.8, 35.6), (139.83, 35.6), 100.0)
    assert way is not None
    assert (way.rent, way.give_back) == (0, 1)
    assert way.ride_metres == pytest.approx(2_704 * 1.3, rel=0.01)
    assert way.parts[1] == pytest.approx(90 + way.ride_metres / 3.5, abs=1)
    assert bikes_module.direct(shared, (139.8, 35.6), (139.8001, 35.6), 20.0) is None


ALERT = {"informedEntity": [{"stopId": "h2"}], "activePeriod": [{"start": str(ZERO)}]}


@pytest.mark.parametrize(
    ("alert", "touches"),
    [
        (ALERT, True),
        (ALERT | {"informedEntity": [{"stopId": "a"}]}, False),
        (ALERT | {"informedEntity": [{"routeId": "s"}, "rubbish", {}]}, True),
        (ALERT | {"informedEntity": [{"routeId": "s", "stopId": "a"}]}, False),
        (ALERT | {"informedEntity": [{"trip": {"tripId": "later"}}]}, True),
        (ALERT | {"informedEntity": [{"trip": 7, "agencyId": "x"}]}, False),
        (ALERT | {"informedEntity": None}, False),
        (ALERT | {"activePeriod": [{"end": str(ZERO)}]}, False),
        (ALERT | {"activePeriod": "never"}, True),
        (ALERT | {"activePeriod": ["rubbish"]}, True),
    ],
)
def test_alerts_that_touch_a_ride(alert: dict[str, Any], touches: bool) -> None:
    raptor = raptor_of()
    ids = raptor.timetable.stops.ids.numbers
    trip = raptor.timetable.trips.ids.numbers["made:later"]
    times = ZERO + 8 * HOUR + 1800, ZERO + 8 * HOUR + 2400
    ride = Ride(trip, DAY, 0, 1, ids["made:h2"], ids["made:b"], *times)
    overlay = Overlay(NOTHING_AT, alerts={"rt:1": alert})
    assert alerts_of(raptor.timetable, overlay, ride) == (["rt:1"] if touches else [])


@given(st.floats(-179, 179), st.floats(-80, 80), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_the_projection_is_undone(x: float, y: float, dx: float, dy: float) -> None:
    place = Place(x, y)
    there = np.array([x + dx]), np.array([y + dy])
    longitude, latitude = unproject(place, *project(place, *there))
    assert abs((longitude[0] - there[0][0] + 180) % 360 - 180) < 1e-7
    assert latitude[0] == pytest.approx(there[1][0], abs=1e-7)


def test_every_type_has_one_mode() -> None:
    assert mode_of(3) == mode_of(715) == "bus"
    assert mode_of(1) == mode_of(401) == "subway"
    assert mode_of(109) == "rail"
    assert mode_of(9999) == "transit"
    assert sum(len(types_of({mode})) for mode in MODES) <= 1800


def test_changes_without_places() -> None:
    """A stop without a place is changed at, and walked to from nowhere."""
    edges = changes_of(timetable_of(Plan([Stop("x"), Stop("y")], [])))
    assert list(zip(edges.origin.tolist(), edges.target.tolist(), strict=True)) == [(0, 0), (1, 1)]
