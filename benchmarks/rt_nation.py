"""A nation's 60,000 buses, each heard every 15 s: from publishing to where the feed tells them.

Ten operators of 6,000 buses each send what was heard in their tenth of a second as one
GTFS-Realtime message over the embedded broker: 4,000 positions a second. A reader asks for one
operator's published feed all the time, with its ETag, and times every position of it; everything
of `chimata up` runs on the same machine.
"""

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import psutil
from google.transit import gtfs_realtime_pb2 as pb

from benchmarks import stack
from benchmarks.arrow_ingest import over_mqtt
from benchmarks.result import Goal, Result
from benchmarks.signal_events import LATE_MS_MAX, Milliseconds, quantile, settle
from core.storage.pool import DatabaseRole, open_session
from core.tokens import Role, issue, load_keys
from deploy.timetables import Declared, import_feed
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_bytes
from tests.domains.mobility.feeds import SMALL, packed

BUSES, OPERATORS = 60_000, 10
HEARD_SECONDS = 15.0
INTERVAL_SECONDS = 0.1
SECONDS = 120.0
WARM_UP_SECONDS = 20.0
POLL_SECONDS = 0.02
SETTLE_SECONDS_MAX = 60.0
LEGS = ((28_800, "s1"), (43_200, "s2"), (64_800, "s3"))
PLACES, PLACE_DEGREES = 1_000, 1e-3
"""A bus goes on a thousandth of a degree a tick, which says when it was sent."""
GOAL = Goal("value", maximum=1_000)
_spawned = multiprocessing.get_context("spawn")


def static_feed(buses: int, today: date) -> bytes:
    """A day of one trip a bus."""
    day = f"{today:%Y%m%d}"
    trips = [f"r1,wd,t{bus},\n" for bus in range(buses)]
    calls = [
        f"t{bus},{at // 3600}:00:00,{at // 3600}:00:00,{stop},{number}\n"
        for bus in range(buses)
        for number, (at, stop) in enumerate(LEGS, 1)
    ]
    week = "1,1,1,1,1,1,1"
    return packed(
        {
            **{name: SMALL[name] for name in ("agency.txt", "stops.txt", "routes.txt")},
            "trips.txt": "route_id,service_id,trip_id,trip_headsign\n" + "".join(trips),
            "stop_times.txt": "trip_id,arrival_time,departure_time,stop_id,stop_sequence\n"
            + "".join(calls),
            "calendar.txt": SMALL["calendar.txt"].partition("\n")[0] + f"\nwd,{week},{day},{day}\n",
        }
    )


def store(url: str, feed: str, content: bytes, today: date) -> None:
    """Import a timetable, as the command does."""
    report = Report()
    source = open_bytes(content, report, "feed.zip")
    with open_session(url, DatabaseRole.INGEST) as session:
        import_feed(session, source, report, Declared(feed, None, None), today)
        session.commit()


def message(tick: int, buses: range, today: date) -> bytes:
    """What was heard of these buses just now."""
    now = int(time.time())
    told = pb.FeedMessage()
    told.header.gtfs_realtime_version = "2.0"
    told.header.incrementality = pb.FeedHeader.DIFFERENTIAL
    told.header.timestamp = now
    for bus in buses:
        vehicle = told.entity.add(id=f"{bus}").vehicle
        vehicle.vehicle.id = f"bus{bus}"
        vehicle.trip.trip_id, vehicle.trip.start_date = f"t{bus}", f"{today:%Y%m%d}"
        vehicle.position.latitude = 35.0
        vehicle.position.longitude = 135.0 + tick % PLACES * PLACE_DEGREES
        vehicle.timestamp = now
    content: bytes = told.SerializeToString()
    return content


