"""What an extract of OpenStreetMap (.osm.pbf, .osm, .osm.bz2, .osm.gz) says of ways on foot."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import osmium

from core.errors import brief, invalid
from domains.mobility.osm import tags as judge

SUFFIXES = (".osm.pbf", ".pbf", ".osm", ".osm.bz2", ".osm.gz", ".xml")
INVALID: type[Exception] = osmium.InvalidLocationError
POINTS_MAX = 20_000_000
"""Points of all walkable ways: a large prefecture has some five millions."""


@dataclass(slots=True)
class Raw:
    """Pieces of ways between two points each; ids of points are OpenStreetMap's.

    Places are 1e-7 degrees WGS 84, as OpenStreetMap has them.
    """

    begin: "array[int]" = field(default_factory=lambda: array("q"))
    end: "array[int]" = field(default_factory=lambda: array("q"))
    stepped: bytearray = field(default_factory=bytearray)
    over: bytearray = field(default_factory=bytearray)
    """Whether the way is a crossing."""
    point: "array[int]" = field(default_factory=lambda: array("q"))
    x: "array[int]" = field(default_factory=lambda: array("i"))
    y: "array[int]" = field(default_factory=lambda: array("i"))
    closed: set[int] = field(default_factory=set)
    raised: set[int] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def read(path: Path, name: str, raw: Raw) -> None:
    """Add what a file has; CityError `invalid` with the reason where it cannot be read."""
    if not name.lower().endswith(SUFFIXES):
        raise invalid(name, f"an extract of OpenStreetMap ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise invalid(name, "there is no such file")
    wanted = osmium.filter.KeyFilter("highway", "kerb", "barrier")
    kinds = osmium.osm.NODE | osmium.osm.WAY
    try:
        for each in osmium.FileProcessor(str(path), kinds).with_locations().with_filter(wanted):
            if isinstance(each, osmium.osm.Node):
                _point(each.id, dict(each.tags), raw)
            elif isinstance(each, osmium.osm.Way):
                _way(each, dict(each.tags), raw)
    except (RuntimeError, ValueError, OverflowError, OSError, INVALID) as error:
        raise invalid(name, f"is no whole extract of OpenStreetMap: {brief(error)}") from error


def _point(number: int, tags: dict[str, str], raw: Raw) -> None:
    if judge.closed(tags):
        raw.closed.add(number)
    if judge.raised(tags):
        raw.raised.add(number)


def _way(way: "osmium.osm.Way", tags: dict[str, str], raw: Raw) -> None:
    """A way's pieces between points that have places: an extract may have cut it."""
    if "highway" not in tags:
        return
    raw.found["ways"] += 1
    if not judge.walkable(tags):
        raw.found["not_walkable"] += 1
        return
    stepped, over = judge.stepped(tags), judge.crossing(tags)
    before, pieces = None, 0
    for node in way.nodes:
        place = node.location
        if not place.valid():
            raw.refused["points_without_place"] += 1
            before = None
            continue
        raw.point.append(node.ref)
        raw.x.append(place.x)
        raw.y.append(place.y)
        if before is not None and before != node.ref:
            raw.begin.append(before)
            raw.end.append(node.ref)
            raw.stepped.append(stepped)
            raw.over.append(over)
            pieces += 1
        before = node.ref
    if not pieces:
        raw.refused["ways_without_points"] += 1
        return
    raw.found["walkable"] += 1
    raw.found["steps"] += tags.get("highway") == "steps"
    if len(raw.point) > POINTS_MAX:
        raise invalid("FILE", f"over {POINTS_MAX:,} points of ways: cut a smaller extract")
