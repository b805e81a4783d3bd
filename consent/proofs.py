"""The tree of deliveries in the database: records get their places, receipts are made of them."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from psycopg import Connection
from psycopg.rows import dict_row

from consent import merkle
from consent.masks import Mask
from consent.receipts import Signer, commitment
from consent.results import Row
from consent.subject_keys import SubjectKeys, seal, unseal
from consent.worker import Worker
from core.errors import CityError
from core.tokens import Principal, Role

Session = Connection[tuple[Any, ...]]


LEAVES_MAX = 5_000
LOCK = 0x54524545  # one sequencer at a time on one database ("TREE")

TAKE_LOCK = "SELECT pg_try_advisory_xact_lock(%s)"
SELECT_SIZE = "SELECT coalesce(max(index) + 1, 0) FROM audit.leaf"
SELECT_SIGNED = "SELECT size, note FROM audit.checkpoint ORDER BY size DESC LIMIT 1"
SELECT_FROM = """
SELECT size, note FROM audit.checkpoint WHERE size >= %(size)s ORDER BY size LIMIT 1
"""
SELECT_TO = """
SELECT size, note FROM audit.checkpoint WHERE size <= %(size)s ORDER BY size DESC LIMIT 1
"""
# Of each leaf the earliest checkpoint with a timestamp that covers it.
SELECT_STAMPED = """
SELECT i.index, s.size, c.note, s.token FROM unnest(%(indices)s::bigint[]) AS i (index)
CROSS JOIN LATERAL (SELECT * FROM audit.timestamp t WHERE t.size > i.index
                    ORDER BY t.size LIMIT 1) AS s
JOIN audit.checkpoint c ON c.size = s.size
"""
TAKE_UNSEQUENCED = """
DELETE FROM audit.unsequenced WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM audit.unsequenced LIMIT %(limit)s)) RETURNING provision
"""
SELECT_PROVISIONS = """
SELECT p.id, p.salt, p.decision, p.sector, p.grants, p.rows, p.time_min, p.time_max,
       d.at, d.recipient, d.purpose, d.category, d.sigma, d.override, t.key AS thing, s.property,
       p.subjects, ARRAY(SELECT code FROM consent.subject WHERE id = ANY(p.subjects)) AS codes
FROM audit.provision p JOIN audit.decision d ON d.id = p.decision
JOIN datastream s ON s.id = p.datastream_id JOIN thing t ON t.id = s.thing_id
WHERE p.id = ANY(%(ids)s) ORDER BY d.at, p.id
"""
SELECT_NODES = """
SELECT n.hash FROM unnest(%(levels)s::smallint[], %(indices)s::bigint[])
  WITH ORDINALITY AS w (level, index, number)
JOIN audit.node n ON n.level = w.level AND n.index = w.index ORDER BY w.number
"""
INSERT_LEAVES = """
INSERT INTO audit.leaf (index, provision, record)
SELECT * FROM unnest(%(indices)s::bigint[], %(provisions)s::uuid[], %(records)s::text[])
"""
INSERT_NODES = """
INSERT INTO audit.node (level, index, hash)
SELECT * FROM unnest(%(levels)s::smallint[], %(indices)s::bigint[], %(hashes)s::bytea[])
"""
INSERT_CHECKPOINT = "INSERT INTO audit.checkpoint (size, note) VALUES (%(size)s, %(note)s)"
_RECEIPT = """
SELECT l.index, l.record, p.salt, p.id,
       ARRAY(SELECT code FROM consent.subject WHERE id = ANY(p.subjects))
