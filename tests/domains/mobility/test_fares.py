"""Fares: every condition of a rule, tickets over several rides, and Donan Bus against a search."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from core.storage.pool import Session
from domains.mobility.network import fares
from domains.mobility.network.fares import Ride
from domains.mobility.network.load import Network
from domains.mobility.network.riding import rides_between
from tests.domains.mobility import feeds, tables
from tests.domains.mobility.networks import Load, loading
from tests.domains.serving import client_of

FARE = {"currency_type": "JPY", "payment_method": "0"}


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE chimata_ingest")
        yield connection


@pytest.fixture
def loaded(database_url: str, tmp_path: Path) -> Iterator[Load]:
    with loading(database_url, tmp_path) as network:
        yield network


def town(
    attributes: list[dict[str, Any]], rules: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Stops A (zone 1), B (2), C (3); routes r and q."""
    feed = tables.line("8:00:00", "8:10:00", "8:20:00")
    for zone, stop in enumerate(feed["stops"], start=1):
        stop["zone_id"] = str(zone)
    feed["routes"].append({"route_id": "q"})
    feed["fare_attributes"] = [FARE | each for each in attributes]
    feed["fare_rules"] = rules
    return feed


def price(network: Network, *rides: Ride) -> list[tuple[Decimal, str]] | None:
    found = fares.of(network.timetable, rides)
    return None if found is None else [(each.amount, each.currency) for each in found]


def fare(name: str, yen: int, **more: object) -> dict[str, Any]:
    return {"fare_id": name, "price": yen, **more}


AB, BC, AC = Ride(0, (0, 1), 0, 600), Ride(0, (1, 2), 600, 1200), Ride(0, (0, 1, 2), 0, 1200)
OTHER_BC = Ride(1, (1, 2), 600, 1200)
YEN = "JPY"


def test_zones_of_boarding_and_alighting(session: Session, loaded: Load) -> None:
    tables.store(session, town(
        [fare("near", 150), fare("far", 230), fare("q", 100)],
        [
            {"fare_id": "near", "origin_id": "1", "destination_id": "2"},
            {"fare_id": "far", "origin_id": "1", "destination_id": "3"},
            {"fare_id": "q", "route_id": "q", "origin_id": "2", "destination_id": "3"},
        ],
    ))  # fmt: skip
    network = loaded()
    assert price(network, AB) == [(150, YEN)]
    assert price(network, AC) == [(230, YEN)]
    assert price(network, BC) is None
    assert price(network, OTHER_BC) == [(100, YEN)]
    assert price(network, Ride(0, (1, 0), 0, 1)) is None
    assert price(network) is None


def test_zones_passed_are_those_of_the_rule(session: Session, loaded: Load) -> None:
    tables.store(session, town(
        [fare("two", 150), fare("three", 200)],
        [
            *({"fare_id": "two", "contains_id": zone} for zone in "12"),
            *({"fare_id": "three", "contains_id": zone} for zone in "123"),
        ],
    ))  # fmt: skip
    network = loaded()
    assert price(network, AB) == [(150, YEN)]
    assert price(network, AC) == [(200, YEN)]
    assert price(network, BC) is None


def test_one_ticket_or_two(session: Session, loaded: Load) -> None:
    """Transfers and transfer_duration of a fare say which rides it covers."""
    every = [{"fare_id": "day", "route_id": ""}]
    for attribute, expected in (
        (fare("day", 200, transfers="0"), 400),
        (fare("day", 200, transfers="1"), 200),
        (fare("day", 200), 200),
        (fare("day", 200, transfer_duration="599"), 400),
        (fare("day", 200, transfer_duration="600"), 200),
    ):
        session.execute("DELETE FROM mobility.feed_version")
        tables.store(session, town([attribute], every))
        found = fares.of(loaded().timetable, (AB, OTHER_BC))
        assert found is not None
        assert [each.amount for each in found] == [expected], attribute
        assert len(found[0].tickets) == expected // 200


