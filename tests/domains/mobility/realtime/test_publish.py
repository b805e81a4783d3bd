"""What is published of real time: judged by an outside validator, read back by the bindings."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from google.transit import gtfs_realtime_pb2 as pb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.mobility.network.calendar import day_start
from domains.mobility.network.timetable import Timetable
from domains.mobility.realtime import publish
from domains.mobility.realtime.matching import Finder
from domains.mobility.realtime.overlay import Overlay, TripDay, TripState, Vehicle
from domains.mobility.realtime.predict import trip_states
from domains.mobility.realtime.publish import Kind, Memo
from domains.mobility.realtime.static import Static
from tests.domains.mobility.realtime.judge import Judge
from tests.domains.mobility.static_feed import Files, read_files, timetable_of, write_files

FEED = "caltrain"
CAPTURED = datetime(2023, 11, 8, 1, 5, 59, tzinfo=UTC)
STATIC = Static(FEED, frozenset({FEED}))


def read(payload: bytes) -> pb.FeedMessage:
    message = pb.FeedMessage.FromString(payload)
    assert message.IsInitialized()
    return message


def all_of(timetable: Timetable, overlay: Overlay, static: Static = STATIC) -> dict[Kind, bytes]:
    return {kind: publish.message(kind, timetable, overlay, static) for kind in Kind}


def overlay_of(timetable: Timetable, captured: dict[str, pb.FeedMessage]) -> Overlay:
    """What the platform would make of a capture: every time of every trip, matched by its id."""
    trips: dict[TripDay, TripState] = {}
    for entity in captured["trip_updates"].entity:
        update = entity.trip_update
        trip = timetable.trips.ids.numbers[f"{FEED}:{update.trip.trip_id}"]
        day = date.fromisoformat(update.trip.start_date)
        time = datetime.fromtimestamp(update.timestamp, UTC)
        trips[trip, day] = state_of(timetable, (trip, day), update, time)
    days = {trip: (trip, day) for trip, day in trips}
    vehicles = []
    for entity in captured["vehicle_positions"].entity:
        told = entity.vehicle
        trip = timetable.trips.ids.numbers[f"{FEED}:{told.trip.trip_id}"]
        document = json_format.MessageToDict(told)
        vehicles.append(
            Vehicle(
                id=f"{FEED}:{told.vehicle.id}",
                time=datetime.fromtimestamp(told.timestamp, UTC),
                longitude=told.position.longitude,
                latitude=told.position.latitude,
                speed=told.position.speed if told.position.HasField("speed") else float("nan"),
                course=float("nan"),
                trip=days.get(trip, (trip, date(2023, 11, 7))),
                route=int(timetable.trips.route[trip]),
                document={key: document[key] for key in document.keys() - {"trip", "position"}},
            )
        )
    return Overlay(CAPTURED, trips, (), tuple(vehicles))


def state_of(
    timetable: Timetable, day: TripDay, update: pb.TripUpdate, time: datetime
) -> TripState:
    """Delays go on to the stops after; see GTFS-Realtime, "Stop Time Updates"."""
    first, end = timetable.trips.offsets[day[0] : day[0] + 2]
    calls = timetable.stop_times
    arrival, departure = calls.arrival[first:end].copy(), calls.departure[first:end].copy()
    base = publish.day_start(timetable.versions[0].timezone, day[1])
    for told in update.stop_time_update:
        (at,) = np.flatnonzero(calls.sequence[first:end] == told.stop_sequence)
        arrival[at] = (told.arrival.time or told.departure.time) - base
        departure[at] = (told.departure.time or told.arrival.time) - base
    both = np.maximum.accumulate(np.stack((arrival, departure), 1).ravel()).reshape(-1, 2)
    skipped = np.zeros(end - first, np.bool_)
    return TripState(False, both[:, 0], both[:, 1], skipped, time)


@pytest.fixture(scope="module")
def files(shared_data: Path) -> Files:
    return read_files(shared_data / "gtfs" / "caltrain-2023" / "caltrain_gtfs.zip")


@pytest.fixture(scope="module")
def timetable(files: Files) -> Timetable:
    return timetable_of(FEED, files)


@pytest.fixture(scope="module")
def captured(shared_data: Path) -> dict[str, pb.FeedMessage]:
    folder = shared_data / "gtfs" / "caltrain-2023"
    return {
        name: read((folder / f"{name}.pb").read_bytes())
        for name in ("trip_updates", "vehicle_positions")
    }


@pytest.fixture(scope="module")
def judge(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    static = shared_data / "gtfs" / "caltrain-2023" / "caltrain_gtfs.zip"
    return Judge(static, tmp_path_factory.mktemp("judge"))


def test_what_a_railway_sent_is_published_without_an_error(
    timetable: Timetable, captured: dict[str, pb.FeedMessage], judge: Judge
) -> None:
    """All 19 trips and 14 vehicles, with the railway's own predictions; its own capture has 7."""
    overlay = overlay_of(timetable, captured)
    told = all_of(timetable, overlay)
    assert judge.errors(told, CAPTURED) == []
    updates, positions = read(told[Kind.UPDATES]), read(told[Kind.POSITIONS])
    assert len(updates.entity) == 19
    assert len(positions.entity) == 14
    assert updates.header.timestamp == int(CAPTURED.timestamp())
    assert updates.header.incrementality == pb.FeedHeader.FULL_DATASET
    theirs = {e.trip_update.trip.trip_id: e.trip_update for e in captured["trip_updates"].entity}
    for entity in updates.entity:
        ours = entity.trip_update
        their = {u.stop_sequence: u for u in theirs[ours.trip.trip_id].stop_time_update}
        for each in ours.stop_time_update:
            if each.stop_sequence in their and their[each.stop_sequence].HasField("arrival"):
                assert abs(each.arrival.time - their[each.stop_sequence].arrival.time) <= 1
                assert each.stop_id == their[each.stop_sequence].stop_id
    shown = {e.vehicle.vehicle.id: e.vehicle for e in positions.entity}
    for entity in captured["vehicle_positions"].entity:
        ours_ = shown[entity.vehicle.vehicle.id]
        assert ours_.position == entity.vehicle.position
        assert ours_.timestamp == entity.vehicle.timestamp
        assert ours_.trip.trip_id == entity.vehicle.trip.trip_id


