"""Archives: closed days of open and shared observations as Parquet, a folder a sector and day.

DIR/sector=ports/day=2026-01-01/
  observations.parquet   sorted by kind of result, Thing, property and time; zstd
  _manifest.json         rows, SHA-256, and how far the sector's appends had come

Hive-style names, one schema for every kind: pyarrow, pandas and DuckDB read DIR as one table. A
file appears whole or not at all, and its manifest after it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.clock import from_datetime
from core.errors import CityError, invalid
from core.sensorthings import (
    Categories,
    DataClass,
    Decoded,
    Documents,
    Numbers,
    Positions,
    ResultKind,
    Stream,
)

DATA_NAME = "observations.parquet"
PARTIAL_NAME = ".partial"
MANIFEST_NAME = "_manifest.json"  # a leading underscore keeps it out of the data set
ROW_GROUP_ROWS = 131_072
"""A row group is also the unit of an import: one batch of the ledger for each data class in it."""
ZSTD_LEVEL = 3
MANIFEST_BYTES_MAX = 65_536
DAY = timedelta(days=1)

_TEXT_COLUMNS = ("thing", "property", "kind", "text", "unit", "data_class")
SCHEMA = pa.schema([
    ("thing", pa.string()),
    ("property", pa.string()),
    ("phenomenon_time", pa.timestamp("us", "UTC")),
    ("kind", pa.string()),
    ("result", pa.float64()),  # of a number
    ("text", pa.string()),  # of a category
    ("longitude", pa.float64()),
    ("latitude", pa.float64()),
    ("speed", pa.float64()),
    ("course", pa.float64()),
    ("document", pa.string()),  # JSON
    ("unit", pa.string()),  # UCUM
    ("quality", pa.int16()),
    ("data_class", pa.string()),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archived day holds, and the append of the sector up to which it is complete.

    `committed_at` is that append's own time: only the log that it came from has both.
    """

    sector: str
    day: str
    rows: int
    bytes: int
    sha256: str
    append_id: int
    committed_at: str


def day_folder(archive: Path, sector: str, day: date) -> Path:
    """Where a day of a sector stands."""
    return archive / f"sector={sector}" / f"day={day.isoformat()}"


def bounds_of(day: date) -> tuple[datetime, datetime]:
    """A UTC day's first moment and the next day's."""
    lower = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return lower, lower + DAY


def read_manifest(folder: Path) -> Manifest | None:
    """The day's manifest, or None; CityError `invalid` for a file that is not one of ours."""
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(MANIFEST_BYTES_MAX))
        return Manifest(
            **{f.name: msgspec.convert(found[f.name], f.type) for f in fields(Manifest)}
        )
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise invalid(str(path), f"is not the manifest of an archived day: {error}") from error


def write_day(
    archive: Path, tables: Iterable[Any], *, sector: str, day: date, append: tuple[int, str]
) -> Manifest | None:
    """Put the tables (sorted, of SCHEMA) in the place of the day; None, and nothing, for no rows.

    Written beside, synced, renamed: a crash leaves the day as it was, or whole with an older
    manifest, which the next export finds out of date.
    """
    folder = day_folder(archive, sector, day)
    beside = archive / PARTIAL_NAME
    try:
        rows = _write_parquet(beside, tables)
        if not rows:
            return None
        with beside.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = beside.stat().st_size
        folder.mkdir(parents=True, exist_ok=True)
        _put(beside, folder / DATA_NAME)
        manifest = Manifest(sector, day.isoformat(), rows, size, digest, *append)
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(manifest))) + b"\n")
        _put(beside, folder / MANIFEST_NAME)
    finally:
        beside.unlink(missing_ok=True)
    return manifest


@contextmanager
def locked(archive: Path) -> Iterator[None]:
    """The archive for this process alone: one day is written at a time."""
    archive.mkdir(parents=True, exist_ok=True)
    handle = os.open(archive, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_parquet(path: Path, tables: Iterable[Any]) -> int:
    """Row groups of ROW_GROUP_ROWS whatever the tables' sizes: equal rows make equal files."""
    written = 0
    held: list[Any] = []
    with pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=list(_TEXT_COLUMNS),
        column_encoding={"phenomenon_time": "DELTA_BINARY_PACKED"},
    ) as writer:
        for table in tables:
            held.append(table)
            while sum(map(len, held)) >= ROW_GROUP_ROWS:
                whole = pa.concat_tables(held)
                # Combined: a chunk's end would end a page, and equal rows must be equal bytes.
                writer.write_table(whole[:ROW_GROUP_ROWS].combine_chunks(), ROW_GROUP_ROWS)
                written += ROW_GROUP_ROWS
                held = [whole[ROW_GROUP_ROWS:]]
        rest = pa.concat_tables(held) if held else SCHEMA.empty_table()
        if len(rest):
            writer.write_table(rest.combine_chunks(), ROW_GROUP_ROWS)
    return written + len(rest)


def _put(beside: Path, path: Path) -> None:
    """Rename into place, with the bytes on disk before the name, and the name before we go on."""
    _sync(beside)
    beside.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading --------------------------------------------------------------------------------------


def find_days(roots: Iterable[Path]) -> list[Path]:
    """The folders of every archived day at or below these, sorted; `not-found` if one has none."""
    found: set[Path] = set()
    for root in roots:
        below = {path.parent for path in root.rglob(MANIFEST_NAME)}
        if not below:
            raise CityError("not-found", f"{root} holds no archived day")
        found |= below
    return sorted(found)


