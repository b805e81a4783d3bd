"""On which days services run, by arithmetic on weeks: a calendar of 200 years costs no more."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from domains.mobility.gtfs.rows import Part

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Running:
    """The days of one service: how many, the first and the last; None where there is none."""

    count: int
    first: date | None
    last: date | None


@dataclass(frozen=True, slots=True)
class Service:
    """One service: what calendar.txt says, and the exceptions of calendar_dates.txt."""

    weekdays: int
    start: date | None
    end: date | None
    added: frozenset[date]
    removed: frozenset[date]

    def runs(self, day: date) -> bool:
        """Whether it runs on this day."""
        if day in self.added:
            return True
        return day not in self.removed and self._listed(day)

    def _listed(self, day: date) -> bool:
        return (
            self.start is not None
            and self.end is not None
            and self.start <= day <= self.end
            and bool(self.weekdays >> day.weekday() & 1)
        )

    def running(self) -> Running:
        """Count, first and last of its days."""
        count = len([day for day in self.added if not self._listed(day)])
        ends = [*self.added]
        if self.start is not None and self.end is not None and self.weekdays:
            mask = "".join("1" if self.weekdays >> bit & 1 else "0" for bit in range(7))
            listed = int(np.busday_count(self.start, self.end + DAY, weekmask=mask))
            count += max(0, listed) - len([d for d in self.removed if self._listed(d)])
            if listed > 0:
                ends += self._edge(self.start, DAY) + self._edge(self.end, -DAY)
        return Running(count, min(ends, default=None), max(ends, default=None))

    def _edge(self, day: date, step: timedelta) -> list[date]:
        """The first listed day that no exception takes away, from one end on."""
        while self._inside(day):
            if self.runs(day):
                return [day]
            day += step
        return []

    def _inside(self, day: date) -> bool:
        return self.start is not None and self.end is not None and self.start <= day <= self.end


def services(service: Part, exceptions: Part) -> list[Service]:
    """One Service a row of mobility.service."""
    added: list[set[date]] = [set() for _ in range(len(service))]
    removed: list[set[date]] = [set() for _ in range(len(service))]
    columns = (exceptions.columns[name].to_pylist() for name in ("service", "date", "runs"))
    for number, day, runs in zip(*columns, strict=True):
        (added if runs else removed)[number].add(day)
    of = (service.columns[name].to_pylist() for name in ("weekdays", "start_date", "end_date"))
    return [
        Service(weekdays, start, end, frozenset(plus), frozenset(minus))
        for weekdays, start, end, plus, minus in zip(*of, added, removed, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Calendar:
    """All services of a feed, when each runs, and the days that the feed is for."""

    services: list[Service]
    running: list[Running]
    valid_from: date | None
    valid_to: date | None


def calendar(service: Part, exceptions: Part, start: date | None, end: date | None) -> Calendar:
    """The calendar of mobility.service and service_date; start and end as feed_info says."""
    found = services(service, exceptions)
    running = [each.running() for each in found]
    return Calendar(found, running, *validity(running, start, end))


def validity(
    running: list[Running], start: date | None, end: date | None
) -> tuple[date | None, date | None]:
    """First and last day: what runs, within what feed_info says."""
    firsts = [each.first for each in running if each.first is not None]
    lasts = [each.last for each in running if each.last is not None]
    if not firsts or not lasts:
        return None, None
    valid_from = max(filter(None, (min(firsts), start)))
    valid_to = min(filter(None, (max(lasts), end)))
    return (valid_from, valid_to) if valid_from <= valid_to else (None, None)
