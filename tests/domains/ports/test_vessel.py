"""GET /v1/ports/vessels/{mmsi}: AIS lines decoded, stored, and read back as one vessel."""

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from core.clock import to_datetime
from core.sector import Context
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from domains.ports import decode, wire
from domains.ports.rules import eta_time, ship_type_text, station_kind, voyage_codes
from domains.ports.sector import SECTOR

MOMENT = 1_767_222_000_000_000
TIME = "2025-12-31T23:00:00Z"


def store(url: str, *lines: str) -> None:
    """As the pipeline does: decode, append, flush the latest values."""
    payload = "\n".join(lines).encode()
    decoded = decode.decode("nmea", payload, Context("g", MOMENT))
    assert decoded.rejected == ()
    digest = hashlib.sha256(payload).digest()
    message = Message("g", "nmea", "test", MOMENT, payload, digest, decoded, "b", 0)
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        sector_store = SectorStore(SECTOR)
        sector_store.append(connection, [message])
        flush = sector_store.drain()
        assert flush is not None
        flush.write(connection)
        connection.commit()


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    store(
        database_url,
        wire.position_report(
            431_000_001,
            139.77,
            35.62,
            speed_knots=10,
            course=None,
            heading=230,
            status=0,
            moment_us=MOMENT,
        ),
        *wire.static_report(
            431_000_001,
            "CHIMATA MARU",
            callsign="JD1234",
            imo=9_123_456,
            ship_type=82,
            dimensions=(100, 20, 8, 9),
            draught=6.5,
            destination="JP TYO>JP NGO",
            eta=(1, 2, 3, 4),
            moment_us=MOMENT,
        ),
        wire.position_report(
            2_111_111,
            None,
            None,
            speed_knots=None,
            course=None,
            heading=None,
            status=15,
            moment_us=MOMENT,
        ),
    )
    with TestClient(create_app(Settings(database_url=database_url))) as ready:
        yield ready


def test_vessel(client: TestClient) -> None:
    """Static data, voyage, movement and position; what is not available is null."""
    answer = client.get("/v1/ports/vessels/431000001")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    vessel = answer.json()
    speed = vessel["position"].pop("speed")
    assert speed == pytest.approx(5.14444, abs=1e-4)
    assert vessel == {
        "mmsi": "431000001",
        "station": "vessel",
        "name": "CHIMATA MARU",
        "callsign": "JD1234",
        "imo": 9_123_456,
        "ship_type": 82,
        "ship_type_text": "Tanker, hazardous category B",
        "length": 120,
        "beam": 17,
        "last_seen": TIME,
        "position": {
            "longitude": 139.77,
            "latitude": 35.62,
            "course": None,
            "phenomenon_time": TIME,
        },
        "movement": {
            "heading": 230,
            "rate_of_turn": None,
            "navigation_status": "under-way-using-engine",
        },
        "voyage": {
            "destination": "JP TYO>JP NGO",
            "origin_unlocode": "JPTYO",
            "destination_unlocode": "JPNGO",
            "eta": "2026-01-02T03:04:00Z",
            "draught": 6.5,
            "phenomenon_time": TIME,
        },
    }


def test_leading_zeros_may_be_left_out(client: TestClient) -> None:
    """A station without position, name or voyage is still a whole answer."""
    short, full = (client.get(f"/v1/ports/vessels/{m}") for m in ("2111111", "002111111"))
    assert short.json() == full.json()
    assert short.json()["station"] == "coast-station"
    assert short.json()["position"] is None
    assert short.json()["movement"]["navigation_status"] == "undefined"


def test_unknown_and_malformed(client: TestClient) -> None:
    assert client.get("/v1/ports/vessels/431999999").status_code == 404
    bad = client.get("/v1/ports/vessels/CHIMATA")
    assert bad.status_code == 422
    assert "mmsi" in bad.text


def test_openapi_documents_the_vessel(client: TestClient) -> None:
    schema: dict[str, Any] = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/ports/vessels/{mmsi}"]["get"]
    content = operation["responses"]["200"]["content"]["application/json"]
    assert content["schema"]["$ref"].endswith("/Vessel")
    assert schema["components"]["schemas"]["Vessel"]["examples"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("JP TYO", {"to": "JPTYO"}),
        ("JPTYO>JPNGO", {"from": "JPTYO", "to": "JPNGO"}),
        ("?? ???>US LAX", {"to": "USLAX"}),
        (">JP NGO", {"to": "JPNGO"}),
        ("TOKYO", {}),
        ("NAGOYA", {}),
        ("", {}),
    ],
)
def test_voyage_codes(text: str, codes: dict[str, str]) -> None:
    """Only what is written as SN.1/Circ.244 asks: TOKYO is no place in Tonga."""
    assert voyage_codes(text) == codes


def test_eta_year_is_the_nearest() -> None:
    """Over the turn of the year both ways; no time for a day that does not exist."""
    said_at = to_datetime(MOMENT)
    assert str(eta_time(1, 2, 3, 4, said_at)) == "2026-01-02 03:04:00+00:00"
    assert str(eta_time(12, 30, 3, 4, said_at)) == "2025-12-30 03:04:00+00:00"
    assert eta_time(2, 30, 3, 4, said_at) is None
    assert eta_time(1, 2, 24, 60, said_at) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, ""), (30, "Fishing"), (52, "Tug"), (70, "Cargo"), (84, "Tanker, hazardous category D")],
)
def test_ship_types(code: int, text: str) -> None:
    assert ship_type_text(code) == text


@pytest.mark.parametrize(
    ("mmsi", "kind"),
    [
        ("431000001", "vessel"),
        ("003669713", "coast-station"),
        ("992471017", "aid-to-navigation"),
        ("111232506", "sar-aircraft"),
        ("970010119", "ais-sart"),
    ],
)
def test_station_kinds(mmsi: str, kind: str) -> None:
    assert station_kind(mmsi) == kind
