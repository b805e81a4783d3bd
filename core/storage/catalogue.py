"""Things and Datastreams of one sector: known ones from memory, new ones made in the append."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.types.json import Jsonb

from core.clock import to_datetime
from core.resolution import UNDECLARED
from core.sector import Sector
from core.sensorthings import DataClass, ResultKind, Stream, ThingUpdate
from core.storage.columns import resized

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
# Who declares another class meanwhile waits for what is created with this one, and finds it.
SELECT_CLASSES = "SELECT id, data_class FROM gateway WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE"
UPDATE_THING = """
INSERT INTO thing AS t (sector, key, name, properties, longitude, latitude, geometry, told_at)
VALUES (%(sector)s, %(key)s, %(name)s, %(properties)s, %(longitude)s, %(latitude)s, %(geometry)s,
        %(told_at)s)
ON CONFLICT (sector, key) DO UPDATE SET
  name = coalesce(excluded.name, t.name), properties = t.properties || excluded.properties,
  longitude = coalesce(excluded.longitude, t.longitude),
  latitude = coalesce(excluded.latitude, t.latitude),
  geometry = coalesce(excluded.geometry, t.geometry),
  told_at = coalesce(excluded.told_at, t.told_at)
WHERE coalesce(excluded.told_at >= t.told_at, true)
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


class Datastream(NamedTuple):
    """One known Datastream."""

    id: int
    kind: ResultKind
    unit: str


@dataclass(slots=True)
class Catalogue:
    """What one process knows of one sector; forgotten after a failed append, whose ids are void.

    A nation has 208,000 Datastreams, so each is a number by property and Thing and a place in
    arrays by that number, 0.1 kB in all; what it means, (kind, unit), is one of few.
    """

    sector: Sector
    _ids: dict[str, dict[str, int]] = field(default_factory=dict)
    _meanings: dict[tuple[str, str], int] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)
    things: dict[str, int] = field(default_factory=dict)
    _described: dict[str, ThingUpdate] = field(default_factory=dict)
    _classes: dict[str, str | None] = field(default_factory=dict)
    _meaning_of: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
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
        self._learn(connection.execute(SELECT_DATASTREAMS, query))

    def forget(self) -> None:
        """Know nothing."""
        self._ids.clear()
        self.things.clear()
        self._codes.clear()
        self._described.clear()
        self._classes.clear()

    @property
    def size(self) -> int:
        """One more than the largest Datastream id known: the length of arrays indexed by id."""
        return len(self.thing_of)

    def _learn(self, found: Iterable[tuple[Any, ...]]) -> None:
        for identity, thing_id, key, name, kind, unit, data_class, decimals in found:
            if identity >= self.size:
                self._grow(identity + self.size // 4 + 1_000)
            if name not in self._ids:
                self._ids[name] = {}
            self._ids[name][key] = identity
            if key not in self.things:
                self.things[key] = thing_id
            code = self._meanings.setdefault((kind, unit), len(self._meanings))
            self._meaning_of[identity] = code
            self.thing_of[identity] = thing_id
            self.personal[identity] = data_class == DataClass.PERSONAL
            self.decimals[identity] = UNDECLARED if decimals is None else decimals

    def _grow(self, size: int) -> None:
        self._meaning_of = resized(self._meaning_of, size)
        self.thing_of = resized(self.thing_of, size)
        self.personal = resized(self.personal, size)
        self.decimals = resized(self.decimals, size, UNDECLARED)

    def datastreams(
        self,
        connection: Session,
        wanted: Mapping[tuple[str, str], tuple[Stream, ResultKind, str]],
    ) -> None:
        """Know every wanted (thing, property); what is missing is created.

        `wanted` maps to the stream, its kind and the gateway that first named it.
        """
        missing = {
            (thing, name): want
            for (thing, name), want in wanted.items()
            if thing not in self._ids.get(name, ())
        }
        if missing:
            self._gateways(connection, {gateway for _, _, gateway in missing.values()})
            self._create(connection, missing)

    def known(self, stream: Stream) -> Datastream:
        """The Datastream of a stream that `datastreams` was asked for."""
        identity = self._ids[stream.property][stream.thing]
        kind, unit = list(self._meanings)[self._meaning_of[identity]]
        return Datastream(identity, ResultKind(kind), unit)

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
            "classes": [
                self._class_of(gateway, stream.base_property)
                for stream, _, gateway in missing.values()
            ],
            "undeclared": [d is None for d in declared],
            "decimals": [d and d.decimals for d in declared],
        }
        connection.execute(INSERT_THINGS, {**parameters, "keys": sorted(set(keys))})
        connection.execute(INSERT_DATASTREAMS, parameters)
        known = {thing: thing for thing in keys}  # one text a Thing, whoever named it
        named = connection.execute(SELECT_NAMED, parameters)
        self._learn(
            (identity, thing_id, known[key], *rest) for identity, thing_id, key, *rest in named
        )

    def _gateways(self, connection: Session, ids: Iterable[str]) -> None:
        """Learn the classes of these gateways as they are declared now."""
        asked = sorted(set(ids))
        for query, part in (
            (UPSERT_GATEWAYS, [each for each in asked if each not in self._classes]),
            (SELECT_CLASSES, [each for each in asked if each in self._classes]),
        ):
            if part:
                self._classes.update(connection.execute(query, {"ids": part}).fetchall())

    def _class_of(self, gateway: str, observed_property: str = "") -> str:
        """The declared class, unless the operator declared another for what this gateway sends.

        What is personal stays personal: no declaration about a gateway can open it.
        """
        own = self.sector.class_of(observed_property)
        declared = self._classes.get(gateway)
        return own.value if own is DataClass.PERSONAL or declared is None else declared

    def describe(self, connection: Session, updates: Iterable[tuple[ThingUpdate, str]]) -> None:
        """Write what messages said of Things, where it is news."""
        asked: set[str] = set()
        for update, gateway in updates:
            known = self._described.get(update.thing)
            if known is not None and not _is_news(update, known):
                continue
            if gateway not in asked:
                self._gateways(connection, [gateway])
                asked.add(gateway)
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
                    "told_at": None if update.time is None else to_datetime(update.time),
                },
            ).fetchone()
            if update.location is not None and row is not None:
                place = {
                    "thing_id": row[0],
                    "sector": self.sector.name,
                    "longitude": longitude,
                    "latitude": latitude,
                    "data_class": self._class_of(gateway, update.seen_with),
                }
                connection.execute(UPSERT_FIXED_PLACE, place)
            if row is not None:
                self.things[update.thing] = row[0]
            self._described[update.thing] = update

    def text_of(self, code: int) -> str:
        """The text of a category's code that `codes` has given."""
        return next(text for text, known in self._codes.items() if known == code)

    def codes(self, connection: Session, texts: Iterable[str]) -> Mapping[str, int]:
        """The code of every category text; new texts get one."""
        missing = sorted(set(texts) - self._codes.keys())
        if missing:
            connection.execute(INSERT_CATEGORIES, {"texts": missing})
            self._codes.update(connection.execute(SELECT_CATEGORIES, {"texts": missing}).fetchall())
        return self._codes


def _is_news(update: ThingUpdate, known: ThingUpdate) -> bool:
    """Whether it says something else than what was said last, and is no older."""
    if update.time is not None and known.time is not None and update.time < known.time:
        return False
    return replace(update, time=None) != replace(known, time=None)
