"""What the platform knows of a feed as GBFS 2.3 and 3.0: every document keeps its schema. Pure.

What a version demands and a feed does not give is left out with its item: a station without a name
has its id for one, a vehicle of a motor without its range is not told of.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.clock import from_datetime
from core.sensorthings import canonical_json
from domains.mobility.gbfs import documents, fields
from domains.mobility.gbfs.decode import COUNTS
from domains.mobility.gbfs.documents import BY_NAME, FILES, ONLY_IN_2, File
from domains.mobility.gbfs.fields import Table, missing, posix, rfc3339

V2, V3 = "2.3", "3.0"
VERSIONS = (V2, V3)
STATUS_SECONDS, OTHER_SECONDS = 30, 300
"""How long a copy is good for (`ttl`)."""
NO_ADDRESS = "not-stated@example.invalid"
"""3.0 demands an address, and a feed of 2.x may have none (RFC 2606: it leads nowhere)."""
ALWAYS_OPEN = "24/7"
"""gbfs.md 2.3: a system that publishes no system_hours is open all day, all days."""
DAYS = {
    "mon": "Mo", "tue": "Tu", "wed": "We", "thu": "Th", "fri": "Fr", "sat": "Sa", "sun": "Su",
}  # fmt: skip
MOTORS = "human"
ID_BYTES = 16

Item = dict[str, Any]


@dataclass(slots=True)
class Known:
    """What is known of one feed, as GBFS 3.0 names it; times say when, None where it has none.

    `stations` are items of station_information, `states` of station_status.
    """

    feed: str
    title: str
    licence: str | None = None
    documents: dict[str, tuple[datetime, Mapping[str, Any]]] = field(default_factory=dict)
    stations: list[Item] = field(default_factory=list)
    stations_time: datetime | None = None
    states: list[Item] = field(default_factory=list)
    states_time: datetime | None = None
    vehicles: list[Item] = field(default_factory=list)
    vehicles_time: datetime | None = None
    secret: bytes = b""

    @property
    def system(self) -> Item:
        """Its system_information, or nothing."""
        return next(iter(self.items("system_information")), {})

    @property
    def languages(self) -> list[str]:
        """What the feed speaks; the first is what its unmarked texts are in."""
        marked = [each["language"] for each in self.system.get("name", ())]
        told = [*self.system.get("languages", ()), *marked]
        known = [each for each in dict.fromkeys(told) if each != fields.UNKNOWN_LANGUAGE]
        return known or [fields.UNKNOWN_LANGUAGE]

    def items(self, name: str) -> list[Item]:
        """The items of a document, none where it has none."""
        found = self.documents.get(name, (None, {}))[1].get("items", [])
        return found if isinstance(found, list) else []

    def time(self, name: str) -> datetime | None:
        """When a file was so, None where the feed has none."""
        own = {
            "station_information": self.stations_time, "station_status": self.states_time,
            "vehicle_status": self.vehicles_time,
        }  # fmt: skip
        if name in own:
            return own[name]
        if name in self.documents:
            return self.documents[name][0]
        times = [*own.values(), *(time for time, _ in self.documents.values())]
        known = [each for each in times if each is not None]
        return max(known) if known and name == "system_information" else None


def files(known: Known, version: str) -> list[str]:
    """The names of the files that the feed has in a version."""
    named = [
        each.name if version == V3 else each.v2
        for each in FILES
        if known.time(each.name) is not None and not (version == V3 and each.name in ONLY_IN_2)
    ]
    return ["gbfs_versions", *named]


def index(known: Known, version: str, url: Callable[[str, str, str], str], time: datetime) -> Item:
    """gbfs.json; `url(version, file, language)` is where a file is."""
    if version == V3:
        data: Item = {
            "feeds": [{"name": n, "url": url(V3, n, "")} for n in ("gbfs", *files(known, V3))]
        }
    else:
        data = {
            language: {
                "feeds": [{"name": n, "url": url(V2, n, language)} for n in files(known, V2)]
            }
            for language in known.languages
        }
    return envelope(version, time, OTHER_SECONDS, data)


def versions(version: str, url: Callable[[str, str, str], str], time: datetime) -> Item:
    """gbfs_versions.json."""
    listed = [{"version": each, "url": url(each, "gbfs", "")} for each in VERSIONS]
    return envelope(version, time, OTHER_SECONDS, {"versions": listed})


def document(known: Known, name: str, version: str, language: str | None = None) -> Item | None:
    """One file by its name in this version; None where the feed or the version has none."""
    file = BY_NAME.get(name)
    if file is None or name != (file.name if version == V3 else file.v2):
        return None
    time = known.time(file.name)
    if time is None or (version == V3 and file.name in ONLY_IN_2):
        return None
    write = fields.modern if version == V3 else fields.older
    spoken = language if language in known.languages else known.languages[0]
    items = [write(file.table, each, spoken) for each in _MAKERS[file.name](known, version)]
    seconds = STATUS_SECONDS if file.name.endswith("_status") else OTHER_SECONDS
    return envelope(version, time, seconds, _data(known, file, items, version))


def envelope(version: str, time: datetime, seconds: int, data: Item) -> Item:
    """Around every document."""
    moment = max(from_datetime(time), fields.TIME_SECONDS_MIN * 1_000_000)
    updated: Any = rfc3339(moment) if version == V3 else posix(moment)
    return {"last_updated": updated, "ttl": seconds, "version": version, "data": data}


def _data(known: Known, file: File, items: list[Item], version: str) -> Item:
    if not file.items:
        return items[0]
    if file.name != "geofencing_zones":
        return {file.items if version == V3 or file.items != "vehicles" else "bikes": items}
    features = [{"type": "Feature", **each} for each in items]
    zones = {"type": "FeatureCollection", "features": features}
    if version == V2:
        return {"geofencing_zones": zones}
    rules = known.documents[file.name][1].get("global_rules", [])
    return {"geofencing_zones": zones, "global_rules": rules}


def _whole(table: Table, items: Iterable[Item]) -> list[Item]:
    return [item for item in items if not missing(table, item)]


def _kept(name: str) -> Callable[[Known, str], list[Item]]:
    return lambda known, version: _whole(BY_NAME[name].table, known.items(name))


def _system(known: Known, version: str) -> list[Item]:
    item = dict(known.system)
    language = known.languages[0]
    item.setdefault("system_id", known.feed)
    item.setdefault("name", [{"text": known.title, "language": language}])
    item.setdefault("timezone", "Etc/UTC")
    item["languages"] = known.languages
    item.setdefault("opening_hours", _opening_hours(known))
    item.setdefault("feed_contact_email", item.get("email", NO_ADDRESS))
    item.pop("manifest_url", None)
    licence = item.pop("license_id", None) or known.licence
    if licence and "license_url" not in item:
        named = licence if "://" in licence else f"https://spdx.org/licenses/{licence}"
        item["license_url"] = named
    for name in ("terms", "privacy"):  # one demands the other
        if f"{name}_last_updated" not in item:
            item.pop(f"{name}_url", None)
    return [item]


def _opening_hours(known: Known) -> str:
    """system_hours of 2.x in the words of OpenStreetMap's opening_hours, which 3.0 has."""
    hours = _whole(documents.HOURS, known.items("system_hours"))
    told = [
        f"{','.join(DAYS[day] for day in each['days'])} "
        f"{each['start_time'][:5]}-{each['end_time'][:5]}"
        for each in hours
    ]
    return "; ".join(told) or ALWAYS_OPEN


