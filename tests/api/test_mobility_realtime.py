"""Real time as others read it: GTFS-Realtime, vehicles, alerts and the stream say the same."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.transit import gtfs_realtime_pb2 as pb

from domains.mobility.realtime import live
from domains.mobility.realtime.publish import Kind
from tests.api.conftest import Served
from tests.api.test_live import joined, stream
from tests.domains.mobility.feeds import SMALL, imported, packed
from tests.domains.mobility.realtime import feeds
from tests.domains.mobility.realtime.judge import Judge
from tests.domains.mobility.realtime.town import Town

TOKYO = ZoneInfo("Asia/Tokyo")
STATIC = "small"
V1 = "/v1/mobility"


def files(now: float) -> dict[str, str | bytes]:
    """The small feed with a bus that left the first stop ten minutes ago, and a tram after it."""
    left = datetime.fromtimestamp(now, TOKYO) - timedelta(minutes=10)
    noon = left.replace(hour=12, minute=0, second=0, microsecond=0)
    start = int((left - noon) / timedelta(seconds=1)) + 43_200
    calls = [
        (trip, start + late + leg, stop, number)
        for trip, late in (("t1", 0), ("t2", 60))
        for number, (stop, leg) in enumerate((("s1", 0), ("s2", 720), ("s3", 1200)), 1)
    ]
    day = f"{left:%Y%m%d}"
    return {
        **SMALL,
        "routes.txt": SMALL["routes.txt"] + "r2,a,2,0\n",
        "trips.txt": "route_id,service_id,trip_id,trip_headsign\nr1,wd,t1,港\nr2,wd,t2,港\n",
        "stop_times.txt": "trip_id,arrival_time,departure_time,stop_id,stop_sequence\n"
        + "".join(f"{t},{clock(s)},{clock(s)},{stop},{n}\n" for t, s, stop, n in calls),
        "calendar.txt": SMALL["calendar.txt"].replace("20260401,20270331", f"{day},{day}")
        .replace("1,1,1,1,1,0,0", "1,1,1,1,1,1,1"),
        "feed_info.txt": SMALL["feed_info.txt"].replace("20260401,20270331", f"{day},{day}"),
    }  # fmt: skip


def clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    imported(served.database_url, packed(files(time())), STATIC)
    sender = Town(served.database_url, STATIC)
    yield sender
    sender.close()


def bus(latitude: float = 35.005, seconds_ago: float = 0, **more: Any) -> dict[str, Any]:
    return feeds.position(
        "bus-1", 135.0, latitude, "t1", timestamp=int(time() - seconds_ago),
        occupancyStatus="FEW_SEATS_AVAILABLE", **more,
    )  # fmt: skip


def tram() -> dict[str, Any]:
    return feeds.position("tram-1", 135.0, 35.001, "t2", timestamp=int(time()))


def send(town: Town, *entities: dict[str, Any]) -> None:
    town.send(feeds.message(*entities, time=int(time())), time())


def ids(served: Served, query: str = "") -> list[str]:
    answer = served.get(f"{V1}/vehicles{query}")
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["vehicles"]]


def published(served: Served, kind: Kind) -> pb.FeedMessage:
    answer = served.get(f"{V1}/feeds/{STATIC}/{kind}.pb")
    assert answer.status_code == 200, answer.text
    return pb.FeedMessage.FromString(answer.content)


def told(served: Served, until: Any, kind: Kind, count: int) -> pb.FeedMessage:
    until(lambda: len(published(served, kind).entity) == count)
    return published(served, kind)


def test_a_vehicle_is_told_alike_by_every_way(
    served: Served, town: Town, until: Any, tmp_path: Path
) -> None:
    send(town, bus(), tram())
    until(lambda: len(ids(served)) == 2)
    (first, _) = served.get(f"{V1}/vehicles").json()["vehicles"]
    assert (first["id"], first["mode"], first["occupancy"]) == (
        "small:bus-1", "bus", "FEW_SEATS_AVAILABLE",
    )  # fmt: skip
    assert first["trip"]["id"] == "small:t1"
    assert first["route"]["id"] == "small:r1"
    assert first["next_stop"]["id"] in ("small:s2", "small:s3")
    assert first["next_stop"]["expected"].endswith("+09:00")
    message = told(served, until, Kind.POSITIONS, 2)
    assert {each.vehicle.trip.trip_id for each in message.entity} == {"t1", "t2"}
    as_json = served.get(f"{V1}/feeds/{STATIC}/vehicle-positions.json").json()
    vehicles = {each["vehicle"]["vehicle"]["id"] for each in as_json["entity"]}
    assert vehicles == {"bus-1", "tram-1"}
    (tmp_path / "gtfs.zip").write_bytes(served.get(f"{V1}/feeds/{STATIC}/gtfs.zip").content)
    raw = {kind: served.get(f"{V1}/feeds/{STATIC}/{kind}.pb").content for kind in Kind}
    at = datetime.fromtimestamp(message.header.timestamp, ZoneInfo("UTC"))
    assert Judge(tmp_path / "gtfs.zip", tmp_path).errors(raw, at) == []


def test_topics_and_pages(served: Served, town: Town, until: Any) -> None:
    send(town, bus(), tram())
    until(lambda: len(ids(served)) == 2)
    assert ids(served, "?route=small:r1") == ["small:bus-1"]
    assert ids(served, "?mode=tram") == ["small:tram-1"]
    assert ids(served, "?mode=ferry") == []
    assert ids(served, "?feed=small&mode=bus") == ["small:bus-1"]
    assert ids(served, "?feed=other") == []
    assert ids(served, "?bbox=134.9,35.004,135.1,35.1") == ["small:bus-1"]
    assert ids(served, "?geohash=xn0") == ids(served)
    assert ids(served, "?geohash=xn1") == []
    page = served.get(f"{V1}/vehicles?limit=1").json()
    assert [each["id"] for each in page["vehicles"]] == ["small:bus-1"]
    page = served.get(page["next"]).json()
    assert [each["id"] for each in page["vehicles"]] == ["small:tram-1"]
    assert page["next"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("vehicles?geohash=abc", "geohash"), ("vehicles?geohash=0123456789bcd", "geohash"),
        ("vehicles?mode=rocket", "mode"), ("vehicles?bbox=1,2,3", "bbox"),
        ("vehicles?bbox=1,nan,3,4", "bbox"), ("vehicles?limit=0", "limit"),
        ("vehicles?limit=99999999", "limit"), ("vehicles?route=", "route"),
        ("vehicles?route=%00", "route"), ("vehicles?feed=a&feed=b", "feed"),
        ("alerts?active_at=yesterday", "active_at"), ("alerts?active_at=2026-01-01", "active_at"),
        ("alerts?lang=*", "lang"), ("alerts?stop=%0a", "stop"),
        ("vehicles/stream?events=all", "events"), ("vehicles/stream?geohash=ai", "geohash"),
        ("vehicles/stream?bbox=200,0,1,1", "bbox"), ("feeds/small/everything.pb", "kind"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(module_served: Served, query: str, field: str) -> None:
    answer = module_served.get(f"{V1}/{query}")
    assert answer.status_code == 422
    assert field in str(answer.json())


def test_an_unknown_feed_is_not_found(module_served: Served) -> None:
    assert module_served.get(f"{V1}/feeds/none/alerts.pb").status_code == 404


def test_a_message_is_the_same_until_something_changes(
    served: Served, town: Town, until: Any
) -> None:
    """Readers ask with the ETag that they hold; the header's time never goes back."""
    send(town, bus())
    first = told(served, until, Kind.POSITIONS, 1)
    path = f"{V1}/feeds/{STATIC}/vehicle-positions.pb"
    answer = served.get(path)
    again = served.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    assert not again.content
    send(town, bus(35.006))
    until(lambda: served.get(path).headers["ETag"] != answer.headers["ETag"])
    later = published(served, Kind.POSITIONS)
    assert later.header.timestamp >= first.header.timestamp
    assert later.entity[0].vehicle.position.latitude == pytest.approx(35.006)


