"""Files on countries and on recipients there: without a live one, nothing goes abroad.

Consent to a transfer abroad counts only of who was told of the country, its regime and the
recipient's measures (APPI Art. 28(2), Rule 17(2)), and only while they are checked (Rule 18(1)).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from consent.log import (
    SELECT_NOW,
    Session,
    Written,
    explained,
    one,
    row,
    rows,
    unchanged,
    write,
)
from consent.results import Row
from core.errors import CityError, invalid
from core.tokens import Principal

CHECK_EVERY = timedelta(days=366)
"""A check is due within a year of the last one: what "periodically" is taken to mean."""
HOME = "JP"
CHECKS_MAX = 100

SELECT_RECIPIENT = """
SELECT id, key, title_ja, title_en, country FROM consent.recipient WHERE key = %(key)s
"""
SELECT_FILE = """
SELECT text_ja, text_en, source, checked_at, check_by, passed FROM consent.transfer_file
WHERE country = %(country)s AND recipient IS NOT DISTINCT FROM %(recipient)s
"""
SELECT_CHECK = """
SELECT country, recipient, passed, note, checked_at, check_by
FROM consent.transfer_check WHERE id = %(id)s
"""
SELECT_CHECKS = """
SELECT passed, note, checked_at, check_by FROM consent.transfer_check
WHERE country = %(country)s AND recipient IS NOT DISTINCT FROM %(recipient)s
ORDER BY checked_at DESC LIMIT %(limit)s
"""
SELECT_DESIGNATED = "SELECT source FROM consent.designated WHERE country = %(country)s"
SELECT_OPEN = """
SELECT EXISTS (SELECT FROM consent.transferable
               WHERE recipient = %(id)s AND until > clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class File:
    """What a file says, in both languages, whence it is known, and for how long that holds."""

    text_ja: str
    text_en: str
    source: str
    checked_at: datetime
    check_by: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One periodic check: whether all is as the file says, and when to look again."""

    passed: bool
    note: str
    checked_at: datetime
    check_by: datetime


def put_file(
    connection: Session, principal: Principal, country: str, recipient: str | None, said: File
) -> Written:
    """Write the file of a country (its regime) or of a recipient there (its measures)."""
    _check_times(connection, said.checked_at, said.check_by)
    number = _number(connection, recipient)
    about = {"country": country, "recipient": number}
    before = row(connection, SELECT_FILE, **about)
    told = (said.text_ja, said.text_en, said.source, said.checked_at, said.check_by, True)
    if before is not None and tuple(before.values()) == told:
        return unchanged(connection)
    body = {
        **about,
        "text_ja": said.text_ja,
        "text_en": said.text_en,
        "source": said.source,
        "checked_at": said.checked_at.isoformat(),
        "check_by": said.check_by.isoformat(),
    }
    return write(connection, "TRANSFER_FILE", principal, body)


def put_check(
    connection: Session,
    principal: Principal,
    check: UUID,
    country: str,
    recipient: str | None,
    said: Check,
) -> Written:
    """Write down a check of a file: a failed one suspends at once, a passed one restores."""
    number = _number(connection, recipient)
    before = row(connection, SELECT_CHECK, id=check)
    if before is not None:
        told = (country, number, said.passed, said.note, said.checked_at, said.check_by)
        if tuple(before.values()) != told:
            raise CityError("conflict", "another check has this id")
        return unchanged(connection)
    _check_times(connection, said.checked_at, said.check_by)
    if row(connection, SELECT_FILE, country=country, recipient=number) is None:
        raise CityError("not-found", f"there is no file on {recipient or country} in {country}")
    body = {
        "check": str(check),
        "country": country,
        "recipient": number,
        "passed": said.passed,
        "note": said.note,
        "checked_at": said.checked_at.isoformat(),
        "check_by": said.check_by.isoformat(),
    }
    with explained("checked_at"):
        return write(connection, "TRANSFER_CHECK", principal, body)


def notice(connection: Session, recipient: str) -> dict[str, Any]:
    """What a person is told of where a recipient keeps its data; CityError `not-found`."""
    found = row(connection, SELECT_RECIPIENT, key=recipient)
    if found is None:
        raise CityError("not-found", f"there is no recipient {recipient!r}")
    country = found["country"]
    designated = row(connection, SELECT_DESIGNATED, country=country)
    needed = country != HOME and designated is None
    return {
        "recipient": recipient,
        "title": {"ja": found["title_ja"], "en": found["title_en"]},
        "country": country,
        "basis": "domestic" if country == HOME else "designated" if designated else "consent",
        "designated_by": designated["source"] if designated else None,
        "regime": _told(connection, country, None) if needed else None,
        "measures": _told(connection, country, found["id"]) if needed else None,
        "open": not needed or one(connection, SELECT_OPEN, id=found["id"]),
    }


def _told(connection: Session, country: str, recipient: int | None) -> Row | None:
    about = {"country": country, "recipient": recipient}
    found = row(connection, SELECT_FILE, **about)
    if found is None:
        return None
    text = {"ja": found.pop("text_ja"), "en": found.pop("text_en")}
    checks = rows(connection, SELECT_CHECKS, limit=CHECKS_MAX, **about)
    return {"text": text, **found, "checks": checks}


def _number(connection: Session, recipient: str | None) -> int | None:
    if recipient is None:
        return None
    found = row(connection, SELECT_RECIPIENT, key=recipient)
    if found is None:
        raise CityError("not-found", f"there is no recipient {recipient!r}")
    return int(found["id"])


def _check_times(connection: Session, checked_at: datetime, check_by: datetime) -> None:
    if checked_at > one(connection, SELECT_NOW):
        raise invalid("checked_at", "is still to come")
    if not checked_at < check_by <= checked_at + CHECK_EVERY:
        raise invalid("check_by", "must be within a year after checked_at")
