"""Export through the gate: a sector's closed days, as the archive's principal may read them.

What an archived day once held stays in it: stored rows take the place of archived ones with the
same key, and rows that retention has dropped meanwhile are kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consent.decide import READ_SHARED, read_by_class
from consent.gate import Gate, PermittedConnection
from core import archive
from core.resolution import served
from core.sector import Sector
from core.storage.columns import DOCUMENT, POSTGRES_EPOCH_US, SHAPES, Shape
from core.tokens import Principal, Role

ARCHIVIST = Principal(Role.OPERATOR, "archive", None, None, frozenset({READ_SHARED}), 0)
"""Who exports: reads what is open and what is shared, and nothing that is personal."""
CLOSED_AFTER = timedelta(hours=1)
"""A day is closed this long after its end."""
ROWS_A_TABLE = 65_536
CATEGORIES_MAX = 1_000_000
WRITTEN, UNCHANGED, EMPTY = "written", "unchanged", "empty"

DESCRIBED = ("thing", "property", "kind", "unit", "data_class")
"""What every row of a Datastream repeats."""

# ruff: noqa: S608 - the parts are constants of this file

VISIBLE = """
  EXISTS (SELECT FROM datastream d JOIN thing t ON t.id = d.thing_id
          WHERE t.sector = %(sector)s AND d.data_class = ANY(%(classes)s))"""
SELECT_POSITION = f"""
SELECT a.id, a.committed_at
FROM sector_log s JOIN append a ON (a.sector, a.id) = (s.sector, s.append_id)
WHERE s.sector = %(sector)s AND {VISIBLE}
"""
# Any later append whose times touch the day, or no append that was the log's when it was archived.
SELECT_CHANGED = f"""
SELECT NOT EXISTS (SELECT FROM append WHERE sector = %(sector)s AND id = %(append)s
                   AND committed_at = %(committed_at)s::timestamptz)
    OR EXISTS (SELECT FROM append WHERE sector = %(sector)s AND id > %(append)s
               AND time_min < %(upper)s AND time_max >= %(lower)s) AS changed
WHERE {VISIBLE}
"""
SELECT_FIRST = f"""
SELECT min(time_min) AS first FROM append WHERE sector = %(sector)s AND {VISIBLE}
"""
# In the order of the file; all queries number the same snapshot.
RANKED = """
SELECT d.id, t.key AS thing, d.property, d.kind, d.unit, d.data_class,
       coalesce(d.decimals, -1)::text AS decimals, (row_number() OVER (ORDER BY
         CASE d.kind WHEN 'position' THEN 1 WHEN 'document' THEN 2 ELSE 0 END,
         t.key COLLATE "C", d.property COLLATE "C") - 1)::integer AS rank
FROM datastream d JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s AND d.data_class = ANY(%(classes)s)
"""
SELECT_STREAMS = f"SELECT {', '.join(DESCRIBED)}, decimals FROM ({RANKED}) AS ranked ORDER BY rank"
SELECT_CATEGORIES = f"SELECT code, text FROM category WHERE {VISIBLE} LIMIT %(limit)s"
SELECT_ROWS = {
    shape: f"""
WITH ranked AS MATERIALIZED ({RANKED})
SELECT r.rank, o.phenomenon_time, o.quality, {columns}
FROM {shape.table} o JOIN ranked r ON r.id = o.datastream_id
WHERE o.phenomenon_time >= %(lower)s AND o.phenomenon_time < %(upper)s ORDER BY 1, 2
"""
    for shape, columns in zip(
        SHAPES,
        (
            "o.result",
            ", ".join(f"coalesce(o.{c}, 'NaN')" for c in SHAPES[1].results),
            "o.result::text",
        ),
        strict=True,
    )
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one day: WRITTEN, UNCHANGED since its last export, or EMPTY."""

    sector: str
    day: date
    status: str
    rows: int = 0
    bytes: int = 0


def is_closed(day: date, now: datetime) -> bool:
    """Whether the day is over, and late data of its last moments are in."""
    return archive.bounds_of(day)[1] + CLOSED_AFTER <= now


def first_day(gate: Gate, sector: Sector) -> date | None:
    """The day of the sector's oldest observation, or None."""
    with gate.reading(ARCHIVIST, sector) as connection:
        found = connection.fetch(SELECT_FIRST)
    first: datetime | None = found[0]["first"] if found else None
    return None if first is None else first.astimezone(UTC).date()