def test_an_alert_that_closes_a_stop_is_told_by_every_way(
    served: Served, town: Town, until: Any
) -> None:
    closed = feeds.alert(
        "a1", {"stopId": "s2"}, effect="NO_SERVICE",
        headerText={"translation": [{"text": "休止", "language": "ja"},
                                    {"text": "Closed", "language": "en"}]},
    )  # fmt: skip
    with stream(served, "?events=alerts", path=f"{V1}/vehicles/stream") as opened:
        until(joined(served, 1))
        send(town, closed)
        event = opened.next()
        assert event.name == "alerts"
        assert event.data["alerts"][0]["stops"] == ["small:s2"]
        sleep(1.1)
        send(town, feeds.alert("a2", {"stopId": "s1"}, effect="DETOUR"))
        after = [opened.next(), opened.next()]
        assert [each.name for each in after] == ["alerts", "gone"]
        assert after[1].data == {"alerts": ["small:a1"]}
        sleep(1.1)  # what is told of the same second takes no place
    send(town, closed)
    message = told(served, until, Kind.ALERTS, 1)
    assert message.entity[0].alert.informed_entity[0].stop_id == "s2"
    for query, header in (("?stop=small:s2&lang=en", "Closed"), ("?lang=ja", "休止")):
        answer = served.get(f"{V1}/alerts{query}").json()
        assert [(each["effect"], each["header"]) for each in answer["alerts"]] == [
            ("NO_SERVICE", header)
        ]
    assert served.get(f"{V1}/alerts?stop=small:s1").json()["alerts"] == []
    assert served.get(f"{V1}/alerts?route=small:r1").json()["alerts"] == []


