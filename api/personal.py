"""Personal observations for a recipient: what live grants permit, chunk by chunk."""

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from api.fields import NO_CONTROL, After, KnownSector, Limit, next_path, page_size, parse_moment
from api.observations import From, To
from api.personal_handover import HandedOver, leased
from api.schemas import MOMENT, example
from consent import door
from consent.gate import Gate, Lease
from consent.masks import Mask
from consent.personal import PAGE, Chunk, Question, Span, span_of
from consent.personal import Query as Reading
from consent.results import Row
from consent.vocabulary import Operation
from core.sector import Sector
from core.tokens import Principal

CHUNK_DEFAULT = 1000

router = APIRouter(tags=["personal data"])

Code = Annotated[str, Query(min_length=1, max_length=128, pattern=NO_CONTROL)]

Person = Annotated[
    str | None,
    Query(
        description="of one person alone, by the name that you know from `persons`",
        min_length=1,
        max_length=64,
        pattern=r"^[a-z2-7]*$",
    ),
]
RowOperation = Annotated[
    Literal[Operation.READ, Operation.RESHARE],
    Query(description="a grant is for one operation; rows leave by no grant to derive"),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks what, and the names that are made for it."""

    gate: Gate
    principal: Principal
    question: Question
    mask: Mask
    text: str
    """What cursors are sealed with: they go on with the same question alone."""

    def named(self, rows: list[Row]) -> list[Row]:
        """A chunk's rows, put under the recipient's own names, in no order of the persons' own."""
        for (persons, thing), alike in groupby(rows, itemgetter("persons", "thing")):
            whose, what = sorted(map(self.mask.person, persons)), self.mask.thing(thing)
            for row in alike:  # in place: to copy each took a third as long as to read it
                row["persons"], row["thing"] = whose, what
        return rows


def asked(
    request: Request,
    sector: Sector,
    purpose: str,
    category: str,
    span: Span,
    person: str | None,
    operation: Operation = Operation.READ,
    limit: int = 0,
) -> Asked:
    """A question of this request's caller; CityError `invalid` for a name that is no person's."""
    principal = door.principal_of(request)
    mask = Mask(door.secret_of(request), principal.name)
    about = mask.person_of(person) if person is not None else None
    text = f"{sector.name} {purpose} {category} {operation.value} {span} {person}"
    question = Question(sector, purpose, category, operation, span, limit, None, about)
    return Asked(door.gate_of(request), principal, question, mask, text)


class PersonalObservation(BaseModel):
    """One observation, as exact as every person in it permits."""

    persons: list[str] = Field(description="whom it describes, by names made for you alone")
    thing: str = Field(description="by a name made for you alone")
    property: str
    unit: str
    phenomenon_time: datetime = Field(description="the beginning of its step of `resolution`")
    result: Any
    quality: int
    resolution: str

    model_config = example(
        persons=["k4wq2lyd5n3nnqzr7q2a4c6h"],
        thing="b6xv4f2m7a3zqd5tj2w8r9ye",
        property="heart-rate",
        unit="/min",
        phenomenon_time=MOMENT,
        result=61.0,
        quality=0,
        resolution="minute",
    )


class Disclosure(BaseModel):
    """One chunk: what was delivered stands in the log under `disclosure`."""

    disclosure: str
    observations: list[PersonalObservation]
    next: str | None = Field(description="the next chunk, null where no more is permitted now")


@router.get("/v1/{sector}/personal/observations", response_model=Disclosure)
def read_personal(
    request: Request,
    sector: KnownSector,
    purpose: Code,
    category: Code,
    lower: From = None,
    upper: To = None,
    operation: RowOperation = Operation.READ,
    person: Person = None,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What persons granted to the caller: scope `read:personal`, a recipient's token.

    Ordered by person, series, then time. An observation that is not permitted does not exist here.
    """
    span = span_of(parse_moment("from", lower, ""), parse_moment("to", upper, ""))
    size = page_size(limit, CHUNK_DEFAULT, request)
    page = asked(request, sector, purpose, category, span, person, operation, size)
    return handed_over(request, page, after, "observations")


def handed_over(
    request: Request, page: Asked, after: str | None, name: str, query: Reading = PAGE
) -> Response:
    """One page of an answer, with its rows under `name`."""
    place = page.mask.open(after, page.text) if after is not None else None
    question = replace(page.question, after=place)

    def body(chunk: Chunk) -> bytes:
        cursor = page.mask.seal(chunk.more, page.text) if chunk.more else None
        return door.encode(
            {
                "disclosure": str(chunk.decision),
                name: page.named(chunk.rows),
                "next": next_path(request, cursor),
            }
        )

    def read() -> tuple[bytes, Lease]:
        encoded, _, lease = leased(page.gate, page.principal, question, body, query)
        return encoded, lease

    return HandedOver(read)
