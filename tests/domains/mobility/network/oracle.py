"""What the best journeys are, by trying every trip; and whether one journey is possible at all.

Shares nothing with the search but Timetable and Overlay: no patterns, no marks, no arrays.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from domains.mobility.network.raptor import Option
from domains.mobility.network.timetable import UNTIMED, Timetable
from domains.mobility.realtime.overlay import Closure, Overlay, TripState

NEVER = 1 << 60
Changes = Mapping[int, Sequence[tuple[int, int]]]
"""From a stop: (stop, seconds) of each change of vehicles, the stop itself among them."""


@dataclass(frozen=True)
class Event:
    """A call of a trip on a day, in epoch seconds."""

    stop: int
    arrival: int
    departure: int
    board: bool
    alight: bool


@dataclass(frozen=True)
class Journeying:
    """A trip on a day."""

    trip: int
    day: date
    events: tuple[Event, ...]


def runs(timetable: Timetable, overlay: Overlay, days: Collection[date]) -> list[Journeying]:
    """Everything that really runs on these service days."""
    return [each for day in sorted(days) for each in _of_day(timetable, overlay, day)]


def _of_day(timetable: Timetable, overlay: Overlay, day: date) -> Iterator[Journeying]:
    running = timetable.services.on(day)
    for trip in range(len(timetable.trips.route)):
        if not running[timetable.trips.service[trip]]:
            continue
        found = _really(timetable, overlay, trip, day)
        if found is not None:
            yield Journeying(trip, day, found)


def _really(
    timetable: Timetable, overlay: Overlay, trip: int, day: date
) -> tuple[Event, ...] | None:
    zone = ZoneInfo(timetable.versions[timetable.trips.version[trip]].timezone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    zero = int(noon.timestamp()) - 12 * 3600
    low, high = timetable.trips.offsets[trip], timetable.trips.offsets[trip + 1]
    state = overlay.trips.get((trip, day))
    if state is not None and state.cancelled:
        return None
    events = []
    for n, row in enumerate(range(low, high)):
        times = timetable.stop_times
        came, left = int(times.arrival[row]), int(times.departure[row])
        if state is not None:
            came, left = int(state.arrival[n]), int(state.departure[n])
        usable = came != UNTIMED and not (state is not None and state.skipped[n])
        events.append(
            Event(
                int(times.stop[row]), zero + came, zero + left,
                usable and times.pickup[row] != 1, usable and times.drop_off[row] != 1,
            )
        )  # fmt: skip
    for closure in overlay.closures:
        begin = -NEVER if closure.start is None else int(closure.start.timestamp())
        end = NEVER if closure.end is None else int(closure.end.timestamp())
        named = trip in closure.trips or int(timetable.trips.route[trip]) in closure.routes
        timed = [e for n, e in enumerate(events) if times_of(timetable, state, low + n, n)]
        if named and timed[0].departure < end and timed[-1].arrival >= begin:
            return None
        events = [_closed(timetable, event, closure, begin, end) for event in events]
    return tuple(events)


def times_of(timetable: Timetable, state: TripState | None, row: int, call: int) -> bool:
    """Whether a call has times."""
    came = timetable.stop_times.arrival[row] if state is None else state.arrival[call]
    return bool(came != UNTIMED)


def _closed(timetable: Timetable, event: Event, closure: Closure, begin: int, end: int) -> Event:
    shut = event.stop in closure.stops or int(timetable.stops.parent[event.stop]) in closure.stops
    if shut and event.departure >= begin and event.arrival < end:
        return Event(event.stop, event.arrival, event.departure, False, False)
    return event


def earliest(
    found: Sequence[Journeying], changes: Changes, origin: Mapping[int, int],
    goal: Mapping[int, int], time: int, rides_max: int, horizon: int = 86400,
) -> list[int]:  # fmt: skip
    """The earliest arrival with at most 1, 2, ... rides; NEVER where there is none."""
    ready = {stop: time + seconds for stop, seconds in origin.items()}
    answers, best = [], NEVER
    for _ in range(rides_max):
        came: dict[int, int] = {}
        for run in found:
            aboard = False
            for event in run.events:
                if aboard and event.alight and event.arrival <= time + horizon:
                    came[event.stop] = min(came.get(event.stop, NEVER), event.arrival)
                aboard |= event.board and event.departure >= ready.get(event.stop, NEVER)
        for stop, moment in came.items():
            if stop in goal and moment + goal[stop] <= time + horizon:
                best = min(best, moment + goal[stop])
        answers.append(best)
        for stop, moment in came.items():
            for other, seconds in changes.get(stop, ()):
                ready[other] = min(ready.get(other, NEVER), moment + seconds)
    return answers


def latest(
    found: Sequence[Journeying], changes: Changes, origin: Mapping[int, int],
    goal: Mapping[int, int], time: int, rides_max: int, horizon: int = 86400,
) -> list[int]:  # fmt: skip
    """The latest departure with at most 1, 2, ... rides that is there by `time`; -NEVER: none."""
    into: dict[int, list[tuple[int, int]]] = {}
    for stop, ways in changes.items():
        for other, seconds in ways:
            into.setdefault(other, []).append((stop, seconds))
    due = {stop: time - seconds for stop, seconds in goal.items()}
    answers, best = [], -NEVER
    for _ in range(rides_max):
        left: dict[int, int] = {}
        for run in found:
            off = False
            for event in reversed(run.events):
                if off and event.board:
                    left[event.stop] = max(left.get(event.stop, -NEVER), event.departure)
                off |= event.alight and event.arrival <= due.get(event.stop, -NEVER)
        for stop, moment in left.items():
            if stop in origin and moment - origin[stop] >= time - horizon:
                best = max(best, moment - origin[stop])
        answers.append(best)
        for stop, moment in left.items():
            for other, seconds in into.get(stop, ()):
                due[other] = max(due.get(other, -NEVER), moment - seconds)
    return answers


def check(
    option: Option, timetable: Timetable, overlay: Overlay, changes: Changes,
    origin: Mapping[int, int], goal: Mapping[int, int],
) -> None:  # fmt: skip
    """AssertionError unless each ride runs, calls, and is reached in time."""
    assert option.rides
    ready: dict[int, int] = {s: option.departure + seconds for s, seconds in origin.items()}
    for ride in option.rides:
        assert timetable.services.on(ride.day)[timetable.trips.service[ride.trip]]
        events = _really(timetable, overlay, ride.trip, ride.day)
        assert events is not None
        board, alight = events[ride.board], events[ride.alight]
        assert ride.board < ride.alight
        assert (board.stop, board.departure, board.board) == (ride.from_stop, ride.departure, True)
        assert (alight.stop, alight.arrival, alight.alight) == (ride.to_stop, ride.arrival, True)
        assert ready.get(board.stop, NEVER) <= board.departure
        ready = {other: ride.arrival + s for other, s in changes.get(ride.to_stop, ())}
    last = option.rides[-1]
    assert option.arrival == last.arrival + goal[last.to_stop]
    first = option.rides[0]
    assert option.departure == first.departure - origin[first.from_stop]
