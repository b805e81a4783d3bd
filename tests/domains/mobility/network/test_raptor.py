"""Journeys against every journey: made networks with all the odd things, and the real feeds."""

import random
import tempfile
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.mobility.network.raptor import Query, Raptor
from domains.mobility.network.streets import Streets, straight_metres
from domains.mobility.network.timetable import UNTIMED, Timetable
from domains.mobility.network.walking import STRAIGHT_LINE, Edges, OnStreets, Reach
from domains.mobility.osm.contract import contract
from domains.mobility.osm.read import Raw
from domains.mobility.osm.read import read as read_osm
from domains.mobility.realtime.overlay import NOTHING_AT, Closure, Overlay, TripState
from tests.domains.mobility.network import oracle
from tests.domains.mobility.network.made import Call, Plan, Stop, Trip, read, timetable_of
from tests.domains.mobility.osm_town import (
    EAST,
    LONGITUDE,
    METRES_A_DEGREE,
    STREET,
    document,
)

DAY = date(2026, 6, 10)
DAYS = [DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)]
PLANNED = Overlay(NOTHING_AT)
STOPS = 7


def changes_of(edges: Edges) -> dict[int, list[tuple[int, int]]]:
    """The same changes as lists, for the oracle."""
    found: dict[int, list[tuple[int, int]]] = {}
    rows = zip(edges.origin.tolist(), edges.target.tolist(), edges.seconds.tolist(), strict=True)
    for origin, target, seconds in rows:
        found.setdefault(origin, []).append((target, seconds))
    return found


def reach_of(places: Mapping[int, int]) -> Reach:
    """Stops and how many seconds away they are."""
    seconds = np.array(list(places.values()), np.int64)
    return Reach(np.array(list(places), np.int64), seconds, seconds * 1.25)


def agree(
    raptor: Raptor, overlay: Overlay, found: list[oracle.Journeying], time: int,
    origin: Mapping[int, int], goal: Mapping[int, int], rides_max: int = 4,
) -> int:  # fmt: skip
    """Both directions of time give what trying everything gives; how many journeys there were."""
    changes = changes_of(raptor.edges)
    query = Query(reach_of(origin), reach_of(goal), time, rides_max=rides_max)
    options = raptor.options(query, overlay)
    for option in options:
        oracle.check(option, raptor.timetable, overlay, changes, origin, goal)
        assert option.departure >= time
    best = oracle.earliest(found, changes, origin, goal, time, rides_max)
    for rides in range(1, rides_max + 1):
        got = min((o.arrival for o in options if len(o.rides) <= rides), default=oracle.NEVER)
        assert got == best[rides - 1], rides
    query = Query(reach_of(origin), reach_of(goal), time, True, rides_max)
    back = raptor.options(query, overlay)
    for option in back:
        oracle.check(option, raptor.timetable, overlay, changes, origin, goal)
        assert option.arrival <= time
    latest = oracle.latest(found, changes, origin, goal, time, rides_max)
    for rides in range(1, rides_max + 1):
        left = max((o.departure for o in back if len(o.rides) <= rides), default=-oracle.NEVER)
        assert left == latest[rides - 1], rides
    return len(options) + len(back)


def streets() -> OnStreets:
    """A street through the stops of `plans`, cut by a river after the fourth; a bridge far off."""
    spots = [139.7 + 0.0015 * n for n in range(10)]
    metres = {n: ((x - LONGITUDE) * EAST, 0.6 * METRES_A_DEGREE) for n, x in enumerate(spots, 1)}
    west, east = metres[4], metres[5]
    metres |= {11: (west[0], west[1] + 200), 12: (east[0], east[1] + 200)}
    ways = [((1, 2, 3, 4), STREET), ((5, 6, 7, 8, 9, 10), STREET), ((4, 11, 12, 5), STREET)]
    raw = Raw()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "street.osm"
        path.write_text(document(metres, ways), "utf-8")
        read_osm(path, path.name, raw)
    return OnStreets(Streets(contract(raw)[0]))


