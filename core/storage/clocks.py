"""Gateways' clocks, judged by the shortest delay of a while: queueing lengthens a delay, no more.

A sample is received_at - newest phenomenon_time of one message. As in NTP's clock filter (RFC 5905,
section 10) the smallest of a window of ten minutes says most of the clock, since it waited least.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from psycopg import Connection

from core.clock import to_datetime

Session = Connection[tuple[Any, ...]]

SLOTS = 10
"""Minutes of the window, and rows that a gateway has at most."""
SAMPLES_MIN = 5
TOLERANCE_SECONDS = 2.0
"""What a clock may seem to be off before it is told: reading and sending take that long."""
BELIEVED_SECONDS_MAX = 900.0
"""A longer delay is an old recording or an outbox being emptied, not a clock."""

UPSERT_HEARD = """
INSERT INTO gateway_heard AS h (gateway, first_seen, last_seen)
SELECT * FROM unnest(%(gateway)s::text[], %(first_at)s::timestamptz[], %(last_at)s::timestamptz[])
ORDER BY 1
ON CONFLICT (gateway) DO UPDATE SET first_seen = least(h.first_seen, excluded.first_seen),
  last_seen = greatest(h.last_seen, excluded.last_seen)
"""
# Other processes hear the same gateways: the shortest delay of all, the medians by their weight.
UPSERT_CLOCK = """
INSERT INTO gateway_clock AS c (gateway, slot, minute, delay_min, delay_median, samples)
SELECT * FROM unnest(%(gateway)s::text[], %(slot)s::smallint[], %(minute)s::timestamptz[],
                     %(delay_min)s::float8[], %(delay_median)s::float8[], %(samples)s::bigint[])
ORDER BY 1
ON CONFLICT (gateway, slot) DO UPDATE SET
  minute = excluded.minute,
  delay_min = CASE WHEN c.minute = excluded.minute THEN least(c.delay_min, excluded.delay_min)
                   ELSE excluded.delay_min END,
  delay_median = CASE WHEN c.minute = excluded.minute
    THEN (c.delay_median * c.samples + excluded.delay_median * excluded.samples)
         / (c.samples + excluded.samples)
    ELSE excluded.delay_median END,
  samples = CASE WHEN c.minute = excluded.minute THEN c.samples ELSE 0 END + excluded.samples
WHERE c.minute <= excluded.minute
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one process heard of a gateway in a while: times in µs, delays in seconds."""

    gateway: str
    first_at: int
    last_at: int
    samples: int
    delay_min: float
    delay_median: float


class ClockState(StrEnum):
    """What the delays say of a clock."""

    GOOD = "good"
    AHEAD = "ahead"
    BEHIND = "behind"
    BACKLOG = "backlog"
    UNSTEADY = "unsteady"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Slot:
    """One minute of a gateway's delays, in seconds."""

    minute: datetime
    delay_min: float
    delay_median: float
    samples: int


@dataclass(frozen=True, slots=True)
class Clock:
    """A gateway's clock against ours.

    `skew_seconds` is above 0 for a clock that is ahead, None where the delays say nothing of the
    clock. It is true to within `uncertainty_seconds`, by which the median message came later than
    the best; what even the best one spent under way counts as a clock that is behind.
    """

    state: ClockState = ClockState.UNKNOWN
    skew_seconds: float | None = None
    uncertainty_seconds: float | None = None
    delay_seconds: float | None = None
    samples: int = 0
    measured_at: datetime | None = None


def write(session: Session, heard: Sequence[Heard]) -> None:
    """Add what was heard to the gateways' windows; the caller commits."""
    heard = sorted(heard, key=lambda each: each.gateway)
    session.execute(
        UPSERT_HEARD,
        {
            "gateway": [each.gateway for each in heard],
            "first_at": [to_datetime(each.first_at) for each in heard],
            "last_at": [to_datetime(each.last_at) for each in heard],
        },
    )
    sampled = [each for each in heard if each.samples]
    minutes = [to_datetime(each.last_at).replace(second=0, microsecond=0) for each in sampled]
    if sampled:
        session.execute(
            UPSERT_CLOCK,
            {
                "gateway": [each.gateway for each in sampled],
                "slot": [each.last_at // 60_000_000 % SLOTS for each in sampled],
                "minute": minutes,
                "delay_min": [each.delay_min for each in sampled],
                "delay_median": [each.delay_median for each in sampled],
                "samples": [each.samples for each in sampled],
            },
        )


def clock_of(kept: Iterable[Slot]) -> Clock:
    """What a gateway's minutes say; those more than a window before the newest do not count."""
    slots = sorted(kept, key=lambda slot: slot.minute)
    if not slots:
        return Clock()
    newest = slots[-1].minute
    slots = [slot for slot in slots if newest - slot.minute < timedelta(minutes=SLOTS)]
    samples = sum(slot.samples for slot in slots)
    floor = min(slot.delay_min for slot in slots)
    spread = statistics.median(slot.delay_median for slot in slots) - floor
    state = _state(slots, samples, floor, spread)
    if state not in (ClockState.GOOD, ClockState.AHEAD, ClockState.BEHIND):
        return Clock(state, delay_seconds=floor, samples=samples, measured_at=newest)
    return Clock(state, 0.0 - floor, spread, floor, samples, newest)


def _state(slots: Sequence[Slot], samples: int, floor: float, spread: float) -> ClockState:
    if samples < SAMPLES_MIN:
        return ClockState.UNKNOWN
    if abs(floor) <= TOLERANCE_SECONDS:
        return ClockState.GOOD
    steady = spread <= abs(floor) and _drift(slots) <= TOLERANCE_SECONDS
    if floor > 0:
        # An outbox that is emptied shortens the delay from minute to minute; no clock runs so.
        believed = steady and floor <= BELIEVED_SECONDS_MAX
        return ClockState.BEHIND if believed else ClockState.BACKLOG
    # No queue makes a delay negative, but one corrupt time stamp does.
    return ClockState.AHEAD if steady else ClockState.UNSTEADY


def _drift(slots: Sequence[Slot]) -> float:
    """Seconds by which the shortest delay differs between the window's halves."""
    halves = slots[: len(slots) // 2], slots[len(slots) // 2 :]
    if any(sum(slot.samples for slot in half) < SAMPLES_MIN for half in halves):
        return 0.0
    first, second = (min(slot.delay_min for slot in half) for half in halves)
    return abs(second - first)
