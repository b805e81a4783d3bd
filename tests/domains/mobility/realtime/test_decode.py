"""GTFS-Realtime in: what is taken, what is rejected and why, and what is news."""

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.transit import gtfs_realtime_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sector import Context
from core.sensorthings import Decoded
from domains.mobility.decode import decode
from domains.mobility.realtime import wire
from tests.domains.mobility.realtime.feeds import AT, alert, message, position, update

RECEIVED_AT = (AT + 5) * 1_000_000


def context(memory: dict[Any, Any] | None = None) -> Context:
    return Context("bus", RECEIVED_AT, {} if memory is None else memory)


def taken(payload: bytes, memory: dict[Any, Any] | None = None) -> Decoded:
    return decode("gtfs-rt", payload, context(memory))


def said(decoded: Decoded) -> dict[tuple[str, str], Any]:
    """Documents by Thing and property."""
    if decoded.documents is None:
        return {}
    streams = [decoded.streams[n] for n in decoded.documents.stream]
    results = map(orjson.loads, decoded.documents.result)
    return {(s.thing, s.property): each for s, each in zip(streams, results, strict=True)}


def reasons(decoded: Decoded) -> list[str]:
    return [each.reason for each in decoded.rejected]


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("trip_updates", "trip-update", 19), ("vehicle_positions", "vehicle-journey", 14)],
)
def test_a_real_feed(shared_data: Path, name: str, kind: str, count: int) -> None:
    """Caltrain's: both forms say the same, and nothing is refused."""
    payload = (shared_data / f"gtfs/caltrain-2023/{name}.pb").read_bytes()
    decoded = taken(payload)
    assert decoded.messages == count
    assert not decoded.rejected
    assert sum(1 for _, each in said(decoded) if each == kind) == count
    told = json_format.MessageToDict(pb.FeedMessage.FromString(payload))
    again = decode("gtfs-rt-json", orjson.dumps(told), context())
    assert said(again) == said(decoded)


def test_a_message_without_entities_says_nothing(shared_data: Path) -> None:
    payload = (shared_data / "gtfs/caltrain-2023/service_alerts_empty.pb").read_bytes()
    decoded = taken(payload)
    assert decoded.received == decoded.messages == 0


def test_the_json_form_is_protobufs() -> None:
    """Held against the library's own, which is five times as slow."""
    feed = message(position("7", 140.0, 36.0), update("t", {"stopId": "a"}), alert("x"))
    read = pb.FeedMessage.FromString(feed)
    assert wire.to_json(read) == json_format.MessageToDict(read)


