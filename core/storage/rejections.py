"""The rejection store: whatever could not be taken, with its payload, its source and the reason."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from core.clock import to_datetime

# The same undecodable item again from the same place is counted, not stored again.
UPSERT_REJECTION = """
INSERT INTO rejection AS r (sector, gateway, format, channel, boot, seq, item, reason, detail,
                            sha256, payload, first_seen, last_seen)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (sector, gateway, format, boot, seq, item, reason, sha256)
DO UPDATE SET count = r.count + 1, last_seen = excluded.last_seen
"""
DETAIL_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Rejection:
    """One item on its way to the store."""

    sector: str
    gateway: str
    format: str
    channel: str
    boot: str | None
    seq: int | None
    item: int
    reason: str
    detail: str
    payload: bytes


def _printable(text: str) -> str:
    """What PostgreSQL's text can hold: an error may quote U+0000 or half a surrogate pair."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def store(
    connection: Connection[tuple[Any, ...]], rejections: Sequence[Rejection], received_at: int
) -> None:
    """Keep every rejection, in the caller's transaction."""
    moment = to_datetime(received_at)
    rows = [
        (
            r.sector,
            r.gateway,
            r.format,
            r.channel,
            r.boot,
            r.seq,
            r.item,
            r.reason,
            _printable(r.detail[:DETAIL_CHARACTERS_MAX]),
            hashlib.sha256(r.payload).digest(),
            r.payload,
            moment,
            moment,
        )
        for r in rejections
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(UPSERT_REJECTION, rows)
