"""5G edge nodes of the demo city: on signal poles, KPIs in SenML every ten seconds."""

import math
from dataclasses import dataclass
from functools import cache

from core.clock import MICROSECONDS
from domains.edge import wire
from gateways.simulators.city import Crossing, crossings, day_wave, hour_of_day, noise

NODES = 40
REPORT_SECONDS = 10
RUSH_HOURS = (8.0, 12.5, 18.0)
STARTED_US = 1_735_689_600 * MICROSECONDS
"""2025-01-01T00:00:00Z: uptimes count from here."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node; it shares the pole of a signal."""

    index: int
    name: str
    crossing: Crossing


@cache
def nodes() -> tuple[Node, ...]:
    """The nodes, spread evenly over the signals."""
    every = len(crossings()) / NODES
    return tuple(
        Node(index, f"edge-{index + 1:03d}", crossings()[int((index + 0.5) * every)])
        for index in range(NODES)
    )


def dependents(node: Node) -> dict[str, str | list[str]]:
    """What hangs on a node: its own pole's gateway and cell, and the signals around it.

    The controller of its district hangs on every node there: it is cut off with the last of them.
    """
    every = len(crossings()) / NODES
    around = crossings()[int(node.index * every) : int((node.index + 1) * every)]
    return {
        "pole": str(node.crossing.number),
        "signals": [str(crossing.number) for crossing in around],
        "gateways": [f"{node.name}-gateway", f"demo-signals-{node.crossing.district + 1}"],
        "cells": [f"{node.name}-n79"],
    }


def demand(time_us: int) -> float:
    """How busy the city is, 0 to 1: three rushes on top of a quiet night."""
    hour = hour_of_day(time_us)
    rush = max(math.exp(-(((hour - peak) / 1.6) ** 2)) for peak in RUSH_HOURS)
    return 0.15 + 0.35 * (day_wave(time_us, 14.0) + 1) / 2 + 0.5 * rush


def values_at(node: Node, time_us: int) -> dict[str, float]:
    """A node's KPIs at a time, keys as in domains.edge.wire.SENML_UNITS."""
    slot = time_us // (REPORT_SECONDS * MICROSECONDS)
    busy = min(1.0, max(0.0, demand(time_us) * (1 + 0.2 * noise(node.index, slot // 6))))
    flicker = noise(node.index + 1_000, slot)
    signal = -78 - 14 * (noise(node.index, 7) + 1) / 2 + 2.5 * flicker
    throughput = (900 - 650 * busy) * (1 + 0.1 * flicker)
    return {
        "longitude": node.crossing.longitude,
        "latitude": node.crossing.latitude,
        "nr-rsrp": round(signal, 1),
        "nr-rsrq": round(-10.5 - 3 * busy + 0.5 * flicker, 1),
        "nr-sinr": round(22 - 12 * busy + 2 * flicker, 1),
        "rsrp": round(signal - 9, 1),
        "rtt": round(8 + 22 * busy**2 + 2 * (flicker + 1), 2),
        "downlink-throughput": round(throughput, 1),
        "uplink-throughput": round(throughput * 0.12, 1),
        "load": round(100 * (0.12 + 0.75 * busy), 1),
        "connected-devices": float(round(220 * busy * (1.2 + noise(node.index, 3)))),
        "temperature": round(26 + 7 * day_wave(time_us, 14.5) + 9 * busy + flicker, 1),
        "heartbeat": float(slot),
        "uptime": float((time_us - STARTED_US) // MICROSECONDS),
    }


def packs(due: list[Node], time_us: int) -> tuple[bytes, int]:
    """(one SenML pack of several nodes, its records): each node begins with its base fields."""
    parts, records = [], 0
    for node in due:
        values = values_at(node, time_us)
        parts.append(wire.kpi_pack(node.name, time_us, values).strip()[1:-1])
        records += len(values)
    return b"[" + b",".join(parts) + b"]", records
