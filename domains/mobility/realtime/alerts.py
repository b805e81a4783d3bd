"""Alerts: what one says of a published timetable. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.transit import gtfs_realtime_pb2 as pb

from domains.mobility.network.timetable import NONE, Timetable
from domains.mobility.realtime.static import Static, own_id

TEXTS = ("url", "header_text", "description_text", "tts_header_text", "tts_description_text",
         "image_alternative_text", "cause_detail", "effect_detail")  # fmt: skip


def alert_of(timetable: Timetable, document: Mapping[str, Any], static: Static) -> pb.Alert | None:
    """The alert with what the timetable has of its entities; None where nothing is left of it."""
    try:
        alert: pb.Alert = json_format.ParseDict(
            dict(document), pb.Alert(), ignore_unknown_fields=True
        )
    except (json_format.Error, ValueError, TypeError):
        return None
    chosen = [each for each in alert.informed_entity if _is_known(timetable, each, static)]
    if not chosen:
        return None
    del alert.informed_entity[:]
    alert.informed_entity.extend(chosen)
    for name in TEXTS:
        _tidy(alert, name)
    for detail in ("cause", "effect"):
        if not alert.HasField(detail):
            alert.ClearField(f"{detail}_detail")
    return alert


def _tidy(alert: pb.Alert, name: str) -> None:
    """Texts in each language once; a text that is empty says nothing."""
    if not alert.HasField(name):
        return
    texts = {each.language: each for each in reversed(getattr(alert, name).translation)
             if each.text}  # fmt: skip
    alert.ClearField(name)
    if texts:
        getattr(alert, name).translation.extend(reversed(texts.values()))


def _is_known(timetable: Timetable, chosen: pb.EntitySelector, static: Static) -> bool:
    """Whether the published timetable has all that a selector names, and it names something."""
    feed = static.feed
    if chosen.HasField("agency_id") and chosen.agency_id not in static.agencies:
        return False
    if (
        chosen.HasField("route_id")
        and f"{feed}:{chosen.route_id}" not in timetable.routes.ids.numbers
    ):
        return False
    if chosen.HasField("stop_id") and f"{feed}:{chosen.stop_id}" not in timetable.stops.ids.numbers:
        return False
    if chosen.HasField("direction_id") and not chosen.HasField("route_id"):
        return False
    if chosen.HasField("trip"):
        return _is_known_trip(timetable, chosen, feed)
    return bool(chosen.ListFields())


def _is_known_trip(timetable: Timetable, chosen: pb.EntitySelector, feed: str) -> bool:
    trip = chosen.trip
    number = timetable.trips.ids.numbers.get(f"{feed}:{trip.trip_id}", NONE)
    if number == NONE:
        return False
    route = own_id(timetable.routes.ids.texts[timetable.trips.route[number]], feed)
    named = {each.route_id for each in (chosen, trip) if each.route_id}
    if trip.HasField("direction_id") and trip.direction_id != timetable.trips.direction[number]:
        trip.ClearField("direction_id")
    return named <= {route}


# --- as one answers them --------------------------------------------------------------------------

PERIODS = ("activePeriod", "impactPeriod", "communicationPeriod")
"""Where an alert says when it holds: the first that it has."""


@dataclass(frozen=True, slots=True)
class Told:
    """An alert as its feed gave it, with what it names by the ids outside."""

    id: str
    feed: str
    document: Mapping[str, Any]
    stops: frozenset[str]
    routes: frozenset[str]
    trips: frozenset[str]
    agencies: frozenset[str]
    periods: tuple[tuple[int | None, int | None], ...]

    def is_active(self, moment: float) -> bool:
        """Whether it holds at a time of Unix; without periods it always does."""
        return not self.periods or any(
            (start is None or start <= moment) and (end is None or moment < end)
            for start, end in self.periods
        )


def told_of(key: str, feed: str, document: Mapping[str, Any]) -> Told:
    """What a document says; what is malformed in it says nothing."""
    chosen = [each for each in _list(document.get("informedEntity")) if isinstance(each, dict)]
    trips = [trip for each in chosen if isinstance(trip := each.get("trip"), dict)]

    def named(entities: list[dict[str, Any]], name: str) -> frozenset[str]:
        values = (each.get(name) for each in entities)
        return frozenset(f"{feed}:{v}" for v in values if isinstance(v, str) and v)

    return Told(
        key,
        feed,
        document,
        stops=named(chosen, "stopId"),
        routes=named(chosen, "routeId") | named(trips, "routeId"),
        trips=named(trips, "tripId"),
        agencies=frozenset(v for each in chosen if isinstance(v := each.get("agencyId"), str)),
        periods=tuple(_periods(document)),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _periods(document: Mapping[str, Any]) -> Iterator[tuple[int | None, int | None]]:
    said = next((found for name in PERIODS if (found := _list(document.get(name)))), [])
    for each in said:
        if isinstance(each, dict):
            yield _moment(each.get("start")), _moment(each.get("end"))


def _moment(value: Any) -> int | None:
    """Seconds of Unix, a text in protobuf's JSON form; 0 is none, as some feeds write."""
    try:
        return int(value) or None
    except (TypeError, ValueError):
        return None


def alert_row(told: Told, languages: Sequence[str]) -> dict[str, Any]:
    """One alert, its texts in the first of these languages that it has."""
    document = told.document
    return {
        "id": told.id,
        "feed": told.feed,
        "cause": document.get("cause") or "UNKNOWN_CAUSE",
        "effect": document.get("effect") or "UNKNOWN_EFFECT",
        "severity": document.get("severityLevel") or "UNKNOWN_SEVERITY",
        "header": text_in(document.get("headerText"), languages),
        "description": text_in(document.get("descriptionText"), languages),
        "url": text_in(document.get("url"), languages),
        "periods": [{"start": _iso(start), "end": _iso(end)} for start, end in told.periods],
        "stops": sorted(told.stops),
        "routes": sorted(told.routes),
        "trips": sorted(told.trips),
        "agencies": sorted(told.agencies),
    }


def _iso(moment: int | None) -> str | None:
    if moment is None:
        return None
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def text_in(translated: Any, languages: Sequence[str]) -> str | None:
    """A TranslatedString in the first language that it has (RFC 4647, 3.4), else in its first."""
    said = _list(translated.get("translation")) if isinstance(translated, dict) else []
    texts = {
        str(each.get("language") or "").lower(): each["text"]
        for each in reversed(said)
        if isinstance(each, dict) and isinstance(each.get("text"), str)
    }
    for language in languages:
        tag = language.lower()
        while tag:
            for known, text in texts.items():
                if known == tag or known.startswith(f"{tag}-"):
                    return str(text)
            tag = tag.rpartition("-")[0]
    return str(next(reversed(texts.values()))) if texts else None


def family(timetable: Timetable, stop: str) -> frozenset[str]:
    """A stop, its station, and the platforms of it: what an alert about one means to the other."""
    stops = timetable.stops
    number = stops.ids.numbers.get(stop, NONE)
    if number == NONE:
        return frozenset({stop})
    parent = int(stops.parent[number])
    platforms = np.flatnonzero(stops.parent == number).tolist()
    own = [number, *platforms, *([] if parent == NONE else [parent])]
    return frozenset(stops.ids.texts[each] for each in own)
