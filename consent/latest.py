"""Latest values of many Things in a few queries: texts that seldom change are kept, values read.

What a caller may see is decided by the database in the snapshot that the values come from: which
Things, in the page's query, and which of their Datastreams, in the values' own. What is kept of a
Thing is text for those rows, read by the same permission and good for one version of its row, which
migration 0011 makes change with all that the text says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from consent import features
from consent.columns import Column
from consent.features import Card, Streams
from consent.gate import PermittedConnection
from consent.queries import VISIBLE, Area
from core.resolution import served
from core.sensorthings import ResultKind

CARDS_MAX = 500_000
"""Things kept for one sector and set of classes, about 1 kB each; beyond, all are read anew."""

# ruff: noqa: S608 - the parts are constants of this file

# `whole`: every Datastream of the Thing may be seen, so that its values need no look at each.
_PAGE = """
SELECT array_agg(id) AS thing, array_agg(xmin) AS version, array_agg(whole) AS whole FROM (
  SELECT t.id, t.xmin, t.data_classes <@ %(classes)s::text[] AS whole"""
_IN_KEY_ORDER = f"""
    AND t.key > %(after)s AND {VISIBLE}
  ORDER BY t.key LIMIT %(limit)s"""

SELECT_PAGE = f"""
{_PAGE} FROM thing t WHERE t.sector = %(sector)s {_IN_KEY_ORDER}
) AS page
"""

# Two boxes, since a box over the antimeridian is two; great-circle distance on the mean sphere.
SELECT_PAGE_IN_AREA = f"""
{_PAGE} FROM thing t WHERE t.id = ANY(ARRAY(
    SELECT p.thing_id FROM thing_place p
    WHERE p.sector = %(sector)s AND p.data_class = ANY(%(classes)s)
      AND (point(p.longitude, p.latitude) <@ %(box_1)s::box
           OR point(p.longitude, p.latitude) <@ %(box_2)s::box)
      AND (%(radius)s::float8 IS NULL OR 2 * 6371008.8 * asin(least(1, sqrt(
            power(sin(radians(p.latitude - %(near_latitude)s) / 2), 2)
            + cos(radians(p.latitude)) * cos(radians(%(near_latitude)s))
            * power(sin(radians(p.longitude - %(near_longitude)s) / 2), 2)))) <= %(radius)s)
  )) {_IN_KEY_ORDER}
) AS page
"""

SELECT_CARDS = f"""
SELECT t.id, t.key, t.name, p.longitude, p.latitude, s.ids, s.names, s.decimals,
       EXISTS (SELECT FROM datastream d WHERE d.thing_id = t.id AND d.kind = 'position') AS moves
FROM thing t
LEFT JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)
CROSS JOIN LATERAL (
  SELECT array_agg(d.id ORDER BY d.property) AS ids,
         array_agg(ARRAY[d.property, d.kind, d.unit] ORDER BY d.property) AS names,
         array_agg(d.decimals ORDER BY d.property) AS decimals
  FROM datastream d WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s)) s
WHERE t.sector = %(sector)s AND t.id = ANY(%(things)s::integer[]) AND {VISIBLE}
"""

# Arrays of ids are looked up twice as fast as the same rows are joined.
SELECT_VALUES = """
WITH permitted AS MATERIALIZED (
  SELECT unnest(%(whole)s::integer[]) AS id
  UNION ALL
  SELECT d.id FROM datastream d
  WHERE d.id = ANY(%(mixed)s::integer[]) AND d.data_class = ANY(%(classes)s)
)
SELECT * FROM (
  SELECT array_agg(datastream_id) AS stream, array_agg(phenomenon_time) AS time,
         array_agg(quality) AS quality, array_agg(coalesce(result, 'NaN')) AS result
  FROM latest WHERE datastream_id = ANY(ARRAY(SELECT id FROM permitted))
) AS value, (
  SELECT array_agg(datastream_id) AS position,
         array_agg(coalesce(longitude, 'NaN')) AS longitude,
         array_agg(coalesce(latitude, 'NaN')) AS latitude,
         array_agg(coalesce(speed, 'NaN')) AS speed, array_agg(coalesce(course, 'NaN')) AS course
  FROM latest WHERE datastream_id = ANY(ARRAY(
    SELECT id FROM permitted WHERE id = ANY(%(positions)s::integer[])))
) AS position, (
  SELECT array_agg(datastream_id) AS documented,
         array_agg(coalesce(document::text, 'null')) AS document
  FROM latest WHERE datastream_id = ANY(ARRAY(
    SELECT id FROM permitted WHERE id = ANY(%(documents)s::integer[])))
) AS document, (
  SELECT array_agg(thing_id) AS heard, array_agg(least(heard_at, heard_time)) AS seen
  FROM thing_heard WHERE thing_id = ANY(%(things)s::integer[])
) AS heard, (
  SELECT array_agg(thing_id) AS placed, array_agg(longitude) AS x, array_agg(latitude) AS y
  FROM thing_place WHERE thing_id = ANY(%(moving)s::integer[]) AND data_class = ANY(%(classes)s)
) AS place
"""

SELECT_CATEGORIES = """
SELECT array_agg(c.code) AS code, array_agg(c.text) AS text
FROM category c WHERE c.code IN (
  SELECT l.result::integer FROM latest l JOIN datastream d ON d.id = l.datastream_id
  WHERE l.datastream_id = ANY(%(streams)s::integer[]) AND d.data_class = ANY(%(classes)s))
