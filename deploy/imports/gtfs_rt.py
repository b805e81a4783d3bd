"""`chimata import gtfs-rt FILE|URL...`: GTFS-Realtime messages, as if the feed had sent them."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

import domains
from core.clock import now_us
from core.errors import CityError, invalid
from core.sector import Context
from core.sensorthings import Decoded
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import Session
from deploy.console import bar
from deploy.download import download
from deploy.imports.gtfs import FEED, GENERIC, feed_of
from ingest.check import check

OPTIONS = ("feed", "licence", "sharing")
BYTES_MAX = 64 << 20
SECTOR = "mobility"
WORDS = GENERIC | {
    "rt", "realtime", "trip", "trips", "update", "updates", "tripupdates", "vehicle", "vehicles",
    "position", "positions", "vehiclepositions", "service", "alert", "alerts", "servicealerts",
    "empty", "pb", "bin", "json", "proto", "protobuf",
}  # fmt: skip
PROPERTIES = {
    "trip-update": "trip_updates", "vehicle-position": "vehicle_positions", "alert": "alerts",
}  # fmt: skip
"""What is observed -> what is printed."""
KEYS = (*PROPERTIES.values(), "matched", "stored", "duplicate", "refused")

# The static feed that has most of these trips.
SELECT_FITTING = """
SELECT v.feed, array_agg(DISTINCT t.trip_id) AS trips
FROM mobility.feed_version v JOIN mobility.trip t ON t.version = v.id
WHERE t.trip_id = ANY(%(trips)s::text[]) AND (%(feed)s::text IS NULL OR v.feed = %(feed)s)
GROUP BY v.feed ORDER BY count(DISTINCT t.trip_id) DESC, v.feed LIMIT 1
"""
# A feed of another kind that has this id keeps what it is: a gateway may be named like it.
UPSERT_FEED = """
INSERT INTO mobility.feed AS f (id, kind, title, licence, sharing, static_feed, checked_at,
                                changed_at)
VALUES (%(feed)s, 'gtfs-rt', %(feed)s, %(licence)s, coalesce(%(sharing)s, 'collaborative'),
        %(static_feed)s, now(), now())
ON CONFLICT (id) DO UPDATE SET
  licence = coalesce(%(licence)s, f.licence), sharing = coalesce(%(sharing)s, f.sharing),
  static_feed = coalesce(f.static_feed, excluded.static_feed), checked_at = now(),
  changed_at = now()
WHERE f.kind = 'gtfs-rt'
"""
SELECT_FEED = "SELECT kind, static_feed FROM mobility.feed WHERE id = %(feed)s"


def run(
    session: Session,
    sources: Sequence[str],
    *,
    feed: str | None = None,
    licence: str | None = None,
    sharing: str | None = None,
) -> dict[str, Any]:
    """Store each source's observations, and say how many of its trips a timetable here has.

    A feed's id is `feed`, else the source's name without what every feed is called, else its
    folder's (511/trip_updates.pb: 511). What was stored before is recognised row by row.
    """
    counts: Counter[str] = Counter(dict.fromkeys(KEYS, 0))
    reasons: Counter[str] = Counter()
    static_feeds: dict[str, str | None] = {}
    store = SectorStore(domains.sector(SECTOR))
    with bar(len(sources), "importing") as step:
        for source in sources:
            name = feed or feed_of(source, WORDS)
            if not FEED.fullmatch(name):
                raise invalid("--feed", f"{name!r} is not of a-z, 0-9, - and _")
            payload = _read(source)
            form = "gtfs-rt-json" if payload.lstrip()[:1] == b"{" else "gtfs-rt"
            decoded = _decoded(form, payload, name)
            told = _trips(decoded)
            declared = {"feed": name, "licence": licence, "sharing": sharing}
            static_feeds[name], known = _declare(session, declared, set(told))
            counts.update(_counted(decoded))
            counts["matched"] += sum(trip in known for trip in told)
            reasons.update(each.reason for each in decoded.rejected)
            counts.update(_append(session, store, name, form, payload, decoded))
            step(source)
    return {**counts, "reasons": dict(reasons), "static_feeds": static_feeds}


def _read(source: str) -> bytes:
    if "://" in source:
        with tempfile.TemporaryDirectory() as folder:
            return download(source, Path(folder) / "message", BYTES_MAX).read_bytes()
    path = Path(source)
    try:
        if path.stat().st_size > BYTES_MAX:
            raise CityError("too-large", f"{path.name} has over {BYTES_MAX >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise invalid("FILE", f"{source}: {error.strerror}") from error


def _decoded(form: str, payload: bytes, feed: str) -> Decoded:
    """Decoded and checked as in the ingestors."""
    received_at = now_us()
    decoded = domains.load(SECTOR, "decode").decode(form, payload, Context(feed, received_at))
    derived = domains.load(SECTOR, "rules").derive(decoded)
    future = Settings.from_environment().future_seconds_max
    return check(domains.sector(SECTOR), derived, received_at, future)


def _counted(decoded: Decoded) -> Counter[str]:
    """How many entities of each kind were taken."""
    counts: Counter[str] = Counter()
    for columns in (decoded.positions, decoded.documents):
        if columns is not None:
            names = (decoded.streams[index].property for index in columns.stream.tolist())
            counts.update(PROPERTIES[name] for name in names if name in PROPERTIES)
    return counts


def _trips(decoded: Decoded) -> list[str]:
    """The trip_id of each trip update and position that tells one."""
    if decoded.documents is None:
        return []
    told = []
    pairs = zip(decoded.documents.stream.tolist(), decoded.documents.result, strict=True)
    for index, document in pairs:
        if decoded.streams[index].property in ("trip-update", "vehicle-journey"):
            trip = orjson.loads(document).get("trip", {})
            told += [trip["tripId"]] if "tripId" in trip else []
    return told


def _declare(
    session: Session, declared: dict[str, str | None], trips: set[str]
) -> tuple[str | None, set[str]]:
    """Make the feed and its gateway known; its static feed, and which of the trips that one has."""
    row = session.execute(SELECT_FEED, declared).fetchone()
    wanted = None
    if row is not None:
        wanted = declared["feed"] if row[0] == "gtfs" else row[1]
    found = session.execute(SELECT_FITTING, {"trips": sorted(trips), "feed": wanted}).fetchone()
    static_feed, known = (wanted, []) if found is None else found
    session.execute(UPSERT_FEED, {**declared, "static_feed": static_feed})
    return static_feed, set(known)


def _append(
    session: Session, store: SectorStore, feed: str, form: str, payload: bytes, decoded: Decoded
) -> Counter[str]:
    """One message in one transaction, with what it makes the latest."""
    digest = hashlib.sha256(payload).digest()
    message = Message(feed, form, "import", now_us(), payload, digest, decoded)
    counts: Counter[str] = Counter()
    for outcome in store.append(session, [message]):
        counts["stored"] += outcome.counts.stored
        counts["duplicate"] += outcome.counts.duplicate
        counts["refused"] += outcome.counts.rejected
    flush = store.drain()
    if flush is not None:
        flush.write(session)
        session.commit()
    return counts
