"""Feeds: registered by command, polled from a real server, brought in, told of as a catalogue."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import rdflib

from core.settings import Settings
from core.tokens import Role
from deploy.polling import Poller
from ingest import http
from tests.api.conftest import Served, served_with
from tests.domains.mobility.feeds import SMALL, packed
from tests.domains.mobility.realtime.feeds import message, position

pytestmark = pytest.mark.timeout(120)
KEY = "s3cr3t-of-the-city"


@dataclass
class Publisher:
    """A publisher's server: paths to (body, ETag); what it was asked for."""

    files: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    slow: threading.Event | None = None
    url: str = ""

    def answer(self, path: str, etag: str | None) -> tuple[int, bytes, dict[str, str]]:
        name, _, query = path.partition("?")
        if name == "/moved":
            return 302, b"", {"Location": "/bus.zip"}
        if name == "/round":
            return 302, b"", {"Location": "/round"}
        if name == "/slow" and self.slow is not None:
            self.slow.wait(30)
        if name == "/locked" and query != f"consumerKey={KEY}":
            return 403, b"", {}
        if name not in self.files:
            return 404, b"", {}
        body, said = self.files[name]
        if said and etag == said:
            return 304, b"", {}
        return 200, body, {"ETag": said} if said else {}


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    found = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = found.answer(self.path, self.headers.get("If-None-Match"))
            found.asked.append((self.path, status))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def platform(database_url: str, tmp_path: Path) -> Iterator[Served]:
    settings = Settings(database_url=database_url, data=tmp_path)
    with served_with(settings, http.router(settings)) as served:
        yield served


def chimata(served: Served, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHIMATA_")}
    told = {"CHIMATA_DATABASE_URL": served.database_url, "CHIMATA_DATA": str(served.data)}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "feeds", *arguments],
        env={**environment, **told, "PYTHONPATH": root}, input=stdin,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def added(served: Served, *arguments: str, stdin: str = "") -> None:
    done = chimata(served, "add", *arguments, "--title", "市バス", stdin=stdin)
    assert done.returncode == 0, done.stderr


def listed(served: Served) -> dict[str, dict[str, Any]]:
    done = chimata(served, "--json")
    return {feed["id"]: feed for feed in json.loads(done.stdout)["feeds"]}


def poller(served: Served, told: list[str]) -> Poller:
    return Poller(served.database_url, served.data, served.url, "chimata", told.append)


def now_timetable(**changes: str) -> bytes:
    """The small feed, in force around today."""
    today = datetime.now(UTC).date()
    begin, end = (f"{today + timedelta(days=n):%Y%m%d}" for n in (-30, 300))
    files = {
        name: text.replace("20260401", begin).replace("20270331", end)
        for name, text in SMALL.items()
    }
    return packed({**files, **changes})


def test_a_timetable_is_fetched_when_it_changed(platform: Served, publisher: Publisher) -> None:
    publisher.files["/bus.zip"] = (now_timetable(), '"1"')
    added(platform, "city-bus", "--kind", "gtfs", "--url", f"{publisher.url}/moved",
          "--licence", "CC-BY-4.0", "--attribution", "千曳市")  # fmt: skip
    for _ in range(2):
        done = chimata(platform, "poll", "--once", "--to", platform.url)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [status for path, status in publisher.asked if path == "/bus.zip"] == [200, 304]
    publisher.files["/bus.zip"] = (now_timetable(**{"pathways.txt": "pathway_id\n"}), '"2"')
    assert "imported" in chimata(platform, "poll", "--once", "--to", platform.url).stdout
    assert listed(platform)["city-bus"]["versions"] == 2

    feed = platform.get("/v1/mobility/feeds/city-bus").json()
    assert feed["state"] == "fresh"
    assert (feed["licence"], feed["sharing"]) == ("CC-BY-4.0", "collaborative")
    assert feed["counts"]["stops"] == 3
    assert feed["coverage"]["box"] == [135.0, 35.0, 135.0, 35.02]
    assert feed["version"] == 2
    (page,) = [platform.get("/v1/mobility/feeds?limit=1").json()]
    assert [each["id"] for each in page["feeds"]] == ["city-bus"]
    last = {"feeds": [], "next": None, "streets": None}
    assert platform.get(page["next"]).json() == last
    assert platform.get("/v1/mobility/feeds?kind=gbfs").json()["feeds"] == []


