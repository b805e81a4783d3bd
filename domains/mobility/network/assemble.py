"""From the columns of the tables to a Timetable: numbers for ids, untimed stops, frequencies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.mobility.network.calendar import Days
from domains.mobility.network.timetable import (
    NONE,
    UNTIMED,
    Fares,
    Float64,
    Ids,
    Int32,
    Routes,
    Services,
    Stops,
    StopTimes,
    Timetable,
    Transfers,
    Trips,
    Version,
)

Columns = Mapping[str, NDArray[Any]]
Texts = tuple[str | None, ...]
Int64 = NDArray[np.int64]

EXPANDED_TRIPS_MAX = 200_000
EXPANDED_STOP_TIMES_MAX = 8_000_000
"""What frequencies.txt may grow to: a headway of a second must not fill memory."""
UNKNOWN_TO_PLATFORM = 0
EPOCH = np.datetime64("1970-01-01", "D")


def assemble(versions: Sequence[Version], days: Days, files: Mapping[str, Columns]) -> Timetable:
    """One Timetable of all versions; `files` has the columns that load.QUERIES names.

    What refers to something that is not there is left out.
    """
    joined = _Joined(versions)
    stops, stop_of = _stops(joined, files["stops"])
    routes, route_of = _routes(joined, files["routes"])
    services, service_of = _services(joined, days, files["services"], files["service_dates"])
    trips, trip_of = _trips(joined, files["trips"], route_of, service_of)
    stop_times, trips, headsigns = _stop_times(joined, files, trips, trip_of, stop_of)
    return Timetable(
        tuple(versions),
        stops,
        routes,
        services,
        *_expanded(joined, files["frequencies"], trips, stop_times, trip_of),
        _transfers(joined, files["transfers"], stop_of),
        headsigns,
        _fares(joined, files, stops, route_of),
    )


Place = Callable[[NDArray[Any], NDArray[Any]], Int64]
"""(index of the version, number within it) -> number in the Timetable, NONE for what is not."""


class _Joined:
    """How rows of several versions become one list: by version, then by number."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self.feeds = [version.feed for version in versions]
        self._ids = np.array([version.id for version in versions], np.int64)
        self._order = np.argsort(self._ids)

    def version(self, columns: Columns) -> Int64:
        """Index into the versions of each row."""
        if not self._ids.size:
            return np.zeros(0, np.int64)
        found: Int64 = self._order[np.searchsorted(self._ids[self._order], columns["version"])]
        return found

    def sorted(self, columns: Columns, number: str) -> tuple[Columns, Int64, Place]:
        """The rows in their order, their versions, and where each (version, number) went."""
        version = self.version(columns)
        keys = _key(version, columns[number])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]

        def place(of_version: NDArray[Any], of_number: NDArray[Any]) -> Int64:
            return _found(keys, _key(of_version, of_number))

        return {name: each[order] for name, each in columns.items()}, version[order], place

    def ids(self, version: Int64, ids: NDArray[Any]) -> Ids:
        """`feed:id` of each row."""
        feeds = self.feeds
        pairs = zip(version.tolist(), ids.tolist(), strict=True)
        return _ids([f"{feeds[each]}:{text.decode()}" for each, text in pairs])


def _ids(texts: Sequence[str]) -> Ids:
    numbers: dict[str, int] = {}
    shared: dict[str, tuple[int, ...]] = {}
    for number, text in enumerate(texts):
        if text in numbers:
            shared[text] = (*shared.get(text, (numbers[text],)), number)
        numbers[text] = number
    return Ids(tuple(texts), numbers, shared)


def _key(version: NDArray[Any], number: NDArray[Any]) -> Int64:
    """One number for both: that of the version is below 2^31, as all of ours are."""
    return (version.astype(np.int64) << 32) + number.astype(np.int64)


def _found(keys: Int64, wanted: Int64) -> Int64:
    """Where each wanted key stands among sorted keys, else NONE."""
    if not keys.size:
        return np.full(wanted.size, NONE, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[at] == wanted, at, NONE)


def _texts(column: NDArray[Any]) -> Texts:
    """Texts, None for an empty one; equal ones are one object."""
    known: dict[bytes, str | None] = {b"": None}
    return tuple(
        known[each] if each in known else known.setdefault(each, each.decode())
        for each in column.tolist()
    )


