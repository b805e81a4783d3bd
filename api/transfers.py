"""Cross-border files: what a person is told before data goes abroad, and its periodic checks."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.consent import Body, Done, done
from api.fields import Moment
from api.recipients import RecipientKey
from api.schemas import Titles
from consent import door, transfers
from consent.transfers import Check, File

router = APIRouter(tags=["cross-border"], responses=problems.documented("conflict", "too-large"))

CountryCode = Annotated[str, Path(pattern=r"^[A-Z]{2}$", description="ISO 3166-1", examples=["US"])]
CheckId = Annotated[UUID, Path(description="yours, made at random")]
# Tabs and new lines are of a text; other control characters, and null, are of none.
Text = Annotated[
    str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
]


class FileBody(Body):
    """A country's regime, or a recipient's measures there; what is not known is said to be so."""

    text_ja: Text
    text_en: Text
    source: Text = Field(description="whence it is known: documents, addresses, dates")
    checked_at: Moment
    check_by: Moment = Field(description="when the next check is due: within a year")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "text_ja": "包括的な連邦法はなく、分野ごとの法律がある。CBPRに参加。",
                    "text_en": "No general federal law; laws by sector. A member of CBPR.",
                    "source": "個人情報保護委員会の外国制度調査",
                    "checked_at": "2026-10-01T00:00:00+09:00",
                    "check_by": "2027-10-01T00:00:00+09:00",
                }
            ]
        },
    )


class CheckBody(Body):
    """Whether all is as the file says."""

    passed: bool
    note: Text = Field(description="what was looked at, and what was found")
    checked_at: Moment
    check_by: Moment = Field(description="when the next one is due: within a year")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "passed": False,
                    "note": "The recipient did not answer twice.",
                    "checked_at": "2026-11-01T00:00:00+09:00",
                    "check_by": "2027-11-01T00:00:00+09:00",
                }
            ]
        },
    )


class Checked(BaseModel):
    """One periodic check."""

    passed: bool
    note: str
    checked_at: datetime
    check_by: datetime


class Told(BaseModel):
    """One file as it stands, and its checks, the newest first."""

    text: Titles
    source: str
    checked_at: datetime
    check_by: datetime
    passed: bool
    checks: list[Checked]


class Notice(BaseModel):
    """Where a recipient keeps what it gets, and what protects it there (Art. 28(2))."""

    recipient: str
    title: Titles
    country: str
    basis: Literal["domestic", "designated", "consent"] = Field(
        description="designated: a country whose protection is held to be as good as Japan's"
    )
    designated_by: str | None
    regime: Told | None = Field(description="of the country; null: not needed, or there is none")
    measures: Told | None = Field(description="of the recipient; null: not needed, or none")
    open: bool = Field(description="whether anything may go there now")


@router.put("/v1/consent/countries/{country}", response_model=Done)
def put_country(request: Request, country: CountryCode, body: FileBody) -> Response:
    """Write the file of a country's regime: scope `write:transfers`."""
    return _file(request, country, None, body)


@router.put("/v1/consent/countries/{country}/recipients/{recipient}", response_model=Done)
def put_measures(
    request: Request, country: CountryCode, recipient: RecipientKey, body: FileBody
) -> Response:
    """Write the file of a recipient's measures in a country: scope `write:transfers`."""
    return _file(request, country, recipient, body)


@router.put("/v1/consent/countries/{country}/checks/{check}", response_model=Done)
def put_country_check(
    request: Request, country: CountryCode, check: CheckId, body: CheckBody
) -> Response:
    """Check a country's regime: a failed check shuts all that is there, a passed one restores."""
    return _check(request, check, country, None, body)


@router.put(
    "/v1/consent/countries/{country}/recipients/{recipient}/checks/{check}", response_model=Done
)
def put_measures_check(
    request: Request,
    country: CountryCode,
    recipient: RecipientKey,
    check: CheckId,
    body: CheckBody,
) -> Response:
    """Check a recipient's measures; one that is not made by the day it is due counts as failed."""
    return _check(request, check, country, recipient, body)


@router.get("/v1/consent/notices/{recipient}/transfer", response_model=Notice)
def read_notice(request: Request, recipient: RecipientKey) -> Response:
    """What to read before granting anything to a recipient abroad: scope `read:own`."""
    with door.own(request) as connection:
        return door.current(transfers.notice(connection, recipient))


def _file(request: Request, country: str, recipient: str | None, body: FileBody) -> Response:
    said = File(**body.model_dump())
    return done(
        door.act(
            request,
            "write:transfers",
            lambda c, who: transfers.put_file(c, who, country, recipient, said),
        )
    )


def _check(
    request: Request, check: UUID, country: str, recipient: str | None, body: CheckBody
) -> Response:
    said = Check(**body.model_dump())
    return done(
        door.act(
            request,
            "write:transfers",
            lambda c, who: transfers.put_check(c, who, check, country, recipient, said),
        )
    )
