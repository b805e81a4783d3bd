"""Rows of one file on their way into a table: read by kind, and refused with a reason."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domains.mobility.gtfs.problems import EXAMPLES_MAX, Report
from domains.mobility.gtfs.table import (
    Table,
    as_numpy,
    filtered,
    first_of,
    numbers,
    parsed,
    texts_of,
)
from domains.mobility.gtfs.values import ID, Kind

Mask = NDArray[np.bool_]


class Field(NamedTuple):
    """A column of a file, and the column of ours that holds it."""

    name: str
    column: str
    kind: Kind
    default: Any = None
    """Stands where the file has nothing, or nothing readable."""
    need: bool = False
    """A row without it cannot be stored."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one of mobility's tables, and at which rows of `file` they were."""

    file: str
    columns: dict[str, pa.Array]
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def numpy(self, column: str, none: float = -1) -> NDArray[Any]:
        """A column of numbers, `none` for null."""
        values: NDArray[Any] = pc.fill_null(self.columns[column], none).to_numpy(
            zero_copy_only=False
        )
        return values

    def id_of(self, column: str, mask: Mask) -> Iterable[str | None]:
        """The first values of a column where the mask is set, for a report."""
        return texts_of(self.columns[column], mask, EXAMPLES_MAX)


class Rows:
    """Rows of a file that are still to be stored; each `refuse` leaves fewer."""

    def __init__(self, table: Table, report: Report) -> None:
        self.file = table.file
        self.report = report
        self.columns: dict[str, pa.Array] = {}
        self._texts = dict(table.columns)
        self._rows = table.rows
        self._read: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> Collection[str]:
        """Columns that the file has."""
        return self._texts.keys()

    def texts(self, name: str) -> pa.Array:
        """What the file has in a column; it counts as read."""
        self._read.add(name)
        found = self._texts.get(name)
        return pa.repeat("", len(self)) if found is None else found

    def problem(self, code: str, name: str, mask: Mask, what: str | None = None) -> None:
        """Report the masked rows; `what`: the column of texts that is quoted, else `name`."""
        if mask.any():
            ids = texts_of(self.texts(what or name), mask, EXAMPLES_MAX)
            self.report.add(code, self.file, name=name, rows=self._rows[mask], ids=ids)

    def refuse(self, mask: Mask) -> None:
        """Drop the masked rows, counted."""
        if mask.any():
            self.report.refused[self.file.removesuffix(".txt")] += int(mask.sum())
            self.columns = filtered(self.columns, ~mask)
            self._texts = filtered(self._texts, ~mask)
            self._rows = self._rows[~mask]

    def read(self, *fields: Field) -> None:
        """Columns of ours out of columns of the file; rows without what they need are refused."""
        for field in fields:
            texts = self.texts(field.name)
            blank = as_numpy(pc.equal(texts, ""))
            if field.kind.read is None:
                values, bad = pc.if_else(pc.equal(texts, ""), None, texts), np.zeros_like(blank)
            else:
                values, bad = parsed(texts, field.kind.read, field.kind.type)
            self.problem("too_long" if field.kind is ID else "invalid_value", field.name, bad)
            if field.default is not None:
                values = pc.fill_null(values, pa.scalar(field.default, values.type))
            self.columns[field.column] = values
            if field.need:
                self._require(field.name, blank)
                self.refuse(blank | bad)

    def _require(self, name: str, blank: Mask) -> None:
        if name in self._texts:
            self.problem("missing_value", name, blank)
        elif blank.any():
            self.report.add("missing_column", self.file, name=name, count=len(blank))

    def unique(self, name: str, *columns: str) -> None:
        """Refuse rows whose values in these columns an earlier row has; `name` tells them."""
        twice = ~first_of(*(self.columns[column] for column in columns))
        self.problem("duplicate_id", name, twice)
        self.refuse(twice)

    def refer(self, name: str, column: str, keys: pa.Array, *, need: bool = True) -> None:
        """A column of numbers in `keys`, out of ids; `need`: a row that names none is refused.

        Where it is not needed, '' is null, and so is what names nothing, which is reported.
        """
        texts = self.texts(name)
        found = numbers(texts, keys)
        blank = as_numpy(pc.equal(texts, ""))
        missing = found < 0
        self.columns[column] = pa.array(found, pa.int32(), mask=missing)
        self.problem("missing_reference", name, missing & ~blank)
        if need:
            self._require(name, missing & blank)
            self.refuse(missing)

    def more(self, *also_read: str) -> None:
        """Column `more`: what no column of ours holds, as JSON; null where a row has none of it."""
        self._read.update(also_read)
        left = [name for name in self._texts if name not in self._read]
        self.columns["more"] = _as_json(left, [self._texts[name] for name in left], len(self))

    def nothing_more(self) -> None:
        """Tell of columns that have no place."""
        for name in self._texts.keys() - self._read:
            self.report.add("column_not_kept", self.file, name=name)

    def number(self) -> None:
        """Column `number`: 0, 1, ... in the order of the file."""
        self.columns["number"] = pa.array(np.arange(len(self), dtype=np.int32))

    def done(self, *order: str) -> Part:
        """The rows that are left, with these columns."""
        return Part(self.file, {name: self.columns[name] for name in order}, self._rows)


def _as_json(names: Sequence[str], columns: Sequence[pa.Array], length: int) -> pa.Array:
    used = [
        (n, c) for n, c in zip(names, columns, strict=True) if not pc.all(pc.equal(c, "")).as_py()
    ]
    if not used or not length:
        return pa.nulls(length, pa.string())

    @lru_cache(maxsize=10_000)
    def dumped(values: tuple[str, ...]) -> str | None:
        more = {name: text for (name, _), text in zip(used, values, strict=True) if text}
        return json.dumps(more, ensure_ascii=False) if more else None

    texts = zip(*(column.to_pylist() for _, column in used), strict=True)
    return pa.array(map(dumped, texts), pa.string())