def _stops(joined: _Joined, columns: Columns) -> tuple[Stops, Place]:
    rows, version, place = joined.sorted(columns, "number")
    parent = place(version, rows["parent"]).astype(np.int32)
    own = rows["wheelchair"].astype(np.int8)
    station = np.where(parent == NONE, UNKNOWN_TO_PLATFORM, own[parent]) if own.size else own
    stops = Stops(
        joined.ids(version, rows["id"]),
        tuple(text or "" for text in _texts(rows["name"])),
        _texts(rows["code"]),
        _texts(rows["platform"]),
        _texts(rows["zone"]),
        rows["longitude"],
        rows["latitude"],
        rows["location_type"].astype(np.int8),
        parent,
        np.where(own == UNKNOWN_TO_PLATFORM, station, own).astype(np.int8),
        version.astype(np.int32),
    )
    return stops, place


def _routes(joined: _Joined, columns: Columns) -> tuple[Routes, Place]:
    rows, version, place = joined.sorted(columns, "number")
    routes = Routes(
        joined.ids(version, rows["id"]),
        _texts(rows["agency"]),
        _texts(rows["short_name"]),
        _texts(rows["long_name"]),
        _texts(rows["colour"]),
        rows["type"].astype(np.int16),
        version.astype(np.int32),
    )
    return routes, place


def _services(
    joined: _Joined, days: Days, columns: Columns, dates: Columns
) -> tuple[Services, Place]:
    """calendar.txt, then calendar_dates.txt over it, then only the days of the version."""
    rows, version, place = joined.sorted(columns, "number")
    count = days.in_force.shape[1]
    begin = int((np.datetime64(days.first, "D") - EPOCH).astype(np.int64))
    numbers = begin + np.arange(count)
    weekday = (numbers + 3) % 7  # 1970-01-01 was a Thursday, and bit 0 is Monday
    runs = (rows["weekdays"].astype(np.int64)[:, None] >> weekday[None, :]) & 1 == 1
    runs &= numbers >= rows["first"][:, None]
    runs &= numbers <= rows["last"][:, None]
    service = place(joined.version(dates), dates["service"])
    day = dates["day"].astype(np.int64) - begin
    inside = (service != NONE) & (day >= 0) & (day < count)
    runs[service[inside], day[inside]] = dates["runs"][inside]
    runs &= days.in_force[version]
    return Services(days.first, runs), place


def _trips(
    joined: _Joined, columns: Columns, route_of: Place, service_of: Place
) -> tuple[Trips, Place]:
    rows, version, place = joined.sorted(columns, "number")
    trips = Trips(
        joined.ids(version, rows["id"]),
        _texts(rows["headsign"]),
        _texts(rows["short_name"]),
        _texts(rows["block"]),
        route_of(version, rows["route"]).astype(np.int32),
        service_of(version, rows["service"]).astype(np.int32),
        rows["direction"].astype(np.int8),
        rows["wheelchair"].astype(np.int8),
        rows["shape"].astype(np.int32),
        version.astype(np.int32),
        np.zeros(version.size + 1, np.int32),
    )
    return trips, place


def _stop_times(
    joined: _Joined,
    files: Mapping[str, Columns],
    trips: Trips,
    trip_of: Place,
    stop_of: Place,
) -> tuple[StopTimes, Trips, tuple[str, ...]]:
    """Stop times trip by trip; the trips with their offsets; the headsigns of stops."""
    columns = files["stop_times"]
    version = joined.version(columns)
    trip, stop = trip_of(version, columns["trip"]), stop_of(version, columns["stop"])
    known = (trip != NONE) & (stop != NONE)
    known[known] = (trips.route[trip[known]] != NONE) & (trips.service[trip[known]] != NONE)
    keys = _key(trip, columns["sequence"])
    order = np.flatnonzero(known)
    order = order[np.argsort(keys[order], kind="stable")]
    trip, keys = trip[order], keys[order]
    offsets = np.searchsorted(trip, np.arange(len(trips.ids.texts) + 1)).astype(np.int32)
    arrival, departure = timed(
        columns["arrival"][order], columns["departure"][order], columns["distance"][order], trip
    )
    headsign, texts = _headsigns(joined, files["headsigns"], keys, trip_of)
    stop_times = StopTimes(
        stop[order].astype(np.int32),
        columns["sequence"][order].astype(np.int32),
        arrival,
        departure,
        columns["pickup"][order].astype(np.int8),
        columns["drop_off"][order].astype(np.int8),
        headsign,
    )
    return stop_times, replace(trips, offsets=offsets), texts


def _headsigns(
    joined: _Joined, columns: Columns, keys: Int64, trip_of: Place
) -> tuple[Int32, tuple[str, ...]]:
    if not columns["version"].size:
        return np.zeros(0, np.int32), ()
    trip = trip_of(joined.version(columns), columns["trip"])
    at = _found(keys, _key(trip, columns["sequence"]))
    codes: dict[bytes, int] = {}
    numbers = [codes.setdefault(each, len(codes)) for each in columns["headsign"].tolist()]
    headsign = np.full(keys.size, NONE, np.int32)
    headsign[at[at != NONE]] = np.array(numbers, np.int32)[at != NONE]
    return headsign, tuple(each.decode() for each in codes)