STREETS = streets()
BRIDGE_LONGITUDE = 139.7 + 0.0015 * 3.5


def nobody_walks_on_water(raptor: Raptor) -> None:
    """A change over the river that is no station's and no rule's takes the bridge's 400 m more."""
    stops, edges = raptor.timetable.stops, raptor.edges
    over = (stops.longitude[edges.origin] < BRIDGE_LONGITUDE) != (
        stops.longitude[edges.target] < BRIDGE_LONGITUDE
    )
    walked = over & ~edges.estimated
    straight = straight_metres(
        stops.longitude[edges.origin], stops.latitude[edges.origin],
        stops.longitude[edges.target], stops.latitude[edges.target],
    )  # fmt: skip
    longer = 400.0 * over
    assert (edges.metres[walked] >= (straight + longer)[walked] - 1.0).all()
    rules = {*zip(raptor.timetable.transfers.from_stop.tolist(),
                  raptor.timetable.transfers.to_stop.tolist(), strict=True)}  # fmt: skip
    for row in np.flatnonzero(over & edges.estimated).tolist():
        ends = int(edges.origin[row]), int(edges.target[row])
        parents = stops.parent[list(ends)].tolist()
        named = {(a, b) for a in (ends[0], parents[0]) for b in (ends[1], parents[1])}
        assert (parents[0] >= 0 and parents[0] == parents[1]) or named & rules


minutes = st.integers(0, 27 * 12).map(lambda n: n * 300)


@st.composite
def trips(draw: st.DrawFn, number: int) -> list[Trip]:
    """Trips of one line: they may overtake, pass a stop twice, run past midnight, repeat."""
    line = draw(st.lists(st.integers(0, STOPS - 1), min_size=2, max_size=6))
    pickups = draw(st.lists(st.sampled_from((0, 0, 0, 1)), min_size=6, max_size=6))
    drops = draw(st.lists(st.sampled_from((0, 0, 0, 1)), min_size=6, max_size=6))
    made, begin = [], draw(minutes)
    for each in range(draw(st.integers(1, 5))):
        time, calls = begin + draw(st.integers(0, 8)) * 150, []
        for place, stop in enumerate(line):
            came = time
            time += draw(st.sampled_from((0, 0, 60, 300)))
            given = draw(st.sampled_from((True, True, True, True, 0 < place < len(line) - 1)))
            timed = (came, time) if given or place else (UNTIMED, UNTIMED)
            calls.append(Call(f"s{stop}", *timed, pickups[place], drops[place]))
            time += draw(st.sampled_from((0, 60, 300, 600, 1500)))
        days = draw(st.just(DAYS) | st.lists(st.sampled_from(DAYS), min_size=1, unique=True))
        wheelchair = draw(st.integers(0, 2))
        made.append(Trip(f"t{number}-{each}", calls, days, f"r{number % 3}", wheelchair))
    if draw(st.booleans()):  # every so often: a trip of frequencies.txt, expanded
        pattern, headway = made[0], draw(st.sampled_from((120, 600)))
        for n in range(1, 4):
            later = [
                call if call.arrival == UNTIMED else
                Call(call.stop, call.arrival + n * headway, call.departure + n * headway,
                     call.pickup, call.drop_off)
                for call in pattern.calls
            ]  # fmt: skip
            made.append(Trip(f"{pattern.id}@{n}", later, pattern.days, pattern.route))
    return made


@st.composite
def plans(draw: st.DrawFn, feed: str = "made", timezone: str = "Asia/Tokyo") -> Plan:
    """A small network in which everything happens within a few hours of three days."""
    stops = [Stop("station", 139.7, 35.6, kind=1)]
    for n in range(STOPS):
        place = (139.7 + 0.0015 * draw(st.integers(0, 9)), 35.6)
        stops.append(Stop(f"s{n}", *place, "station" if n < 2 else None, draw(st.integers(0, 2))))
    rules = draw(
        st.lists(
            st.tuples(
                st.sampled_from([*(f"s{n}" for n in range(STOPS)), "station"]),
                st.sampled_from([*(f"s{n}" for n in range(STOPS)), "station"]),
                st.integers(0, 3), st.sampled_from((0, 30, 300, 900)),
            ),
            max_size=4,
        )
    )  # fmt: skip
    lines = draw(st.integers(1, 5))
    made = [trip for n in range(lines) for trip in draw(trips(n))]
    return Plan(stops, made, rules, {"r0": 3, "r1": 1, "r2": 2}, timezone, feed)


