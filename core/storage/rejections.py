"""The rejection store: whatever could not be taken, with its payload and reason, within a quota.

Of each gateway in each sector so many open rejections are kept one by one, with so many bytes of
payload; above the bytes a rejection keeps its hash, above the number it is folded into one row a
(format, reason, hour), whose hash is a chain. Either way its count stays, so that the counts of all
rows are what the account calls rejected. What a personal sector rejects is sealed before it is sent
to the database, and a random number stands for its hash: a hash would confirm a guess.
"""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from psycopg import Connection

from core import seal
from core.clock import to_datetime
from core.sector import Sector
from core.sensorthings import DataClass
from core.settings import Settings

Session = Connection[tuple[Any, ...]]

LOCK_QUOTAS = """
INSERT INTO rejection_quota AS q (sector, gateway, items, bytes)
SELECT %(sector)s, n, 0, 0 FROM unnest(%(gateways)s::text[]) AS n ORDER BY n
ON CONFLICT (sector, gateway) DO UPDATE SET items = q.items RETURNING gateway, items, bytes
"""
UPDATE_QUOTA = """
UPDATE rejection_quota SET items = %(items)s, bytes = %(bytes)s
WHERE sector = %(sector)s AND gateway = %(gateway)s
"""
# The same item again from the same place within the hour is counted, not stored again. Known hashes
# come first: joined at once, each item of a flood may be held against every row of its gateway.
COUNT_REPEATS = """
WITH held AS MATERIALIZED (
  SELECT id FROM rejection WHERE sha256 = ANY(%(hashes)s::bytea[]) AND state = 'open' AND NOT folded
)
UPDATE rejection r SET count = r.count + n.count, last_seen = greatest(r.last_seen, n.seen)
FROM unnest(%(hashes)s::bytea[], %(gateways)s::text[], %(formats)s::text[], %(reasons)s::text[],
            %(items)s::int[], %(boots)s::text[], %(seqs)s::bigint[], %(counts)s::bigint[],
            %(seen)s::timestamptz[])
  WITH ORDINALITY AS n (sha256, gateway, format, reason, item, boot, seq, count, seen, ordinal)
WHERE r.id IN (SELECT id FROM held) AND r.sector = %(sector)s AND r.sha256 = n.sha256
  AND r.hour = date_trunc('hour', n.seen, 'UTC')
  AND (r.gateway, r.format, r.reason, r.item) = (n.gateway, n.format, n.reason, n.item)
  AND (r.boot, r.seq) IS NOT DISTINCT FROM (n.boot, n.seq)
RETURNING n.ordinal::integer - 1
"""
INSERT_REJECTION = """
INSERT INTO rejection (sector, gateway, format, channel, boot, seq, item, reason, detail, sha256,
                       payload, count, first_seen, last_seen, hour, data_class, sealed,
                       item_format, bytes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
SELECT_FOLD = """
SELECT id, sha256 FROM rejection
WHERE state = 'open' AND folded AND sector = %(sector)s AND gateway = %(gateway)s
  AND format = %(format)s AND reason = %(reason)s AND hour = %(hour)s
FOR UPDATE
"""
UPDATE_FOLD = """
UPDATE rejection SET sha256 = %(chain)s, count = count + %(count)s, bytes = bytes + %(bytes)s,
  last_seen = greatest(last_seen, %(seen)s) WHERE id = %(id)s
"""
INSERT_FOLD = """
INSERT INTO rejection (sector, gateway, format, channel, item, reason, detail, sha256, count,
                       first_seen, last_seen, hour, data_class, bytes, folded)
VALUES (%(sector)s, %(gateway)s, %(format)s, '', 0, %(reason)s, '', %(chain)s, %(count)s, %(seen)s,
        %(seen)s, %(hour)s, %(data_class)s, %(bytes)s, true)
