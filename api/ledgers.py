"""Ledgers that are only appended to: what persons got for their data, what went wrong with it."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field, model_validator

from api import problems
from api.consent import Body, Done, Key, done
from api.fields import NO_CONTROL, After, Limit, Moment, open_place, page_of, page_size
from api.recipients import RecipientKey, Short, Text
from api.schemas import example
from consent import benefits, breaches, door, incidents
from consent.benefits import Benefit
from consent.breaches import Ground
from consent.incidents import Incident, Step
from consent.masks import Mask
from consent.results import Row
from core.errors import CityError, invalid
from core.tokens import Role

PAGE_DEFAULT = 100
NAMELESS = "nothing that tells who it is: an erasure leaves it"
PERSONS_MAX = 1000
"""Named one by one; those whom a record of deliveries tells are not counted."""

router = APIRouter(
    tags=["information bank"], responses=problems.documented("conflict", "too-large")
)

Name = Annotated[UUID, Path(description="yours, made at random: sent again it is the same entry")]
PersonKey = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL)]
Amount = Annotated[Decimal, Field(gt=0, max_digits=15, decimal_places=3)]


class BenefitBody(Body):
    """What was given: to a person whom the recipient knows by a name, or for a grant."""

    person: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z2-7]*$")] | None = (
        Field(None, description="a recipient names it as `persons` of its answers do")
    )
    grant: UUID | None = Field(None, description="an operator names the grant")
    request: UUID | None = Field(None, description="in which it was promised")
    kind: benefits.Kind
    amount: Amount | None = None
    unit: Short | None = Field(None, description="of the amount: JPY, points")
    text: Text = Field(description=NAMELESS)
    day: date

    model_config = example(
        grant="0d7e3b1c-52d1-4d86-8c0f-3f2a1f1e9b11",
        kind="points",
        amount="120",
        unit="港町ポイント",
        text="9月分の移動データの提供に対して",
        day="2026-10-01",
    )

    @model_validator(mode="after")
    def is_for_one(self) -> Self:
        """One person; an amount has a unit."""
        if (self.person is None) == (self.grant is None):
            raise ValueError("name `person` or `grant`, one of the two")
        if (self.amount is None) != (self.unit is None):
            raise ValueError("an amount has a unit, and a unit an amount")
        return self


class OwnBenefit(BaseModel):
    """What a recipient gave the caller."""

    id: UUID
    at: datetime
    recipient: str
    title: dict[str, str]
    grant: UUID | None
    request: UUID | None
    kind: benefits.Kind
    amount: str | None
    unit: str | None
    text: str
    day: date


class OwnBenefits(BaseModel):
    """A page of benefits, the newest first."""

    benefits: list[OwnBenefit]
    next: str | None


class Items(Body):
    """What a report tells, as Rule 8(1) lists it; the person is told five of these (Rule 10)."""

    outline: Text | None = None
    data: Text | None = None
    persons: Text | None = None
    cause: Text | None = None
    secondary: Text | None = None
    response: Text | None = None
    publication: Text | None = None
    prevention: Text | None = None
    other: Text | None = None


class IncidentBody(Body):
    """A leak, loss or damage, as far as it is known; concerned is who is named, and whoever's data
    the recipient got in that time."""

    known_at: Moment
    happened_from: Moment
    happened_to: Moment
    recipient: Key | None = Field(None, description="at whom; left out: at the bank")
    grounds: list[Ground] = Field(
        [], max_length=4, description="why it is to be reported (Rule 7); `many` is counted, too"
    )
    persons: list[PersonKey] = Field([], max_length=PERSONS_MAX)
    items: Items

    model_config = example(
        known_at="2026-10-05T10:00:00+09:00",
        happened_from="2026-10-01T00:00:00+09:00",
        happened_to="2026-10-05T00:00:00+09:00",
        recipient="yui-mobility",
        grounds=["wrongful"],
        items={"outline": "提供先のサーバーへの不正アクセス", "data": "移動の軌跡"},
    )


class StepBody(Body):
    """What was done about it."""

    step: Step
    items: Items | None = Field(None, description="of a report; a final one has all of them")
    text: Text | None = Field(None, description="of another step")

    model_config = example(step="told", text="本人に郵送で通知した")


class PaymentBody(Body):
    """What the bank paid to someone whom it concerns, whoever caused it."""

    person: PersonKey
    amount: Amount
    unit: Short
    text: Text = Field(description=NAMELESS)

    model_config = example(person="ai", amount="5000", unit="JPY", text="お詫びと損害の賠償")


class Reports(BaseModel):
    """When the authority's reports are due (before these times)."""

    goal: datetime = Field(description="the third day, of three to five for the preliminary one")
    preliminary: datetime
    final: datetime


