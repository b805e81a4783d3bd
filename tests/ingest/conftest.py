"""Fixtures of the ingestors' tests: an installation, a running pipeline, a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from core.tokens import Keys, load_keys
from tests.gateways.mosquitto import Mosquitto
from tests.ingest.helpers import Channel, Database, running
from tests.require import require


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """An installation of this test's own: database, keys."""
    load_keys(tmp_path / "data" / "keys", create=True)
    return Settings(database_url=database_url, data=tmp_path / "data", batch_seconds_max=0.02)


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return load_keys(settings.data / "keys")


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url)


@pytest.fixture
def channel(settings: Settings) -> Iterator[Channel]:
    """A pipeline that runs for this test."""
    with running(settings) as started:
        yield started


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto of this test's own."""
    started = Mosquitto(require("mosquitto"), tmp_path)
    started.start()
    yield started
    started.kill()