"""
FOLD_OLD = "SELECT fold_rejections(make_interval(days => %s), %s)"
DETAIL_CHARACTERS_MAX = 500
FOLDED_A_TURN_MAX = 1_000
BY_CLASS = (DataClass.OPEN, DataClass.SHARED)
"""The classes of sectors whose rejections are no secret of anybody; all others are sealed."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much is kept of each gateway in each sector, and the key that seals personal ones.

    Without a key nothing of a personal payload is kept but its size.
    """

    items_max: int = 10_000
    bytes_max: int = 64 * 1024 * 1024
    key: X25519PublicKey | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Keeping":
        """As set; CityError `invalid` for a public key that is none."""
        return cls(
            settings.rejection_items_max, settings.rejection_bytes_max, seal.public_key(settings)
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """One item on its way to the store; `item_format` is what it can be taken in as, or None."""

    gateway: str
    format: str
    channel: str
    boot: str | None
    seq: int | None
    item: int
    reason: str
    detail: str
    payload: bytes
    received_at: int
    item_format: str | None


def is_sealed(sector: Sector) -> bool:
    """Whether the sector's rejections are unseen by operators."""
    return _class_of(sector) not in BY_CLASS


def _class_of(sector: Sector) -> DataClass:
    """Of what could not be read: the strictest that it may be."""
    return DataClass.PERSONAL if sector.is_about_persons else sector.data_class


def printable(text: str) -> str:
    """What PostgreSQL's text can hold: an error may quote U+0000 or half a surrogate pair."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


@dataclass(slots=True)
class _Item:
    """One rejection in the form in which it is stored, and how often it came in this append."""

    source: Rejection
    digest: bytes
    seen: datetime
    count: int = 1

    @property
    def key(self) -> tuple[Any, ...]:
        r = self.source
        return (self.digest, r.gateway, r.format, r.reason, r.item, r.boot, r.seq, self.hour)

    @property
    def hour(self) -> datetime:
        """Of the account that counts it."""
        return self.seen.replace(minute=0, second=0, microsecond=0)

    @property
    def link(self) -> bytes:
        """What a chain of hashes takes up of it."""
        return self.digest + self.count.to_bytes(8, "big")


@dataclass(slots=True)
class _Room:
    """What one gateway's quota still lets in, and what does not fit in."""

    items: int
    size: int
    keeping: Keeping
    kept: list[tuple[_Item, bytes | None]] = field(default_factory=list)
    folded: list[_Item] = field(default_factory=list)

    def admit(self, item: _Item, payload: bytes | None) -> None:
        if self.items >= self.keeping.items_max:
            self.folded.append(item)
            return
        self.items += 1
        size = len(payload or b"")
        if self.size + size > self.keeping.bytes_max:
            payload, size = None, 0
        self.size += size
        self.kept.append((item, payload))


def store(
    connection: Session,
    sector: Sector,
    rejections: Sequence[Rejection],
    keeping: Keeping,
) -> None:
    """Keep every rejection of an append, in its transaction and under its sector's lock."""
    if not rejections:
        return
    scope = {"sector": sector.name}
    hidden = is_sealed(sector)
    items = _distinct(rejections, hidden=hidden)
    gateways = sorted({item.source.gateway for item in items})
    quotas = connection.execute(LOCK_QUOTAS, {**scope, "gateways": gateways}).fetchall()
    rooms = {gateway: _Room(held, size, keeping) for gateway, held, size in quotas}
    again = set() if hidden else _count_repeats(connection, scope, items)
    for ordinal, item in enumerate(items):
        if ordinal in again:
            continue
        room = rooms[item.source.gateway]
        if not hidden:
            room.admit(item, item.source.payload)
        elif keeping.key is None or room.size >= keeping.bytes_max:
            room.folded.append(item)
        else:
            room.admit(item, sealed(keeping.key, sector.name, item.source))
    for gateway, room in rooms.items():
        _insert(connection, sector, scope, room, hidden=hidden)
        quota = {**scope, "gateway": gateway, "items": room.items, "bytes": room.size}
        connection.execute(UPDATE_QUOTA, quota)


