"""Streets as one walks them: arrays of crossings and of the ways between, where a place is on them,
and the shortest ways from there. Pure.

A way is no longer than its straight pieces together (great circle); what it costs is metres alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import rustworkx as rx
from numpy.typing import NDArray

from domains.mobility.network.timetable import Float64

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

EARTH_METRES = 6371008.8
UNIT = 1e-7
"""Degrees, of the arrays' places: as OpenStreetMap has them."""
ROW_DEGREES = 0.0025
"""Rows of the index, 278 m high: three of them hold all within SNAP_METRES and half a PIECE."""
PIECE_METRES = 100.0
"""The longest piece of a way; longer ones are cut, so that their middles find them."""
SNAP_METRES = 200.0
"""How far a place may be from the nearest way to be on it."""
SNAPS_AT_ONCE = 128
ROW_WIDTH = 1024.0
SEARCH_NODES_MAX = 200_000
"""Crossings that one search looks at: a circle of 5 km in the densest of cities."""


def straight_metres(
    longitude: float | Float64, latitude: float | Float64, to_longitude: Float64,
    to_latitude: Float64,
) -> Float64:  # fmt: skip
    """Great circle distances (haversine)."""
    begin, end = np.radians(latitude), np.radians(to_latitude)
    turn = np.radians(to_longitude - np.asarray(longitude))
    half = np.sin((end - begin) / 2) ** 2 + np.cos(begin) * np.cos(end) * np.sin(turn / 2) ** 2
    return np.asarray(2 * EARTH_METRES * np.arcsin(np.sqrt(np.minimum(half, 1.0))), np.float64)


def degrees(places: Int32) -> Float64:
    """Of places in UNIT."""
    return np.asarray(places * UNIT, np.float64)


def rows_of(y: Int32) -> Float64:
    """The row of the index in which a latitude is."""
    return np.floor(degrees(y) / ROW_DEGREES)


@dataclass(frozen=True, slots=True)
class Arrays:
    """n crossings and ends, m ways between them, p points of the ways; places in UNIT.

    Crossings are in order of row and longitude, ways in order of where they begin.
    """

    node_x: Int32
    node_y: Int32
    begin: Int32
    end: Int32
    offsets: Int32
    """m + 1: the points of way w are `offsets[w]:offsets[w + 1]`, both ends among them."""
    stepped: NDArray[np.uint8]
    """1 where a wheelchair cannot go: steps, high kerbs."""
    point_x: Int32
    point_y: Int32


@dataclass(frozen=True, slots=True)
class Snapped:
    """Where places are on the network."""

    way: Int64
    """-1 for a place that is further than SNAP_METRES from every way."""
    along: Float64
    """Metres from the beginning of the way."""
    off: Float64
    """Metres between place and way, in a straight line."""
    inside: Bool
    """Whether the place is where streets are known (also those that it may not use)."""

    def at(self, numbers: Int64) -> "Snapped":
        """Those of some places."""
        return Snapped(
            self.way[numbers], self.along[numbers], self.off[numbers], self.inside[numbers]
        )


