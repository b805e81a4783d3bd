"""A made city's timetable of any size: a grid of streets, a bus line on each, all day and night."""

import csv
import io
import math
import random
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

FIRST_DAY = date(2026, 4, 1)
DAYS = 365
LATITUDE, LONGITUDE = 35.0, 135.0
SPACING_M = 400.0
METRES_A_DEGREE = 111_195.0
ZONE_BLOCKS = 4
"""Streets each way that share a fare zone."""
SIDE_MIN = 4
TRIPS_A_DIRECTION = 100
"""Of a line, on a weekday and on a holiday together: what a side of the city is chosen for."""
SERVICES = (("weekday", "1,1,1,1,1,0,0", 0.58), ("holiday", "0,0,0,0,0,1,1", 0.42))
OPENS, CLOSES = 5 * 3600, 25 * 3600
RUSH = ((7 * 3600, 9 * 3600), (17 * 3600, 19 * 3600))
RUSH_SLOWER = 1.35
SECONDS_A_BLOCK = 80
HOLIDAYS = (date(2026, 5, 4), date(2026, 7, 20), date(2026, 11, 23), date(2027, 1, 1))
PACKED_AT = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One way of riding a line: the stops it calls at, by their place along the street."""

    line: str
    direction: int
    kind: str
    places: tuple[int, ...]

    @property
    def id(self) -> str:
        """Its shape's id too."""
        return f"{self.line}-{self.direction}-{self.kind}"


@dataclass(frozen=True, slots=True)
class City:
    """`side` streets each way: a line along each, both directions."""

    side: int
    seed: int

    def lines(self) -> list[str]:
        """EW and NS lines."""
        return [f"{way}{n}" for way in ("E", "N") for n in range(self.side)]

    def crossing(self, line: str, place: int) -> tuple[int, int]:
        """(row, column) of a place along a line."""
        number = int(line[1:])
        return (number, place) if line[0] == "E" else (place, number)

    def where(self, row: int, column: int) -> tuple[float, float]:
        """(latitude, longitude): the grid, a little crooked."""
        crooked = random.Random(f"{self.seed} {row} {column}")
        north = (row + crooked.uniform(-0.1, 0.1)) * SPACING_M
        east = (column + crooked.uniform(-0.1, 0.1)) * SPACING_M
        latitude = LATITUDE + north / METRES_A_DEGREE
        longitude = LONGITUDE + east / (METRES_A_DEGREE * math.cos(math.radians(LATITUDE)))
        return round(latitude, 6), round(longitude, 6)

    def patterns(self, line: str, direction: int) -> tuple[Pattern, ...]:
        """All stops, the middle half, and an express: the share of trips of each is 4 : 1 : 1."""
        along = tuple(range(self.side))[:: 1 if direction == 0 else -1]
        quarter = self.side // 4
        short = along[quarter : self.side - quarter]
        express = (*along[:-1:2], along[-1])
        return tuple(
            Pattern(line, direction, kind, places)
            for kind, places in (("all", along), ("short", short), ("express", express))
        )


def write(path: Path, *, stop_times: int, seed: int = 1) -> int:
    """A valid GTFS zip with about so many stop times; returns how many there are.

    The same arguments give the same bytes.
    """
    side = max(SIDE_MIN, round(math.sqrt(stop_times / (4 * TRIPS_A_DIRECTION * 0.85))))
    city = City(side, seed)
    lines = len(city.lines())
    departures = max(2, round(stop_times / (2 * lines * side * 0.85)))
    trips = list(_trips(city, departures))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, header, rows in _files(city, trips):
            _add(archive, name, header, rows)
        calls = Counted(_stop_times(city, trips))
        header = (
            "trip_id,arrival_time,departure_time,stop_id,stop_sequence,shape_dist_traveled,"
            "timepoint"
        )
        _add(archive, "stop_times.txt", header, calls)
    return calls.count


