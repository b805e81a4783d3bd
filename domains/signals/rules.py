"""Which signal states are news, and what every signal group shows now; pure.

At ingest: SPaT repeats ten times a second, so only what differs from the frame before is observed.
At reading: the newest results become the current state, or `unknown`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.clock import EPOCH, MICROSECONDS
from core.sensorthings import Decoded

INTERSECTIONS_MAX = 20_000
"""Intersections whose last state is remembered in one process; the longest unheard is forgotten."""
GAP_US = 600 * MICROSECONDS
"""After this long without a frame the state is told anew: TimeMarks mean another hour by then."""
AHEAD_US = 900 * MICROSECONDS
"""A frame further ahead of the receiver's clock is never the newest: it would bar true ones."""
MAP_AGAIN_US = 600 * MICROSECONDS
"""An unchanged MAP is described again after this, should the first time not have been stored."""

End = int | None
Seen = tuple[int, str, End, End]
"""Signal group, state, earliest and latest end as the message writes them."""
Change = tuple[str, str | float]
"""Property and result of one observation."""


@dataclass(slots=True)
class Group:
    """A signal group as last told: ends as in the message, and resolved to µs since 1970."""

    state: str
    raw_minimum: End
    raw_maximum: End
    minimum: End
    maximum: End


@dataclass(slots=True)
class Track:
    """A run of frames of one intersection in the order of their own times."""

    time: int
    fingerprint: bytes | None
    groups: dict[int, Group]


@dataclass(slots=True)
class Tracks:
    """The newest run of frames, and one older run (a backlog, a redelivered batch)."""

    live: Track | None = None
    past: Track | None = None


class Memory:
    """What one process remembers of one gateway's intersections: bounded, and safe to lose."""

    def __init__(self, memory: dict[Any, Any], gateway: str, received_at: int) -> None:
        self.gateway = gateway
        self.received_at = received_at
        self.tracks: dict[tuple[str, str], Tracks] = memory.setdefault("spat", {})
        self.maps: dict[tuple[str, str], tuple[bytes, int]] = memory.setdefault("map", {})
        self.map_frames: dict[tuple[str, bytes], tuple[str, ...]] = memory.setdefault(
            "map-frames", {}
        )

    def repeats(self, thing: str, moment: int, fingerprint: bytes) -> bool:
        """True where a newer frame says what the last one of its run said; then it is the last."""
        known = self.tracks.get((self.gateway, thing))
        if known is None or known.live is None or moment > self.received_at + AHEAD_US:
            return False
        track = known.live if moment > known.live.time else known.past
        if (
            track is None
            or track.fingerprint != fingerprint
            or not track.time < moment <= track.time + GAP_US
        ):
            return False
        track.time = moment
        return True

    def changes(
        self,
        thing: str,
        moment: int,
        seen: Sequence[Seen],
        resolve: Callable[[End], End],
        fingerprint: bytes | None = None,
    ) -> tuple[list[Change], bool]:
        """What changed since the last frame of the same run, and whether this frame begins a run.

        A frame that is not newer than the newest never overwrites it: it continues a run of its
        own, so that a redelivered or stored-and-forwarded batch decodes to all that it holds.
        """
        if moment > self.received_at + AHEAD_US:
            return list(_news({}, _groups(seen, {}, resolve))), True
        known = _recall(self.tracks, (self.gateway, thing))
        live = known.live is None or moment > known.live.time
        before = known.live if live else known.past
        continues = before is not None and before.time < moment <= before.time + GAP_US
        old = before.groups if before is not None and continues else {}
        track = Track(moment, fingerprint, _groups(seen, old, resolve))
        if live:
            known.live = track
        else:
            known.past = track
        return list(_news(old, track.groups)), not old

    def is_map_frame_known(self, fingerprint: bytes) -> bool:
        """True while all intersections of this very MAP message were described not long ago."""
        things = self.map_frames.get((self.gateway, fingerprint))
        return things is not None and all(self.is_map_known(thing, fingerprint) for thing in things)

    def is_map_known(self, thing: str, fingerprint: bytes) -> bool:
        """True while this very MAP of the intersection was described not long ago."""
        last = self.maps.get((self.gateway, thing))
        return (
            last is not None
            and last[0] == fingerprint
            and self.received_at < last[1] + MAP_AGAIN_US
        )

    def describe(self, things: Sequence[str], fingerprint: bytes) -> bool:
        """Remember whose MAP this is; True where one of them had another before."""
        self.map_frames[self.gateway, fingerprint] = tuple(things)
        _bound(self.map_frames)
        new = False
        for thing in things:
            last = self.maps.pop((self.gateway, thing), None)
            new |= last is None or last[0] != fingerprint
            self.maps[self.gateway, thing] = (fingerprint, self.received_at)
        _bound(self.maps)
        return new


