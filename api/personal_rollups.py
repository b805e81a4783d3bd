"""Rollups of personal series for a recipient whom persons let derive them: made anew each time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from api.fields import After, KnownSector, Limit, page_size, parse_moment
from api.personal import CHUNK_DEFAULT, Code, Person, asked, handed_over
from api.schemas import MOMENT, example
from consent.channels import SECONDS, STEPS_MAX, Step, rollups
from consent.personal import span_of
from consent.vocabulary import Operation
from core.errors import invalid

router = APIRouter(tags=["personal data"])

Moment = Annotated[str, Query(max_length=64, examples=[MOMENT])]


class Rollup(BaseModel):
    """One step of one series: everything in it was observed with every person's consent."""

    persons: list[str] = Field(description="whom it describes, by names made for you alone")
    thing: str = Field(description="by a name made for you alone")
    property: str
    unit: str
    step: Step
    phenomenon_time: datetime = Field(description="the beginning of its step")
    count: int
    mean: float
    minimum: float
    maximum: float

    model_config = example(
        persons=["k4wq2lyd5n3nnqzr7q2a4c6h"],
        thing="b6xv4f2m7a3zqd5tj2w8r9ye",
        property="heart-rate",
        unit="/min",
        step="hour",
        phenomenon_time=MOMENT,
        count=60,
        mean=64.5,
        minimum=58.0,
        maximum=93.0,
    )


class Rollups(BaseModel):
    """One chunk: what it was made of stands in the log under `disclosure`."""

    disclosure: str
    rollups: list[Rollup]
    next: str | None = Field(description="the next chunk, null where no more is permitted now")


@router.get("/v1/{sector}/personal/rollups", response_model=Rollups)
def read_rollups(
    request: Request,
    sector: KnownSector,
    purpose: Code,
    category: Code,
    step: Step,
    lower: Annotated[str, Query(alias="from", max_length=64, examples=[MOMENT])],
    upper: Annotated[str, Query(alias="to", max_length=64, examples=["2026-01-02T00:00:00Z"])],
    person: Person = None,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """Count, mean, minimum and maximum by step, of numbers that persons let the caller derive from.

    Only steps between `from` and `to` that are over and wholly permitted, and exactly: a grant with
    a coarser resolution permits none. Ordered by person, series, then time.
    """
    bounds = [_moment(name, text) for name, text in (("from", lower), ("to", upper))]
    if bounds[1] - bounds[0] > STEPS_MAX * timedelta(seconds=SECONDS[step.value]):
        raise invalid("to", f"at most {STEPS_MAX} steps after `from`")
    size = page_size(limit, CHUNK_DEFAULT, request)
    span = span_of(*bounds)
    page = asked(request, sector, purpose, category, span, person, Operation.DERIVE, size)
    page = replace(page, text=f"{page.text} {step.value}")
    return handed_over(request, page, after, "rollups", rollups(step))


def _moment(name: str, text: str) -> datetime:
    moment = parse_moment(name, text, "")
    if not isinstance(moment, datetime):
        raise invalid(name, "must be ISO 8601 with a zone")
    return moment.astimezone(UTC)
