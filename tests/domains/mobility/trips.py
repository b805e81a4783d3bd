"""Trips that somebody could have made: a bus line's own shape, stop times and fares (GTFS-JP)."""

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

from domains.mobility.wire import Point, Tap

JAPAN = timezone(timedelta(hours=9))
MIDNIGHT = datetime(2020, 6, 1, tzinfo=JAPAN)
FEED = "gtfs-jp/donan-bus-muroran/gtfs_jp.zip"


@dataclass(frozen=True)
class Trip:
    """One ride from end to end: where the bus went, and the taps of a rider."""

    name: str
    track: list[Point]
    taps: list[Tap]


class Feed:
    """The tables of a feed, each row as a dict."""

    def __init__(self, shared_data: Path) -> None:
        self._zip = zipfile.ZipFile(shared_data / FEED)

    def table(self, name: str) -> Iterator[dict[str, str]]:
        with self._zip.open(f"{name}.txt") as file:
            yield from csv.DictReader(io.TextIOWrapper(file, "utf-8-sig"))


def trips(shared_data: Path, count: int, card: str = "card") -> list[Trip]:
    """The first trips of the feed that have a shape and a fare from end to end."""
    feed = Feed(shared_data)
    prices = {row["fare_id"]: int(row["price"]) for row in feed.table("fare_attributes")}
    fares = {
        (row["route_id"], row["origin_id"], row["destination_id"]): prices[row["fare_id"]]
        for row in feed.table("fare_rules")
    }
    zones = {row["stop_id"]: row["zone_id"] or row["stop_id"] for row in feed.table("stops")}
    shapes: dict[str, list[tuple[int, float, float]]] = {}
    for row in feed.table("shapes"):
        place = float(row["shape_pt_lon"]), float(row["shape_pt_lat"])
        shapes.setdefault(row["shape_id"], []).append((int(row["shape_pt_sequence"]), *place))
    calls: dict[str, list[dict[str, str]]] = {}
    for row in feed.table("stop_times"):
        calls.setdefault(row["trip_id"], []).append(row)
    found: list[Trip] = []
    for row in feed.table("trips"):
        ends = sorted(calls[row["trip_id"]], key=lambda call: int(call["stop_sequence"]))
        first, last = ends[0], ends[-1]
        fare = fares.get((row["route_id"], zones[first["stop_id"]], zones[last["stop_id"]]))
        if row["shape_id"] in shapes and len(found) < count:
            began, ended = _moment(first["departure_time"]), _moment(last["arrival_time"])
            track = _track(sorted(shapes[row["shape_id"]]), began, ended)
            route = row["route_id"]
            taps = [
                Tap(began, card, "in", first["stop_id"], route),
                Tap(ended, card, "out", last["stop_id"], route, None, fare),
            ]
            found.append(Trip(row["trip_id"], track, taps))
    return found


def _moment(text: str) -> datetime:
    hours, minutes, seconds = map(int, text.split(":"))
    return MIDNIGHT + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _track(shape: list[tuple[int, float, float]], began: datetime, ended: datetime) -> list[Point]:
    """Along the shape at an even pace."""
    away = [0.0]
    for (_, *one), (_, *other) in pairwise(shape):
        away.append(away[-1] + ((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5)
    return [
        Point(began + (ended - began) * (far / (away[-1] or 1.0)), longitude, latitude)
        for (_, longitude, latitude), far in zip(shape, away, strict=True)
    ]
