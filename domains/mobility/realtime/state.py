"""The overlay of what GTFS-Realtime feeds last said: read as it changes, matched, kept a moment.

    changed = state.overlay(connection, timetable, now)

Per permission and process one `State` follows the appends of the sector, so a look costs what came
since the last one. What is newest is decided by phenomenon_time, whatever the order of arrival.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from consent.gate import PermittedConnection
from core.clock import EPOCH
from domains.mobility.network.timetable import Timetable
from domains.mobility.realtime.matched import Matched
from domains.mobility.realtime.overlay import Overlay

REFRESH_SECONDS = 0.25
FEEDS_SECONDS = 5.0
LOOK_BACK = timedelta(hours=3)
"""What was said longer ago is not looked at."""
FORGET_EACH = timedelta(minutes=1)
POSITION_AGE_MAX = timedelta(seconds=90)
TRIP_UPDATE_AGE_MAX = timedelta(minutes=5)
ALERT_AGE_MAX = timedelta(minutes=10)
AGES_MAX = {"trip-update": TRIP_UPDATE_AGE_MAX, "alert": ALERT_AGE_MAX}
AHEAD_MAX = timedelta(minutes=15)
"""As far ahead a feed's clock may be (see CHIMATA_FUTURE_SECONDS_MAX)."""
PRESENT_EACH = timedelta(seconds=1)
"""So often it is looked who is silent for too long."""
APPENDS_MAX, ROWS_MAX = 1_000, 500_000
PROPERTIES = ("vehicle-position", "vehicle-journey", "trip-update", "alert", "feed-message")
OF_VEHICLES = frozenset({"vehicle-position", "vehicle-journey"})
"""What says nothing of trip updates and alerts."""

# ruff: noqa: S608 - the parts are constants of this file

_COLUMNS = """t.key AS thing, d.property, o.phenomenon_time AS time"""
_PERMITTED = """
JOIN datastream d ON d.id = o.datastream_id AND d.data_class = ANY(%(classes)s)
  AND split_part(d.property, '/', 1) = ANY(%(properties)s)
JOIN thing t ON t.id = d.thing_id AND t.sector = %(sector)s
"""
# The projection trails the appends; both are read in one snapshot, and the rest from there on.
SELECT_CURSOR = """
SELECT coalesce(max(append_id), 0) AS last FROM projection
WHERE sector = %(sector)s AND %(classes)s::text[] IS NOT NULL
"""
SELECT_LATEST = f"""
SELECT {_COLUMNS}, o.longitude, o.latitude, o.speed, o.course, o.document::text AS document
FROM latest o {_PERMITTED} WHERE o.phenomenon_time > %(since)s
"""
SELECT_RUN = """
SELECT max(id) AS last, min(time_min) AS time_min, max(time_max) AS time_max FROM (
  SELECT a.*, sum(a.rows) OVER (ORDER BY a.id) AS total, row_number() OVER (ORDER BY a.id) AS number
  FROM append a WHERE a.sector = %(sector)s AND a.id > %(after)s
    AND %(classes)s::text[] IS NOT NULL
  ORDER BY a.id LIMIT %(appends_max)s) AS run
WHERE total <= %(rows_max)s OR number = 1
"""
_APPENDED = """o.append_id > %(after)s AND o.append_id <= %(last)s
  AND o.phenomenon_time BETWEEN %(time_min)s AND %(time_max)s"""
SELECT_POSITIONS = f"""
SELECT {_COLUMNS}, o.longitude, o.latitude, o.speed, o.course
FROM observation_position o {_PERMITTED} WHERE {_APPENDED} ORDER BY o.append_id
"""
SELECT_DOCUMENTS = f"""
SELECT {_COLUMNS}, o.result::text AS document
FROM observation_document o {_PERMITTED} WHERE {_APPENDED} ORDER BY o.append_id
"""
SELECT_FEEDS = """
SELECT f.id, f.static_feed FROM mobility.feed f
WHERE f.data_class = ANY(%(classes)s) AND f.static_feed IS NOT NULL LIMIT 100000
"""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """The newest that a Thing said of one property: a document, or the columns of a position."""

    time: datetime
    value: Any


