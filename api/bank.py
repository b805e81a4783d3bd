"""The information bank: what it publishes of itself, its end, and what each person says of that."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from api import problems
from api.consent import Body, Done, done
from api.fields import After, Limit, Moment, next_url, open_cursor, page_size
from api.recipients import Both, Short, Text
from api.reviews import Digest
from api.schemas import example
from consent import bank, door
from consent.bank import Choice
from consent.results import Row
from consent.reviews import Expertise

PAGE_DEFAULT = 100
ITEMS_MAX = 32

router = APIRouter(
    tags=["information bank"], responses=problems.documented("conflict", "too-large")
)

ClosingId = Annotated[
    UUID, Path(description="yours, made at random: sent again it is the same act")
]
Link = Annotated[str, Field(max_length=500, pattern=r"^https://[^\s\x00-\x1f]+$")]


class Certification(Body):
    """Of what the bank does, by whom, until when."""

    guideline: Short = Field(description="such as 情報信託機能の認定に係る指針 ver2.0")
    certifier: Short
    number: Short
    until: date
    scope: Both = Field(description="what of the business is certified, and what is not")


class Desk(Body):
    """The consultation desk (相談窓口), for persons and firms."""

    hours: Both
    address: Text
    telephone: Short | None = None
    mail: Short | None = None
    form: Link | None = None


class Terms(Body):
    """The contract with persons, word by word elsewhere: this is which one."""

    version: Short
    url: Link
    sha256: Digest


class Liability(Body):
    """What the bank answers for; to the person it answers first, whoever caused a damage."""

    rules: Both
    insurer: Short | None = None
    limit: Short | None = None


class Charter(Body):
    """What the bank says of itself."""

    name: Both
    representative: Short
    address: Text
    certification: Certification | None = Field(None, description="null: it is not certified")
    desk: Desk
    terms: Terms
    criteria: Both = Field(description="by which it judges recipients and purposes, and how")
    after_withdrawal: Both = Field(description="what becomes of data that recipients have already")
    portability: Both = Field(description="whether and how a person takes the data elsewhere")
    liability: Liability

    model_config = example(
        name={"ja": "港町情報銀行", "en": "Harbour Information Bank"},
        representative="代表 森 葵",
        address="神奈川県横浜市中区港町1-1",
        certification=None,
        desk={
            "hours": {"ja": "平日9時から17時", "en": "Weekdays 9:00 to 17:00"},
            "address": "神奈川県横浜市中区港町1-1",
            "telephone": "045-000-0000",
        },
        terms={
            "version": "2026-10",
            "url": "https://bank.example/terms/2026-10",
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        criteria={
            "ja": "データ倫理審査会が承認した提供先と目的に限る",
            "en": "Recipients and purposes that the ethics board approved, no others",
        },
        after_withdrawal={
            "ja": "撤回後は提供しない。提供済みのデータは契約により消去を求める",
            "en": "Nothing is provided after; by contract, what was is to be erased",
        },
        portability={
            "ja": "署名付きのファイルでいつでも持ち出せる",
            "en": "As signed files, at any time",
        },
        liability={
            "rules": {
                "ja": "提供先に原因がある損害も、まず当行が賠償する",
                "en": "We pay first, also where a recipient caused the damage",
            }
        },
    )


class Successor(Body):
    """Who takes over for those who say so."""

    name: Both
    contact: Text


class ClosingBody(Body):
    """The end of the business: who takes over, what is handed over, how persons take theirs."""

    ends_at: Moment = Field(description="until then persons may choose and take their data")
    reason: Both
    successor: Successor | None = Field(None, description="null: nobody, all is erased")
    handed_over: list[Short] = Field([], max_length=ITEMS_MAX)
    export_plan: Both
    notice: Digest = Field(description="SHA-256 of what persons are told")

    model_config = example(
        ends_at="2027-09-30T00:00:00+09:00",
        reason={"ja": "事業の統合", "en": "A merger"},
        successor={
            "name": {"ja": "みなと情報信託", "en": "Minato Data Trust"},
            "contact": "045-000-0001",
        },
        handed_over=["本人が与えた許可", "提供の記録"],
        export_plan={"ja": "終了日まで取得できる", "en": "To be had until the end"},
        notice="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    )


class ChoiceBody(Body):
    """What is to become of the caller's data; nothing said: nothing goes to the successor."""

    choice: Choice

    model_config = example(choice="transfer")