class Taken(BaseModel):
    """One step."""

    id: UUID
    at: datetime
    step: Step
    items: Items | None
    text: str | None


class Paid(BaseModel):
    """All payments in one unit."""

    unit: str
    amount: str
    payments: int


class OneIncident(BaseModel):
    """An incident with all that was done about it."""

    id: UUID
    at: datetime
    known_at: datetime
    recipient: str | None
    happened_from: datetime
    happened_to: datetime
    grounds: list[Ground]
    persons: int
    items: Items
    due: Reports | None = Field(description="null: it need not be reported")
    overdue: list[str]
    steps: list[Taken]
    compensation: list[Paid]


class Incidents(BaseModel):
    """A page of incidents, the newest first."""

    incidents: list[OneIncident]
    next: str | None


class Payment(BaseModel):
    """One payment to the caller."""

    id: UUID
    at: datetime
    amount: str
    unit: str
    text: str


class OwnIncident(BaseModel):
    """An incident that concerns the caller."""

    id: UUID
    at: datetime
    known_at: datetime
    recipient: str | None
    title: dict[str, str] | None
    happened_from: datetime
    happened_to: datetime
    items: dict[str, str] = Field(description="outline, data, cause, secondary damage, other")
    told_at: datetime | None = Field(description="when persons were told, besides here")
    compensation: list[Payment]


class OwnIncidents(BaseModel):
    """A page of incidents, the newest first. The bank answers for each: /v1/bank says how."""

    incidents: list[OwnIncident]
    next: str | None


@router.put("/v1/recipients/{recipient}/benefits/{benefit}", response_model=Done)
def put_benefit(
    request: Request, recipient: RecipientKey, benefit: Name, body: BenefitBody
) -> Response:
    """Enter what a recipient gave a person: scope `write:benefits`; a recipient's own alone."""
    who = door.principal_of(request)
    subject = None
    if who.role is Role.RECIPIENT and who.name != recipient:
        raise CityError("forbidden", "a recipient enters what it gave itself")
    if (who.role is Role.RECIPIENT) != (body.person is not None) and who.role is not None:
        raise invalid("person", "recipients name a person, operators a grant")
    if body.person is not None and who.role is not None:
        subject = Mask(door.secret_of(request), recipient).person_of(body.person)
    said = body.model_dump(exclude={"person", "grant"})
    given = Benefit(**said, grant_id=body.grant)
    return done(
        door.act(
            request,
            "write:benefits",
            lambda c, by: benefits.put(c, by, benefit, recipient, subject, given),
        )
    )


