"""A feed into mobility's tables, by COPY, in the transaction of who calls."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import Connection, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pyarrow import csv as arrow_csv

from core.errors import CityError
from domains.mobility.gtfs import checks, days
from domains.mobility.gtfs.convert import Feed, convert
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.rows import Part
from domains.mobility.gtfs.source import Source

Session = Connection[tuple[Any, ...]]

ROWS_A_WRITE = 65_536
TEXT_MAX = 200

# What was not said keeps what it was.
UPSERT_FEED = """
INSERT INTO mobility.feed (id, kind, title, licence, sharing, changed_at, checked_at)
VALUES (%(feed)s, 'gtfs', %(title)s, %(licence)s, coalesce(%(sharing)s, 'collaborative'),
        now(), now())
ON CONFLICT (id) DO UPDATE SET
  licence = coalesce(%(licence)s, mobility.feed.licence),
  sharing = coalesce(%(sharing)s, mobility.feed.sharing),
  checked_at = now()
RETURNING kind
"""
SET_CHANGED = "UPDATE mobility.feed SET changed_at = now(), error = NULL WHERE id = %(feed)s"
SELECT_VERSION = """
SELECT id, valid_from, valid_to, counts, refused, quality FROM mobility.feed_version
WHERE feed = %(feed)s AND sha256 = %(sha256)s
"""
INSERT_VERSION = """
INSERT INTO mobility.feed_version (feed, sha256, valid_from, valid_to, name, timezone, language,
                                   counts, refused, quality)
VALUES (%(feed)s, %(sha256)s, %(valid_from)s, %(valid_to)s, %(name)s, %(timezone)s,
        %(language)s, %(counts)s, %(refused)s, %(quality)s)
ON CONFLICT (feed, sha256) DO NOTHING
RETURNING id
"""
COPY_ROWS = "COPY mobility.{} ({}) FROM STDIN (FORMAT csv)"
INSERT_FILE = """
INSERT INTO mobility.feed_file (version, name, content)
VALUES (%(version)s, %(name)s, %(content)s)
"""


@dataclass(frozen=True, slots=True)
class Declared:
    """What whoever imports says of a feed: its id, and, where they know it, more."""

    feed: str
    licence: str | None = None
    sharing: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The version that a source is, now or already stored."""

    feed: str
    version: int
    known: bool
    valid_from: date | None
    valid_to: date | None
    counts: dict[str, int]
    refused: dict[str, int]
    quality: dict[str, Any]


def import_feed(
    session: Session,
    source: Source,
    report: Report,
    declared: Declared,
    today: date,
    step: Callable[[str], Any] = lambda done: done,
) -> Outcome:
    """Store a source as a version of a feed, unless it is there already; the caller commits."""
    known = _version(session, declared.feed, source.sha256)
    if known is not None:
        _declare(session, declared, declared.feed)
        return known
    feed = convert(source, report, step)
    parts, info = feed.parts, feed.info
    calendar = days.calendar(
        parts["service"], parts["service_date"], info.get("start"), info.get("end")
    )
    checks.check(feed, source.files.keys(), calendar, today, report)
    _declare(session, declared, _title(feed) or declared.feed)
    values = {
        "feed": declared.feed, "sha256": source.sha256, "valid_from": calendar.valid_from,
        "valid_to": calendar.valid_to, "name": info.get("name"), "timezone": feed.timezone,
        "language": feed.language, "counts": Jsonb(counts_of(feed)),
        "refused": Jsonb(dict(report.refused)), "quality": Jsonb(report.quality(feed.found)),
    }  # fmt: skip
    row = session.execute(INSERT_VERSION, values).fetchone()
    if row is not None:
        _write(session, row[0], feed, step)
        session.execute(SET_CHANGED, {"feed": declared.feed})
    stored = _version(session, declared.feed, source.sha256, known=row is None)
    if stored is None:
        raise CityError("conflict", f"{source.name}: its version was removed meanwhile")
    return stored


def _version(session: Session, feed: str, sha256: bytes, *, known: bool = True) -> Outcome | None:
    with session.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(SELECT_VERSION, {"feed": feed, "sha256": sha256}).fetchone()
    if row is None:
        return None
    return Outcome(feed=feed, version=row.pop("id"), known=known, **row)


def _declare(session: Session, declared: Declared, title: str) -> None:
    given = {
        "feed": declared.feed, "title": title, "licence": declared.licence,
        "sharing": declared.sharing,
    }  # fmt: skip
    row = session.execute(UPSERT_FEED, given).fetchone()
    if row is None or row[0] != "gtfs":
        raise CityError(
            "conflict", f"the feed {declared.feed!r} is of another kind: {row and row[0]}"
        )


def _title(feed: Feed) -> str | None:
    """Whoever publishes it: the first agency's name, else the publisher's."""
    names = feed.parts["agency"].columns["name"].to_pylist()
    title: str | None = next((name for name in names if name), feed.info.get("publisher"))
    return title and title[:TEXT_MAX]


def counts_of(feed: Feed) -> dict[str, int]:
    """Rows of each file that are stored: of shapes.txt its shapes, of old translations theirs."""
    counts = {
        part.file.removesuffix(".txt"): len(part) for part in feed.parts.values() if len(part)
    }
    counts["services"] = len(feed.parts["service"])
    counts["calendar"] = int(np.count_nonzero(feed.parts["service"].rows))
    counts["translations"] = len(np.unique(feed.parts["translation"].rows))
    return {name: number for name, number in counts.items() if number}


def _write(session: Session, version: int, feed: Feed, step: Callable[[str], Any]) -> None:
    for table, part in feed.parts.items():
        _copy(session, version, table, part)
        step(table)
    for name, content in feed.files.items():
        session.execute(INSERT_FILE, {"version": version, "name": name, "content": content})


def _copy(session: Session, version: int, table: str, part: Part) -> None:
    """Nulls are empty, texts are quoted: what pyarrow writes is what PostgreSQL reads."""
    if not len(part):
        return
    columns = {"version": pa.array(np.full(len(part), version, np.int32)), **part.columns}
    command = sql.SQL(COPY_ROWS).format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    options = arrow_csv.WriteOptions(include_header=False)
    with session.cursor() as cursor, cursor.copy(command) as copy:
        for batch in pa.table(columns).to_batches(max_chunksize=ROWS_A_WRITE):
            written = io.BytesIO()
            arrow_csv.write_csv(batch, written, options)
            copy.write(written.getvalue())