def _recall(tracks: dict[tuple[str, str], Tracks], key: tuple[str, str]) -> Tracks:
    known = tracks.pop(key, None) or Tracks()
    tracks[key] = known  # now the most recent
    _bound(tracks)
    return known


def _bound(memory: dict[Any, Any]) -> None:
    while len(memory) > INTERSECTIONS_MAX:
        del memory[next(iter(memory))]


def _groups(
    seen: Sequence[Seen], old: Mapping[int, Group], resolve: Callable[[End], End]
) -> dict[int, Group]:
    """The groups of a frame; a mark that stays the same stays the same moment."""
    groups: dict[int, Group] = {}
    for number, state, minimum, maximum in seen:
        before = old.get(number)
        group = Group(
            state,
            minimum,
            maximum,
            before.minimum if before and before.raw_minimum == minimum else resolve(minimum),
            before.maximum if before and before.raw_maximum == maximum else resolve(maximum),
        )
        groups.setdefault(number, group)
    return groups


def _news(old: Mapping[int, Group], new: Mapping[int, Group]) -> Iterator[Change]:
    """The observations that lead from the old groups to the new ones."""
    for number, group in new.items():
        before = old.get(number)
        # Ends count from the state's own time on, so a state whose end got lost is told again.
        whole = (
            before is None
            or before.state != group.state
            or (group.minimum is None and before.minimum is not None)
            or (group.maximum is None and before.maximum is not None)
        )
        if whole:
            yield f"signal-state/{number}", group.state
        if group.minimum is not None and (
            whole or before is None or group.minimum != before.minimum
        ):
            yield f"minimum-end/{number}", group.minimum / MICROSECONDS
        if group.maximum is not None and (
            whole or before is None or group.maximum != before.maximum
        ):
            yield f"maximum-end/{number}", group.maximum / MICROSECONDS
    for number in old.keys() - new.keys():
        # A group that its controller no longer speaks of must not stay green for ever.
        if old[number].state != "unavailable":
            yield f"signal-state/{number}", "unavailable"


# --- at reading ---------------------------------------------------------------------------------

SILENCE = timedelta(seconds=2)
"""Without a frame for this long, by the receiver's clock, nothing is known."""
SKEW_MAX = timedelta(minutes=10)
"""A larger distance between the two clocks is no skew: the frames are history."""
DELAY_MAX = timedelta(seconds=1)
"""A distance up to this may as well be the way here, so it is not corrected."""
STEADY = timedelta(seconds=10)
"""In this time before the last frame a clock keeps its distance, while a backlog catches up."""
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LatestRow:
    """The newest result of one Datastream of the intersection: state name, or Unix seconds."""

    property: str
    phenomenon_time: datetime
    received_at: datetime
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

    `heard_at` is the receiver's clock at the last frame, `heard_time` the gateway's own time in it.
    All times of the answer are by the receiver's clock: the gateway's, shifted by the skew. The
    answer holds until 2 s after the last frame; a group's not past its earliest end, if that lies
    ahead. Frames of a backlog and those over 10 min from the receiver's clock are history.
    """
    known = list(rows)
    states, ends = _by_group(known)
    groups = sorted(states.keys() | ends.keys())
    if heard_at is None or heard_time is None:
        return CurrentState(now, None, None, tuple(map(GroupState, groups)))
    skew = heard_at - heard_time
    if now >= heard_at + SILENCE or abs(skew) > SKEW_MAX or _is_backlog(known, heard_at, skew):
        return CurrentState(now, None, skew.total_seconds(), tuple(map(GroupState, groups)))
    until = heard_at + SILENCE
    shift = skew if abs(skew) > DELAY_MAX else timedelta()
    shown = (_group(n, states.get(n), ends.get(n, {}), (shift, now, until)) for n in groups)
    return CurrentState(now, until, skew.total_seconds(), tuple(shown))


def _is_backlog(rows: Iterable[LatestRow], heard_at: datetime, skew: timedelta) -> bool:
    """Whether the last frame is one of a store-and-forward backlog rather than of a slow clock.

    A frame that is 5 min old and one of a clock 5 min behind look alike. But a clock keeps its
    distance, while a backlog is later than frames before it, and catches up faster than time goes.
    """
    if abs(skew) <= SILENCE:
        return False
    for row in rows:
        distance = row.received_at - row.phenomenon_time
        recent = heard_at - STEADY < row.received_at <= heard_at
        if skew - distance > SILENCE or (recent and abs(skew - distance) > SILENCE):
            return True
    return False


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
    clock: tuple[timedelta, datetime, datetime],
) -> GroupState:
    if state is None:
        return GroupState(number)
    shift, now, valid_until = clock
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
