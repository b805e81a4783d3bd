"""Information banks that grant in persons' place: acts DELEGATE and UNDELEGATE, and their grants.

A person appoints a bank for a span of time. It grants only what the person's statements allow, for
no longer than its mandate, and data that require care only where the mandate says so, too.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from consent import log, preferences
from consent.grants import SELECT_GRANT, SELECT_RECIPIENT, Terms
from consent.levels import NUMBERS
from consent.log import Session, Written
from consent.matching import Asked, Verdict, match
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES, VERSION
from core.errors import CityError, invalid
from core.tokens import Principal

MANDATES_MAX = 100
"""Of one person."""
MANDATE_DAYS_MAX = 1096
DELEGATES_MAX = 1000

# ruff: noqa: S608 - the parts are constants of this module

SELECT_DELEGATE = "SELECT title_ja, title_en, suspended FROM consent.delegate WHERE key = %(key)s"
SELECT_DELEGATES = """
SELECT key, title_ja, title_en FROM consent.delegate WHERE NOT suspended
ORDER BY key LIMIT %(limit)s
"""
SELECT_REGISTERED = "SELECT key FROM consent.delegate WHERE key = %(key)s AND NOT suspended"
_MANDATE = """
SELECT m.id, m.subject, m.delegate, d.title_ja, d.title_en, lower(m.valid) AS valid_from,
       upper(m.valid) AS valid_to, m.special, m.sigma, m.ended,
       m.ended IS NULL AND m.valid @> clock_timestamp() AND NOT d.suspended AS live
FROM consent.mandate m JOIN consent.delegate d ON d.key = m.delegate
"""
SELECT_MANDATE = f"{_MANDATE} WHERE m.id = %(id)s"
SELECT_MANDATES = f"""
{_MANDATE} WHERE m.subject = (SELECT id FROM consent.subject WHERE key = %(key)s)
ORDER BY m.sigma DESC LIMIT %(limit)s
"""
# The one that lasts longest; for data that require care, of those that say so.
SELECT_LIVE = """
SELECT m.id, m.subject, m.valid, m.special FROM consent.mandate m
JOIN consent.delegate d ON d.key = m.delegate JOIN consent.subject s ON s.id = m.subject
WHERE s.key = %(person)s AND m.delegate = %(delegate)s AND m.ended IS NULL AND NOT d.suspended
  AND m.valid @> clock_timestamp() AND (m.special OR NOT %(special)s)
ORDER BY upper(m.valid) DESC LIMIT 1
"""
SELECT_ORIGIN = """
SELECT m.delegate, s.key AS person FROM consent.origin o JOIN consent.mandate m ON m.id = o.mandate
JOIN consent.subject s ON s.id = o.subject WHERE o.grant_id = %(grant)s
"""
SELECT_KIND = "SELECT consent.kind_of(%(recipient)s)"


def put_delegate(
    connection: Session, principal: Principal, key: str, title_ja: str, title_en: str
) -> Written:
    """Register an information bank, change what is said of it, or end its suspension."""
    before = log.row(connection, SELECT_DELEGATE, key=key)
    if before is not None and tuple(before.values()) == (title_ja, title_en, False):
        return log.unchanged(connection)
    body = {"key": key, "title_ja": title_ja, "title_en": title_en}
    return log.write(connection, "REGISTER_DELEGATE", principal, body)


def suspend_delegate(connection: Session, principal: Principal, key: str) -> Written:
    """Let a bank grant nothing more until it is registered again."""
    if log.row(connection, SELECT_DELEGATE, key=key) is None:
        raise CityError("not-found", f"there is no information bank {key!r}")
    return log.write(connection, "SUSPEND_DELEGATE", principal, {"key": key})


def select_delegates(connection: Session) -> list[Row]:
    """The information banks that can be appointed."""
    return log.rows(connection, SELECT_DELEGATES, limit=DELEGATES_MAX)


def put_mandate(
    connection: Session,
    principal: Principal,
    mandate: UUID,
    delegate: str,
    valid_to: datetime,
    special: bool,
) -> Written:
    """Appoint a bank from now on; a mandate is never changed, nor given for a ward."""
    if principal.guardianship is not None:
        raise CityError("forbidden", "a guardian decides, and appoints no bank for a ward")
    subject = log.subject_of(connection, principal.subject)
    before = log.row(connection, SELECT_MANDATE, id=mandate)
    if before is not None:
        said = (subject, delegate, valid_to, special)
        names = ("subject", "delegate", "valid_to", "special")
        if tuple(before[name] for name in names) != said or before["ended"] is not None:
            raise CityError("conflict", "this id was used before: give a new mandate a new one")
        return log.unchanged(connection, before["sigma"])
    now = log.one(connection, log.SELECT_NOW)
    if not now < valid_to <= now + timedelta(days=MANDATE_DAYS_MAX):
        raise invalid("valid_to", f"must be within the next {MANDATE_DAYS_MAX} days")
    if len(select_mandates(connection, principal)) >= MANDATES_MAX:
        raise CityError("conflict", f"you have given {MANDATES_MAX} mandates")
    body = {
        "mandate": str(mandate),
        "delegate": log.one(connection, SELECT_REGISTERED, key=delegate, field="delegate"),
        "valid": log.window(now, valid_to),
        "special": special,
        "version": VERSION,
    }
    with log.explained("mandate"):
        return log.write(connection, "DELEGATE", principal, body, subject=subject)


def end_mandate(connection: Session, principal: Principal, mandate: UUID) -> Written:
    """End a mandate, and all that was granted by it."""
    subject = log.subject_of(connection, principal.subject)
    before = log.row(connection, SELECT_MANDATE, id=mandate)
    if before is None or before["subject"] != subject:
        raise CityError("not-found", f"there is no mandate {mandate} of yours")
    if before["ended"] is not None:
        return log.unchanged(connection, before["ended"])
    body = {"mandate": str(mandate)}
    with log.explained("mandate"):
        return log.write(connection, "UNDELEGATE", principal, body, subject=subject)


def select_mandates(connection: Session, principal: Principal) -> list[Row]:
    """Every mandate of the person, the newest first."""
    return log.rows(connection, SELECT_MANDATES, key=principal.subject, limit=MANDATES_MAX)


def put_grant(
    connection: Session, principal: Principal, grant: UUID, person: str, terms: Terms
) -> Written:
    """Grant in a person's place, or narrow a grant of the caller's; reduced to what is allowed."""
    PURPOSES.check("purpose", terms.purpose)
    CATEGORIES.check("category", terms.category)
    special = CATEGORIES.is_special(terms.category)
    scope = {"person": person, "delegate": principal.name, "special": special}
    mandate = log.row(connection, SELECT_LIVE, **scope)
    if mandate is None:
        raise CityError("forbidden", "you have no mandate of this person for such data")
    before = log.row(connection, SELECT_GRANT, grant=grant)
    if before is not None:
        _check_own(connection, principal, grant, person)
        if before["ended"] is not None:
            raise CityError("conflict", "this id was used before: give a new grant a new one")
    body = _body(connection, grant, terms, mandate, before)
    _restrict(connection, mandate["subject"], body)
    if before is not None and _is_same(before, body):
        return log.unchanged(connection, before["sigma"])
    with log.explained("grant"):
        act = "NARROW" if before else "GRANT"
        subject = mandate["subject"]
        return log.write(connection, act, principal, body, subject=subject, kind="delegate")


def revoke_grant(connection: Session, principal: Principal, grant: UUID, person: str) -> Written:
    """Take back a grant of the caller's own: its mandate need not last for that."""
    _check_own(connection, principal, grant, person)
    before = log.row(connection, SELECT_GRANT, grant=grant)
    if before is None or before["ended"] is not None:
        return log.unchanged(connection, before["ended"] if before else 0)
    body, subject = {"grant": str(grant)}, before["subject"]
    with log.explained("grant"):
        return log.write(connection, "REVOKE", principal, body, subject=subject, kind="delegate")