def send(url: str, tokens: list[str], buses: int, ticks: int, began: float, today: date) -> None:
    """A process: each operator's message at its moment of each interval."""
    gateways = [stack.Gateway(url, each, f"line{n}") for n, each in enumerate(tokens)]
    rounds = round(HEARD_SECONDS / INTERVAL_SECONDS)
    for tick in range(ticks):
        part = range(buses * (tick % rounds) // rounds, buses * (tick % rounds + 1) // rounds)
        for number, gateway in enumerate(gateways):
            due = began + (tick + number / len(gateways)) * INTERVAL_SECONDS
            time.sleep(max(0.0, due - time.time()))
            gateway.publish("mobility", "gtfs-rt", "rt", tick, message(tick, part, today))
    settle(gateways, ticks)


def watch(url: str, began: float, seconds: float, warm_up: float) -> tuple[Milliseconds, int]:
    """Ask for the first operator's feed until the end: how long each position was on its way."""
    delays: Milliseconds = Counter()
    seen: dict[str, float] = {}
    etag, asked = "", 0
    with httpx.Client(timeout=30.0) as client:
        while time.time() < began + seconds:
            path = f"{url}/v1/mobility/feeds/line0/vehicle-positions.pb"
            answer = client.get(path, headers={"If-None-Match": etag})
            now, asked = time.time(), asked + 1
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                time.sleep(POLL_SECONDS)
                continue
            etag = answer.raise_for_status().headers["ETag"]
            for entity in pb.FeedMessage.FromString(answer.content).entity:
                place = entity.vehicle.position.longitude
                if seen.get(entity.id) != place:
                    seen[entity.id] = place
                    late = now - _sent(place, now, began)
                    if now > began + warm_up:
                        delays[min(max(0, round(late * 1000)), LATE_MS_MAX)] += 1
            time.sleep(POLL_SECONDS)
    return delays, asked


def _sent(place: float, now: float, began: float) -> float:
    """When a bus was there: at the last of the ticks that tell this place."""
    tick = round((place - 135.0) / PLACE_DEGREES)
    lap = PLACES * INTERVAL_SECONDS
    first = began + tick * INTERVAL_SECONDS
    return first + (now - first) // lap * lap


def measure(label: str, database: stack.Database, scale: float) -> Iterator[Result]:
    """The whole stack under the load; the delays of the positions after the warm-up."""
    share = min(1.0, 10 * scale)
    warm_up = WARM_UP_SECONDS * max(0.25, share)
    seconds, buses = max(5.0, SECONDS * scale) + warm_up, round(BUSES * share / OPERATORS)
    ticks, today = round(seconds / INTERVAL_SECONDS), datetime.now(UTC).date()
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as text:
        folder = Path(text)
        with database(folder) as url, over_mqtt(url, folder) as broker:
            content = static_feed(buses, today)
            for number in range(OPERATORS):
                store(url, f"line{number}", content, today)
            keys = load_keys(folder / "keys")
            tokens = [issue(keys, Role.GATEWAY, gateway=f"line{n}") for n in range(OPERATORS)]
            environment = {"CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(folder)}
            with stack.serving(environment, folder / "api.log") as api:
                began = time.time() + 3.0
                arguments = (broker, tokens, buses, ticks, began, today)
                sender = _spawned.Process(target=send, args=arguments, daemon=True)
                sender.start()
                spent = psutil.cpu_times()
                delays, asked = watch(api, began, seconds, warm_up)
                busy = psutil.cpu_times()
                sender.join(SETTLE_SECONDS_MAX)
                if sender.exitcode != 0:
                    raise RuntimeError("not every message has a receipt")
    cores = (busy.user + busy.system - spent.user - spent.system) / seconds
    note = (
        f"{delays.total()} positions of 1 of {OPERATORS} operators with {buses} buses each, heard "
        f"every {HEARD_SECONDS:.0f} s, for {seconds:.0f} s; {asked} requests; "
        f"{cores:.2f} cores busy"
    )
    for part, goal in ((0.5, None), (0.99, GOAL)):
        yield Result(
            f"rt_nation_p{part * 100:.0f}_{label}", quantile(delays, part), "ms",
            (min(delays), max(delays)), goal=goal, note=note,
        )  # fmt: skip


def run(scale: float = 1.0) -> Iterator[Result]:
    """Two minutes on each database."""
    for label, database in stack.databases().items():
        yield from measure(label, database, scale)