"""


@dataclass(frozen=True, slots=True)
class Page:
    """GeoJSON features by key, with commas between; `more` is the last key where others follow.

    In parts: whoever answers joins them once, since megabytes take milliseconds to copy.
    """

    features: list[bytes]
    more: str | None


def select_latest(
    connection: PermittedConnection,
    limit: int,
    after: str = "",
    area: Area | None = None,
    unit: str | None = None,
) -> Page:
    """Up to `limit` visible Things after a key with their latest values, as GeoJSON features.

    Numbers of the dimension of `unit` are converted to it; CityError `invalid` for no UCUM unit.
    """
    scope = {"limit": limit + 1, "after": after}
    if area is None:
        found = connection.fetch_columns(SELECT_PAGE, scope)
    else:
        found = connection.fetch_columns(SELECT_PAGE_IN_AREA, {**scope, **area.parameters()})
    things = found["thing"][:limit]
    cards = _cards(connection, things.tolist(), found["version"].tolist())
    streams = features.streams_of(cards)
    values = _values(connection, things, cards, streams, found["whole"][:limit])
    streams, values = features.with_values(streams, values)
    texts = _texts(connection, streams, values["result"])
    values["result"] = served(values["result"], streams.decimals)
    if unit is not None:
        streams, values["result"] = features.converted(streams, values["result"], unit)
    more = cards[-1].key if len(found["thing"]) > limit else None
    return Page(features.encode(things, cards, streams, values, texts), more)


def _cards(
    connection: PermittedConnection, things: Sequence[int], versions: Sequence[int]
) -> list[Card]:
    """A card of each Thing; what is not kept in this version is read in the same snapshot."""
    kept: dict[int, Card] = connection.kept.setdefault("cards", {})
    cards = {thing: kept.get(thing) for thing in things}
    wanted = {
        thing: version
        for (thing, card), version in zip(cards.items(), versions, strict=False)
        if card is None or card.version != version
    }
    if wanted:
        if len(kept) + len(wanted) > CARDS_MAX:
            kept.clear()
        for row in connection.fetch(SELECT_CARDS, {"things": list(wanted)}):
            cards[row["id"]] = kept[row["id"]] = features.card(
                connection.sector, wanted[row["id"]], row
            )
    return list(cards.values())  # type: ignore[arg-type]  # none is None any more


def _values(
    connection: PermittedConnection,
    things: Column,
    cards: Sequence[Card],
    streams: Streams,
    whole: Column,
) -> dict[str, Column]:
    """The values of the Datastreams, and where and when their Things were last seen."""
    permitted = whole[streams.owner]
    ids = {
        "things": things,
        "moving": things[np.array([card.moves for card in cards], bool)],
        "whole": streams.ids[permitted],
        "mixed": streams.ids[~permitted],
        "positions": streams.ids[streams.of_kind(ResultKind.POSITION)],
        "documents": streams.ids[streams.of_kind(ResultKind.DOCUMENT)],
    }
    return connection.fetch_columns(SELECT_VALUES, {k: _array(v) for k, v in ids.items()})


def _texts(
    connection: PermittedConnection, streams: Streams, results: Column
) -> dict[float, bytes]:
    """The text of each category among the results, by its code."""
    (categories,) = np.nonzero(streams.of_kind(ResultKind.CATEGORY))
    _, first = np.unique(results[categories], return_index=True)
    if not len(first):
        return {}
    having = _array(streams.ids[categories[first]])  # one Datastream a category is enough
    found = connection.fetch_columns(SELECT_CATEGORIES, {"streams": having})
    return dict(zip(found["code"].tolist(), found["text"].tolist(), strict=True))


def _array(ids: Column) -> str:
    """Integers as PostgreSQL's array literal, ascending: neighbours are looked up together."""
    listed = orjson.dumps(np.sort(ids), option=orjson.OPT_SERIALIZE_NUMPY)
    return f"{{{listed[1:-1].decode()}}}"
