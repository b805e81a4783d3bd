"""The latest value of every Datastream: a projection kept in memory, flushed beside the appends.

Upserting it inside the append would halve the pipeline (0.35 against 2.7 M rows/s), so it trails
the observations and is rebuilt from them: `projection.append_id` says how far it has come. What
changes 208,000 times a second is kept and written as columns: 1.2 µs a value in the database.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from core.clock import to_datetime
from core.storage.columns import (
    COPY_HEADER,
    COPY_TRAILER,
    DOCUMENT,
    NUMBER,
    POSITION,
    SHAPES,
    TIME,
    Rows,
    Shape,
    copy_in,
    fetch_arrays,
    pack_columns,
    resized,
)

Session = Connection[tuple[Any, ...]]
HEARD_AT_ONCE_MAX = 1_000
HEARD_SECONDS = 5.0
"""More Things than that are written as heard only so often."""
NEVER = np.iinfo(np.int64).min

SELECT_PROJECTION = "SELECT append_id FROM projection WHERE sector = %(sector)s"
SELECT_LATEST_TIMES = """
SELECT array_agg(l.datastream_id),
       array_agg((extract(epoch FROM l.phenomenon_time) * 1000000)::bigint)
FROM latest l JOIN datastream d ON d.id = l.datastream_id JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s
"""
SELECT_APPENDED_TIMES = """
SELECT min(time_min), max(time_max) FROM append
WHERE sector = %(sector)s AND id > %(after)s AND id <= %(until)s
"""
# The newest row of each Datastream in a run of appends, whichever process wrote them.
SELECT_APPENDED = {
    shape.table: f"""