@router.get("/v1/me/benefits", response_model=OwnBenefits)
def read_benefits(request: Request, limit: Limit = None, after: After = None) -> Response:
    """What recipients gave the caller: scope `read:own`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = open_place(after)
    with door.own(request) as connection:
        who = door.principal_of(request)
        rows = benefits.select_of_person(connection, who, before, size + 1)
    page, more = page_of(request, rows, size)
    return door.current({"benefits": [_benefit(row) for row in page], "next": more})


@router.put("/v1/bank/incidents/{incident}", response_model=Done)
def put_incident(request: Request, incident: Name, body: IncidentBody) -> Response:
    """Enter an incident with those whom it concerns: scope `write:bank`."""
    found = Incident(
        known_at=body.known_at,
        happened_from=body.happened_from,
        happened_to=body.happened_to,
        recipient=body.recipient,
        grounds=tuple(body.grounds),
        persons=tuple(body.persons),
        body=_json(body),
    )
    return done(
        door.act(request, "write:bank", lambda c, who: incidents.put(c, who, incident, found))
    )


@router.put("/v1/bank/incidents/{incident}/steps/{step}", response_model=Done)
def put_step(request: Request, incident: Name, step: Name, body: StepBody) -> Response:
    """Enter what was done about an incident: scope `write:bank`."""
    said = _json(body)
    kind = said.pop("step")
    return done(
        door.act(
            request,
            "write:bank",
            lambda c, who: incidents.put_step(c, who, incident, step, kind, said),
        )
    )


@router.put("/v1/bank/incidents/{incident}/payments/{payment}", response_model=Done)
def put_payment(request: Request, incident: Name, payment: Name, body: PaymentBody) -> Response:
    """Enter what the bank paid to someone whom it concerns: scope `write:bank`."""
    return done(
        door.act(
            request,
            "write:bank",
            lambda c, who: incidents.put_compensation(
                c, who, incident, payment, body.person, body.amount, body.unit, body.text
            ),
        )
    )


@router.get("/v1/bank/incidents", response_model=Incidents)
def read_incidents(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Incidents, what is due and what is late: scope `read:bank`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = open_place(after)
    with door.own(request, "read:bank") as connection:
        rows = incidents.select_page(connection, before, size + 1)
    page, more = page_of(request, rows, size)
    return door.current({"incidents": [_incident(row) for row in page], "next": more})


@router.get("/v1/me/incidents", response_model=OwnIncidents)
def read_own_incidents(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Incidents that concern the caller, and what was paid: scope `read:own`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = open_place(after)
    with door.own(request) as connection:
        who = door.principal_of(request)
        rows = incidents.select_of_person(connection, who, before, size + 1)
    page, more = page_of(request, rows, size)
    return door.current({"incidents": [_own_incident(row) for row in page], "next": more})


def _json(body: Body) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude_none=True)


def _titles(row: Row) -> dict[str, str] | None:
    return {"ja": row["title_ja"], "en": row["title_en"]} if row["recipient"] else None


def _benefit(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in OwnBenefit.model_fields if name not in ("title", "grant")}
    amount = None if row["amount"] is None else str(row["amount"])
    return shown | {"title": _titles(row), "grant": row["grant_id"], "amount": amount}


def _step(step: Row) -> dict[str, Any]:
    body = step["body"]
    kept = {name: step[name] for name in ("id", "at", "step")}
    return {**kept, "items": body.get("items"), "text": body.get("text")}


def _incident(row: Row) -> dict[str, Any]:
    why = breaches.grounds(row["grounds"], row["persons"])
    due = breaches.due(row["known_at"], why)
    reported = {step["step"] for step in row["steps"]}
    names = set(OneIncident.model_fields) - {"grounds", "due", "overdue", "steps"}
    return {
        **{name: row[name] for name in names},
        "grounds": why,
        "due": due and {name: getattr(due, name).astimezone(UTC) for name in Reports.model_fields},
        "overdue": breaches.overdue(due, reported, row["now"]),
        "steps": [_step(step) for step in row["steps"]],
    }


def _own_incident(row: Row) -> dict[str, Any]:
    """The newest of what is known, of what persons are told."""
    known = dict(row["items"])
    for step in row["steps"]:
        known |= step["body"].get("items", {})
    told = [step["at"] for step in row["steps"] if step["step"] == "told"]
    names = set(OwnIncident.model_fields) - {"title", "items", "told_at"}
    return {
        **{name: row[name] for name in names},
        "title": _titles(row),
        "items": {name: known[name] for name in breaches.TOLD if name in known},
        "told_at": told[0] if told else None,
    }