def _types(known: Known, version: str) -> list[Item]:
    plans = {each["plan_id"] for each in _kept("system_pricing_plans")(known, version)}
    found = []
    for item in _whole(documents.VEHICLE_TYPE, known.items("vehicle_types")):
        if item["propulsion_type"] != MOTORS and "max_range_meters" not in item:
            continue
        kept = dict(item)
        if kept.get("default_pricing_plan_id", "") not in plans:
            kept.pop("default_pricing_plan_id", None)
        offered = [each for each in kept.pop("pricing_plan_ids", ()) if each in plans]
        found.append({**kept, "pricing_plan_ids": offered} if offered else kept)
    return found


def _stations(known: Known, version: str) -> list[Item]:
    language = known.languages[0]
    named = (
        {"name": [{"text": each["station_id"], "language": language}], **_links(known, each)}
        for each in known.stations
    )
    return _whole(documents.STATION, named)


def _links(known: Known, item: Item) -> Item:
    """Links into an app are of use only beside where the app can be had, and need that."""
    apps = known.system.get("rental_apps", {})
    links = {k: v for k, v in item.get("rental_uris", {}).items() if k == "web" or k in apps}
    rest = {key: value for key, value in item.items() if key != "rental_uris"}
    return {**rest, "rental_uris": links} if links else rest


