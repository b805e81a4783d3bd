"""Recipients: operators register and suspend them, everyone sees who they are."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from api import problems
from api.consent import Body, Code, Country, Done, done, titled
from api.fields import NO_CONTROL, After, Limit, next_url, open_cursor, page_size
from api.schemas import example
from consent import door, recipients
from consent.recipient_kinds import KINDS
from consent.recipients import Certified, Profile, Scheme
from consent.results import Row
from consent.vocabulary import PURPOSES

PAGE_DEFAULT = 100
PURPOSES_MAX = 32
CERTIFICATES_MAX = 16
RETENTION_DAYS_MAX = 36_525

router = APIRouter(tags=["recipients"], responses=problems.documented("conflict", "too-large"))

RecipientKey = Annotated[
    str,
    Path(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$", examples=["yui-mobility"]),
]
Short = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROL)]
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class Both(Body):
    """One text in both languages."""

    ja: Text
    en: Text


class Identifier(Body):
    """Who it is before the law: a 法人番号 (checked), an LEI (checked), or another register's."""

    scheme: Scheme
    value: Short


class Certificate(Body):
    """One certification of its handling of information."""

    scheme: Certified
    number: Short
    until: date


class Security(Body):
    """How it keeps what it receives."""

    certificates: list[Certificate] = Field([], max_length=CERTIFICATES_MAX)
    measures: Both


class ProfileBody(Body):
    """What a recipient has to say of itself before it may ask anyone."""

    kind: Code = Field(description="one of `kinds` in /v1/consent/vocabulary")
    identifier: Identifier
    representative: Short
    contact: Text = Field(description="for complaints")
    purposes: list[Code] = Field(
        min_length=1, max_length=PURPOSES_MAX, description="each with all below it"
    )
    retention_days: int = Field(ge=1, le=RETENTION_DAYS_MAX)
    security: Security
    benefit: Both = Field(description="what the person gets")


class RecipientBody(Body):
    """Who may be granted anything; without a profile, by a person's own grant alone."""

    title_ja: Short
    title_en: Short
    country: Country
    profile: ProfileBody | None = None

    model_config = example(
        title_ja="ゆいモビリティ",
        title_en="Yui Mobility",
        country="JP",
        profile={
            "kind": "chimata:TransportOperator",
            "identifier": {"scheme": "houjin-bangou", "value": "7123456789012"},
            "representative": "代表取締役 結 ゆい",
            "contact": "privacy@yui-mobility.example",
            "purposes": ["dpv:ImproveTransportMobility"],
            "retention_days": 90,
            "security": {
                "certificates": [{"scheme": "isms", "number": "IS 000000", "until": "2027-03-31"}],
                "measures": {"ja": "保存時に暗号化", "en": "Encrypted where it is stored"},
            },
            "benefit": {"ja": "乗り継ぎの短縮", "en": "Shorter changes of train"},
        },
    )


class Approved(BaseModel):
    """What the ethics board lets it ask for."""

    review: UUID
    purposes: list[str]
    categories: list[str]
    until: datetime
    conditions: str


class PublishedProfile(BaseModel):
    """A profile with the titles of its terms."""

    kind: str
    kind_title: dict[str, str]
    identifier: Identifier
    representative: str
    contact: str
    purposes: list[str]
    purpose_titles: list[dict[str, str]]
    retention_days: int
    security: Security
    benefit: Both


class Recipient(BaseModel):
    """One recipient, as everyone may know it."""

    recipient: str
    title: dict[str, str]
    country: str
    suspended: bool = Field(description="it reads nothing")
    profile: PublishedProfile | None = Field(description="null: it may ask for nothing")
    approved: list[Approved] = Field(description="by the ethics board, as long as it holds")


class Recipients(BaseModel):
    """A page of recipients, in the order of their keys."""

    recipients: list[Recipient]
    next: str | None


@router.get("/v1/recipients", response_model=Recipients)
def read_recipients(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Who recipients are; no token is needed."""
    size = page_size(limit, PAGE_DEFAULT, request)
    with door.published(request) as connection:
        rows = recipients.select_page(connection, open_cursor(after), size + 1)
    more = rows[size - 1]["key"] if len(rows) > size else None
    body = {"recipients": [_shown(row) for row in rows[:size]], "next": next_url(request, more)}
    return door.cacheable(request, body)


@router.get("/v1/recipients/{recipient}", response_model=Recipient)
def read_recipient(request: Request, recipient: RecipientKey) -> Response:
    """One recipient; no token is needed."""
    with door.published(request) as connection:
        found = recipients.select_one(connection, recipient)
    return door.cacheable(request, _shown(found))


@router.put("/v1/recipients/{recipient}", response_model=Done)
def put_recipient(request: Request, recipient: RecipientKey, body: RecipientBody) -> Response:
    """Register a recipient, or change what is said of it: scope `write:recipients`.

    What lets it do more than before ends what the ethics board approved.
    """
    profile = None if body.profile is None else _profile(body.profile)
    return done(
        door.act(
            request,
            "write:recipients",
            lambda c, who: recipients.put(
                c, who, recipient, body.title_ja, body.title_en, body.country, profile
            ),
        )
    )


@router.delete("/v1/recipients/{recipient}", response_model=Done)
def suspend_recipient(request: Request, recipient: RecipientKey) -> Response:
    """Suspend a recipient: it reads nothing until it is registered again."""
    return done(
        door.act(request, "write:recipients", lambda c, who: recipients.suspend(c, who, recipient))
    )


def _profile(body: ProfileBody) -> Profile:
    said = body.model_dump(mode="json")
    return Profile(**{**said, "purposes": tuple(said["purposes"])})


def _shown(row: Row) -> dict[str, Any]:
    profile = row["profile"]
    if profile is not None:
        titles = [titled(PURPOSES, code) for code in profile["purposes"]]
        profile = profile | {
            "kind_title": titled(KINDS, profile["kind"]),
            "purpose_titles": titles,
        }
    return {
        "recipient": row["key"],
        "title": {"ja": row["title_ja"], "en": row["title_en"]},
        "country": row["country"],
        "suspended": row["suspended"],
        "profile": profile,
        "approved": row["approved"],
    }