def test_the_cheapest_way_to_pay(session: Session, loaded: Load) -> None:
    """Two singles where they cost less than one ticket for both; a fare without rules is any's."""
    tables.store(session, town(
        [fare("r", 100, transfers="0"), fare("q", 120, transfers="0"), fare("any", 250)],
        [{"fare_id": "r", "route_id": "r"}, {"fare_id": "q", "route_id": "q"}],
    ))  # fmt: skip
    network = loaded()
    assert price(network, AB, OTHER_BC) == [(220, YEN)]
    assert price(network, AB, BC, OTHER_BC) == [(250, YEN)]


def test_of_several_feeds_each_is_paid(session: Session, loaded: Load) -> None:
    tables.store(session, town([fare("yen", 200)], []), "one")
    dollar = fare("dollar", 3) | {"price": "2.75", "currency_type": "USD"}
    tables.store(session, town([dollar], []), "two")
    other = Ride(2, (3, 4), 2000, 2600)
    assert price(loaded(), AB, BC, other) == [(200, YEN), (Decimal("2.75"), "USD")]


def searched(
    rows: list[dict[str, str]], prices: dict[str, Decimal], route: str, ends: tuple[str, str]
) -> Decimal | None:
    """The cheapest of all rules, one by one."""
    fits = [
        prices[row["fare_id"]]
        for row in rows
        if (row.get("route_id") or route) == route
        and (row.get("origin_id") or ends[0]) == ends[0]
        and (row.get("destination_id") or ends[1]) == ends[1]
    ]
    return min(fits, default=None)


def test_fares_of_a_real_feed(
    database_url: str, shared_data: Path, tmp_path: Path, loaded: Load
) -> None:
    """63,745 rules by route and zones: random rides cost what a search through them says."""
    feeds.import_recorded(database_url, shared_data, "donan-bus-muroran")
    feed = tables.read(shared_data / feeds.RECORDED["donan-bus-muroran"])
    network, random = loaded(), Random(1)
    timetable = network.timetable
    prices = {row["fare_id"]: Decimal(row["price"]) for row in feed["fare_attributes"]}
    zones = {row["stop_id"]: row["zone_id"] for row in feed["stops"]}
    assert timetable.fares.rule_fare.size == len(feed["fare_rules"]) == 63_745
    asked = 0
    for _ in range(60):
        trip = random.randrange(len(timetable.trips.ids.texts))
        low, high = int(timetable.trips.offsets[trip]), int(timetable.trips.offsets[trip + 1])
        begin, end = sorted(random.sample(range(low, high), 2))
        called = timetable.stop_times.stop[begin : end + 1].tolist()
        route = int(timetable.trips.route[trip])
        ends = [timetable.stops.ids.texts[each].partition(":")[2] for each in called]
        right = searched(
            feed["fare_rules"], prices, timetable.routes.ids.texts[route].partition(":")[2],
            (zones[ends[0]], zones[ends[-1]]),
        )  # fmt: skip
        found = price(network, Ride(route, called, 0, 60))
        assert found == (None if right is None else [(right, YEN)])
        asked += found is not None
    assert asked > 30


def test_fares_over_http(
    database_url: str, shared_data: Path, tmp_path: Path, loaded: Load
) -> None:
    feeds.import_recorded(database_url, shared_data, "donan-bus-muroran")
    network = loaded()
    texts, stops = network.timetable.stops.ids.texts, network.timetable.stop_times.stop
    begin, end = int(stops[0]), int(stops[5])
    with client_of(database_url, tmp_path, None) as client:
        asked = {"from": texts[begin], "to": texts[end]}
        answer = client.get("/v1/mobility/fares", params=asked).json()["fares"]
        assert [each["price"] for each in answer] == sorted(each["price"] for each in answer)
        rides = list(rides_between(network, datetime.now(UTC), [begin], [end]))
        assert {each["route"] for each in answer} <= {
            network.timetable.routes.ids.texts[ride.route] for ride in rides
        }
        first = answer[0]
        assert (first["currency"], first["tickets"][0]["rides"]) == (YEN, 1)
        one = client.get("/v1/mobility/fares", params=asked | {"route": first["route"]}).json()
        assert one["fares"] == [first]
        back = {"from": texts[end], "to": texts[begin]}
        assert client.get("/v1/mobility/fares", params=back).json()["fares"] != answer
        gone = client.get("/v1/mobility/fares", params={"from": "x", "to": "y"})
        assert gone.status_code == 404