def test_who_falls_silent_leaves_every_way(
    served: Served, town: Town, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "REST_BEATS", 2)
    with stream(served, "?events=vehicles", path=f"{V1}/vehicles/stream") as opened:
        send(town, bus(seconds_ago=87))
        assert opened.next().data["vehicles"][0]["id"] == "small:bus-1"
        assert ids(served) == ["small:bus-1"]
        gone = opened.next()
        assert (gone.name, gone.data) == ("gone", {"vehicles": ["small:bus-1"]})
    assert ids(served) == []
    assert len(published(served, Kind.POSITIONS).entity) == 0


def test_a_stream_tells_its_topic_and_goes_on_where_it_was_cut(
    served: Served, town: Town, until: Any
) -> None:
    path = f"{V1}/vehicles/stream"
    send(town, bus(), tram())
    until(lambda: len(ids(served)) == 2)
    with stream(served, "?mode=bus&events=vehicles", path=path) as opened:
        (one,) = opened.next().data["vehicles"]
        assert one["id"] == "small:bus-1"
        send(town, tram())
        assert opened.silent()
        send(town, bus(35.006))
        event = opened.next()
        assert event.data["vehicles"][0]["latitude"] == pytest.approx(35.006)
        until(lambda: opened.last_id is not None)
        last = event.id
        # Another listener keeps the fan looking while this one is away.
        with stream(served, "?geohash=xn0&events=vehicles", path=path) as other:
            assert len(other.next().data["vehicles"]) == 2
            send(town, bus(35.007))
            assert other.next().data["vehicles"][0]["latitude"] == pytest.approx(35.007)
            with stream(served, "?mode=bus&events=vehicles", path=path, last_id=last) as resumed:
                missed = resumed.next()
                assert missed.name == "vehicles"
                assert missed.data["vehicles"][0]["latitude"] == pytest.approx(35.007)
    with stream(served, "?mode=bus&events=vehicles", path=path, last_id="v0:1") as opened:
        assert opened.next().name == "reset"
    until(joined(served, 0))
