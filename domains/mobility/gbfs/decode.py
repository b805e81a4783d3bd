"""One GBFS document to Things and observations; pure, and never an exception for bad input.

A station is a Thing `FEED:station:ID`. Of vehicles outside of stations no Thing is made and no
history is kept, or the trips of their riders could be read from it: their number, and their number
by area where it is three or more, are observations; the vehicles of the newest document alone are a
property of the Thing `FEED:vehicles`, without their ids (gbfs.md, vehicle_status: ids are not to
let a trip be known).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from core.clock import parse_iso
from core.formats.checks import property_fault, thing_fault
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, ThingUpdate, canonical_json
from domains.mobility.gbfs import areas
from domains.mobility.gbfs.read import HISTORY, Document, GbfsError, parse, read_document

FORMAT = "gbfs"
VEHICLES_A_GROUP_MIN = 3
"""Areas with fewer are counted as OTHER_AREAS: a vehicle that comes alone is a rider that came."""
OTHER_AREAS = "other"
KEPT_MAX = 10_000
"""Documents whose last content is remembered."""
PAYLOAD_CHARACTERS_MAX = 2_000

COUNTS = {
    "num_vehicles_available": "vehicles-available",
    "num_vehicles_disabled": "vehicles-disabled",
    "num_docks_available": "docks-available",
    "num_docks_disabled": "docks-disabled",
    "is_installed": "station-installed",
    "is_renting": "station-renting",
    "is_returning": "station-returning",
}
"""Field of station_status -> observed property."""


def decode(payload: bytes, context: Context) -> Decoded:
    """Decode one document with its envelope, or a history of stations (see read.py)."""
    try:
        document = read_document(parse(payload), context.received_at)
    except GbfsError as error:
        builder = ObservationsBuilder()
        builder.messages = 1
        builder.reject(error.reason, str(error), payload)
        return builder.build()
    return decoded(document, context)


def decoded(document: Document | None, context: Context) -> Decoded:
    """What a document says; one that only lists others says nothing."""
    builder = ObservationsBuilder()
    builder.messages = 1
    if document is None:
        builder.unchanged = 1
        return builder.build()
    feed = context.gateway
    if document.name == "station_information":
        _add_stations(builder, feed, document)
    elif document.name in ("station_status", HISTORY):
        _add_statuses(builder, feed, document)
    elif document.name == "vehicle_status":
        _add_vehicles(builder, feed, document)
    else:
        _add_document(builder, feed, document, context.memory)
    for fault in document.faults:
        # An id of a vehicle has no business in the list of rejections either.
        item = None if document.name == "vehicle_status" else fault.item
        builder.reject("invalid-field", fault.detail, _excerpt(item), format=None)
    return builder.build()


def station_thing(feed: str, station_id: str) -> str:
    """The Thing of a station; a slash in its id is written `%2F`."""
    return f"{feed}:station:{station_id.replace('/', '%2F')}"


def vehicles_thing(feed: str) -> str:
    """The Thing that has the vehicles of the newest document."""
    return f"{feed}:vehicles"


def _excerpt(item: Any) -> bytes:
    """A refused item, for whoever looks into the rejection."""
    return orjson.dumps(item, default=str)[:PAYLOAD_CHARACTERS_MAX]


def _stations(document: Document, feed: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Each item with its Thing; an id that cannot be a Thing's is refused."""
    for item in document.items:
        thing = station_thing(feed, item["station_id"])
        fault = thing_fault(thing)
        if fault:
            document.refuse(f"{document.name}.station_id", fault, item)
        else:
            yield thing, item


def _add_stations(builder: ObservationsBuilder, feed: str, document: Document) -> None:
    count = 0
    for thing, item in _stations(document, feed):
        count += 1
        told = {key: item[key] for key in item if key not in ("station_id", "lat", "lon")}
        located = "lat" in item and "lon" in item
        builder.hear(thing, document.time)
        builder.describe(
            ThingUpdate(
                thing,
                item["name"][0]["text"] if "name" in item else None,
                {"feed": feed, "gbfs": told},
                (item["lon"], item["lat"]) if located else None,
                item.get("station_area"),
                document.time,
                "vehicles-available",
            )
        )
    builder.hear(feed, document.time)
    builder.add(feed, "stations", document.time, count)


