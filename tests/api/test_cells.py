"""One read API over two databases: what each has, together, and what is missing said so."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import uvicorn
from psycopg import sql

from api import cells, spanning
from core.clock import now_us
from core.errors import CityError
from core.settings import Settings
from core.tokens import Role, issue, load_keys
from deploy import postgres
from tests.api.conftest import START_SECONDS_MAX
from tests.databases import copied
from tests.ingest.helpers import payload, running, until

SECOND = 1_000_000
CLOSE = "ALTER DATABASE {} ALLOW_CONNECTIONS {}"
END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
SECTOR = "farms"


@dataclass
class Country:
    """The API in front of its cells, by their database URLs."""

    url: str
    cells: dict[str, str]
    data: Path
    server: postgres.Server

    def get(self, path: str, role: Role | None = Role.OPERATOR, **headers: str) -> httpx.Response:
        if role is not None:
            token = issue(load_keys(self.data / "keys"), role, gateway="g", subject="s")
            headers["Authorization"] = f"Bearer {token}"
        return httpx.get(self.url + path, headers=headers, timeout=30)

    def json(self, path: str) -> dict[str, Any]:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def send(self, cell: str, *bodies: bytes) -> None:
        """As the cell's own ingestor stores it; returns once its latest values are there."""
        with running(Settings(database_url=self.cells[cell], data=self.data)) as channel:
            for body in bodies:
                assert channel.outcome(body, gateway=f"g-{cell}", sector=SECTOR).result == "stored"

    @contextmanager
    def down(self, cell: str) -> Iterator[None]:
        """The API knows that nobody gets into the cell's database, for the length of a block."""
        with self.closed(cell):
            until(lambda: self.get("/healthz").headers.get(cells.HEADER) == cell)
            yield
        until(self.is_whole)

    def is_whole(self) -> bool:
        """Whether every cell answers."""
        answer = self.get("/healthz")
        return answer.status_code == 200 and cells.HEADER not in answer.headers

    @contextmanager
    def closed(self, cell: str) -> Iterator[None]:
        """Nobody gets in."""
        name = urlsplit(self.cells[cell]).path.strip("/")
        with psycopg.connect(self.server.url, autocommit=True) as admin:
            admin.execute(sql.SQL(CLOSE).format(sql.Identifier(name), sql.SQL("false")))
            admin.execute(END_ALL, (name,))
            try:
                yield
            finally:
                admin.execute(sql.SQL(CLOSE).format(sql.Identifier(name), sql.SQL("true")))


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, START_SECONDS_MAX)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def country(
    database_template: postgres.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Country]:
    """Two cells with Things of their own, and one that both have heard; no test adds a Thing."""
    tmp_path = tmp_path_factory.mktemp("country")
    load_keys(tmp_path / "keys", create=True)
    with copied(database_template) as tokai, copied(database_template) as kinto:
        settings = Settings(cells=f"tokai={tokai};kinto={kinto}", data=tmp_path)
        with served(cells.create(settings)) as url:
            made = Country(url, {"tokai": tokai, "kinto": kinto}, tmp_path, database_template)
            made.send("tokai", *(payload(1.0, thing=f"t{n}") for n in range(5)))
            made.send("kinto", *(payload(2.0, thing=f"k{n}") for n in range(3)))
            made.send("tokai", payload(3.0, thing="van", at=now_us() - 60 * SECOND))
            made.send("kinto", payload(4.0, 5.0, thing="van"))
            yield made


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in entries]


EVERY = sorted([f"t{n}" for n in range(5)] + [f"k{n}" for n in range(3)] + ["van", "van"])


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("what", ["things", "latest"])
def test_pages_hold_every_cell_once(country: Country, what: str, limit: int) -> None:
    """Never more than `limit`, no Thing left out, none twice but the one that two cells know."""
    member = "things" if what == "things" else "features"
    found: list[str] = []
    path: str | None = f"/v1/{SECTOR}/{what}?limit={limit}"
    while path is not None:
        page = country.json(path)
        assert "incomplete" not in page
        assert len(page[member]) <= limit
        found += ids(page[member])
        path = page["next"]
    assert sorted(found) == EVERY