def timed(
    arrival: NDArray[Any], departure: NDArray[Any], distance: Float64, trip: NDArray[Any]
) -> tuple[Int32, Int32]:
    """Both times of every stop, in the order of trips: an empty one is the other, and what has none
    lies between its neighbours by distance travelled, evenly where that does not tell.

    Below 0 is empty. GTFS leaves it to the reader how to interpolate (stop_times.txt, timepoint).
    """
    arrive = np.where(arrival < 0, departure, arrival).astype(np.int32)
    leave = np.where(departure < 0, arrival, departure).astype(np.int32)
    has = arrive >= 0
    gaps = np.flatnonzero(~has)
    if not gaps.size:
        return arrive, leave
    arrive[gaps] = leave[gaps] = UNTIMED
    index = np.arange(arrive.size)
    before = np.maximum.accumulate(np.where(has, index, -1))[gaps]
    after = np.minimum.accumulate(np.where(has, index, index.size)[::-1])[::-1][gaps]
    inner = (before >= 0) & (after < index.size)
    inner[inner] = (trip[before[inner]] == trip[gaps[inner]]) & (
        trip[after[inner]] == trip[gaps[inner]]
    )
    gaps, before, after = gaps[inner], before[inner], after[inner]
    share = _share(gaps, before, after, distance)
    begin, end = leave[before], arrive[after]
    between = begin + np.floor(share * np.maximum(end - begin, 0)).astype(np.int32)
    arrive[gaps] = leave[gaps] = between
    return arrive, leave


def _share(gaps: Int64, before: Int64, after: Int64, distance: Float64) -> Float64:
    """How far between its timed neighbours each untimed stop lies, 0 to 1.

    By distance only where all of a gap's distances are there and never fall.
    """
    even = (gaps - before) / (after - before)
    step = np.diff(distance, prepend=np.nan)  # NaN where one of the two is not given
    with np.errstate(invalid="ignore"):
        steady = np.concatenate(([0], np.cumsum(step >= 0)))
        whole = steady[after + 1] - steady[before + 1] == after - before
        span = distance[after] - distance[before]
        whole &= span > 0
        share: Float64 = np.where(whole, (distance[gaps] - distance[before]) / span, even)
    return share


def _expanded(
    joined: _Joined, columns: Columns, trips: Trips, stop_times: StopTimes, trip_of: Place
) -> tuple[Trips, StopTimes]:
    """Each departure of frequencies.txt as a trip of its own, in place of its template."""
    if not columns["version"].size:
        return trips, stop_times
    template = trip_of(joined.version(columns), columns["trip"])
    source, starts = _starts(template, columns, trips, stop_times)
    plain = np.setdiff1d(np.arange(len(trips.ids.texts)), template)
    source = np.concatenate((plain, source))
    shift = np.concatenate((np.zeros(plain.size, np.int64), starts))
    shift[plain.size :] -= _first_departure(trips, stop_times)[source[plain.size :]]
    order = np.lexsort((shift, source))
    source, shift = source[order], shift[order]
    texts = [trips.ids.texts[each] for each in source.tolist()]
    begins = np.concatenate((np.full(plain.size, NONE), starts))[order]
    for at in np.flatnonzero(begins != NONE).tolist():
        texts[at] += f"@{clock(int(begins[at]))}"
    lengths = np.diff(trips.offsets)[source]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    gather = np.arange(offsets[-1]) + np.repeat(trips.offsets[source] - offsets[:-1], lengths)
    moved = np.repeat(shift, lengths)
    return (
        _repeated(trips, source, texts, offsets.astype(np.int32)),
        _shifted(stop_times, gather, moved),
    )


