"""Recipients (提供先): who they are, what they may ask for, what they promise: known to all.

Without a profile a recipient reads by a person's own grant alone: it asks nobody, and no delegate
grants it anything. A profile that says more than before, or another, needs a new review.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from consent.log import Session, Written, row, rows, unchanged, write
from consent.recipient_kinds import KINDS
from consent.results import Row
from consent.vocabulary import PURPOSES
from core.errors import CityError, invalid
from core.tokens import Principal

Scheme = Literal["houjin-bangou", "lei", "other"]
Certified = Literal["isms", "privacy-mark", "iso-27701", "ismap", "soc-2", "other"]

CORPORATE_NUMBER_DIGITS = 13
LEI_CHARACTERS = 20

SELECT_REGISTERED = """
SELECT r.title_ja, r.title_en, r.country, r.suspended, p.body AS profile
FROM consent.recipient r LEFT JOIN consent.recipient_profile p ON p.recipient = r.id
WHERE r.key = %(key)s
"""
_APPROVED = """
SELECT jsonb_agg(jsonb_build_object('review', v.id, 'purposes', v.purposes, 'categories',
         v.categories, 'until', v.until, 'conditions', v.conditions) ORDER BY v.opened)
FROM consent.review v WHERE v.recipient = r.id AND v.state = 'approved' AND v.until > now()
"""
_PUBLISHED = f"""
SELECT r.key, r.title_ja, r.title_en, r.country, r.suspended, p.body AS profile,
       coalesce(({_APPROVED}), '[]') AS approved
FROM consent.recipient r LEFT JOIN consent.recipient_profile p ON p.recipient = r.id
"""  # noqa: S608 - the parts are constants of this module
SELECT_PAGE = f"{_PUBLISHED} WHERE r.key > %(after)s ORDER BY r.key LIMIT %(limit)s"
SELECT_ONE = f"{_PUBLISHED} WHERE r.key = %(key)s"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a recipient says of itself beyond its name, each text in Japanese and in English."""

    kind: str
    identifier: dict[str, str]
    representative: str
    contact: str
    purposes: tuple[str, ...]
    retention_days: int
    security: dict[str, Any]
    benefit: dict[str, str]

    def check(self) -> None:
        """CityError `invalid` for a term that is in no vocabulary, a number that is none."""
        if self.kind not in KINDS:
            raise invalid("profile.kind", f"{self.kind!r} is not in /v1/consent/vocabulary")
        for purpose in self.purposes:
            PURPOSES.check("profile.purposes", purpose)
        scheme, number = self.identifier["scheme"], self.identifier["value"]
        if not _VALID[scheme](number):
            raise invalid("profile.identifier.value", f"{number!r} is no number of {scheme!r}")

    def said(self) -> dict[str, Any]:
        """As it is stored and compared: the same profile is the same JSON."""
        return {**asdict(self), "purposes": list(self.purposes)}


def is_corporate_number(text: str) -> bool:
    """Whether it is a 法人番号: 13 digits, the first of which checks the others.

    9 less the remainder by 9 of the digits' sum, every second one doubled from the right but one
    (Ministry of Finance Order 70 of 2014, Art. 2).
    """
    if len(text) != CORPORATE_NUMBER_DIGITS or not (text.isascii() and text.isdigit()):
        return False
    weighed = (int(digit) * (1 + n % 2) for n, digit in enumerate(reversed(text[1:])))
    return int(text[0]) == 9 - sum(weighed) % 9


def is_lei(text: str) -> bool:
    """Whether it is a legal entity identifier (ISO 17442): its remainder by 97 is 1 (ISO 7064)."""
    if len(text) != LEI_CHARACTERS or not (
        text.isascii() and text.isalnum() and text == text.upper()
    ):
        return False
    return int("".join(str(int(character, 36)) for character in text)) % 97 == 1


_VALID: dict[str, Callable[[str], bool]] = {
    "houjin-bangou": is_corporate_number,
    "lei": is_lei,
    "other": bool,
}


def put(
    connection: Session,
    principal: Principal,
    key: str,
    title_ja: str,
    title_en: str,
    country: str,
    profile: Profile | None = None,
) -> Written:
    """Register a recipient, change what is said of it, or end its suspension."""
    if profile is not None:
        profile.check()
    said = None if profile is None else profile.said()
    before = row(connection, SELECT_REGISTERED, key=key)
    if before is not None and tuple(before.values()) == (title_ja, title_en, country, False, said):
        return unchanged(connection)
    body: dict[str, Any] = {
        "key": key,
        "title_ja": title_ja,
        "title_en": title_en,
        "country": country,
    }
    if profile is not None:
        body |= {"profile": said, "reach": PURPOSES.reached(profile.purposes)}
    return write(connection, "REGISTER", principal, body)


def suspend(connection: Session, principal: Principal, key: str) -> Written:
    """Let a recipient read nothing until it is registered again."""
    if row(connection, SELECT_REGISTERED, key=key) is None:
        raise CityError("not-found", f"there is no recipient {key!r}")
    return write(connection, "SUSPEND", principal, {"key": key})


def select_page(connection: Session, after: str, limit: int) -> list[Row]:
    """Up to `limit` recipients after a key, in the order of their keys; those suspended, too."""
    return rows(connection, SELECT_PAGE, after=after, limit=limit)


def select_one(connection: Session, key: str) -> Row:
    """One recipient, as published; CityError `not-found`."""
    found = row(connection, SELECT_ONE, key=key)
    if found is None:
        raise CityError("not-found", f"there is no recipient {key!r}")
    return found
