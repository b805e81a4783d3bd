"""GTFS-Realtime messages of a few entities, for tests."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.transit import gtfs_realtime_pb2 as pb

AT = 1_767_222_000
"""2026-01-01 08:00 in Japan."""


def message(*entities: Mapping[str, Any], time: int = AT, differential: bool = False) -> bytes:
    """A FeedMessage of entities in their JSON form."""
    feed = pb.FeedMessage()
    feed.header.gtfs_realtime_version = "2.0"
    feed.header.incrementality = int(differential)
    if time:
        feed.header.timestamp = time
    for entity in entities:
        json_format.ParseDict(dict(entity), feed.entity.add())
    return feed.SerializePartialToString()


def position(
    vehicle: str, longitude: float, latitude: float, trip: str | None = None, **more: Any
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "vehicle": {"id": vehicle},
        "position": {"longitude": longitude, "latitude": latitude},
        **more,
    }
    if trip is not None:
        told["trip"] = {"tripId": trip}
    return {"id": vehicle, "vehicle": told}


def update(trip: str, *stops: Mapping[str, Any], **told: Any) -> dict[str, Any]:
    return {
        "id": trip,
        "tripUpdate": {"trip": {"tripId": trip, **told}, "stopTimeUpdate": list(stops)},
    }


def alert(name: str, *selectors: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "alert": {"informedEntity": list(selectors), **more}}
