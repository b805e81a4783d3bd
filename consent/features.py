"""GeoJSON features of Things with their latest values, from columns: about 1 µs a value."""

from collections.abc import Callable, Mapping, Sequence
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
    """Datastreams in the order of the answer.

    `owner` is the index of their Thing, `which` that of their series among those that occur.
    """

    ids: Column
    owner: Column
    which: Column
    series: Sequence[Series]

    @property
    def decimals(self) -> Column:
        """The declared decimals of each, or UNDECLARED."""
        return np.array([each.decimals for each in self.series], np.int8)[self.which]

    def of_kind(self, kind: ResultKind) -> Column:
        """Whether each is of the kind."""
        return np.array([each.kind == kind for each in self.series], bool)[self.which]

    def said(self, part: Callable[[Series], bytes]) -> Column:
        """A part of the JSON around each one's value."""
        return _objects([part(each) for each in self.series])[self.which]


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
    count = sum(counts)
    # Things of one make have the same series: what occurs is found by looking at each make once.
    series = tuple(set(chain.from_iterable({card.series for card in cards})))
    place = {each: index for index, each in enumerate(series)}
    each_one = chain.from_iterable(card.series for card in cards)
    return Streams(
        np.fromiter(chain.from_iterable(card.streams for card in cards), np.int32, count),
        np.repeat(np.arange(len(cards)), counts),
        np.fromiter(map(place.__getitem__, each_one), np.intp, count),
        series,
    )


def with_values(
    streams: Streams, values: Mapping[str, Column]
) -> tuple[Streams, dict[str, Column]]:
    """The Datastreams that have a value, and `time`, `quality` and `result` in their order."""
    known, at = _find(values["stream"], streams.ids)
    ordered = {name: values[name][at] for name in ("time", "quality", "result")}
    having = (column[known] for column in (streams.ids, streams.owner, streams.which))
    ids, owner, which = having
    return Streams(ids, owner, which, streams.series), {**values, **ordered}


def converted(streams: Streams, results: Column, unit: str) -> tuple[Streams, Column]:
    """Numbers of that dimension in `unit`; CityError `invalid` for a unit that is not UCUM."""
    lines = {
        each: known
        for each in streams.series
        if (known := conversion_if_any(each.unit, unit)) and each.kind == ResultKind.NUMBER
    }
    line = np.array([lines.get(each, (1.0, 0.0)) for each in streams.series]).reshape(-1, 2)
    into = {each: _series(each.name, each.kind, unit, None) for each in lines}
    series = [into.get(each, each) for each in streams.series]
    factor, offset = line[streams.which].T
    return replace(streams, series=series), results * factor + offset


def encode(
    things: Column,
    cards: Sequence[Card],
    streams: Streams,
    values: Mapping[str, Column],
    texts: Mapping[float, bytes],
) -> list[bytes]:
    """The features with commas between, in parts; `texts` are the categories' by code."""
    pieces = np.empty((len(streams.ids), PIECES), object)
    pieces[:, 0] = streams.said(lambda series: series.following)
    pieces[:, 1] = _results(streams, values, texts)
    pieces[:, 2] = streams.said(lambda series: series.between)
    pieces[:, 3] = _json(values["time"])
    flags, flag = np.unique(values["quality"], return_inverse=True)
    pieces[:, 4] = _objects([b',"quality":%d}' % each for each in flags.tolist()])[flag]
    last = _open(pieces, _openings(things, cards, values), streams)
    return [*pieces.ravel().tolist(), last]


def _openings(things: Column, cards: Sequence[Card], values: Mapping[str, Column]) -> list[bytes]:
    """What comes before the values of each Thing, the end of the Thing before it first."""
    heads = zip(_heads(things, cards, values), _seen(things, values), strict=True)
    openings = [b"}}}," + head + seen + b',"latest":{' for head, seen in heads]
    openings[:1] = [opening.removeprefix(b"}}},") for opening in openings[:1]]
    return openings


def _open(pieces: Column, openings: list[bytes], streams: Streams) -> bytes:
    """Set each Thing's opening before its first value; what is left after the last value.

    A Thing without values goes before the next one that has any.
    """
    if not openings:
        return b""
    (firsts,) = np.nonzero(np.diff(streams.owner, prepend=-1))
    last = b""
    if len(firsts) < len(openings):
        ends = [0, *(streams.owner[firsts] + 1).tolist(), len(openings)]
        *openings, last = (b"".join(openings[begin:end]) for begin, end in pairwise(ends))
    pieces[firsts, 0] = _objects(openings) + streams.said(lambda series: series.first)[firsts]
    return last + b"}}}"


def _results(
    streams: Streams, values: Mapping[str, Column], texts: Mapping[float, bytes]
) -> Column:
    """Each result as JSON, by the kind of its Datastream."""
    results = _objects(_json(values["result"]))
    (chosen,) = np.nonzero(streams.of_kind(ResultKind.CATEGORY))
    codes, code = np.unique(values["result"][chosen], return_inverse=True)
    encoded = {code: door.encode(text.decode()) for code, text in texts.items()}
    results[chosen] = _objects([encoded.get(each, NULL) for each in codes.tolist()])[code]
    (chosen,) = np.nonzero(streams.of_kind(ResultKind.POSITION))
    _, at = _find(values["position"], streams.ids[chosen])
    columns = (_json(values[name][at]) for name in ("longitude", "latitude", "speed", "course"))
    results[chosen] = _objects([POSITION % each for each in zip(*columns, strict=True)])
    (chosen,) = np.nonzero(streams.of_kind(ResultKind.DOCUMENT))
    _, at = _find(values["documented"], streams.ids[chosen])
    results[chosen] = values["document"][at]
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


def _objects(listed: Sequence[bytes]) -> Column:
    """A column of bytes, which numpy takes up as they are."""
    column = np.empty(len(listed), object)
    column[:] = listed
    return column