def is_exported(sector: Sector) -> bool:
    """Whether a sector has an archive at all: personal ones leave through consent only."""
    return read_by_class(sector)


def export_day(gate: Gate, sector: Sector, day: date, folder: Path) -> Exported:
    """Write the day where it is not archived as it is stored now; CityError like Gate.reading.

    Rows stream from the database's sort to the file: memory is a few tables of ROWS_A_TABLE.
    """
    place = archive.day_folder(folder, sector.name, day)
    with archive.locked(folder), gate.reading(ARCHIVIST, sector) as connection:
        known, append = archive.read_manifest(place), _position(connection)
        if append is None:
            return Exported(sector.name, day, EMPTY)
        if known is not None and not _changed(connection, known, day):
            return Exported(sector.name, day, UNCHANGED, known.rows, known.bytes)
        tables = _tables(connection, sector, day, folder)
        written = archive.write_day(folder, tables, sector=sector.name, day=day, append=append)
    if written is None:
        return Exported(sector.name, day, EMPTY)
    return Exported(sector.name, day, WRITTEN, written.rows, written.bytes)


def _position(connection: PermittedConnection) -> tuple[int, str] | None:
    found = connection.fetch(SELECT_POSITION)
    return (found[0]["id"], _iso(found[0]["committed_at"])) if found else None


def _changed(connection: PermittedConnection, known: archive.Manifest, day: date) -> bool:
    lower, upper = archive.bounds_of(day)
    scope = {"append": known.append_id, "committed_at": known.committed_at}
    found = connection.fetch(SELECT_CHANGED, {**scope, "lower": lower, "upper": upper})
    return bool(found and found[0]["changed"])


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


# --- rows -----------------------------------------------------------------------------------------

Name = tuple[int, str, str]
"""Shape, Thing and property: what a file is sorted by, before the time."""


def _tables(
    connection: PermittedConnection, sector: Sector, day: date, folder: Path
) -> Iterator[Any]:
    """The day's rows as SCHEMA tables: those that are stored, and those only archived."""
    path = archive.day_folder(folder, sector.name, day) / archive.DATA_NAME
    streams, decimals = _streams(connection)
    if not path.exists():
        yield from (table for _, table in _stored(connection, streams, decimals, None, day))
        return
    names = [_name(*name) for name in zip(*(streams[n].to_pylist() for n in NAMED), strict=True)]
    archived = {_name(*n) for table in archive.tables_of(path) for n in _distinct(table)[0]}
    place = {name: rank for rank, name in enumerate(sorted({*names, *archived}))}
    places = np.array([place[name] for name in names], np.int64)
    stored = _stored(connection, streams, decimals, places, day)
    yield from archive.merge(stored, _archived(path, place, day))


def _streams(connection: PermittedConnection) -> tuple[dict[str, Any], NDArray[np.int8]]:
    """What every row of a Datastream repeats, as columns in the order of their ranks; decimals."""
    columns: list[list[str]] = [[] for _ in (*DESCRIBED, "decimals")]
    for row in connection.copy(SELECT_STREAMS):
        at = 2
        for column in columns:
            size = int.from_bytes(row[at : at + 4])
            column.append(row[at + 4 : at + 4 + size].decode())
            at += 4 + size
    *described, decimals = columns
    texts = {
        n: pa.array(column, pa.string()) for n, column in zip(DESCRIBED, described, strict=True)
    }
    return texts, np.array(decimals, np.int8)


NAMED = ("kind", "thing", "property")
_SHAPE_OF = {"position": 1, "document": 2}


def _name(kind: str, thing: str, observed_property: str) -> Name:
    return (_SHAPE_OF.get(kind, 0), thing, observed_property)


def _distinct(table: Any) -> tuple[list[tuple[str, str, str]], NDArray[np.int64]]:
    """The runs of one Datastream in a sorted table: their names, and where each begins."""
    columns = [table.column(name).combine_chunks() for name in NAMED]
    changes = np.zeros(max(0, len(table) - 1), bool)
    for column in columns:
        codes = column.dictionary_encode().indices.to_numpy()
        changes |= np.diff(codes) != 0
    starts = np.flatnonzero(np.insert(changes, 0, True)) if len(table) else np.zeros(0, np.int64)
    texts = [column.take(pa.array(starts)).to_pylist() for column in columns]
    return list(zip(*texts, strict=True)), starts