def test_one_thing_is_answered_by_the_cell_that_heard_it_last(country: Country) -> None:
    assert country.json(f"/v1/{SECTOR}/things/t3")["id"] == "t3"
    assert country.json(f"/v1/{SECTOR}/things/k1")["id"] == "k1"
    van = country.json(f"/v1/{SECTOR}/things/van")
    assert van["datastreams"][0]["latest"]["result"] == 5.0
    history = country.json(f"/v1/{SECTOR}/things/van/observations?property=soil-moisture")
    assert [row["result"] for row in history["observations"]] == [4.0, 5.0]
    ours = country.json(f"/v1/{SECTOR}/things/van/observations?property=soil-moisture&cell=tokai")
    assert [row["result"] for row in ours["observations"]] == [3.0]
    assert country.get(f"/v1/{SECTOR}/things/nobody").status_code == 404
    assert country.get(f"/v1/{SECTOR}/things/nobody/observations?property=x").status_code == 404


def test_lists_name_their_cells_and_counts_are_summed(country: Country) -> None:
    (farms,) = (s for s in country.json("/v1/sectors")["sectors"] if s["name"] == SECTOR)
    assert farms["things"] == len(EVERY)
    rows = country.json("/v1/account")["account"]
    assert {row["cell"]: row["gateway"] for row in rows} == {"tokai": "g-tokai", "kinto": "g-kinto"}
    for row in rows:
        (own,) = country.json(f"/v1/account?cell={row.pop('cell')}")["account"]
        assert row == own
    path, heard = "/v1/gateways?limit=1", []
    while path is not None:
        page = country.json(path)
        assert len(page["gateways"]) <= 1
        heard += [(each["cell"], each["id"]) for each in page["gateways"]]
        path = page["next"]
    assert sorted(heard) == [("kinto", "g-kinto"), ("tokai", "g-tokai")]
    assert country.get("/v1/gateways/g-tokai/gaps").status_code == 422
    assert "gaps" in country.json("/v1/gateways/g-tokai/gaps?cell=tokai")
    assert "chimata" in country.get("/metrics?cell=tokai").text
    assert country.get("/metrics").status_code == 422
    assert country.get("/v1/rejections").status_code == 422
    assert country.get("/v1/account", None).status_code == 401
    assert country.get("/v1/account?cell=edo").status_code == 422


def test_what_changed_is_followed_in_every_cell(country: Country) -> None:
    """The cursor holds both; a cell that was down is gone on with."""
    page = country.json(f"/v1/{SECTOR}/changes?after=now")
    country.send("kinto", payload(6.0, thing="k0"))
    with country.down("kinto"):
        country.send("tokai", payload(7.0, thing="t0"))

        def seen() -> list[Any]:
            nonlocal page
            page = country.json(page["next"])
            return [change["thing"] for change in page["changes"]]

        assert until(seen) == ["t0"]
        assert (page["incomplete"], page["complete"]) == (["kinto"], False)
    assert until(seen) == ["k0"]


def test_a_cell_that_is_down_is_named_and_not_waited_for(country: Country) -> None:
    with country.down("kinto"):
        began = time.monotonic()
        answer = country.get(f"/v1/{SECTOR}/things")
        assert time.monotonic() - began < 5
        assert answer.headers[cells.HEADER] == "kinto"
        page = answer.json()
        assert page["incomplete"] == ["kinto"]
        assert sorted(ids(page["things"])) == ["t0", "t1", "t2", "t3", "t4", "van"]
        assert page["next"] is None
        assert country.json(f"/v1/{SECTOR}/things/t1")["incomplete"] == ["kinto"]
        assert country.json("/v1/sectors")["incomplete"] == ["kinto"]
        unknown = country.get(f"/v1/{SECTOR}/things/k1")
        assert unknown.status_code == 503
        assert "kinto" in unknown.json()["detail"]
        with country.closed("tokai"):
            until(lambda: country.get("/healthz").status_code == 503)
            assert country.get(f"/v1/{SECTOR}/things").status_code == 503
    assert "incomplete" not in country.json(f"/v1/{SECTOR}/things")


