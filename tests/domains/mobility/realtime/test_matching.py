"""Which trip is meant: by id, by route and start, by what the vehicle does; and how late it is."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from domains.mobility.realtime import predict
from domains.mobility.realtime.matching import Finder, Sighting
from domains.mobility.realtime.overlay import TripState, Vehicle
from tests.domains.mobility.realtime.feeds import AT
from tests.domains.mobility.realtime.town import EIGHT, STOPS, line, town
from tests.domains.mobility.timetables import Trip, timetable

DAY = date(2026, 1, 1)
TOWN = town()
FINDER = Finder(TOWN)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"tripId": "t1", "startDate": "20260101"}, (1, DAY)),
        ({"tripId": "t1", "startDate": "20260105"}, (1, date(2026, 1, 5))),
        ({"tripId": "t1", "startDate": "20230105"}, (1, date(2023, 1, 5))),
        ({"tripId": "t1"}, (1, DAY)),
        ({"tripId": "t1", "startDate": "never"}, (1, DAY)),
        ({"tripId": "none"}, None),
        ({"routeId": "r", "directionId": 0, "startTime": "08:20:00"}, (2, DAY)),
        ({"routeId": "r", "startTime": "8:20:00", "startDate": "20260102"},
         (2, date(2026, 1, 2))),
        ({"routeId": "r", "directionId": 1, "startTime": "08:20:00"}, None),
        ({"routeId": "r", "startTime": "08:21:00"}, None),
        ({"routeId": "r"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_by_what_is_told(told: dict[str, Any], found: Any) -> None:
    assert FINDER.find(told, "bus", AT) == found


def test_after_midnight_it_is_still_yesterdays() -> None:
    """25:10 of one service day; at the same hour of the clock no other trip runs."""
    planned = timetable(STOPS, [line("n", 25 * 3600 + 600)])
    found = Finder(planned).find({"tripId": "n"}, "bus", AT + 17 * 3600 + 660)
    assert found == (0, DAY)


def test_days_on_which_it_does_not_run() -> None:
    planned = timetable(STOPS, [Trip("t", "r", line("t", EIGHT).calls, 0, frozenset([DAY]))])
    finder = Finder(planned)
    assert finder.find({"routeId": "r", "startTime": "08:00:00"}, "bus", AT) == (0, DAY)
    assert finder.find({"routeId": "r", "startTime": "08:00:00"}, "bus", AT + 86_400) is None


def test_two_that_leave_together_are_not_guessed_at() -> None:
    planned = timetable(STOPS, [line("t", EIGHT), line("u", EIGHT)])
    assert Finder(planned).find({"routeId": "r", "startTime": "08:00:00"}, "bus", AT) is None


@pytest.mark.parametrize(("start", "found"), [("08:10:00", 1), ("08:12:00", 1), ("10:00:00", None)])
def test_trips_of_frequencies(start: str, found: int | None) -> None:
    """By their own start, or the nearest where headways are not exact."""
    planned = timetable(STOPS, [line("f@08:00:00", EIGHT), line("f@08:10:00", EIGHT + 600)])
    told = {"tripId": "f", "startTime": start, "startDate": "20260101"}
    assert Finder(planned).find(told, "bus", AT) == (None if found is None else (found, DAY))


# --- what a vehicle does --------------------------------------------------------------------------


def seen(seconds: int, along: float, course: float = math.nan, **more: Any) -> Sighting:
    """On the line from a to e (0 to 4), so many seconds after 08:00."""
    return Sighting(135.0003, 35.0 + along / 100, AT + seconds, course, **more)


def guess(finder: Finder, sighting: Sighting) -> int | None:
    (found,) = finder.guess("bus", [sighting])
    assert found is None or 0.7 <= found[1] <= 1
    return None if found is None else found[0][0]


def test_a_vehicle_on_its_way_is_known_by_it() -> None:
    for trip in range(6):
        assert guess(FINDER, seen(600 * trip + 500, 1.5)) == trip


@pytest.mark.parametrize(
    "sighting",
    [
        Sighting(135.1, 35.015, AT + 500, math.nan),  # away from the line
        seen(7 * 3600, 1.5),  # when nothing runs
        seen(960, 1.5),  # between two trips
        seen(500, 1.5, course=180),  # the wrong way
        seen(500, 1.5, route="bus:none"),
    ],
)
def test_who_is_not_known_is_left_alone(sighting: Sighting) -> None:
    assert guess(FINDER, sighting) is None


def test_two_lines_on_one_road_are_told_apart_by_their_route_alone() -> None:
    finder = Finder(timetable(STOPS, [line("t", EIGHT), line("u", EIGHT, "s")]))
    assert guess(finder, seen(500, 1.5)) is None
    assert guess(finder, seen(500, 1.5, route="bus:s")) == 1


def test_a_nations_vehicles_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.mobility.realtime.matching.GUESSED_AT_ONCE_MAX", 2)
    assert [each is None for each in FINDER.guess("bus", [seen(500, 1.5)] * 3)] == [
        False, False, True,
    ]  # fmt: skip


# --- predictions ----------------------------------------------------------------------------------


def vehicle(seconds: float, along: float, trip: int = 0, **document: Any) -> Vehicle:
    when = datetime.fromtimestamp(AT + seconds, UTC)
    return Vehicle(
        "bus:7", when, 135.0, 35.0 + along / 100, math.nan, math.nan, (trip, DAY), 0, document
    )


def foretold(each: Vehicle) -> TripState | None:
    (found,) = predict.trip_states(TOWN, FINDER, [each])
    return found


def late_at_the_end(each: Vehicle) -> int | None:
    found = foretold(each)
    if found is None or each.trip is None:
        return None
    assert found.predicted
    times = np.stack([found.arrival, found.departure], axis=1).reshape(-1)
    assert (np.diff(times) >= 0).all()
    return int(found.arrival[-1] - TOWN.stop_times.arrival[each.trip[0] * 5 + 4])


@pytest.mark.parametrize("late", [0, 60, 600, 3600])
def test_who_is_late_stays_late(late: int) -> None:
    assert late_at_the_end(vehicle(150 + late, 0.5)) == late


def test_who_is_early_waits_at_the_next_stop() -> None:
    found = foretold(vehicle(90, 0.5))
    assert found is not None
    assert (found.arrival - TOWN.stop_times.arrival[:5]).tolist()[1:] == [-60, 0, 0, 0]
    assert (found.departure == TOWN.stop_times.departure[:5]).tolist()[1:] == [True] * 4


@pytest.mark.parametrize("along", [0.0, 0.2])
def test_who_has_not_left_is_neither_late_nor_early(along: float) -> None:
    """Also where a long train or a depot is some way along the line."""
    found = foretold(vehicle(-300, along))
    assert found is not None
    assert (found.arrival - TOWN.stop_times.arrival[:5]).tolist() == [0] * 5


def test_who_stands_at_a_stop_is_late_once_it_should_have_left() -> None:
    told = {"currentStopSequence": 2, "currentStatus": "STOPPED_AT"}
    assert late_at_the_end(vehicle(350, 1.0, **told)) == 0
    assert late_at_the_end(vehicle(400, 1.0, **told)) == 40


@pytest.mark.parametrize("each", [vehicle(150, 40), vehicle(9 * 3600, 0.5)])
def test_who_is_not_on_the_trip_tells_nothing_of_it(each: Vehicle) -> None:
    """Kilometres away, or hours late."""
    assert late_at_the_end(each) is None


def test_many_at_once_are_each_as_alone() -> None:
    """Trips of other lengths among them, and vehicles that have none or are nowhere near."""
    stops = [*STOPS, ("f", 135.0, 35.05)]
    short = Trip("s", "q", [("b", EIGHT, EIGHT), ("a", EIGHT + 300, EIGHT + 330)])
    alone = Trip("one", "q", [("a", EIGHT, EIGHT)])
    untimed = [("a", EIGHT, EIGHT), ("b", -1, -1), ("f", EIGHT + 900, EIGHT + 900)]
    trips = [line("t0", EIGHT), short, alone, Trip("u", "q", untimed), line("t4", EIGHT + 600)]
    planned = timetable(stops, trips)
    finder = Finder(planned)
    many = [vehicle(n * 60, n / 3, n % 5) for n in range(15)]
    many[3] = replace(many[3], trip=None)
    many[8] = replace(many[8], longitude=99.0)
    together = predict.trip_states(planned, finder, many)
    for each, found in zip(many, together, strict=True):
        (by_itself,) = predict.trip_states(planned, finder, [each])
        assert (found is None) == (by_itself is None)
        if found is not None and by_itself is not None:
            assert found.arrival.tolist() == by_itself.arrival.tolist()
            assert found.departure.tolist() == by_itself.departure.tolist()
    assert sum(found is not None for found in together) >= 7
    assert predict.trip_states(planned, finder, []) == []


def test_the_error_of_predictions_on_made_journeys() -> None:
    """Vehicles that lose or gain a little on each leg, seen each 30 s with places that err by 10 m.

    Held against when they really arrived: the delay that is held is half as wrong as the timetable,
    and off by no more than what the rest of the way still adds.
    """
    random = np.random.default_rng(7)
    planned = TOWN.stop_times.arrival[:5].astype(float)
    held, as_planned = [], []
    for _ in range(60):
        leaves = EIGHT + abs(random.normal(0, 240))
        legs = np.clip(random.normal(330, 40, 4), 240, 600)
        arrives = leaves + np.cumsum(legs)  # it stops for 30 s, which its leg has
        for now in np.arange(leaves + 60, arrives[-1] - 60, 30):
            ahead = int(np.searchsorted(arrives, now))
            begin = leaves if ahead == 0 else arrives[ahead - 1]
            along = ahead + min(1.0, (now - begin) / (arrives[ahead] - begin))
            where = vehicle(now - EIGHT, along + random.normal(0, 0.009))
            found = foretold(where)
            assert found is not None
            for stop in range(ahead, 4):
                held.append(abs(found.arrival[stop + 1] - arrives[stop]))
                as_planned.append(abs(planned[stop + 1] - arrives[stop]))
    assert np.mean(held) <= 0.5 * np.mean(as_planned)
    assert np.mean(held) <= 60
