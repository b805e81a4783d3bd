"""What may be done with a rejection: a table of acts, each settled once, with its history.

A rejection is open until somebody acts on it. Its count stays what the account calls rejected; what
was taken in after all is `recovered` there, and its observations are received, by the replay.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from core.storage.rejections import LOCK_QUOTAS, Session, printable

OPEN = "open"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing to do with an open rejection, and the state that it leads to."""

    name: str
    state: str
    recovers: bool
    keeps_payload: bool


ACTS: Mapping[str, Act] = MappingProxyType(
    {
        act.name: act
        for act in (
            Act("replay", "replayed", recovers=True, keeps_payload=False),
            Act("fix", "fixed", recovers=True, keeps_payload=True),
            Act("discard", "discarded", recovers=False, keeps_payload=False),
        )
    }
)
STATES = (OPEN, *(act.state for act in ACTS.values()))

_KEPT = """id, sector, gateway, format, reason, state, item_format, sealed, folded, sha256, payload,
       first_seen"""
# ruff: noqa: S608 - the parts are constants of this file
SELECT_KEPT = f"SELECT {_KEPT} FROM rejection WHERE id = %(id)s"
SELECT_LAST = "SELECT coalesce(max(id), 0) FROM rejection"
SELECT_OPEN = f"""
SELECT {_KEPT} FROM (
  SELECT *, sum(length(payload)) OVER (ORDER BY id) - length(payload) AS before FROM (
    SELECT * FROM rejection
    WHERE state = 'open' AND NOT folded AND payload IS NOT NULL AND item_format IS NOT NULL
      AND sector = %(sector)s AND id > %(after)s AND id <= %(until)s
      AND (%(reason)s::text IS NULL OR reason = %(reason)s)
      AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
    ORDER BY id LIMIT %(limit)s) AS page) AS sized
WHERE before < %(bytes)s ORDER BY id
"""
# Whoever comes second finds no open row. The count is read here: a repeat may have come meanwhile.
SETTLE = """
UPDATE rejection r SET state = %(state)s, corrected = %(corrected)s,
  payload = CASE WHEN %(keeps_payload)s THEN r.payload END
FROM (SELECT id, length(payload) AS size FROM rejection WHERE id = %(id)s FOR UPDATE) AS old
WHERE r.id = old.id AND r.state = 'open'
RETURNING r.sector, r.gateway, r.format, r.hour, r.count, r.folded, coalesce(old.size, 0)
"""
RELEASE_QUOTA = """
UPDATE rejection_quota SET items = items - 1, bytes = bytes - %(size)s
WHERE sector = %(sector)s AND gateway = %(gateway)s
"""
ADD_RECOVERED = """
INSERT INTO recovered AS r (sector, gateway, format, hour, items)
VALUES (%(sector)s, %(gateway)s, %(format)s, %(hour)s, %(count)s)
ON CONFLICT (sector, gateway, format, hour) DO UPDATE SET items = r.items + excluded.items
"""
# A refusal that repeats the one before it, as a bulk run's do, is no news.
INSERT_ACT = """
INSERT INTO rejection_act (rejection_id, who, act, done, reason, sha256, corrected_sha256, stored,
                           duplicate, rejected)
SELECT %(id)s, %(who)s, %(act)s, %(done)s, %(why)s, %(sha256)s, %(corrected_sha256)s, %(stored)s,
       %(duplicate)s, %(rejected)s
WHERE %(done)s OR NOT EXISTS (
  SELECT FROM rejection_act b
  WHERE b.id = (SELECT max(id) FROM rejection_act WHERE rejection_id = %(id)s)
    AND NOT b.done AND (b.who, b.act, b.reason) = (%(who)s, %(act)s, %(why)s)
    AND b.corrected_sha256 IS NOT DISTINCT FROM %(corrected_sha256)s::bytea)
"""
WHY_CHARACTERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Kept:
    """One rejection as it is stored; a sealed payload is still sealed."""

    id: int
    sector: str
    gateway: str
    format: str
    reason: str
    state: str
    item_format: str | None
    sealed: bool
    folded: bool
    sha256: bytes
    payload: bytes | None
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class Deed:
    """One act on one rejection: who, why, and what came of it in observations."""

    id: int
    act: str
    who: str
    why: str
    sha256: bytes
    corrected: bytes | None = None
    corrected_sha256: bytes | None = None
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0


def find(connection: Session, rejection: int) -> Kept | None:
    """One rejection, or None."""
    row = connection.execute(SELECT_KEPT, {"id": rejection}).fetchone()
    return Kept(*row) if row else None


def open_pages(
    connection: Session,
    sector: str,
    reason: str | None,
    gateway: str | None,
    *,
    rows_max: int,
    bytes_max: int,
) -> Iterator[list[Kept]]:
    """Open rejections that can be taken in, those of now, by id; a page is bounded twice.

    Each page is read when it is asked for; the caller ends its transaction in between.
    """
    row = connection.execute(SELECT_LAST).fetchone()
    scope = {
        "sector": sector, "reason": reason, "gateway": gateway, "limit": rows_max,
        "bytes": bytes_max, "after": 0, "until": row[0] if row else 0,
    }  # fmt: skip
    while page := [Kept(*each) for each in connection.execute(SELECT_OPEN, scope).fetchall()]:
        connection.commit()
        yield page
        scope["after"] = page[-1].id


def settle(connection: Session, sector: str, gateways: set[str], deeds: Sequence[Deed]) -> set[int]:
    """Settle acts on a sector's rejections in the caller's transaction; -> ids that were not open.

    If there are any, the caller rolls back: it took in what somebody else had settled.
    """
    connection.execute(LOCK_QUOTAS, {"sector": sector, "gateways": sorted(gateways)})
    late: set[int] = set()
    for deed in sorted(deeds, key=lambda deed: deed.id):
        act = ACTS[deed.act]
        row = connection.execute(
            SETTLE,
            {
                "id": deed.id,
                "state": act.state,
                "keeps_payload": act.keeps_payload,
                "corrected": deed.corrected,
            },
        ).fetchone()
        if row is None:
            late.add(deed.id)
            continue
        place = dict(zip(("sector", "gateway", "format", "hour", "count"), row, strict=False))
        if not row[5]:
            connection.execute(RELEASE_QUOTA, {**place, "size": row[6]})
        if act.recovers:
            connection.execute(ADD_RECOVERED, place)
        note(connection, deed, done=True)
    return late


def note(connection: Session, deed: Deed, *, done: bool) -> None:
    """Add to the history what was done, or what was tried and refused."""
    connection.execute(
        INSERT_ACT,
        {
            "id": deed.id,
            "who": printable(deed.who),
            "act": deed.act,
            "done": done,
            "why": printable(deed.why[:WHY_CHARACTERS_MAX]),
            "sha256": deed.sha256,
            "corrected_sha256": deed.corrected_sha256,
            "stored": deed.stored,
            "duplicate": deed.duplicate,
            "rejected": deed.rejected,
        },
    )
