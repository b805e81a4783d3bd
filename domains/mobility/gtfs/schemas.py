"""Response models of timetables: what the operator of a feed reads."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """One kind of problem: how often, and where it was first seen."""

    code: str
    severity: Literal["error", "warning", "note"]
    count: int
    message_ja: str
    message_en: str
    examples: list[dict[str, Any]] = Field(
        description="At most 20: `file`, `row` (1 is the header), `field`, `id` or value"
    )


class Quality(BaseModel):
    """What the import of one version found."""

    feed: str
    version: int
    imported_at: datetime
    valid_from: date | None = Field(description="null: nothing runs")
    valid_to: date | None
    counts: dict[str, int] = Field(description="Rows stored, by file")
    refused: dict[str, int] = Field(description="Rows that could not be stored, by file")
    score: int = Field(ge=0, le=100, description="100 less what each kind of problem takes")
    errors: int
    warnings: int
    notes: int
    problems: list[Problem]