def _states(known: Known, version: str) -> list[Item]:
    types = {each["vehicle_type_id"] for each in _types(known, version)}
    placed = {each["station_id"] for each in _stations(known, version)}
    found = []
    for item in known.states:
        if item["station_id"] not in placed:
            continue
        kept = dict(item)
        counted = kept.pop("vehicle_types_available", [])
        docks = kept.pop("vehicle_docks_available", [])
        if types:
            kept["vehicle_types_available"] = [
                each for each in counted if each["vehicle_type_id"] in types
            ]
            docks = [each for each in docks if types.issuperset(each["vehicle_type_ids"])]
            if docks:
                kept["vehicle_docks_available"] = docks
        found.append(kept)
    return _whole(documents.STATION_STATUS, found)


def _vehicles(known: Known, version: str) -> list[Item]:
    """Vehicles under ids that tell where one stands today, and nothing of where it was."""
    types = {each["vehicle_type_id"]: each for each in _types(known, version)}
    plans = {each["plan_id"] for each in _kept("system_pricing_plans")(known, version)}
    found = []
    for item, vehicle_id in zip(known.vehicles, vehicle_ids(known), strict=True):
        kept = {**_links(known, item), "vehicle_id": vehicle_id}
        kind = types.get(kept.get("vehicle_type_id", ""))
        if kept.get("pricing_plan_id", "") not in plans:
            kept.pop("pricing_plan_id", None)
        if types and kind is None:
            continue
        if kind is None:
            kept.pop("vehicle_type_id", None)
        elif kind["propulsion_type"] != MOTORS and "current_range_meters" not in kept:
            continue
        found.append(kept)
    return _whole(documents.VEHICLE, found)


def vehicle_ids(known: Known) -> list[str]:
    """An id for each vehicle, keyed: of the day, its type and its place, never of its own id.

    It stays while the vehicle stands; after a trip, and each midnight (UTC), it is another, and
    none tells the one before. Of several at one place which is which may change.
    """
    if known.vehicles_time is None:
        return []
    day = known.vehicles_time.date().isoformat()
    seen = Counter[bytes]()
    ids = []
    for item in known.vehicles:
        place = [item.get(k) for k in ("lon", "lat", "station_id", "vehicle_type_id")]
        told = canonical_json([known.feed, day, place])
        seen[told] += 1
        mark = hmac.new(known.secret, told + b"%d" % seen[told], hashlib.sha256)
        ids.append(mark.hexdigest()[: 2 * ID_BYTES])
    return ids


def is_taken(vehicle: Item) -> bool:
    """Whether nobody else can rent it now."""
    return bool(vehicle.get("is_reserved") or vehicle.get("is_disabled"))


def _zones(known: Known, version: str) -> list[Item]:
    zones = _whole(documents.ZONE_FEATURE, known.items("geofencing_zones"))
    if version == V3:
        return zones
    return [{**each, "properties": _one_rule(each["properties"])} for each in zones]


def _one_rule(properties: Item) -> Item:
    """`ride_allowed` of 2.3 is both: to begin a ride and to end one."""
    rules = [
        {**each, "ride_end_allowed": each["ride_start_allowed"] and each["ride_end_allowed"]}
        for each in properties.get("rules", ())
    ]
    return {**properties, "rules": rules} if rules else properties


_MAKERS: dict[str, Callable[[Known, str], list[Item]]] = {
    "system_information": _system,
    "vehicle_types": _types,
    "station_information": _stations,
    "station_status": _states,
    "vehicle_status": _vehicles,
    "geofencing_zones": _zones,
    **{
        name: _kept(name)
        for name in (
            "system_hours", "system_calendar", "system_regions", "system_pricing_plans",
            "system_alerts",
        )
    },
}  # fmt: skip

_FIELDS = {name: field for field, name in COUNTS.items()}
_BOOLEANS = frozenset(("is_installed", "is_renting", "is_returning"))


def state_of(station_id: str, values: Iterable[tuple[str, float, datetime]]) -> Item:
    """station_status from a station's observations: (property, result, time)."""
    item: Item = {"station_id": station_id}
    times = []
    for name, result, time in values:
        base, _, instance = name.partition("/")
        times.append(time)
        if not instance:
            key = _FIELDS[base]
            item[key] = result != 0 if key in _BOOLEANS else round(result)
        elif base == "vehicles-available":
            counted = {"vehicle_type_id": instance, "count": round(result)}
            item.setdefault("vehicle_types_available", []).append(counted)
        else:
            shared = {"vehicle_type_ids": instance.split(","), "count": round(result)}
            item.setdefault("vehicle_docks_available", []).append(shared)
    item["last_reported"] = rfc3339(from_datetime(max(times)))
    return item
