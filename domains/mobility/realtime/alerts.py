"""Alerts: what one says of a published timetable. Pure."""

from collections.abc import Mapping
from typing import Any

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
