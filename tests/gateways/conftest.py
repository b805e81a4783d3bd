"""Fixtures of the gateways' tests: a broker and the peer behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateways.mosquitto import Mosquitto, Peer
from tests.require import require


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto of this test's own."""
    running = Mosquitto(require("mosquitto"), tmp_path)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def peer(broker: Mosquitto) -> Iterator[Peer]:
    """What answers batches in the ingestor's place."""
    answering = Peer(broker.port)
    yield answering
    answering.close()
