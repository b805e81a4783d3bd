"""HTTP ingest on a real port: the answer is the receipt, and comes after the commit."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn

from api.app import create_app
from core.settings import Settings
from core.tokens import Keys, Role, issue
from ingest import http
from tests.gateways.mosquitto import free_port
from tests.ingest.helpers import Database, changed, payload

pytestmark = pytest.mark.timeout(120)
FARMS = "/v1/ingest/farms/json"
BODY_BYTES_MAX = 20_000


class Server:
    """uvicorn on a port of its own, and a client that signs in as gateway g1."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        port = free_port()
        self._app = create_app(settings, [http.router(settings)])
        self._server = uvicorn.Server(uvicorn.Config(self._app, port=port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        token = issue(keys, Role.GATEWAY, gateway="g1")
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )

    def close(self) -> None:
        self.client.close()
        self._app.state.hub.end_streams()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def send(self, body: bytes, batch: str | None = None, path: str = FARMS, **headers: str) -> Any:
        if batch is not None:
            headers["Chimata-Batch"] = batch
        return self.client.post(path, content=body, headers=headers)


@pytest.fixture
def server(settings: Settings, keys: Keys) -> Iterator[Server]:
    started = Server(changed(settings, body_bytes_max=BODY_BYTES_MAX), keys)
    yield started
    started.close()


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    found: dict[str, Any] = answer.json()
    assert slug in found["type"]
    assert found["status"] == status
    return found


def test_the_receipt_is_the_contract_json(server: Server, database: Database) -> None:
    answer = server.send(payload(1.0, 2.0), "boot-1/7")
    assert answer.status_code == 200
    assert answer.json() == {
        "gateway": "g1",
        "boot": "boot-1",
        "stored": [[7, 7]],
        "batches": [
            {
                "seq": 7,
                "result": "stored",
                "received": 2,
                "stored": 2,
                "duplicate": 0,
                "rejected": 0,
                "reason": None,
                "detail": None,
            }
        ],
        "rejections": [],
    }
    assert database.results() == [1.0, 2.0]


def test_a_repeat_is_a_duplicate_and_other_bytes_a_conflict(
    server: Server, database: Database
) -> None:
    body = payload(1.0)
    server.send(body, "b/0")
    again = server.send(body, "b/0").json()
    assert again["stored"] == [[0, 0]]
    assert again["batches"][0]["result"] == "duplicate"
    other = server.send(payload(2.0), "b/0").json()
    assert other["stored"] == []
    assert (other["batches"][0]["result"], other["batches"][0]["reason"]) == (
        "refused",
        "batch-conflict",
    )
    assert database.results() == [1.0]


def test_a_loose_message_has_a_receipt_without_a_sequence(server: Server) -> None:
    answer = server.send(payload(1.0)).json()
    assert (answer["boot"], answer["stored"], answer["batches"][0]["seq"]) == (None, [], None)
    assert answer["batches"][0]["result"] == "stored"


def test_each_item_that_was_not_taken_is_named(server: Server, database: Database) -> None:
    body = (
        b'[{"thing":"t1","property":"battery","result":50},'
        b'{"thing":"t1","property":"battery","result":50,"phenomenon_time":"yesterday"},'
        b'{"thing":"t1","property":"soil-moisture","result":1,"unit":"kg"},'
        b'{"thing":"t1","property":"position","result":1}]'
    )
    answer = server.send(body, "b/0").json()
    batch = answer["batches"][0]
    assert (batch["result"], batch["received"], batch["stored"], batch["rejected"]) == (
        "stored",
        4,
        1,
        3,
    )
    assert answer["stored"] == [[0, 0]]
    by_reason = {each["reason"]: each["detail"] for each in answer["rejections"]}
    assert set(by_reason) == {"invalid-time", "bad-unit", "wrong-kind"}
    assert by_reason["invalid-time"].startswith("phenomenon_time")
    assert by_reason["bad-unit"].startswith("unit")
    assert database.query("SELECT count(*) FROM rejection") == [(3,)]


def test_a_body_of_which_nothing_can_be_read_is_refused_and_kept(
    server: Server, database: Database
) -> None:
    answer = server.send(b"\x00not json", "b/0").json()
    assert answer["stored"] == []
    assert answer["batches"][0]["result"] == "refused"
    assert database.query("SELECT payload, channel FROM rejection") == [(b"\x00not json", "http")]


def test_the_answer_waits_for_the_commit(
    server: Server, database: Database, settings: Settings
) -> None:
    server.send(payload(0.0), "b/0")
    with ThreadPoolExecutor(1) as pool:
        with database.locked("observation"):
            answer = pool.submit(server.send, payload(1.0, thing="t2"), "b/1")
            time.sleep(0.7)
            assert not answer.done()
        assert answer.result(20).json()["stored"] == [[1, 1]]
    assert database.results() == [0.0, 1.0]


def test_many_at_once_each_get_their_own_answer(server: Server, database: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda n: server.send(payload(float(n), thing=f"t{n}"), f"b/{n}").json(), range(64)
            )
        )
    assert [answer["stored"] for answer in answers] == [[[n, n]] for n in range(64)]
    assert database.results() == [float(n) for n in range(64)]
    (line,) = database.account()
    assert line.adds_up and (line.stored, line.missing) == (64, 0)


