"""What real time is now, and the messages made of it: each built once for all its readers."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from consent.gate import PermittedConnection
from domains.mobility.network import load
from domains.mobility.network.timetable import Timetable
from domains.mobility.realtime import publish, state, wire
from domains.mobility.realtime.overlay import Overlay
from domains.mobility.realtime.publish import Kind, Memo
from domains.mobility.realtime.static import Static

HEADER_SECONDS_MAX = 15
"""A message that would be the same is made again so often, so that its reader sees it is alive."""

SELECT_STATIC = """
WITH v AS (SELECT id FROM mobility.feed_version WHERE feed = %(feed)s)
SELECT
  ARRAY(SELECT DISTINCT a.agency_id FROM mobility.agency a JOIN v ON v.id = a.version) AS agencies,
  ARRAY(SELECT DISTINCT t.trip_id FROM mobility.frequency q JOIN v ON v.id = q.version
        JOIN mobility.trip t ON t.version = q.version AND t.number = q.trip
        WHERE NOT q.exact) AS flexible
FROM mobility.feed f
WHERE f.id = %(feed)s AND f.kind = 'gtfs' AND f.data_class = ANY(%(classes)s)
"""


@dataclass(frozen=True, slots=True)
class Now:
    """The timetable and what changes in it, as one caller may see them."""

    timetable: Timetable
    overlay: Overlay
    sources: Mapping[str, str]
    """The static feed that each source of real time tells of."""

    def static_feed(self, text: str) -> str:
        """The static feed of a `feed:id` that a source of real time gave."""
        source = text.partition(":")[0]
        return self.sources.get(source, source)


def now(connection: PermittedConnection) -> Now:
    """Real time as it is; see state.overlay."""
    timetable = load.timetable(connection)
    overlay = state.overlay(connection, timetable, datetime.now(UTC))
    return Now(timetable, overlay, state.sources(connection))


@dataclass(frozen=True, slots=True)
class Message:
    """A FeedMessage as it is sent."""

    content: bytes
    tag: str
    """Its ETag."""


@dataclass(slots=True)
class Desk:
    """Where one message of one feed is made: what the last one was made of, and what it was."""

    kind: Kind
    lock: threading.Lock = field(default_factory=threading.Lock)
    memo: Memo | None = None
    overlay: Overlay | None = None
    entities: bytes | None = None
    timestamp: int = 0
    protobuf: Message | None = None
    json: Message | None = None

    def message(self, seen: Now, static: Static, *, as_json: bool) -> Message:
        """The message of what is seen; of an older look than the last one, the last message."""
        with self.lock:
            made = self.protobuf
            if made is None or not self._is_known(seen.overlay):
                made = self._make(seen, static)
            if not as_json:
                return made
            if self.json is None:
                self.json = _told(orjson.dumps(json_of(made.content)))
            return self.json

    def _is_known(self, overlay: Overlay) -> bool:
        return self.overlay is not None and overlay.at <= self.overlay.at

    def _make(self, seen: Now, static: Static) -> Message:
        if self.memo is None or self.memo.timetable is not seen.timetable:
            self.memo = Memo(seen.timetable)
        entities = publish.entities(self.kind, seen.timetable, seen.overlay, static, self.memo)
        at, self.overlay = int(seen.overlay.at.timestamp()), seen.overlay
        known = self.protobuf
        if known and entities == self.entities and at < self.timestamp + HEADER_SECONDS_MAX:
            return known
        # Never back, whatever the clock does: readers take what is older for a repeat.
        self.timestamp = max(at, self.timestamp)
        self.entities, self.json = entities, None
        self.protobuf = made = _told(publish.header(self.timestamp) + entities)
        return made


def _told(content: bytes) -> Message:
    return Message(content, f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"')


def json_of(content: bytes) -> dict[str, object]:
    """A FeedMessage in protobuf's JSON form."""
    feed = wire.read_protobuf(content)
    entities = [wire.to_json(each) for each in feed.entities if not isinstance(each, wire.Broken)]
    return {"header": wire.to_json(feed.header), "entity": entities}


@dataclass(slots=True)
class Board:
    """The desks of one permission, by feed and kind."""

    desks: dict[tuple[str, Kind], Desk] = field(default_factory=dict)
    statics: dict[str, tuple[Timetable, Static]] = field(default_factory=dict)


def desk(
    connection: PermittedConnection, seen: Now, feed: str, kind: Kind
) -> tuple[Desk, Static] | None:
    """Where a feed's message is made, without a connection; None where there is no such feed."""
    board: Board = connection.kept.setdefault("gtfs-rt", Board())
    known = board.statics.get(feed)
    if known is None or known[0] is not seen.timetable:
        found = connection.fetch(SELECT_STATIC, {"feed": feed})
        if not found:
            board.statics.pop(feed, None)
            return None
        agencies, flexible = (frozenset(found[0][name]) for name in ("agencies", "flexible"))
        known = seen.timetable, Static(feed, frozenset({feed}), agencies, flexible)
        board.statics[feed] = known
    of_it = {source for source, static in seen.sources.items() if static == feed}
    static = Static(feed, frozenset({feed, *of_it}), known[1].agencies, known[1].flexible)
    return board.desks.setdefault((feed, kind), Desk(kind)), static
