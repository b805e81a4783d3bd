"""A person's own: what is held about them, sum and rows, and its erasure."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import domains
from api import problems
from api.consent import Done, done
from api.fields import NO_CONTROL, After, Limit, next_path, page_size, parse_moment
from api.observations import From, To
from consent import door, download, own
from consent import erasure as erasing
from consent.masks import Mask
from consent.receipts import Signer
from core.errors import CityError

PAGE_DEFAULT = 1_000

DOWNLOADS = {
    **download.FORMATS,
    "fhir": download.Format("observations.ndjson", domains.load("health", "portable").ndjson),
}
"""Each format by its name."""

router = APIRouter(tags=["own data"], responses=problems.documented("conflict", "too-large"))

ErasureId = Annotated[
    UUID, Path(description="yours, made at random; keep it: nothing else finds it")
]


class Erasure(BaseModel):
    """How far an erasure has come. From `at` on nobody reads anything of the person."""

    id: UUID
    at: datetime
    sigma: int
    rows_at: datetime | None = Field(description="when the last row was deleted")
    done_at: datetime | None = Field(description="when no file of the database held any more")


class Held(BaseModel):
    """One series that holds observations of the caller."""

    sector: str
    thing: str
    property: str
    kind: str
    unit: str
    category: str | None = Field(description="of personal data; null: granted to nobody at all")
    rows: int
    time_min: datetime
    time_max: datetime
    shared: bool = Field(description="whether some of it describes others too")


class Everything(BaseModel):
    """What is held about the caller, and where the rest of it is."""

    held: list[Held]
    grants: int
    disclosures: int
    claims: int


class OwnObservation(BaseModel):
    """One observation of the caller."""

    sector: str
    thing: str
    property: str
    kind: str
    unit: str
    shared: bool = Field(description="it describes others too, who are not named")
    phenomenon_time: datetime
    result: Any
    quality: int


class OwnObservations(BaseModel):
    """A page of observations: by series, then time."""

    observations: list[OwnObservation]
    next: str | None


@router.get("/v1/me", response_model=Everything)
def read_everything(request: Request) -> Response:
    """All that is held about the caller, across sectors: scope `read:own`."""
    with door.reading_own(request) as connection:
        person = door.principal_of(request).subject
        held = own.select_held(connection, person)
        counts = own.select_counts(connection, person)
    told = [{**row, "category": _category(row["sector"], row["property"])} for row in held]
    return door.current({"held": told, **counts})


@router.get("/v1/me/observations", response_model=OwnObservations)
def read_observations(
    request: Request,
    sector: Annotated[str | None, Query(max_length=64, pattern=NO_CONTROL)] = None,
    lower: From = None,
    upper: To = None,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """The observations themselves: scope `read:own`. Each reading is on record."""
    principal = door.principal_of(request)
    first, last = (parse_moment(n, t, "") or None for n, t in (("from", lower), ("to", upper)))
    asked = f"own {sector} {first} {last} {request.query_params.get('subject')}"
    mask = Mask(door.secret_of(request), f"person {principal.name}")
    size = page_size(limit, PAGE_DEFAULT, request)
    place = mask.open(after, asked) if after is not None else None
    wanted = own.Wanted(sector, first, last)  # type: ignore[arg-type]  # no default, no text
    with door.reading_own(request, sector) as connection:
        rows = own.select_rows(
            connection, door.principal_of(request).subject, wanted,
            (place[1], place[3]) if place else None, size + 1,
        )  # fmt: skip
    more = None
    if len(rows) > size:
        datastream, event = rows[size - 1]["place"]
        more = mask.seal((0, datastream, 0, event), asked)
    page = [{k: v for k, v in row.items() if k != "place"} for row in rows[:size]]
    return door.current({"observations": page, "next": next_path(request, more)})


@router.get(
    "/v1/me/download",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "the ZIP"}},
)
def read_download(
    request: Request,
    form: Annotated[Literal["json", "csv", "geoparquet", "fhir"], Query(alias="format")] = "json",
) -> StreamingResponse:
    """All that is held about the caller, as a signed ZIP: scope `read:own`; `chimata verify`."""
    # Who may not is told so before anything is sent.
    principal, keys = door.act_for(request), door.subject_keys_of(request)
    signer, gate = Signer(door.signing_key_of(request)), door.gate_of(request)
    parts = download.download(gate, principal, keys, signer, DOWNLOADS[form])
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": 'attachment; filename="chimata.zip"',
    }
    return StreamingResponse(filter(None, parts), media_type="application/zip", headers=headers)


def _category(sector: str, observed: str) -> str | None:
    """What a grant would have to name."""
    name = observed.partition("/")[0]
    known = domains.sector(sector).properties if sector in domains.names() else ()
    return next((p.category for p in known if p.name == name), None)


@router.put("/v1/me/erasure/{erasure}", response_model=Done)
def put_erasure(request: Request, erasure: ErasureId) -> Response:
    """Erase all that is held about the caller, for ever: scope `write:own`.

    Once this answers nobody reads anything of it. Rows that describe others too go with it.
    """
    keys = door.subject_keys_of(request)
    written = door.act(request, "write:own", lambda c, who: erasing.erase(c, who, erasure))
    with door.gate_of(request).working() as connection:
        erasing.destroy_key(connection, keys, erasure)
    return done(written)


@router.get("/v1/me/erasure/{erasure}", response_model=Erasure)
def read_erasure(request: Request, erasure: ErasureId) -> Response:
    """How far an erasure has come, for whoever has its id: scope `read:own`."""
    with door.own(request) as connection:
        found = erasing.select(connection, erasure)
    if found is None:
        raise CityError("not-found", f"there is no erasure {erasure}")
    return door.current(found)