def test_positions_alone_foretell_nearly_what_the_railway_does(
    timetable: Timetable, captured: dict[str, pb.FeedMessage]
) -> None:
    """Of all 14 trains, at the next stop but one: its own dispatchers know more than a place."""
    overlay = overlay_of(timetable, captured)
    vehicles = [each for each in overlay.vehicles if each.trip in overlay.trips]
    assert len(vehicles) == 14
    differences = []
    for each, found in zip(
        vehicles, trip_states(timetable, Finder(timetable), vehicles), strict=True
    ):
        assert found is not None, each.id
        assert each.trip is not None
        theirs = overlay.trips[each.trip].arrival
        midnight = day_start("America/Los_Angeles", each.trip[1])
        (ahead,) = np.nonzero(found.arrival > each.time.timestamp() - midnight)
        at = ahead[:2][-1]
        differences.append(abs(int(found.arrival[at]) - int(theirs[at])))
    assert max(differences) <= 240, differences
    assert np.median(differences) <= 90, differences


DAY = date(2026, 4, 6)
ZONE = "Asia/Tokyo"
NOON_OF_DAY = datetime(2026, 4, 6, 3, tzinfo=UTC)


def town() -> Files:
    """Whole minutes, a loop, a stop twice in a row, and runs by frequencies of both kinds."""
    stops = [
        {"stop_id": f"s{n}", "stop_name": f"Stop {n}", "stop_lat": f"{35 + n / 1000:.4f}",
         "stop_lon": f"{139 + n / 1000:.4f}", "location_type": "0"}
        for n in range(8)
    ]  # fmt: skip
    calls = {
        "plain": ["s0", "s1", "s2", "s3", "s4"],
        "loop": ["s0", "s1", "s2", "s1", "s0"],
        "twice": ["s0", "s1", "s1", "s2"],
        "often": ["s4", "s5", "s6"],
        "exactly": ["s6", "s5", "s4"],
    }
    times = [
        {"trip_id": trip, "stop_id": stop, "stop_sequence": str(5 * n + 1),
         "arrival_time": f"12:{n // 2:02}:00", "departure_time": f"12:{n // 2:02}:00"}
        for trip, order in calls.items() for n, stop in enumerate(order)
    ]  # fmt: skip
    trips = [
        {"trip_id": trip, "route_id": "r1" if trip == "plain" else "r2", "service_id": "daily",
         "direction_id": "1" if trip == "plain" else ""}
        for trip in calls
    ]  # fmt: skip
    often = {"start_time": "12:00:00", "end_time": "13:00:00", "headway_secs": "600"}
    # The judge's E019 takes over a fault of its model: of vehicles it knows full hours alone.
    hourly = {**often, "end_time": "15:00:00", "headway_secs": "3600"}
    return {
        "agency": [{"agency_id": "a", "agency_name": "A", "agency_url": "https://example.com",
                    "agency_timezone": ZONE}],
        "stops": stops,
        "routes": [{"route_id": name, "agency_id": "a", "route_short_name": name,
                    "route_type": "3"} for name in ("r1", "r2")],
        "trips": trips,
        "stop_times": times,
        "calendar": [{"service_id": "daily", "start_date": "20260401", "end_date": "20260430",
                      **dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday",
                                       "saturday", "sunday"), "1")}],
        "frequencies": [{"trip_id": "often", **often, "exact_times": "0"},
                        {"trip_id": "exactly", **hourly, "exact_times": "1"}],
    }  # fmt: skip


TOWN = Static("town", frozenset({"town", "town-rt"}), frozenset({"a"}), frozenset({"often"}))


@pytest.fixture(scope="module")
def town_timetable() -> Timetable:
    return timetable_of("town", town())


@pytest.fixture(scope="module")
def town_judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("town")
    write_files(town(), folder / "gtfs.zip")
    return Judge(folder / "gtfs.zip", folder)


