"""Tracks and taps: a bus line's trips as riders' files, hostile XML, and what moves too fast."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import from_datetime
from core.sector import Context
from core.sensorthings import Decoded, Quality
from domains.mobility import wire
from domains.mobility.decode import decode
from domains.mobility.rules import SPEED_MAX, derive
from domains.mobility.wire import Point, Tap
from tests.domains.mobility.trips import trips

CONTEXT = Context("phone", from_datetime(datetime(2026, 1, 1, tzinfo=UTC)))
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def test_a_bus_lines_trips_as_tracks(shared_data: Path) -> None:
    """Every point comes out as it went in, none of them is implausible."""
    for trip in trips(shared_data, 20):
        decoded = derive(decode("gpx", wire.write_gpx(trip.track, "phone-9"), CONTEXT))
        columns = decoded.positions
        assert columns is not None
        assert decoded.messages == len(trip.track) == len(columns.stream)
        assert {stream.thing for stream in decoded.streams} == {"phone-9"}
        assert columns.phenomenon_time.tolist() == [from_datetime(p.time) for p in trip.track]
        assert columns.longitude.tolist() == [p.longitude for p in trip.track]
        assert columns.latitude.tolist() == [p.latitude for p in trip.track]
        assert columns.quality is None


def test_a_bus_lines_trips_as_taps(shared_data: Path) -> None:
    ridden = trips(shared_data, 50)
    payload = wire.write_tap_csv(tap for trip in ridden for tap in trip.taps)
    decoded = decode("tap-csv", payload, CONTEXT)
    assert not decoded.rejected
    assert decoded.documents is not None
    assert len(decoded.documents.stream) == 100
    assert {stream.property for stream in decoded.streams} == {"tap/in", "tap/out", "fare"}
    assert decoded.numbers is not None
    paid = [trip.taps[1].fare for trip in ridden if trip.taps[1].fare is not None]
    assert decoded.numbers.result.tolist() == paid != []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'<!DOCTYPE gpx [<!ENTITY a "b">]><gpx/>', "invalid-xml"),
        (b'<!DOCTYPE gpx SYSTEM "file:///etc/passwd"><gpx/>', "invalid-xml"),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE gpx><gpx/>'.encode("utf-16"),
         "invalid-xml"),
        (b"<gpx><trk></gpx>", "invalid-xml"),
        (b"<kml/>", "invalid-gpx"),
        (b'<?xml version="1.0" encoding="nope"?><gpx/>', "invalid-xml"),
    ],
)  # fmt: skip
def test_what_is_no_gpx_is_kept_whole(payload: bytes, reason: str) -> None:
    decoded = decode("gpx", payload, CONTEXT)
    assert [(r.reason, r.payload) for r in decoded.rejected] == [(reason, payload)]
    assert decoded.observations == 0


def test_a_file_of_too_many_points_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "POINTS_MAX", 3)
    payload = wire.write_gpx([Point(NOON, 140.0, 42.0)] * 4)
    assert [r.reason for r in decode("gpx", payload, CONTEXT).rejected] == ["too-many-points"]


def test_a_column_that_nobody_agreed_to_is_refused() -> None:
    payload = b"time,card,event,stop,name\n2025-06-01T12:00:00Z,c,in,s,Ai\n"
    assert [r.reason for r in decode("tap-csv", payload, CONTEXT).rejected] == ["bad-header"]


def test_what_moves_too_fast_is_marked() -> None:
    """By its own word, or by its neighbours; another Thing's position is no neighbour."""
    second = timedelta(seconds=1)
    points = [
        Point(NOON, 140.0, 42.0),
        Point(NOON + second, 140.001, 42.0, speed=SPEED_MAX + 1),
        Point(NOON + 2 * second, 140.1, 42.0),
        Point(NOON + 60 * second, 140.1, 42.0),
    ]
    first = wire.write_gpx([points[0], *points[2:]], "a").replace(b"</gpx>\n", b"")
    other = wire.write_gpx([Point(NOON, 0.0, 0.0)], "b").partition(b"<trk>")
    columns = derive(decode("gpx", first + b"<trk>" + other[2], CONTEXT)).positions
    assert columns is not None
    assert columns.quality is not None
    assert columns.quality.tolist() == [0, Quality.SUSPECT, 0, 0]
    marked = derive(decode("gpx", wire.write_gpx(points[:2]), CONTEXT)).positions
    assert marked is not None
    assert marked.quality is not None
    assert marked.quality.tolist() == [0, Quality.OUT_OF_RANGE]


def test_nothing_to_mark_changes_nothing() -> None:
    decoded = Decoded()
    assert derive(decoded) is decoded


texts = st.text(
    st.characters(categories=["L", "N"], exclude_characters=","), min_size=1, max_size=20
)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2025, 1, 1), timezones=st.just(UTC))
taps = st.builds(
    Tap, moments, texts, st.sampled_from(wire.EVENTS), texts, st.none() | texts, st.none() | texts,
    st.none() | st.integers(0, 10**6),
)  # fmt: skip


@given(st.lists(taps, max_size=5))
def test_taps_come_back_as_they_were_written(written: list[Tap]) -> None:
    assert [item.read for item in wire.read_tap_csv(wire.write_tap_csv(written))] == written


points = st.builds(Point, moments, st.floats(-180, 180), st.floats(-90, 90))


@given(st.lists(points, max_size=5), st.none() | texts)
def test_tracks_come_back_as_they_were_written(written: list[Point], source: str | None) -> None:
    items = wire.read_gpx(wire.write_gpx(written, source))
    read = [item.read for item in items]
    assert {item.source for item in items} <= {source}
    assert np.array_equal(
        [(p.time, p.longitude, p.latitude) for p in read if isinstance(p, Point)],
        [(p.time, p.longitude, p.latitude) for p in written],
    )
