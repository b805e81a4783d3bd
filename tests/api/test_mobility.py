"""Trips of persons through the whole platform: sent as files, read by grants of those in turn."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from core.settings import Settings
from core.tokens import Role, issue
from domains.mobility import wire
from ingest import http
from tests.api.conftest import served_with
from tests.api.town import Town
from tests.domains.mobility.trips import trips

PATH = "/v1/mobility/personal/observations"
TRACK, TAP = "chimata:MovementTrack", "chimata:TransitTap"


@pytest.fixture
def town(database_url: str, tmp_path: Path) -> Iterator[Town]:
    settings = Settings(database_url=database_url, data=tmp_path)
    with (
        served_with(settings, http.router(settings)) as served,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        yield Town(served, connection)


def send(town: Town, form: str, payload: bytes, gateway: str = "fleet") -> httpx.Response:
    token = issue(town.keys, Role.GATEWAY, gateway=gateway)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{town.served.url}/v1/ingest/mobility/{form}"
    return town.served.client.post(url, headers=headers, content=payload)


def test_property_2_a_shared_cars_track_is_its_drivers_in_turn(
    town: Town, shared_data: Path
) -> None:
    """Each sees leave what was driven in their turn, however late it comes; between them: nobody.

    A binding that is said after the data came counts as well, and none of them can be said anew.
    """
    trip = trips(shared_data, 1)[0]
    began, ended = trip.track[0].time, trip.track[-1].time
    third = (ended - began) / 3
    ai, ken = (began, began + third), (began + 2 * third, ended + timedelta(seconds=1))
    town.register("clinic")
    assert town.bind("car-1", ["ai"], ai, "mobility")
    assert send(town, "gpx", wire.write_gpx(trip.track[1::2], "car-1")).status_code == 200
    assert town.bind("car-1", ["ken"], ken, "mobility")
    late = send(town, "gpx", wire.write_gpx(trip.track[0::2], "car-1")).json()
    assert late["batches"][0]["rejected"] == 0
    assert town.bind("car-1", ["eve"], (began, None), "mobility") == ""

    asked = {"path": PATH, "category": TRACK}
    stored = [point.time for point in trip.track]
    for person, (lower, upper) in (("ai", ai), ("ken", ken)):
        assert town.ask("clinic", **asked) == []
        name = f"00000000-0000-4000-8000-00000000000{len(person)}"
        assert town.grant(person, name, category=TRACK).status_code == 200
        own = [each for each in stored if lower <= each < upper]
        rows = town.ask("clinic", **asked)
        assert [datetime.fromisoformat(row["phenomenon_time"]) for row in rows] == own
        assert len(own) > 5
        assert len({row["persons"][0] for row in rows}) == 1
        assert town.revoke(person, name).status_code == 200


def test_a_rented_bicycle_with_two_riders_needs_both(town: Town, shared_data: Path) -> None:
    trip = trips(shared_data, 1)[0]
    town.register("clinic")
    assert town.bind("tandem", ["ai", "ken"], (trip.track[0].time, None), "mobility")
    assert send(town, "gpx", wire.write_gpx(trip.track, "tandem")).status_code == 200
    town.grant("ai", category=TRACK)
    assert town.ask("clinic", path=PATH, category=TRACK) == []
    town.grant("ken", category="pd:Location", resolution="minute")
    rows = town.ask("clinic", path=PATH, category=TRACK)
    assert {row["resolution"] for row in rows} == {"minute"}
    assert {len(row["persons"]) for row in rows} == {2}


def test_who_may_see_a_trip_does_not_see_the_fare(town: Town, shared_data: Path) -> None:
    """What was paid needs a grant of its own, and each of the three its category."""
    ridden = trips(shared_data, 20, "card-1")
    ends = {each.taps[1].time: each for each in ridden if each.taps[1].fare is not None}
    paid = list(ends.values())  # one gate at a time
    assert paid
    town.register("clinic")
    assert town.bind(
        "card-1", ["ai"], (ridden[0].taps[0].time - timedelta(days=1), None), "mobility"
    )
    payload = wire.write_tap_csv(tap for trip in paid for tap in trip.taps)
    assert send(town, "tap-csv", payload).json()["batches"][0]["rejected"] == 0
    town.grant("ai", category="pd:Location")
    for category, names in (
        ("pd:Location", {"tap/in", "tap/out"}), (TAP, {"tap/in", "tap/out"}), (TRACK, set()),
        ("pd:Transaction", set()),
    ):  # fmt: skip
        rows = town.ask("clinic", path=PATH, category=category)
        assert {row["property"] for row in rows} == names
        assert "card-1" not in str(rows)
    town.grant("ai", category="pd:Transaction")
    fares = town.ask("clinic", path=PATH, category="pd:Transaction")
    assert [row["result"] for row in fares] == [
        float(ends[end].taps[1].fare or 0) for end in sorted(ends)
    ]


def test_what_a_trips_sender_gets_wrong_is_read_by_nobody(town: Town) -> None:
    """A rejection of this sector keeps no word that an operator could read."""
    answer = send(town, "tap-json", b'{"time": "2025-06-01T12:00:00Z", "card": "hana-secret"}')
    assert answer.json()["rejections"][0]["reason"] == "invalid-record"
    listed = town.send("GET", "/v1/rejections", Role.OPERATOR, "office")
    assert listed.status_code == 200
    assert "hana-secret" not in listed.text
    kept = town.connection.execute("SELECT data_class, payload FROM rejection").fetchall()
    assert [row[0] for row in kept] == ["personal"]
    assert b"hana-secret" not in (kept[0][1] or b"")