class Seat(BaseModel):
    """A member of the ethics board."""

    name: dict[str, str]
    field: Expertise
    outside: bool


class Closing(ClosingBody):
    """The end of the business as it stands."""

    id: UUID
    at: datetime
    grants_ended: int = Field(description="those that the bank's delegates had given")


class Bank(BaseModel):
    """All that the bank publishes."""

    charter: Charter | None = Field(description="null: nothing was published")
    since: datetime | None = Field(description="when it last changed")
    board: list[Seat]
    recipients: int = Field(description="who they are: /v1/recipients")
    approved: int = Field(description="reviews whose approval holds")
    refused: int
    incidents: int
    closing: Closing | None


class Chosen(BaseModel):
    """What the caller said of the handover; null: nothing."""

    choice: Choice | None
    at: datetime | None


class StandingGrant(BaseModel):
    """A grant of a person who goes to the successor."""

    grant: UUID
    recipient: str
    purpose: str
    category: str
    operation: str


class HandedOver(BaseModel):
    """A person who goes to the successor."""

    person: str
    at: datetime
    grants: list[StandingGrant]


class Handover(BaseModel):
    """How many persons chose what, and a page of those who go to the successor."""

    counts: dict[Choice, int]
    persons: list[HandedOver]
    next: str | None


@router.get("/v1/bank", response_model=Bank)
def read_bank(request: Request) -> Response:
    """Name, certification, desk, board, terms, liability, and whether it closes; for everyone."""
    with door.published(request) as connection:
        found = bank.select_bank(connection)
    charter, closing = found["charter"], found["closing"]
    body = {
        "charter": charter and charter["body"],
        "since": charter and charter["at"],
        "board": [_seat(row) for row in found["board"]],
        **found["counts"],
        "closing": closing and _closing(closing),
    }
    return door.cacheable(request, body)


@router.put("/v1/bank", response_model=Done)
def put_charter(request: Request, body: Charter) -> Response:
    """Publish what the bank says of itself; what it said before stays in the log. `write:bank`."""
    said = body.model_dump(mode="json")
    return done(door.act(request, "write:bank", lambda c, who: bank.put_charter(c, who, said)))


@router.put("/v1/bank/closing/{closing}", response_model=Done)
def close_bank(request: Request, closing: ClosingId, body: ClosingBody) -> Response:
    """Close the bank: what its delegates granted ends, nobody may ask any more. `write:bank`.

    What persons granted themselves stands. There is no way back: open another bank.
    """
    said = body.model_dump(mode="json")
    return done(door.act(request, "write:bank", lambda c, who: bank.close(c, who, closing, said)))


@router.get("/v1/bank/handover", response_model=Handover)
def read_handover(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Who goes to the successor, with the grants that stand: scope `write:bank`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    with door.own(request, "write:bank") as connection:
        rows = bank.select_handed_over(connection, open_cursor(after), size + 1)
        counts = bank.select_choices(connection)
    more = rows[size - 1]["person"] if len(rows) > size else None
    persons = [{name: row[name] for name in HandedOver.model_fields} for row in rows[:size]]
    return door.current({"counts": counts, "persons": persons, "next": next_url(request, more)})


@router.get("/v1/me/handover", response_model=Chosen)
def read_choice(request: Request) -> Response:
    """What the caller said of the handover: scope `read:own`."""
    with door.own(request) as connection:
        found = bank.select_choice(connection, door.principal_of(request)) or {}
    return door.current({"choice": found.get("choice"), "at": found.get("at")})


@router.put("/v1/me/handover", response_model=Done)
def put_choice(request: Request, body: ChoiceBody) -> Response:
    """Say what is to become of one's data when the bank ends; another word replaces it."""
    return done(door.act(request, "write:own", lambda c, who: bank.choose(c, who, body.choice)))


def _seat(row: Row) -> dict[str, Any]:
    name = {"ja": row["name_ja"], "en": row["name_en"]}
    return {"name": name, "field": row["field"], "outside": row["outside"]}


def _closing(row: Row) -> dict[str, Any]:
    said = {name: value for name, value in row["body"].items() if name != "closing"}
    return said | {name: row[name] for name in ("id", "at", "grants_ended")}
