"""What follows from stored signal states: nothing at ingest, the current state at reading; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.clock import EPOCH
from core.sensorthings import Decoded

SILENCE = timedelta(seconds=2)
"""Without a frame for this long, by the receiver's clock, nothing is known."""
SKEW_MAX = timedelta(minutes=10)
"""A larger distance between the two clocks is no skew: the frames are history."""
DELAY_MAX = timedelta(seconds=1)
"""A distance up to this may as well be the way here, so it is not corrected."""
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LatestRow:
    """The newest result of one Datastream of the intersection: state name, or Unix seconds."""

    property: str
    phenomenon_time: datetime
    result: str | float


@dataclass(frozen=True, slots=True)
class GroupState:
    """One signal group; times are by the receiver's clock."""

    signal_group: int
    state: str = UNKNOWN
    since: datetime | None = None
    minimum_end_time: datetime | None = None
    maximum_end_time: datetime | None = None
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CurrentState:
    """All signal groups of an intersection at one moment; `valid_until` is None when unknown."""

    as_of: datetime
    valid_until: datetime | None
    clock_skew_seconds: float | None
    groups: tuple[GroupState, ...]


def derive(decoded: Decoded) -> Decoded:
    """Signals derive no values: the identity."""
    return decoded


def current_state(
    rows: Iterable[LatestRow],
    heard_at: datetime | None,
    heard_time: datetime | None,
    now: datetime,
) -> CurrentState:
    """What every signal group shows at `now`, or `unknown`.

    `heard_at` is the receiver's clock at the last frame, `heard_time` the gateway's own time in it. All
    times of the answer are by the receiver's clock: the gateway's, shifted by the skew. The answer
    holds until 2 s after the last frame; a group's also not past its earliest end, if that lies ahead.
    """
    states, ends = _by_group(rows)
    groups = sorted(states.keys() | ends.keys())
    skew = None if heard_at is None or heard_time is None else heard_at - heard_time
    skew_seconds = None if skew is None else skew.total_seconds()
    valid_until = None if heard_at is None else heard_at + SILENCE
    if (
        skew is None
        or valid_until is None
        or heard_time is None
        or abs(skew) > SKEW_MAX
        or now >= valid_until
    ):
        return CurrentState(now, None, skew_seconds, tuple(map(GroupState, groups)))
    shift = skew if abs(skew) > DELAY_MAX else timedelta()
    return CurrentState(
        now,
        valid_until,
        skew_seconds,
        tuple(
            _group(number, states.get(number), ends.get(number, {}), shift, now, valid_until)
            for number in groups
        ),
    )


def _by_group(
    rows: Iterable[LatestRow],
) -> tuple[dict[int, LatestRow], dict[int, dict[str, LatestRow]]]:
    states: dict[int, LatestRow] = {}
    ends: dict[int, dict[str, LatestRow]] = {}
    for row in rows:
        name, _, instance = row.property.partition("/")
        if not instance.isdecimal():
            continue
        if name == "signal-state" and isinstance(row.result, str):
            states[int(instance)] = row
        elif name in ("minimum-end", "maximum-end") and not isinstance(row.result, str):
            ends.setdefault(int(instance), {})[name] = row
    return states, ends


def _group(
    number: int,
    state: LatestRow | None,
    ends: dict[str, LatestRow],
    shift: timedelta,
    now: datetime,
    valid_until: datetime,
) -> GroupState:
    if state is None:
        return GroupState(number)
    earliest = _end(ends.get("minimum-end"), state, shift)
    latest = _end(ends.get("maximum-end"), state, shift)
    ahead = earliest is not None and earliest > now
    return GroupState(
        number,
        str(state.result),
        state.phenomenon_time + shift,
        earliest,
        latest,
        min(earliest, valid_until) if ahead and earliest is not None else valid_until,
    )


def _end(row: LatestRow | None, state: LatestRow, shift: timedelta) -> datetime | None:
    """An end that was told with this state or since; an older one belongs to the state before."""
    if row is None or row.phenomenon_time < state.phenomenon_time:
        return None
    try:
        return EPOCH + timedelta(seconds=float(row.result)) + shift
    except (OverflowError, ValueError):
        return None
