"""Timetables go out again: the same rows, the same bytes, and what outside judges say of them."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from gtfs_validator.cli import main as validate

from benchmarks import city_feed
from core.tokens import Role
from tests.domains.mobility.feeds import (
    RECORDED,
    SMALL,
    everything,
    import_recorded,
    imported,
    packed,
)
from tests.domains.serving import client_of

URL = "/v1/mobility/feeds/{}/gtfs.zip"

ODD = SMALL | {
    "stops.txt": 'stop_id,stop_name,stop_lat,stop_lon,zone_id,"odd, column",parent_station\n'
    's1,"駅前 ""東""\n口",35.0000001,135,z1,"a,b",\ns2,市役所,35.01,1.35e2,,,s9\n'
    "s3,港,35.02,135.00,z2,,\n",
    "frequencies.txt": "trip_id,start_time,end_time,headway_secs\nt1,6:00:00,100:00:00,600\n",
    "transfers.txt": "from_stop_id,to_stop_id,transfer_type,from_trip_id,to_trip_id\n"
    "s1,s2,,,\ns3,s1,1,t1,t2\n",
    "calendar_dates.txt": "service_id,date,exception_type\nwd,20261123,2\nextra,20261123,1\n",
    "fare_attributes.txt": "fare_id,price,currency_type,payment_method,transfers,agency_id\n"
    "f,210.00,JPY,0,,a\n",
    "fare_rules.txt": "fare_id,origin_id,destination_id\nf,z1,z2\n",
    "shapes.txt": "shape_id,shape_pt_lat,shape_pt_lon,shape_pt_sequence\n"
    "p,35,135,7\np,35.1,135,2\n",
    "translations.txt": "trans_id,lang,translation\n"
    "港,en,Harbour\n港,ja-Hrkt,みなと\nない,en,none\n",
    "office_jp.txt": "office_id,office_name\n1,本社\n",
}  # fmt: skip
"""SMALL with something in every table, and with what is awkward to write again."""


def published(url: str, folder: Path, feed: str) -> bytes:
    with client_of(url, folder, None) as client:
        answer = client.get(URL.format(feed))
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_feed_is_published_as_it_was_read(storage_url: str, tmp_path: Path) -> None:
    """Every table equal, down to the last digit and quote; deterministic bytes."""
    first = imported(storage_url, packed(ODD))
    content = published(storage_url, tmp_path, "small")
    again = imported(storage_url, content, "again")
    assert everything(storage_url, again.version) == everything(storage_url, first.version)
    # What was wrong with the first is not written again.
    assert first.refused == again.refused == {}
    assert published(storage_url, tmp_path, "again") == content


@pytest.mark.shared_data
@pytest.mark.parametrize("feed", RECORDED)
def test_recorded_feeds_are_published_as_they_were_read(
    feed: str, database_url: str, tmp_path: Path, shared_data: Path
) -> None:
    """Every table equal; the validator has nothing to say that it does not say of the original."""
    first = import_recorded(database_url, shared_data, feed)
    content = published(database_url, tmp_path, feed)
    again = imported(database_url, content, "again")
    before, after = (everything(database_url, each.version) for each in (first, again))
    if feed == "donan-bus-muroran":
        # Two of its translations are there twice: stored as they came, and published once.
        assert len(before["translation"]) - len(after["translation"]) == 2
        for rows in (before, after):
            rows["translation"] = [dict(t) for t in {tuple(t.items()) for t in rows["translation"]}]
            rows["translation"].sort(key=str)
    assert after == before
    original = (shared_data / RECORDED[feed]).read_bytes()
    assert errors(content, tmp_path / "ours") <= errors(original, tmp_path / "theirs")


def test_what_is_valid_stays_valid(database_url: str, tmp_path: Path) -> None:
    """Feeds of ours, a line and a city of lines with zones, shapes and poles: no error at all."""
    path = tmp_path / "city.zip"
    stop_times = city_feed.write(path, stop_times=2000)
    city = imported(database_url, path.read_bytes(), "city")
    assert city.counts["stop_times"] == stop_times
    # What its weekdays do on other holidays than it made is told, and nothing else.
    assert {each["code"] for each in city.quality["problems"]} <= {"holiday_service", "stop_unused"}
    imported(database_url, packed(SMALL))
    for feed in ("city", "small"):
        assert errors(published(database_url, tmp_path, feed), tmp_path / feed) == set()


def errors(content: bytes, folder: Path) -> set[str]:
    """Codes of what the validator calls an error."""
    folder.mkdir()
    (folder / "feed.zip").write_bytes(content)
    command = ["-i", str(folder / "feed.zip"), "-o", str(folder / "out"), "-c", "jp"]
    assert validate(command) == 0
    report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    return {each["code"] for each in report["notices"] if each["severity"] == "ERROR"}


def test_old_translations_go_out_in_the_modern_form(database_url: str, tmp_path: Path) -> None:
    imported(database_url, packed(ODD))
    with zipfile.ZipFile(io.BytesIO(published(database_url, tmp_path, "small"))) as archive:
        lines = archive.read("translations.txt").decode().splitlines()
        assert archive.read("office_jp.txt").decode() == ODD["office_jp.txt"]
    assert lines == [
        "table_name,field_name,language,translation,record_id,record_sub_id,field_value",
        "stops,stop_name,en,none,,,ない",
        "stops,stop_name,en,Harbour,,,港",
        "stops,stop_name,ja-Hrkt,みなと,,,港",
        "trips,trip_headsign,en,Harbour,,,港",
        "trips,trip_headsign,ja-Hrkt,みなと,,,港",
    ]


def test_the_zip_is_asked_for_again_by_its_tag(database_url: str, tmp_path: Path) -> None:
    first = imported(database_url, packed(SMALL))
    # Valid in another year: not what is in force, though it came later.
    later = {name: text.replace("202", "203") for name, text in SMALL.items()}
    second = imported(database_url, packed(later))
    with client_of(database_url, tmp_path, None) as client:
        answer = client.get(URL.format("small"))
        tag = answer.headers["etag"]
        assert client.get(URL.format("small"), headers={"If-None-Match": tag}).status_code == 304
        named = client.get(URL.format("small") + f"?version={second.version}")
        assert named.headers["etag"] != tag
        in_force = client.get(URL.format("small") + f"?version={first.version}")
        assert in_force.headers["etag"] == tag
        assert client.get(URL.format("other")).status_code == 404
        assert client.get(URL.format("small") + "?version=9999").status_code == 404


def test_a_competitive_feed_is_read_by_contract(database_url: str, tmp_path: Path) -> None:
    """Neither its zip nor its quality without a token that reads shared data."""
    imported(database_url, packed(SMALL), sharing="competitive")
    for path in (URL.format("small"), "/v1/mobility/feeds/small/quality"):
        with client_of(database_url, tmp_path, None) as client:
            assert client.get(path).status_code == 404
        with client_of(database_url, tmp_path, Role.OPERATOR) as client:
            assert client.get(path).status_code == 200


def test_the_operator_reads_what_is_wrong(database_url: str, tmp_path: Path) -> None:
    imported(database_url, packed(ODD))
    with client_of(database_url, tmp_path, None) as client:
        quality = client.get("/v1/mobility/feeds/small/quality").json()
    assert (quality["feed"], quality["valid_from"]) == ("small", "2026-04-01")
    assert quality["problems"][0] == {
        "code": "missing_reference",
        "severity": "error",
        "count": 1,
        "message_ja": "参照先がフィードにありません",
        "message_en": "It names something that the feed does not have",
        "examples": [{"file": "stops.txt", "row": 3, "field": "parent_station", "id": "s9"}],
    }
    assert quality["errors"] == 1
    assert 0 < quality["score"] < 100
