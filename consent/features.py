"""GeoJSON features of Things with their latest values, from columns: about 1 µs a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from consent import door
from consent.columns import Column
from core.resolution import UNDECLARED
from core.sensorthings import ResultKind
from core.units import conversion_if_any

Indices = NDArray[np.intp]

NULL = b"null"
POINT = b'{"type":"Point","coordinates":[%b,%b]}'
POSITION = b'{"longitude":%b,"latitude":%b,"speed":%b,"course":%b}'
PIECES = 5
"""Of a value: what is said before it, the result, unit, time, quality."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The JSON around a value, the same for all Datastreams of one property, kind and unit.

    `decimals` of the results, or UNDECLARED.
    """

    name: str
    kind: str
    unit: str
    decimals: int
    first: bytes
    following: bytes
    between: bytes


@dataclass(frozen=True, slots=True)
class Card:
    """The JSON around a Thing's values, good while its row has this version.

    `head` ends where the place of a Thing that moves follows; else it holds all up to `last_seen`.
    """

    version: int
    key: str
    moves: bool
    head: bytes
    tail: bytes
    streams: tuple[int, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Streams:
    """Datastreams in the order of the answer; `owner` is the index of their Thing."""

    ids: Column
    owner: Column
    series: list[Series]

    @property
    def kinds(self) -> Column:
        """The kind of each."""
        return np.array([each.kind for each in self.series], "U8")

    @property
    def decimals(self) -> Column:
        """The declared decimals of each, or UNDECLARED."""
        return np.array([each.decimals for each in self.series], np.int8)


def card(sector: str, version: int, row: Mapping[str, Any]) -> Card:
    """A Thing's card from its row: key, name, longitude, latitude, moves, ids, names."""
    head = b'{"type":"Feature","id":%b,"geometry":' % door.encode(row["key"])
    said = (door.encode(row["name"]), door.encode(sector))
    tail = b',"properties":{"name":%b,"sector":%b,"last_seen":' % said
    if not row["moves"]:
        place = tuple(map(door.encode, (row["longitude"], row["latitude"])))
        head, tail = head + (POINT % place if NULL not in place else NULL) + tail, b""
    named = zip(row["names"] or (), row["decimals"] or (), strict=True)
    series = tuple(_series(*names, decimals) for names, decimals in named)
    return Card(version, row["key"], row["moves"], head, tail, tuple(row["ids"] or ()), series)


@lru_cache(maxsize=10_000)
def _series(name: str, kind: str, unit: str, decimals: int | None) -> Series:
    first = b'%b:{"result":' % door.encode(name)
    between = b',"unit":%b,"phenomenon_time":' % door.encode(unit)
    digits = UNDECLARED if decimals is None else decimals
    return Series(name, kind, unit, digits, first, b"," + first, between)


def streams_of(cards: Sequence[Card]) -> Streams:
    """All Datastreams of the Things."""
    counts = [len(card.streams) for card in cards]
    return Streams(
        np.fromiter(chain.from_iterable(card.streams for card in cards), np.int32, sum(counts)),
        np.repeat(np.arange(len(cards)), counts),
        list(chain.from_iterable(card.series for card in cards)),
    )


def with_values(
    streams: Streams, values: Mapping[str, Column]
) -> tuple[Streams, dict[str, Column]]:
    """The Datastreams that have a value, and `time`, `quality` and `result` in their order."""
    known, at = _find(values["stream"], streams.ids)
    ordered = {name: values[name][at] for name in ("time", "quality", "result")}
    series = [streams.series[index] for index in known.tolist()]
    return Streams(streams.ids[known], streams.owner[known], series), {**values, **ordered}


def converted(streams: Streams, results: Column, unit: str) -> tuple[Streams, Column]:
    """Numbers of that dimension in `unit`; CityError `invalid` for a unit that is not UCUM."""
    lines = {
        each: known
        for each in set(streams.series)
        if (known := conversion_if_any(each.unit, unit)) and each.kind == ResultKind.NUMBER
    }
    line = np.array([lines.get(each, (1.0, 0.0)) for each in streams.series]).reshape(-1, 2)
    into = {each: _series(each.name, each.kind, unit, None) for each in lines}
    series = [into.get(each, each) for each in streams.series]
    return replace(streams, series=series), results * line[:, 0] + line[:, 1]


