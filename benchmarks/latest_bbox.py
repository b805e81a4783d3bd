"""Latest values of the 5,000 intersections in a box, out of a nation's, in milliseconds."""

import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import intersections as nation
from benchmarks.result import Goal, Result
from benchmarks.stack import databases

FOUND = 5_000
GOAL = Goal("value", maximum=100.0)


def run(scale: float = 1.0) -> Iterator[Result]:
    """Boxes at random, each with about FOUND intersections, after the whole was read once."""
    count, requests = round(nation.INTERSECTIONS * scale), max(10, round(nation.REQUESTS * scale))
    west, south, east, north = nation.AREA
    part = math.sqrt(FOUND / nation.INTERSECTIONS)
    width, height = (east - west) * part, (north - south) * part

    def anywhere() -> str:
        x, y = random.uniform(west, east - width), random.uniform(south, north - height)
        return f"/v1/signals/latest?limit=10000&bbox={x},{y},{x + width},{y + height}"

    for label, database in databases().items():
        with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
            folder = Path(name)
            with database(folder) as url:
                nation.fill(url, count)
                with nation.serving(url, folder) as client:
                    nation.read_all(client)
                    taken, size = nation.timed(client, anywhere, requests)
                    copied = nation.copied(url, round(FOUND * scale) * nation.GROUPS)
        middle = sorted(taken)[len(taken) // 2]
        yield Result(
            f"latest_bbox_{label}",
            nation.p95(taken),
            "ms p95",
            (min(taken), max(taken)),
            ratio=middle / copied,
            ratio_to="COPY of as many values",
            goal=GOAL,
            note=f"{requests} boxes of about {FOUND * scale:.0f} of {count} intersections with "
            f"{nation.GROUPS} Datastreams each, {size / 1e6:.1f} MB: p50 {middle:.1f} ms",
        )
