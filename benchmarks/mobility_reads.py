"""Departures of a stop and everything near a point over HTTP, in a city of 500,000 stop times."""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from benchmarks import city_feed
from benchmarks import intersections as nation
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from deploy.timetables import Declared, import_feed
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_source

STOP_TIMES = 500_000
REQUESTS = 500
GOAL = Goal("value", maximum=20.0)
TODAY = date(2026, 11, 23)


def run(scale: float = 1.0) -> Iterator[Result]:
    """Requests at random stops, times of day and places, after the first has loaded the arrays."""
    requests = max(10, round(REQUESTS * scale))
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
        path = Path(name) / "city.zip"
        written = city_feed.write(path, stop_times=round(STOP_TIMES * scale))
        for label, database in databases().items():
            with database(Path(name) / label) as url:
                put(url, path)
                with nation.serving(url, Path(name) / f"{label}-api") as client:
                    yield from measure(client, label, requests, written)


def put(url: str, path: Path) -> None:
    """Import the city."""
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        report = Report()
        import_feed(connection, open_source(path, report), report, Declared("city"), TODAY)
        connection.commit()


def measure(client: HTTPConnection, label: str, requests: int, written: int) -> Iterator[Result]:
    """The first answer, then departures, then what is near."""
    began = time.perf_counter()
    stops: list[dict[str, Any]] = json.loads(nation.get(client, "/v1/mobility/stops?limit=1000"))[
        "stops"
    ]
    first = time.perf_counter() - began
    yield Result(
        f"mobility_first_{label}", first, "s",
        note=f"the first answer of a process, which loads {written} stop times",
    )  # fmt: skip
    noon = datetime(2026, 11, 24, tzinfo=UTC)

    def departures() -> str:
        at = noon + timedelta(minutes=random.randrange(7 * 24 * 60))
        stop = quote(random.choice(stops)["id"], safe="")
        when = quote(at.isoformat())
        return f"/v1/mobility/stops/{stop}/departures?limit=20&from={when}"

    def near() -> str:
        stop = random.choice(stops)
        x = stop["longitude"] + random.uniform(-0.003, 0.003)
        y = stop["latitude"] + random.uniform(-0.003, 0.003)
        return f"/v1/mobility/near?at={x},{y}&radius=300"

    for what, path in (("departures", departures), ("near", near)):
        taken, size = nation.timed(client, path, requests)
        yield Result(
            f"mobility_{what}_{label}",
            nation.p95(taken),
            "ms p95",
            (min(taken), max(taken)),
            goal=GOAL,
            note=f"{requests} requests, {size / 1000:.0f} kB each: "
            f"p50 {sorted(taken)[len(taken) // 2]:.1f} ms",
        )