@dataclass(slots=True)
class Entities:
    """What each Thing said last, by property and Thing: newer wins, in whatever order it comes."""

    by_property: dict[str, dict[str, Said]] = field(default_factory=dict)
    changed: set[tuple[str, str]] = field(default_factory=set)

    def of(self, name: str) -> dict[str, Said]:
        """What was said of a property, by Thing."""
        return self.by_property.setdefault(name, {})

    def take(self, rows: Iterable[Row]) -> None:
        """See rows; of one time the later row is a correction of the earlier."""
        for row in rows:
            said, name = self.of(row["property"]), row["property"]
            before = said.get(row["thing"])
            if before is not None and before.time > row["time"]:
                continue
            if row.get("document") is not None:
                value: Any = orjson.loads(row["document"])
            else:
                value = (row["longitude"], row["latitude"], row["speed"], row["course"])
            said[row["thing"]] = Said(row["time"], value)
            self.changed.add((name, row["thing"]))

    def forget(self, before: datetime) -> None:
        """Let go of what nobody looks at any more."""
        for name, said in self.by_property.items():
            for thing in [thing for thing, each in said.items() if each.time < before]:
                del said[thing]
                self.changed.add((name, thing))


@dataclass(slots=True)
class State:
    """What one permission's overlay is made of, and the one that was made last."""

    entities: Entities = field(default_factory=Entities)
    matched: Matched | None = None
    cursor: int = -1
    static_feeds: dict[str, str] = field(default_factory=dict)
    made: Overlay | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _read_at: float = float("-inf")
    _feeds_at: float = float("-inf")
    _forgot: datetime | None = None
    _present: tuple[datetime, dict[str, set[str]]] | None = None

    def overlay(
        self, connection: PermittedConnection, timetable: Timetable, now: datetime
    ) -> Overlay:
        """See `overlay`; while another thread makes the next one, the last is good enough."""
        made = self.made
        if made is not None and self._is_fresh(timetable, made, now):
            return made
        if made is not None and self._is_good(timetable, made, now) and self._lock.locked():
            return made
        with self._lock:
            made = self.made
            if made is None or not self._is_fresh(timetable, made, now):
                self._read(connection, now)
                made = self.made = self.see(timetable, now)
            return made

    def _is_good(self, timetable: Timetable, made: Overlay, now: datetime) -> bool:
        """Whether it will do for as long as another thread takes to make the next."""
        matched = self.matched
        return (
            matched is not None
            and matched.timetable is timetable
            and abs(now - made.at) < POSITION_AGE_MAX / 10
        )

    def _is_fresh(self, timetable: Timetable, made: Overlay, now: datetime) -> bool:
        return (
            time.monotonic() < self._read_at + REFRESH_SECONDS
            and self.matched is not None
            and self.matched.timetable is timetable
            and abs((now - made.at).total_seconds()) <= REFRESH_SECONDS
        )

    def _read(self, connection: PermittedConnection, now: datetime) -> None:
        """What was committed since the last look."""
        at = time.monotonic()
        if at > self._feeds_at + FEEDS_SECONDS:
            rows = connection.fetch(SELECT_FEEDS)
            self.static_feeds = {row["id"]: row["static_feed"] for row in rows}
            self._feeds_at = at
        names: dict[str, Any] = {"properties": list(PROPERTIES)}
        if self.cursor < 0:
            self.cursor = connection.fetch(SELECT_CURSOR)[0]["last"]
            self.entities.take(connection.fetch(SELECT_LATEST, {**names, "since": now - LOOK_BACK}))
        scope = {"appends_max": APPENDS_MAX, "rows_max": ROWS_MAX}
        while (run := connection.fetch(SELECT_RUN, {**scope, "after": self.cursor})[0])["last"]:
            within = {**names, **run, "after": self.cursor}
            if run["time_min"] is not None:
                for query in (SELECT_POSITIONS, SELECT_DOCUMENTS):
                    self.entities.take(connection.fetch(query, within))
            self.cursor = run["last"]
        self._read_at = at

    def see(self, timetable: Timetable, now: datetime) -> Overlay:
        """What was read until now, as that timetable's overlay."""
        if self._forgot is None or abs(now - self._forgot) > FORGET_EACH:
            self.entities.forget(now - LOOK_BACK)
            self._forgot = now
        said = self.entities.by_property
        back = self.made is not None and now < self.made.at - AHEAD_MAX
        if self.matched is None or self.matched.timetable is not timetable or back:
            self.matched = Matched(timetable)
            changed = {(name, thing) for name, things in said.items() for thing in things}
        else:
            changed = self.entities.changed
        self.entities.changed = set()
        self.matched.take(changed, said, self.static_feeds)
        told = any(name not in OF_VEHICLES for name, _ in changed)
        if told or self._present is None or abs(now - self._present[0]) >= PRESENT_EACH:
            self._present = now, present_things(said, now)
        present = self._present[1]
        return self.matched.overlay(now, now - POSITION_AGE_MAX, now + AHEAD_MAX, present)


