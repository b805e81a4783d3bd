"""What storage has of one feed or station of shared vehicles, by the permission of whoever asks."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consent.gate import PermittedConnection
from domains.mobility.gbfs import state
from domains.mobility.gbfs.decode import COUNTS
from domains.mobility.gbfs.publish import Item, Known, state_of

HISTORY = timedelta(days=28)
"""What a forecast learns from: four of each weekday."""
HISTORY_ROWS_MAX = 50_000

# ruff: noqa: S608 - the parts are constants of this file

SELECT_FEED = f"""
SELECT d.property, l.phenomenon_time AS time, l.document, f.title, f.licence
FROM thing t
JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
  AND split_part(d.property, '/', 1) IN ('feed-document', 'stations', 'free-vehicles')
JOIN latest l ON l.datastream_id = d.id
LEFT JOIN mobility.feed f ON f.id = t.key
WHERE t.sector = %(sector)s AND t.key = %(feed)s AND {state.ALLOWED}
LIMIT 100
"""
SELECT_STATIONS = f"""
SELECT t.key, t.longitude, t.latitude, t.properties->'gbfs' AS item, d.property,
  l.phenomenon_time AS time, l.result, h.heard_time AS heard
FROM thing t
JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
  AND split_part(d.property, '/', 1) = ANY(%(properties)s)
JOIN latest l ON l.datastream_id = d.id
{state.PRESENT}
WHERE t.sector = %(sector)s AND starts_with(t.key, %(prefix)s) AND {state.ALLOWED}
  AND {state.IS_PRESENT}
ORDER BY t.key, d.property LIMIT 2000000
"""
# Of stations that have said nothing of their state the words alone.
SELECT_WORDS = f"""
SELECT t.key, t.longitude, t.latitude, t.properties->'gbfs' AS item
FROM thing t
{state.PRESENT}
WHERE t.sector = %(sector)s AND starts_with(t.key, %(prefix)s) AND {state.ALLOWED}
  AND {state.IS_PRESENT} AND t.longitude IS NOT NULL
  AND EXISTS (SELECT FROM thing feed JOIN datastream d ON d.thing_id = feed.id
    WHERE feed.sector = t.sector AND feed.key = %(feed)s AND d.property = 'stations'
      AND d.data_class = ANY(%(classes)s))
ORDER BY t.key LIMIT 200000
"""
SELECT_HISTORY = f"""
SELECT array_agg((extract(epoch FROM phenomenon_time))::bigint ORDER BY phenomenon_time) AS time,
  array_agg(result ORDER BY phenomenon_time) AS result
FROM (
  SELECT o.phenomenon_time, o.result FROM observation o
  WHERE o.phenomenon_time BETWEEN %(since)s AND %(until)s AND o.datastream_id = (
    SELECT d.id FROM datastream d JOIN thing t ON t.id = d.thing_id
    WHERE t.sector = %(sector)s AND t.key = %(thing)s AND d.property = 'vehicles-available'
      AND d.data_class = ANY(%(classes)s) AND {state.ALLOWED})
  ORDER BY o.phenomenon_time DESC LIMIT {HISTORY_ROWS_MAX}
) AS newest
"""


def feed(connection: PermittedConnection, name: str, secret: bytes) -> Known | None:
    """All that is known of a feed; None where there is none that may be seen."""
    rows = connection.fetch(SELECT_FEED, {"feed": name})
    if not rows:
        return None
    title, licence = rows[0]["title"] or name, rows[0]["licence"]
    known = Known(name, title, licence, secret=secret)
    for row in rows:
        base, _, document = row["property"].partition("/")
        if base == "feed-document" and isinstance(row["document"], Mapping):
            known.documents[document] = (row["time"], row["document"])
        elif base == "stations":
            known.stations_time = row["time"]
    scope = {"prefix": f"{name}:station:", "feed": name}
    known.stations = [_words(row) for row in connection.fetch(SELECT_WORDS, scope)]
    counted = connection.fetch(SELECT_STATIONS, {**scope, "properties": list(COUNTS.values())})
    for key, rows_of in groupby(counted, itemgetter("key")):
        values = [(each["property"], each["result"], each["time"]) for each in rows_of]
        known.states.append(state_of(_station_id(key), values))
        newest = max(time for _, _, time in values)
        known.states_time = max(filter(None, (known.states_time, newest)))
    for free in state.vehicles(connection):
        if free.feed == name:
            known.vehicles, known.vehicles_time = free.vehicles, free.time
    return known


def _station_id(key: str) -> str:
    return key.partition(":station:")[2].replace("%2F", "/")


def _words(row: Mapping[str, Any]) -> Item:
    item = row["item"] if isinstance(row["item"], dict) else {}
    place = {"lat": row["latitude"], "lon": row["longitude"]}
    return {**item, **place, "station_id": _station_id(row["key"])}


def history(
    connection: PermittedConnection, thing: str, until: datetime
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times (s since 1970) and counts of a station's vehicles in the HISTORY before a moment."""
    scope = {"thing": thing, "since": until - HISTORY, "until": until}
    columns = connection.fetch_columns(SELECT_HISTORY, scope)
    return columns["time"], columns["result"]
