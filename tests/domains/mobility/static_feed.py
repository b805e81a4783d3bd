"""A Timetable straight from the files of a GTFS, for tests that need no database."""

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

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
)

Row = dict[str, str]
Files = dict[str, list[Row]]
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def read_files(path: Path) -> Files:
    """The tables of a feed by their names without .txt."""
    with zipfile.ZipFile(path) as archive:
        return {
            Path(name).stem: list(
                csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig")))
            )
            for name in archive.namelist()
            if name.endswith(".txt")
        }


def write_files(files: Files, path: Path) -> None:
    """The feed as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in files.items():
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
            archive.writestr(f"{name}.txt", text.getvalue())


def seconds_of(text: str) -> int:
    """25:10:00 as 90,600; UNTIMED for none."""
    if not text.strip():
        return UNTIMED
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _ids(feed: str, names: Sequence[str]) -> Ids:
    texts = tuple(f"{feed}:{name}" for name in names)
    return Ids(texts, {text: number for number, text in enumerate(texts)})


def _numbers(rows: list[Row], name: str, missing: int = 0) -> Any:
    return np.array([int(row.get(name) or missing) for row in rows], np.int32)


def _texts(rows: list[Row], name: str) -> tuple[str | None, ...]:
    return tuple(row.get(name) or None for row in rows)


def timetable_of(feed: str, files: Files) -> Timetable:
    """Trips by frequencies are expanded; what is untimed stays so."""
    stops, routes = files["stops"], files["routes"]
    stop_ids = _ids(feed, [row["stop_id"] for row in stops])
    route_ids = _ids(feed, [row["route_id"] for row in routes])
    zone = files["agency"][0]["agency_timezone"]
    days, services = _services(files)
    return Timetable(
        versions=(Version(1, feed, zone, None, None, None),),
        stops=_stops(feed, stops, stop_ids),
        routes=Routes(
            ids=route_ids,
            agency=_texts(routes, "agency_id"),
            short_names=_texts(routes, "route_short_name"),
            long_names=_texts(routes, "route_long_name"),
            colours=_texts(routes, "route_color"),
            type=_numbers(routes, "route_type").astype(np.int16),
            version=np.zeros(len(routes), np.int32),
        ),
        services=days,
        transfers=Transfers(*(np.zeros(0, np.int32) for _ in range(4))),
        **_trips(feed, files, stop_ids, route_ids, services),
    )


def _stops(feed: str, rows: list[Row], ids: Ids) -> Stops:
    none = np.zeros(len(rows), np.int8)
    parents = [ids.numbers.get(f"{feed}:{row.get('parent_station')}", NONE) for row in rows]
    return Stops(
        ids=ids,
        names=tuple(row.get("stop_name") or "" for row in rows),
        codes=_texts(rows, "stop_code"),
        platforms=_texts(rows, "platform_code"),
        zones=_texts(rows, "zone_id"),
        longitude=np.array([float(row["stop_lon"] or "nan") for row in rows]),
        latitude=np.array([float(row["stop_lat"] or "nan") for row in rows]),
        location_type=_numbers(rows, "location_type").astype(np.int8),
        parent=np.array(parents, np.int32),
        wheelchair=none,
        version=np.zeros(len(rows), np.int32),
    )


def _services(files: Files) -> tuple[Services, dict[str, int]]:
    calendar, dates = files.get("calendar", []), files.get("calendar_dates", [])
    names = dict.fromkeys(row["service_id"] for row in [*calendar, *dates])
    numbers = {name: number for number, name in enumerate(names)}
    texts = [row[key] for row in calendar for key in ("start_date", "end_date")]
    texts += [row["date"] for row in dates]
    first, last = (date.fromisoformat(pick(texts)) for pick in (min, max))
    runs = np.zeros((len(numbers), (last - first).days + 1), np.bool_)
    for row in calendar:
        for column in range(runs.shape[1]):
            day = first + timedelta(days=column)
            within = row["start_date"] <= f"{day:%Y%m%d}" <= row["end_date"]
            running = within and row[WEEKDAYS[day.weekday()]] == "1"
            runs[numbers[row["service_id"]], column] = running
    for row in dates:
        column = (date.fromisoformat(row["date"]) - first).days
        runs[numbers[row["service_id"]], column] = row["exception_type"] == "1"
    return Services(first, runs), numbers


def _trips(
    feed: str, files: Files, stop_ids: Ids, route_ids: Ids, services: dict[str, int]
) -> dict[str, Any]:
    calls: dict[str, list[Row]] = defaultdict(list)
    for row in files["stop_times"]:
        calls[row["trip_id"]].append(row)
    for rows in calls.values():
        rows.sort(key=lambda row: int(row["stop_sequence"]))
    repeated: dict[str, list[int]] = defaultdict(list)
    for row in files.get("frequencies", []):
        begin, end = seconds_of(row["start_time"]), seconds_of(row["end_time"])
        repeated[row["trip_id"]] += range(begin, end, int(row["headway_secs"]))
    names, trips, times = [], [], []
    for row in files["trips"]:
        own = calls[row["trip_id"]]
        for start in repeated.get(row["trip_id"], [NONE]):
            shift = 0 if start == NONE else start - seconds_of(own[0]["arrival_time"])
            clock = f"@{start // 3600:02}:{start // 60 % 60:02}:{start % 60:02}"
            names.append(row["trip_id"] + ("" if start == NONE else clock))
            trips.append(row)
            times.append([(each, shift) for each in own])
    flat = [each for own in times for each in own]

    def moved(name: str) -> Any:
        told = [(seconds_of(row[name]), shift) for row, shift in flat]
        return np.array([t if t == UNTIMED else t + shift for t, shift in told], np.int32)

    return {
        "trips": Trips(
            ids=_ids(feed, names),
            headsigns=_texts(trips, "trip_headsign"),
            short_names=_texts(trips, "trip_short_name"),
            blocks=_texts(trips, "block_id"),
            route=np.array([route_ids.numbers[f"{feed}:{r['route_id']}"] for r in trips], np.int32),
            service=np.array([services[row["service_id"]] for row in trips], np.int32),
            direction=_numbers(trips, "direction_id", NONE).astype(np.int8),
            wheelchair=np.zeros(len(trips), np.int8),
            shape=np.full(len(trips), NONE, np.int32),
            version=np.zeros(len(trips), np.int32),
            offsets=np.cumsum([0, *map(len, times)]).astype(np.int32),
        ),
        "stop_times": StopTimes(
            stop=np.array([stop_ids.numbers[f"{feed}:{r['stop_id']}"] for r, _ in flat], np.int32),
            sequence=np.array([int(row["stop_sequence"]) for row, _ in flat], np.int32),
            arrival=moved("arrival_time"),
            departure=moved("departure_time"),
            pickup=np.zeros(len(flat), np.int8),
            drop_off=np.zeros(len(flat), np.int8),
        ),
    }