def _archived(path: Path, place: Mapping[Name, int], day: date) -> archive.Sorted:
    """The rows that are archived, under their ranks."""
    for table in archive.tables_of(path):
        names, starts = _distinct(table)
        ranks = np.array([place[_name(*name)] for name in names], np.int64)
        rank = np.repeat(ranks, np.diff(np.append(starts, len(table))))
        time = table.column("phenomenon_time").cast(pa.int64()).to_numpy()
        yield archive.keys_of(rank, time, day), table


def _stored(
    connection: PermittedConnection,
    streams: Mapping[str, Any],
    decimals: NDArray[np.int8],
    places: NDArray[np.int64] | None,
    day: date,
) -> archive.Sorted:
    """The rows that are stored, under their ranks, or under the places of these among more."""
    found = connection.fetch(SELECT_CATEGORIES, {"limit": CATEGORIES_MAX})
    texts = {row["code"]: row["text"] for row in found}
    for shape, rank, time, quality, results in _copied(connection, day):
        columns = {name: column.take(pa.array(rank)) for name, column in streams.items()}
        columns["phenomenon_time"] = pa.array(time, pa.timestamp("us", "UTC"))
        columns["quality"] = pa.array(quality, pa.int16())
        columns.update(_results(shape, columns["kind"], results, texts, decimals[rank]))
        nothing = pa.nulls(len(rank))
        whole = [columns.get(field.name, nothing).cast(field.type) for field in archive.SCHEMA]
        place = rank.astype(np.int64) if places is None else places[rank]
        yield archive.keys_of(place, time, day), pa.table(whole, schema=archive.SCHEMA)


def _results(
    shape: Shape, kinds: Any, results: Any, texts: Mapping[int, str], decimals: NDArray[np.int8]
) -> dict[str, Any]:
    """The shape's result columns: a number as it came, a category's code as its text."""
    if shape is DOCUMENT:
        return {"document": pa.array(results, pa.string())}
    if shape is not SHAPES[0]:
        # NaN is how storage says "not available"; for other readers that is null.
        return {
            name: pa.array(column, from_pandas=True)
            for name, column in zip(shape.results, results, strict=True)
        }
    category = np.asarray(pc.equal(kinds, "category").to_numpy(zero_copy_only=False), bool)
    (values,) = results
    codes, index = np.unique(values[category].astype(np.int64), return_inverse=True)
    text = np.full(len(values), None, object)
    text[category] = np.array([*(texts[code] for code in codes.tolist()), None], object)[index]
    return {
        "result": pa.array(served(values, decimals), mask=category),
        "text": pa.array(text, pa.string()),
    }


def _copied(
    connection: PermittedConnection, day: date
) -> Iterator[tuple[Shape, NDArray[np.int32], NDArray[np.int64], NDArray[np.int16], Any]]:
    """(shape, rank, time, quality, results) of the day's stored rows, ROWS_A_TABLE at a time."""
    lower, upper = archive.bounds_of(day)
    for shape in SHAPES:
        layout = _layout(0 if shape is DOCUMENT else len(shape.results))
        held: list[bytes] = []
        scope = {"lower": lower, "upper": upper}
        for row in connection.copy(SELECT_ROWS[shape], scope):
            held.append(row)
            if len(held) == ROWS_A_TABLE:
                yield _parsed(shape, layout, held)
                held = []
        if held:
            yield _parsed(shape, layout, held)


def _layout(numbers: int) -> np.dtype[np.void]:
    """A row of COPY BINARY as a numpy record: every field behind its length."""
    forms = [("rank", ">i4"), ("time", ">i8"), ("quality", ">i2")]
    forms += [(f"result{number}", ">f8") for number in range(numbers)]
    fields = [part for name, form in forms for part in ((f"{name}_bytes", ">i4"), (name, form))]
    return np.dtype([("fields", ">i2"), *fields])


def _parsed(shape: Shape, layout: Any, rows: list[bytes]) -> Any:
    fixed = layout.itemsize
    if shape is DOCUMENT:  # the fixed fields, then the text behind its length
        results: Any = [row[fixed + 4 :].decode() for row in rows]
        rows = [row[:fixed] for row in rows]
    found = np.frombuffer(b"".join(rows), layout)
    if shape is not DOCUMENT:
        results = [found[f"result{n}"].astype(np.float64) for n in range(len(shape.results))]
    return (
        shape,
        found["rank"].astype(np.int32),
        found["time"].astype(np.int64) + POSTGRES_EPOCH_US,
        found["quality"].astype(np.int16),
        results,
    )
