"""From frames to the answer: decode, store, flush, and read the current state over HTTP."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from core.clock import now_us, parse_iso
from core.sector import Context
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from domains.signals import wire
from domains.signals.decode import decode
from domains.signals.sector import SECTOR
from tests.api.conftest import Served, serving

SECOND = 1_000_000
GREEN, RED = "protected-Movement-Allowed", "stop-And-Remain"


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with serving(Settings(database_url=database_url, data=tmp_path)) as running:
        yield running


class Pole:
    """A gateway and its ingestor, whose clock may be wrong by `skew_us`."""

    def __init__(self, served: Served, skew_us: int = 0) -> None:
        self.served = served
        self.skew_us = skew_us
        self.store = SectorStore(SECTOR)
        self.memory: dict[Any, Any] = {}

    def send(self, state: str, end_us: int, *, age_us: int = 0) -> None:
        """One frame of intersection 12-8804, stored and flushed; `end_us` is by the true clock."""
        received_at = now_us()
        payload = wire.build_spat(
            intersection_id=8804,
            region=12,
            moment_us=received_at - self.skew_us - age_us,
            groups=[(2, state, end_us - self.skew_us, None)],
        )
        decoded = decode("j2735", payload, Context("pole", received_at, self.memory))
        digest = hashlib.sha256(payload).digest()
        message = Message("pole", "j2735", "test", received_at, payload, digest, decoded)
        with psycopg.connect(self.served.database_url) as connection:
            connection.execute("SET ROLE chimata_ingest")
            connection.commit()
            self.store.append(connection, [message])
            flush = self.store.drain()
            assert flush is not None
            flush.write(connection)

    def read(self) -> dict[str, Any]:
        answer = self.served.get("/v1/signals/intersections/12-8804/spat")
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        body: dict[str, Any] = answer.json()
        return body


@pytest.mark.parametrize("skew_seconds", [0, 300, -300])
def test_current_then_unknown(served: Served, skew_seconds: int) -> None:
    """Green with its absolute end, whatever the gateway's clock says; unknown 2 s later."""
    pole = Pole(served, skew_seconds * SECOND)
    end = now_us() + 20 * SECOND
    pole.send(GREEN, end)
    body = pole.read()
    (group,) = body["groups"]
    assert (body["intersection"], group["signal_group"], group["state"]) == ("12-8804", 2, GREEN)
    assert abs(parse_iso(group["minimum_end_time"]) - end) < SECOND
    assert abs(body["clock_skew_seconds"] - skew_seconds) < 1
    assert parse_iso(body["valid_until"]) - parse_iso(body["as_of"]) <= 2 * SECOND
    assert group["maximum_end_time"] is None
    assert body["valid_until"].endswith("Z")
    time.sleep(max(0.0, (parse_iso(body["valid_until"]) - now_us()) / SECOND + 0.01))
    body = pole.read()
    assert body["valid_until"] is None
    assert body["groups"] == [
        {"signal_group": 2, "state": "unknown", "since": None, "minimum_end_time": None,
         "maximum_end_time": None, "valid_until": None},
    ]  # fmt: skip


def test_late_frames_do_not_become_current(served: Served) -> None:
    pole = Pole(served)
    end = now_us() + 20 * SECOND
    pole.send(RED, end, age_us=3600 * SECOND)
    assert pole.read()["groups"][0]["state"] == "unknown"
    pole.send(GREEN, end)
    pole.send(RED, end, age_us=60 * SECOND)
    assert pole.read()["groups"][0]["state"] == GREEN


def test_an_unknown_intersection_is_not_found(served: Served) -> None:
    answer = httpx.get(f"{served.url}/v1/signals/intersections/12-1/spat")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no intersection '12-1'"


def test_a_map_alone_has_no_groups(served: Served) -> None:
    pole = Pole(served)
    lanes = [{"id": 1, "approach": 1, "path": [(139.7, 35.6), (139.7001, 35.6)]}]
    payload = wire.build_map(
        intersection_id=8804, region=12, longitude=139.7, latitude=35.6, lanes=lanes
    )
    decoded = decode("j2735", payload, Context("pole", now_us(), pole.memory))
    digest = hashlib.sha256(payload).digest()
    message = Message("pole", "j2735", "test", now_us(), payload, digest, decoded)
    with psycopg.connect(served.database_url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        pole.store.append(connection, [message])
    assert (pole.read()["groups"], pole.read()["valid_until"]) == ([], None)