moments = st.none() | st.integers(-30, 60).map(
    lambda n: datetime(2026, 6, 9, 15, tzinfo=UTC) + timedelta(minutes=30 * n)
)


@st.composite
def overlays(draw: st.DrawFn, timetable: Timetable) -> Overlay:
    """Delays, trips ahead of time, cancelled trips, skipped stops, and closures."""
    states = {}
    count = len(timetable.trips.route)
    for trip in draw(st.lists(st.integers(0, count - 1), max_size=5, unique=True)):
        part = slice(timetable.trips.offsets[trip], timetable.trips.offsets[trip + 1])
        arrival = timetable.stop_times.arrival[part].copy()
        departure = timetable.stop_times.departure[part].copy()
        timed = arrival != UNTIMED
        begin = draw(st.integers(0, len(arrival) - 1))
        delay = draw(st.sampled_from((-120, 60, 600, 3000)))
        late = timed & (np.arange(len(arrival)) >= (begin if delay > 0 else 0))
        arrival[late] += delay
        departure[late] += delay
        skipped = np.array([draw(st.sampled_from((False, False, True))) for _ in arrival])
        states[trip, draw(st.sampled_from(DAYS))] = TripState(
            draw(st.sampled_from((False, False, True))), arrival, departure, skipped,
            datetime(2026, 6, 10, tzinfo=UTC),
        )  # fmt: skip
    closures = []
    for n in range(draw(st.integers(0, 2))):
        few: Any = lambda top: st.frozensets(st.integers(0, top), max_size=1)  # noqa: E731
        closures.append(
            Closure(
                f"a{n}", draw(moments), draw(moments), draw(few(STOPS)), draw(few(2)),
                draw(few(count - 1)),
            )
        )  # fmt: skip
    return Overlay(datetime(2026, 6, 10, tzinfo=UTC), states, tuple(closures))


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_journeys_are_those_that_trying_everything_finds(data: st.DataObject) -> None:
    """Each number of rides, both directions of time, with and without real time."""
    made = [data.draw(plans())]
    if data.draw(st.booleans()):
        made.append(data.draw(plans("other", "America/Los_Angeles")))
    timetable = timetable_of(*made)
    walking = data.draw(st.sampled_from((STRAIGHT_LINE, STREETS)))
    raptor = Raptor(timetable, walking=walking)
    if walking is STREETS:
        nobody_walks_on_water(raptor)
    overlay = data.draw(st.just(PLANNED) | overlays(timetable))
    # What was laid out for an overlay before, which shares some of its states, is of no harm.
    before = data.draw(overlays(timetable))
    for day in DAYS:
        raptor.days.sheets_of(day, before)
    if data.draw(st.booleans()):
        overlay = Overlay(overlay.at, {**before.trips, **overlay.trips}, overlay.closures)
    size = len(timetable.stops.parent)
    places = st.dictionaries(
        st.integers(1, size - 1), st.sampled_from((0, 0, 90, 1200)), min_size=1, max_size=2
    )
    found = oracle.runs(timetable, overlay, DAYS)
    noon = int(datetime(2026, 6, 10, 3, tzinfo=UTC).timestamp())
    times = sorted({event.departure for run in found for event in run.events}) or [noon]
    for _ in range(4):
        time = data.draw(st.sampled_from(times)) + data.draw(
            st.sampled_from((-7200, -600, -60, 0, 60, 600, 7200))
        )
        agree(raptor, overlay, found, time, data.draw(places), data.draw(places))