@pytest.mark.parametrize(
    ("entity", "reason", "detail"),
    [
        ({"id": "1", "vehicle": {"position": {"latitude": 91, "longitude": 0}}},
         "invalid-position", "entity '1': vehicle.position.latitude is outside"),
        ({"id": "1", "vehicle": {"position": {"latitude": "NaN", "longitude": 0}}},
         "invalid-position", "entity '1': vehicle.position.latitude is outside"),
        ({"id": "1", "vehicle": {"position": {"latitude": 0, "longitude": 0}}},
         "invalid-position", "entity '1': vehicle.position: 0, 0"),
        ({"id": "1", "vehicle": {"vehicle": {"id": "7"}}},
         "invalid-position", "entity '1': vehicle.position: is missing"),
        ({"id": "1", "vehicle": {"position": {"latitude": 1, "longitude": 1},
                                 "timestamp": AT * 1000}},
         "bad-time", "entity '1': vehicle.timestamp: "),
        ({"id": "1", "vehicle": {"position": {"latitude": 1, "longitude": 1}, "timestamp": 5}},
         "bad-time", "entity '1': vehicle.timestamp: 5 is before 2001"),
        ({"id": "x" * 300, "vehicle": {"position": {"latitude": 1, "longitude": 1}}},
         "invalid-id", "vehicle.vehicle.id: is longer than"),
        ({"id": "1", "tripUpdate": {"trip": {"startDate": "20260101"}}},
         "invalid-trip", "entity '1': trip_update.trip.trip_id: is missing"),
        ({"id": "1", "tripUpdate": {"trip": {"tripId": "t", "startDate": "20260231"}}},
         "invalid-trip", "entity '1': trip_update.trip.start_date: '20260231' is not"),
        ({"id": "1", "tripUpdate": {"trip": {"tripId": "t", "startTime": "noon"}}},
         "invalid-trip", "entity '1': trip_update.trip.start_time: 'noon' is not"),
        ({"id": "1", "tripUpdate": {"trip": {"tripId": "t"}, "stopTimeUpdate": [
            {"stopSequence": 1, "arrival": {"delay": 10**9}}]}},
         "bad-time", "entity '1': trip_update.stop_time_update[0].arrival: 1000000000 is more"),
        ({"id": "1", "tripUpdate": {"trip": {"tripId": "t"}, "stopTimeUpdate": [
            {"stopSequence": 1, "departure": {"time": 2**62}}]}},
         "bad-time", "entity '1': trip_update.stop_time_update[0].departure: "),
        ({"id": "1", "alert": {"headerText": {"translation": [{"text": "a\0b"}]}}},
         "invalid-text", "entity '1': alert.a text holds the character U+0000"),
        ({"id": "1"}, "invalid-entity", "entity '1': holds no trip_update, vehicle or alert"),
        ({"id": ""}, "invalid-entity", "entity.id: is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_stops_nothing_else(
    entity: dict[str, Any], reason: str, detail: str
) -> None:
    """And what is kept of it can be sent again by itself."""
    decoded = taken(message(entity, position("9", 140.0, 36.0)))
    assert reasons(decoded) == [reason]
    assert detail in decoded.rejected[0].detail
    assert decoded.positions is not None
    assert len(decoded.positions.stream) == 1
    again = taken(decoded.rejected[0].payload)
    assert reasons(again) == [reason]
    assert again.messages == 1


def test_a_text_that_is_not_utf_8() -> None:
    good = message(position("9", 140.0, 36.0, trip="t-xyz"))
    decoded = taken(good.replace(b"t-xyz", b"t-\xff\xfe\xfd"))
    assert reasons(decoded) == ["invalid-text"]
    assert taken(good.replace(b"t-xyz", b"t-\xff\xfe\xfd")).rejected


@given(cut=st.integers(1, 400))
@settings(deadline=None)
def test_what_breaks_off_keeps_what_came_before(cut: int) -> None:
    whole = message(*(position(str(n), 140.0, 36.0) for n in range(5)))
    payload = whole[: max(0, len(whole) - cut)]
    decoded = taken(payload)
    places = 0 if decoded.positions is None else len(decoded.positions.stream)
    try:
        whole_entities = len(pb.FeedMessage.FromString(payload).entity)
    except DecodeError:
        assert len(decoded.rejected) == 1
        assert places < 5
    else:  # cut between two
        assert places == whole_entities
        assert bool(decoded.rejected) == (payload == b"")


def test_one_broken_entity_is_cut_out() -> None:
    """The bytes of the second of three are no FeedEntity."""
    head = message()
    parts = [pb.FeedMessage.FromString(message(position(n, 140.0, 36.0))) for n in "ab"]
    a, b = (b"\x12" + bytes([len(raw)]) + raw for raw in (
        part.entity[0].SerializeToString() for part in parts))  # fmt: skip
    decoded = taken(head + a + b"\x12\x03\x0a\x7fx" + b)
    assert decoded.positions is not None
    assert len(decoded.positions.stream) == 2
    assert reasons(decoded) == ["invalid-entity"]


def test_too_many_entities_are_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ENTITIES_MAX", 3)
    payload = message(*(position(str(n), 140.0, 36.0) for n in range(4)))
    assert reasons(taken(payload)) == ["too-many-entities"]
    told = json_format.MessageToDict(pb.FeedMessage.FromString(payload))
    assert reasons(decode("gtfs-rt-json", orjson.dumps(told), context())) == ["too-many-entities"]


def test_times_default_to_the_headers_and_to_when_it_was_received() -> None:
    decoded = taken(message(position("7", 140.0, 36.0), time=AT - 3))
    assert decoded.positions is not None
    assert decoded.positions.phenomenon_time.tolist() == [(AT - 3) * 1_000_000]
    decoded = taken(message(position("7", 140.0, 36.0), time=0))
    assert decoded.positions is not None
    assert decoded.positions.phenomenon_time.tolist() == [RECEIVED_AT]
    absurd = taken(message(position("7", 140.0, 36.0), time=AT * 1000))
    assert reasons(absurd) == ["bad-time"]
    assert absurd.positions is not None


def test_courses_and_speeds_that_are_none_are_left_out() -> None:
    entity = position("7", 140.0, 36.0)
    entity["vehicle"]["position"] |= {"bearing": 400, "speed": "Infinity"}
    columns = taken(message(entity)).positions
    assert columns is not None
    assert math.isnan(columns.course[0])
    assert math.isnan(columns.speed[0])


def test_only_news_is_observed_and_again_after_a_while() -> None:
    """But each position is; and what came late never follows what is newer."""
    memory: dict[Any, Any] = {}

    def heard(at: int, stop: str) -> bool:
        entity = position("7", 140.0, 36.0)
        entity["vehicle"] |= {"stopId": stop, "timestamp": at}
        decoded = taken(message(entity, time=at), memory)
        assert decoded.positions is not None
        return ("bus:vehicle:7", "vehicle-journey") in said(decoded)

    assert heard(AT, "a")
    assert not heard(AT + 1, "a")
    assert heard(AT + 2, "b")
    assert not heard(AT + 1, "c")
    assert not heard(AT + 3, "b")
    assert heard(AT + 40, "b")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.mobility.realtime.decode.THINGS_MAX", 10)
    memory: dict[Any, Any] = {}
    taken(message(*(position(str(n), 140.0, 36.0) for n in range(50))), memory)
    assert len(memory["gtfs-rt"].said) <= 10


def test_a_slash_in_an_id() -> None:
    decoded = taken(message(update("weekday/8%1", {"stopId": "a"})))
    assert ("bus:trip:weekday%2F8%251", "trip-update") in said(decoded)


def test_what_is_taken_back_by_a_differential_message() -> None:
    gone = {**alert("x"), "isDeleted": True}
    assert said(taken(message(gone, differential=True))) == {
        ("bus:alert:x", "alert"): {"isDeleted": True}
    }
    assert ("bus:alert:x", "alert") in said(taken(message(gone)))  # a full one cannot
