"""A database that a feed is sent to, as the ingestors do, and what its overlay then is."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import domains
from consent.gate import Gate
from core.clock import EPOCH
from core.sector import Context
from core.sensorthings import Decoded
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.tokens import ANONYMOUS
from domains.mobility.decode import decode
from domains.mobility.network import load
from domains.mobility.network.timetable import Timetable
from domains.mobility.realtime import state
from domains.mobility.realtime.overlay import Overlay
from ingest.check import check
from tests.domains.mobility.timetables import Trip, timetable

MOBILITY = domains.sector("mobility")
STOPS = [(name, 135.0, 35.0 + number / 100) for number, name in enumerate("abcde")]
STATION = ("S", 135.0, 35.0)
EIGHT = 8 * 3600


def line(name: str, start: int, route: str = "r", direction: int = 0) -> Trip:
    """A trip from a to e, five minutes a leg and one at each stop."""
    calls = [(stop[0], start + 360 * n - 60, start + 360 * n) for n, stop in enumerate(STOPS)]
    return Trip(name, route, calls, direction)


def town() -> Timetable:
    """Trips t0, t1, ... that leave a from 8:00 on, each ten minutes; a belongs to station S."""
    trips = [line(f"t{n}", EIGHT + 600 * n) for n in range(6)]
    return timetable([*STOPS, STATION], trips, parents={"a": "S"})


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def rows(decoded: Decoded) -> Iterator[dict[str, Any]]:
    """What storage would answer of a decoded message."""
    columns = decoded.positions
    if columns is not None:
        for n, stream in enumerate(columns.stream.tolist()):
            yield {
                "thing": decoded.streams[stream].thing,
                "property": decoded.streams[stream].property,
                "time": EPOCH + timedelta(microseconds=int(columns.phenomenon_time[n])),
                "longitude": float(columns.longitude[n]),
                "latitude": float(columns.latitude[n]),
                "speed": float(columns.speed[n]),
                "course": float(columns.course[n]),
            }
    documents = decoded.documents
    if documents is not None:
        for n, stream in enumerate(documents.stream.tolist()):
            yield {
                "thing": decoded.streams[stream].thing,
                "property": decoded.streams[stream].property,
                "time": EPOCH + timedelta(microseconds=int(documents.phenomenon_time[n])),
                "document": documents.result[n],
            }


class Town:
    """One database, one feed's gateway with the memory of its decoder, one reader."""

    def __init__(self, url: str, feed: str = "bus") -> None:
        self.feed, self.timetable = feed, town()
        self.gate = Gate(Settings(database_url=url))
        self.session = psycopg.connect(url)
        self.session.execute("SET ROLE chimata_ingest")
        self.session.commit()
        self.store = SectorStore(MOBILITY)
        self.memory: dict[Any, Any] = {}

    def close(self) -> None:
        self.session.close()
        self.gate.close()

    def send(self, payload: bytes, received_at: float, *, drain: bool = True) -> Decoded:
        """Decode, check and append one message; `drain`: and write what is the latest now."""
        received = int(received_at * 1_000_000)
        decoded = decode("gtfs-rt", payload, Context(self.feed, received, self.memory))
        decoded = check(MOBILITY, decoded, received, 900)
        digest = hashlib.sha256(payload).digest()
        message = Message(self.feed, "gtfs-rt", "test", received, payload, digest, decoded)
        self.store.append(self.session, [message])
        if drain and (flush := self.store.drain()) is not None:
            flush.write(self.session)
            self.session.commit()
        return decoded

    def overlay(self, seconds: float, *, anew: bool = False) -> Overlay:
        """As a request at that time reads it; `anew`: in a process that has just started."""
        with self.gate.reading(ANONYMOUS, MOBILITY) as connection:
            if anew:
                return state.State().overlay(connection, self.timetable, at(seconds))
            return state.overlay(connection, self.timetable, at(seconds))


@contextmanager
def opened(url: str, feed: str = "bus", *, stored: bool = False) -> Iterator[Town]:
    """A town that is closed at the end; `stored`: with the timetables that its database has."""
    found = Town(url, feed)
    if stored:
        with found.gate.reading(ANONYMOUS, MOBILITY) as connection:
            found.timetable = load.timetable(connection)
    try:
        yield found
    finally:
        found.close()


def told(overlay: Overlay) -> dict[str, Any]:
    """An overlay as plain values, without its times."""
    return {
        "trips": {
            key: (
                each.cancelled, each.predicted, each.arrival.tolist(), each.departure.tolist(),
                each.skipped.tolist(),
            )
            for key, each in overlay.trips.items()
        },
        "closures": set(overlay.closures),
        "vehicles": {
            each.id: (each.time, each.longitude, each.latitude, each.trip, dict(each.document))
            for each in overlay.vehicles
        },
        "alerts": dict(overlay.alerts),
    }  # fmt: skip