@pytest.mark.parametrize("seed", range(30))
def test_trips_that_overtake(seed: int) -> None:
    """Lines on which every trip has its own pace, and any may overtake any."""
    chance = random.Random(seed)
    made = []
    for line in range(4):
        stops = [f"s{chance.randrange(STOPS)}" for _ in range(5)]
        for number in range(12):
            time, calls = 8 * 3600 + chance.randrange(5400), []
            for stop in stops:
                calls.append(Call(stop, time, time + chance.randrange(90)))
                time = calls[-1].departure + chance.randrange(30, 1500)
            made.append(Trip(f"t{line}-{number}", calls, [DAY]))
    places = [Stop("station", 139.7, 35.6, kind=1)]
    places += [Stop(f"s{n}", 139.7 + 0.003 * n, 35.6) for n in range(STOPS)]
    raptor = Raptor(timetable_of(Plan(places, made)))
    found = oracle.runs(raptor.timetable, PLANNED, DAYS)
    morning = int(datetime(2026, 6, 9, 23, tzinfo=UTC).timestamp())
    for _ in range(6):
        time = morning + chance.randrange(7200)
        ends = [{chance.randrange(1, STOPS + 1): chance.randrange(300)} for _ in range(2)]
        agree(raptor, PLANNED, found, time, ends[0], ends[1])


FEEDS = {
    "gtfs/caltrain-2023/caltrain_gtfs.zip": (date(2023, 11, 7), 150),
    "gtfs-jp/donan-bus-muroran/gtfs_jp.zip": (date(2020, 7, 1), 60),
    "gtfs-jp/mlit-sample-2017/gtfs_jp.zip": (date(2017, 4, 12), 50),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", FEEDS)
def test_real_feeds_agree_with_trying_everything(shared_data: Path, name: str) -> None:
    """Random pairs of a day, planned and with random delays, cancellations and closures."""
    path, (day, pairs) = shared_data / name, FEEDS[name]
    if not path.is_file():
        pytest.skip(f"no {path}")
    timetable = timetable_of(read(path))
    raptor = Raptor(timetable)
    chance = random.Random(name)
    begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    for overlay in (PLANNED, disturbed(timetable, day, chance)):
        found = oracle.runs(timetable, overlay, [day + timedelta(days=n) for n in range(-2, 3)])
        called = sorted({event.stop for run in found for event in run.events})
        journeys = 0
        for _ in range(pairs):
            time = begin + chance.randrange(86400)
            origin = {stop: chance.randrange(600) for stop in chance.sample(called, 3)}
            goal = {stop: chance.randrange(600) for stop in chance.sample(called, 3)}
            journeys += agree(raptor, overlay, found, time, origin, goal)
        assert journeys > pairs


def disturbed(timetable: Timetable, day: date, chance: random.Random) -> Overlay:
    """A bad day: a tenth of the trips late, some cancelled, three stops and a trip closed."""
    states = {}
    running = timetable.services.on(day)
    for trip in range(len(timetable.trips.route)):
        if not running[timetable.trips.service[trip]] or chance.random() > 0.1:
            continue
        part = slice(timetable.trips.offsets[trip], timetable.trips.offsets[trip + 1])
        length, delay = part.stop - part.start, chance.randrange(-60, 1800)
        states[trip, day] = TripState(
            chance.random() < 0.2,
            timetable.stop_times.arrival[part] + np.int32(delay),
            timetable.stop_times.departure[part] + np.int32(delay),
            np.array([chance.random() < 0.1 for _ in range(length)]),
            datetime(2026, 6, 10, tzinfo=UTC),
        )
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    closures = tuple(
        Closure(
            f"a{n}", midnight, midnight + timedelta(hours=chance.randrange(2, 24)),
            frozenset({chance.randrange(len(timetable.stops.parent))}),
            trips=frozenset({chance.randrange(len(timetable.trips.route))}),
        )
        for n in range(3)
    )  # fmt: skip
    return Overlay(midnight, states, closures)
