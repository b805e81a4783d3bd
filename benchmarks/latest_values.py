"""Latest values of 10,000 Datastreams in one request, out of a nation's, in milliseconds."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from api.fields import seal_cursor
from benchmarks import intersections as nation
from benchmarks.result import Goal, Result
from benchmarks.stack import databases

DATASTREAMS = 10_000
GOAL = Goal("value", maximum=50.0)


def run(scale: float = 1.0) -> Iterator[Result]:
    """Pages at random, after each was read once; then the same while all values change."""
    count, wanted = round(nation.INTERSECTIONS * scale), round(DATASTREAMS * scale)
    things, requests = wanted // nation.GROUPS, max(10, round(nation.REQUESTS * scale))

    def anywhere() -> str:
        after = seal_cursor(nation.key(random.randrange(count - things)))
        return f"/v1/signals/latest?limit={things}&after={after}"

    for label, database in databases().items():
        with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
            folder = Path(name)
            with database(folder) as url:
                nation.fill(url, count)
                with nation.serving(url, folder) as client:
                    cold = nation.read_all(client, things)
                    taken, size = nation.timed(client, anywhere, requests)
                    copied = nation.copied(url, wanted)
                    with nation.changing(url, count):
                        busy, _ = nation.timed(client, anywhere, requests)
        middle = sorted(taken)[len(taken) // 2]
        yield Result(
            f"latest_values_{label}",
            nation.p95(taken),
            "ms p95",
            (min(taken), max(taken)),
            ratio=middle / copied,
            ratio_to="COPY of as many values",
            goal=GOAL,
            note=f"{requests} requests for {wanted} of {count * nation.GROUPS} Datastreams, "
            f"{size / 1e6:.1f} MB each: p50 {middle:.1f} ms, first reading of a page "
            f"{sorted(cold)[len(cold) // 2]:.0f} ms",
        )
        yield Result(
            f"latest_values_changing_{label}",
            nation.p95(busy),
            "ms p95",
            (min(busy), max(busy)),
            note=f"while another process changes {count} values a second",
        )
