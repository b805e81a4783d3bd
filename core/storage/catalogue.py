"""Things and Datastreams of one sector: known ones from memory, new ones made in the append."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.types.json import Jsonb

from core.resolution import UNDECLARED
from core.sector import Sector
from core.sensorthings import DataClass, ResultKind, Stream, ThingUpdate

Session = Connection[tuple[Any, ...]]

SELECT_DATASTREAMS = """
SELECT d.id, t.id, t.key, d.property, d.kind, d.unit, d.data_class, d.decimals
FROM datastream d JOIN thing t ON t.id = d.thing_id WHERE t.sector = %(sector)s AND d.id > %(after)s
"""
# How results are read back goes by the newest declaration (core/resolution.py).
UPDATE_DECIMALS = """
UPDATE datastream d SET decimals = n.decimals
FROM unnest(%(names)s::text[], %(decimals)s::smallint[]) AS n (name, decimals), thing t
WHERE t.id = d.thing_id AND t.sector = %(sector)s AND split_part(d.property, '/', 1) = n.name
  AND NOT d.undeclared AND d.decimals IS DISTINCT FROM n.decimals
"""
INSERT_THINGS = """
INSERT INTO thing (sector, key) SELECT %(sector)s, unnest(%(keys)s::text[])
ON CONFLICT (sector, key) DO NOTHING
"""
INSERT_DATASTREAMS = """
INSERT INTO datastream (thing_id, property, kind, unit, data_class, undeclared, decimals)
SELECT t.id, n.property, n.kind, n.unit, n.data_class, n.undeclared, n.decimals
FROM unnest(%(keys)s::text[], %(properties)s::text[], %(kinds)s::text[], %(units)s::text[],
            %(classes)s::text[], %(undeclared)s::boolean[], %(decimals)s::smallint[])
  AS n (key, property, kind, unit, data_class, undeclared, decimals)
JOIN thing t ON t.sector = %(sector)s AND t.key = n.key
ON CONFLICT (thing_id, property) DO NOTHING
"""
SELECT_NAMED = """
SELECT d.id, t.id, t.key, d.property, d.kind, d.unit, d.data_class, d.decimals
FROM unnest(%(keys)s::text[], %(properties)s::text[]) AS n (key, property)
JOIN thing t ON t.sector = %(sector)s AND t.key = n.key
JOIN datastream d ON d.thing_id = t.id AND d.property = n.property
"""
UPSERT_GATEWAYS = """
INSERT INTO gateway (id) SELECT unnest(%(ids)s::text[])
ON CONFLICT (id) DO UPDATE SET last_seen = now()
RETURNING id, data_class
"""
UPDATE_THING = """
INSERT INTO thing AS t (sector, key, name, properties, longitude, latitude, geometry)
VALUES (%(sector)s, %(key)s, %(name)s, %(properties)s, %(longitude)s, %(latitude)s, %(geometry)s)
ON CONFLICT (sector, key) DO UPDATE SET
  name = coalesce(excluded.name, t.name), properties = t.properties || excluded.properties,
  longitude = coalesce(excluded.longitude, t.longitude),
  latitude = coalesce(excluded.latitude, t.latitude),
  geometry = coalesce(excluded.geometry, t.geometry)
RETURNING id
"""
UPSERT_FIXED_PLACE = """
INSERT INTO thing_place (thing_id, sector, longitude, latitude, data_class)
VALUES (%(thing_id)s, %(sector)s, %(longitude)s, %(latitude)s, %(data_class)s)
ON CONFLICT (thing_id) DO UPDATE SET longitude = excluded.longitude, latitude = excluded.latitude
"""
INSERT_CATEGORIES = """
INSERT INTO category (text) SELECT unnest(%(texts)s::text[]) ON CONFLICT (text) DO NOTHING
"""
SELECT_CATEGORIES = "SELECT text, code FROM category WHERE text = ANY(%(texts)s)"


@dataclass(frozen=True, slots=True)
class Datastream:
    """One known Datastream and its Thing's database id."""

    id: int
    thing_id: int
    kind: ResultKind
    unit: str
    data_class: DataClass