def open_day(folder: Path) -> tuple[Manifest, Any]:
    """(manifest, pq.ParquetFile) of a day whose file is what its manifest says, else `invalid`."""
    manifest, path = read_manifest(folder), folder / DATA_NAME
    if manifest is None:
        raise CityError("not-found", f"{folder} holds no archived day")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256:
            raise invalid(
                str(path), "is another file than its manifest tells: export the day again"
            )
    try:
        parquet = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise invalid(str(path), f"is not Parquet: {error}") from error
    if not parquet.schema_arrow.equals(SCHEMA):
        raise invalid(str(path), "has other columns than an archive")
    return manifest, parquet


def tables_of(path: Path) -> Iterator[Any]:
    """The file's rows, a row group at a time; nothing for a file that is not there."""
    if path.exists():
        with pq.ParquetFile(path) as parquet:
            for number in range(parquet.num_row_groups):
                yield parquet.read_row_group(number)


def decode(table: Any) -> dict[DataClass, Decoded]:
    """An archive's rows as observations with their qualities, by data class."""
    found = {}
    for name in pc.unique(table.column("data_class")).to_pylist():
        part = table.filter(pc.equal(table.column("data_class"), name))
        found[DataClass(name)] = _decoded(part.combine_chunks())
    return found


def _decoded(table: Any) -> Decoded:
    streams, index = _streams(table)
    kinds = np.array(table.column("kind").to_pylist(), object)
    time = table.column("phenomenon_time").cast(pa.int64()).to_numpy()
    quality = table.column("quality").to_numpy()

    def floats(name: str, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        column = table.column(name).filter(pa.array(rows))
        return np.asarray(column.fill_null(float("nan")).to_numpy(), np.float64)

    def texts(name: str, rows: NDArray[np.bool_]) -> list[str]:
        found: list[str] = table.column(name).filter(pa.array(rows)).to_pylist()
        return found

    parts: dict[str, Any] = {}
    for kind in ResultKind:
        rows = kinds == kind.value
        if not rows.any():
            continue
        common = (index[rows], time[rows])
        match kind:
            case ResultKind.NUMBER:
                parts["numbers"] = Numbers(*common, floats("result", rows), quality[rows])
            case ResultKind.CATEGORY:
                parts["categories"] = Categories(*common, texts("text", rows), quality[rows])
            case ResultKind.POSITION:
                longitude, latitude, speed, course = (floats(name, rows) for name in _POSITION)
                parts["positions"] = Positions(
                    *common, longitude, latitude, speed, course, quality[rows]
                )
            case ResultKind.DOCUMENT:
                documents = [text.encode() for text in texts("document", rows)]
                parts["documents"] = Documents(*common, documents, quality[rows])
    return Decoded(streams=streams, messages=len(table), **parts)


_POSITION = ("longitude", "latitude", "speed", "course")


def _streams(table: Any) -> tuple[tuple[Stream, ...], NDArray[np.int32]]:
    """The distinct streams of the rows, and the index of each row's."""
    names = ("thing", "property", "unit")
    encoded = [table.column(name).combine_chunks().dictionary_encode() for name in names]
    code = np.zeros(len(table), np.int64)
    for column in encoded:
        code = code * len(column.dictionary) + column.indices.to_numpy()
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    chosen = table.select(names).take(pa.array(first)).to_pylist()
    return tuple(Stream(**row) for row in chosen), index.astype(np.int32)


# --- merging --------------------------------------------------------------------------------------

Sorted = Iterator[tuple[NDArray[np.int64], Any]]
"""Tables with the key of each row: ascending, and no key twice."""

_RANK_SHIFT = 37  # µs of a day fit into 37 bits


def keys_of(rank: NDArray[np.int64], time: NDArray[np.int64], day: date) -> NDArray[np.int64]:
    """Sort keys from a Datastream's rank and µs since 1970 inside the day."""
    return (rank << _RANK_SHIFT) + (time - from_datetime(bounds_of(day)[0]))


def merge(newer: Sorted, older: Sorted) -> Iterator[Any]:
    """Both sides' rows in order of their keys; where both have a key, the newer side's row.

    Holds no more than a table or two of each side.
    """
    sides = [_Side(newer), _Side(older)]
    while any(side.keys.size for side in sides):
        until = min(int(side.keys[-1]) for side in sides if side.keys.size)
        (keys, table), (old_keys, old_table) = (side.take(until) for side in sides)
        if old_keys.size:
            kept = ~np.isin(old_keys, keys)
            keys = np.concatenate([keys, old_keys[kept]])
            table = pa.concat_tables([table, old_table.filter(pa.array(kept))])
            table = table.take(pa.array(np.argsort(keys, kind="stable")))
        if len(table):
            yield table


class _Side:
    """One side of a merge: the table at hand and what comes after it."""

    def __init__(self, source: Sorted) -> None:
        self._source = source
        self.keys = np.zeros(0, np.int64)
        self._table = SCHEMA.empty_table()
        self._last = -1
        self._fill()

    def take(self, until: int) -> tuple[NDArray[np.int64], Any]:
        """The rows up to and with this key."""
        count = int(np.searchsorted(self.keys, until, "right"))
        taken = self.keys[:count], self._table[:count]
        self.keys, self._table = self.keys[count:], self._table[count:]
        self._fill()
        return taken

    def _fill(self) -> None:
        while not self.keys.size:
            found = next(self._source, None)
            if found is None:
                return
            self.keys, self._table = found
            if self.keys.size and (self.keys[0] <= self._last or (np.diff(self.keys) <= 0).any()):
                raise CityError("invalid", "an archived day is not sorted, or holds a key twice")
            self._last = int(self.keys[-1]) if self.keys.size else self._last
