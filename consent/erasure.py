"""Erasure: an act of the log ends all that is a person's at once; a worker deletes what is left.

The act is the state: whoever dies in the middle, the next turn of any process goes on. The key in
consent.subject_keys is destroyed first, so a copy of the database that is restored later meets its
tombstone, in `replay`, before it serves.
"""

from functools import partial
from typing import Any
from uuid import UUID

from psycopg import sql

from consent.gate import Gate
from consent.log import Session, Written, one, row, rows, subject_of, unchanged, write
from consent.personal import wait_for_leases
from consent.results import Row
from consent.subject_keys import SubjectKeys
from consent.worker import Worker
from core.tokens import Principal

# ruff: noqa: S608 - the parts are constants of this module

RETRY_SECONDS_MAX = 5.0
ROWS_A_STEP = 20_000
PERSONS_A_TURN = 20
REWRITE_SECONDS_MAX = 900
LOCK_SECONDS_MAX = 3
NAMES = "consent.subject"
TABLES = {
    "number": "observation",
    "category": "observation",
    "position": "observation_position",
    "document": "observation_document",
}
PLATFORM = Principal(None, "platform", None, None, frozenset(), 0)

SELECT_ERASURE = """
SELECT e.id, e.sigma, e.at, w.deleted_at AS rows_at, w.done_at
FROM consent.erasure e LEFT JOIN personal.erasure_work w USING (subject) WHERE e.id = %(id)s
"""
SELECT_PENDING = """
SELECT e.id, e.subject, s.code FROM consent.erasure e JOIN consent.subject s ON s.id = e.subject
WHERE NOT EXISTS (SELECT FROM personal.erasure_work w WHERE w.subject = e.subject)
ORDER BY e.sigma LIMIT %(limit)s
"""
SELECT_CODE = """
SELECT s.code FROM consent.erasure e JOIN consent.subject s ON s.id = e.subject WHERE e.id = %(id)s
"""
SELECT_UNERASED = """
SELECT s.id, s.code FROM consent.subject s WHERE s.code = ANY(%(codes)s)
  AND NOT EXISTS (SELECT FROM consent.erasure e WHERE e.subject = s.id)
"""
# A span for each Datastream of each binding: what of it described the person, until it was erased.
SELECT_SPANS = """
SELECT d.id, d.kind, t.sector, t.id AS thing, lower(b.event) AS lower, upper(b.event) AS upper
FROM consent.party_member m JOIN consent.binding b ON b.party = m.party
JOIN thing t ON t.sector = b.sector AND t.key = b.thing JOIN datastream d ON d.thing_id = t.id
WHERE m.subject = %(subject)s ORDER BY d.id, lower(b.event)
"""
_SPAN = (
    """datastream_id = %(id)s AND phenomenon_time >= %(lower)s AND phenomenon_time < %(upper)s"""
)
SELECT_CUT = f"""
SELECT phenomenon_time AS time FROM personal.{{table}} WHERE {_SPAN}
ORDER BY phenomenon_time OFFSET %(rows)s LIMIT 1
"""
DELETE_SPAN = f"""
WITH gone AS (DELETE FROM personal.{{table}} WHERE {_SPAN} RETURNING tableoid),
noted AS (
  INSERT INTO personal.to_rewrite (subject, piece)
  SELECT DISTINCT %(subject)s, format('%%I.%%I', n.nspname, c.relname)
  FROM gone g JOIN pg_class c ON c.oid = g.tableoid JOIN pg_namespace n ON n.oid = c.relnamespace
  ON CONFLICT (subject, piece) DO UPDATE SET done = excluded.done)
SELECT count(*) FROM gone
"""
# Things that describe nobody else.
SELECT_THINGS = """
SELECT array_agg(DISTINCT t.id) FROM consent.party_member m
JOIN consent.binding b ON b.party = m.party JOIN thing t ON t.sector = b.sector AND t.key = b.thing
WHERE m.subject = %(subject)s AND NOT EXISTS (
  SELECT FROM consent.binding o WHERE o.sector = b.sector AND o.thing = b.thing AND o.party NOT IN (
    SELECT party FROM consent.party_member WHERE subject = %(subject)s))
"""
FORGET_THINGS = "SELECT forget_things(%(things)s)"
AWAIT_APPENDS = "SELECT await_appends(%(sectors)s)"
BLANK_RECORDS = "SELECT consent.blank_records(%(subject)s, %(rows)s)"
NOTE_NAMES = """
INSERT INTO personal.to_rewrite (subject, piece) VALUES (%(subject)s, %(piece)s)
ON CONFLICT (subject, piece) DO NOTHING
"""
# Whose deletions in a table nobody's snapshot is older than.
SELECT_PIECE = """
SELECT piece, array_agg(subject) AS subjects, to_regclass(piece) IS NOT NULL AS there
FROM personal.to_rewrite WHERE is_past(done) AND piece > %(after)s
GROUP BY piece ORDER BY piece LIMIT 1
"""
SELECT_INDEX = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass(%(piece)s) AND i.indisvalid AND i.indpred IS NULL
  AND a.amname = 'btree' ORDER BY c.relname LIMIT 1
"""
PATIENT = f"""
SET LOCAL statement_timeout = '{REWRITE_SECONDS_MAX}s';
SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'
"""
REWRITE_NAMES = "SELECT consent.rewrite_names()"
DELETE_PIECE = (
    "DELETE FROM personal.to_rewrite WHERE piece = %(piece)s AND subject = ANY(%(subjects)s)"
)
INSERT_DELETED = (
    "INSERT INTO personal.erasure_work (subject) VALUES (%(subject)s) ON CONFLICT DO NOTHING"
)
UPDATE_DONE = """
UPDATE personal.erasure_work w SET done_at = clock_timestamp() WHERE done_at IS NULL
  AND NOT EXISTS (SELECT FROM personal.to_rewrite r WHERE r.subject = w.subject)
