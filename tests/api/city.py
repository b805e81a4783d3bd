"""A small city in the database: what the tests of the gate and of the API read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from core.live import announce

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

INSERT_THING = """
INSERT INTO thing (sector, key, name, properties) VALUES (%s, %s, %s, %s)
ON CONFLICT (sector, key) DO UPDATE SET name = excluded.name RETURNING id
"""
INSERT_DATASTREAM = """
INSERT INTO datastream (thing_id, property, kind, unit, data_class) VALUES (%s, %s, %s, %s, %s)
RETURNING id
"""
INSERT_PLACE = "INSERT INTO thing_place VALUES (%s, %s, %s, %s, %s)"
INSERT_HEARD = "INSERT INTO thing_heard VALUES (%s, 'g', %s, %s)"
NEXT_APPEND = """
INSERT INTO sector_log VALUES (%s, 1)
ON CONFLICT (sector) DO UPDATE SET append_id = sector_log.append_id + 1 RETURNING append_id
"""
INSERT_CATEGORY = """
INSERT INTO category (text) VALUES (%s) ON CONFLICT (text) DO UPDATE SET text = excluded.text
RETURNING code
"""
INSERT_LATEST = """
INSERT INTO latest VALUES (%(d)s, %(t)s, %(t)s, %(result)s, %(document)s, %(longitude)s,
  %(latitude)s, %(speed)s, %(course)s, 0, %(append)s)
ON CONFLICT (datastream_id) DO UPDATE SET phenomenon_time = excluded.phenomenon_time,
  result = excluded.result, document = excluded.document, longitude = excluded.longitude,
  latitude = excluded.latitude
"""

Observed = tuple[int, datetime, Any]
"""Datastream id, phenomenon time, result."""


@dataclass(frozen=True, slots=True)
class City:
    """Writes as the ingestor does: rows, ledger and notice in one transaction."""

    connection: psycopg.Connection[tuple[Any, ...]]

    def one(self, query: str, *values: Any) -> int:
        """The single number that a statement returns."""
        row = self.connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return int(row[0])

    def thing(
        self,
        sector: str,
        key: str,
        *,
        at: tuple[float, float] | None = None,
        data_class: str = "open",
        name: str | None = None,
        heard: datetime | None = None,
    ) -> int:
        """A Thing; `at` is its place, of class `data_class`."""
        made = self.one(INSERT_THING, sector, key, name, Jsonb({"test": True}))
        if at is not None:
            self.connection.execute(INSERT_PLACE, (made, sector, *at, data_class))
        if heard is not None:
            self.connection.execute(INSERT_HEARD, (made, heard, heard))
        return made

    def datastream(
        self,
        thing: int,
        observed_property: str,
        kind: str = "number",
        unit: str = "1",
        data_class: str = "open",
    ) -> int:
        """A Datastream of a Thing."""
        return self.one(INSERT_DATASTREAM, thing, observed_property, kind, unit, data_class)

    def append(self, sector: str, observed: Sequence[Observed], *, latest: bool = True) -> int:
        """Store observations as one append, with its notice; returns its number."""
        kinds = dict(
            self.connection.execute("SELECT id, kind FROM datastream").fetchall(),
        )
        with self.connection.transaction():
            append_id = self.one(NEXT_APPEND, sector)
            times = [time for _, time, _ in observed]
            for time in {(t - START) // timedelta(days=1): t for t in times}.values():
                self.connection.execute("SELECT ensure_partition(%s)", (time,))
            for datastream, time, result in observed:
                self._store(kinds[datastream], datastream, time, result, append_id, latest=latest)
            self.connection.execute(
                "INSERT INTO append (sector, id, rows, time_min, time_max) VALUES (%s,%s,%s,%s,%s)",
                (sector, append_id, len(observed), min(times), max(times)),
            )
            announce(self.connection, sector, append_id, len(observed))
        return append_id

    def _store(
        self, kind: str, datastream: int, time: datetime, result: Any, append: int, *, latest: bool
    ) -> None:
        row: dict[str, Any] = dict.fromkeys(
            ("result", "document", "longitude", "latitude", "speed", "course")
        )
        row.update(d=datastream, t=time, append=append)
        match kind:
            case "position":
                row.update(zip(("longitude", "latitude", "speed", "course"), result, strict=True))
                insert = """INSERT INTO observation_position VALUES (%(t)s, %(longitude)s,
                  %(latitude)s, %(speed)s, %(course)s, %(append)s, %(d)s, 0)"""
            case "document":
                row["document"] = Jsonb(result)
                insert = """INSERT INTO observation_document VALUES
                  (%(t)s, %(append)s, %(d)s, 0, %(document)s)"""
            case _:
                category = kind == "category"
                row["result"] = self.one(INSERT_CATEGORY, result) if category else result
                insert = "INSERT INTO observation VALUES (%(t)s, %(result)s, %(append)s, %(d)s, 0)"
        self.connection.execute(insert.encode(), row)
        if latest:
            self.connection.execute(INSERT_LATEST.encode(), row)