def clock(seconds: int) -> str:
    """HH:MM:SS of a time of a service day, which may be over 24 h."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _starts(
    template: Int64, columns: Columns, trips: Trips, stop_times: StopTimes
) -> tuple[Int64, Int64]:
    """(template, second of its start) of each departure, without what is over the bounds."""
    lengths = np.diff(trips.offsets)
    usable = _first_departure(trips, stop_times) != UNTIMED
    seen: set[tuple[int, int]] = set()
    rows = 0
    for number, begin, until, headway in zip(
        template.tolist(),
        columns["first"].tolist(),
        columns["until"].tolist(),
        columns["headway"].tolist(),
        strict=True,
    ):
        if number == NONE or headway <= 0 or not usable[number]:
            continue
        for start in range(begin, until, headway):
            if len(seen) >= EXPANDED_TRIPS_MAX or rows >= EXPANDED_STOP_TIMES_MAX:
                break
            seen.add((number, start))
            rows += int(lengths[number])
    pairs = np.array(sorted(seen), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _first_departure(trips: Trips, stop_times: StopTimes) -> Int64:
    """Of each trip; UNTIMED where it has none."""
    first = np.full(len(trips.ids.texts), UNTIMED, np.int64)
    having = np.flatnonzero(np.diff(trips.offsets) > 0)
    first[having] = stop_times.departure[trips.offsets[having]]
    return first


def _repeated(trips: Trips, source: Int64, texts: Sequence[str], offsets: Int32) -> Trips:
    def texts_of(column: Texts) -> Texts:
        return tuple(column[each] for each in source.tolist())

    return Trips(
        _ids(texts),
        texts_of(trips.headsigns),
        texts_of(trips.short_names),
        texts_of(trips.blocks),
        trips.route[source],
        trips.service[source],
        trips.direction[source],
        trips.wheelchair[source],
        trips.shape[source],
        trips.version[source],
        offsets,
    )


def _shifted(stop_times: StopTimes, gather: Int64, moved: Int64) -> StopTimes:
    def shifted(times: Int32) -> Int32:
        at = times[gather]
        return np.where(at == UNTIMED, UNTIMED, at + moved).astype(np.int32)

    headsign = stop_times.headsign
    return StopTimes(
        stop_times.stop[gather],
        stop_times.sequence[gather],
        shifted(stop_times.arrival),
        shifted(stop_times.departure),
        stop_times.pickup[gather],
        stop_times.drop_off[gather],
        headsign[gather] if headsign.size else headsign,
    )


def _transfers(joined: _Joined, columns: Columns, stop_of: Place) -> Transfers:
    version = joined.version(columns)
    from_stop, to_stop = (
        stop_of(version, columns["from_stop"]),
        stop_of(version, columns["to_stop"]),
    )
    known = (from_stop != NONE) & (to_stop != NONE)
    return Transfers(
        from_stop[known].astype(np.int32),
        to_stop[known].astype(np.int32),
        columns["type"][known].astype(np.int8),
        columns["seconds_min"][known].astype(np.int32),
    )


def _fares(joined: _Joined, files: Mapping[str, Columns], stops: Stops, route_of: Place) -> Fares:
    columns, rules = files["fares"], files["fare_rules"]
    version, rule_version = joined.version(columns), joined.version(rules)
    numbers = {pair: at for at, pair in enumerate(_pairs(version, columns["id"]))}
    fare = np.array([numbers.get(pair, NONE) for pair in _pairs(rule_version, rules["id"])], int)
    route = route_of(rule_version, rules["route"])
    known = (fare != NONE) & ((rules["route"] == NONE) | (route != NONE))
    of_version, zones = rule_version[known].tolist(), _Zones()
    rule_zones = [
        zones.of(of_version, _texts(rules[name][known]))
        for name in ("origin", "destination", "contains")
    ]
    return Fares(
        joined.ids(version, columns["id"]),
        tuple(Decimal(each.decode()) for each in columns["price"].tolist()),
        tuple(each.decode() for each in columns["currency"].tolist()),
        _texts(columns["agency"]),
        tuple(columns["payment_method"].tolist()),
        tuple(None if each == NONE else each for each in columns["transfers"].tolist()),
        tuple(None if each == NONE else each for each in columns["transfer_seconds"].tolist()),
        tuple(version.tolist()),
        # Of the stops last: a zone that no rule names is not among them before.
        stop_zone=zones.of(stops.version.tolist(), stops.zones),
        zones=tuple(zones.texts),
        rule_fare=fare[known].astype(np.int32),
        rule_route=route[known].astype(np.int32),
        rule_origin=rule_zones[0],
        rule_destination=rule_zones[1],
        rule_contains=rule_zones[2],
    )


def _pairs(version: Int64, ids: NDArray[Any]) -> list[tuple[int, bytes]]:
    return list(zip(version.tolist(), ids.tolist(), strict=True))


class _Zones:
    """Numbers for zone ids, each version's own."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[tuple[int, str], int] = {}

    def of(self, versions: Sequence[int], texts: Texts) -> Int32:
        """The numbers of the zones; NONE for an empty one."""
        numbers = np.full(len(texts), NONE, np.int32)
        for at, (version, text) in enumerate(zip(versions, texts, strict=True)):
            if text is not None:
                known = self._numbers.setdefault((version, text), len(self._numbers))
                numbers[at] = known
                if known == len(self.texts):
                    self.texts.append(text)
        return numbers