"""
TAKE_LOCK = "SELECT pg_try_advisory_xact_lock(%(lock)s)"
LOCK = 0x45524153  # one process at a time writes tables anew ("ERAS")


def erase(connection: Session, principal: Principal, erasure: UUID) -> Written:
    """Erase the person who asks; the same id again is the same act, also once they have no name."""
    before = row(connection, SELECT_ERASURE, id=erasure)
    if before is not None:
        return unchanged(connection, before["sigma"])
    subject = subject_of(connection, principal.subject)
    body = {"erasure": str(erasure)}
    return write(connection, "ERASE", principal, body, subject=subject)


def destroy_key(connection: Session, keys: SubjectKeys, erasure: UUID) -> None:
    """Let the tombstone stand before the person is answered; the worker would do it as well."""
    keys.destroy(one(connection, SELECT_CODE, id=erasure), erasure)


def select(connection: Session, erasure: UUID) -> Row | None:
    """An erasure by its id, which its person alone has: after it nothing else names them."""
    return row(connection, SELECT_ERASURE, id=erasure)


def replay(gate: Gate, keys: SubjectKeys) -> int:
    """Erase again whoever a restored copy brought back, with their rows; how many these were."""
    acts = {tombstone.code: tombstone.erasure for tombstone in keys.tombstones()}
    if not acts:
        return 0  # nobody to look for: the API starts, whether or not the database is there
    with gate.working() as connection:
        found = rows(connection, SELECT_UNERASED, codes=list(acts))
    for back in found:
        with gate.working() as connection:
            written = write(
                connection, "ERASE", PLATFORM, {"erasure": str(acts[back["code"]])},
                subject=back["id"], kind="platform",
            )  # fmt: skip
            connection.commit()
            wait_for_leases(connection, written.less)
        delete_rows(gate, back["id"])
    return len(found)


def turn(gate: Gate, keys: SubjectKeys) -> bool:
    """Go on with every erasure that is not done; whether there are more of them."""
    with gate.working() as connection:
        pending = rows(connection, SELECT_PENDING, limit=PERSONS_A_TURN)
    for each in pending:
        keys.destroy(each["code"], each["id"])
        delete_rows(gate, each["subject"])
    rewrite(gate)
    return len(pending) == PERSONS_A_TURN


def delete_rows(gate: Gate, subject: int) -> None:
    """Delete all live rows of the parties that hold a person, a bounded part a transaction."""
    with gate.working() as connection:
        spans = rows(connection, SELECT_SPANS, subject=subject)
    with gate.working() as connection:
        # What is appended from here on knows of the erasure; so each row below is the last.
        connection.execute(AWAIT_APPENDS, {"sectors": sorted({s["sector"] for s in spans})})
    for span in spans:
        for table in (TABLES[span["kind"]], "superseded"):
            _delete_span(gate, subject, table, span)
    with gate.working() as connection:
        things = one(connection, SELECT_THINGS, subject=subject)
        connection.execute(FORGET_THINGS, {"things": things or []})
        connection.execute(NOTE_NAMES, {"subject": subject, "piece": NAMES})
    left = ROWS_A_STEP
    while left == ROWS_A_STEP:
        with gate.working() as connection:
            left = one(connection, BLANK_RECORDS, subject=subject, rows=ROWS_A_STEP)
    with gate.working() as connection:
        connection.execute(INSERT_DELETED, {"subject": subject})


def _delete_span(gate: Gate, subject: int, table: str, span: Row) -> None:
    lower: Any = span["lower"] or "-infinity"
    last: Any = span["upper"] or "infinity"
    while lower is not None:
        scope = {"id": span["id"], "lower": lower, "upper": last, "subject": subject}
        with gate.working() as connection:
            cut = row(connection, SELECT_CUT.format(table=table), rows=ROWS_A_STEP, **scope)
            if cut is not None:
                scope["upper"] = cut["time"]
            connection.execute(DELETE_SPAN.format(table=table).encode(), scope)
        lower = cut["time"] if cut is not None else None


def rewrite(gate: Gate) -> None:
    """Write the touched tables anew, so that no file holds what was deleted.

    A table waits while someone's snapshot is older than the deletion, or someone else uses it.
    """
    after: str | None = ""
    while after is not None:
        with gate.working() as connection:
            after = _rewrite_next(connection, after)
    with gate.working() as connection:
        connection.execute(UPDATE_DONE)


def _rewrite_next(connection: Session, after: str) -> str | None:
    """One table after another by name; None after the last, or while another process is at it."""
    if not one(connection, TAKE_LOCK, lock=LOCK):
        return None
    piece = row(connection, SELECT_PIECE, after=after)
    if piece is None:
        return None
    name: str = piece["piece"]
    connection.execute(PATIENT.encode())
    if name == NAMES:
        connection.execute(REWRITE_NAMES)
    elif piece["there"]:
        index = one(connection, SELECT_INDEX, piece=name)
        cluster = sql.SQL("CLUSTER {} USING {}")
        connection.execute(cluster.format(sql.Identifier(*_parts(name)), sql.Identifier(index)))
    connection.execute(DELETE_PIECE, {"piece": name, "subjects": piece["subjects"]})
    return name


def _parts(name: str) -> list[str]:
    return [part.strip('"') for part in name.split(".")]


def eraser(gate: Gate, keys: SubjectKeys) -> Worker:
    """Finishes erasures beside the API."""
    return Worker(
        "eraser", partial(turn, gate, keys), "an erasure is not done yet",
        retry_seconds_max=RETRY_SECONDS_MAX,
    )  # fmt: skip
