"""One GBFS document of any version, or a history of stations, as what is good of it. Pure.

A document does not say which file it is: what its data holds does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from domains.mobility.gbfs.documents import BY_NAME, RULE, File
from domains.mobility.gbfs.fields import instant, is_number, many, missing, read

FAULTS_MAX = 1_000
STATIONS_MAX = 100_000
HISTORY = "station_status history"
INDEX = ("feeds", "versions", "datasets")
"""What says where other documents are: of no use to whoever was sent one."""
BY_ITEMS = {
    "bikes": "vehicle_status",
    "vehicles": "vehicle_status",
    "vehicle_types": "vehicle_types",
    "plans": "system_pricing_plans",
    "regions": "system_regions",
    "alerts": "system_alerts",
    "geofencing_zones": "geofencing_zones",
    "rental_hours": "system_hours",
    "calendars": "system_calendar",
    "system_id": "system_information",
}
_RULES = many(RULE)


class GbfsError(Exception):
    """Why nothing of a document can be read: a slug, and a text that names file and field."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fault:
    """What was refused: where (`station_information.stations[3].capacity`), why, and the item."""

    where: str
    why: str
    item: Any

    @property
    def detail(self) -> str:
        """Field and fault."""
        return f"{self.where}: {self.why}"


@dataclass(slots=True)
class Document:
    """One document as GBFS 3.0 names things; `time` is its last_updated, µs since 1970.

    `found` counts its items. `extra` is what stands beside them (`global_rules`).
    """

    name: str
    time: int
    items: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    found: int = 0

    def refuse(self, where: str, why: str, item: Any) -> None:
        """Note a fault; beyond FAULTS_MAX they are only counted in the last one."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(where, why, item))
        elif len(self.faults) == FAULTS_MAX:
            self.faults.append(Fault(self.name, f"has more than {FAULTS_MAX} faults", None))


def parse(payload: bytes) -> Any:
    """JSON; GbfsError for what is none."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise GbfsError("bad-json", f"document: is no JSON ({error})") from None


def index_of(body: Any) -> list[tuple[str, str, str]]:
    """(language, name, URL) of a gbfs.json's files; language "" in 3.0. [] for another document."""
    data = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(data, Mapping):
        return []
    by_language = {"": data} if "feeds" in data else data
    found = []
    for language, each in by_language.items():
        feeds = each.get("feeds") if isinstance(each, Mapping) else None
        for feed in feeds if isinstance(feeds, list) else ():
            name, url = (feed.get("name"), feed.get("url")) if isinstance(feed, Mapping) else (0, 0)
            if isinstance(name, str) and isinstance(url, str):
                found.append((language, name, url))
    return found


def read_document(body: Any, received_at: int, name: str = "") -> Document | None:
    """A document by its name, or by what it holds; None for one that only lists others.

    GbfsError where nothing of it can be read.
    """
    if not isinstance(body, Mapping):
        raise GbfsError("bad-document", "document: must be an object")
    if "data" not in body:
        return _read_history(body)
    data = body["data"]
    if not isinstance(data, Mapping):
        raise GbfsError("bad-document", "data: must be an object")
    if index_of(body) or any(each in data for each in INDEX):
        return None
    file = BY_NAME.get(name) or _file_of(data)
    if file is None:
        raise GbfsError("unknown-document", "data: is none of the documents of GBFS")
    try:
        time = instant(body["last_updated"]) if "last_updated" in body else received_at
    except ValueError as error:
        raise GbfsError("bad-time", f"{file.name}.last_updated: {error}") from None
    document = Document(file.name, time)
    _read_items(document, file, _items(file, data))
    if file.name == "geofencing_zones" and data.get("global_rules"):
        try:
            document.extra["global_rules"] = _RULES.read(data["global_rules"])
        except ValueError as error:
            document.refuse("geofencing_zones.global_rules", str(error), data["global_rules"])
    return document


def _file_of(data: Mapping[str, Any]) -> File | None:
    for key, name in BY_ITEMS.items():
        if key in data:
            return BY_NAME[name]
    stations = data.get("stations")
    if not isinstance(stations, list):
        return None
    told = {key for each in stations[:10] if isinstance(each, Mapping) for key in each}
    told_places = {"name", "lat", "lon"} & told
    return BY_NAME["station_information" if told_places else "station_status"]


