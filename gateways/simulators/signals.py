"""Traffic signals of the demo city: SPaT and MAP in UPER; fixed times that make a green wave."""

from dataclasses import dataclass
from functools import cache, lru_cache

from core.clock import MICROSECONDS
from domains.signals import wire
from gateways.simulators.city import (
    GRID_TURN_DEGREES,
    Crossing,
    crossings,
    dice,
    offset,
    turned,
)

YELLOW_SECONDS, ALL_RED_SECONDS = 4, 2
CYCLES_SECONDS = (90, 100, 110, 120, 130)
WAVE_SECONDS_A_BLOCK = 20
"""A platoon's time from one signal to the next along an avenue."""

GREEN, YELLOW, RED = "protected-Movement-Allowed", "protected-clearance", "stop-And-Remain"
MAIN_GROUPS, CROSS_GROUPS = (2, 6), (4, 8)
LANE_METRES, STOP_METRES, LANE_WIDTH_METRES = 70.0, 12.0, 3.25


@dataclass(frozen=True, slots=True)
class Plan:
    """One intersection's fixed times, in seconds of the cycle."""

    cycle: int
    main_green: int
    offset: int

    @property
    def cross_begins(self) -> int:
        """When the cross street turns green."""
        return self.main_green + YELLOW_SECONDS + ALL_RED_SECONDS


Group = tuple[int, str, int | None, int | None]


@cache
def plan_of(crossing: Crossing) -> Plan:
    """The plan of an intersection: cycles by avenue, offsets so that greens travel along it."""
    cycle = CYCLES_SECONDS[dice(crossing.column).randrange(len(CYCLES_SECONDS))]
    share = dice(crossing.number).uniform(0.42, 0.58)
    return Plan(cycle, round(cycle * share), crossing.row * WAVE_SECONDS_A_BLOCK % cycle)


def groups_at(crossing: Crossing, time_us: int) -> list[Group]:
    """(signal group, state, earliest end, latest end) of every group; ends in µs since 1970."""
    plan = plan_of(crossing)
    second = time_us // MICROSECONDS
    begin = (second - plan.offset) // plan.cycle * plan.cycle + plan.offset
    place = second - begin
    main = _street(place, 0, plan.main_green, plan.cycle)
    cross_green = plan.cycle - plan.cross_begins - YELLOW_SECONDS - ALL_RED_SECONDS
    cross = _street(place, plan.cross_begins, cross_green, plan.cycle)
    groups: list[Group] = []
    for numbers, (state, end) in ((MAIN_GROUPS, main), (CROSS_GROUPS, cross)):
        end_us = (begin + end) * MICROSECONDS
        groups.extend((number, state, end_us, end_us) for number in numbers)
    return sorted(groups)


def _street(place: int, begin: int, green: int, cycle: int) -> tuple[str, int]:
    """(state, second of the cycle at which it ends) of the groups that turn green at `begin`."""
    if place < begin:
        return RED, begin
    if place < begin + green:
        return GREEN, begin + green
    if place < begin + green + YELLOW_SECONDS:
        return YELLOW, begin + green + YELLOW_SECONDS
    return RED, begin + cycle


def changed(crossing: Crossing, before_us: int, now_us: int) -> bool:
    """Whether any group's state differs between two times."""
    return [g[:2] for g in groups_at(crossing, before_us)] != [
        g[:2] for g in groups_at(crossing, now_us)
    ]


def spat(crossing: Crossing, time_us: int) -> bytes:
    """The intersection's SPaT frame."""
    return wire.build_spat(
        intersection_id=crossing.number,
        moment_us=time_us,
        groups=groups_at(crossing, time_us),
        name=crossing.name,
    )


@lru_cache(maxsize=1024)
def map_frame(number: int) -> bytes:
    """The MAP frame of the intersection with this number: two lanes an approach, in and out."""
    crossing = crossings()[number - crossings()[0].number]
    return wire.build_map(
        intersection_id=crossing.number,
        longitude=crossing.longitude,
        latitude=crossing.latitude,
        lanes=[lane for side in range(4) for lane in _approach(crossing, side)],
        name=crossing.name,
    )


def _approach(crossing: Crossing, side: int) -> list[dict[str, object]]:
    """The lanes of one side (0 north, then clockwise); traffic keeps left, as in Japan."""
    group = (2, 4, 6, 8)[side]
    heading = 90.0 * side + GRID_TURN_DEGREES
    across = LANE_WIDTH_METRES / 2
    lanes: list[dict[str, object]] = []
    for direction, east in (("ingress", across), ("egress", -across)):
        path = [
            offset(crossing.longitude, crossing.latitude, *turned(east, north, heading))
            for north in (STOP_METRES, LANE_METRES)
        ]
        lane: dict[str, object] = {
            "id": side * 2 + (1 if direction == "ingress" else 2),
            "approach": side + 1,
            "direction": direction,
            "path": path,
        }
        if direction == "ingress":
            lane["connections"] = [((side + 2) % 4 * 2 + 2, group)]
        lanes.append(lane)
    return lanes