def _add_statuses(builder: ObservationsBuilder, feed: str, document: Document) -> None:
    newest = 0
    for thing, item in _stations(document, feed):
        reported = parse_iso(item["last_reported"]) if "last_reported" in item else document.time
        newest = max(newest, reported)
        builder.hear(thing, document.time or reported)
        for name, observed_property in COUNTS.items():
            if name in item:
                builder.add(thing, observed_property, reported, item[name])
        for instance, count in _by_type(document, item):
            builder.add(thing, instance, reported, count)
    builder.hear(feed, document.time or newest)


def _by_type(document: Document, item: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Counts by type of vehicle, as instances of their property: `vehicles-available/ebike`."""
    found = Counter[str]()
    for each in item.get("vehicle_types_available", ()):
        found[f"vehicles-available/{each['vehicle_type_id']}"] += each["count"]
    for each in item.get("vehicle_docks_available", ()):
        found[f"docks-available/{','.join(each['vehicle_type_ids'])}"] += each["count"]
    for instance, count in found.items():
        fault = property_fault(instance)
        if fault:
            document.refuse("station_status.vehicle_type_id", fault, item)
        else:
            yield instance, count


def _add_vehicles(builder: ObservationsBuilder, feed: str, document: Document) -> None:
    vehicles = []
    counted = Counter[str]()
    for item in document.items:
        placed = "lat" in item and "lon" in item
        if not placed and "station_id" not in item:
            document.refuse("vehicle_status.lat", "is missing, as is station_id", item)
            continue
        vehicles.append(item)
        if placed:
            counted[areas.cell(item["lon"], item["lat"])] += 1
    builder.hear(feed, document.time)
    builder.add(feed, "free-vehicles", document.time, len(vehicles))
    shown = {area: n for area, n in counted.items() if n >= VEHICLES_A_GROUP_MIN}
    others = sum(counted.values()) - sum(shown.values())
    if others >= VEHICLES_A_GROUP_MIN:
        shown[OTHER_AREAS] = others
    builder.add(feed, "free-vehicles-by-area", document.time, shown)
    # In the order of their places, which does not tell how they stood in the document.
    properties = {"vehicles": sorted(map(_unnamed, _shared_links(vehicles)), key=canonical_json)}
    builder.describe(ThingUpdate(vehicles_thing(feed), None, properties, time=document.time))


def _unnamed(vehicle: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in vehicle.items() if key != "vehicle_id"}


def _shared_links(vehicles: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Vehicles with the links that more than one of them has: a link of its own names a vehicle."""
    vehicles = list(vehicles)
    uses = Counter(link for each in vehicles for link in each.get("rental_uris", {}).values())
    for each in vehicles:
        links = {k: link for k, link in each.get("rental_uris", {}).items() if uses[link] > 1}
        rest = {key: value for key, value in each.items() if key != "rental_uris"}
        yield {**rest, "rental_uris": links} if links else rest


def _add_document(
    builder: ObservationsBuilder, feed: str, document: Document, memory: dict[Any, Any]
) -> None:
    """Kept as it is, where it is news: most feeds repeat it each minute."""
    content = {"items": document.items, **document.extra}
    key, mark = ("gbfs", feed, document.name), hash(canonical_json(content))
    builder.hear(feed, document.time)
    time, known = memory.get(key, (0, None))
    if known == mark or time > document.time:
        builder.unchanged = 1
        return
    if len(memory) >= KEPT_MAX:
        memory.clear()
    memory[key] = (document.time, mark)
    builder.add(feed, f"feed-document/{document.name}", document.time, content)