FROM audit.provision p LEFT JOIN audit.leaf l ON l.provision = p.id
"""
_OF_RECIPIENT = "p.decision = %(decision)s AND d.recipient = %(recipient)s"
_OF_PERSON = "p.decision = %(decision)s AND s.key = %(person)s AND s.id = ANY(p.subjects)"
SELECT_RECEIPTS = {
    Role.RECIPIENT: f"""
{_RECEIPT} JOIN audit.decision d ON d.id = p.decision WHERE {_OF_RECIPIENT} ORDER BY l.index""",
    Role.CITIZEN: f"""
{_RECEIPT} CROSS JOIN consent.subject s WHERE {_OF_PERSON} ORDER BY l.index""",
}
ERASED = ""
"""What stands for a record that nobody can read any more."""


def sequence(connection: Session, signer: Signer, secret: bytes, keys: SubjectKeys) -> int:
    """Give leaves their places and sign the tree, in the caller's transaction; how many there were.

    Does nothing while another process is at it.
    """
    locked = connection.execute(TAKE_LOCK, (LOCK,)).fetchone()
    if not locked or not locked[0]:
        return 0
    taken = connection.execute(TAKE_UNSEQUENCED, {"limit": LEAVES_MAX}).fetchall()
    if not taken:
        return 0
    with connection.cursor(row_factory=dict_row) as cursor:
        ids = [row[0] for row in taken]
        rows = cursor.execute(SELECT_PROVISIONS.encode(), {"ids": ids}).fetchall()
    if len(rows) != len(taken):
        raise CityError("unavailable", "a provision record lacks its Datastream or its decision")
    size = _size(connection)
    masks = {row["recipient"]: Mask(secret, row["recipient"]) for row in rows}
    records = [record_of(row, masks[row["recipient"]]) for row in rows]
    leaves = [commitment(row["salt"], text) for row, text in zip(rows, records, strict=True)]
    sealed = sealed_records(rows, records, keys)
    edge = nodes_of(connection)(merkle.peaks(size))
    made = list(merkle.appended(size, leaves, edge))
    after = range(size, size + len(leaves))
    connection.execute(
        INSERT_LEAVES,
        {"indices": list(after), "provisions": [row["id"] for row in rows], "records": sealed},
    )
    connection.execute(
        INSERT_NODES,
        {
            "levels": [position[0] for position, _ in made],
            "indices": [position[1] for position, _ in made],
            "hashes": [hashed for _, hashed in made],
        },
    )
    root = merkle.root(after.stop, nodes_of(connection))
    note = signer.sign(after.stop, root)
    connection.execute(INSERT_CHECKPOINT, {"size": after.stop, "note": note})
    return len(leaves)


def sequencer(step: Callable[[], int]) -> Worker:
    """Gives new records their places about once a second."""
    return Worker("sequencer", lambda: step() == LEAVES_MAX, "disclosures have no places yet")


def record_of(row: Row, mask: Mask) -> str:
    """A provision record as JSON, with the names that its recipient was told."""
    record = {
        "disclosure": row["decision"],
        "at": row["at"],
        "recipient": row["recipient"],
        "purpose": row["purpose"],
        "category": row["category"],
        "sector": row["sector"],
        "persons": [mask.person(person) for person in row["subjects"]],
        "thing": mask.thing(row["thing"]),
        "property": row["property"],
        "grants": row["grants"],
        "sigma": row["sigma"],
        "rows": row["rows"],
        "time_min": row["time_min"],
        "time_max": row["time_max"],
        **({"override": row["override"]} if row["override"] else {}),
    }
    return orjson.dumps(record, option=orjson.OPT_UTC_Z).decode()


def sealed_records(rows: Sequence[Row], records: Sequence[str], keys: SubjectKeys) -> list[str]:
    """The records under the keys of all their persons; nothing of one whose key is destroyed."""
    known = keys.keys({code for row in rows for code in row["codes"]})
    return [
        base64.b64encode(
            seal([known[code] for code in row["codes"]], text.encode(), str(row["id"]))
        ).decode()
        if all(code in known for code in row["codes"])
        else ERASED
        for row, text in zip(rows, records, strict=True)
    ]


def opened_record(
    stored: str, codes: Sequence[UUID], provision: UUID, known: Mapping[UUID, bytes]
) -> str:
    """What a leaf commits to, word by word; ERASED where it can be read no more."""
    if stored == ERASED or stored.startswith("{"):  # from before records were sealed
        return stored
    if not all(code in known for code in codes):
        return ERASED
    own = [known[code] for code in codes]
    return unseal(own, base64.b64decode(stored), str(provision)).decode()


def receipts(
    connection: Session, principal: Principal, disclosure: UUID, keys: SubjectKeys
) -> list[dict[str, Any]] | None:
    """What proves a disclosure to its recipient or to a person in it; None: there is no such one.

    Of an erased record the leaf alone is told, whose place can still be checked. CityError
    `unavailable` in the second before its records have their places.
    """
    role = Role.RECIPIENT if principal.role is Role.RESPONDER else principal.role
    if role not in SELECT_RECEIPTS:
        return None
    scope = {"decision": disclosure, "recipient": principal.name, "person": principal.subject}
    found = connection.execute(SELECT_RECEIPTS[role].encode(), scope).fetchall()
    if not found:
        return None
    signed = connection.execute(SELECT_SIGNED).fetchone()
    if signed is None or any(row[0] is None for row in found):
        raise CityError("unavailable", "its records get their places now: ask again in a second")
    stamped = {
        index: (size, note, base64.b64encode(token).decode())
        for index, size, note, token in connection.execute(
            SELECT_STAMPED, {"indices": [row[0] for row in found]}
        )
    }
    under = [stamped.get(row[0], (*signed, None)) for row in found]
    places = [(row[0], size) for row, (size, _, _) in zip(found, under, strict=True)]
    paths = merkle.inclusion_proofs(places, nodes_of(connection))
    told = _told(found, nodes_of(connection), keys)
    return [
        {
            **each,
            "proof": [hashed.hex() for hashed in path],
            "checkpoint": note,
            "timestamp": token,
        }
        for each, (_, note, token), path in zip(told, under, paths, strict=True)
    ]


def _told(
    found: Sequence[tuple[Any, ...]], nodes: merkle.Nodes, keys: SubjectKeys
) -> Iterator[dict[str, Any]]:
    """Records and salts, or of an erased record its leaf, which is in the tree anyway."""
    known = keys.keys({code for *_, codes in found for code in codes})
    records = [opened_record(row[1], row[4], row[3], known) for row in found]
    erased = [row[0] for row, text in zip(found, records, strict=True) if text == ERASED]
    hashes = nodes([(0, index) for index in erased]) if erased else []
    leaves = dict(zip(erased, hashes, strict=True))
    for (index, _, salt, _, _), record in zip(found, records, strict=True):
        if record == ERASED:
            yield {"index": index, "record": None, "salt": None, "leaf": leaves[index].hex()}
        else:
            yield {"index": index, "record": record, "salt": salt.hex(), "leaf": None}


def consistency(connection: Session, old: int | None, new: int | None) -> dict[str, Any] | None:
    """That one signed tree is the beginning of another; None where there are no two such.

    A size left out: of the first tree, of the newest.
    """
    first = connection.execute(SELECT_FROM, {"size": old or 0}).fetchone()
    last = connection.execute(SELECT_TO, {"size": new or merkle.SIZE_MAX - 1}).fetchone()
    if first is None or last is None or first[0] > last[0]:
        return None
    if first[0] != (old or first[0]) or last[0] != (new or last[0]):
        return None
    proof = merkle.consistency_proof(first[0], last[0], nodes_of(connection))
    return {"old": first[1], "new": last[1], "proof": [hashed.hex() for hashed in proof]}


def newest(connection: Session) -> str | None:
    """The newest checkpoint, as it was signed."""
    row = connection.execute(SELECT_SIGNED).fetchone()
    return row[1] if row else None


def nodes_of(connection: Session) -> merkle.Nodes:
    """The stored nodes."""

    def look_up(positions: Sequence[merkle.Position]) -> list[bytes]:
        scope = {"levels": [p[0] for p in positions], "indices": [p[1] for p in positions]}
        found = [row[0] for row in connection.execute(SELECT_NODES, scope)]
        if len(found) != len(positions):
            raise CityError("unavailable", "the tree of disclosures lacks a node")
        return found

    return look_up


def _size(connection: Session) -> int:
    row = connection.execute(SELECT_SIZE).fetchone()
    return int(row[0]) if row else 0