class Streets:
    """A network to walk on; immutable, shared by threads."""

    def __init__(self, arrays: Arrays, attribution: str = "") -> None:
        self.arrays = arrays
        self.attribution = attribution
        x, y = degrees(arrays.point_x), degrees(arrays.point_y)
        last = arrays.offsets[1:-1]
        pieces = straight_metres(x[:-1], y[:-1], x[1:], y[1:])
        pieces[last - 1] = 0.0
        total = np.concatenate(([0.0], np.cumsum(pieces)))
        firsts = arrays.offsets[:-1]
        counts = np.diff(arrays.offsets)
        self.along: Float64 = total - np.repeat(total[firsts], counts)
        """Metres from the beginning of its way to each point."""
        self.metres: Float64 = self.along[arrays.offsets[1:] - 1]
        self.way_of: Int32 = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.usable: Bool = arrays.stepped == 0
        self._row_begins = self._rows(arrays.node_x, arrays.node_y)

    @staticmethod
    def _rows(x: Int32, y: Int32) -> Float64:
        return rows_of(y) * ROW_WIDTH + x * UNIT

    @cached_property
    def _pieces(self) -> tuple[Int32, Float64]:
        """The pieces of ways by their middles, in order of row and longitude."""
        arrays = self.arrays
        own = np.ones(len(arrays.point_x), np.bool_)
        own[arrays.offsets[1:] - 1] = False
        first = np.flatnonzero(own).astype(np.int32)
        middle_x = (arrays.point_x[first].astype(np.int64) + arrays.point_x[first + 1]) // 2
        middle_y = (arrays.point_y[first].astype(np.int64) + arrays.point_y[first + 1]) // 2
        keys = self._rows(middle_x.astype(np.int32), middle_y.astype(np.int32))
        order = np.argsort(keys, kind="stable")
        return first[order], keys[order]

    def snap(self, longitude: Float64, latitude: Float64, *, wheelchair: bool = False) -> Snapped:
        """The nearest way of each place, within SNAP_METRES; a NaN place is on none."""
        count = len(longitude)
        found = Snapped(
            np.full(count, -1, np.int64), np.zeros(count), np.zeros(count),
            np.zeros(count, np.bool_),
        )  # fmt: skip
        for low in range(0, count, SNAPS_AT_ONCE):
            part = slice(low, low + SNAPS_AT_ONCE)
            self._snap(np.asarray(longitude[part], np.float64),
                       np.asarray(latitude[part], np.float64),
                       found, low, wheelchair=wheelchair)  # fmt: skip
        return found

    def _snap(
        self, longitude: Float64, latitude: Float64, found: Snapped, low: int, *, wheelchair: bool
    ) -> None:
        first, keys = self._pieces
        row = np.floor(np.nan_to_num(latitude) / ROW_DEGREES)
        scale = np.cos(np.radians(np.clip(np.nan_to_num(latitude), -89.0, 89.0)))
        wide = np.minimum(np.degrees((SNAP_METRES + PIECE_METRES) / EARTH_METRES) / scale, 90.0)
        centre = np.nan_to_num(longitude)
        begins = [np.searchsorted(keys, (row + n) * ROW_WIDTH + centre - wide) for n in (-1, 0, 1)]
        ends = [np.searchsorted(keys, (row + n) * ROW_WIDTH + centre + wide) for n in (-1, 0, 1)]
        begin, end = np.concatenate(begins), np.concatenate(ends)
        lengths = end - begin
        whose = np.repeat(np.tile(np.arange(len(centre)), 3), lengths)
        starts = np.cumsum(lengths) - lengths
        at = np.arange(int(lengths.sum())) - np.repeat(starts - begin, lengths)
        piece = first[at]
        off, share = self._distances(piece, longitude[whose], latitude[whose], scale[whose])
        near = off <= SNAP_METRES
        whose, piece, off, share = whose[near], piece[near], off[near], share[near]
        found.inside[low + whose] = True
        if wheelchair:
            fit = self.usable[self.way_of[piece]]
            whose, piece, off, share = whose[fit], piece[fit], off[fit], share[fit]
        order = np.lexsort((off, whose))
        best = order[np.diff(whose[order], prepend=-1) != 0]
        places, piece = low + whose[best], piece[best]
        found.way[places] = self.way_of[piece]
        found.off[places] = off[best]
        long = self.along[piece + 1] - self.along[piece]
        found.along[places] = self.along[piece] + share[best] * long

    def _distances(
        self, piece: Int32, longitude: Float64, latitude: Float64, scale: Float64
    ) -> tuple[Float64, Float64]:
        """Metres from places to pieces, and how much of the piece comes before the nearest point.

        In the plane that touches the globe there: within some hundreds of metres it is as good.
        """
        arrays, metres = self.arrays, np.radians(1.0) * EARTH_METRES
        x0 = (arrays.point_x[piece] * UNIT - longitude) * scale * metres
        y0 = (arrays.point_y[piece] * UNIT - latitude) * metres
        x1 = (arrays.point_x[piece + 1] * UNIT - longitude) * scale * metres
        y1 = (arrays.point_y[piece + 1] * UNIT - latitude) * metres
        along_x, along_y = x1 - x0, y1 - y0
        square = along_x**2 + along_y**2
        share = -(x0 * along_x + y0 * along_y) / np.where(square > 0, square, 1.0)
        share = np.clip(share, 0.0, 1.0)
        return np.hypot(x0 + share * along_x, y0 + share * along_y), share

    def around(
        self, places: Snapped, lead: Float64, metres_max: float, *, wheelchair: bool = False
    ) -> "Walked | None":
        """The shortest ways from the nearest of some places, `lead` metres behind, to crossings.

        None where that is over SEARCH_NODES_MAX crossings to look at.
        """
        on = np.flatnonzero((places.way >= 0) & (lead + places.off <= metres_max))
        ways, base = places.way[on], (lead + places.off)[on]
        begin, end = self.arrays.begin[ways], self.arrays.end[ways]
        source = np.concatenate((begin, end)).astype(np.int64)
        cost = np.concatenate(
            (base + places.along[on], base + self.metres[ways] - places.along[on])
        )
        near = cost <= metres_max
        source, cost = source[near], cost[near]
        nodes = self._within(source, metres_max - cost)
        if len(nodes) > SEARCH_NODES_MAX:
            return None
        distance = self._search(nodes, source, cost, wheelchair=wheelchair)
        distance[distance > metres_max] = np.inf
        return Walked(self, nodes, distance, metres_max, wheelchair)

    def _within(self, source: Int64, metres: Float64) -> Int64:
        """All crossings within so many metres, in a straight line, of one of some crossings.

        They are looked for in the box about each row of sources: no way that is short enough
        leaves it.
        """
        if not len(source):
            return np.zeros(0, np.int64)
        x, y = self.arrays.node_x[source] * UNIT, self.arrays.node_y[source] * UNIT
        high = np.degrees(metres / EARTH_METRES) + 1e-6
        flat = np.cos(np.radians(np.minimum(np.abs(y) + high, 89.0)))
        wide = np.minimum(high / flat, 180.0)
        low_row = np.floor((y - high) / ROW_DEGREES).astype(np.int64)
        high_row = np.floor((y + high) / ROW_DEGREES).astype(np.int64)
        west: dict[int, float] = {}
        east: dict[int, float] = {}
        for a, b, left, right in zip(
            low_row.tolist(), high_row.tolist(), (x - wide).tolist(), (x + wide).tolist(),
            strict=True,
        ):  # fmt: skip
            for row in range(a, b + 1):
                west[row] = min(west.get(row, left), left)
                east[row] = max(east.get(row, right), right)
        rows = np.array(sorted(west), np.float64) * ROW_WIDTH
        begins = np.searchsorted(self._row_begins, rows + [west[row] for row in sorted(west)])
        ends = np.searchsorted(
            self._row_begins, rows + [east[row] for row in sorted(west)], side="right"
        )
        parts = [np.arange(a, b) for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        return np.concatenate(parts).astype(np.int64)

    def _search(self, nodes: Int64, source: Int64, cost: Float64, *, wheelchair: bool) -> Float64:
        """Metres to each of `nodes` by ways between them."""
        distance = np.full(len(nodes), np.inf)
        if not len(source):
            return distance
        arrays, count = self.arrays, len(nodes)
        lows = np.searchsorted(arrays.begin, nodes)
        lengths = np.searchsorted(arrays.begin, nodes, side="right") - lows
        starts = np.cumsum(lengths) - lengths
        ways = np.arange(int(lengths.sum())) - np.repeat(starts - lows, lengths)
        if wheelchair:
            fit = self.usable[ways]
            begin = np.repeat(np.arange(count), lengths)[fit]
            ways = ways[fit]
        else:
            begin = np.repeat(np.arange(count), lengths)
        end = np.searchsorted(nodes, arrays.end[ways])
        known = (end < count) & (nodes[np.minimum(end, count - 1)] == arrays.end[ways])
        begin, end, metres = begin[known], end[known], self.metres[ways[known]]
        graph = rx.PyGraph()
        graph.add_nodes_from(range(count + 1))
        graph.extend_from_weighted_edge_list(
            list(zip(begin.tolist(), end.tolist(), metres.tolist(), strict=True))
            + list(
                zip([count] * len(source), np.searchsorted(nodes, source).tolist(), cost.tolist(),
                    strict=True)
            )
        )  # fmt: skip
        lengths_of: Mapping[int, float] = rx.dijkstra_shortest_path_lengths(graph, count, float)
        reached = np.fromiter(lengths_of.keys(), np.int64, len(lengths_of))
        distance[reached] = np.fromiter(lengths_of.values(), np.float64, len(lengths_of))
        return distance


@dataclass(frozen=True, slots=True)
class Walked:
    """How far crossings are on foot from where a search began."""

    streets: Streets
    nodes: Int64
    distance: Float64
    metres_max: float
    wheelchair: bool

    def crossing(self, numbers: Int32) -> Float64:
        """Metres to crossings; infinite for those that were not reached."""
        if not len(self.nodes):
            return np.full(len(numbers), np.inf)
        place = np.minimum(np.searchsorted(self.nodes, numbers), len(self.nodes) - 1)
        return np.where(self.nodes[place] == numbers, self.distance[place], np.inf)

    def to(self, places: Snapped) -> Float64:
        """Metres to the crossings at both ends of each place's way, and on to the place."""
        arrays = self.streets.arrays
        ways = np.maximum(places.way, 0)
        forth = self.crossing(arrays.begin[ways]) + places.along
        back = self.crossing(arrays.end[ways]) + self.streets.metres[ways] - places.along
        return np.where(places.way >= 0, np.minimum(forth, back) + places.off, np.inf)

    def points(self) -> tuple[Float64, Float64, Float64]:
        """Longitude, latitude and metres of every point of a way that was reached."""
        arrays, streets = self.streets.arrays, self.streets
        near = self.nodes[np.isfinite(self.distance)]
        touched = np.zeros(len(arrays.node_x), np.bool_)
        touched[near] = True
        ways = touched[arrays.begin] | touched[arrays.end]
        if self.wheelchair:
            ways &= streets.usable
        at = np.flatnonzero(ways[streets.way_of])
        way = streets.way_of[at]
        metres = np.minimum(
            self.crossing(arrays.begin[way]) + streets.along[at],
            self.crossing(arrays.end[way]) + streets.metres[way] - streets.along[at],
        )
        fit = metres <= self.metres_max
        at = at[fit]
        return degrees(arrays.point_x[at]), degrees(arrays.point_y[at]), metres[fit]


def between(streets: Streets, origin: Snapped, places: Snapped) -> Float64:
    """Metres between a place and others on the same way, along it; infinite for the rest."""
    same = (places.way == origin.way[0]) & (places.way >= 0)
    along = np.abs(places.along - origin.along[0]) + origin.off[0] + places.off
    return np.where(same, along, np.inf)
