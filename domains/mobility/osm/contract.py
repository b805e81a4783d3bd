"""Pieces of ways become a network: crossings, and what lies between two of them as one way."""

from collections import Counter
from typing import Any

import numpy as np
import rustworkx as rx
from numpy.typing import NDArray

from core.errors import invalid
from domains.mobility.network.streets import (
    PIECE_METRES,
    UNIT,
    Arrays,
    Int64,
    rows_of,
    straight_metres,
)
from domains.mobility.osm.read import Raw

ISLAND_METRES_MIN = 5_000.0
"""Ways that hang together with no others: the longest such net is kept, and each of this length."""
ENDS = 2

Chains = tuple[list[list[int]], list[int]]


def contract(raw: Raw) -> tuple[Arrays, Counter[str]]:
    """The network, and what is told of it; CityError `invalid` where nothing can be walked."""
    if not raw.begin:
        raise invalid("FILE", "it has no way that one can walk and whose points have places")
    ids, first = np.unique(np.frombuffer(raw.point, np.int64), return_index=True)
    x, y = np.frombuffer(raw.x, np.int32)[first], np.frombuffer(raw.y, np.int32)[first]
    begin, end, stepped = _pieces(raw, ids)
    begin, end, x, y = _gates(begin, end, x, y, ids, raw.closed)
    chains, steps = _chains(begin, end, stepped, len(x))
    kept, told = _islands(chains, x, y)
    chains, steps = [chains[n] for n in kept], [steps[n] for n in kept]
    arrays = _arrays(chains, np.array(steps, np.uint8), x, y)
    told["crossings"], told["edges"] = len(arrays.node_x), len(arrays.begin)
    told["points"] = len(arrays.point_x)
    return arrays, told


def _pieces(raw: Raw, ids: Int64) -> tuple[Int64, Int64, NDArray[np.uint8]]:
    """Both ends of each piece by number, each pair once, and whether a wheelchair is stopped."""
    begin = np.searchsorted(ids, np.frombuffer(raw.begin, np.int64))
    end = np.searchsorted(ids, np.frombuffer(raw.end, np.int64))
    stepped = np.frombuffer(raw.stepped, np.uint8) > 0
    over = np.frombuffer(raw.over, np.uint8) > 0
    pair = np.sort(np.stack((begin, end), axis=1), axis=1)
    pair, first, which = np.unique(pair, axis=0, return_index=True, return_inverse=True)
    # Two ways over the same ground: passable if one of them is.
    blocked = np.ones(len(pair), np.bool_)
    np.logical_and.at(blocked, which.ravel(), stepped)
    begin, end, over = pair[:, 0], pair[:, 1], over[first]
    # A kerb stops who goes over the street, not who goes on along the pavement.
    degree = np.bincount(np.concatenate((begin, end)), minlength=len(ids))
    raised = np.isin(ids, list(raw.raised)) if raw.raised else np.zeros(len(ids), np.bool_)
    for point in (begin, end):
        blocked |= raised[point] & (over | (degree[point] <= ENDS))
    return begin, end, blocked.astype(np.uint8)


def _gates(
    begin: Int64, end: Int64, x: NDArray[np.int32], y: NDArray[np.int32], ids: Int64,
    closed: set[int],
) -> tuple[Int64, Int64, NDArray[np.int32], NDArray[np.int32]]:  # fmt: skip
    """Each way to a closed gate ends there by itself."""
    shut = np.isin(ids, list(closed)) if closed else np.zeros(len(ids), np.bool_)
    both = []
    for point in (begin, end):
        ends = np.flatnonzero(shut[point])
        copied = point.copy()
        copied[ends] = len(x) + np.arange(len(ends))
        x, y = np.append(x, x[point[ends]]), np.append(y, y[point[ends]])
        both.append(copied)
    return both[0], both[1], x, y


def _chains(begin: Int64, end: Int64, stepped: NDArray[np.uint8], count: int) -> Chains:
    """The points of each way from crossing to crossing; it ends too where steps begin or end."""
    ends, others = np.concatenate((begin, end)), np.concatenate((end, begin))
    pieces = np.tile(np.arange(len(begin)), 2)
    order = np.argsort(ends, kind="stable")
    others, pieces = others[order], pieces[order]
    degree = np.bincount(ends, minlength=count)
    offsets = np.concatenate(([0], np.cumsum(degree)))
    flags = np.bincount(ends, np.tile(stepped, 2), minlength=count)
    inner = (degree == ENDS) & ((flags == 0) | (flags == ENDS))
    walk = _Walk(
        others.tolist(), pieces.tolist(), offsets.tolist(), inner.tolist(), bytearray(len(begin))
    )
    chains = [c for point in np.flatnonzero((degree > 0) & ~inner).tolist() for c in walk.of(point)]
    # What is left are rings without a crossing: each begins and ends at one of its points.
    for point in np.flatnonzero(inner).tolist():
        walk.inner[point] = False
        chains += walk.of(point)
        walk.inner[point] = True
    return [points for points, _ in chains], [int(stepped[piece]) for _, piece in chains]