SELECT DISTINCT ON (o.datastream_id) o.datastream_id,
  (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint,
  (extract(epoch FROM a.committed_at) * 1000000)::bigint, o.quality, o.append_id, {columns}
FROM {shape.table} o JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
  JOIN append a ON a.sector = t.sector AND a.id = o.append_id
WHERE t.sector = %(sector)s AND o.append_id > %(after)s AND o.append_id <= %(until)s
  AND o.phenomenon_time BETWEEN %(time_min)s AND %(time_max)s
ORDER BY o.datastream_id, o.phenomenon_time DESC
"""  # noqa: S608 - names from the frozen table of shapes
    for shape, columns in (
        (NUMBER, "o.result"),
        (POSITION, "o.longitude, o.latitude, o.speed, o.course"),
        (DOCUMENT, "o.result::text"),
    )
}
AGGREGATED = """
SELECT array_agg(datastream_id), array_agg(time), array_agg(received), array_agg(quality),
       array_agg(append_id), array_agg(result)
FROM ({query}) AS n (datastream_id, time, received, quality, append_id, result)
"""
AGGREGATED_TYPES = (">i4", ">i8", ">i8", ">i2", ">i8", ">f8")
NEWER = "(n.phenomenon_time, n.append_id) >= (l.phenomenon_time, l.append_id)"
CREATE_NUMBERS = """
CREATE TEMPORARY TABLE IF NOT EXISTS latest_numbers (
  phenomenon_time timestamptz, received_at timestamptz, result float8, append_id bigint,
  datastream_id integer, quality smallint
) ON COMMIT DELETE ROWS
"""
UPDATE_NUMBERS = f"""
UPDATE latest l SET phenomenon_time = n.phenomenon_time, received_at = n.received_at,
  quality = n.quality, append_id = n.append_id, result = n.result
FROM pg_temp.latest_numbers n WHERE l.datastream_id = n.datastream_id AND {NEWER}
"""  # noqa: S608 - a constant of ours
INSERT_NUMBERS = """
INSERT INTO latest AS l (datastream_id, phenomenon_time, received_at, quality, append_id, result)
SELECT n.datastream_id, n.phenomenon_time, n.received_at, n.quality, n.append_id, n.result
FROM pg_temp.latest_numbers n
WHERE NOT EXISTS (SELECT FROM latest l WHERE l.datastream_id = n.datastream_id)
ORDER BY n.datastream_id
"""
UPSERT_LATEST = """
INSERT INTO latest AS l (datastream_id, phenomenon_time, received_at, quality, append_id,
                         result, longitude, latitude, speed, course, document)
SELECT n.datastream_id, n.phenomenon_time, n.received_at, n.quality, n.append_id, n.result,
       n.longitude, n.latitude, n.speed, n.course, n.document::jsonb
FROM unnest(%(datastream)s::integer[], %(time)s::timestamptz[], %(received)s::timestamptz[],
            %(quality)s::smallint[], %(append)s::bigint[], %(result)s::float8[],
            %(longitude)s::float8[], %(latitude)s::float8[], %(speed)s::float8[],
            %(course)s::float8[], %(document)s::text[])
  AS n (datastream_id, phenomenon_time, received_at, quality, append_id, result,
        longitude, latitude, speed, course, document)
ORDER BY n.datastream_id
ON CONFLICT (datastream_id) DO UPDATE SET
  phenomenon_time = excluded.phenomenon_time, received_at = excluded.received_at,
  quality = excluded.quality, append_id = excluded.append_id, result = excluded.result,
  longitude = excluded.longitude, latitude = excluded.latitude, speed = excluded.speed,
  course = excluded.course, document = excluded.document
WHERE (excluded.phenomenon_time, excluded.append_id) >= (l.phenomenon_time, l.append_id)
"""
UPSERT_PLACES = """
INSERT INTO thing_place AS p (thing_id, sector, longitude, latitude, data_class)
SELECT d.thing_id, %(sector)s, l.longitude, l.latitude, d.data_class
FROM latest l JOIN datastream d ON d.id = l.datastream_id
WHERE l.datastream_id = ANY(%(datastreams)s) ORDER BY 1
ON CONFLICT (thing_id) DO UPDATE SET longitude = excluded.longitude, latitude = excluded.latitude,
  data_class = excluded.data_class
WHERE (p.longitude, p.latitude) IS DISTINCT FROM (excluded.longitude, excluded.latitude)
"""
CREATE_HEARD = """
CREATE TEMPORARY TABLE IF NOT EXISTS heard (
  heard_time timestamptz, heard_at timestamptz, thing_id integer, gateway integer
) ON COMMIT DELETE ROWS
"""
HEARD_BY = """
FROM pg_temp.heard n
JOIN unnest(%(gateways)s::text[]) WITH ORDINALITY AS g (name, number) ON g.number = n.gateway + 1
"""
UPDATE_HEARD = f"""
UPDATE thing_heard h SET gateway = g.name, heard_at = n.heard_at, heard_time = n.heard_time
{HEARD_BY} WHERE h.thing_id = n.thing_id AND (n.heard_time > h.heard_time
  -- A clock that was ahead and has been set right: current again after a silence, and not a repeat.
  OR (n.heard_time <> h.heard_time AND n.heard_at > h.heard_at + interval '10 seconds'
      AND abs(extract(epoch FROM n.heard_at - n.heard_time)) < 600))
"""  # noqa: S608 - a constant of ours
INSERT_HEARD = f"""
INSERT INTO thing_heard (thing_id, gateway, heard_at, heard_time)
SELECT n.thing_id, g.name, n.heard_at, n.heard_time
{HEARD_BY} WHERE NOT EXISTS (SELECT FROM thing_heard h WHERE h.thing_id = n.thing_id)
"""  # noqa: S608 - a constant of ours
UPSERT_PROJECTION = """
INSERT INTO projection (sector, append_id) VALUES (%(sector)s, %(append_id)s)
ON CONFLICT (sector) DO UPDATE SET append_id = greatest(projection.append_id, excluded.append_id)
"""
# A few changed among hundreds of thousands are found by the index, which lies in memory.
CHEAP_INDEX = "SET LOCAL random_page_cost = 1.1"

LATEST_COLUMNS = (
    "datastream", "time", "received", "quality", "append",
    "result", "longitude", "latitude", "speed", "course", "document",
)  # fmt: skip
NUMBER_COLUMNS = (
    "phenomenon_time", "received_at", "result", "append_id", "datastream_id", "quality",
)  # fmt: skip
HEARD_COLUMNS = ("heard_time", "heard_at", "thing_id", "gateway")
NEWEST = np.dtype(
    [("received", "i8"), ("append", "i8"), ("result", "f8"), ("quality", "i2"), ("changed", "?")]
)
"""A number's newest observation beside its time; `changed`: not yet drained."""
SPOKEN = np.dtype([("time", "i8"), ("at", "i8"), ("gateway", "i4"), ("changed", "?")])


def _grown(array: NDArray[Any], size: int, fill: Any = 0) -> NDArray[Any]:
    """The array with room for indices below `size`, and for a quarter more when it has to grow."""
    return array if size <= len(array) else resized(array, size + len(array) // 4, fill)


@dataclass(slots=True)
class Latest:
    """Newest values of one sector as one process has seen them; `time` also marks late rows.

    `time` and `_numbers` are by Datastream id, `_spoken` by Thing id; what is no number waits in
    `_changed` as a row of the table.
    """

    sector: str
    append_id: int = 0
    _drained_id: int = 0
    time: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _numbers: NDArray[Any] = field(default_factory=lambda: np.zeros(0, NEWEST))
    _changed: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _moved: set[int] = field(default_factory=set)
    _spoken: NDArray[Any] = field(default_factory=lambda: np.zeros(0, SPOKEN))
    _gateways: dict[str, int] = field(default_factory=dict)
    _heard_at: float = float("-inf")

    def load(self, connection: Session) -> None:
        """Take over what was flushed before; `catch_up` adds what was not."""
        query = {"sector": self.sector}
        row = connection.execute(SELECT_PROJECTION, query).fetchone()
        self.append_id = self._drained_id = row[0] if row else 0
        self.time = np.zeros(0, np.int64)
        self._numbers["changed"] = False
        self._changed.clear()
        self._moved.clear()
        known = fetch_arrays(connection, SELECT_LATEST_TIMES, query, (">i4", ">i8"))
        if known is not None:
            ids, times = known
            self.grow(int(ids.max()) + 1)
            self.time[ids] = times

    def grow(self, size: int) -> None:
        """Make room for Datastream ids below `size`."""
        self.time = _grown(self.time, size, NEVER)
        self._numbers = _grown(self._numbers, size)

    def catch_up(self, connection: Session, until: int) -> None:
        """See appends (own before a crash, or of other processes) up to and with `until`."""
        query: dict[str, Any] = {"sector": self.sector, "after": self.append_id, "until": until}
        row = connection.execute(SELECT_APPENDED_TIMES, query).fetchone()
        if row is not None and row[0] is not None:
            for shape in SHAPES:
                self.see(connection, shape, (self.append_id, until), (row[0], row[1]))
        self.append_id = max(self.append_id, until)

    def see(
        self,
        connection: Session,
        shape: Shape,
        appends: tuple[int, int],
        times: tuple[datetime, datetime],
    ) -> None:
        """See rows as they stand in the table: of the appends after one up to another."""
        scope = {
            "sector": self.sector,
            "after": appends[0],
            "until": appends[1],
            "time_min": times[0],
            "time_max": times[1],
        }
        query = SELECT_APPENDED[shape.table]
        if shape is NUMBER:
            found = fetch_arrays(
                connection, AGGREGATED.format(query=query), scope, AGGREGATED_TYPES
            )
            if found is not None:
                ids, time, received, quality, append_id, result = found
                self._note_numbers(ids, time, result, quality, received, append_id)
            return
        for datastream, time, *rest in connection.execute(query, scope).fetchall():
            self.grow(datastream + 1)
            if time >= self.time[datastream]:
                self.time[datastream] = time
                received_at, quality, append_id, *values = rest
                self._note(shape, datastream, (time, received_at, quality, append_id), values)

    def _note_numbers(
        self,
        ids: NDArray[np.int32],
        time: NDArray[np.int64],
        result: NDArray[np.float64],
        quality: NDArray[np.int16],
        received: NDArray[np.int64] | int,
        append_id: NDArray[np.int64] | int,
    ) -> None:
        """The newest of each of these Datastreams, where it is newer than what is known."""
        self.grow(int(ids.max()) + 1)
        newer = time >= self.time[ids]
        ids = ids[newer]
        self.time[ids] = time[newer]
        noted = np.zeros(len(ids), NEWEST)
        noted["changed"] = True
        noted["result"], noted["quality"] = result[newer], quality[newer]
        noted["received"] = received if isinstance(received, int) else received[newer]
        noted["append"] = append_id if isinstance(append_id, int) else append_id[newer]
        self._numbers[ids] = noted

    def _note(
        self, shape: Shape, datastream: int, head: tuple[int, int, int, int], values: list[Any]
    ) -> None:
        if shape is POSITION:
            self._moved.add(datastream)
            self._changed[datastream] = (*head, None, *values, None)
        else:
            self._changed[datastream] = (*head, None, None, None, None, None, values[0])

    def take(self, rows: Rows, received_at: int, append_id: int) -> None:
        """See rows, sorted by (datastream, time), that were committed as `append_id`."""
        if not len(rows):
            return
        last = np.append(np.flatnonzero(np.diff(rows.datastream)), len(rows) - 1)
        newest = rows.take(last)
        if rows.shape is NUMBER:
            self._note_numbers(
                newest.datastream,
                newest.time,
                newest.results[0],
                newest.quality,
                received_at,
                append_id,
            )
            return
        self.grow(int(newest.datastream[-1]) + 1)
        newest = newest.take(newest.time >= self.time[newest.datastream])
        self.time[newest.datastream] = newest.time
        columns: list[list[Any]] = [column.tolist() for column in newest.results]
        if rows.shape is DOCUMENT:
            columns = [[document.decode() for document in newest.documents]]
        for datastream, time, quality, *values in zip(
            newest.datastream.tolist(),
            newest.time.tolist(),
            newest.quality.tolist(),
            *columns,
            strict=True,
        ):
            head = (time, received_at, quality, append_id)
            self._note(rows.shape, datastream, head, values)

    def code_of(self, gateway: str) -> int:
        """The number by which `hear` names a gateway."""
        return self._gateways.setdefault(gateway, len(self._gateways))

    def hear(
        self,
        things: NDArray[np.integer[Any]],
        gateway: NDArray[np.int32],
        at: NDArray[np.int64],
        time: NDArray[np.int64],
    ) -> None:
        """Things spoke: `at` by the receiver's clock, `time` by their own."""
        order = np.lexsort((time, things))
        order = order[np.append(np.diff(things[order]) != 0, True)]  # the last that each said
        things, time = things[order], time[order]
        self._spoken = _grown(self._spoken, int(things[-1]) + 1)
        before = self._spoken[things]
        newer = ~before["changed"] | (before["time"] < time)
        spoken = np.zeros(int(newer.sum()), SPOKEN)
        spoken["time"], spoken["at"] = time[newer], at[order][newer]
        spoken["gateway"], spoken["changed"] = gateway[order][newer], True
        self._spoken[things[newer]] = spoken

    def drain(self) -> "Flush | None":
        """What changed since the last drain, to be written; None when nothing did.

        Appends that changed nothing are told too, or the next start would look for news in them.
        """
        numbers = np.flatnonzero(self._numbers["changed"])
        things = self._due()
        if not (len(numbers) or len(things) or self._changed or self.append_id != self._drained_id):
            return None
        self._drained_id = self.append_id
        taken = Flush(
            self.sector,
            self.append_id,
            (numbers, self.time[numbers], self._numbers[numbers]),
            self._changed,
            self._moved,
            (things, self._spoken[things]),
            list(self._gateways),
        )
        self._numbers["changed"][numbers] = False
        self._spoken["changed"][things] = False
        self._changed, self._moved = {}, set()
        return taken

    def _due(self) -> NDArray[np.intp]:
        """The Things to write as heard: many at a time can wait, since who is silent is told after
        many seconds."""
        things = np.flatnonzero(self._spoken["changed"])
        now = monotonic()
        if len(things) > HEARD_AT_ONCE_MAX and now < self._heard_at + HEARD_SECONDS:
            return things[:0]
        self._heard_at = now
        return things


@dataclass(frozen=True, slots=True)
class Flush:
    """Newest values on their way to the tables; up to `append_id` nothing is missing."""

    sector: str
    append_id: int
    numbers: tuple[NDArray[np.intp], NDArray[np.int64], NDArray[Any]]
    changed: dict[int, tuple[Any, ...]]
    moved: set[int]
    heard: tuple[NDArray[np.intp], NDArray[Any]]
    gateways: list[str]

    def write(self, connection: Session) -> None:
        """Upsert, newest wins; the caller commits, and need not do so durably."""
        # First, for its lock: two processes' flushes of a sector take turns and cannot deadlock.
        connection.execute(UPSERT_PROJECTION, {"sector": self.sector, "append_id": self.append_id})
        connection.execute(CHEAP_INDEX)
        if len(self.numbers[0]):
            self._write_numbers(connection)
        if self.changed:
            self._write_latest(connection)
        if self.moved:
            moved = {"sector": self.sector, "datastreams": sorted(self.moved)}
            connection.execute(UPSERT_PLACES, moved)
        if len(self.heard[0]):
            self._write_heard(connection)

    def _write_numbers(self, connection: Session) -> None:
        ids, time, newest = self.numbers
        connection.execute(CREATE_NUMBERS)
        packed = pack_columns(
            len(ids),
            (
                (TIME, time),
                (TIME, newest["received"]),
                (">f8", newest["result"]),
                (">i8", newest["append"]),
                (">i4", ids),
                (">i2", newest["quality"]),
            ),
        )
        _stage(connection, "latest_numbers", NUMBER_COLUMNS, packed)
        if connection.execute(UPDATE_NUMBERS).rowcount < len(ids):
            connection.execute(INSERT_NUMBERS)

    def _write_heard(self, connection: Session) -> None:
        things, spoken = self.heard
        connection.execute(CREATE_HEARD)
        packed = pack_columns(
            len(things),
            (
                (TIME, spoken["time"]),
                (TIME, spoken["at"]),
                (">i4", things),
                (">i4", spoken["gateway"]),
            ),
        )
        _stage(connection, "heard", HEARD_COLUMNS, packed)
        by = {"gateways": self.gateways}
        if connection.execute(UPDATE_HEARD, by).rowcount < len(things):
            connection.execute(INSERT_HEARD, by)

    def _write_latest(self, connection: Session) -> None:
        ordered = sorted(self.changed.items())
        columns = zip(*((datastream, *values) for datastream, values in ordered), strict=True)
        values = dict(zip(LATEST_COLUMNS, map(list, columns), strict=True))
        for name in ("time", "received"):
            values[name] = [to_datetime(moment) for moment in values[name]]
        connection.execute(UPSERT_LATEST, values)


def _stage(
    connection: Session, table: str, columns: Sequence[str], packed: Iterator[memoryview]
) -> None:
    """Into a temporary table that each commit empties."""
    copy_in(
        connection,
        sql.Identifier("pg_temp", table),
        columns,
        chain([COPY_HEADER], packed, [COPY_TRAILER]),
    )