def _items(file: File, data: Mapping[str, Any]) -> list[Any]:
    if not file.items:
        return [data]
    names = (file.items, "bikes") if file.name == "vehicle_status" else (file.items,)
    items = next((data[name] for name in names if name in data), None)
    if file.name == "geofencing_zones" and isinstance(items, Mapping):
        items = items.get("features")
    if not isinstance(items, list):
        raise GbfsError("bad-document", f"{file.name}.{file.items}: must be a list")
    if len(items) > STATIONS_MAX:
        raise GbfsError("too-many", f"{file.name}.{file.items}: are more than {STATIONS_MAX}")
    return items


def _read_items(document: Document, file: File, items: Iterable[Any]) -> None:
    """Each item with what is good of it; one without its id, or twice the same, is refused."""
    known: dict[str, dict[str, Any]] = {}
    for number, given in enumerate(items):
        document.found += 1
        where = f"{file.name}.{file.items}[{number}]" if file.items else file.name
        if not isinstance(given, Mapping):
            document.refuse(where, "must be an object", given)
            continue
        item, faults = read(file.table, given)
        named = [name for name, _ in faults]
        absent = [(each, "is missing") for each in missing(file.table, item)]
        for name, why in (*faults, *(each for each in absent if not _told(file, each[0], named))):
            document.refuse(f"{where}.{name}", why, given)
        if file.id and file.id not in item:
            continue
        if file.id and item[file.id] in known:
            # The same again, as some feeds have it, is no fault.
            if known[item[file.id]] != item:
                document.refuse(f"{where}.{file.id}", "stands in the document twice", given)
            continue
        if file.id:
            known[item[file.id]] = item
        document.items.append(item)


def _told(file: File, name: str, named: list[str]) -> bool:
    """Whether a missing field was refused already, under whichever of its names."""
    field = next(each for each in file.table if each.name == name)
    return any(each in named for each in (name, *field.earlier))


def _read_history(body: Mapping[str, Any]) -> Document:
    """{station_id: [station_status, ...]}: what pollers keep; every state needs last_reported."""
    if not body or not all(isinstance(each, list) for each in body.values()):
        raise GbfsError("bad-document", "data: is missing")
    document = Document(HISTORY, 0)
    file = BY_NAME["station_status"]
    for key, states in body.items():
        for number, given in enumerate(states):
            document.found += 1
            where = f"station_status.{key}[{number}]"
            if not isinstance(given, Mapping):
                document.refuse(where, "must be an object", given)
                continue
            item, faults = read(file.table, {"station_id": key, **given})
            for name, why in faults:
                document.refuse(f"{where}.{name}", why, given)
            if item.get("station_id") != key:
                document.refuse(f"{where}.station_id", "is another than its key", given)
            elif "last_reported" not in item and not is_number(given.get("last_reported")):
                document.refuse(f"{where}.last_reported", "is missing", given)
            elif "last_reported" in item:
                document.items.append(item)
    return document


def merged(documents: Iterable[Document]) -> Document:
    """The same file in several languages (1.x, 2.x) as one, each text in all of them."""
    first, *others = documents
    for other in others:
        theirs = {_key(item): item for item in other.items}
        for item in first.items:
            for name, value in theirs.get(_key(item), {}).items():
                item[name] = _joined(item.get(name), value)
        first.time = max(first.time, other.time)
    return first


def spoken(document: Document, language: str) -> Document:
    """The document with its unmarked texts marked as being in a language."""
    for item in document.items:
        for value in item.values():
            for each in value if _is_texts(value) else ():
                each["language"] = language
    return document


def _key(item: Mapping[str, Any]) -> Any:
    return next((item[name] for name in item if name.endswith("_id")), None)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and each.keys() == {"text", "language"} for each in value
    )


def _joined(ours: Any, theirs: Any) -> Any:
    if not (_is_texts(ours) and _is_texts(theirs)):
        return theirs if ours is None else ours
    known = {each["language"] for each in ours}
    return [*ours, *(each for each in theirs if each["language"] not in known)]