@st.composite
def states(draw: st.DrawFn, timetable: Timetable, trip: int, at: datetime) -> TripState:
    """A trip late or early, with stops left out, times unknown, or cancelled."""
    first, end = timetable.trips.offsets[trip : trip + 2]
    count = int(end - first)
    delays = np.array(draw(st.lists(st.integers(-900, 5400), min_size=count, max_size=count)))
    both = np.stack(
        (timetable.stop_times.arrival[first:end], timetable.stop_times.departure[first:end]), 1
    )
    both = np.maximum.accumulate((both + delays[:, None]).ravel()).reshape(-1, 2).astype(np.int32)
    known = draw(st.integers(0, count)) if draw(st.booleans()) else count
    both[known:] = -1
    skipped = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    if draw(st.booleans()):
        skipped[:] = False
    time = at + timedelta(seconds=draw(st.integers(-300, 30)))
    return TripState(draw(st.booleans()), both[:, 0], both[:, 1], skipped, time)


def selectors(draw: st.DrawFn) -> list[dict[str, Any]]:
    known = st.sampled_from(
        [
            {"stopId": "s1"}, {"stopId": "nowhere"}, {"routeId": "r1"}, {"routeId": "gone"},
            {"agencyId": "a"}, {"agencyId": "b"}, {"trip": {"tripId": "plain"}}, {},
            {"trip": {"tripId": "plain", "routeId": "r2"}}, {"trip": {"tripId": "gone"}},
            {"directionId": 1}, {"routeId": "r1", "directionId": 1}, {"routeType": 3},
            {"routeId": "r2", "stopId": "s5"}, {"trip": {"tripId": "plain", "directionId": 0}},
        ]
    )  # fmt: skip
    return draw(st.lists(known, max_size=4))


@st.composite
def overlays(draw: st.DrawFn, timetable: Timetable) -> Overlay:
    at = NOON_OF_DAY + timedelta(seconds=draw(st.integers(-600, 5400)))
    count = len(timetable.trips.ids.texts)
    chosen = draw(st.sets(st.integers(0, count - 1)))
    trips = {(trip, DAY): draw(states(timetable, trip, at)) for trip in sorted(chosen)}
    vehicles = []
    for number in range(draw(st.integers(0, 6))):
        stop = draw(st.integers(0, 7))
        trip = draw(st.none() | st.integers(0, count - 1))
        document = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "stopId": st.sampled_from(["s0", "s1", "nowhere"]),
                    "currentStopSequence": st.sampled_from([1, 6, 99]),
                    "currentStatus": st.sampled_from(["STOPPED_AT", "IN_TRANSIT_TO"]),
                    "occupancyStatus": st.sampled_from(["EMPTY", "FULL", "NEWER_THAN_WE"]),
                    "vehicle": st.just({"id": f"v{number}", "label": "青"}),
                    "trip": st.just({"tripId": "whatever"}),
                },
            )
        )
        vehicles.append(
            Vehicle(
                id=f"{draw(st.sampled_from(['town', 'town-rt', 'other']))}:v{number}",
                time=at + timedelta(seconds=draw(st.integers(-200, 30))),
                longitude=139 + stop / 1000, latitude=35 + stop / 1000,
                speed=draw(st.sampled_from([float("nan"), 0.0, 12.5])),
                course=draw(st.sampled_from([float("nan"), 0.0, 359.9, 360.0])),
                trip=None if trip is None else (trip, DAY),
                route=-1 if trip is None else int(timetable.trips.route[trip]),
                document=document,
            )
        )  # fmt: skip
    texts = st.sampled_from([("", "ja"), ("運休", "ja"), ("Closed", "en"), ("Also", "en")])
    alerts = {
        f"{draw(st.sampled_from(['town', 'town-rt', 'other']))}:{name}": {
            "informedEntity": selectors(draw),
            "effect": "NO_SERVICE",
            "headerText": {
                "translation": [
                    {"text": text, "language": language}
                    for text, language in draw(st.lists(texts, max_size=3))
                ]
            },
        }
        for name in ("one", "two")
    }
    return Overlay(at, trips, (), tuple(vehicles), alerts)


@settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_whatever_is_known_is_published_without_an_error(
    town_timetable: Timetable, town_judge: Judge, data: st.DataObject
) -> None:
    """Delays, skipped stops, cancellations, unknown ids: and what did not change need not be made.

    With the memo of what was published before, the bytes are those made without one.
    """
    memos = {kind: Memo(town_timetable) for kind in Kind}
    for _ in range(2):
        overlay = data.draw(overlays(town_timetable))
        told = all_of(town_timetable, overlay, TOWN)
        assert town_judge.errors(told, overlay.at) == []
        for kind in Kind:
            for _ in range(2):
                again = publish.message(kind, town_timetable, overlay, TOWN, memos[kind])
                assert again == told[kind]
        positions = read(told[Kind.POSITIONS])
        shown = {entity.vehicle.vehicle.id for entity in positions.entity}
        oldest = overlay.at - publish.POSITION_AGE_MAX
        assert shown == {
            publish.vehicle_name(each) for each in overlay.vehicles
            if each.time >= oldest and (each.trip or not each.id.startswith("other"))
        }  # fmt: skip
