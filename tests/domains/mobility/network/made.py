"""Timetables for tests: made of a few lines, or read from a GTFS file in the plainest way."""

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from domains.mobility.network.timetable import (
    NONE,
    UNTIMED,
    Ids,
    Routes,
    Services,
    Stops,
    StopTimes,
    Timetable,
    Transfers,
    Trips,
    Version,
)  # fmt: skip


@dataclass(frozen=True)
class Stop:
    """A stop by its id."""

    id: str
    longitude: float = float("nan")
    latitude: float = float("nan")
    parent: str | None = None
    wheelchair: int = 0
    kind: int = 0
    name: str = ""


@dataclass(frozen=True)
class Call:
    """Times in s of the service day; UNTIMED where there are none."""

    stop: str
    arrival: int
    departure: int
    pickup: int = 0
    drop_off: int = 0


@dataclass(frozen=True)
class Trip:
    """A trip on some days."""

    id: str
    calls: Sequence[Call]
    days: Sequence[date]
    route: str = "r"
    wheelchair: int = 0
    headsign: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a Timetable is made of."""

    stops: Sequence[Stop]
    trips: Sequence[Trip]
    transfers: Sequence[tuple[str, str, int, int]] = ()
    """from, to, type, least seconds."""
    routes: Mapping[str, int] = field(default_factory=lambda: {"r": 3})
    timezone: str = "Asia/Tokyo"
    feed: str = "made"


def timetable_of(*plans: Plan) -> Timetable:
    """All plans in one Timetable, each a version of its own."""
    stops = [(n, each) for n, plan in enumerate(plans) for each in plan.stops]
    trips = [(n, each) for n, plan in enumerate(plans) for each in plan.trips]
    at = _numbers((n, each.id) for n, each in stops)
    rules = [(n, *each) for n, plan in enumerate(plans) for each in plan.transfers]
    services = _services([trip for _, trip in trips])
    first, last = services.first_day, services.first_day + timedelta(days=services.runs.shape[1])
    return Timetable(
        versions=tuple(
            Version(n + 1, plan.feed, plan.timezone, "ja", first, last)
            for n, plan in enumerate(plans)
        ),
        stops=_stops(plans, stops, at),
        routes=_routes(plans),
        services=services,
        trips=_trips(plans, trips),
        stop_times=_stop_times(trips, at),
        transfers=Transfers(
            from_stop=np.array([at[n, a] for n, a, _, _, _ in rules], np.int32),
            to_stop=np.array([at[n, b] for n, _, b, _, _ in rules], np.int32),
            type=np.array([kind for _, _, _, kind, _ in rules], np.int8),
            seconds_min=np.array([seconds for *_, seconds in rules], np.int32),
        ),
    )


def _services(trips: Sequence[Trip]) -> Services:
    """One a trip."""
    days = sorted({day for trip in trips for day in trip.days}) or [date(2026, 1, 1)]
    runs = np.zeros((len(trips), (days[-1] - days[0]).days + 1), np.bool_)
    for row, trip in enumerate(trips):
        for day in trip.days:
            runs[row, (day - days[0]).days] = True
    return Services(days[0], runs)


def _stops(
    plans: Sequence[Plan], stops: list[tuple[int, Stop]], at: Mapping[tuple[int, str], int]
) -> Stops:
    parents = [at[n, each.parent] if each.parent else NONE for n, each in stops]
    return Stops(
        ids=_ids(plans, [(n, each.id) for n, each in stops]),
        names=tuple(each.name or each.id for _, each in stops),
        codes=(None,) * len(stops),
        platforms=(None,) * len(stops),
        zones=(None,) * len(stops),
        longitude=np.array([each.longitude for _, each in stops], np.float64),
        latitude=np.array([each.latitude for _, each in stops], np.float64),
        location_type=np.array([each.kind for _, each in stops], np.int8),
        parent=np.array(parents, np.int32),
        wheelchair=np.array([each.wheelchair for _, each in stops], np.int8),
        version=np.array([n for n, _ in stops], np.int32),
    )


def _routes(plans: Sequence[Plan]) -> Routes:
    routes = [(n, *each) for n, plan in enumerate(plans) for each in plan.routes.items()]
    return Routes(
        ids=_ids(plans, [(n, name) for n, name, _ in routes]),
        agency=(None,) * len(routes),
        short_names=tuple(name for _, name, _ in routes),
        long_names=(None,) * len(routes),
        colours=(None,) * len(routes),
        type=np.array([kind for *_, kind in routes], np.int16),
        version=np.array([n for n, *_ in routes], np.int32),
    )


def _trips(plans: Sequence[Plan], trips: list[tuple[int, Trip]]) -> Trips:
    route = _numbers((n, name) for n, plan in enumerate(plans) for name in plan.routes)
    lengths = [len(trip.calls) for _, trip in trips]
    return Trips(
        ids=_ids(plans, [(n, each.id) for n, each in trips]),
        headsigns=tuple(each.headsign for _, each in trips),
        short_names=(None,) * len(trips),
        blocks=(None,) * len(trips),
        route=np.array([route[n, each.route] for n, each in trips], np.int32),
        service=np.arange(len(trips), dtype=np.int32),
        direction=np.full(len(trips), NONE, np.int8),
        wheelchair=np.array([each.wheelchair for _, each in trips], np.int8),
        shape=np.full(len(trips), NONE, np.int32),
        version=np.array([n for n, _ in trips], np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
    )


def _stop_times(trips: list[tuple[int, Trip]], at: Mapping[tuple[int, str], int]) -> StopTimes:
    calls = [(n, place, each) for n, trip in trips for place, each in enumerate(trip.calls)]
    return StopTimes(
        stop=np.array([at[n, each.stop] for n, _, each in calls], np.int32),
        sequence=np.array([place for _, place, _ in calls], np.int32),
        arrival=np.array([each.arrival for *_, each in calls], np.int32),
        departure=np.array([each.departure for *_, each in calls], np.int32),
        pickup=np.array([each.pickup for *_, each in calls], np.int8),
        drop_off=np.array([each.drop_off for *_, each in calls], np.int8),
    )


def _numbers(keys: Iterator[tuple[int, str]]) -> dict[tuple[int, str], int]:
    return {key: number for number, key in enumerate(keys)}


def _ids(plans: Sequence[Plan], keys: list[tuple[int, str]]) -> Ids:
    texts = tuple(f"{plans[n].feed}:{name}" for n, name in keys)
    return Ids(texts, {text: number for number, text in enumerate(texts)})


def read(path: Path) -> Plan:
    """A GTFS file whose trips have times at every stop and no frequencies."""
    with zipfile.ZipFile(path) as archive:
        tables = {
            name.rpartition("/")[2].removesuffix(".txt"): list(
                csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8-sig"))
            )
            for name in archive.namelist()
            if name.endswith(".txt")
        }
    days = _days(tables)
    calls: dict[str, list[tuple[int, Call]]] = {}
    for row in tables["stop_times"]:
        call = Call(
            row["stop_id"], _time(row["arrival_time"]), _time(row["departure_time"]),
            int(row.get("pickup_type") or 0), int(row.get("drop_off_type") or 0),
        )  # fmt: skip
        calls.setdefault(row["trip_id"], []).append((int(row["stop_sequence"]), call))
    stops = [
        Stop(
            row["stop_id"], float(row["stop_lon"]), float(row["stop_lat"]),
            row.get("parent_station") or None, int(row.get("wheelchair_boarding") or 0),
            int(row.get("location_type") or 0), row["stop_name"],
        )
        for row in tables["stops"]
    ]  # fmt: skip
    trips = [
        Trip(
            row["trip_id"], [call for _, call in sorted(calls.get(row["trip_id"], []), key=_first)],
            sorted(days.get(row["service_id"], ())), row["route_id"],
            int(row.get("wheelchair_accessible") or 0), row.get("trip_headsign") or None,
        )
        for row in tables["trips"]
    ]  # fmt: skip
    rules = [
        (row["from_stop_id"], row["to_stop_id"], int(row["transfer_type"] or 0),
         int(row.get("min_transfer_time") or 0))
        for row in tables.get("transfers", ())
        if row["from_stop_id"] and row["to_stop_id"]
    ]  # fmt: skip
    routes = {row["route_id"]: int(row["route_type"]) for row in tables["routes"]}
    return Plan(
        stops, trips, rules, routes, tables["agency"][0]["agency_timezone"], path.parent.name
    )


def _first(pair: tuple[int, Call]) -> int:
    return pair[0]


def _time(text: str) -> int:
    if not text.strip():
        return UNTIMED
    hours, minutes, seconds = map(int, text.strip().split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _days(tables: Mapping[str, list[dict[str, str]]]) -> dict[str, set[date]]:
    found: dict[str, set[date]] = {}
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    for row in tables.get("calendar", ()):
        day, days = _day(row["start_date"]), found.setdefault(row["service_id"], set())
        while day <= _day(row["end_date"]):
            if row[names[day.weekday()]] == "1":
                days.add(day)
            day += timedelta(days=1)
    for row in tables.get("calendar_dates", ()):
        days = found.setdefault(row["service_id"], set())
        (days.add if row["exception_type"] == "1" else days.discard)(_day(row["date"]))
    return found