def overlay(connection: PermittedConnection, timetable: Timetable, now: datetime) -> Overlay:
    """What real time changes in the timetable at `now`, by the feeds that the caller may read.

    Read anew at most every REFRESH_SECONDS. Left out are positions older than POSITION_AGE_MAX,
    alerts and trip updates that their feed's newest full message of that kind did not have, and
    those of a feed that has said nothing of them for AGES_MAX.
    """
    state: State = connection.kept.setdefault("realtime", State())
    return state.overlay(connection, timetable, now)


def sources(connection: PermittedConnection) -> dict[str, str]:
    """The static feed that each source of real time tells of, by what `overlay` last saw."""
    state: State | None = connection.kept.get("realtime")
    if state is None:
        return {}
    return {**state.static_feeds, **(state.matched.sources if state.matched else {})}


def present_things(said: Mapping[str, Mapping[str, Said]], now: datetime) -> dict[str, set[str]]:
    """The trip updates and alerts that hold, by property.

    A feed that tells kinds in messages of their own ends each kind by a message of that kind; one
    that tells them together, by any message of it.
    """
    messages: dict[str, dict[str, Said]] = {}
    for name, things in said.items():
        base, _, kind = name.partition("/")
        if base == "feed-message":
            for feed, each in things.items():
                messages.setdefault(feed, {})[kind] = each
    full = {
        kind: {feed: told[kind] for feed, told in messages.items() if kind in told}
        for kind in AGES_MAX
    }
    present: dict[str, set[str]] = {}
    for kind, age in AGES_MAX.items():
        newest = {feed: (each, _ended(kind, messages[feed])) for feed, each in full[kind].items()}
        members = {
            (feed, thing) for feed, (each, _) in newest.items() for thing in _things(each.value)
        }
        held = set()
        for thing, each in said.get(kind, {}).items():
            feed, name = _parts(thing)
            when, ended = newest.get(feed, (None, EPOCH))
            is_member = (feed, name) in members
            heard = each.time if when is None or not is_member else max(each.time, when.time)
            over = heard < ended or (when is not None and not is_member and each.time <= when.time)
            if not over and now - age <= heard <= now + AHEAD_MAX and _is_live(each.value):
                held.add(thing)
        present[kind] = held
    return present


def _ended(kind: str, messages: Mapping[str, Said]) -> datetime:
    """When the feed last sent a message in which this kind should have been, but was not."""
    own = messages[kind]
    together = _kinds(own.value)
    later = [
        each.time
        for each in messages.values()
        if each.time > own.time and kind not in (kinds := _kinds(each.value)) and kinds & together
    ]
    return max(later, default=EPOCH)


def _kinds(value: Any) -> set[str]:
    kinds = value.get("kinds") if isinstance(value, dict) else None
    return {each for each in kinds if isinstance(each, str)} if isinstance(kinds, list) else set()


def _things(value: Any) -> list[str]:
    things = value.get("things") if isinstance(value, dict) else None
    return [each for each in things if isinstance(each, str)] if isinstance(things, list) else []


def _is_live(value: Any) -> bool:
    return isinstance(value, dict) and not value.get("isDeleted")


def _parts(thing: str) -> tuple[str, str]:
    """The feed and the name of a Thing `FEED:kind:NAME`."""
    feed, _, rest = thing.partition(":")
    return feed, rest.partition(":")[2]
