"""What a person states once about who may have what: statements, and presets of them."""

from datetime import UTC
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.consent import COUNTRIES_MAX, Body, Code, Country, Done, Resolution, done
from consent import door, preferences, reasons
from consent.levels import LEVELS, NUMBERS
from consent.log import Session, Written
from consent.matching import Statement, Verdict
from consent.presets import PRESETS
from consent.results import Row
from consent.vocabulary import Operation
from core.tokens import Principal

CODES_MAX = 64

router = APIRouter(tags=["preferences"], responses=problems.documented("conflict", "too-large"))

PreferenceId = Annotated[UUID, Path(description="yours, made at random: sent again it is the same")]
Codes = Annotated[list[Code] | None, Field(min_length=1, max_length=CODES_MAX)]
PresetName = Literal["ask-me", "care-and-public-benefit", "anonymous-only", "nothing"]


class Words(BaseModel):
    """A text in both languages."""

    ja: str
    en: str


class PreferenceBody(Body):
    """One statement. What is left out: every purpose, every category, everybody, everywhere.

    Special care-required data, and what else is marked `explicit`, an `allow` must name.
    """

    verdict: Verdict
    purposes: Codes = Field(None, description="with all below them")
    categories: Codes = Field(None, description="with all below them")
    kinds: Codes = Field(None, description="of recipient, with all below them")
    resolution: Resolution = Field("exact", description="the most exact that may be shown")
    operations: list[Operation] | None = Field(None, min_length=1, max_length=len(Operation))
    countries: list[Country] | None = Field(None, min_length=1, max_length=COUNTRIES_MAX)
    otherwise: Literal["ask", "refuse"] = Field(
        "refuse", description="where the operation or the country is another one"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "verdict": "allow",
                    "purposes": ["dpv:PublicBenefit"],
                    "categories": ["pd:Location"],
                    "kinds": ["dpv:GovernmentalOrganisation"],
                    "resolution": "hour",
                    "countries": ["JP"],
                }
            ]
        },
    )

    def statement(self, preference: UUID) -> Statement:
        """What it says."""
        return Statement(
            preference,
            self.verdict,
            _codes(self.purposes),
            _codes(self.categories),
            _codes(self.kinds),
            NUMBERS[self.resolution],
            None if self.operations is None else tuple(sorted(set(self.operations))),
            _codes(self.countries),
            Verdict(self.otherwise),
        )


class Stated(Done):
    """A statement as it stands in the log."""

    tighter: bool = Field(description="it permits no more than before, whatever else is stated")


class Preference(BaseModel):
    """One statement as it stands."""

    id: UUID
    verdict: Verdict
    purposes: list[str] | None
    categories: list[str] | None
    kinds: list[str] | None
    resolution: Resolution
    operations: list[Operation] | None
    countries: list[str] | None
    otherwise: Verdict
    preset: str | None = Field(description="the preset that it is part of")
    text: Words
    sigma: int


class Preferences(BaseModel):
    """All that a person states, and the preset that some of it is part of."""

    preset: str
    preferences: list[Preference]


class PresetBody(Body):
    """The name of a preset."""

    preset: PresetName

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"preset": "care-and-public-benefit"}]}
    )


class Preset(BaseModel):
    """What a preset means."""

    name: str
    title: Words
    meaning: Words
    statements: list[Words]


class Presets(BaseModel):
    """Every preset; the first one is what holds for who states nothing."""

    presets: list[Preset]


@router.get("/v1/consent/presets", response_model=Presets)
def read_presets(request: Request) -> Response:
    """What a person can choose without thinking about each statement."""
    shown = [
        {
            "name": name,
            "title": preset.title,
            "meaning": preset.meaning,
            "statements": [reasons.describe(each) for each in preset.statements],
        }
        for name, preset in PRESETS.items()
    ]
    return door.cacheable(request, {"presets": shown})


@router.get("/v1/me/preferences", response_model=Preferences)
def read_preferences(request: Request) -> Response:
    """What the caller states: scope `read:own`."""
    with door.own(request) as connection:
        preset, rows = preferences.select_own(connection, door.principal_of(request))
    return door.current({"preset": preset, "preferences": [_shown(row) for row in rows]})


@router.put("/v1/me/preferences/{preference}", response_model=Stated)
def put_preference(request: Request, preference: PreferenceId, body: PreferenceBody) -> Response:
    """State something, or something else in its place: scope `write:own`.

    What was granted on the caller's standing word and is no longer allowed ends with it.
    """
    said = body.statement(preference)
    tighter: list[bool] = []

    def put(connection: Session, person: Principal) -> Written:
        written, is_tighter = preferences.put_preference(connection, person, said)
        tighter.append(is_tighter)
        return written

    written = door.act(request, "write:own", put)
    at = written.at.astimezone(UTC)
    return door.current({"sigma": written.sigma, "at": at, "tighter": tighter[-1]})


@router.delete("/v1/me/preferences/{preference}", response_model=Done)
def delete_preference(request: Request, preference: PreferenceId) -> Response:
    """Take a statement back: scope `write:own`."""
    return done(
        door.act(
            request, "write:own", lambda c, who: preferences.delete_preference(c, who, preference)
        )
    )


@router.put("/v1/me/preset", response_model=Done)
def put_preset(request: Request, body: PresetBody) -> Response:
    """Choose a preset in place of the one of before; statements beside it stay."""
    return done(
        door.act(request, "write:own", lambda c, who: preferences.put_preset(c, who, body.preset))
    )


def _codes(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(set(values)))


def _shown(row: Row) -> dict[str, Any]:
    names = (
        "id", "verdict", "purposes", "categories", "kinds", "operations", "countries", "otherwise",
        "preset", "sigma",
    )  # fmt: skip
    return {
        **{name: row[name] for name in names},
        "resolution": LEVELS[row["level"]].name,
        "text": reasons.describe(preferences.statement_of(row)),
    }
