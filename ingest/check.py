"""What decoders hand over, held against what the sector declares: names, times, units, ranges."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.clock import MICROSECONDS, to_iso
from core.errors import CityError
from core.sector import ObservedProperty, Sector
from core.sensorthings import (
    Categories,
    DataClass,
    Decoded,
    Documents,
    Numbers,
    Positions,
    Quality,
    Rejected,
    ResultKind,
    Stream,
    canonical_json,
    observation_json,
)
from core.units import conversion

THING_CHARACTERS_MAX = 200
PROPERTY_CHARACTERS_MAX = 100

Columns = TypeVar("Columns", Numbers, Categories, Positions, Documents)
Verdict = tuple[str, str] | None
"""Why a stream's observations are rejected, as (reason, detail); None: they are not."""


def check(sector: Sector, decoded: Decoded, received_at: int, future_seconds_max: float) -> Decoded:
    """The decoded message in declared units, quality flags set, impossible rows rejected."""
    latest = received_at + int(future_seconds_max * MICROSECONDS)
    checker = _Checker(sector, decoded.streams, latest)
    documents = [] if decoded.documents is None else [decoded.documents]
    categories = decoded.categories
    if categories is not None:
        categories, free_texts = _split_free_texts(sector, decoded.streams, categories)
        documents += [free_texts] if free_texts is not None else []
    numbers = checker.numbers(decoded.numbers)
    kept = replace(
        decoded,
        numbers=numbers,
        categories=checker.kept(categories, ResultKind.CATEGORY),
        positions=checker.positions(decoded.positions),
        documents=checker.kept(_joined(documents), ResultKind.DOCUMENT),
    )
    return replace(kept, streams=checker.streams, rejected=(*decoded.rejected, *checker.rejected))


class _Checker:
    """One message's check; `rejected` and the converted `streams` are read at its end."""

    def __init__(self, sector: Sector, streams: Sequence[Stream], latest: int) -> None:
        self._sector = sector
        self._latest = latest
        self._named = tuple(streams)
        self.streams = tuple(streams)
        self.rejected: list[Rejected] = []

    def declared(self, index: int) -> ObservedProperty | None:
        return self._sector.by_name.get(self._named[index].base_property)

    def numbers(self, columns: Numbers | None) -> Numbers | None:
        """Convert to the declared unit and flag what is out of the plausible range."""
        columns = self.kept(columns, ResultKind.NUMBER, _finite)
        if columns is None:
            return None
        used = np.unique(columns.stream)
        size = len(self._named)
        factor, offset = np.ones(size), np.zeros(size)
        low, high = np.full(size, -np.inf), np.full(size, np.inf)
        streams = list(self.streams)
        for index in used.tolist():
            declared, stream = self.declared(index), self._named[index]
            if declared is None:
                continue
            if stream.unit not in (None, declared.unit):
                factor[index], offset[index] = conversion(str(stream.unit), declared.unit)
            streams[index] = replace(stream, unit=declared.unit)
            low[index] = -np.inf if declared.minimum is None else declared.minimum
            high[index] = np.inf if declared.maximum is None else declared.maximum
        self.streams = tuple(streams)
        result = columns.result
        if (factor[used] != 1).any() or offset[used].any():
            result = result * factor[columns.stream] + offset[columns.stream]
        outside = (result < low[columns.stream]) | (result > high[columns.stream])
        quality = _flags(columns) | np.where(outside, Quality.OUT_OF_RANGE, 0).astype(np.int16)
        return replace(columns, result=result, quality=quality)

    def positions(self, columns: Positions | None) -> Positions | None:
        """Reject what lies outside the globe."""
        return self.kept(columns, ResultKind.POSITION, _on_globe)

    def kept(
        self,
        columns: Columns | None,
        kind: ResultKind,
        possible: Callable[[Columns], NDArray[np.bool_]] | None = None,
    ) -> Columns | None:
        """The columns without rejected rows, with the flag of undeclared properties."""
        if columns is None or not len(columns.stream):
            return None
        used = np.unique(columns.stream).tolist()
        verdicts = {index: self._verdict(index, kind) for index in used}
        bad = [index for index, verdict in verdicts.items() if verdict is not None]
        time = columns.phenomenon_time
        fine = (time >= 0) & (time <= self._latest)
        if possible is not None:
            fine &= possible(columns)
        if bad:
            fine &= ~np.isin(columns.stream, bad)
        undeclared = [index for index in used if self.declared(index) is None]
        if undeclared:
            flag = np.where(np.isin(columns.stream, undeclared), Quality.UNDECLARED, 0)
            columns = replace(columns, quality=_flags(columns) | flag.astype(np.int16))
        if fine.all():
            return columns
        for position in np.flatnonzero(~fine).tolist():
            self._reject(columns, position, verdicts[int(columns.stream[position])])
        return take(columns, fine) if fine.any() else None

    def _verdict(self, index: int, kind: ResultKind) -> Verdict:
        """Whether a stream may be stored at all: its names, its kind, its unit."""
        stream, declared = self._named[index], self.declared(index)
        for field, text, limit in (
            ("thing", stream.thing, THING_CHARACTERS_MAX),
            ("property", stream.property, PROPERTY_CHARACTERS_MAX),
        ):
            if not text or len(text) > limit or not text.isprintable():
                return "bad-name", f"{field}: 1 to {limit} printable characters"
        if declared is None:
            if self._sector.data_class is DataClass.PERSONAL:
                return "undeclared", f"property: {stream.property} is not declared here"
            return None
        if declared.kind is not kind:
            return "wrong-kind", f"result: {kind} where {declared.name} is a {declared.kind}"
        if kind is ResultKind.NUMBER and stream.unit not in (None, declared.unit):
            try:
                conversion(str(stream.unit), declared.unit)
            except CityError as error:
                return "bad-unit", str(error)
        return None

    def _reject(self, columns: Columns, position: int, verdict: Verdict) -> None:
        stream = self._named[int(columns.stream[position])]
        time = int(columns.phenomenon_time[position])
        result = result_at(columns, position)
        if verdict is None and not 0 <= time <= self._latest:
            verdict = "bad-time", f"phenomenon_time: {_iso(time)} is before 1970 or in the future"
        reason, detail = verdict or ("bad-result", f"result: {result} is not possible")
        payload = observation_json(stream, _iso(time), result)
        self.rejected.append(Rejected(reason, detail, payload, position))


