"""What decoders hand over, held against what the sector declares: names, times, units, ranges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.clock import MICROSECONDS, to_iso
from core.errors import CityError
from core.remembered import STREAMS_MAX, STREAMS_MIN, Remembered
from core.sector import ObservedProperty, Sector
from core.sensorthings import (
    Categories,
    Decoded,
    Documents,
    Heard,
    Numbers,
    Positions,
    Quality,
    Rejected,
    ResultKind,
    Stream,
    canonical_json,
    observation_json,
)
from core.units import conversion, is_ucum

THING_CHARACTERS_MAX = 200
PROPERTY_CHARACTERS_MAX = 100

Columns = TypeVar("Columns", Numbers, Categories, Positions, Documents)
Verdict = tuple[str, str] | None
"""Why a stream's observations are rejected, as (reason, detail); None: they are not."""


def check(sector: Sector, decoded: Decoded, received_at: int, future_seconds_max: float) -> Decoded:
    """The decoded message in declared units, quality flags set, impossible rows rejected."""
    checker = _Checker(sector, decoded.streams, latest_time(received_at, future_seconds_max))
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
    return replace(
        kept,
        streams=checker.streams,
        rejected=(*decoded.rejected, *checker.rejected),
        heard=audible(decoded.heard, received_at, future_seconds_max),
        # An index holds no endless name, and the append would fail with all that came beside it.
        things=tuple(
            update
            for update in decoded.things
            if _name_fault("thing", update.thing, THING_CHARACTERS_MAX) is None
        ),
    )


def audible(
    heard: Sequence[Heard], received_at: int, future_seconds_max: float
) -> tuple[Heard, ...]:
    """A Thing heard from the future would look alive until that time has come: without those."""
    latest = latest_time(received_at, future_seconds_max)
    return tuple(each for each in heard if 0 <= each.phenomenon_time <= latest)