def test_news_are_pushed_as_the_feeds_own_gateway(platform: Served, publisher: Publisher) -> None:
    now = int(time.time())
    publisher.files["/positions.pb"] = (message(position("7", 135.0, 35.0), time=now), None)
    added(platform, "city-bus-rt", "--kind", "gtfs-rt", "--url", f"{publisher.url}/positions.pb")
    told: list[str] = []
    assert poller(platform, told).run(threading.Event(), once=True) == 0
    (line,) = told
    assert line.endswith("0 duplicate, 0 rejected")
    with psycopg.connect(platform.database_url) as connection:
        key = "SELECT t.key, d.data_class FROM thing t JOIN datastream d ON d.thing_id = t.id"
        assert ("city-bus-rt:vehicle:7", "open") in set(connection.execute(key))
    assert platform.get("/v1/mobility/feeds/city-bus-rt").json()["state"] == "fresh"


def test_a_feed_that_becomes_competitive_takes_with_it_what_came_before(
    platform: Served, publisher: Publisher
) -> None:
    """And an ingestor that runs all the time makes what comes new of the class that holds now."""
    now, url = int(time.time()), f"{publisher.url}/positions.pb"
    buses = []
    for number, sharing in enumerate(("collaborative", "competitive", "collaborative")):
        buses.append(position(f"b{number}", 135.0, 35.0))
        publisher.files["/positions.pb"] = (message(*buses, time=now - 3 + number), None)
        added(platform, "rt", "--kind", "gtfs-rt", "--url", url, "--sharing", sharing)
        poller(platform, []).run(threading.Event(), once=True)
        for path in ("/v1/mobility/things", "/v1/mobility/latest?bbox=134,34,136,36"):
            anyone, operator = platform.get(path).text, platform.get(path, Role.OPERATOR).text
            for bus in range(number + 1):
                seen = f"rt:vehicle:b{bus}" in anyone
                assert seen is (sharing == "collaborative"), (sharing, path, bus)
                assert f"rt:vehicle:b{bus}" in operator


def test_one_that_hangs_or_fails_is_in_nobodys_way(platform: Served, publisher: Publisher) -> None:
    publisher.slow = threading.Event()
    publisher.files["/slow"] = (b"", None)
    for name, path in (("a", "/slow"), ("b", "/nothing"), ("c", "/round"), ("d", "/bus.zip")):
        added(platform, name, "--kind", "gtfs", "--url", publisher.url + path)
    publisher.files["/bus.zip"] = (now_timetable(), None)
    told: list[str] = []
    stop = threading.Event()
    running = threading.Thread(target=poller(platform, told).run, args=(stop,))
    running.start()
    try:
        deadline = time.monotonic() + 30
        while len(told) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert {line[0] for line in told} == {"b", "c", "d"}
    finally:
        publisher.slow.set()
        stop.set()
        running.join(60)
    errors = {name: feed["error"] for name, feed in listed(platform).items()}
    assert errors["b"] == f"{publisher.url.rpartition(':')[0]}/nothing: HTTP 404"
    assert "redirects" in str(errors["c"])
    assert errors["d"] is None
    assert platform.get("/v1/mobility/feeds/b").json()["state"] == "failing"


