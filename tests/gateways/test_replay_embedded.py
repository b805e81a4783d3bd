"""Replays into the embedded broker: MQTT 3.1.1 is found out, and tokens are what opens it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import CityError
from core.settings import Settings
from core.tokens import Role, Verifier, issue, load_keys
from deploy.broker import NatsBroker
from gateways.replay import ReplayResult, replay
from ingest.mqtt import MqttIngestor


@pytest.fixture
def embedded(tmp_path: Path, database_url: str) -> Iterator[NatsBroker]:
    """The embedded broker with its ingestor behind it."""
    keys = load_keys(tmp_path / "keys", create=True)
    verifier = Verifier(keys.signing)
    broker = NatsBroker(tmp_path / "broker", "127.0.0.1:-1", verifier.verify)
    broker.launch()
    settings = Settings.from_environment(broker.settings)
    ready = threading.Event()
    ingestor = MqttIngestor(replace(settings, database_url=database_url), ready.set)
    ingestor.start()
    assert ready.wait(30)
    yield broker
    ingestor.stop()
    broker.stop()


def run(broker: NatsBroker, folder: Path, token: str, gateway: str = "node-1") -> ReplayResult:
    path = folder / "kpi.csv"
    rows = "".join(
        f"2024-01-01T00:{i // 60:02d}:{i % 60:02d}Z,{-90 + i % 9}\n" for i in range(3_000)
    )
    path.write_text("time,rsrp(dBm)\n" + rows)
    return replay(
        sector="edge",
        format="csv",
        files=[path],
        to=f"mqtt://{broker.address}",
        gateway=gateway,
        token=token,
        outbox_folder=folder / "outbox",
        timeout_seconds=20.0,
    )


def test_its_own_token_opens_it_and_no_other(embedded: NatsBroker, tmp_path: Path) -> None:
    keys = load_keys(tmp_path / "keys")
    result = run(embedded, tmp_path, issue(keys, Role.GATEWAY, gateway="node-1"))
    assert (result.sent, result.received, result.stored) == (3, 3, 3_000)
    for token in ("wrong", issue(keys, Role.GATEWAY, gateway="node-2")):
        with pytest.raises(CityError) as caught:
            run(embedded, tmp_path, token)
        assert caught.value.slug == "unauthenticated"
