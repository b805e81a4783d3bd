"""Which stops and routes a query means, and which page of them; vectorised."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from core.errors import invalid
from domains.mobility.network import near
from domains.mobility.network.asked import Box
from domains.mobility.network.load import Network
from domains.mobility.network.names import fold
from domains.mobility.network.timetable import Float64, Ids, Int32

Int64 = NDArray[np.int64]
Circle = tuple[float, float, float]


def chosen_stops(
    network: Network,
    at: datetime,
    circle: Circle | None,
    box: Box | None,
    text: str | None,
    feed: str | None,
) -> tuple[Int64, Float64 | None]:
    """Numbers of stops in their order, and the metres of every stop from the circle's middle."""
    stops = network.timetable.stops
    chosen = _shown(network, at, stops.version, feed)
    if text is not None:
        named = np.zeros(chosen.size, np.bool_)
        named[list(network.search.find(text))] = True
        chosen &= named
    if box is not None:
        west, south, east, north = box
        inside = (stops.longitude >= west, stops.longitude <= east)
        chosen &= (inside[0] & inside[1]) if west <= east else (inside[0] | inside[1])
        chosen &= (stops.latitude >= south) & (stops.latitude <= north)
    if circle is None:
        return np.flatnonzero(chosen), None
    metres = near.metres(stops.longitude, stops.latitude, circle[0], circle[1])
    found = np.flatnonzero(chosen & (metres <= circle[2]))
    return found[np.argsort(metres[found], kind="stable")], metres


def chosen_routes(network: Network, at: datetime, text: str | None, feed: str | None) -> Int64:
    """Numbers of routes in their order."""
    routes = network.timetable.routes
    chosen = _shown(network, at, routes.version, feed)
    if text is not None:
        wanted = fold(text)
        pairs = zip(routes.short_names, routes.long_names, strict=True)
        chosen &= np.array([wanted in fold(f"{a or ''}\t{b or ''}") for a, b in pairs], np.bool_)
    return np.flatnonzero(chosen)


def _shown(network: Network, at: datetime, version: Int32, feed: str | None) -> NDArray[np.bool_]:
    shown = network.shown(at)
    if feed is not None:
        shown &= np.array([each.feed == feed for each in network.timetable.versions], np.bool_)
    rows: NDArray[np.bool_] = shown[version]
    return rows


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    numbers: Sequence[int]
    last: str | None
    """The id that it ends with, where more follows."""

    @classmethod
    def of(cls, ids: Ids, found: Int64, after: str | None, limit: int) -> "Page":
        """The part that follows an id; CityError `invalid` for one that is not in the list."""
        begin = 0
        if after is not None:
            at = np.flatnonzero(np.isin(found, ids.all_of(after)))
            if not at.size:
                raise invalid("after", "take it from `next` as it is")
            begin = int(at[-1]) + 1
        numbers: list[Any] = found[begin : begin + limit].tolist()
        more = begin + limit < found.size
        return cls(numbers, ids.texts[numbers[-1]] if more else None)

    def next_path(self, request: Request) -> str | None:
        """This request's path with another `after`; None on the last page."""
        if self.last is None:
            return None
        url = request.url.include_query_params(after=self.last)
        return f"{url.path}?{url.query}"
