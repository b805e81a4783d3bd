"""Trips of one service day laid out for RAPTOR: patterns in which no trip overtakes another.

A pattern is a sequence of calls that its trips share, with what may be done at each (RAPTOR's
"route": Delling, Pajor and Werneck 2012, section 3). Times lie position by position, and in each
position trip by trip, so that one `searchsorted` finds the next trip at every marked stop at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.timetable import UNTIMED, Timetable

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

BITS = 20
TIME_MAX = (1 << BITS) - 1
"""Times in a Table are 0 to this, in seconds from its base: twelve days."""
SECONDS_MAX = 5 * 86400
"""A trip that runs longer past the begin of its service day is passed over."""
BOARD, ALIGHT = 2, 1
CHAINS_TRIED_MAX = 64
"""Chains that a trip is compared with before it begins one of its own."""


@dataclass(frozen=True, slots=True)
class Run:
    """A trip on a day: `codes` are stop * 4 + BOARD + ALIGHT; times in s of its service day."""

    trip: int
    codes: Int64
    arrival: Int64
    departure: Int64


@dataclass(frozen=True)
class Table:
    """P positions of patterns, and N times; a trip is known by its place in its pattern.

    A `slot` is one trip of one pattern; those of a pattern are neighbours, in order of time.
    """

    stop: Int64
    pattern: Int64
    count: Int64
    """Trips of the position's pattern."""
    offset: Int64
    """Where the position's times begin."""
    slot: Int64
    """The first slot of the position's pattern."""
    board: Bool
    alight: Bool
    keys: Int64
    """position << BITS | departure: ascending throughout."""
    arrivals: Int64
    trips: Int64
    """Trip of each slot."""

    @cached_property
    def trips_max(self) -> int:
        """The most trips of a pattern."""
        return int(self.count.max(initial=0))

    @cached_property
    def level(self) -> Int64:
        """What is added to a place in a pattern, so that a later pattern's are always less."""
        return -self.pattern * (self.trips_max + 1)

    @cached_property
    def first(self) -> int:
        """The earliest departure."""
        return int((self.keys & TIME_MAX).min(initial=TIME_MAX))

    @cached_property
    def last(self) -> int:
        """The latest arrival."""
        return int(self.arrivals.max(initial=0))

    @cached_property
    def by_stop(self) -> tuple[Int64, Int64]:
        """Positions in order of their stop, and those stops."""
        order = np.argsort(self.stop, kind="stable")
        return order, self.stop[order]

    @cached_property
    def slot_of(self) -> dict[int, tuple[int, int]]:
        """The first position of a trip's pattern, and its place there."""
        begins = np.flatnonzero(np.diff(self.pattern, prepend=-1))
        found = {}
        for position in begins.tolist():
            slot = int(self.slot[position])
            for place in range(int(self.count[position])):
                found[int(self.trips[slot + place])] = (position, place)
        return found

    @cached_property
    def mirrored(self) -> "Table":
        """The same trips with time turned round: a search in it is one for the latest departure."""
        size, slots = len(self.keys), len(self.trips)
        position = np.arange(len(self.stop), dtype=np.int64)
        spread = np.repeat(position, self.count[::-1])
        last = int(self.pattern[-1]) if len(self.pattern) else 0
        return Table(
            stop=self.stop[::-1].copy(),
            pattern=last - self.pattern[::-1],
            count=self.count[::-1].copy(),
            offset=size - (self.offset + self.count)[::-1],
            slot=slots - (self.slot + self.count)[::-1],
            board=self.alight[::-1].copy(),
            alight=self.board[::-1].copy(),
            keys=spread << BITS | (TIME_MAX - self.arrivals[::-1]),
            arrivals=TIME_MAX - (self.keys & TIME_MAX)[::-1],
            trips=self.trips[::-1].copy(),
        )

    def positions(self, stop: int) -> list[int]:
        """Where patterns call at a stop."""
        order, stops = self.by_stop
        low, high = np.searchsorted(stops, (stop, stop + 1))
        return [int(each) for each in order[low:high]]

    def departure(self, position: int, place: int) -> int:
        """When the trip at `place` leaves there."""
        return int(self.keys[int(self.offset[position]) + place]) & TIME_MAX

    def arrival(self, position: int, place: int) -> int:
        """When the trip at `place` comes there."""
        return int(self.arrivals[int(self.offset[position]) + place])


@dataclass(frozen=True, slots=True)
class Calls:
    """Every stop time as searches want it, and the groups of trips with the same calls."""

    codes: Int64
    arrival: Int64
    departure: Int64
    group: Int64
    """Of each trip; -1 for one that nobody can ride: without times, or going back in time."""
    seconds_max: int
    """The latest time of a service day."""


