"""Journeys and isochrones over HTTP between random places of a city of 500,000 stop times."""

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import psycopg

from benchmarks import city_feed
from benchmarks import intersections as nation
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from deploy.timetables import Declared, import_feed
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_source

STOP_TIMES = 500_000
REQUESTS = 400
GOAL = Goal("value", maximum=100.0)
TODAY = date(2026, 11, 23)
MORNING = datetime(2026, 11, 23, 21, tzinfo=UTC)
"""06:00 of a Tuesday in the city's timezone."""
HOURS = 16
SIDE_METRES = 38 * city_feed.SPACING_M


def run(scale: float = 1.0) -> Iterator[Result]:
    """Each kind of request, after a first one has laid the day out."""
    requests = max(10, round(REQUESTS * scale))
    side = SIDE_METRES * scale**0.5 / city_feed.METRES_A_DEGREE

    def place() -> str:
        x = city_feed.LONGITUDE + random.uniform(0, side)
        y = city_feed.LATITUDE + random.uniform(0, side)
        return f"{x:.6f},{y:.6f}"

    def when() -> str:
        return (MORNING + timedelta(seconds=random.randrange(HOURS * 3600))).isoformat()

    def journey(time: str) -> str:
        asked = urlencode({"from": place(), "to": place(), time: when()})
        return f"/v1/mobility/journeys?{asked}"

    def isochrones() -> str:
        return f"/v1/mobility/isochrones?{urlencode({'at': place(), 'depart': when()})}"

    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
        path = Path(name) / "city.zip"
        written = city_feed.write(path, stop_times=round(STOP_TIMES * scale))
        for label, database in databases().items():
            with database(Path(name) / label) as url:
                put(url, path)
                with nation.serving(url, Path(name) / f"{label}-api") as client:
                    for kind, ask, goal in (
                        ("depart", lambda: journey("depart"), GOAL),
                        ("arrive", lambda: journey("arrive"), GOAL),
                        ("isochrones", isochrones, None),
                    ):
                        nation.timed(client, ask, 5)
                        taken, size = nation.timed(client, ask, requests)
                        yield Result(
                            f"journeys_{kind}_{label}",
                            nation.p95(taken),
                            "ms p95",
                            (min(taken), max(taken)),
                            goal=goal,
                            note=f"{requests} requests, {written} stop times, "
                            f"{size / 1e3:.0f} kB each: p50 {median(taken):.1f} ms",
                        )


def put(url: str, path: Path) -> None:
    """Import the city as the command does."""
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        report = Report()
        import_feed(connection, open_source(path, report), report, Declared("city"), TODAY)
        connection.commit()
