"""What rides cost by GTFS-Fares V1: the cheapest tickets that cover them; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np

from domains.mobility.network.timetable import NONE, Fares, Timetable

RIDES_MAX = 32
"""Of one journey; none of more has a fare."""


@dataclass(frozen=True, slots=True)
class Ride:
    """From boarding to alighting; `stops` are all that it calls at, both ends included.

    Times are in seconds since 1970, or of any one day: only their differences count.
    """

    route: int
    stops: Sequence[int]
    departure: int
    arrival: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One fare, and the rides that it covers: `first` to `last`, both included."""

    fare: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Price:
    """What all rides cost together in one currency."""

    amount: Decimal
    currency: str
    tickets: tuple[Ticket, ...]


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of each version, as they are looked up."""

    by_ends: Mapping[tuple[int, int], tuple[tuple[int, int], ...]]
    """(zone of origin, of destination), each maybe NONE -> (fare, route or NONE)."""
    by_contents: Mapping[frozenset[int], tuple[tuple[int, int, int, int], ...]]
    """Zones passed -> (fare, route, origin, destination), each of the last three maybe NONE."""
    ruleless: Mapping[int, tuple[int, ...]]
    """Fares of each version that no rule names: they hold everywhere."""


def of(timetable: Timetable, rides: Sequence[Ride]) -> tuple[Price, ...] | None:
    """What rides cost, cheapest tickets, one Price a currency; None where a ride has no fare.

    A ticket covers rides one after another of one version, as long as its transfers and
    transfer_duration allow (fare_attributes.txt). A rule holds where all that it gives does:
    the route of the ride, the zones of the first boarding and the last alighting, and, of rules
    that list zones passed (contains_id), exactly those zones (fare_rules.txt).
    """
    if not rides or len(rides) > RIDES_MAX:
        return None
    rules = _rules(timetable.fares)
    # best[n]: the cheapest way to have paid for the first n rides.
    best: list[tuple[Decimal, tuple[Ticket, ...]] | None] = [(Decimal(0), ())]
    for end in range(len(rides)):
        ways = []
        for begin in range(end + 1):
            before = best[begin]
            fare = None if before is None else _cheapest(timetable, rules, rides[begin : end + 1])
            if before is not None and fare is not None:
                price = before[0] + timetable.fares.price[fare]
                ways.append((price, (*before[1], Ticket(fare, begin, end))))
        best.append(min(ways, key=lambda way: (way[0], len(way[1])), default=None))
    return None if best[-1] is None else _prices(timetable.fares, best[-1][1])


def _prices(fares: Fares, tickets: Sequence[Ticket]) -> tuple[Price, ...]:
    by_currency: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        by_currency.setdefault(fares.currency[ticket.fare], []).append(ticket)
    return tuple(
        Price(sum((fares.price[each.fare] for each in some), Decimal(0)), currency, tuple(some))
        for currency, some in sorted(by_currency.items())
    )


def _cheapest(timetable: Timetable, rules: _Rules, rides: Sequence[Ride]) -> int | None:
    """The cheapest fare that covers all these rides as one."""
    fares, routes = timetable.fares, timetable.routes
    versions = {int(routes.version[ride.route]) for ride in rides}
    if len(versions) != 1:
        return None
    (version,) = versions
    having = set(rules.ruleless.get(version, ()))
    held = [_holding(fares, rules, rides, ride.route) for ride in rides]
    having |= set.intersection(*held)
    taken = rides[-1].departure - rides[0].departure
    agencies = {routes.agency[ride.route] for ride in rides}
    fits = [
        fare
        for fare in having
        if _within(fares.transfers[fare], len(rides) - 1)
        and (len(rides) == 1 or _within(fares.transfer_seconds[fare], taken))
        and (fares.agency[fare] is None or agencies <= {fares.agency[fare], None})
    ]
    return min(fits, key=lambda fare: (fares.price[fare], fare), default=None)


def _within(most: int | None, value: int) -> bool:
    return most is None or value <= most


def _holding(fares: Fares, rules: _Rules, rides: Sequence[Ride], route: int) -> set[int]:
    """Fares with a rule that holds for a ride on this route from the first stop to the last."""
    zone = fares.stop_zone
    origin, destination = int(zone[rides[0].stops[0]]), int(zone[rides[-1].stops[-1]])
    held = set()
    for ends in {(o, d) for o in (origin, NONE) for d in (destination, NONE)}:
        held |= {fare for fare, of in rules.by_ends.get(ends, ()) if of in (route, NONE)}
    if rules.by_contents:
        passed = frozenset(int(zone[stop]) for ride in rides for stop in ride.stops) - {NONE}
        for fare, of, start, end in rules.by_contents.get(passed, ()):
            if of in (route, NONE) and start in (origin, NONE) and end in (destination, NONE):
                held.add(fare)
    return held


class _Held:
    """Fares by their identity: a Timetable never changes, and its rules are many."""

    def __init__(self, fares: Fares) -> None:
        self.fares = fares

    def __hash__(self) -> int:
        return id(self.fares)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.fares is self.fares


def _rules(fares: Fares) -> _Rules:
    return _rules_of(_Held(fares))


@lru_cache(maxsize=4)
def _rules_of(held: _Held) -> _Rules:
    fares = held.fares
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    groups: dict[tuple[int, int, int, int], set[int]] = {}
    columns = (
        fares.rule_fare, fares.rule_route, fares.rule_origin, fares.rule_destination,
        fares.rule_contains,
    )  # fmt: skip
    for fare, route, origin, destination, contains in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        if contains == NONE:
            ends.setdefault((origin, destination), []).append((fare, route))
        else:
            groups.setdefault((fare, route, origin, destination), set()).add(contains)
    contents: dict[frozenset[int], list[tuple[int, int, int, int]]] = {}
    for group, zones in groups.items():
        contents.setdefault(frozenset(zones), []).append(group)
    named = set(np.unique(fares.rule_fare).tolist())
    ruleless: dict[int, list[int]] = {}
    for fare, version in enumerate(fares.version):
        if fare not in named:
            ruleless.setdefault(version, []).append(fare)
    return _Rules(
        {key: tuple(each) for key, each in ends.items()},
        {key: tuple(each) for key, each in contents.items()},
        {key: tuple(each) for key, each in ruleless.items()},
    )