class _Walk:
    """Follows ways by lists: single values of numpy arrays are slow."""

    def __init__(
        self, others: list[int], pieces: list[int], offsets: list[int], inner: list[bool],
        done: bytearray,
    ) -> None:  # fmt: skip
        self.others, self.pieces, self.offsets = others, pieces, offsets
        self.inner, self.done = inner, done

    def of(self, point: int) -> list[tuple[list[int], int]]:
        """All ways from a crossing that were not walked yet, each with one of its pieces."""
        found = []
        for slot in range(self.offsets[point], self.offsets[point + 1]):
            piece = self.pieces[slot]
            if not self.done[piece]:
                self.done[piece] = 1
                found.append((self._on(point, self.others[slot]), piece))
        return found

    def _on(self, point: int, following: int) -> list[int]:
        points = [point, following]
        while self.inner[following]:
            low = self.offsets[following]
            slot = low if not self.done[self.pieces[low]] else low + 1
            if self.done[self.pieces[slot]]:
                break
            self.done[self.pieces[slot]] = 1
            following = self.others[slot]
            points.append(following)
        return points


def _islands(
    chains: list[list[int]], x: NDArray[np.int32], y: NDArray[np.int32]
) -> tuple[list[int], Counter[str]]:
    """The ways that are kept by number: those of the longest net, and of other long ones."""
    flat = np.concatenate([np.array(chain, np.int64) for chain in chains])
    cuts = np.cumsum([len(chain) for chain in chains])
    metres = straight_metres(
        x[flat[:-1]] * UNIT, y[flat[:-1]] * UNIT, x[flat[1:]] * UNIT, y[flat[1:]] * UNIT
    )
    metres[cuts[:-1] - 1] = 0.0
    total = np.concatenate(([0.0], np.cumsum(metres)))
    each = total[cuts - 1] - total[cuts - [len(chain) for chain in chains]]
    ends = np.array([(chain[0], chain[-1]) for chain in chains], np.int64)
    points, numbers = np.unique(ends, return_inverse=True)
    numbers = numbers.reshape(ends.shape)
    graph: Any = rx.PyGraph()
    graph.add_nodes_from(range(len(points)))
    first, last = numbers[:, 0].tolist(), numbers[:, 1].tolist()
    graph.extend_from_edge_list(list(zip(first, last, strict=True)))
    net = np.zeros(len(points), np.int64)
    nets = rx.connected_components(graph)
    for number in range(len(nets)):
        members: Any = nets[number]
        net[list(members)] = number
    long = np.bincount(net[numbers[:, 0]], each, minlength=len(nets))
    fit = long >= ISLAND_METRES_MIN
    fit[np.argmax(long)] = True
    kept = fit[net[numbers[:, 0]]]
    told = Counter({
        "metres": round(float(each[kept].sum())), "nets": int(fit.sum()),
        "islands_left_out": int((~fit).sum()),
        "metres_left_out": round(float(each[~kept].sum())),
    })  # fmt: skip
    return np.flatnonzero(kept).tolist(), told


def _arrays(
    chains: list[list[int]], stepped: NDArray[np.uint8], x: NDArray[np.int32],
    y: NDArray[np.int32],
) -> Arrays:  # fmt: skip
    """In order of place, with no piece longer than PIECE_METRES."""
    ends = np.array([(chain[0], chain[-1]) for chain in chains], np.int64)
    nodes = np.unique(ends)
    nodes = nodes[np.lexsort((nodes, x[nodes], rows_of(y[nodes])))]
    number = np.zeros(len(x), np.int32)
    number[nodes] = np.arange(len(nodes), dtype=np.int32)
    order = np.lexsort((number[ends[:, 1]], number[ends[:, 0]]))
    lines = [_cut(chains[n], x, y) for n in order.tolist()]
    return Arrays(
        x[nodes], y[nodes], number[ends[order, 0]], number[ends[order, 1]],
        np.concatenate(([0], np.cumsum([len(line) for line in lines]))).astype(np.int32),
        stepped[order],
        np.concatenate([line[:, 0] for line in lines]).astype(np.int32),
        np.concatenate([line[:, 1] for line in lines]).astype(np.int32),
    )  # fmt: skip


def _cut(chain: list[int], x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.float64]:
    """The places of a way with points between where two are far from each other."""
    line = np.stack((x[chain], y[chain]), axis=1).astype(np.float64)
    metres = straight_metres(
        line[:-1, 0] * UNIT, line[:-1, 1] * UNIT, line[1:, 0] * UNIT, line[1:, 1] * UNIT
    )
    parts = np.ceil(metres / PIECE_METRES).astype(np.int64)
    if (parts <= 1).all():
        return line
    parts = np.maximum(parts, 1)
    piece = np.repeat(np.arange(len(parts)), parts)
    share = (np.arange(len(piece)) - np.repeat(np.cumsum(parts) - parts, parts)) / parts[piece]
    cut = line[piece] + share[:, None] * (line[piece + 1] - line[piece])
    return np.vstack((np.round(cut), line[-1]))