class Counted:
    """Rows, counted as they pass."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._rows:
            self.count += 1
            yield row


def _add(archive: zipfile.ZipFile, name: str, header: str, rows: Iterable[tuple[Any, ...]]) -> None:
    member = zipfile.ZipInfo(name, PACKED_AT)
    member.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(member, "w") as opened, io.TextIOWrapper(opened, "utf-8", newline="") as text:
        text.write(header + "\n")
        csv.writer(text, lineterminator="\n").writerows(rows)


@dataclass(frozen=True, slots=True)
class Trip:
    """One ride."""

    pattern: Pattern
    service: str
    number: int
    start: int

    @property
    def id(self) -> str:
        """Unique in the feed."""
        return f"{self.pattern.id}-{self.service}-{self.number}"


def _trips(city: City, departures: int) -> Iterator[Trip]:
    """Headways that stretch over the whole service day, each line with an offset of its own."""
    for line in city.lines():
        for direction in (0, 1):
            whole, short, express = city.patterns(line, direction)
            for service, _, share in SERVICES:
                count = max(1, round(departures * share))
                headway = (CLOSES - OPENS) / count
                offset = random.Random(f"{city.seed} {line} {direction}").random()
                for number in range(count):
                    pattern = {2: short, 5: express}.get(number % 6, whole)
                    start = int((OPENS + headway * (number + offset)) // 60 * 60)
                    yield Trip(pattern, service, number, start)


def _stop_times(city: City, trips: Iterable[Trip]) -> Iterator[tuple[Any, ...]]:
    distances: dict[str, list[str]] = {}
    stops: dict[str, list[str]] = {}
    for trip in trips:
        pattern = trip.pattern
        if pattern.id not in stops:
            stops[pattern.id] = [_pole(city, pattern, place) for place in pattern.places]
            distances[pattern.id] = [f"{along:.1f}" for _, _, along in _points(city, pattern)]
        rush = any(low <= trip.start < high for low, high in RUSH)
        pace = SECONDS_A_BLOCK * (RUSH_SLOWER if rush else 1.0)
        begun = pattern.places[0]
        for sequence, place in enumerate(pattern.places):
            at = trip.start + int(abs(place - begun) * pace) // 60 * 60
            time = f"{at // 3600:02d}:{at // 60 % 60:02d}:00"
            yield (
                trip.id, time, time, stops[pattern.id][sequence], sequence + 1,
                distances[pattern.id][sequence], 1,
            )  # fmt: skip


def _pole(city: City, pattern: Pattern, place: int) -> str:
    row, column = city.crossing(pattern.line, place)
    return f"{row}-{column}-{pattern.line[0]}{pattern.direction}"


def _points(city: City, pattern: Pattern) -> Iterator[tuple[float, float, float]]:
    """(latitude, longitude, metres along) at each stop of a pattern."""
    along, before = 0.0, None
    for place in pattern.places:
        latitude, longitude = city.where(*city.crossing(pattern.line, place))
        if before is not None:
            north = (latitude - before[0]) * METRES_A_DEGREE
            scale = METRES_A_DEGREE * math.cos(math.radians(latitude))
            along += math.hypot(north, (longitude - before[1]) * scale)
        yield latitude, longitude, along
        before = latitude, longitude


def _zone(row: int, column: int) -> str:
    return f"z{row // ZONE_BLOCKS}-{column // ZONE_BLOCKS}"


def _files(city: City, trips: list[Trip]) -> Iterator[tuple[str, str, Iterable[tuple[Any, ...]]]]:
    """Every other file: name, header, rows."""
    end = FIRST_DAY + timedelta(days=DAYS - 1)
    dates = f"{FIRST_DAY:%Y%m%d}", f"{end:%Y%m%d}"
    yield (
        "agency.txt", "agency_id,agency_name,agency_url,agency_timezone,agency_lang",
        [("grid", "碁盤市営バス", "https://example.com/bus", "Asia/Tokyo", "ja")],
    )  # fmt: skip
    yield (
        "feed_info.txt",
        "feed_publisher_name,feed_publisher_url,feed_lang,feed_start_date,feed_end_date,"
        "feed_version,feed_contact_email",
        [("碁盤市", "https://example.com", "ja", *dates, "1", "bus@example.com")],
    )
    yield (
        "calendar.txt",
        "service_id,monday,tuesday,wednesday,thursday,friday,saturday,sunday,start_date,end_date",
        [(name, *days.split(","), *dates) for name, days, _ in SERVICES],
    )
    yield (
        "calendar_dates.txt", "service_id,date,exception_type",
        [
            (service, f"{day:%Y%m%d}", kind)
            for day in HOLIDAYS
            for service, kind in (("weekday", 2), ("holiday", 1))
        ],
    )  # fmt: skip
    yield (
        "routes.txt",
        "route_id,agency_id,route_short_name,route_long_name,route_type,route_color,route_text_color",
        [
            (n, "grid", n, f"{'東西' if n[0] == 'E' else '南北'}{n[1:]}号線", 3, "1d4ed8", "ffffff")
            for n in city.lines()
        ],
    )
    yield (
        "trips.txt",
        "route_id,service_id,trip_id,trip_headsign,direction_id,shape_id,wheelchair_accessible",
        [
            (
                t.pattern.line, t.service, t.id,
                _name(*city.crossing(t.pattern.line, t.pattern.places[-1])),
                t.pattern.direction, t.pattern.id, 1 if t.number % 3 else 2,
            )
            for t in trips
        ],
    )  # fmt: skip
    yield from _places(city)
    yield from _fares(city)
    used = {t.pattern.id: t.pattern for t in trips}
    yield (
        "shapes.txt",
        "shape_id,shape_pt_sequence,shape_pt_lat,shape_pt_lon,shape_dist_traveled",
        (
            (pattern.id, number, latitude, longitude, f"{along:.1f}")
            for pattern in used.values()
            for number, (latitude, longitude, along) in enumerate(_points(city, pattern))
        ),
    )


def _name(row: int, column: int) -> str:
    return f"北{row}条東{column}丁目"


def _places(city: City) -> Iterator[tuple[str, str, Iterable[tuple[Any, ...]]]]:
    """A station at each crossing, with a pole for each line and direction; in English too."""
    crossings = [(row, column) for row in range(city.side) for column in range(city.side)]
    header = (
        "stop_id,stop_name,stop_lat,stop_lon,zone_id,location_type,parent_station,"
        "wheelchair_boarding,platform_code"
    )
    rows: list[tuple[Any, ...]] = []
    for row, column in crossings:
        name, place = _name(row, column), city.where(row, column)
        station = f"{row}-{column}"
        rows.append((station, name, *place, "", 1, "", 1, ""))
        for number, pole in enumerate(("E0", "E1", "N0", "N1"), 1):
            # A few metres from the crossing, on the side that its buses keep.
            at = round(place[0] + 1e-4 * (number - 2.5), 6), place[1]
            id_ = f"{station}-{pole}"
            rows.append((id_, name, *at, _zone(row, column), 0, station, number % 3, number))
    yield "stops.txt", header, rows
    yield (
        "translations.txt", "table_name,field_name,language,translation,field_value",
        [("stops", "stop_name", "en", f"North {r} East {c}", _name(r, c)) for r, c in crossings],
    )  # fmt: skip


def _fares(city: City) -> Iterator[tuple[str, str, Iterable[tuple[Any, ...]]]]:
    """A price by how many zones lie between, each pair of zones a rule."""
    zones = range((city.side + ZONE_BLOCKS - 1) // ZONE_BLOCKS)
    places = [(row, column) for row in zones for column in zones]
    most = 2 * (len(zones) - 1)
    yield (
        "fare_attributes.txt", "fare_id,price,currency_type,payment_method,transfers,agency_id",
        [(f"f{n}", 210 + 40 * n, "JPY", 0, 0, "grid") for n in range(most + 1)],
    )  # fmt: skip
    yield (
        "fare_rules.txt", "fare_id,origin_id,destination_id",
        (
            (f"f{abs(a[0] - b[0]) + abs(a[1] - b[1])}", f"z{a[0]}-{a[1]}", f"z{b[0]}-{b[1]}")
            for a in places
            for b in places
        ),
    )  # fmt: skip
