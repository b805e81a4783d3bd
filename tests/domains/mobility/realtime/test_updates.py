"""What TripUpdates and alerts change: delays that hold, stops that are skipped, what is closed."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.mobility.network.timetable import UNTIMED
from domains.mobility.realtime import updates
from domains.mobility.realtime.matching import Finder
from domains.mobility.realtime.overlay import Closure, TripState
from tests.domains.mobility.realtime.feeds import AT
from tests.domains.mobility.realtime.town import EIGHT, STOPS, town
from tests.domains.mobility.timetables import Trip, timetable

DAY = date(2026, 1, 1)
NOW = datetime.fromtimestamp(AT, UTC)
TOWN = town()
FINDER = Finder(TOWN)
ARRIVAL = TOWN.stop_times.arrival[:5]
DEPARTURE = TOWN.stop_times.departure[:5]


def state(*stops: dict[str, Any], **told: Any) -> TripState:
    return updates.trip_state(TOWN, FINDER, (0, DAY), {"stopTimeUpdate": stops, **told}, NOW)


def delays(found: TripState) -> list[tuple[int, int]]:
    pairs = zip(found.arrival - ARRIVAL, found.departure - DEPARTURE, strict=True)
    return [(int(a), int(d)) for a, d in pairs]


def stop(number: int, **told: Any) -> dict[str, Any]:
    return {"stopSequence": number, **told}


def test_a_delay_holds_until_the_next() -> None:
    found = state(
        stop(2, arrival={"delay": 300}), stop(4, arrival={"delay": 60}, departure={"delay": 0})
    )
    assert delays(found) == [(0, 0), (300, 300), (300, 300), (60, 0), (0, 0)]


def test_a_time_counts_before_a_delay() -> None:
    at = AT - 8 * 3600 + 8 * 3600 + 360 + 120  # 08:08 in Japan, planned 08:06
    found = state(stop(2, departure={"time": str(at), "delay": 5}))
    assert delays(found) == [(0, 0), (0, 120), (120, 120), (120, 120), (120, 120)]


def test_no_data_ends_a_delay() -> None:
    found = state(stop(2, arrival={"delay": 60}), stop(3, scheduleRelationship="NO_DATA"))
    assert delays(found) == [(0, 0), (60, 60), (0, 0), (0, 0), (0, 0)]


def test_a_skipped_stop_carries_the_delay_on() -> None:
    found = state(stop(2, arrival={"delay": 60}), stop(3, scheduleRelationship="SKIPPED"))
    assert found.skipped.tolist() == [False, False, True, False, False]
    assert delays(found)[3:] == [(60, 60), (60, 60)]


def test_by_stop_id_each_after_the_last() -> None:
    found = state({"stopId": "b", "arrival": {"delay": 60}}, {"stopId": "a"}, {"stopId": "zz"})
    assert delays(found)[1:] == [(60, 60)] * 4


def test_who_is_early_was_early_before() -> None:
    """Stops that are past never stand after what is told."""
    found = state(stop(3, arrival={"delay": -600}))
    times = np.stack([found.arrival, found.departure], axis=1).reshape(-1)
    assert (np.diff(times) >= 0).all()
    assert delays(found)[2:] == [(-600, -600)] * 3


def test_the_whole_trips_delay_holds_where_no_stop_tells() -> None:
    assert delays(state(delay=120)) == [(120, 120)] * 5


@pytest.mark.parametrize("relation", ["CANCELED", "DELETED"])
def test_a_cancelled_trip(relation: str) -> None:
    assert state(trip={"scheduleRelationship": relation}).cancelled


def test_a_replacement_stops_where_it_says() -> None:
    found = state(
        stop(1, departure={"delay": 0}), stop(5, arrival={"delay": 60}),
        trip={"scheduleRelationship": "REPLACEMENT"},
    )  # fmt: skip
    assert found.skipped.tolist() == [False, True, True, True, False]


def test_what_is_not_timed_stays_so() -> None:
    planned = timetable(
        STOPS[:3], [Trip("t", "r", [("a", 0, 0), ("b", UNTIMED, UNTIMED), ("c", 600, 600)])]
    )
    told = {"stopTimeUpdate": [stop(1, departure={"delay": 60})]}
    found = updates.trip_state(planned, Finder(planned), (0, DAY), told, NOW)
    assert found.arrival.tolist() == [0, UNTIMED, 660]
    assert found.departure.tolist() == [60, UNTIMED, 660]


event = st.fixed_dictionaries(
    {},
    optional={
        "delay": st.integers(-4000, 4000),
        "time": st.integers(AT - 9000, AT + 9000).map(str),
    },
)
stops = st.lists(
    st.fixed_dictionaries(
        {"stopSequence": st.integers(0, 7)},
        optional={
            "arrival": event,
            "departure": event,
            "scheduleRelationship": st.sampled_from(("SKIPPED", "NO_DATA", "SCHEDULED")),
        },
    ),
    max_size=6,
)


@given(stops=stops, delay=st.integers(-900, 900))
@settings(max_examples=200, deadline=None)
def test_nothing_goes_backwards(stops: list[dict[str, Any]], delay: int) -> None:
    """Whatever a feed says, in whatever order."""
    found = state(*stops, delay=delay)
    times = np.stack([found.arrival, found.departure], axis=1).reshape(-1)
    assert (np.diff(times) >= 0).all()
    assert len(found.arrival) == len(found.skipped) == 5


# --- alerts ---------------------------------------------------------------------------------------


def closed(*selectors: dict[str, Any], **more: Any) -> list[Closure]:
    told = {"effect": "NO_SERVICE", "informedEntity": selectors, **more}
    return list(updates.closures(FINDER, "bus:x", "bus", told))


@pytest.mark.parametrize(
    ("selector", "stops", "routes", "trips"),
    [
        ({"stopId": "c"}, {2}, set(), set()),
        ({"stopId": "S"}, {0, 5}, set(), set()),
        ({"agencyId": "q", "stopId": "c"}, {2}, set(), set()),
        ({"routeId": "r"}, set(), {0}, set()),
        ({"routeType": 3}, set(), {0}, set()),
        ({"trip": {"tripId": "t2"}}, set(), set(), {2}),
        ({"trip": {"routeId": "r", "directionId": 0}}, set(), set(), set(range(6))),
        ({"routeId": "r", "directionId": 0}, set(), set(), set(range(6))),
    ],
)
def test_what_a_selector_closes(
    selector: dict[str, Any], stops: set[int], routes: set[int], trips: set[int]
) -> None:
    (closure,) = closed(selector)
    assert (closure.stops, closure.routes, closure.trips) == (stops, routes, trips)
    assert (closure.start, closure.end) == (None, None)


@pytest.mark.parametrize(
    "selector",
    [{"stopId": "c", "routeId": "r"}, {"stopId": "nowhere"}, {"routeId": "none"},
     {"trip": {"tripId": "none"}}, {"agencyId": "none"}, {"routeId": "r", "directionId": 1}, {}],
)  # fmt: skip
def test_what_closes_nothing(selector: dict[str, Any]) -> None:
    assert closed(selector) == []


def test_only_no_service_closes() -> None:
    assert closed({"stopId": "c"}, effect="DETOUR") == []


def test_each_period_closes_by_itself() -> None:
    periods = [{"start": str(AT), "end": str(AT + 60)}, {"start": str(AT + 600)}]
    found = closed({"stopId": "c"}, activePeriod=periods)
    assert [(c.start, c.end) for c in found] == [
        (NOW, datetime.fromtimestamp(AT + 60, UTC)),
        (datetime.fromtimestamp(AT + 600, UTC), None),
    ]


def test_a_trip_of_one_day_is_closed_while_it_runs() -> None:
    (closure,) = closed({"trip": {"tripId": "t0", "startDate": "20260101"}})
    assert closure.trips == {0}
    assert closure.start == datetime.fromtimestamp(AT - 3600, UTC)
    assert closure.end == datetime.fromtimestamp(AT + int(ARRIVAL[-1]) - EIGHT + 3600, UTC)
