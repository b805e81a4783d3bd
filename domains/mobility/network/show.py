"""Numbers of a Timetable as what the API answers, with names in the caller's language; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from domains.mobility.network import calendar, fares
from domains.mobility.network.departures import Departure
from domains.mobility.network.load import Network
from domains.mobility.network.names import Languages, local
from domains.mobility.network.timetable import NONE

Shown = dict[str, Any]

WHEELCHAIR = {1: True, 2: False}
PATTERNS_MAX = 100


@dataclass(frozen=True, slots=True)
class Show:
    """One network in one caller's languages."""

    network: Network
    languages: Languages

    def stop(self, number: int, metres: float | None = None) -> Shown:
        """A stop, as schemas.Stop has it."""
        stops = self.network.timetable.stops
        text = stops.ids.texts[number]
        longitude, latitude = float(stops.longitude[number]), float(stops.latitude[number])
        placed = longitude == longitude and latitude == latitude  # noqa: PLR0124 - not NaN
        parent = int(stops.parent[number])
        return {
            "id": text,
            "feed": text.partition(":")[0],
            "name": self.named("stops", "stop_name", number, stops.names[number]) or "",
            "code": stops.codes[number],
            "platform": stops.platforms[number],
            "zone": stops.zones[number],
            "longitude": longitude if placed else None,
            "latitude": latitude if placed else None,
            "location_type": int(stops.location_type[number]),
            "parent": None if parent == NONE else stops.ids.texts[parent],
            "wheelchair": WHEELCHAIR.get(int(stops.wheelchair[number])),
            "metres": None if metres is None else round(metres),
        }

    def named(self, table: str, field: str, number: int, value: str | None) -> str | None:
        """A field of a stop, a route or a trip in the caller's language."""
        rows = getattr(self.network.timetable, table)
        record = local(rows.ids.texts[number])
        if table == "trips":
            record = record.partition("@")[0]  # one of frequencies.txt
        version = int(rows.version[number])
        return self.network.names.of(self.languages, version, (table, field), record, value)

    def route(self, number: int) -> Shown:
        """A route, as schemas.Route has it."""
        routes = self.network.timetable.routes
        text = routes.ids.texts[number]
        short, long = routes.short_names[number], routes.long_names[number]
        return {
            "id": text,
            "feed": text.partition(":")[0],
            "agency": routes.agency[number],
            "short_name": self.named("routes", "route_short_name", number, short),
            "long_name": self.named("routes", "route_long_name", number, long),
            "type": int(routes.type[number]),
            "colour": routes.colours[number],
        }

    def departures(self, found: Sequence[Departure]) -> list[Shown]:
        """Departures, as schemas.Departure has them; each route is made once."""
        routes: dict[int, Shown] = {}
        return [self._departure(each, routes) for each in found]

    def _departure(self, departure: Departure, routes: dict[int, Shown]) -> Shown:
        timetable = self.network.timetable
        trip, stop = departure.trip, departure.stop
        route = int(timetable.trips.route[trip])
        if route not in routes:
            routes[route] = self.route(route)
        timezone = timetable.versions[int(timetable.trips.version[trip])].timezone
        direction = int(timetable.trips.direction[trip])
        stays = departure.cancelled or departure.skipped
        return {
            "stop": timetable.stops.ids.texts[stop],
            "platform": timetable.stops.platforms[stop],
            "trip": timetable.trips.ids.texts[trip],
            "route": routes[route],
            "headsign": self.headsign(trip, departure.index),
            "direction": None if direction == NONE else direction,
            "service_day": departure.day.isoformat(),
            "holiday": calendar.holiday(timezone, departure.day),
            "scheduled": moment(timezone, departure.scheduled),
            "expected": None if stays else moment(timezone, departure.expected),
            "realtime": departure.realtime,
            "cancelled": departure.cancelled,
            "skipped": departure.skipped,
            "wheelchair": _both(timetable.trips.wheelchair[trip], timetable.stops.wheelchair[stop]),
            "vehicle": departure.vehicle,
        }

    def headsign(self, trip: int, index: int) -> str | None:
        """That of a stop time (by its index), else its trip's."""
        timetable = self.network.timetable
        codes = timetable.stop_times.headsign
        code = int(codes[index]) if codes.size else NONE
        value = timetable.trips.headsigns[trip]
        if code == NONE:
            return self.named("trips", "trip_headsign", trip, value)
        trips = timetable.trips
        return self.network.names.of(
            self.languages,
            int(trips.version[trip]),
            ("stop_times", "stop_headsign"),
            local(trips.ids.texts[trip]).partition("@")[0],
            timetable.headsigns[code],
            str(timetable.stop_times.sequence[index]),
        )

    def patterns(self, route: int, shape: Callable[[int], Shown | None]) -> list[Shown]:
        """The orders of stops that a route's trips have, the most frequent first."""
        timetable = self.network.timetable
        trips, offsets = timetable.trips, timetable.trips.offsets
        groups: dict[bytes, list[int]] = {}
        for trip in np.flatnonzero(trips.route == route).tolist():
            stops = timetable.stop_times.stop[offsets[trip] : offsets[trip + 1]]
            groups.setdefault(stops.tobytes(), []).append(trip)
        groups.pop(b"", None)
        shown = []
        for group in sorted(groups.values(), key=len, reverse=True)[:PATTERNS_MAX]:
            trip = group[0]
            stops = timetable.stop_times.stop[offsets[trip] : offsets[trip + 1]].tolist()
            direction = int(trips.direction[trip])
            own = shape(int(trips.shape[trip]))
            value = trips.headsigns[trip]
            shown.append(
                {
                    "headsign": self.named("trips", "trip_headsign", trip, value),
                    "direction": None if direction == NONE else direction,
                    "trips": len(group),
                    "stops": [timetable.stops.ids.texts[stop] for stop in stops],
                    "shape": own or self._straight(stops),
                }
            )
        return shown

    def _straight(self, stops: Sequence[int]) -> Shown | None:
        known = self.network.timetable.stops
        places = [
            (float(known.longitude[stop]), float(known.latitude[stop]))
            for stop in stops
            if np.isfinite(known.longitude[stop]) and np.isfinite(known.latitude[stop])
        ]
        return line(places) if len(places) > 1 else None

    def prices(self, route: int, prices: Sequence[fares.Price]) -> list[Shown]:
        """What one route costs, as schemas.Fare has it."""
        text = self.network.timetable.routes.ids.texts[route]
        return [
            {
                "route": text,
                "price": number(price.amount),
                "currency": price.currency,
                "tickets": [self._ticket(each) for each in price.tickets],
            }
            for price in prices
        ]

    def _ticket(self, ticket: fares.Ticket) -> Shown:
        known, fare = self.network.timetable.fares, ticket.fare
        return {
            "fare": known.ids.texts[fare],
            "price": number(known.price[fare]),
            "currency": known.currency[fare],
            "rides": ticket.last - ticket.first + 1,
            "on_board": known.payment_method[fare] == 0,
            "transfers": known.transfers[fare],
            "transfer_seconds": known.transfer_seconds[fare],
        }


def number(amount: Decimal) -> int | float:
    """An amount as JSON has it: whole where it is."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def line(places: Sequence[tuple[float, float]]) -> Shown:
    """A LineString (RFC 7946, 3.1.4)."""
    return {"type": "LineString", "coordinates": [list(place) for place in places]}


def moment(timezone: str, seconds: int) -> str:
    """Seconds since 1970 as ISO 8601 with the offset of a zone at that time."""
    return datetime.fromtimestamp(seconds, calendar.zone(timezone)).isoformat()


def _both(trip: int, stop: int) -> bool | None:
    """Whether a wheelchair can board: each of the two may forbid it, both must allow it."""
    told = (WHEELCHAIR.get(int(trip)), WHEELCHAIR.get(int(stop)))
    if False in told:
        return False
    return True if told == (True, True) else None
