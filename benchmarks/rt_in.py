"""GTFS-Realtime on its way in: what one core decodes, and what a look at a nation's state costs.

Positions are those of 10,000 vehicles of which a quarter is between other stops than the time
before; alone: each in a message of its own. A look is what comes between the database's rows and an
overlay: 60,000 vehicles on trips of 25 stops, of which 1,000 moved since the last (15 s, 250 ms).
Times are those of the core, whoever else uses it.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.transit import gtfs_realtime_pb2 as pb

from benchmarks.result import Goal, Result
from benchmarks.rt_build import FEED, STOPS, timetable
from core.sector import Context
from domains.mobility.decode import decode
from domains.mobility.realtime.state import Entities, State

VEHICLES, UPDATES, NATION, MOVED = 10_000, 2_000, 60_000, 1_000
RUNS = 9
NATIONS = Goal("value", minimum=4_000.0)
"""60,000 buses at 15 s."""
LOOK = Goal("value", maximum=100.0)
AT = int(datetime(2026, 4, 6, 3, 0, tzinfo=UTC).timestamp())


def head(step: int) -> pb.FeedMessage:
    """A message without entities, 15 s after the one before it."""
    feed = pb.FeedMessage()
    feed.header.gtfs_realtime_version = "2.0"
    feed.header.timestamp = AT + 15 * step
    return feed


def add_vehicle(feed: pb.FeedMessage, number: int, step: int) -> None:
    entity = feed.entity.add(id=str(number))
    vehicle = entity.vehicle
    vehicle.trip.trip_id = f"trip-{number}"
    vehicle.trip.route_id = f"route-{number % 500}"
    vehicle.trip.start_date = "20260406"
    vehicle.vehicle.id = f"bus-{number}"
    vehicle.vehicle.label = f"Bus {number}"
    vehicle.position.latitude = 35.5 + step / 1e4
    vehicle.position.longitude = 139 + number / 1e5
    vehicle.position.bearing, vehicle.position.speed = 90.0, 8.5
    vehicle.current_stop_sequence = 1 + (number + step) // 4
    vehicle.current_status, vehicle.occupancy_status = 2, 1
    vehicle.timestamp = AT + 15 * step - number % 15


def add_update(feed: pb.FeedMessage, number: int, step: int) -> None:
    update = feed.entity.add(id=str(number)).trip_update
    update.trip.trip_id, update.trip.start_date = f"trip-{number}", "20260406"
    for stop in range(STOPS):
        each = update.stop_time_update.add(stop_sequence=stop + 1, stop_id=f"stop-{stop}")
        each.arrival.time = AT + 90 * stop + step
        each.departure.time = AT + 90 * stop + step + 20


def payloads(add: Callable[[pb.FeedMessage, int, int], None], count: int, runs: int) -> list[bytes]:
    """A message of so many entities for each run."""
    made = []
    for step in range(runs):
        feed = head(step)
        for number in range(count):
            add(feed, number, step)
        made.append(feed.SerializeToString())
    return made


def rate(form: str, messages: list[list[bytes]]) -> list[float]:
    """Entities a second of each batch of messages; the first only fills the memory."""
    memory: dict[Any, Any] = {}
    found = []
    for step, batch in enumerate(messages):
        context = Context(FEED, (AT + 15 * step) * 1_000_000, memory)
        began = time.process_time()
        entities = sum(decode(form, payload, context).messages for payload in batch)
        found.append(entities / (time.process_time() - began))
    return found[1:]


def looks(vehicles: int, moved: int, runs: int) -> list[float]:
    """Milliseconds of each look at a state of so many vehicles, so many of them moved."""
    table, random, now = timetable(vehicles), np.random.default_rng(1), float(AT)
    stops = table.stop_times.stop.reshape(-1, STOPS)[:, 9]
    places = np.stack([table.stops.longitude[stops], table.stops.latitude[stops]], axis=1)
    state = State(Entities())
    taken = []
    for run in range(runs + 1):
        at = datetime.fromtimestamp(now, UTC)
        chosen = random.choice(vehicles, moved, replace=False) if run else np.arange(vehicles)
        every = 4 if run else 1
        rows = [
            row for number in chosen.tolist() for row in said(number, places[number], at, every)
        ]
        began = time.process_time()
        state.entities.take(rows)
        state.see(table, at)
        taken.append((time.process_time() - began) * 1000)
        now += timedelta(milliseconds=250).total_seconds()
    return taken[1:]


def said(number: int, place: Any, at: datetime, every: int) -> Iterator[dict[str, Any]]:
    """A vehicle's position, and of `every`th what it does, as rows of the database."""
    thing = f"{FEED}:vehicle:bus-{number}"
    longitude, latitude = place.tolist()
    yield {
        "thing": thing, "property": "vehicle-position", "time": at, "longitude": longitude,
        "latitude": latitude, "speed": 8.5, "course": 90.0,
    }  # fmt: skip
    if number % every == 0:
        journey = b'{"trip":{"tripId":"trip-%d","startDate":"20260406"}}' % number
        yield {"thing": thing, "property": "vehicle-journey", "time": at, "document": journey}


def run(scale: float = 1.0) -> Iterator[Result]:
    """Decoded entities a second of each form, and milliseconds of a look."""
    count, runs = max(10, round(VEHICLES * scale)), max(2, round(RUNS * min(1.0, scale * 10)))
    whole = payloads(add_vehicle, count, runs + 1)
    read = [json_format.MessageToJson(pb.FeedMessage.FromString(each)).encode() for each in whole]
    single = [
        [pb.FeedMessage(header=feed.header, entity=[each]).SerializeToString()
         for each in feed.entity[: max(10, count // 10)]]
        for feed in map(pb.FeedMessage.FromString, whole)
    ]  # fmt: skip
    updates = payloads(add_update, max(10, round(UPDATES * scale)), runs + 1)
    for name, form, messages, goal in (
        ("positions", "gtfs-rt", [[each] for each in whole], NATIONS),
        ("positions_alone", "gtfs-rt", single, NATIONS),
        ("positions_json", "gtfs-rt-json", [[each] for each in read], None),
        ("trip_updates", "gtfs-rt", [[each] for each in updates], None),
    ):
        rates = rate(form, messages)
        spread = (min(rates), max(rates))
        note = f"{len(messages[1])} messages, {sum(map(len, messages[1])) / 1e6:.1f} MB"
        yield Result(f"rt_in_{name}", float(np.median(rates)), "/s", spread, goal=goal, note=note)
    vehicles = max(40, round(NATION * scale))
    taken = looks(vehicles, max(10, round(MOVED * scale)), runs)
    yield Result(
        "rt_in_look", float(np.median(taken)), "ms", (min(taken), max(taken)), goal=LOOK,
        note=f"{vehicles} vehicles",
    )  # fmt: skip
