"""translations.txt in its modern form, and the old one of GTFS-JP 1 and 2 brought to it."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.rows import Field, Part, Rows
from domains.mobility.gtfs.table import first_of
from domains.mobility.gtfs.values import ID, TEXT

MODERN = (
    Field("table_name", "table_name", ID, need=True),
    Field("field_name", "field_name", ID, need=True),
    Field("language", "language", ID, need=True),
    Field("translation", "translation", TEXT, need=True),
    Field("record_id", "record_id", TEXT),
    Field("record_sub_id", "record_sub_id", TEXT),
    Field("field_value", "field_value", TEXT),
)
OLD = (
    Field("trans_id", "field_value", TEXT, need=True),
    Field("lang", "language", ID, need=True),
    Field("translation", "translation", TEXT, need=True),
)
COLUMNS = tuple(field.column for field in MODERN)

TRANSLATED = (
    ("stops", "stop_name", "stop", "name"),
    ("stops", "stop_desc", "stop", None),
    ("routes", "route_short_name", "route", "short_name"),
    ("routes", "route_long_name", "route", "long_name"),
    ("routes", "route_desc", "route", None),
    ("trips", "trip_headsign", "trip", "headsign"),
    ("trips", "trip_short_name", "trip", "short_name"),
    ("stop_times", "stop_headsign", "stop_time", "headsign"),
    ("agency", "agency_name", "agency", "name"),
)
"""Where the old form, which names a value and no field, is looked for: table and field of GTFS,
table and column of ours; None: in `more`."""


def read(rows: Rows, parts: Mapping[str, Part], report: Report) -> Part:
    """Rows of mobility.translation out of either form."""
    old = "trans_id" in rows.names
    rows.read(*(OLD if old else MODERN))
    if not old:
        rows.nothing_more()
    _twice(rows)
    if not old:
        return rows.done(*COLUMNS)
    given = rows.done("field_value", "language", "translation")
    return _modern(given, _fields_of_values(parts), report)


def _twice(rows: Rows) -> None:
    """Tell of what is translated twice; all are kept, and the first is published."""
    key = [
        pc.fill_null(column, "") for name, column in rows.columns.items() if name != "translation"
    ]
    rows.problem("duplicate_translation", "translation", ~first_of(*key))


def _modern(given: Part, fields: Mapping[str, tuple[tuple[str, str], ...]], report: Report) -> Part:
    """One row for each field that has the value; what none has stays, as a stop's name."""
    values = given.columns["field_value"].to_pylist()
    found = [fields.get(value, ()) for value in values]
    unused = np.array([not each for each in found], np.bool_)
    if unused.any():
        report.add(
            "translation_unused", given.file, name="trans_id", rows=given.rows[unused],
            ids=given.id_of("field_value", unused),
        )  # fmt: skip
    found = [each or (TRANSLATED[0][:2],) for each in found]
    again = np.repeat(np.arange(len(values)), [len(each) for each in found]).astype(np.int64)
    where = pa.array(again)
    flat = [pair for each in found for pair in each]
    columns = {name: column.take(where) for name, column in given.columns.items()} | {
        "table_name": pa.array([table for table, _ in flat], pa.string()),
        "field_name": pa.array([field for _, field in flat], pa.string()),
        "record_id": pa.nulls(len(flat), pa.string()),
        "record_sub_id": pa.nulls(len(flat), pa.string()),
    }
    return Part(given.file, {name: columns[name] for name in COLUMNS}, given.rows[again])


def _fields_of_values(parts: Mapping[str, Part]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Every translatable value of the feed -> the fields that have it."""
    fields: dict[str, tuple[tuple[str, str], ...]] = {}
    for table, field, ours, column in TRANSLATED:
        part = parts[ours]
        texts = _texts(part, column, field)
        for text in texts:
            fields[text] = (*fields.get(text, ()), (table, field))
    return fields


def _texts(part: Part, column: str | None, field: str) -> Iterator[str]:
    if column is not None:
        yield from pc.drop_null(part.columns[column].unique()).to_pylist()
        return
    seen = pc.drop_null(part.columns["more"].unique()).to_pylist()
    yield from {text for more in seen if (text := json.loads(more).get(field))}
