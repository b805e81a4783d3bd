"""Response models of the signals sector's own words."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from domains.signals.wire import PHASE_STATES

EXAMPLE: dict[str, JsonValue] = {
    "intersection": "8804",
    "as_of": "2026-01-01T00:00:00.700000Z",
    "valid_until": "2026-01-01T00:00:02.500000Z",
    "clock_skew_seconds": 0.1,
    "groups": [
        {
            "signal_group": 2,
            "state": "protected-Movement-Allowed",
            "since": "2025-12-31T23:59:48.400000Z",
            "minimum_end_time": "2026-01-01T00:00:12Z",
            "maximum_end_time": "2026-01-01T00:00:31Z",
            "valid_until": "2026-01-01T00:00:02.500000Z",
        }
    ],
}


class SignalGroup(BaseModel):
    """What one signal group shows; times are UTC by the receiver's clock."""

    signal_group: int = Field(ge=0, le=255)
    state: str = Field(description=f"unknown, or SAE J2735: {', '.join(PHASE_STATES)}")
    since: datetime | None = Field(description="time of the first frame known to have shown it")
    minimum_end_time: datetime | None = Field(description="the state ends no earlier")
    maximum_end_time: datetime | None = Field(description="the state ends no later")
    valid_until: datetime | None = Field(description="do not rely on the state from then on")


class Spat(BaseModel):
    """The current state of an intersection; never to be cached, nor used after `valid_until`."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    intersection: str
    as_of: datetime = Field(description="when this was answered")
    valid_until: datetime | None = Field(description="2 s after the last frame; null: unknown")
    clock_skew_seconds: float | None = Field(
        description="receiver's clock less the gateway's, at the last frame"
    )
    groups: list[SignalGroup]
