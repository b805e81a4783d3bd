"""Who acts for whom: the one place where a caller and `?subject=` become a person with a voice.

A guardian acts for the ward with the ward's number, the guardian's own name, and the guardianship
that allows it; what the guardian grants or objects to is in that guardianship's voice.
"""

from dataclasses import replace

from consent.log import Session, row, rows
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES
from core.errors import CityError
from core.tokens import Principal

PERSON = 0x53454C46
"""First key of the advisory locks of persons ("SELF"): acts about one come one after another."""

LOCK = "SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(key)s))"
SELECT_STANDING = """
SELECT w.id FROM consent.guardianship w
JOIN consent.subject ward ON ward.id = w.ward JOIN consent.subject own ON own.id = w.guardian
WHERE ward.key = %(ward)s AND own.key = %(guardian)s AND w.valid @> clock_timestamp()
ORDER BY upper(w.valid) DESC LIMIT 1
"""
SELECT_OTHER_VOICES = """
SELECT g.grant_id, g.purpose, g.category FROM consent.granted g
WHERE g.subject = %(subject)s AND g.recipient = %(recipient_id)s AND g.operation = %(operation)s
  AND g.ended IS NULL AND g.guardianship IS DISTINCT FROM %(guardianship)s
ORDER BY g.given
"""


def acting_for(connection: Session, caller: Principal, subject: str | None) -> Principal:
    """The caller as the person whom it acts for; CityError `forbidden`, the same for everyone else.

    It tells of nobody: who has no guardian, and who is not known here, are refused alike.
    """
    if subject is None or subject == caller.subject:
        return caller
    asked = {"ward": subject.replace("\0", ""), "guardian": caller.subject}
    found = row(connection, SELECT_STANDING, **asked)
    if found is None:
        raise CityError("forbidden", "you may not act for this person now")
    return replace(caller, subject=subject, guardianship=found["id"])


def in_turn(connection: Session, person: Principal) -> None:
    """Let no two acts about a person go on at once: each sees what the other granted."""
    connection.execute(LOCK, {"lock": PERSON, "key": person.subject})


def others_about(connection: Session, grant: Row) -> list[str]:
    """The grants in other voices that permit something which this one permits too."""
    names = ("subject", "recipient_id", "operation", "guardianship")
    found = rows(connection, SELECT_OTHER_VOICES, **{name: grant[name] for name in names})
    return [
        str(each["grant_id"])
        for each in found
        if PURPOSES.meet(each["purpose"], grant["purpose"])
        and CATEGORIES.meet(each["category"], grant["category"])
    ]