@dataclass(slots=True)
class Catalogue:
    """What one process knows of one sector; forgotten after a failed append, whose ids are void."""

    sector: Sector
    _by_name: dict[tuple[str, str], Datastream] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)
    things: dict[str, int] = field(default_factory=dict)
    _described: dict[str, ThingUpdate] = field(default_factory=dict)
    _classes: dict[str, str | None] = field(default_factory=dict)
    thing_of: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    personal: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    decimals: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))

    def load(self, connection: Session) -> None:
        """Read every Datastream of the sector."""
        self.forget()
        declared = self.sector.properties
        connection.execute(
            UPDATE_DECIMALS,
            {
                "sector": self.sector.name,
                "names": [each.name for each in declared],
                "decimals": [each.decimals for each in declared],
            },
        )
        query = {"sector": self.sector.name, "after": 0}
        self._learn(connection.execute(SELECT_DATASTREAMS, query).fetchall())

    def forget(self) -> None:
        """Know nothing."""
        self._by_name.clear()
        self.things.clear()
        self._codes.clear()
        self._described.clear()
        self._classes.clear()

    @property
    def size(self) -> int:
        """One more than the largest Datastream id known: the length of arrays indexed by id."""
        return len(self.thing_of)

    def _learn(self, found: Sequence[tuple[Any, ...]]) -> None:
        if not found:
            return
        needed = max(row[0] for row in found) + 1
        if needed > self.size:
            extra = max(needed, self.size * 2) - self.size
            self.thing_of = np.concatenate([self.thing_of, np.zeros(extra, np.int32)])
            self.personal = np.concatenate([self.personal, np.zeros(extra, np.bool_)])
            self.decimals = np.concatenate([self.decimals, np.full(extra, UNDECLARED, np.int8)])
        for identity, thing_id, key, name, kind, unit, data_class, decimals in found:
            known = Datastream(identity, thing_id, ResultKind(kind), unit, DataClass(data_class))
            self._by_name[key, name] = known
            self.things[key] = thing_id
            self.thing_of[identity] = thing_id
            self.personal[identity] = known.data_class is DataClass.PERSONAL
            self.decimals[identity] = UNDECLARED if decimals is None else decimals

    def datastreams(
        self,
        connection: Session,
        wanted: Mapping[tuple[str, str], tuple[Stream, ResultKind, str]],
    ) -> None:
        """Know every wanted (thing, property); what is missing is created.

        `wanted` maps to the stream, its kind and the gateway that first named it.
        """
        missing = {name: want for name, want in wanted.items() if name not in self._by_name}
        if missing:
            self._gateways(connection, {gateway for _, _, gateway in missing.values()})
            self._create(connection, missing)

    def known(self, stream: Stream) -> Datastream:
        """The Datastream of a stream that `datastreams` was asked for."""
        return self._by_name[stream.thing, stream.property]

    def _create(
        self,
        connection: Session,
        missing: Mapping[tuple[str, str], tuple[Stream, ResultKind, str]],
    ) -> None:
        keys = [thing for thing, _ in missing]
        names = [name for _, name in missing]
        declared = [self.sector.by_name.get(s.base_property) for s, _, _ in missing.values()]
        parameters = {
            "sector": self.sector.name,
            "keys": keys,
            "properties": names,
            "kinds": [kind.value for _, kind, _ in missing.values()],
            "units": [
                (d.unit if d else None) or s.unit or "1"
                for d, (s, _, _) in zip(declared, missing.values(), strict=True)
            ],
            "classes": [self._class_of(gateway) for _, _, gateway in missing.values()],
            "undeclared": [d is None for d in declared],
            "decimals": [d and d.decimals for d in declared],
        }
        connection.execute(INSERT_THINGS, {**parameters, "keys": sorted(set(keys))})
        connection.execute(INSERT_DATASTREAMS, parameters)
        self._learn(connection.execute(SELECT_NAMED, parameters).fetchall())

    def _gateways(self, connection: Session, ids: Iterable[str]) -> None:
        new = sorted(set(ids) - self._classes.keys())
        if new:
            self._classes.update(connection.execute(UPSERT_GATEWAYS, {"ids": new}).fetchall())

    def _class_of(self, gateway: str) -> str:
        """The sector's class, unless the operator declared another for what this gateway sends.

        A personal sector stays personal: no declaration about a gateway can open it.
        """
        own = self.sector.data_class
        declared = self._classes.get(gateway)
        return own.value if own is DataClass.PERSONAL or declared is None else declared

    def describe(self, connection: Session, updates: Iterable[tuple[ThingUpdate, str]]) -> None:
        """Write what messages said of Things, where it is news."""
        for update, gateway in updates:
            if self._described.get(update.thing) == update:
                continue
            self._gateways(connection, [gateway])
            longitude, latitude = update.location or (None, None)
            row = connection.execute(
                UPDATE_THING,
                {
                    "sector": self.sector.name,
                    "key": update.thing,
                    "name": update.name,
                    "properties": Jsonb(dict(update.properties)),
                    "longitude": longitude,
                    "latitude": latitude,
                    "geometry": Jsonb(dict(update.geometry)) if update.geometry else None,
                },
            ).fetchone()
            if update.location is not None and row is not None:
                place = {
                    "thing_id": row[0],
                    "sector": self.sector.name,
                    "longitude": longitude,
                    "latitude": latitude,
                    "data_class": self._class_of(gateway),
                }
                connection.execute(UPSERT_FIXED_PLACE, place)
            if row is not None:
                self.things[update.thing] = row[0]
            self._described[update.thing] = update

    def codes(self, connection: Session, texts: Iterable[str]) -> Mapping[str, int]:
        """The code of every category text; new texts get one."""
        missing = sorted(set(texts) - self._codes.keys())
        if missing:
            connection.execute(INSERT_CATEGORIES, {"texts": missing})
            self._codes.update(connection.execute(SELECT_CATEGORIES, {"texts": missing}).fetchall())
        return self._codes
