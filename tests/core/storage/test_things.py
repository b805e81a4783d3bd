"""What is said of a Thing: news is written, and nothing older takes the place of what is newer."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from core.sector import Sector
from core.sensorthings import DataClass, ThingUpdate
from core.storage.catalogue import Catalogue

SECTOR = Sector("toy", "例", "Toy", DataClass.OPEN, (), ())
NOW = 1_790_000_000_000_000


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(storage_url) as session:
        session.execute("SET ROLE chimata_ingest")
        session.commit()
        yield session


def name_of(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT name FROM thing WHERE key = 'a'").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("restarts", [False, True])
def test_an_older_word_never_takes_the_place_of_a_newer(
    connection: psycopg.Connection[Any], restarts: bool
) -> None:
    """Nor after a restart, when what was said before is not in memory; without a time: in turn."""
    catalogue = Catalogue(SECTOR)
    for name, time, standing in (
        ("first", NOW, "first"),
        ("stale", NOW - 1_000_000, "first"),
        ("second", NOW + 1_000_000, "second"),
        ("second", NOW + 2_000_000, "second"),
        ("first", NOW, "second"),
        ("untimed", None, "untimed"),
    ):
        if restarts:
            catalogue = Catalogue(SECTOR)
        update = ThingUpdate("a", name, location=(135.0, 35.0), time=time)
        catalogue.describe(connection, [(update, "g")])
        assert name_of(connection) == standing, name