def latest_time(received_at: int, future_seconds_max: float) -> int:
    """The last phenomenon time that is no mistake of a clock, in µs."""
    return received_at + int(future_seconds_max * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one (property, unit) means in a sector: why it is rejected, or how it is read."""

    verdict: Verdict = None
    declared: bool = True
    unit: str | None = None
    factor: float = 1.0
    offset: float = 0.0
    low: float = -np.inf
    high: float = np.inf


@lru_cache(maxsize=4096)
def _rule(sector: Sector, kind: ResultKind, observed_property: str, unit: str | None) -> _Rule:
    """Few of them serve all Datastreams of a sector, so that a batch costs little per stream."""
    named = _name_fault("property", observed_property, PROPERTY_CHARACTERS_MAX)
    if named is not None:
        return _Rule(named)
    stream = Stream("", observed_property, unit)
    declared = sector.by_name.get(stream.base_property)
    if declared is None:
        if sector.is_about_persons:
            return _Rule(("undeclared", f"property: {observed_property} is not declared here"))
        if unit is not None and not is_ucum(unit):
            return _Rule(("bad-unit", f"unit: {unit!r} is not a UCUM unit"))
        return _Rule(declared=False, unit=unit)
    if declared.kind is not kind:
        return _Rule(("wrong-kind", f"result: {kind} where {declared.name} is a {declared.kind}"))
    return _reading(declared, unit)


def _reading(declared: ObservedProperty, unit: str | None) -> _Rule:
    low = -np.inf if declared.minimum is None else declared.minimum
    high = np.inf if declared.maximum is None else declared.maximum
    if declared.kind is not ResultKind.NUMBER or unit in (None, declared.unit):
        return _Rule(unit=unit, low=low, high=high)
    try:
        factor, offset = conversion(str(unit), declared.unit)
    except CityError as error:
        return _Rule(("bad-unit", str(error)))
    return _Rule(None, True, declared.unit, factor, offset, low, high)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a message's streams mean as one kind of result: columns by the index of the stream."""

    sector: Sector
    named: Sequence[Stream]
    verdicts: dict[int, Verdict]
    faulty: NDArray[np.bool_]
    undeclared: NDArray[np.bool_]
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    converted: tuple[Stream, ...] | None
    """The streams in their declared units, where that changes any."""


_known: Remembered[tuple[int, int, ResultKind], _Reading] = Remembered(STREAMS_MAX)
"""By identity: decoders hand over the same tuple of streams for every batch of a gateway."""


def _reading_of(sector: Sector, streams: Sequence[Stream], kind: ResultKind) -> _Reading:
    key = (id(sector), id(streams), kind)
    known = _known.get(key)
    if known is not None and known.named is streams and known.sector is sector:
        return known
    named = {(stream.property, stream.unit) for stream in streams}
    rule_of = {name: _rule(sector, kind, *name) for name in named}  # few serve many streams
    rules = [rule_of[stream.property, stream.unit] for stream in streams]
    verdicts: dict[int, Verdict] = {}
    for index, stream in enumerate(streams):
        fault = _name_fault("thing", stream.thing, THING_CHARACTERS_MAX) or rules[index].verdict
        if fault:
            verdicts[index] = fault
    faulty = np.zeros(len(streams), np.bool_)
    faulty[list(verdicts)] = True
    converted = None
    if any(rule.factor != 1 or rule.offset for rule in rules):
        converted = tuple(
            replace(stream, unit=rule.unit) if rule.factor != 1 or rule.offset else stream
            for stream, rule in zip(streams, rules, strict=True)
        )
    reading = _Reading(
        sector,
        streams,
        verdicts,
        faulty,
        undeclared=np.array([not rule.declared for rule in rules], np.bool_),
        factor=np.array([rule.factor for rule in rules]),
        offset=np.array([rule.offset for rule in rules]),
        low=np.array([rule.low for rule in rules]),
        high=np.array([rule.high for rule in rules]),
        converted=converted,
    )
    return reading if len(streams) < STREAMS_MIN else _known.put(key, reading, len(streams))


class _Checker:
    """One message's check; `rejected` and the converted `streams` are read at its end."""

    def __init__(self, sector: Sector, streams: Sequence[Stream], latest: int) -> None:
        self._sector = sector
        self._latest = latest
        self._named = streams
        self._converted: tuple[Stream, ...] | None = None
        self.rejected: list[Rejected] = []

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The message's streams in the units that its columns have now; the same object if it can
        be, since storage remembers what it found for it."""
        return tuple(self._converted or self._named)

    def numbers(self, columns: Numbers | None) -> Numbers | None:
        """Convert to the declared unit and flag what is out of the plausible range."""
        if columns is None:
            return None
        reading = _reading_of(self._sector, self._named, ResultKind.NUMBER)

        def converted(columns: Numbers) -> NDArray[np.float64]:
            if reading.converted is None:
                return columns.result
            with np.errstate(over="ignore"):  # what overflows is rejected
                scaled: NDArray[np.float64] = columns.result * reading.factor[columns.stream]
                scaled += reading.offset[columns.stream]
                return scaled

        columns = self.kept(columns, ResultKind.NUMBER, lambda each: np.isfinite(converted(each)))
        if columns is None:
            return None
        result = converted(columns)
        self._converted = reading.converted
        outside = result < reading.low[columns.stream]
        outside |= result > reading.high[columns.stream]
        quality = columns.quality
        if outside.any():
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
        reading = _reading_of(self._sector, self._named, kind)
        time = columns.phenomenon_time
        fine = (time >= 0) & (time <= self._latest)
        if possible is not None:
            fine &= possible(columns)
        if reading.verdicts:
            fine &= ~reading.faulty[columns.stream]
        undeclared = reading.undeclared[columns.stream]
        if undeclared.any():
            flag = np.where(undeclared, Quality.UNDECLARED, 0)
            columns = replace(columns, quality=_flags(columns) | flag.astype(np.int16))
        if fine.all():
            return columns
        for position in np.flatnonzero(~fine).tolist():
            verdict = reading.verdicts.get(int(columns.stream[position]))
            self._reject(columns, position, verdict)
        return take(columns, fine) if fine.any() else None

    def _reject(self, columns: Columns, position: int, verdict: Verdict) -> None:
        stream = self._named[int(columns.stream[position])]
        time = int(columns.phenomenon_time[position])
        result = result_at(columns, position)
        if verdict is None and not 0 <= time <= self._latest:
            verdict = "bad-time", f"phenomenon_time: {_iso(time)} is before 1970 or in the future"
        reason, detail = verdict or ("bad-result", f"result: {result} is not possible")
        payload = observation_json(stream, _iso(time), result)
        self.rejected.append(Rejected(reason, detail, payload, position, "json"))


def _name_fault(field: str, text: str, limit: int) -> Verdict:
    if text and len(text) <= limit and text.isprintable():
        return None
    return "bad-name", f"{field}: must have 1 to {limit} printable characters"


def _iso(time: int) -> str:
    try:
        return to_iso(time)
    except OverflowError:
        return f"{time} µs"


def _on_globe(columns: Positions) -> NDArray[np.bool_]:
    return (np.abs(columns.longitude) <= 180) & (np.abs(columns.latitude) <= 90)  # noqa: PLR2004


def _flags(columns: Numbers | Categories | Positions | Documents) -> NDArray[np.int16]:
    if columns.quality is None:
        return np.zeros(len(columns.stream), np.int16)
    return columns.quality


def take(columns: Columns, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Columns:
    """The rows at a mask or at indices, of whichever kind of columns."""
    values: dict[str, Any] = {}
    for name in ("quality", "message", "result", "longitude", "latitude", "speed", "course"):
        column = getattr(columns, name, None)
        if isinstance(column, np.ndarray):
            values[name] = column[chosen]
        elif column is not None:
            positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
            values[name] = [column[position] for position in positions.tolist()]
    return replace(
        columns,
        stream=columns.stream[chosen],
        phenomenon_time=columns.phenomenon_time[chosen],
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
        free.stream,
        free.phenomenon_time,
        [canonical_json(text) for text in free.result],
        free.quality,
        free.message,
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
        None if all(p.quality is None for p in parts) else np.concatenate([*map(_flags, parts)]),
        _messages(parts),
    )


def _messages(parts: Sequence[Documents]) -> NDArray[np.int32] | None:
    known = [p.message for p in parts if p.message is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
