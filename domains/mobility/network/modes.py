"""Modes of transport: names for route_type of GTFS and for its extended types."""

from collections.abc import Iterable

BASIC = {
    0: "tram", 1: "subway", 2: "rail", 3: "bus", 4: "ferry", 5: "cable_tram", 6: "aerial_lift",
    7: "funicular", 11: "trolleybus", 12: "monorail",
}  # fmt: skip
HUNDREDS = {
    1: "rail", 2: "bus", 3: "rail", 4: "subway", 5: "subway", 6: "subway", 7: "bus",
    8: "trolleybus", 9: "tram", 10: "ferry", 11: "air", 12: "ferry", 13: "aerial_lift",
    14: "funicular", 15: "taxi",
}  # fmt: skip
"""Extended types by their hundred: 100 railway, 200 coach, 700 bus, ..."""
MODES = tuple(sorted({*BASIC.values(), *HUNDREDS.values()}))
TYPES_MAX = 1800


def mode_of(route_type: int) -> str:
    """The mode of a route_type; `transit` for one that is not known."""
    return BASIC.get(route_type) or HUNDREDS.get(route_type // 100, "transit")


def types_of(modes: Iterable[str]) -> frozenset[int]:
    """Every route_type of these modes."""
    wanted = set(modes)
    return frozenset(each for each in range(TYPES_MAX) if mode_of(each) in wanted)
