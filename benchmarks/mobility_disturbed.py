"""Departures and journeys from now on, in a city of 500,000 stop times whose trips are late."""

import json
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import psycopg
from google.transit import gtfs_realtime_pb2 as pb

from benchmarks import city_feed
from benchmarks import intersections as nation
from benchmarks.mobility_reads import put
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from core.storage.pool import DatabaseRole, open_session
from deploy.imports import gtfs_rt

STOP_TIMES = 500_000
REQUESTS = 400
DEPARTURES_GOAL, JOURNEYS_GOAL = Goal("value", maximum=20.0), Goal("value", maximum=100.0)
ZONE = ZoneInfo("Asia/Tokyo")
LATE_SECONDS_MAX = 900
AROUND_SECONDS = 5400
"""A trip that begins so long before or after now has real time."""

SELECT_RUNNING = """
SELECT t.trip_id, min(s.sequence)
FROM mobility.trip t
JOIN mobility.service c ON (c.version, c.number) = (t.version, t.service)
LEFT JOIN mobility.service_date d
  ON (d.version, d.service) = (c.version, c.number) AND d.date = %(day)s
JOIN mobility.stop_time s ON (s.version, s.trip) = (t.version, t.number)
WHERE coalesce(d.runs, c.weekdays & (1 << %(weekday)s) <> 0
                       AND %(day)s BETWEEN c.start_date AND c.end_date)
GROUP BY t.version, t.number, t.trip_id
HAVING min(s.departure) BETWEEN %(now)s - %(around)s AND %(now)s + %(around)s
"""


def run(scale: float = 1.0) -> Iterator[Result]:
    """A trip update for each trip around now, then requests from now on."""
    requests = max(10, round(REQUESTS * scale))
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
        path, message = Path(name) / "city.zip", Path(name) / "updates.pb"
        city_feed.write(path, stop_times=round(STOP_TIMES * scale))
        for label, database in databases().items():
            with database(Path(name) / label) as url:
                put(url, path)
                late = write_updates(url, message, datetime.now(ZONE))
                with open_session(url, DatabaseRole.INGEST) as session:
                    gtfs_rt.run(session, [str(message)], feed="city-live")
                with nation.serving(url, Path(name) / f"{label}-api") as client:
                    stops = json.loads(nation.get(client, "/v1/mobility/stops?limit=1000"))["stops"]
                    if late and not is_disturbed(client, stops):
                        raise RuntimeError("no departure tells of its delay")
                    for kind, ask, goal in (
                        ("departures", lambda: departures(stops), DEPARTURES_GOAL),  # noqa: B023
                        ("journeys", lambda: journey(stops), JOURNEYS_GOAL),  # noqa: B023
                    ):
                        nation.timed(client, ask, 5)
                        taken, size = nation.timed(client, ask, requests)
                        yield Result(
                            f"disturbed_{kind}_{label}",
                            nation.p95(taken),
                            "ms p95",
                            (min(taken), max(taken)),
                            goal=goal,
                            note=f"{requests} requests, {late} trips are late, "
                            f"{size / 1000:.0f} kB each: p50 {median(taken):.1f} ms",
                        )


def write_updates(url: str, path: Path, now: datetime) -> int:
    """A GTFS-Realtime message that all trips around now are late; how many there are."""
    asked: dict[str, Any] = {
        "day": now.date(), "weekday": now.weekday(),
        "now": now.hour * 3600 + now.minute * 60, "around": AROUND_SECONDS,
    }  # fmt: skip
    with psycopg.connect(url) as connection:
        running = connection.execute(SELECT_RUNNING, asked).fetchall()
    feed = pb.FeedMessage()
    feed.header.gtfs_realtime_version = "2.0"
    feed.header.timestamp = int(now.timestamp())
    for trip, sequence in running:
        update = feed.entity.add(id=trip).trip_update
        update.trip.trip_id, update.trip.start_date = trip, f"{now:%Y%m%d}"
        update.timestamp = feed.header.timestamp
        call = update.stop_time_update.add(stop_sequence=sequence)
        call.departure.delay = random.randrange(LATE_SECONDS_MAX)
    path.write_bytes(feed.SerializeToString())
    return len(running)


def is_disturbed(client: HTTPConnection, stops: list[dict[str, Any]]) -> bool:
    """Whether some departure of some stops has real time."""
    answers = (json.loads(nation.get(client, departures(stops))) for _ in range(100))
    return any(each["realtime"] for answer in answers for each in answer["departures"])


def soon() -> str:
    """Within two hours."""
    return (datetime.now(UTC) + timedelta(seconds=random.randrange(7200))).isoformat()


def departures(stops: list[dict[str, Any]]) -> str:
    """Of a random stop."""
    stop = quote(random.choice(stops)["id"], safe="")
    return f"/v1/mobility/stops/{stop}/departures?limit=20&from={quote(soon())}"


def journey(stops: list[dict[str, Any]]) -> str:
    """Between two random stops."""
    start, end = (f"{each['longitude']},{each['latitude']}" for each in random.sample(stops, 2))
    return f"/v1/mobility/journeys?{urlencode({'from': start, 'to': end, 'depart': soon()})}"