def _iso(time: int) -> str:
    try:
        return to_iso(time)
    except OverflowError:
        return f"{time} µs"


def _finite(columns: Numbers) -> NDArray[np.bool_]:
    return np.isfinite(columns.result)


def _on_globe(columns: Positions) -> NDArray[np.bool_]:
    return (np.abs(columns.longitude) <= 180) & (np.abs(columns.latitude) <= 90)  # noqa: PLR2004


def _flags(columns: Numbers | Categories | Positions | Documents) -> NDArray[np.int16]:
    if columns.quality is None:
        return np.zeros(len(columns.stream), np.int16)
    return columns.quality


def take(columns: Columns, chosen: NDArray[np.bool_]) -> Columns:
    """The rows of a mask, of whichever kind of columns."""
    quality = None if columns.quality is None else columns.quality[chosen]
    values: dict[str, Any] = {}
    for name in ("result", "longitude", "latitude", "speed", "course"):
        column = getattr(columns, name, None)
        if isinstance(column, np.ndarray):
            values[name] = column[chosen]
        elif column is not None:
            values[name] = [value for value, keep in zip(column, chosen, strict=True) if keep]
    return replace(
        columns,
        stream=columns.stream[chosen],
        phenomenon_time=columns.phenomenon_time[chosen],
        quality=quality,
        **values,
    )


def result_at(columns: Numbers | Categories | Positions | Documents, position: int) -> Any:
    """One row's result as a JSON value."""
    if isinstance(columns, Positions):
        return {"longitude": columns.longitude[position], "latitude": columns.latitude[position]}
    if isinstance(columns, Numbers):
        return float(columns.result[position])
    if isinstance(columns, Documents):
        return columns.result[position].decode()
    return columns.result[position]


def _split_free_texts(
    sector: Sector, streams: Sequence[Stream], columns: Categories
) -> tuple[Categories | None, Documents | None]:
    """Texts of a declared vocabulary stay categories; all other texts are documents."""

    def is_category(index: int, text: str) -> bool:
        declared = sector.by_name.get(streams[index].base_property)
        return declared is not None and text in declared.vocabulary

    chosen = np.array(
        [is_category(i, t) for i, t in zip(columns.stream.tolist(), columns.result, strict=True)],
        bool,
    )
    free = take(columns, ~chosen)
    documents = Documents(
        free.stream, free.phenomenon_time, [canonical_json(text) for text in free.result]
    )
    return (
        take(columns, chosen) if chosen.any() else None,
        documents if len(free.stream) else None,
    )


def _joined(parts: Sequence[Documents]) -> Documents | None:
    if len(parts) < 2:  # noqa: PLR2004
        return parts[0] if parts else None
    return Documents(
        np.concatenate([p.stream for p in parts]),
        np.concatenate([p.phenomenon_time for p in parts]),
        [result for p in parts for result in p.result],
    )
