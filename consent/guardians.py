"""Guardianships: an operator registers who acts for whom, and the clock ends what age ends.

Whoever is registered may act at once; docs/decisions/0011-standing.md says by which law, and what
becomes of what a guardian said.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg

from consent.log import (
    SELECT_NOW,
    Session,
    Written,
    check_window,
    explained,
    one,
    row,
    rows,
    subject_of,
    unchanged,
    window,
    write,
)
from consent.results import Row
from core.errors import CityError, invalid
from core.tokens import Principal

JAPAN = timedelta(hours=9)
MAJORITY_YEARS = 18
GUARDIANS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of statutory representative: titles, the law, whether it ends with majority."""

    ja: str
    en: str
    law: str
    of_minor: bool
    dpv: str


_GUARDIAN = "dpv:GuardianOfDataSubject"
KINDS = {
    "parent": Kind(
        "親権者", "Person with parental authority", "Civil Code Art. 818, 824", True,
        "dpv:ParentOfDataSubject",
    ),
    "guardian-of-minor": Kind(
        "未成年後見人", "Guardian of a minor", "Civil Code Art. 838(i), 859", True, _GUARDIAN
    ),
    "guardian-of-adult": Kind(
        "成年後見人", "Guardian of an adult", "Civil Code Art. 838(ii), 859", False, _GUARDIAN
    ),
    "appointed-guardian": Kind(
        "任意後見人", "Guardian by contract", "Act on Voluntary Guardianship Contract Art. 2",
        False, _GUARDIAN,
    ),
}  # fmt: skip
"""Those who represent a person in general; who may do single acts (保佐人, 補助人) is no guardian
here."""

SELECT_GUARDIANSHIP = """
SELECT ward.key AS ward, own.key AS guardian, w.kind,
       lower(w.valid) AS valid_from, upper(w.valid) AS valid_to
FROM consent.guardianship w JOIN consent.subject ward ON ward.id = w.ward
JOIN consent.subject own ON own.id = w.guardian WHERE w.id = %(id)s
"""
SELECT_OF_PERSON = """
SELECT w.id, ward.key AS ward, own.key AS guardian, w.kind, lower(w.valid) AS valid_from,
       upper(w.valid) AS valid_to, w.valid @> clock_timestamp() AS live
FROM consent.subject me JOIN consent.guardianship w ON me.id IN (w.ward, w.guardian)
JOIN consent.subject ward ON ward.id = w.ward JOIN consent.subject own ON own.id = w.guardian
WHERE me.key = %(person)s ORDER BY lower(w.valid) DESC, w.id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Guardianship:
    """What an operator registers; `born` for a minor, whose guardianship ends with majority."""

    ward: str
    guardian: str
    kind: str
    born: date | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


def majority(born: date) -> datetime:
    """The moment of coming of age: the day before the eighteenth birthday ends, in Japan.

    Age is counted from the day of birth (Act on Calculating Age; Civil Code Art. 4 and 143), so who
    was born on 29 February is of age when 28 February ends.
    """
    try:
        day = born.replace(year=born.year + MAJORITY_YEARS)
    except ValueError:
        day = date(born.year + MAJORITY_YEARS, 3, 1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) - JAPAN


def put_guardianship(
    connection: Session, principal: Principal, guardianship: UUID, said: Guardianship
) -> Written:
    """Register who acts for whom; what is registered already is no new act."""
    of_minor = KINDS[said.kind].of_minor
    if of_minor != (said.born is not None):
        raise invalid("born", "is needed for a minor" if of_minor else "is asked for of minors")
    if said.born is not None and said.born > (datetime.now(UTC) + JAPAN).date():
        raise invalid("born", "is still to come")
    if said.ward == said.guardian:
        raise invalid("guardian", "is the ward")
    of_age = majority(said.born) if said.born else None
    ends = [end for end in (said.valid_to, of_age) if end]
    valid_to = min(ends) if ends else None
    before = row(connection, SELECT_GUARDIANSHIP, id=guardianship)
    begins = said.valid_from or (before["valid_from"] if before else one(connection, SELECT_NOW))
    if before is not None:
        if tuple(before.values()) != (said.ward, said.guardian, said.kind, begins, valid_to):
            raise CityError("conflict", "another guardianship has this id")
        return unchanged(connection)
    if valid_to is not None and valid_to <= one(connection, SELECT_NOW):
        raise invalid("born" if said.born else "valid_to", "it has ended already")
    check_window("valid", begins, valid_to)
    body = {
        "guardianship": str(guardianship),
        "ward": subject_of(connection, said.ward),
        "guardian": subject_of(connection, said.guardian),
        "kind": said.kind,
        "valid": window(begins, valid_to),
    }
    with explained("guardianship"):
        try:
            return write(connection, "GUARD", principal, body)
        except psycopg.errors.ExclusionViolation as error:
            raise CityError("conflict", "they are guardian and ward by another id") from error


def end_guardianship(connection: Session, principal: Principal, guardianship: UUID) -> Written:
    """End a guardianship now, and what was granted by it; what has ended is ended still."""
    before = row(connection, SELECT_GUARDIANSHIP, id=guardianship)
    now = one(connection, SELECT_NOW)
    if before is not None and before["valid_to"] is not None and before["valid_to"] <= now:
        return unchanged(connection)
    with explained("guardianship"):
        return write(connection, "UNGUARD", principal, {"guardianship": str(guardianship)})


def select_of_person(connection: Session, principal: Principal) -> list[Row]:
    """Whose guardian the person is or was, and who its guardians; the newest first."""
    return rows(connection, SELECT_OF_PERSON, person=principal.subject, limit=GUARDIANS_MAX)