def test_a_key_goes_into_the_url_and_nowhere_else(platform: Served, publisher: Publisher) -> None:
    publisher.files["/locked"] = (now_timetable(), None)
    url = f"{publisher.url}/locked?consumerKey={{key}}"
    added(platform, "odpt", "--kind", "gtfs", "--url", url, "--key", stdin=f"{KEY}\n")
    done = chimata(platform, "poll", "odpt", "--once", "--to", platform.url)
    assert done.returncode == 0, done.stdout
    (kept,) = (platform.data / "keys" / "feeds").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    del publisher.files["/locked"]
    failed = chimata(platform, "poll", "odpt", "--once", "--to", platform.url)
    assert failed.returncode == 1
    shown = failed.stdout + failed.stderr + chimata(platform, "--json").stdout
    assert KEY not in shown + platform.get("/v1/mobility/feeds").text
    assert chimata(platform, "remove", "odpt").returncode == 0
    assert not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("X!", "--kind", "gtfs"), "ID"),
        (("x", "--kind", "siri"), "--kind"),
        (("x", "--kind", "gtfs", "--url", "file:///etc/passwd"), "--url"),
        (("x", "--kind", "gtfs", "--url", "https://a:b@example.com/"), "--url"),
        (("x", "--kind", "gtfs", "--url", "https://example.com/?acl:consumerKey=1"), "--url"),
        (("x", "--kind", "gtfs", "--url", "https://example.com/?key={key}"), "--key"),
        (("x", "--kind", "gtfs", "--url", "https://example.com/", "--every", "1"), "--every"),
        (("x", "--kind", "gtfs", "--sharing", "none"), "--sharing"),
        (("x", "--kind", "gtfs", "--static", "y"), "--static"),
        (("x", "--kind", "gtfs-rt", "--static", "y"), "--static"),
    ],
)
def test_what_is_wrong_is_named(platform: Served, arguments: tuple[str, ...], field: str) -> None:
    done = chimata(platform, "add", *arguments, "--title", "x")
    assert done.returncode == 1
    assert field in done.stderr
    assert listed(platform) == {}


def test_the_competitive_are_for_a_contract(platform: Served, publisher: Publisher) -> None:
    publisher.files["/bus.zip"] = (now_timetable(), None)
    added(platform, "ours", "--kind", "gtfs", "--url", f"{publisher.url}/bus.zip",
          "--sharing", "competitive")  # fmt: skip
    assert chimata(platform, "poll", "--once", "--to", platform.url).returncode == 0
    assert platform.get("/v1/mobility/feeds").json()["feeds"] == []
    assert platform.get("/v1/mobility/feeds/ours").status_code == 404
    assert platform.get("/v1/mobility/feeds/ours", Role.OPERATOR).status_code == 200
    graph = rdflib.Graph()
    graph.parse(data=platform.get("/v1/mobility/catalogue.jsonld").text, format="json-ld")
    assert not list(graph.subjects(rdflib.RDF.type, rdflib.DCAT.Dataset))


def test_the_catalogue_is_dcat(platform: Served, publisher: Publisher) -> None:
    publisher.files["/bus.zip"] = (now_timetable(), None)
    added(platform, "city-bus", "--kind", "gtfs", "--url", f"{publisher.url}/bus.zip",
          "--licence", "CC-BY-4.0")  # fmt: skip
    assert chimata(platform, "poll", "--once", "--to", platform.url).returncode == 0
    answer = platform.get("/v1/mobility/catalogue.jsonld")
    assert answer.headers["content-type"] == "application/ld+json"
    graph = rdflib.Graph()
    graph.parse(data=answer.text, format="json-ld")
    dcat, dct = rdflib.DCAT, rdflib.DCTERMS
    (dataset,) = graph.subjects(rdflib.RDF.type, dcat.Dataset)
    assert str(graph.value(dataset, dct.title)) == "市バス"
    assert str(graph.value(dataset, dct.license)) == "https://spdx.org/licenses/CC-BY-4.0"
    links = [str(link) for each in graph.objects(dataset, dcat.distribution)
             for link in graph.objects(each, dcat.downloadURL)]  # fmt: skip
    assert f"{platform.url}/v1/mobility/feeds/city-bus/gtfs.zip" in links
    period = graph.value(dataset, dct.temporal)
    assert graph.value(period, dcat.endDate).toPython() > date.today()


def test_an_expired_timetable_is_said_to_be(platform: Served, publisher: Publisher) -> None:
    old = {n: t.replace("2026", "2020").replace("2027", "2021") for n, t in SMALL.items()}
    publisher.files["/bus.zip"] = (packed(old), None)
    added(platform, "city-bus", "--kind", "gtfs", "--url", f"{publisher.url}/bus.zip")
    assert chimata(platform, "poll", "--once", "--to", platform.url).returncode == 0
    assert platform.get("/v1/mobility/feeds/city-bus").json()["state"] == "expired"