def _distinct(rejections: Iterable[Rejection], *, hidden: bool) -> list[_Item]:
    found: dict[tuple[Any, ...], _Item] = {}
    for each in rejections:
        digest = secrets.token_bytes(32) if hidden else hashlib.sha256(each.payload).digest()
        item = _Item(each, digest, to_datetime(each.received_at))
        before = found.setdefault(item.key, item)
        if before is not item:
            before.count += 1
    return list(found.values())


def _count_repeats(connection: Session, scope: dict[str, Any], items: list[_Item]) -> set[int]:
    """Count those that are kept already; which of `items` these are."""
    sources = [item.source for item in items]
    columns = {
        "hashes": [item.digest for item in items],
        "gateways": [r.gateway for r in sources],
        "formats": [r.format for r in sources],
        "reasons": [r.reason for r in sources],
        "items": [r.item for r in sources],
        "boots": [r.boot for r in sources],
        "seqs": [r.seq for r in sources],
        "counts": [item.count for item in items],
        "seen": [item.seen for item in items],
    }
    return {row[0] for row in connection.execute(COUNT_REPEATS, {**scope, **columns})}


def _insert(
    connection: Session, sector: Sector, scope: dict[str, Any], room: _Room, *, hidden: bool
) -> None:
    rows = []
    for item, payload in room.kept:
        r = item.source
        detail = "" if hidden else printable(r.detail[:DETAIL_CHARACTERS_MAX])
        rows.append((
            sector.name, r.gateway, r.format, r.channel, r.boot, r.seq, r.item, r.reason, detail,
            item.digest, payload, item.count, item.seen, item.seen, item.hour,
            _class_of(sector).value, hidden, r.item_format if r.payload else None, len(r.payload),
        ))  # fmt: skip
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(INSERT_REJECTION, rows)

    def place(item: _Item) -> tuple[str, str, str, datetime]:
        return (item.source.gateway, item.source.format, item.source.reason, item.hour)

    for (gateway, form, reason, hour), group in groupby(sorted(room.folded, key=place), place):
        values = {**scope, "gateway": gateway, "format": form, "reason": reason, "hour": hour}
        _fold(connection, {**values, "data_class": _class_of(sector).value}, list(group))


def _fold(connection: Session, values: dict[str, Any], items: list[_Item]) -> None:
    """Count items in the row of their (gateway, format, reason, hour)."""
    row = connection.execute(SELECT_FOLD, values).fetchone()
    chain = bytes(row[1]) if row else b""
    for item in items:
        chain = hashlib.sha256(chain + item.link).digest()
    totals = {
        "chain": chain,
        "count": sum(item.count for item in items),
        "bytes": sum(item.count * len(item.source.payload) for item in items),
        "seen": max(item.seen for item in items),
        "id": row[0] if row else None,
    }
    connection.execute(UPDATE_FOLD if row else INSERT_FOLD, {**values, **totals})


def sealed(key: X25519PublicKey, sector: str, rejection: Rejection) -> bytes:
    """Payload and detail of one rejection, for the key's holder alone."""
    content = cbor2.dumps([rejection.detail[:DETAIL_CHARACTERS_MAX], rejection.payload])
    return seal.seal(key, content, f"{sector}/{rejection.gateway}")


def unsealed(key: X25519PrivateKey, sector: str, gateway: str, content: bytes) -> tuple[str, bytes]:
    """(detail, payload) of a sealed rejection; CityError `unavailable` for another's key."""
    detail, payload = cbor2.loads(seal.unseal(key, content, f"{sector}/{gateway}"))
    return detail, payload


def fold_old(connection: Session, days: int) -> int:
    """Let go what is older than so many days, a bounded part a call; the caller commits."""
    row = connection.execute(FOLD_OLD, (days, FOLDED_A_TURN_MAX)).fetchone()
    return row[0] if row else 0