def encode(
    things: Column,
    cards: Sequence[Card],
    streams: Streams,
    values: Mapping[str, Column],
    texts: Mapping[float, bytes],
) -> bytes:
    """The features with commas between; `texts` are the categories' by code."""
    pieces = [b""] * (PIECES * len(streams.series))
    pieces[0::PIECES] = [each.following for each in streams.series]
    pieces[1::PIECES] = _results(streams, values, texts)
    pieces[2::PIECES] = [each.between for each in streams.series]
    pieces[3::PIECES] = _json(values["time"])
    flags = values["quality"].tolist()
    ends = {flag: b',"quality":%d}' % flag for flag in set(flags)}
    pieces[4::PIECES] = [ends[flag] for flag in flags]
    # A Thing's values follow what is said of it; one without any is between the others.
    begins = np.searchsorted(streams.owner, np.arange(len(cards) + 1)).tolist()
    opening = b""
    heads = zip(_heads(things, cards, values), _seen(things, values), strict=True)
    for (head, seen), (begin, end) in zip(heads, pairwise(begins), strict=True):
        opening += head + seen + b',"latest":{'
        if begin < end:
            pieces[PIECES * begin] = opening + streams.series[begin].first
            opening = b""
        opening += b"}}},"
    return b"".join((*pieces, opening[:-1]))


def _results(
    streams: Streams, values: Mapping[str, Column], texts: Mapping[float, bytes]
) -> list[bytes]:
    """Each result as JSON, by the kind of its Datastream."""
    results, kinds = _json(values["result"]), streams.kinds
    (chosen,) = np.nonzero(kinds == ResultKind.CATEGORY)
    encoded = {code: door.encode(text.decode()) for code, text in texts.items()}
    for index, code in zip(chosen.tolist(), values["result"][chosen].tolist(), strict=True):
        results[index] = encoded.get(code, NULL)
    (chosen,) = np.nonzero(kinds == ResultKind.POSITION)
    _, at = _find(values["position"], streams.ids[chosen])
    columns = (_json(values[name][at]) for name in ("longitude", "latitude", "speed", "course"))
    for index, position in zip(chosen.tolist(), zip(*columns, strict=True), strict=True):
        results[index] = POSITION % position
    (chosen,) = np.nonzero(kinds == ResultKind.DOCUMENT)
    _, at = _find(values["documented"], streams.ids[chosen])
    for index, document in zip(chosen.tolist(), values["document"][at].tolist(), strict=True):
        results[index] = document
    return results


def _heads(things: Column, cards: Sequence[Card], values: Mapping[str, Column]) -> list[bytes]:
    """Each feature up to `last_seen`, with the place of those that move."""
    heads = [card.head for card in cards]
    moving = [index for index, card in enumerate(cards) if card.moves]
    places = [NULL] * len(moving)
    known, at = _find(values["placed"], things[moving])
    points = zip(_json(values["x"][at]), _json(values["y"][at]), strict=True)
    for index, point in zip(known.tolist(), points, strict=True):
        places[index] = POINT % point
    for index, place in zip(moving, places, strict=True):
        heads[index] += place + cards[index].tail
    return heads


def _seen(things: Column, values: Mapping[str, Column]) -> list[bytes]:
    """When each Thing was last seen."""
    known, at = _find(values["heard"], things)
    moments = _json(values["seen"][at])
    if len(known) == len(things):
        return moments
    seen = [NULL] * len(things)
    for index, moment in zip(known.tolist(), moments, strict=True):
        seen[index] = moment
    return seen


def _find(keys: Column, wanted: Column) -> tuple[Indices, Indices]:
    """Which of the wanted keys are among the keys (which are unique), and where."""
    order = np.argsort(keys)
    at = np.searchsorted(keys, wanted, sorter=order)
    (known,) = np.nonzero(at < len(keys))
    at = order[at[known]]
    same = keys[at] == wanted[known]
    return known[same], at[same]


def _json(column: Column) -> list[bytes]:
    """Each value of a column as JSON: numbers, NaN as null, times in UTC with Z."""
    listed = orjson.dumps(np.ascontiguousarray(column), option=door.ENCODING | orjson.OPT_NAIVE_UTC)
    return listed[1:-1].split(b",") if len(column) else []
