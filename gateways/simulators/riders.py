"""People who ride the demo city's buses: their phones' tracks (GPX) and their cards' taps.

One rider for each line and direction; each rides one bus of it in half an hour from end to end, so
that nobody is in two at once. Who may see it is said by the riders' grants, as in any city.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from core.clock import MICROSECONDS
from domains.mobility import wire
from gateways.simulators import buses
from gateways.simulators.buses import Bus, Line

GATEWAY = "demo-riders"
REPORT_SECONDS = 30
EVERY_SECONDS = 1_800
"""A ride takes less, however late its bus is."""


@dataclass(frozen=True, slots=True)
class Rider:
    """Somebody with a phone and a card."""

    person: str
    phone: str
    card: str
    line: Line
    grants: bool
    """Two of three let the demo's MaaS operator see where they are."""


@cache
def riders() -> tuple[Rider, ...]:
    """Everybody who rides."""
    return tuple(
        Rider(f"demo-rider-{n}", f"demo-phone-{n}", f"demo-card-{n}", line, n % 3 != 0)
        for n, line in enumerate(buses.lines(), 1)
    )


def riding(time_us: int) -> Iterator[tuple[Rider, Bus]]:
    """Who is on which bus."""
    by_line = {(rider.line.number, rider.line.direction): rider for rider in riders()}
    for bus in buses.on_the_road(time_us):
        if (bus.start - bus.line.starts[0]) % EVERY_SECONDS == 0:
            yield by_line[bus.line.number, bus.line.direction], bus


def tracks(time_us: int) -> Iterator[bytes]:
    """A GPX file of one point for each phone that is on a bus."""
    now = datetime.fromtimestamp(time_us // MICROSECONDS, UTC)
    for rider, bus in riding(time_us):
        point = wire.Point(now, bus.longitude, bus.latitude, bus.speed, bus.bearing)
        yield wire.write_gpx([point], rider.phone)


def taps(time_us: int, since_us: int) -> list[wire.Tap]:
    """Cards at a reader after `since_us`, up to now: in at one end, out at the other."""
    before = {(bus.trip, bus.day): (rider, bus) for rider, bus in riding(since_us)}
    after = {(bus.trip, bus.day): (rider, bus) for rider, bus in riding(time_us)}
    now = datetime.fromtimestamp(time_us // MICROSECONDS, UTC)
    found = [_tap(*after[key], now, "in") for key in after.keys() - before.keys()]
    found += [
        _tap(*before[key], now - timedelta(seconds=1), "out")
        for key in before.keys() - after.keys()
    ]
    return sorted(found, key=lambda tap: (tap.time, tap.card))


def _tap(rider: Rider, bus: Bus, time: datetime, event: str) -> wire.Tap:
    stop = bus.line.stops[0 if event == "in" else -1].id
    fare = buses.FARE_YEN if event == "out" else None
    return wire.Tap(time, rider.card, event, stop, bus.line.number, buses.TIMETABLE, fare)
