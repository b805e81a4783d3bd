"""One CSV file of a feed as columns of text: any encoding, any line end, ragged rows told."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from domains.mobility.gtfs.problems import Report

COLUMNS_MAX = 200
BLOCK_BYTES = 8 << 20
BOM = "\ufeff"

ALIASES = {
    # As the first edition of the standard of bus information (GTFS-JP) printed them.
    "wheelchair_accesible": "wheelchair_accessible",
    "shape_dist_travel": "shape_dist_traveled",
}
"""Misspelt columns that are read as what they mean."""


@dataclass(frozen=True, slots=True)
class Table:
    """`columns`: name -> StringArray, trimmed, '' for nothing; `rows`: each one's row number.

    Row 1 is the header; blank lines have no number, a record over several lines has one.
    """

    file: str
    columns: dict[str, pa.Array]
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> pa.Array:
        """The texts of a column; of one that is not there, as many ''."""
        found = self.columns.get(name)
        return pa.repeat("", len(self)) if found is None else found


def read(file: str, content: bytes, report: Report) -> Table:
    """The file's table; what is wrong with it is reported, and nothing is raised."""
    text = _decoded(file, content, report)
    data = text if isinstance(text, bytes) else text.encode()
    columns = _by_arrow(data)
    if columns is None:
        columns = _by_hand(file, data.decode(), report)
    if not columns:
        return Table(file, {}, np.zeros(0, np.int32))
    columns = [pc.utf8_trim_whitespace(column) for column in columns]
    return _table(file, columns, report)


def _decoded(file: str, content: bytes, report: Report) -> bytes | str:
    """Text in UTF-8 without BOM and NUL; the bytes themselves where they are that already."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        report.add("encoding", file, ids=["UTF-16"])
        return content.decode("utf-16", "replace").replace("\0", "")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp932")
            report.add("encoding", file, ids=["Shift_JIS (CP932)"])
        except UnicodeDecodeError:
            text = content.decode("utf-8", "replace")
            report.add("encoding_unknown", file)
        return text.replace("\0", "").removeprefix(BOM)
    if "\0" in text:
        report.add("csv_unreadable", file, ids=["NUL"])
        return text.replace("\0", "").removeprefix(BOM)
    return content[3:] if text.startswith(BOM) else content


def as_utf8(file: str, content: bytes, report: Report) -> bytes:
    """A file as it came, brought to UTF-8 where it was in something else."""
    text = _decoded(file, content, report)
    return content if isinstance(text, bytes) else text.encode()


def _by_arrow(data: bytes) -> list[pa.Array] | None:
    """Columns, the header as their first row; None for what only a patient reader can read."""
    if b', "' in data or not data.strip():
        return None
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(data),
            arrow_csv.ReadOptions(autogenerate_column_names=True, block_size=BLOCK_BYTES),
            arrow_csv.ParseOptions(newlines_in_values=b'"' in data),
            arrow_csv.ConvertOptions(default_column_type=pa.string()),
        )
    except pa.ArrowException:
        return None
    if table.num_columns > COLUMNS_MAX:
        return None
    return [_whole(column) for column in table.columns]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _by_hand(file: str, text: str, report: Report) -> list[pa.Array]:
    """The same by Python's reader: short rows are filled with '', long ones are cut."""
    records: list[list[str]] = []
    ragged: list[int] = []
    width = 0
    for record in _records(file, text, report):
        if not record:
            continue
        width = width or min(len(record), COLUMNS_MAX)
        if len(record) != width:
            # Commas at the end are no values; a line of blanks is no row.
            if len(record) < width and not "".join(record).strip():
                continue
            if len(record) < width or any(value.strip() for value in record[width:]):
                ragged.append(len(records) + 1)
        records.append([*record[:width], *[""] * (width - len(record))])
    if ragged:
        report.add("row_length", file, rows=ragged)
    return [pa.array(column, pa.string()) for column in zip(*records, strict=True)]


def _records(file: str, text: str, report: Report) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            report.add("csv_unreadable", file, ids=[f"line {reader.line_num}"])
            continue
        yield record


def _table(file: str, columns: list[pa.Array], report: Report) -> Table:
    """The header's names given to what is below it; rows of nothing but blanks left out."""
    header = [column[0].as_py() for column in columns]
    named: dict[str, pa.Array] = {}
    for text, column in zip(header, columns, strict=True):
        name = ALIASES.get(text, text)
        if name != text:
            report.add("column_name", file, name=text)
        if name in named:
            report.add("column_twice", file, name=name)
        elif name:
            named[name] = column[1:]
    length = len(columns[0]) - 1
    rows = np.arange(2, length + 2, dtype=np.int32)
    blank = np.ones(length, np.bool_)
    for column in named.values():
        blank &= as_numpy(pc.equal(column, ""))
        if not blank.any():
            return Table(file, named, rows)
    keep = pa.array(~blank)
    return Table(file, {n: c.filter(keep) for n, c in named.items()}, rows[~blank])


def as_numpy(array: pa.Array) -> NDArray[np.bool_]:
    """A BooleanArray without nulls as numpy's."""
    values: NDArray[np.bool_] = array.to_numpy(zero_copy_only=False)
    return values.astype(np.bool_)


def parsed(
    texts: pa.Array, read: Callable[[str], object], kind: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """(values, unreadable): each distinct text is read once; '' and unreadable ones are null.

    `read` raises ValueError for what it cannot read.
    """
    encoded = texts.dictionary_encode()
    values: list[object] = []
    bad = np.zeros(len(encoded.dictionary), np.bool_)
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            values.append(read(text) if text else None)
        except ValueError:
            bad[number] = True
            values.append(None)
    if not len(texts):
        return pa.nulls(0, kind), np.zeros(0, np.bool_)
    indices = encoded.indices
    return pa.array(values, kind).take(indices), bad[indices.to_numpy()]


def filtered(columns: dict[str, pa.Array], keep: NDArray[np.bool_]) -> dict[str, pa.Array]:
    """The rows of every column that are kept."""
    if keep.all():
        return columns
    mask = pa.array(keep)
    return {name: column.filter(mask) for name, column in columns.items()}


def numbers(values: pa.Array, keys: pa.Array) -> NDArray[np.int32]:
    """Index of each value in `keys`, which are distinct; -1 where it is none of them."""
    if not len(keys):
        return np.full(len(values), -1, np.int32)
    found = pc.fill_null(pc.index_in(values, value_set=keys), -1)
    result: NDArray[np.int32] = found.to_numpy(zero_copy_only=False).astype(np.int32)
    return result


def first_of(*columns: pa.Array | NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which rows are the first with their values in these columns together."""
    length = len(columns[0])
    key = np.zeros(length, np.int64)
    for column in columns:
        if isinstance(column, np.ndarray):
            codes = np.unique(column, return_inverse=True)[1]
        else:
            codes = column.dictionary_encode().indices.to_numpy()
        # Renumbered at each step, a product of two counts of rows never overflows.
        key = np.unique(key * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    first = np.zeros(length, np.bool_)
    first[np.unique(key, return_index=True)[1]] = True
    return first


def texts_of(array: pa.Array, mask: NDArray[np.bool_], most: int) -> Iterable[str | None]:
    """The first values of an array where the mask is set, for a report."""
    where = np.flatnonzero(mask)[:most]
    return [array[int(index)].as_py() for index in where]