def calls_of(timetable: Timetable) -> Calls:
    """What is the same on every day."""
    times, offsets = timetable.stop_times, timetable.trips.offsets.astype(np.int64)
    arrival = times.arrival.astype(np.int64)
    departure = times.departure.astype(np.int64)
    arrival = np.where(arrival == UNTIMED, departure, arrival)
    departure = np.where(departure == UNTIMED, arrival, departure)
    timed = arrival != UNTIMED
    codes = times.stop.astype(np.int64) * 4
    codes += np.where(timed & (times.pickup != 1), BOARD, 0)
    codes += np.where(timed & (times.drop_off != 1), ALIGHT, 0)
    trips = len(offsets) - 1
    trip_of = np.repeat(np.arange(trips), np.diff(offsets))
    for trip in np.unique(trip_of[~timed]).tolist():
        part = slice(int(offsets[trip]), int(offsets[trip + 1]))
        filled(arrival[part], departure[part], timed[part])
    backwards = departure < arrival
    backwards[1:] |= (arrival[1:] < departure[:-1]) & (trip_of[1:] == trip_of[:-1])
    backwards |= (arrival < 0) | (departure > SECONDS_MAX)
    ridden = np.ones(trips, np.bool_)
    ridden[trip_of[backwards]] = False
    groups: dict[bytes, int] = {}
    group = np.full(trips, -1, np.int64)
    for trip in np.flatnonzero(ridden).tolist():
        low, high = int(offsets[trip]), int(offsets[trip + 1])
        if high - low > 1:
            group[trip] = groups.setdefault(codes[low:high].tobytes(), len(groups))
    latest = int(departure[ridden[trip_of]].max(initial=0)) if len(departure) else 0
    return Calls(codes, arrival, departure, group, latest)


def filled(arrival: Int64, departure: Int64, timed: Bool) -> None:
    """Give calls before the first or after the last timed one its time, in place."""
    known = np.flatnonzero(timed)
    if not len(known):
        return
    before = np.searchsorted(known, np.arange(len(timed)), "right") - 1
    source = known[np.maximum(before, 0)]
    late = np.where(before < 0, arrival[source], departure[source])
    arrival[~timed] = late[~timed]
    departure[~timed] = late[~timed]


def table_of_day(timetable: Timetable, calls: Calls, trips: Int64, shift: Int64) -> Table:
    """The patterns of these trips; `shift` (by version) is added to their times."""
    offsets = timetable.trips.offsets.astype(np.int64)
    group = calls.group[trips]
    leaves = calls.departure[offsets[trips]]
    comes = calls.arrival[offsets[trips + 1] - 1]
    order = np.lexsort((comes, leaves, group))
    trips, group = trips[order], group[order]
    begins = np.flatnonzero(np.diff(group, prepend=-2))
    chains: list[_Chain] = []
    for members in np.split(trips, begins[1:]) if len(trips) else []:
        low = offsets[members]
        columns = low[:, None] + np.arange(int(offsets[members[0] + 1] - low[0]))
        moved = shift[timetable.trips.version[members]][:, None]
        codes = calls.codes[columns[0]]
        chains += _chains(
            members, codes, calls.arrival[columns] + moved, calls.departure[columns] + moved
        )
    return _table(chains)


def table_of_runs(runs: Iterable[Run], shift: Sequence[int]) -> Table:
    """The patterns of trips with times of their own; `shift` is added to those of each."""
    groups: dict[bytes, list[tuple[Run, int]]] = {}
    for run, moved in zip(runs, shift, strict=True):
        groups.setdefault(run.codes.tobytes(), []).append((run, moved))
    chains: list[_Chain] = []
    for members in groups.values():
        members.sort(key=lambda each: (each[0].departure[0], each[0].arrival[-1]))
        arrival = np.stack([run.arrival + moved for run, moved in members])
        departure = np.stack([run.departure + moved for run, moved in members])
        trips = np.array([run.trip for run, _ in members], np.int64)
        chains += _chains(trips, members[0][0].codes, arrival, departure)
    return _table(chains)


_Chain = tuple[Int64, Int64, Int64, Int64]
"""Trips, codes, and their arrivals and departures (trips x calls), where none overtakes."""


def _chains(trips: Int64, codes: Int64, arrival: Int64, departure: Int64) -> list[_Chain]:
    """Split trips of the same calls, in order of departure, so that none overtakes another."""
    times = np.concatenate((arrival, departure), axis=1)
    if (np.diff(times, axis=0) >= 0).all():
        return [(trips, codes, arrival, departure)]
    members: list[list[int]] = []
    for number in range(len(trips)):
        for chain in members[-CHAINS_TRIED_MAX:]:
            if (times[number] >= times[chain[-1]]).all():
                chain.append(number)
                break
        else:
            members.append([number])
    return [(trips[each], codes, arrival[each], departure[each]) for each in members]


def _table(chains: list[_Chain]) -> Table:
    """One Table of all chains."""
    empty = np.zeros(0, np.int64)
    trips = np.array([len(chain[0]) for chain in chains], np.int64)
    lengths = np.array([len(chain[1]) for chain in chains], np.int64)
    codes = np.concatenate([empty, *(chain[1] for chain in chains)])
    arrivals = np.concatenate([empty, *(chain[2].T.ravel() for chain in chains)])
    departures = np.concatenate([empty, *(chain[3].T.ravel() for chain in chains)])
    count = np.repeat(trips, lengths)
    position = np.repeat(np.arange(len(codes), dtype=np.int64), count)
    return Table(
        stop=codes >> 2,
        pattern=np.repeat(np.arange(len(chains), dtype=np.int64), lengths),
        count=count,
        offset=np.cumsum(count) - count,
        slot=np.repeat(np.cumsum(trips) - trips, lengths),
        board=codes & BOARD > 0,
        alight=codes & ALIGHT > 0,
        keys=position << BITS | departures,
        arrivals=arrivals,
        trips=np.concatenate([empty, *(chain[0] for chain in chains)]),
    )