def _check_own(connection: Session, principal: Principal, grant: UUID, person: str) -> None:
    """CityError `not-found` for a grant that the caller did not give for this person."""
    found = log.row(connection, SELECT_ORIGIN, grant=grant)
    if found is None or (found["delegate"], found["person"]) != (principal.name, person):
        raise CityError("not-found", f"there is no grant {grant} of yours for this person")


def _body(
    connection: Session, grant: UUID, terms: Terms, mandate: Row, before: Row | None
) -> dict[str, Any]:
    """A grant of a delegate as the log has it: no longer than its mandate."""
    now = log.one(connection, log.SELECT_NOW)
    valid_from = terms.valid_from or (before["valid_from"] if before else now)
    event_from = terms.event_from or (before["event_from"] if before else now)
    valid_from = max(valid_from, mandate["valid"].lower)
    valid_to = min(terms.valid_to, mandate["valid"].upper)
    log.check_window("event", event_from, terms.event_to)
    log.check_window("valid", valid_from, valid_to)
    return {
        "grant": str(grant),
        "mandate": str(mandate["id"]),
        "recipient": log.one(connection, SELECT_RECIPIENT, key=terms.recipient, field="recipient"),
        "purpose": terms.purpose,
        "category": terms.category,
        "operation": terms.operation.value,
        "event": log.window(event_from, terms.event_to),
        "valid": log.window(valid_from, valid_to),
        "level": NUMBERS[terms.resolution],
        "countries": sorted(set(terms.countries)),
        "notice": terms.notice,
    }


def _restrict(connection: Session, subject: int, body: dict[str, Any]) -> None:
    """Reduce a grant to what the person's statements allow; CityError `forbidden` else."""
    kind = log.one(connection, SELECT_KIND, recipient=body["recipient"])
    asked = Asked(
        body["purpose"],
        body["category"],
        kind,
        body["operation"],
        body["level"],
        tuple(body["countries"]),
    )
    found = match(preferences.statements_of(connection, [subject])[subject], asked)
    if found.verdict is not Verdict.ALLOW:
        codes = ", ".join(sorted({reason.code for reason in found.reasons}))
        raise CityError("forbidden", f"the person does not allow it on a standing word: {codes}")
    body["level"] = found.level
    if voice := found.voice():
        body["guardianship"] = str(voice)


def _is_same(before: Row, body: dict[str, Any]) -> bool:
    """Whether a grant of the same recipient, purpose and category says the same."""
    return (
        log.window(before["event_from"], before["event_to"]) == body["event"]
        and log.window(before["valid_from"], before["valid_to"]) == body["valid"]
        and before["level"] == body["level"]
        and sorted(before["countries"]) == body["countries"]
        and before["notice"] == body["notice"]
        and all(before[name] == body[name] for name in ("purpose", "category", "operation"))
    )
