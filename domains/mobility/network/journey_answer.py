"""A journey as it is answered: names, times in the zone of the place, and what touches it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

import numpy as np

from domains.mobility.network import fares
from domains.mobility.network import journey_schemas as schemas
from domains.mobility.network.calendar import day_start, zone
from domains.mobility.network.journeys import Journey, Leg, Place, Way
from domains.mobility.network.modes import mode_of
from domains.mobility.network.raptor import Ride
from domains.mobility.network.show import Show
from domains.mobility.network.timetable import NONE, UNTIMED, Timetable
from domains.mobility.realtime.overlay import Overlay

ENTITIES_MAX = 1_000
"""Entities of one alert that are looked at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the documents of journeys are made with."""

    show: Show
    overlay: Overlay
    geometry: bool = False

    @property
    def timetable(self) -> Timetable:
        """That whose numbers journeys have."""
        return self.show.network.timetable

    def journey(self, journey: Journey) -> schemas.Journey:
        """One journey."""
        legs = [self._leg(journey, leg) for leg in journey.legs]
        rides = journey.rides
        return schemas.Journey(
            departure=legs[0].departure.expected,
            arrival=legs[-1].arrival.expected,
            duration_seconds=journey.arrival - journey.departure,
            transfers=max(len(rides) - 1, 0),
            walking_metres=round(journey.walking_metres, 1),
            realtime=any(leg.realtime for leg in legs),
            estimated=any(leg.estimated for leg in legs),
            fares=self._fares(rides),
            alerts=sorted({alert for leg in legs for alert in leg.alerts}),
            legs=legs,
        )

    def _fares(self, rides: Sequence[Ride]) -> list[schemas.JourneyFare]:
        """What the rides cost; nothing where one of them has no fare."""
        table, paid = self.timetable, []
        for ride in rides:
            first = int(table.trips.offsets[ride.trip])
            called = table.stop_times.stop[first + ride.board : first + ride.alight + 1].tolist()
            route = int(table.trips.route[ride.trip])
            paid.append(fares.Ride(route, called, ride.departure, ride.arrival))
        return [
            schemas.JourneyFare(price=float(price.amount), currency=price.currency)
            for price in fares.of(table, paid) or ()
        ]

    def spot(self, place: Place) -> schemas.Spot:
        """A place, by the name of its stop where it is one."""
        name: str | None = place.name
        platform = None
        if place.stop != NONE:
            name = self.show.named("stops", "stop_name", place.stop, place.name)
            platform = self.timetable.stops.platforms[place.stop]
        placed = np.isfinite(place.at).all()
        return schemas.Spot(
            id=place.id,
            name=name or None,
            platform=platform,
            longitude=place.longitude if placed else None,
            latitude=place.latitude if placed else None,
        )

    def _leg(self, journey: Journey, leg: Leg) -> schemas.Leg:
        if isinstance(leg, Ride):
            return self._ride(leg)
        return self._way(leg, self._zone(journey))

    def _zone(self, journey: Journey) -> tzinfo:
        """The zone of the first ride, else of the first feed."""
        versions = self.timetable.versions
        for ride in journey.rides:
            return zone(versions[self.timetable.trips.version[ride.trip]].timezone)
        return zone(versions[0].timezone if versions else "UTC")

    def _way(self, way: Way, local: tzinfo) -> schemas.Leg:
        begin, end = (datetime.fromtimestamp(t, local) for t in (way.departure, way.arrival))
        return schemas.Leg(
            mode=way.mode,
            origin=self.spot(way.origin),
            destination=self.spot(way.target),
            departure=schemas.Moment(scheduled=begin, expected=begin),
            arrival=schemas.Moment(scheduled=end, expected=end),
            duration_seconds=way.arrival - way.departure,
            metres=round(way.metres, 1),
            estimated=way.estimated or way.mode == "bike",
            geometry=self._line([way.origin.at, way.target.at]),
        )

    def _ride(self, ride: Ride) -> schemas.Leg:
        table = self.timetable
        trips, routes = table.trips, table.routes
        route = int(trips.route[ride.trip])
        calls = [self._call(ride, call) for call in range(ride.board, ride.alight + 1)]
        first, last = calls[0], calls[-1]
        departure, arrival = first.departure or first.arrival, last.arrival or last.departure
        if departure is None or arrival is None:
            raise RuntimeError("a ride begins and ends at calls with times")
        shown = self.show.route(route)
        accessible = int(trips.wheelchair[ride.trip])
        return schemas.Leg(
            mode=mode_of(int(routes.type[route])),
            origin=first.stop,
            destination=last.stop,
            departure=departure,
            arrival=arrival,
            duration_seconds=ride.arrival - ride.departure,
            realtime=(ride.trip, ride.day) in self.overlay.trips,
            trip=trips.ids.texts[ride.trip],
            service_day=ride.day,
            route=schemas.LegRoute(
                id=routes.ids.texts[route],
                short_name=shown["short_name"],
                long_name=shown["long_name"],
                type=int(routes.type[route]),
                colour=routes.colours[route],
            ),
            headsign=self.show.headsign(ride.trip, int(trips.offsets[ride.trip]) + ride.board),
            wheelchair_accessible=None if not accessible else accessible == 1,
            stops=calls[1:-1],
            geometry=self._line([(c.stop.longitude, c.stop.latitude) for c in calls]),
            alerts=alerts_of(table, self.overlay, ride),
        )

    def _call(self, ride: Ride, call: int) -> schemas.Call:
        """One call of a trip, as planned and as it is expected."""
        table, row = self.timetable, int(self.timetable.trips.offsets[ride.trip]) + call
        timezone = table.versions[table.trips.version[ride.trip]].timezone
        zero, local = day_start(timezone, ride.day), zone(timezone)
        state = self.overlay.trips.get((ride.trip, ride.day))

        def moment(planned: int, predicted: int) -> schemas.Moment | None:
            if planned == UNTIMED and predicted == UNTIMED:
                return None
            both = (
                (planned if planned != UNTIMED else predicted),
                (predicted if predicted != UNTIMED else planned),
            )
            times = [datetime.fromtimestamp(zero + each, local) for each in both]
            return schemas.Moment(scheduled=times[0], expected=times[1])

        came, left = int(table.stop_times.arrival[row]), int(table.stop_times.departure[row])
        real = (came, left) if state is None else (state.arrival[call], state.departure[call])
        stop = int(table.stop_times.stop[row])
        stops = table.stops
        at = float(stops.longitude[stop]), float(stops.latitude[stop])
        return schemas.Call(
            stop=self.spot(Place(*at, stops.names[stop], stops.ids.texts[stop], stop)),
            arrival=moment(came, int(real[0])),
            departure=moment(left, int(real[1])),
            skipped=state is not None and bool(state.skipped[call]),
        )

    def _line(self, points: list[Any]) -> schemas.Line | None:
        """A line through what has a place, if lines are wanted."""
        if not self.geometry:
            return None
        placed = [(x, y) for x, y in points if x is not None and np.isfinite((x, y)).all()]
        return schemas.Line(coordinates=placed) if len(placed) > 1 else None


def alerts_of(timetable: Timetable, overlay: Overlay, ride: Ride) -> list[str]:
    """The alerts that name the ride's trip, its route, or where one boards or alights.

    A feed of real time has another id than its timetable: ids are compared as feeds give them.
    """
    stops, parents = timetable.stops.ids.texts, timetable.stops.parent
    ends = {ride.from_stop, ride.to_stop}
    ends |= {int(parents[stop]) for stop in ends} - {NONE}
    trip = timetable.trips.ids.texts[ride.trip]
    mine = {
        "stopId": {_own(stops[stop]) for stop in ends},
        "routeId": {_own(timetable.routes.ids.texts[timetable.trips.route[ride.trip]])},
        "tripId": {_own(trip), _own(trip).partition("@")[0]},
    }
    feed, feeds = trip.partition(":")[0], {version.feed for version in timetable.versions}
    return [
        name
        for name, alert in overlay.alerts.items()
        if (name.partition(":")[0] == feed or name.partition(":")[0] not in feeds)
        and _touches(alert, mine, ride)
    ]


def _own(text: str) -> str:
    return text.partition(":")[2]


def _touches(alert: Mapping[str, Any], mine: Mapping[str, set[str]], ride: Ride) -> bool:
    """Whether an alert holds during the ride, and one of its entities names nothing but it."""
    periods = alert.get("activePeriod") or ()
    if isinstance(periods, list) and periods and not any(_during(each, ride) for each in periods):
        return False
    entities = alert.get("informedEntity")
    if not isinstance(entities, list):
        return False
    for entity in entities[:ENTITIES_MAX]:
        if not isinstance(entity, Mapping):
            continue
        trip = entity.get("trip")
        named = {**(trip if isinstance(trip, Mapping) else {}), **entity}
        told = {key: named[key] for key in mine if isinstance(named.get(key), str)}
        if told and all(told[key] in mine[key] for key in told):
            return True
    return False


def _during(period: Any, ride: Ride) -> bool:
    """Whether a TimeRange (epoch seconds; protobuf's JSON writes them as texts) meets the ride."""
    try:
        begin = int(period.get("start") or 0)
        end = int(period.get("end") or 1 << 60)
    except (AttributeError, TypeError, ValueError):
        return True
    return begin <= ride.arrival and ride.departure < end