def test_a_cell_that_goes_down_between_pages_is_named_to_the_end(country: Country) -> None:
    page = country.json(f"/v1/{SECTOR}/things?limit=4")
    with country.down("kinto"):
        later = []
        while page["next"] is not None:
            page = country.json(page["next"])
            assert page["incomplete"] == ["kinto"]
            later += ids(page["things"])
    assert all(name[0] != "k" for name in later)


def test_caches_and_errors_are_those_of_one_database(country: Country) -> None:
    path = f"/v1/{SECTOR}/things"
    answer = country.get(path)
    again = country.get(path, **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert country.get(f"/v1/{SECTOR}/latest").headers["Cache-Control"] == "no-store"
    bad = country.get(f"{path}?limit=0")
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["name"] == "limit"
    assert country.get("/v1/nothing/things").status_code in {404, 422}
    assert country.get(path, Authorization="Bearer x").status_code == 200
    assert httpx.post(country.url + f"/v1/ingest/{SECTOR}/json").status_code == 422
    assert country.get("/docs").headers["X-Content-Type-Options"] == "nosniff"


def events(country: Country, last: str | None = None) -> Iterator[dict[str, str]]:
    """The events of the live stream, each with what the client would resume from."""
    token = issue(load_keys(country.data / "keys"), Role.OPERATOR, gateway="g", subject="s")
    headers = {"Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
    with httpx.stream("GET", f"{country.url}/v1/live", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                yield event
                event = {}


def test_the_live_stream_is_one_and_resumes_in_every_cell(country: Country) -> None:
    stream = events(country)
    ready: dict[str, str] = {}
    while len(ready.get("id", "").split(";")) < len(country.cells):
        ready = next(stream)
    country.send("tokai", payload(8.0, thing="t0"))
    country.send("kinto", payload(9.0, thing="k0"))
    seen: dict[str, str] = {}
    while len(seen) < 2:
        event = next(stream)
        if event.get("event") == "observations":
            (row,) = json.loads(event["data"])["observations"]
            seen[row["thing"]] = event["id"]
    stream.close()  # type: ignore[attr-defined]
    country.send("tokai", payload(10.0, thing="t1"))
    resumed = events(country, last=seen["t0"])
    again: list[str] = []
    while len(again) < 2:
        event = next(resumed)
        if event.get("event") == "observations":
            again += [row["thing"] for row in json.loads(event["data"])["observations"]]
    assert sorted(again) == ["k0", "t1"], "what came after t0, in both cells"
    with country.down("kinto"):
        while (event := next(resumed)).get("event") != "incomplete":
            pass
        assert json.loads(event["data"]) == {"cells": ["kinto"]}
    resumed.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "tokai",
        "tokai=",
        "tokai=http://x",
        "To kai=postgresql://x",
        "a=postgresql://x;a=postgresql://y",
    ],
)
def test_bad_cells_are_one_clear_error(text: str) -> None:
    with pytest.raises(CityError, match="CHIMATA_CELLS"):
        cells.parse(text)


def test_a_cursor_of_cursors_is_what_it_was() -> None:
    cursors: spanning.Cursors = {"a": "key~/ö", "b": "", "c": None}
    text = spanning.encode_cursors(cursors)
    assert spanning.decode_cursors(text, ["a", "b", "c", "d"]) == cursors
    assert spanning.decode_cursors("plain", ["a", "b"]) == {"a": "plain", "b": "plain"}
    assert spanning.decode_cursors(None, ["a"]) == {"a": ""}
    assert spanning.shares(7, 3) == [3, 2, 2]
    assert spanning.shares(1, 3) == [1, 0, 0]