def test_storage_that_is_away_is_said_so_and_readers_are_not_held_up(
    settings: Settings, keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders fill the queue and wait; whoever reads a page meanwhile is answered at once."""
    monkeypatch.setattr(http, "COMMIT_SECONDS_MAX", 3.0)
    monkeypatch.setattr(http, "ROOM_SECONDS_MAX", 2.0)
    server = Server(changed(settings, queue_bytes_max=2_500), keys)
    try:
        with ThreadPoolExecutor(60) as pool, database.locked("sector_log"):
            waiting = [pool.submit(server.send, payload(1.0), f"b/{n}") for n in range(12)]
            time.sleep(0.5)
            began = time.monotonic()
            assert server.client.get("/v1/sectors").status_code == 200
            assert time.monotonic() - began < 1.5
            for each in waiting:
                problem(each.result(30), 503, "unavailable")
        # What was answered 503 is sent again and then stored, once.
        assert server.send(payload(1.0, thing="t9"), "again/0").json()["stored"] == [[0, 0]]
    finally:
        server.close()


# -- refusals ----


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "Bearer not.a.token"])
def test_without_a_valid_token_401(server: Server, database: Database, header: str) -> None:
    answer = server.send(payload(1.0), "b/0", Authorization=header)
    problem(answer, 401, "unauthenticated")
    assert database.query("SELECT count(*) FROM batch") == [(0,)]


def test_an_endless_token_is_401(server: Server) -> None:
    problem(
        server.send(payload(1.0), Authorization="Bearer " + "x" * 9_000), 401, "unauthenticated"
    )


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.STAFF, Role.CITIZEN])
def test_others_than_gateways_are_403(server: Server, keys: Keys, role: Role) -> None:
    token = issue(keys, role, subject="someone")
    problem(server.send(payload(1.0), Authorization=f"Bearer {token}"), 403, "forbidden")


@pytest.mark.parametrize(
    "path", ["/v1/ingest/nowhere/json", "/v1/ingest/farms/nmea", "/v1/ingest/unknown/json"]
)
def test_unknown_sectors_and_formats_are_404(server: Server, path: str) -> None:
    problem(server.send(payload(1.0), path=path), 404, "not-found")


def test_a_body_over_the_limit_is_413_declared_or_streamed(
    server: Server, database: Database
) -> None:
    long = b" " * (BODY_BYTES_MAX + 1)
    problem(server.send(long, "b/0"), 413, "too-large")
    chunks = (b" " * 1_000 for _ in range(BODY_BYTES_MAX // 1_000 + 1))
    problem(server.client.post(FARMS, content=chunks), 413, "too-large")
    assert database.query("SELECT count(*) FROM account") == [(0,)]


@pytest.mark.parametrize(
    "batch",
    ["", "b", "b/", "/1", "B/1", "b/x", "b/-1", "b/1/2", "b/1.0", f"b/{2**53}", "b/" + "9" * 5000],
)
def test_a_bad_identity_is_422_and_names_its_header(server: Server, batch: str) -> None:
    found = problem(server.send(payload(1.0), batch), 422, "invalid")
    assert "Chimata-Batch" in str(found)
