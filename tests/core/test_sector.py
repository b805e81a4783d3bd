"""A property's own data class: what is personal stays so, whatever the sector or a gateway says."""

from dataclasses import replace

import psycopg
import pytest

from consent.decide import read_by_class
from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ObservationsBuilder
from core.storage.rejections import is_sealed
from ingest.check import check
from tests.domains.serving import store

NOON = 1_767_225_600_000_000
STATION = ObservedProperty("bikes", "自転車", "Bicycles", minimum=0, data_class=DataClass.OPEN)
RIDER = ObservedProperty("pulse", "脈", "Pulse", minimum=0, data_class=DataClass.PERSONAL)


def mixed(data_class: DataClass) -> Sector:
    return Sector("mixed", "混", "Mixed", data_class, (), (STATION, RIDER))


@pytest.mark.parametrize("default", list(DataClass))
def test_what_such_a_sector_is(default: DataClass) -> None:
    sector = mixed(default)
    assert sector.class_of("bikes") is DataClass.OPEN
    assert sector.class_of("pulse") is DataClass.PERSONAL
    assert sector.class_of("what nobody declared") is default
    assert sector.is_about_persons
    assert is_sealed(sector)
    assert read_by_class(sector)
    assert not read_by_class(replace(sector, properties=(RIDER,))) or default in {"open", "shared"}


@pytest.mark.parametrize("default", list(DataClass))
def test_where_its_rows_go(database_url: str, default: DataClass) -> None:
    """Each to its place, even from a gateway that an operator declared open."""
    sector = mixed(default)
    builder = ObservationsBuilder()
    for name in ("bikes", "pulse", "undeclared"):
        builder.add("thing", name, NOON, 1.0)
    decoded = check(sector, builder.build(), NOON, 60.0)
    assert [r.reason for r in decoded.rejected] == ["undeclared"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO gateway (id, data_class) VALUES ('g', 'open')")
        store(database_url, sector, [(decoded, NOON)])
        found = "SELECT d.property FROM {} o JOIN datastream d ON d.id = o.datastream_id"
        assert connection.execute(found.format("observation").encode()).fetchall() == [("bikes",)]
        kept = connection.execute(found.format("personal.observation").encode()).fetchall()
        assert kept == [("pulse",)]
