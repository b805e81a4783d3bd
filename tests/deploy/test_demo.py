"""The demo city's feeds: a timetable without a fault, and buses that are all on it."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from gtfs_validator.cli import main as validate

from core.clock import MICROSECONDS
from core.sector import Context
from core.settings import Settings
from core.tokens import Role, issue, load_keys
from deploy import demo
from domains.mobility.decode import decode
from gateways.demo import bikes_source, riders_source
from gateways.simulators import bikes, buses, riders
from ingest import http
from tests.api.conftest import served_with
from tests.domains.mobility.realtime.town import opened

HOUR = 3_600


def test_registered_once_and_again(database_url: str) -> None:
    for _ in range(2):
        demo.register(database_url)
    with psycopg.connect(database_url) as connection:
        feeds = connection.execute("SELECT id, static_feed FROM mobility.feed ORDER BY id")
        assert feeds.fetchall() == [
            ("demo-bus", None), ("demo-bus-rt", "demo-bus"), ("demo-cycle", None)
        ]  # fmt: skip
        ((refused, quality),) = connection.execute(
            "SELECT refused, quality FROM mobility.feed_version"
        )
    assert refused == {}
    assert quality["score"] == 100, quality


def test_an_outside_judge_finds_no_error(tmp_path: Path) -> None:
    (tmp_path / "feed.zip").write_bytes(buses.timetable(datetime.now(UTC).year))
    command = ["-i", str(tmp_path / "feed.zip"), "-o", str(tmp_path / "out"), "-c", "jp"]
    assert validate(command) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [each for each in report["notices"] if each["severity"] == "ERROR"] == []


@pytest.mark.parametrize("hour", [0, 5, 9, 18])
def test_every_bus_is_on_its_trip(database_url: str, hour: int) -> None:
    """Whatever the hour, those of the night before included: matched, and as late as it says."""
    demo.register(database_url)
    midnight = datetime.now(UTC).astimezone(buses.JAPAN).replace(hour=0, minute=20, second=0)
    seconds = int((midnight - timedelta(days=1)).timestamp()) + hour * HOUR
    payload, entities = buses.message(seconds * MICROSECONDS)
    with opened(database_url, buses.REALTIME, stored=True) as city:
        decoded = city.send(payload, float(seconds))
        assert (decoded.messages, decoded.rejected) == (entities, ())
        overlay = city.overlay(float(seconds))
        on_the_road = list(buses.on_the_road(seconds * MICROSECONDS))
        assert len(overlay.vehicles) == len(on_the_road) == entities // 2 > 0
        trips = city.timetable.trips.ids.texts
        found = {trips[each.trip[0]]: each.trip[1] for each in overlay.vehicles if each.trip}
        assert found == {f"demo-bus:{bus.trip}": bus.day for bus in on_the_road}
        for bus in on_the_road:
            trip = city.timetable.trips.ids.numbers[f"demo-bus:{bus.trip}"]
            state = overlay.trips[trip, bus.day]
            first = int(city.timetable.trips.offsets[trip])
            planned = city.timetable.stop_times.arrival[first + len(state.arrival) - 1]
            assert state.arrival[-1] - planned == bus.late_seconds


@pytest.mark.parametrize("hour", range(24))
def test_a_bus_is_always_on_the_road(hour: int) -> None:
    """In the second in which one ends, at night, and on both sides of midnight."""
    begin = int(time.time()) // (24 * HOUR) * 24 * HOUR + hour * HOUR
    for second in range(begin, begin + HOUR, 7):
        _, entities = buses.message(second * MICROSECONDS)
        assert entities > 0


def test_riders_are_seen_by_whom_they_let(database_url: str, tmp_path: Path) -> None:
    """Tracks and taps are personal; of all who ride, those leave who granted, to whom they did."""
    settings = Settings(database_url=database_url, data=tmp_path)
    now = at_noon()
    with served_with(settings, http.router(settings)) as served:
        keys = load_keys(tmp_path / "keys")
        for _ in range(2):
            demo.consent(served.url, keys, settings.audience)
        token = issue(keys, Role.GATEWAY, gateway=riders.GATEWAY)
        for form, payload, _ in riders_source(0, now):
            answer = served.client.post(
                f"{served.url}/v1/ingest/mobility/{form}", content=payload,
                headers={"Authorization": f"Bearer {token}"},
            )  # fmt: skip
            assert answer.json()["batches"][0]["rejected"] == 0, answer.text
        reader = issue(keys, Role.RECIPIENT, subject=demo.MAAS)
        asked = {"purpose": demo.PURPOSE, "category": demo.CATEGORIES[0]}
        seen = served.client.get(
            f"{served.url}/v1/mobility/personal/observations", params=asked,
            headers={"Authorization": f"Bearer {reader}"},
        ).json()["observations"]  # fmt: skip
        assert served.get("/v1/mobility/latest").json()["features"] == []
    on_a_bus = [rider for rider, _ in riders.riding(now)]
    assert 0 < len(seen) == sum(rider.grants for rider in on_a_bus) < len(on_a_bus)


def at_noon() -> int:
    """A moment, µs, at which somebody is on every line."""
    day = datetime.now(UTC).astimezone(buses.JAPAN) - timedelta(days=1)
    moment = day.replace(hour=12, minute=5, second=0, microsecond=0)
    return int(moment.timestamp()) * MICROSECONDS


def test_nobody_is_on_two_buses_at_once() -> None:
    noon = at_noon()
    for minute in range(24 * 60):
        who = [rider.person for rider, _ in riders.riding(noon + minute * 60 * MICROSECONDS)]
        assert len(who) == len(set(who))


def test_bikes_can_be_read_and_fit_their_racks() -> None:
    now = int(time.time()) // HOUR * HOUR * MICROSECONDS
    memory: dict[object, object] = {}
    for form, payload, _ in bikes_source(0, now):
        decoded = decode(form, payload, Context(bikes.FEED, now, memory))
        assert decoded.rejected == ()
        assert decoded.received > 0
    for hour in range(24):
        for station in bikes.stations():
            assert (
                0 <= bikes.bikes_at(station, now + hour * HOUR * MICROSECONDS) <= station.capacity
            )
