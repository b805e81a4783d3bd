"""Documents about consent that decide nothing: kept as sent, shown to their person alone."""

import hmac
from uuid import UUID

from consent.log import Session, one, rows, subject_of
from consent.subject_keys import SubjectKeys, seal, unseal
from core.errors import CityError
from core.tokens import Principal

KEPT_MAX = 1_000
"""Of one person."""
CONTEXT = "kept"
SELECT_CODE = "SELECT code FROM consent.subject WHERE id = %(subject)s"
COUNT_KEPT = "SELECT count(*) FROM consent.kept WHERE subject = %(subject)s"
INSERT_KEPT = """
INSERT INTO consent.kept (id, subject, sealed) VALUES (%(id)s, %(subject)s, %(sealed)s)
ON CONFLICT (id) DO NOTHING
"""
SELECT_KEPT = """
SELECT s.code, k.sealed FROM consent.kept k JOIN consent.subject s ON s.id = k.subject
WHERE s.key = %(person)s ORDER BY k.at, k.id LIMIT %(limit)s
"""


def keep(connection: Session, principal: Principal, keys: SubjectKeys, document: bytes) -> None:
    """Keep a document of the person, sealed under their key; the same one again is kept once."""
    subject = subject_of(connection, principal.subject)
    if one(connection, COUNT_KEPT, subject=subject) >= KEPT_MAX:
        raise CityError("conflict", f"{KEPT_MAX} documents of yours are kept: no more than that")
    code = one(connection, SELECT_CODE, subject=subject)
    held = keys.keys([code])
    if code not in held:
        raise CityError("unavailable", "the person's key was destroyed")
    name = UUID(bytes=hmac.digest(held[code], document, "sha256")[:16])
    sealed = seal([held[code]], document, CONTEXT)
    connection.execute(INSERT_KEPT, {"id": name, "subject": subject, "sealed": sealed})


def select_kept(connection: Session, principal: Principal, keys: SubjectKeys) -> list[bytes]:
    """The documents of the person, the oldest first."""
    found = rows(connection, SELECT_KEPT, person=principal.subject, limit=KEPT_MAX)
    held = keys.keys({row["code"] for row in found})
    return [
        unseal([held[row["code"]]], row["sealed"], CONTEXT) for row in found if row["code"] in held
    ]
