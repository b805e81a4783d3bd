"""The streets that an operator gave, from the database: one network a process, until a newer one.

It is kept by its content, so that callers of every permission share it.
"""

import threading
from typing import Any

import numpy as np

from consent.gate import PermittedConnection
from domains.mobility.network.streets import Arrays, Streets
from domains.mobility.network.walking import STRAIGHT_LINE, OnStreets, Walking

SELECT_NEWEST = """
SELECT sha256 FROM mobility.street_network
WHERE data_class = ANY(%(classes)s) ORDER BY id DESC LIMIT 1
"""
# One statement: what is read is whole, whatever is imported meanwhile.
SELECT_STREETS = """
SELECT n.sha256, n.attribution, p.name, p.body
FROM mobility.street_network n JOIN mobility.street_part p ON p.network = n.id
WHERE n.id = (SELECT max(id) FROM mobility.street_network WHERE data_class = ANY(%(classes)s))
ORDER BY p.name, p.part
"""
SELECT_NETWORK = """
SELECT licence, attribution, imported_at, counts, refused FROM mobility.street_network
WHERE data_class = ANY(%(classes)s) ORDER BY id DESC LIMIT 1
"""
TYPES = {
    "node_x": "<i4", "node_y": "<i4", "begin": "<i4", "end": "<i4", "offsets": "<i4",
    "stepped": "u1", "point_x": "<i4", "point_y": "<i4",
}  # fmt: skip
"""How each of `Arrays` is stored."""
PART_BYTES = 4 << 20

_held: dict[bytes, OnStreets] = {}
_lock = threading.Lock()


def walking(connection: PermittedConnection) -> Walking:
    """By the streets of the newest import, else the straight line; one caller reads for all."""
    newest = connection.fetch(SELECT_NEWEST)
    if not newest:
        return STRAIGHT_LINE
    held = _held.get(bytes(newest[0]["sha256"]))
    if held is not None:
        return held
    with _lock:
        held = _held.get(bytes(newest[0]["sha256"]))
        rows = connection.fetch(SELECT_STREETS) if held is None else []
        if rows:
            held = OnStreets(Streets(_arrays(rows), rows[0]["attribution"]))
            _held.clear()
            _held[bytes(rows[0]["sha256"])] = held
        return held or STRAIGHT_LINE


def told(connection: PermittedConnection) -> dict[str, Any] | None:
    """Whose the streets are, since when, and what their import found."""
    rows = connection.fetch(SELECT_NETWORK)
    return rows[0] if rows else None


def parts(arrays: Arrays) -> list[tuple[str, int, bytes]]:
    """Name, number and bytes of each piece to store."""
    found = []
    for name, kind in TYPES.items():
        body = np.asarray(getattr(arrays, name), kind).tobytes()
        for number, low in enumerate(range(0, max(len(body), 1), PART_BYTES)):
            found.append((name, number, body[low : low + PART_BYTES]))
    return found


def _arrays(rows: list[dict[str, Any]]) -> Arrays:
    bodies: dict[str, list[bytes]] = {name: [] for name in TYPES}
    for row in rows:
        bodies[row["name"]].append(row["body"])
    return Arrays(**{n: np.frombuffer(b"".join(bodies[n]), kind) for n, kind in TYPES.items()})
