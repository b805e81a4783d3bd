"""Networks for tests: recorded feeds imported and loaded, small ones, and what they are asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from consent.gate import Gate
from core.settings import Settings
from core.tokens import ANONYMOUS, Principal
from domains.mobility.network import calendar, load
from domains.mobility.network.load import Network
from domains.mobility.network.timetable import UNTIMED, Timetable
from domains.mobility.realtime.overlay import NOTHING_AT, Overlay
from domains.mobility.sector import SECTOR

Load = Callable[..., Network]
PLANNED = Overlay(NOTHING_AT)
Listed = tuple[int, str, str]
"""When it leaves, from which stop, which trip."""


@contextmanager
def loading(url: str, folder: Path) -> Iterator[Load]:
    """The network of a database as someone sees it."""
    gate = Gate(Settings(database_url=url, data=folder))

    def network(principal: Principal = ANONYMOUS) -> Network:
        with gate.reading(principal, SECTOR) as connection:
            return load.network(connection)

    try:
        yield network
    finally:
        gate.close()


def searched(
    timetable: Timetable, overlay: Overlay, stops: set[int], at: datetime, days: int = 8
) -> list[Listed]:
    """What leaves within so many days, by looking at every stop time of every day."""
    begin, found = at.timestamp(), []
    trips, times = timetable.trips, timetable.stop_times
    for trip, text in enumerate(trips.ids.texts):
        zone = timetable.versions[int(trips.version[trip])].timezone
        low, high = int(trips.offsets[trip]), int(trips.offsets[trip + 1])
        for index in range(low, high - 1):
            if int(times.stop[index]) not in stops or times.pickup[index] == 1:
                continue
            second = int(times.departure[index])
            if second == UNTIMED:
                continue
            today = at.astimezone(calendar.zone(zone)).date()
            for ahead in range(-4, days + 1):
                day = today + timedelta(days=ahead)
                if not timetable.services.on(day)[trips.service[trip]]:
                    continue
                state = overlay.trips.get((trip, day))
                told = second
                if state is not None and not state.cancelled:
                    told = int(state.departure[index - low])
                when = begins(zone, day) + told
                if when >= begin:
                    found.append((when, timetable.stops.ids.texts[int(times.stop[index])], text))
    return sorted(found)


def begins(timezone: str, day: date) -> int:
    """Noon less twelve hours, told once more."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=calendar.zone(timezone))
    return int(noon.timestamp()) - 12 * 3600


def busiest(timetable: Timetable, count: int) -> list[int]:
    """The stops with most stop times."""
    return np.argsort(-np.bincount(timetable.stop_times.stop))[:count].tolist()
