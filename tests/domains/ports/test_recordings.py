"""Real recordings: every line has a fate, and libais agrees with what was decoded."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.sector import Context
from core.sensorthings import Decoded
from domains.ports import decode, wire

RECEIVED = 1_767_225_600_000_000
RECORDINGS = {
    # messages, rejected, unchanged: counted by hand with grep and pyais
    "libais/tagblock.nmea": (5, 0, 0),
    "libais/test.aivdm": (263, 15, 0),
    "libais/typeexamples.nmea": (26, 0, 0),
    "pyais/ais_test_messages": (8, 0, 0),
    "pyais/gatehouse.nmea": (8, 1, 3),
    "pyais/mixed.txt": (23, 10, 1),
    "pyais/nmea_data_sample.txt": (898, 120, 0),
    "pyais/timestamped.ais": (8, 1, 3),
    "signalk/nais400-merrimac.log": (765, 62, 6),
}
KNOT = 1852 / 3600


def read(shared_data: Path, name: str) -> bytes:
    return (shared_data / "ais" / name).read_bytes()


def decoded(payload: bytes, format: str = "nmea") -> Decoded:
    return decode.decode(format, payload, Context("g", RECEIVED))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", RECORDINGS)
def test_counts(shared_data: Path, name: str) -> None:
    """Messages are the lines, and what was refused is what is wrong with them."""
    payload = read(shared_data, name)
    result = decoded(payload)
    assert (result.messages, len(result.rejected), result.unchanged) == RECORDINGS[name]
    assert result.messages == wire.count_messages(payload)
    for rejected in result.rejected:
        assert rejected.payload in payload
        assert rejected.reason
        assert rejected.detail


@pytest.mark.shared_data
@pytest.mark.parametrize("name", RECORDINGS)
def test_every_line_has_a_fate(shared_data: Path, name: str) -> None:
    """Cut between messages, each piece gives observations, rejections or is unchanged."""
    pieces: list[list[bytes]] = []
    open_parts = 0
    for line in filter(wire.is_message, read(shared_data, name).split(b"\n")):
        counted = wire.parts_of(line)
        if open_parts and counted and counted[0] > 1:
            pieces[-1].append(line)
        else:
            pieces.append([line])
        open_parts = counted[0] - counted[1] if counted else 0
    for piece in pieces:
        result = decoded(b"\n".join(piece))
        waits = len(piece) == 1 and wire.parts_of(piece[0]) not in (None, (1, 1))
        assert result.messages == len(piece)
        assert result.received or result.unchanged or waits, piece


def oracle(shared_data: Path, name: str) -> list[dict[str, Any]]:
    lines = read(shared_data, name).decode().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def positions_of(result: Decoded) -> list[tuple[str, float, float, float, float]]:
    assert result.positions is not None
    columns = result.positions
    return [
        (result.streams[stream].thing, *values)
        for stream, *values in zip(
            columns.stream.tolist(),
            columns.longitude.tolist(),
            columns.latitude.tolist(),
            columns.speed.tolist(),
            columns.course.tolist(),
            strict=True,
        )
    ]


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["libais/tagblock", "libais/typeexamples"])
def test_libais_agrees(shared_data: Path, name: str) -> None:
    """Positions, speeds, courses, headings, statuses and names against an independent decoder."""
    result = decoded(read(shared_data, f"{name}.nmea"))
    told = oracle(shared_data, f"{name}.json")
    placed = [
        message
        for message in told
        if message["type"] in decode._REPORTS
        and abs(message.get("lon", 181)) <= 180
        and abs(message.get("lat", 91)) <= 90
    ]
    ours = sorted(positions_of(result))
    theirs = sorted(placed, key=lambda message: (f"{message['mmsi']:09d}", message["lon"]))
    assert len(ours) == len(theirs) >= 3
    for (thing, longitude, latitude, speed, course), message in zip(ours, theirs, strict=True):
        assert int(thing) == message["mmsi"]
        assert longitude == pytest.approx(message["lon"], abs=2e-5)
        assert latitude == pytest.approx(message["lat"], abs=2e-5)
        if "speed" in message:
            assert speed == pytest.approx(message["speed"] * KNOT, abs=1e-4)
            assert course == pytest.approx(message["course"], abs=1e-3)
    assert {int(stream.thing) for stream in result.streams} == {m["mmsi"] for m in told}
    names = {int(u.thing): u.name for u in result.things if u.name}
    for message in told:
        if "shipname" in message:
            assert names[message["mmsi"]] == message["shipname"]


@pytest.mark.shared_data
def test_libais_agrees_on_times_and_voyages(shared_data: Path) -> None:
    """Tag block times; call sign, IMO number, destination, draught and dimensions of message 5."""
    result = decoded(read(shared_data, "libais/tagblock.nmea"))
    assert result.positions is not None
    times = {f"{time // 1_000_000}" for time in result.positions.phenomenon_time.tolist()}
    assert times == {"1418172113", "1418171722", "1418171561"}
    result = decoded(read(shared_data, "libais/typeexamples.nmea"))
    (theirs,) = (m for m in oracle(shared_data, "libais/typeexamples.json") if m["type"] == 5)
    (vessel,) = (u for u in result.things if u.thing == str(theirs["mmsi"]))
    assert vessel.properties["callsign"] == theirs["callsign"]
    assert str(vessel.properties["imo"]) == theirs["imo"]
    for side in ("to_bow", "to_stern", "to_port", "to_starboard"):
        assert vessel.properties[side] == theirs[side]
    assert vessel.properties["ship_type"] == theirs["shiptype"]
    assert result.documents is not None
    texts = [json.loads(document) for document in result.documents.result]
    assert {"text": theirs["destination"]} in texts


@pytest.mark.shared_data
def test_marine_cadastre(shared_data: Path) -> None:
    """1,000 rows, 1,000 vessels, one position each; none is refused."""
    payload = read(shared_data, "noaa/marinecadastre_20230111_sample.csv")
    result = decoded(payload, "csv")
    assert (result.messages, result.rejected) == (1_000, ())
    assert len(positions_of(result)) == len({p[0] for p in positions_of(result)}) == 1_000
    ours = {thing: (longitude, latitude) for thing, longitude, latitude, *_ in positions_of(result)}
    assert ours["367752440"] == (-70.75733, 43.07917)
